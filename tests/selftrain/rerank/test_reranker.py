"""Tests of the reranker: its ranking, its scores, refused inputs, and that it is an ordinary checkpoint."""

import json
import math
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    LlamaConfig,
    LlamaForSequenceClassification,
    MistralConfig,
    MistralForSequenceClassification,
    Qwen2Config,
    Qwen2ForSequenceClassification,
)

from selftrain import Picker, Ranking, Reranker
from selftrain.errors import CorruptArtifact, RunError, UsageError
from selftrain.models.context import context_of
from selftrain.models.models import encode_completion, encode_prompt, load_tokenizer
from selftrain.rerank.batches import BATCH_TOKENS, batches
from selftrain.rerank.scoring import shuffled_prompts
from tests.command import Finished
from tests.selftrain.conftest import make_problems

PROMPT = "def add(n):  # n + 7\n"
CANDIDATES = ["    return n + 7\n", "    return n\n", "", "    return n + 7\n", "    pass\n" * 8]


@pytest.fixture(scope="module")
def loaded(request: pytest.FixtureRequest) -> Reranker:
    """The tiny reranker."""
    return Reranker.load(request.getfixturevalue("reranker"))


def test_higher_scores_come_first_and_ties_keep_their_order():
    ranking = Ranking((0.5, 2.0, 0.5, 2.0, -1.0))
    assert ranking.order == (1, 3, 0, 2, 4)
    assert ranking.best == 1


def test_it_ranks_by_the_score_of_prompt_and_completion(loaded: Reranker):
    ranking = loaded.rank(PROMPT, CANDIDATES)
    assert len(ranking.scores) == len(CANDIDATES)
    assert ranking.scores[0] == ranking.scores[3], "the same program has the same score"
    assert len(set(ranking.scores)) == 4
    assert ranking.scores[ranking.best] == max(ranking.scores)
    assert loaded.rank("def other(n):  # n + 9\n", CANDIDATES).scores != ranking.scores, "it reads the prompt"


def test_a_score_does_not_depend_on_what_is_scored_with_it(loaded: Reranker, monkeypatch: pytest.MonkeyPatch):
    problems = [(PROMPT, CANDIDATES), ("other", ["a", "bb" * 20]), ("none", [])]
    together = list(loaded.score_many(problems, exact=True))
    assert [len(scores) for scores in together] == [5, 2, 0]
    alone = [next(loaded.score_many([(PROMPT, [text])], exact=True))[0] for text in CANDIDATES]
    assert together[0] == pytest.approx(alone, rel=1e-5)
    read = [loaded.rank(PROMPT, [text]).scores[0] if text else -math.inf for text in CANDIDATES]
    assert next(loaded.score_many(problems)) == pytest.approx(read, rel=1e-5)
    monkeypatch.setitem(BATCH_TOKENS, "cpu", 1)
    assert next(loaded.score_many(problems, exact=True)) == pytest.approx(alone, rel=1e-5)
    assert loaded.rank(PROMPT, CANDIDATES).scores == pytest.approx(read, rel=1e-5)


def test_stored_in_bfloat16_a_score_does_not_depend_on_batch_order_or_company_either(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = Path(shutil.copytree(request.getfixturevalue("reranker"), tmp_path / "half"))
    LlamaForSequenceClassification.from_pretrained(folder).bfloat16().save_pretrained(folder)
    assert json.loads((folder / "config.json").read_text())["dtype"] == "bfloat16"
    half = Reranker.load(folder)
    problems = [(PROMPT, CANDIDATES), ("other", ["a", "bb" * 20]), ("x" * 30, ["c", "    pass\n" * 3])]
    alone = [[half.score(prompt, [text])[0] for text in texts] for prompt, texts in problems]
    found = []
    for budget in (1, 60, 2048):
        monkeypatch.setitem(BATCH_TOKENS, "cpu", budget)
        found.append(list(half.score_many(problems)))
        backwards = [(prompt, texts[::-1]) for prompt, texts in problems[::-1]]
        found.append([scores[::-1] for scores in half.score_many(backwards)][::-1])
    assert max(map(max, alone)) - min(map(min, alone)) > 1
    for scores in found:
        for got, expected in zip(scores, alone, strict=True):
            assert got == pytest.approx(expected, abs=1e-4)


def test_scores_are_a_stream_that_reads_a_window_ahead_and_keeps_the_order(loaded: Reranker):
    read: list[int] = []

    def problems() -> Iterator[tuple[str, list[str]]]:
        for at in range(9):
            read.append(at)
            yield "x" * (9 - at), CANDIDATES[: at % 3]

    expected = [loaded.score(prompt, texts) for prompt, texts in problems()]
    read.clear()
    stream = loaded.score_many(problems(), window=4)
    assert not read, "nothing is read before it is asked for"
    found = [next(stream)]
    assert read == [0, 1, 2], "no candidate counts as one"
    found += stream
    assert [len(scores) for scores in found] == [0, 1, 2] * 3
    for got, scores in zip(found, expected, strict=True):
        assert got == pytest.approx(scores, abs=1e-4)
    assert list(loaded.score_many([])) == []


def test_the_pick_is_the_text_with_the_highest_score(loaded: Reranker):
    scores = loaded.score(PROMPT, CANDIDATES)
    assert loaded.pick(PROMPT, CANDIDATES) == CANDIDATES[scores.index(max(scores))]
    assert loaded.rank(PROMPT, CANDIDATES).scores == tuple(scores)


def test_a_prompt_is_read_once_for_all_of_its_candidates(loaded: Reranker):
    problems = [(PROMPT, CANDIDATES), ("other", ["a", "bb" * 20]), ("none", [])]
    read = []
    hook = loaded.model.base_model.register_forward_hook(
        lambda _, given, out: read.append(tuple(out.last_hidden_state.shape[:2]))
    )
    list(loaded.score_many(problems, exact=True))
    hook.remove()
    head = encode_prompt(loaded.tokenizer, PROMPT)
    rows = [head + encode_completion(loaded.tokenizer, text) for text in CANDIDATES]
    assert min(map(len, rows)) == len(head) + 1, "the empty candidate is the prompt and the end token"
    # The beginnings of five, two and no candidates in one batch, then what follows them in another.
    other = len(encode_prompt(loaded.tokenizer, "other"))
    assert read == [(3, max(len(head), other)), (7, max(map(len, rows)) - len(head))]


def test_what_candidates_begin_with_alike_is_read_once(loaded: Reranker):
    texts = ["    return n + 7"] * 2
    expected = loaded.rank(PROMPT, [texts[0], ""]).scores[0]
    read = []
    hook = loaded.model.base_model.register_forward_hook(
        lambda _, given, out: read.append(tuple(out.last_hidden_state.shape[:2]))
    )
    found = next(loaded.score_many([(PROMPT, texts)], exact=True))
    loaded.rank(PROMPT, texts)
    hook.remove()
    whole = len(encode_prompt(loaded.tokenizer, PROMPT) + encode_completion(loaded.tokenizer, texts[0]))
    assert read[:2] == [(1, whole - 1), (2, 1)], "all but the end token"
    assert read[2:] == [(1, whole - 1), (1, 1)], "equal candidates are read once"
    assert found == pytest.approx([expected] * 2, rel=1e-5)


ARCHITECTURES = {
    "Llama": (LlamaConfig, LlamaForSequenceClassification, {}),
    "Qwen2": (Qwen2Config, Qwen2ForSequenceClassification, {}),
    "Mistral": (MistralConfig, MistralForSequenceClassification, {"sliding_window": 6}),
}


@pytest.mark.parametrize("pad", ["<pad>", "<end>"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_scores_are_those_of_each_text_alone_through_plain_transformers(
    generator: Path, monkeypatch: pytest.MonkeyPatch, name: str, pad: str
):
    """With any padding, with the end token as padding, and where attention reaches back six tokens only."""
    tokenizer = load_tokenizer(generator)
    tokenizer.pad_token = pad
    config, kind, options = ARCHITECTURES[name]
    torch.manual_seed(0)
    model = kind(
        config(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            initializer_range=0.2,
            num_labels=1,
            pad_token_id=tokenizer.pad_token_id,
            **options,
        )
    ).eval()
    problems = [(PROMPT, CANDIDATES), ("", ["a", ""]), ("x" * 40, ["bb" * 20, "c"]), ("one", ["d"])]
    expected = []
    for prompt, texts in problems:
        for text in texts:
            ids = encode_prompt(tokenizer, prompt) + encode_completion(tokenizer, text)
            with torch.inference_mode():
                expected.append(model(input_ids=torch.tensor([ids])).logits.item())
    assert max(expected) - min(expected) > 0.1
    for budget in (1, 60, 2048):
        monkeypatch.setitem(BATCH_TOKENS, "cpu", budget)
        scores = Reranker(model, tokenizer).score_many(problems, exact=True)
        found = [score for each in scores for score in each]
        assert found == pytest.approx(expected, abs=1e-5)


def test_batches_hold_similar_lengths_and_no_more_tokens_than_said(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(BATCH_TOKENS, "cpu", 12)
    assert batches([3, 9, 4, 3, 20, 4], "cpu") == [[0, 3, 2], [5], [1], [4]]


def test_nothing_to_rank_is_said(loaded: Reranker):
    with pytest.raises(UsageError, match="at least one candidate"):
        loaded.rank(PROMPT, [])


def test_other_forms_of_a_candidate_have_its_score(loaded: Reranker):
    prompt = "def add(n):\n"
    [expected] = loaded.score_many([(prompt, ["    return n + 7"])], exact=True)
    forms = [
        "    return n + 7",
        "    return n + 7 \n\n",
        "    return n + 7\r\n",
        prompt + "    return n + 7\n",
    ]
    forms += [f"Here it is:\n\n```python\n{prompt}    return n + 7\n```\nIt adds."]
    assert loaded.score(prompt, forms) == pytest.approx(expected * 5)
    assert loaded.score("def add(n):", forms[:2]) == pytest.approx(expected * 2)
    assert loaded.pick(prompt, forms) == forms[0]


def test_a_candidate_that_cannot_be_scored_comes_last_and_is_told(loaded: Reranker):
    longest = context_of(loaded.model.config)
    texts = ["", "    x = 1\n" * 2000, "    return n", "```\n```", "    return '\ud800'"]
    ranking = loaded.rank(PROMPT, texts)
    tokens = len(
        encode_prompt(loaded.tokenizer, PROMPT) + encode_completion(loaded.tokenizer, texts[1].rstrip())
    )
    assert (ranking.best, ranking.order) == (2, (2, 0, 1, 3, 4))
    assert [score == -math.inf for score in ranking.scores] == [True, True, False, True, True]
    assert dict(ranking.refused) == {
        0: "it is empty, or holds no program",
        1: f"with the prompt it has {tokens} tokens; the reranker reads no more than {longest}",
        3: "it is empty, or holds no program",
        4: "it is no Unicode text: half of a surrogate pair",
    }
    with pytest.raises(UsageError, match="no candidate can be ranked; the first: it is empty"):
        loaded.rank(PROMPT, ["", "\n"])


@pytest.mark.parametrize(
    ("prompt", "candidates", "said"),
    [
        ("", ["a"], "the prompt is empty"),
        (" \n", ["a"], "the prompt is empty"),
        (None, ["a"], "the prompt: expected a text, got None"),
        ("a", "abc", "expected a list of texts, got one text"),
        ("a", b"abc", "expected a list of texts, got one text"),
        ("a", 7, "expected a list of texts, got a value of type int"),
        ("a", ["a", 7], "candidate 2 of 2: expected a text, got a value of type int"),
        ("a", [None], "candidate 1 of 1: expected a text, got None"),
    ],
)
def test_what_is_no_text_is_refused_in_one_line(loaded: Reranker, prompt: Any, candidates: Any, said: str):
    for call in (loaded.rank, loaded.score, loaded.pick, lambda *pair: list(loaded.score_many([pair]))):
        with pytest.raises(UsageError, match=said) as error:
            call(prompt, candidates)
        assert "\n" not in str(error.value)


def test_a_picker_and_a_reranker_refuse_what_is_no_language(loaded: Reranker):
    picker = Picker({}, loaded, "rm-1", {"logprob_weights": {"rm-1": 0.5}})
    calls: list[Any] = [loaded.rank, loaded.score, loaded.pick, picker.rank]
    calls += [lambda *asked: loaded.rank_many([asked]), lambda *asked: picker.rank_many([asked])]
    for language, said in (("klingon", "unknown language 'klingon'"), (7, "the language: expected a text")):
        for call in calls:
            with pytest.raises(UsageError, match=said):
                call(PROMPT, CANDIDATES, language)
    assert loaded.score(PROMPT, CANDIDATES, "Python") == loaded.score(PROMPT, CANDIDATES, "py")


@pytest.mark.parametrize("problem", [(PROMPT, CANDIDATES, "py"), PROMPT, (PROMPT,), 7])
def test_a_problem_of_a_stream_is_a_prompt_with_candidates(loaded: Reranker, problem: Any):
    with pytest.raises(UsageError, match=r"problems: expected pairs of a prompt and its candidates"):
        list(loaded.score_many([problem]))


def test_a_generator_is_no_reranker(generator: Path):
    with pytest.raises(
        UsageError, match=r"expected a sequence classifier, its config\.json names \['LlamaForCausalLM'\]"
    ):
        Reranker.load(generator)


@pytest.fixture
def broken(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of the tiny reranker, to be harmed."""
    return Path(shutil.copytree(request.getfixturevalue("reranker"), tmp_path / "broken"))


def test_two_labels_are_no_score(broken: Path):
    config = json.loads((broken / "config.json").read_text())
    config |= {"id2label": {"0": "a", "1": "b"}, "label2id": {"a": 0, "b": 1}}
    (broken / "config.json").write_text(json.dumps(config))
    with pytest.raises(UsageError, match="expected one label .*num_labels=2"):
        Reranker.load(broken)


@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
)
def test_a_truncated_file_is_said_to_be_unreadable(broken: Path, name: str):
    os.truncate(broken / name, (broken / name).stat().st_size // 2)
    with pytest.raises(UsageError, match=rf"{broken}: cannot be loaded as"):
        Reranker.load(broken)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("config.json", {"hidden_size": "16"}),
        ("config.json", {"num_attention_heads": 7}),
        ("tokenizer.json", {"added_tokens": None}),
        ("tokenizer_config.json", []),
    ],
)
def test_files_with_other_content_than_expected_are_said(broken: Path, name: str, changes: Any):
    """transformers raises errors of many types for them."""
    content = {**json.loads((broken / name).read_text()), **changes} if changes else changes
    (broken / name).write_text(json.dumps(content))
    with pytest.raises(UsageError, match=rf"{broken}: cannot be loaded as"):
        Reranker.load(broken)


def test_a_tokenizer_of_a_larger_model_is_said(broken: Path):
    tokens = json.loads((broken / "tokenizer.json").read_text())
    known = tokens["model"]["vocab"]
    known |= {f"more{number}": len(known) + number for number in range(1000)}
    known |= {one: len(known) + number for number, one in enumerate(known) if one.startswith("e")}
    (broken / "tokenizer.json").write_text(json.dumps(tokens))
    reranker = Reranker.load(broken)
    for call in (reranker.rank, reranker.score, lambda *pair: list(reranker.score_many([pair], exact=True))):
        with pytest.raises(
            UsageError, match=rf"{broken}: its tokenizer gives the token \d+, and the model knows"
        ):
            call(PROMPT, ["    return eee\n"])


@pytest.mark.parametrize("score", [math.nan, math.inf])
def test_scores_that_are_no_finite_numbers_are_told_and_not_ranked(broken: Path, score: float):
    weights = load_file(broken / "model.safetensors")
    weights["score.weight"] = weights["score.weight"] * 0 + score
    save_file(weights, broken / "model.safetensors", {"format": "pt"})
    reranker = Reranker.load(broken)
    for call in (
        reranker.rank,
        reranker.score,
        reranker.pick,
        lambda *pair: list(reranker.score_many([pair])),
    ):
        with pytest.raises(RunError, match="a score that is not a finite number: its weights are damaged"):
            call(PROMPT, ["    return 1\n", "    return 2\n"])


def test_a_missing_tokenizer_or_missing_weights_are_said(broken: Path):
    (broken / "tokenizer.json").unlink()
    (broken / "tokenizer_config.json").unlink()
    with pytest.raises(UsageError, match=str(broken)):
        Reranker.load(broken)
    (broken / "model.safetensors").unlink()
    with pytest.raises(UsageError, match="AutoModelForSequenceClassification"):
        Reranker.load(broken)


def test_a_folder_without_a_reranker_is_said(tmp_path: Path):
    with pytest.raises(UsageError, match=r"expected a reranker's folder .* or a run's folder"):
        Reranker.load(tmp_path / "nowhere")
    record: dict[str, Any] = {
        "name": "made",
        "store": str(tmp_path),
        "finished": True,
        "seconds": 1,
        "config": {},
    }
    record |= {"stages": {"rm-1": {"stage": "train_reward", "key": "a" * 32}}, "reranker": None}
    (tmp_path / "run.json").write_text(json.dumps(record))
    with pytest.raises(UsageError, match="has not trained a reranker yet"):
        Reranker.load(tmp_path)
    (tmp_path / "run.json").write_text(json.dumps(record | {"reranker": "../gone"}))
    with pytest.raises(CorruptArtifact, match="no manifest in .*; run again to rebuild it"):
        Reranker.load(tmp_path)


PLAIN = """
import json, sys
sys.path.append(sys.argv[1])
try:
    import selftrain.rerank.reranker  # a folder of data files may have the name
    sys.exit("this project can be imported here")
except ImportError:
    pass
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

folder, prompt, candidates = sys.argv[2], sys.argv[3], sys.argv[4:]
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
scores = []
for text in candidates:
    ids = [*tokenizer(prompt).input_ids, tokenizer.sep_token_id, *tokenizer(text).input_ids, tokenizer.eos_token_id]
    with torch.inference_mode():
        scores.append(model(input_ids=torch.tensor([ids])).logits.item())
print(json.dumps(scores))
"""


def test_the_exported_folder_needs_nothing_but_transformers(smoke_run: Finished, tmp_path: Path):
    folder = smoke_run.folder("rm-2")
    texts = [text.rstrip() for text in CANDIDATES if text]
    expected = Reranker.load(smoke_run.out).rank(PROMPT, CANDIDATES)
    assert [at for at in range(len(CANDIDATES)) if at not in expected.refused] == [0, 1, 3, 4]
    # -S leaves out the .pth files, by which an editable install is found.
    command = [
        sys.executable,
        "-I",
        "-S",
        "-c",
        PLAIN,
        sysconfig.get_path("purelib"),
        str(folder),
        PROMPT,
        *texts,
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    scores = [score for at, score in enumerate(expected.scores) if at not in expected.refused]
    assert json.loads(done.stdout) == pytest.approx(scores, abs=1e-5)
    assert not [path.name for path in folder.rglob("*") if path.suffix in {".bin", ".pt", ".pth", ".pkl"}]


def test_the_control_reads_each_candidate_behind_another_problem_of_its_split_and_language():
    made = make_problems()
    prompts = shuffled_prompts(made)
    owner = {problem.prompt: problem for problem in made}
    assert len(owner) == len(made)
    for problem in made:
        other = owner[prompts[problem.id]]
        assert other.id != problem.id
        assert other.split == problem.split
    assert shuffled_prompts(made[::-1]) == prompts
    alone = replace(made[0], language="sh")
    assert shuffled_prompts([alone, *made[1:]])[alone.id] == alone.prompt
