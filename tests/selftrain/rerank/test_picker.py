"""Tests of `Picker`: the run's ranking rule, the warning about texts out of distribution, and example problems."""

import json
from collections import defaultdict

import pytest
import torch
from transformers import AutoModelForCausalLM

from selftrain import Picker, Reranker
from selftrain.errors import UsageError
from selftrain.models.models import encode_completion, encode_prompt, load_tokenizer
from selftrain.records import Candidate, Execution, read_records
from selftrain.rerank.picker import Picked, example
from tests.command import Finished

PROMPT = 'def f(xs):\n    """ Add all numbers of xs. """\n'
CANDIDATES = ["    return sum(xs)\n", "    return xs\n", "    return sum(xs)\n", ""]


def test_it_adds_the_generators_log_probability_to_the_score(smoke_run: Finished):
    picker = Picker.load(smoke_run.out, "rm-2+logprob")
    picked = picker.rank(PROMPT, CANDIDATES)
    assert picked.logprobs is not None
    model = AutoModelForCausalLM.from_pretrained(smoke_run.folder("sft")).eval()
    tokenizer = load_tokenizer(smoke_run.folder("sft"))
    head = encode_prompt(tokenizer, PROMPT)
    for text, found in zip(CANDIDATES, picked.logprobs, strict=True):
        row = encode_completion(tokenizer, text)
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([head + row])).logits[0]
        logs = [logits[len(head) + at - 1].log_softmax(-1)[token].item() for at, token in enumerate(row)]
        assert found == pytest.approx(sum(logs) / len(row), abs=1e-4)
    weight = json.loads((smoke_run.folder("evaluate") / "evaluation.json").read_text())["logprob_weights"][
        "rm-2"
    ]
    scores = Reranker.load(smoke_run.folder("rm-2")).rank(PROMPT, CANDIDATES).scores
    expected = [score + weight * log for score, log in zip(scores, picked.logprobs, strict=True)]
    assert picked.scores == pytest.approx(expected)
    assert picked.scores[0] == picked.scores[2]


def test_the_way_is_the_one_that_validation_chose_and_can_be_another(smoke_run: Finished):
    chosen = smoke_run.manifest("evaluate")["metrics"]["chosen"]
    assert Picker.load(smoke_run.out).way == chosen
    alone = Picker.load(smoke_run.out, "rm-2")
    picked = alone.rank(PROMPT, CANDIDATES)
    assert picked.scores == Reranker.load(smoke_run.folder("rm-2")).rank(PROMPT, CANDIDATES).scores
    assert (picked.logprobs, picked.far) == (None, None)
    assert "_generator" not in vars(alone), "it is not loaded"
    with pytest.raises(UsageError, match=r"'rm-1': expected rm-2 or rm-2\+logprob"):
        Picker.load(smoke_run.out, "rm-1")
    with pytest.raises(UsageError, match=r"no run\.json there"):
        Picker.load(smoke_run.store)


def test_what_is_usual_is_what_the_runs_own_candidates_are(smoke_run: Finished):
    means: dict[str, list[float]] = defaultdict(list)
    path = smoke_run.folder("sample-sft-evaluation") / "candidates.parquet"
    for row in read_records(path, Candidate):
        means[row.problem_id].append(row.logprob / max(1, len(row.token_ids)))
    expected = min(sum(found) / len(found) for found in means.values())
    assert Picker.load(smoke_run.out).lowest == pytest.approx(expected)


@pytest.mark.parametrize(
    ("logprobs", "lowest", "far"),
    [
        ((-1.0, -1.2), -0.5, True),
        ((-1.0, -0.8), -0.5, False),
        ((-0.1, -0.2), -0.5, False),
        (None, -0.5, None),
    ],
)
def test_texts_are_far_where_they_are_twice_as_unlikely_as_any_of_the_runs(
    logprobs: tuple[float, ...] | None, lowest: float, far: bool | None
):
    assert Picked((0.0, 0.0), logprobs, lowest).far is far


def test_a_prompt_beyond_the_generators_longest_input_is_refused(smoke_run: Finished):
    with pytest.raises(UsageError, match=r"no more than \d+ in all.* rank by rm-2 alone"):
        Picker.load(smoke_run.out, "rm-2+logprob").rank("x = 1\n" * 500, ["pass\n"])


def test_an_example_is_a_problem_of_the_run_with_the_sandboxs_verdicts(smoke_run: Finished):
    found = example(smoke_run.out)
    executions = read_records(smoke_run.folder("execute-sft-evaluation") / "executions.parquet", Execution)
    verdicts = {row.candidate_id: row.verdict for row in executions}
    expected: dict[str, str] = {}
    for row in read_records(smoke_run.folder("sample-sft-evaluation") / "candidates.parquet", Candidate):
        if row.problem_id == found.id and row.sample >= 0:
            expected.setdefault(row.completion, str(verdicts[row.id]))
    assert dict(zip(found.candidates, found.verdicts, strict=True)) == expected
    assert example(smoke_run.out, found.id) == found
    with pytest.raises(
        UsageError, match=rf"nope: no test problem of the run; expected one such as {found.id}"
    ):
        example(smoke_run.out, "nope")
