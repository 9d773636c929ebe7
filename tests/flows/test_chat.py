"""A run of two rounds in prompt style `chat` through the real command line, from a tiny model with a chat template."""

import json

import pytest

from selftrain import Picker
from selftrain.errors import UsageError
from selftrain.models.logprobs import summed_logprobs
from selftrain.models.models import end_ids, load_generator, load_tokenizer
from selftrain.models.prompts import encode_answers, encode_problem, reranker_template, style_of
from selftrain.problems.chat import completion_of
from selftrain.records import Candidate, Pair, Problem, read_records
from tests.command import Finished, PrefectServer, selftrain
from tests.selftrain.conftest import make_instruct

CONFIG = """
rounds: 2
problems: {{source: jsonl, files: [{folder}/problems.jsonl], languages: [py], check: "off"}}
model: {{base: {base}, prompt_style: chat}}
sft: {{epochs: 150, batch_size: 16, micro_batch_size: 16, learning_rate: 3.0e-3, warmup_steps: 10, max_tokens: 160}}
sample: {{engine: hf, rl: 8, evaluation: 4, max_new_tokens: 60, shard: 8}}
reward: {{epochs: 2, batch_size: 8, micro_batch_size: 4, max_tokens: 160}}
ppo: {{steps: 2, rollout_batch: 8, mini_batch: 8, micro_batch: 8, probe: 2, execution_weight: 0.5}}
evaluate: {{bootstrap: 100}}
runtime: {{processes: 1, backend: process, allow_no_isolation: true}}
store: {folder}/store
"""


@pytest.fixture(scope="module")
def run(server: PrefectServer, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The finished run. All problems have one prompt but for a number, so a model that learnt how answers look solves some."""
    folder = tmp_path_factory.mktemp("chat")
    base = make_instruct(folder / "instruct")
    splits = ["sft"] * 8 + ["rl"] * 6 + ["validation"] * 2 + ["test"] * 2
    rows = [
        {
            "task": f"add-{at}",
            "language": "py",
            "prompt": f"def add{'x' * (at % 3)}(n):\n",
            "tests": f"assert add{'x' * (at % 3)}(1) == {1 + at % 2}\n",
            "split": split,
            "stop_tokens": ["\ndef", "\n```", "("],
        }
        | ({"response": f"    return n + {at % 2}\n"} if split == "sft" else {})
        for at, split in enumerate(splits)
    ]
    (folder / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "chat.yaml").write_text(CONFIG.format(folder=folder, base=base))
    done = selftrain("run", str(folder / "chat.yaml"), "--out", str(folder / "out"))
    assert done.returncode == 0, done.stderr[-6000:]
    return Finished(folder / "store", folder / "out", done.stdout, done.stderr)


def test_all_stages_ask_and_read_in_the_same_style(run: Finished) -> None:
    problems = {p.id: p for p in read_records(run.folder("prepare") / "problems.parquet", Problem)}
    for name in ("sft", "ppo-1", "ppo-2", "rm-1", "rm-2"):
        assert style_of(load_tokenizer(run.folder(name))) == "chat"
    tokenizer = load_tokenizer(run.folder("sft"))
    ends = end_ids(tokenizer, run.folder("sft"))
    rows = read_records(run.folder("sample-sft-rl") / "candidates.parquet", Candidate)
    for row in rows:
        end = next((at for at, token in enumerate(row.token_ids) if token in ends), len(row.token_ids))
        text = tokenizer.decode(row.token_ids[:end], skip_special_tokens=True)
        assert row.completion == completion_of(problems[row.problem_id], text, "chat")
    right = [row for row in rows if row.completion in ("    return n + 0", "    return n + 1")]
    assert right, "the prompt's `(` and the block's end are stop tokens, and cut nothing"
    assert max(run.manifest("execute-sft-rl")["metrics"]["pass_rate"].values()) > 0
    assert run.manifest("ppo-1")["metrics"]["probes"][0]["pass_rate"] >= 0
    pairs = read_records(run.folder("mine-2") / "pairs.parquet", Pair)
    assert {pair.prompt for pair in pairs} <= {problem.prompt for problem in problems.values()}
    config = json.loads((run.folder("rm-2") / "config.json").read_text())
    assert config["prompt_template"] == reranker_template(tokenizer, "{prompt}")
    assert config["prompt_template"].endswith("<sep>assistant\n```\n{prompt}")


def test_a_picker_asks_the_generator_in_its_style(run: Finished) -> None:
    way = "rm-2+logprob"
    picker = Picker.load(run.out, way)
    texts = ["    return n + 1", "    return n - 1"]
    found = picker.rank("def add(n):\n", texts)
    assert picker.rank("def add(n):\n", texts, "python") == found
    tokenizer = load_tokenizer(run.folder("sft"))
    head = encode_problem(tokenizer, "def add(n):\n", "py")
    rows = encode_answers(tokenizer, "def add(n):\n", texts, "py")
    sums = summed_logprobs(load_generator(run.folder("sft")).eval(), [head] * 2, rows)
    assert found.logprobs == pytest.approx(
        [a / len(row) for a, row in zip(sums, rows, strict=True)], abs=1e-5
    )
    done = selftrain("rank", str(run.out), "--by", way, "--example")
    assert done.returncode == 0, done.stderr[-2000:]
    several = picker.run | {"config": {"problems": {"languages": ["py", "sh"]}}}
    with pytest.raises(UsageError, match="say which of py, sh"):
        Picker(several, picker.reranker, way, picker.evaluated).rank("def add(n):\n", texts)
