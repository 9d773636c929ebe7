"""Tests of `Picker`: the run's ranking rule, the warning about texts out of distribution, and example problems."""

import json
import math
import shutil
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from selftrain import Picker, Reranker
from selftrain.champion.registry import Contender, Record, Registry
from selftrain.errors import UsageError
from selftrain.evaluation.comparisons import UNTRAINED
from selftrain.evaluation.pools import Pool, load_pool, with_logprob
from selftrain.evaluation.scores import read_scores
from selftrain.models.models import encode_completion, encode_prompt, load_tokenizer
from selftrain.records import Candidate, Execution, Pair, Problem, read_records
from selftrain.rerank.example import example
from selftrain.rerank.normal import normal
from selftrain.rerank.picker import Picked
from selftrain.rerank.ranker import load_ranker
from selftrain.serve.served import Served, Wanted
from selftrain.store.store import Store
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
    rows = read_records(smoke_run.folder("sample-sft-evaluation") / "candidates.parquet", Candidate)
    ended = sum(row.token_ids[-1] == tokenizer.eos_token_id for row in rows)
    assert picked.logprobs[3] is None
    for text, found in zip(CANDIDATES[:3], picked.logprobs[:3], strict=True):
        row = encode_completion(tokenizer, text.rstrip())
        if 2 * ended < len(rows):
            row = row[:-1]
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([head + row])).logits[0]
        logs = [logits[len(head) + at - 1].log_softmax(-1)[token].item() for at, token in enumerate(row)]
        assert found == pytest.approx(sum(logs) / len(row), abs=1e-4)
    weight = json.loads((smoke_run.folder("evaluate") / "evaluation.json").read_text())["logprob_weights"][
        "rm-2"
    ]
    scores = Reranker.load(smoke_run.folder("rm-2")).rank(PROMPT, CANDIDATES).scores
    expected = [score + weight * log for score, log in zip(scores[:3], picked.logprobs[:3], strict=True)]
    assert picked.scores == pytest.approx([*expected, -math.inf])
    assert dict(picked.refused) == {3: "it is empty, or holds no program"}
    given = picker.rank(PROMPT, CANDIDATES, mean_logprobs=[-0.5, -1.0, -2.0, 0.0])
    assert given.scores == pytest.approx(
        [scores[0] - 0.5 * weight, scores[1] - weight, scores[2] - 2 * weight, -math.inf]
    )
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


def pool_of(run: Finished, split: str) -> Pool:
    """The run's SFT pool, with the scores of its evaluation."""
    stored = read_scores(run.folder("evaluate"), "sft", ["rm-2"])
    result = json.loads((run.folder("evaluate") / "evaluation.json").read_text())
    inputs = {
        "problems": run.folder("prepare"),
        "sft.candidates": run.folder("sample-sft-evaluation"),
        "sft.executions": run.folder("execute-sft-evaluation"),
    }
    pool = load_pool(inputs, "sft", split, stored)
    return with_logprob(pool, {"rm-2": result["logprob_weights"]["rm-2"]})


@pytest.mark.parametrize("way", ["rm-2", "rm-2+logprob"])
def test_its_picks_are_those_that_the_run_evaluated(smoke_run: Finished, way: str):
    picker = Picker.load(smoke_run.out, way)
    pool = pool_of(smoke_run, "test")
    assert len(pool.problems) == 16
    for problem in pool.problems:
        logprobs = problem.mean_logprob.tolist()
        found = picker.rank(problem.prompt, problem.completions, mean_logprobs=logprobs, exact=True)
        assert found.scores == pytest.approx(problem.scores[way].tolist(), abs=1e-4)
        assert problem.scores[way][found.best] == pytest.approx(problem.scores[way].max(), abs=1e-4)
    assert "_generator" not in vars(picker), "it is not loaded"


def test_what_mining_and_ppo_train_on_is_in_normal_form_but_for_blanks_at_its_end(smoke_run: Finished):
    """So one form holds in mining, PPO and ranking."""
    problems = {
        row.id: row for row in read_records(smoke_run.folder("prepare") / "problems.parquet", Problem)
    }
    texts = set()
    for name in ("sample-sft-rl", "sample-ppo-1-rl", "sample-sft-evaluation"):
        rows = read_records(smoke_run.folder(name) / "candidates.parquet", Candidate)
        texts |= {(row.problem_id, row.completion) for row in rows}
    pairs = read_records(smoke_run.folder("mine-2") / "pairs.parquet", Pair)
    texts |= {(row.problem_id, text) for row in pairs for text in (row.chosen, row.rejected)}
    assert len(texts) > 100
    changed = [
        text
        for id, text in texts
        if normal(problems[id].prompt, text, stops=problems[id].stop_tokens)
        != (problems[id].prompt, text.rstrip())
    ]
    # A model of a few steps may write the function's head once more, which makes its text a whole program.
    assert [text for text in changed if "solve" not in text] == []
    assert len(changed) <= len(texts) / 50


def test_how_close_two_programs_are_is_the_chance_by_the_runs_calibration(smoke_run: Finished):
    picker = Picker.load(smoke_run.out, "rm-2")
    picker.evaluated = dict(picker.evaluated) | {"calibration": {"rm-2": {"scale": 2.0, "offset": 0.0}}}
    texts = ["    return sum(xs)", "    return sum(xs)\n", "    return xs"]
    picked = picker.rank(PROMPT, texts)
    apart = abs(picked.scores[0] - picked.scores[2])
    assert picked.chance == pytest.approx(1 / (1 + math.exp(-2 * apart)))
    assert picked.close is (picked.chance < 0.6)
    assert picker.rank(PROMPT, texts[:2]).chance is None, "they are one program"
    assert (Picked((0.0, 0.0), chance=0.59).close, Picked((0.0, 0.0), chance=0.6).close) == (True, False)


def test_logprobs_must_be_one_number_for_each_candidate(smoke_run: Finished):
    picker = Picker.load(smoke_run.out)
    for wrong in ([-1.0], [-1.0, math.nan], [-1.0, 2.0], [-1.0, "x"], [-1.0, False], "-1", 2):
        with pytest.raises(
            UsageError, match="mean_logprobs: expected a mean log-probability per token for each of 2"
        ):
            picker.rank(PROMPT, ["a", "b"], mean_logprobs=wrong)


def test_what_it_solves_is_what_the_report_says_against_the_best_untrained_way(smoke_run: Finished):
    report = smoke_run.report
    for way in ("rm-2", "rm-2+logprob"):
        found = report["headline"][way]
        overall = report["pools"]["sft"]["overall"]
        assert found["solved"]["value"] == overall["rankers"][way]["value"]
        ways = {name: row["value"] for name, row in overall.items() if name in UNTRAINED and row}
        ways |= {name: row["value"] for name, row in overall["rankers"].items() if name == "agreement"}
        assert found["rival_solved"]["value"] == max(ways.values()) == ways[found["rival"]]
        gain = found["difference"]
        assert gain["value"] == pytest.approx(found["solved"]["value"] - found["rival_solved"]["value"])
        assert gain["low"] <= gain["value"] <= gain["high"]
        text = f"{way} picks a right program on {100 * found['solved']['value']:.1f} %"
        assert text in Picker.load(smoke_run.out, way).solved
    assert report["chosen"] == Picker.load(smoke_run.out).way
    assert f"{report['chosen']} picks a right program on" in smoke_run.stdout


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


def test_a_server_of_a_run_says_which_texts_are_unlike_the_training(smoke_run: Finished):
    picker = Picker.load(smoke_run.out, "rm-2+logprob")
    served = Served("run", picker)
    for lowest, far in ((-1e-6, True), (-1e6, False)):
        vars(picker.likelihood)["lowest"] = lowest  # in place of the run's own
        [ranked] = served.rank([served.read(PROMPT, CANDIDATES)])
        assert ("unlike what rm-2+logprob was trained on" in ranked.far) is far
        assert ranked.only([1, 2]).far == ranked.far


def test_a_prompt_beyond_the_generators_longest_input_is_refused(smoke_run: Finished):
    picker = Picker.load(smoke_run.out, "rm-2+logprob")
    with pytest.raises(UsageError, match=r"it has \d+ tokens; the reranker reads no more than \d+"):
        picker.rank("x = 1\n" * 500, ["pass\n"])
    picker.reranker.model.config.max_position_embeddings = 10_000
    with pytest.raises(UsageError, match=r"it has \d+ tokens; the run's generator reads no more than \d+"):
        picker.rank("x = 1\n" * 500, ["pass\n"])
    picked = picker.rank(PROMPT, ["    return 1", "    x = 1\n" * 500])
    assert (picked.best, list(picked.refused)) == (0, [1])


def test_what_the_generator_cannot_read_is_ranked_by_the_reranker_alone(smoke_run: Finished):
    picker = Picker.load(smoke_run.out, "rm-2")
    picker.tells_far = True
    picker.reranker.model.config.max_position_embeddings = 10_000
    picked = picker.rank(PROMPT, ["    return 1", "    x = 1\n" * 500])
    assert not picked.refused
    assert all(map(math.isfinite, picked.scores))
    assert picked.logprobs is not None
    assert picked.logprobs[0] is not None
    assert picked.logprobs[1] is None
    assert picked.far is not None


def test_many_are_ranked_without_the_generator_where_the_rule_does_not_need_it(smoke_run: Finished):
    picker = Picker.load(smoke_run.out, "rm-2")
    picker.tells_far = True
    [some, none] = picker.rank_many([(PROMPT, CANDIDATES, None), (PROMPT, [""], "py")])
    assert some.scores == pytest.approx(Picker.load(smoke_run.out, "rm-2").rank(PROMPT, CANDIDATES).scores)
    assert dict(none.refused) == {0: "it is empty, or holds no program"}
    assert "_generator" not in vars(picker)


def contender(run: Finished, **more: object) -> Contender:
    """The last reranker of a run as a champion."""
    ref = {name: f"{found['stage']}/{found['key']}" for name, found in run.stages.items()}
    given = {"generator": ref["sft"], "problems": ref["prepare"], "evaluation": ref["evaluate"]}
    return Contender.model_validate({"reranker": ref["rm-2"], "rounds": 2, "ranker": "rm-2"} | given | more)


def test_the_champion_is_loaded_and_served_as_its_run_is(smoke_run: Finished, tmp_path: Path):
    shutil.copytree(smoke_run.store, tmp_path / "store")
    store, place = Store(str(tmp_path / "store")), f"champion@{tmp_path / 'store'}"
    by_hand = {"generator": None, "problems": None, "evaluation": None}
    champions = [
        contender(smoke_run),
        contender(smoke_run, ranker="rm-2+logprob", logprob_weight=1.0),
        contender(smoke_run, **by_hand),
    ]
    for number, champion in enumerate(champions, 1):
        record = Record(number=number, decision="promoted", reason="made", champion=champion)
        assert Registry(store, "smoke").append(record)
        picker, expected = Picker.load(place), Picker.load(smoke_run.out, champion.ranker)
        assert (picker.way, picker.weight) == (champion.ranker, expected.weight)
        assert (picker.lowest, picker.trained_on) == (expected.lowest, expected.trained_on)
        scores = expected.rank(PROMPT, CANDIDATES).scores
        assert picker.rank(PROMPT, CANDIDATES).scores == pytest.approx(scores, abs=1e-4)
        served = Wanted(place).load()
        [ranked] = served.rank([served.read(PROMPT, CANDIDATES, None)])
        assert ranked.scores == pytest.approx(scores, abs=1e-4)
    with pytest.raises(UsageError, match=r"'rm-9': expected rm-2 or rm-2\+logprob"):
        Wanted(place, by="rm-9").load()


def test_a_champion_that_was_never_evaluated_ranks_by_its_score(smoke_run: Finished, tmp_path: Path):
    shutil.copytree(smoke_run.store, tmp_path / "store")
    place = f"champion@{tmp_path / 'store'}"
    champion = contender(smoke_run, ranker="rm-9", rounds=9, evaluation=None)
    record = Record(number=1, decision="promoted by hand", reason="made", champion=champion)
    assert Registry(Store(str(tmp_path / "store")), "smoke").append(record)
    with pytest.raises(UsageError, match="has no evaluation in"):
        Picker.load(place)
    ranker = load_ranker(place)
    assert isinstance(ranker, Reranker)
    assert ranker.score(PROMPT, CANDIDATES) == pytest.approx(
        Reranker.load(smoke_run.folder("rm-2")).score(PROMPT, CANDIDATES)
    )
    with pytest.raises(
        UsageError, match="is a reranker by itself, which ranks by its score; got the way 'rm-9'"
    ):
        load_ranker(place, "rm-9")


def test_an_example_is_a_problem_of_the_run_with_the_sandboxs_verdicts(smoke_run: Finished):
    found = example(smoke_run.out)
    executions = read_records(smoke_run.folder("execute-sft-evaluation") / "executions.parquet", Execution)
    verdicts = {row.candidate_id: row.verdict for row in executions}
    expected: dict[str, str] = {}
    for row in read_records(smoke_run.folder("sample-sft-evaluation") / "candidates.parquet", Candidate):
        if row.problem_id == found.id and row.sample >= 0:
            expected.setdefault(row.completion, str(verdicts[row.id]))
    assert dict(zip(found.candidates, found.verdicts, strict=True)) == expected
    assert len(found.logprobs) == len(expected)
    assert max(found.logprobs) <= 0
    assert example(smoke_run.out, found.id) == found
    with pytest.raises(
        UsageError, match=rf"nope: no test problem of the run; expected one such as {found.id}"
    ):
        example(smoke_run.out, "nope")


def test_candidates_are_read_in_the_style_of_the_runs_generator_whatever_the_reranker_started_from(
    reranker: Path,
):
    whole = f"```python\nimport math\n{PROMPT}    return math.fsum(xs)\n```"
    for style, read in (("chat", whole), ("completion", "    return math.fsum(xs)")):
        run: dict[str, Any] = {
            "stages": {},
            "config": {"model": {"prompt_style": style}, "problems": {"languages": ["py"]}},
        }
        [form] = Picker(run, Reranker.load(reranker), "rm-1", {}).forms(PROMPT, [whole])
        assert form.completion == read
