"""Tests of stage `mine`: which pairs it forms from a pool with verdicts."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sandbox.verdicts import Verdict
from selftrain.config import MineConfig, RuntimeConfig
from selftrain.errors import DataError
from selftrain.records import Candidate, Execution, Pair, Problem, write_records
from selftrain.stage import Context
from selftrain.stages.mine import MINE, MineSlice, Program, distinct_programs, mine_pairs

PASSED, WRONG, CRASHED = Verdict.passed, Verdict.wrong_answer, Verdict.runtime_error


@dataclass
class Made:
    """A pool made by hand."""

    problems: dict[str, Problem]
    candidates: list[Candidate]
    executions: dict[str, Execution]
    scores: dict[str, float]


def pool(**problems: list[tuple[str, Verdict, float] | tuple[str, Verdict]]) -> Made:
    """Per problem its candidates, in sampling order: text, verdict and, where it has one, score."""
    made = Made({}, [], {}, {})
    for id, programs in problems.items():
        made.problems[id] = Problem(id, id, "py", f"prompt of {id}", "tests", "rl", "bank")
        for number, (text, verdict, *score) in enumerate(programs):
            name = f"{id}#{number}"
            made.candidates.append(Candidate(name, id, number, text, (1,), -1.0, "stop"))
            made.executions[name] = Execution(name, id, verdict, 0 if verdict is PASSED else 1)
            made.scores |= dict.fromkeys([name] if score else [], *score)
    return made


def mined(
    made: Made, earlier: list[Pair] | None = None, round: int = 1, seed: int = 0, **settings: Any
) -> list[Pair]:
    """What `mine_pairs` makes of it."""
    config = MineSlice(seed=seed, round=round, mine=MineConfig(**settings))
    return mine_pairs(made.problems, programs(made), earlier or [], config)


def programs(made: Made) -> dict[str, list[Program]]:
    """Its distinct programs."""
    return distinct_programs(made.candidates, made.executions, made.scores)


def texts(pairs: list[Pair], kind: str | None = None) -> set[tuple[str, str]]:
    """(chosen, rejected) of the pairs of a kind."""
    return {(pair.chosen, pair.rejected) for pair in pairs if kind in (None, pair.kind)}


def test_the_first_round_pairs_right_with_wrong_and_keeps_their_texts():
    pairs = mined(pool(a=[("good", PASSED), ("bad", WRONG)], b=[("fine", PASSED), ("boom", CRASHED)]))
    assert pairs == [
        Pair("a", "prompt of a", "good", "bad", "a#0", "a#1", "on_policy", 1, task="a"),
        Pair("b", "prompt of b", "fine", "boom", "b#0", "b#1", "easy", 1, task="b"),
    ]


@pytest.mark.parametrize(
    "verdict", [v for v in Verdict if v not in (PASSED, WRONG, Verdict.tampered, Verdict.sandbox_error)]
)
def test_easy_pairs_are_those_whose_wrong_program_does_not_finish(verdict: Verdict):
    assert [pair.kind for pair in mined(pool(a=[("good", PASSED), ("bad", verdict)]))] == ["easy"]


def test_a_program_that_tampered_is_a_wrong_program_that_is_not_easy():
    [pair] = mined(pool(a=[("good", PASSED), ("cheat", Verdict.tampered)]))
    assert (pair.rejected, pair.kind) == ("cheat", "on_policy")


def test_the_gap_of_a_pair_is_the_share_of_the_cases_that_only_the_right_program_passes():
    made = pool(a=[("good", PASSED), ("half", WRONG), ("unknown", WRONG)])
    made.executions["a#1"] = Execution("a#1", "a", WRONG, 1, pass_rate=0.75)
    assert {pair.rejected: pair.gap for pair in mined(made)} == {"half": 0.25, "unknown": 1.0}


@pytest.mark.parametrize("programs", [[("x", PASSED), ("y", PASSED)], [("x", WRONG), ("y", CRASHED)]])
def test_a_problem_with_one_class_only_gives_nothing(programs: list):
    assert mined(pool(a=programs)) == []


def test_a_candidate_that_the_sandbox_failed_on_is_in_no_pair():
    ours = Verdict.sandbox_error
    made = pool(
        a=[("good", PASSED, 0.0), ("bad", WRONG, 1.0), ("unknown", ours, 9.0)],
        b=[("good", PASSED), ("unknown", ours)],
    )
    for round in (1, 2):
        assert texts(mined(made, round=round)) == {("good", "bad")}
    assert texts(mined(made, round=2, threshold=0.5)) == {("good", "bad")}


def test_the_greedy_candidate_is_in_no_pair():
    made = pool(a=[("good", PASSED), ("bad", WRONG)])
    made.candidates.append(Candidate("a#-1", "a", -1, "greedy", (1,), -1.0, "stop"))
    made.executions["a#-1"] = Execution("a#-1", "a", WRONG, 1)
    assert texts(mined(made)) == {("good", "bad")}


def test_the_same_program_counts_once_whatever_space_ends_it():
    made = pool(a=[("good", PASSED), ("bad\n", WRONG), ("bad", WRONG), ("good  ", PASSED)])
    pairs = mined(made)
    assert [(pair.chosen_id, pair.rejected_id) for pair in pairs] == [("a#0", "a#1")]


MANY = pool(
    a=[*((f"good {i}", PASSED) for i in range(4)), *((f"bad {i}", WRONG) for i in range(4)), *((f"boom {i}", CRASHED) for i in range(4))],
    b=[("good", PASSED), ("bad", WRONG)],
)  # fmt: skip


def test_a_problem_gives_no_more_than_its_cap_and_easy_ones_their_share_of_it():
    pairs = mined(MANY, pairs_per_problem=8, easy_share=0.25)
    assert sum(pair.problem_id == "a" for pair in pairs) == 8
    assert sum(pair.problem_id == "b" for pair in pairs) == 1
    assert sum(pair.kind == "easy" for pair in pairs) <= 2
    assert len(texts(pairs)) == 9
    assert not texts(mined(MANY, easy_share=0.0), "easy")
    assert len(mined(MANY, pairs_per_problem=1)) == 2


def test_the_seed_decides_which():
    assert mined(MANY, seed=3) == mined(MANY, seed=3)
    assert texts(mined(MANY, seed=3)) != texts(mined(MANY, seed=4))
    alone = pool(
        a=[*((p.completion, MANY.executions[p.id].verdict) for p in MANY.candidates if p.problem_id == "a")]
    )
    assert mined(alone, seed=3) == [pair for pair in mined(MANY, seed=3) if pair.problem_id == "a"]


SCORED = pool(
    a=[
        ("right 1", PASSED, 1.0),
        ("right 2", PASSED, 3.0),
        ("low", WRONG, 0.5),
        ("mid", WRONG, 2.0),
        ("top", CRASHED, 4.0),
    ]
)


def test_a_hard_negative_scored_above_a_passing_candidate_of_its_problem():
    pairs = mined(SCORED, round=2, hard_share=1.0, pairs_per_problem=8)
    assert texts(pairs, "hard_negative") == {("right 1", "mid"), ("right 1", "top"), ("right 2", "top")}
    assert all(pair.rejected_score > pair.chosen_score for pair in pairs if pair.kind == "hard_negative")  # type: ignore[operator]
    assert texts(pairs, "on_policy") == {("right 1", "low"), ("right 2", "low"), ("right 2", "mid")}


def test_scores_of_another_problem_make_no_hard_negative():
    made = pool(
        a=[("right", PASSED, 5.0), ("wrong", WRONG, 4.0)], b=[("right", PASSED, 1.0), ("wrong", WRONG, 0.0)]
    )
    assert not texts(mined(made, round=2), "hard_negative")


def test_equal_scores_make_no_hard_negative():
    made = pool(a=[("right", PASSED, 1.0), ("wrong", WRONG, 1.0)])
    assert texts(mined(made, round=2), "on_policy") == {("right", "wrong")}
    assert not texts(mined(made, round=2), "hard_negative")


def test_the_largest_mistakes_are_taken_first_and_no_more_than_their_share():
    one = mined(SCORED, round=2, hard_share=0.25, pairs_per_problem=4)
    assert texts(one, "hard_negative") == {("right 1", "top")}
    assert len(one) == 4
    two = mined(SCORED, round=2, hard_share=0.5, pairs_per_problem=4)
    assert [(pair.chosen, pair.rejected) for pair in two[:2]] == [("right 1", "top"), ("right 1", "mid")]
    assert len(texts(two, "hard_negative")) == 2
    assert not texts(mined(SCORED, round=2, hard_share=0.0), "hard_negative")


def test_above_the_threshold_is_hard_whatever_passed():
    made = pool(a=[("right", PASSED, 9.0), ("high", WRONG, 2.0), ("low", WRONG, 1.0), ("lower", WRONG, 0.5)])
    assert not texts(mined(made, round=2), "hard_negative")
    assert texts(mined(made, round=2, threshold=0.75), "hard_negative") == {
        ("right", "high"),
        ("right", "low"),
    }
    assert texts(mined(made, round=2, threshold=1.0), "hard_negative") == {("right", "high")}, "above, not at"
    assert not texts(mined(made, round=1, threshold=0.0), "hard_negative"), "nothing is scored in round 1"


EARLIER = [Pair("a", "prompt of a", "old right", "old wrong", "a#90", "a#91", "on_policy", 1)]


def test_a_threshold_finds_hard_negatives_where_nothing_of_the_new_pool_passes():
    made = pool(a=[("high", WRONG, 2.0)])
    assert mined(made, EARLIER, round=2) == []
    pairs = mined(made, EARLIER, round=2, threshold=1.0)
    assert [(p.chosen, p.chosen_id, p.rejected, p.kind, p.round) for p in pairs] == [
        ("old right", "a#90", "high", "hard_negative", 2)
    ]


def test_a_pair_of_an_earlier_round_is_not_taken_again():
    made = pool(a=[("right", PASSED, 0.0), ("wrong\n", WRONG, 1.0), ("new", WRONG, 2.0)])
    earlier = [Pair("a", "prompt of a", "right", "wrong", "a#70", "a#71", "on_policy", 1)]
    assert texts(mined(made, earlier, round=2)) == {("right", "new")}


def test_hard_negatives_only_takes_its_right_programs_from_earlier_pairs():
    made = pool(
        a=[("new right", PASSED, 1.0), ("high", WRONG, 2.0), ("low", WRONG, 0.0)],
        b=[("right", PASSED, 0.0), ("high", WRONG, 1.0)],
    )
    pairs = mined(made, EARLIER, round=2, passing=False)
    assert [(p.chosen, p.chosen_score, p.rejected, p.rejected_score, p.kind) for p in pairs] == [
        ("old right", None, "high", 2.0, "hard_negative")
    ]


def test_hard_negatives_only_leaves_out_a_right_program_that_was_scored_above():
    made = pool(a=[("old right", PASSED, 3.0), ("new right", PASSED, 1.0), ("high", WRONG, 2.0)])
    assert mined(made, EARLIER, round=2, passing=False) == []
    made = pool(a=[("old right", PASSED, 1.5), ("new right", PASSED, 1.0), ("high", WRONG, 2.0)])
    pairs = mined(made, EARLIER, round=2, passing=False)
    assert [(p.chosen, p.chosen_score, p.rejected) for p in pairs] == [("old right", 1.5, "high")]


def test_hard_negatives_only_says_nothing_of_the_first_round():
    made = pool(a=[("good", PASSED), ("bad", WRONG)])
    assert mined(made, passing=False) == mined(made, passing=True)


# The stage: how the problems did, and what is said where there is no pair

OURS = Verdict.sandbox_error


def build(folder: Path, made: Made, **settings: Any) -> dict[str, Any]:
    """Figures of stage `mine` of the first round."""
    write_records(folder / "problems.parquet", made.problems.values(), Problem)
    write_records(folder / "candidates.parquet", made.candidates, Candidate)
    write_records(folder / "executions.parquet", made.executions.values(), Execution)
    config = MineSlice(seed=0, round=1, mine=MineConfig(**settings))
    inputs = dict.fromkeys(("problems", "candidates", "executions"), folder)
    return MINE.run(Context(config, inputs, folder, RuntimeConfig(), lambda **_: None)).metrics


def test_the_figures_say_how_many_problems_have_passing_failing_and_both(tmp_path: Path):
    found = build(
        tmp_path,
        pool(
            a=[("x", PASSED), ("y", WRONG)],
            b=[("x", PASSED), ("y", CRASHED), ("z", OURS)],
            c=[("x", PASSED), ("x\n", PASSED)],
            d=[("x", WRONG)],
            e=[("x", CRASHED), ("y", WRONG)],
            f=[("x", OURS)],
        ),
    )
    assert {name: found[f"problems_{name}"] for name in ("mixed", "passing", "failing")} == {
        "mixed": 2,
        "passing": 1,
        "failing": 2,
    }


@pytest.mark.parametrize(
    ("made", "settings", "counts", "advice"),
    [
        (pool(a=[("x", WRONG)], b=[("x", CRASHED), ("y", WRONG)]), {}, (0, 0, 2), "too weak .*sft.epochs"),
        (pool(a=[("x", PASSED)], b=[("x", PASSED), ("y", OURS)]), {}, (0, 2, 0), "too easy .*harder ones"),
        (
            pool(a=[("x", PASSED)], b=[("x", WRONG)]),
            {},
            (0, 1, 1),
            r"draw more candidates of each problem \(sample\.rl\)",
        ),
        (pool(a=[("x", OURS)]), {}, (0, 0, 0), "no verdicts; see the figures of stage execute"),
        (
            pool(a=[("x", PASSED), ("y", CRASHED)], b=[("x", WRONG)]),
            {"pairs_per_problem": 1},
            (1, 0, 1),
            r"mine\.easy_share=0\.25 of mine\.pairs_per_problem=1 takes none; raise one",
        ),
    ],
    ids=["all-fail", "all-pass", "none-mixed", "unjudged", "easy-only"],
)
def test_no_pair_at_all_is_told_with_what_to_change(
    tmp_path: Path, made: Made, settings: dict[str, Any], counts: tuple[int, int, int], advice: str
):
    with pytest.raises(DataError, match=advice) as told:
        build(tmp_path, made, **settings)
    mixed, passing, failing = counts
    assert f"of {sum(counts)} problems" in str(told.value)
    assert (
        f"{mixed} have both passing and failing ones, {passing} only passing, {failing} only failing"
        in str(told.value)
    )
    assert not (tmp_path / "pairs.parquet").exists()
