"""Tests of stage `mine`: which pairs it forms from a pool with verdicts."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from sandbox.verdicts import Verdict
from selftrain.config import ExecuteConfig, MineConfig, RuntimeConfig
from selftrain.errors import DataError
from selftrain.records import Candidate, CandidateText, Execution, Pair, Problem, read_records, write_records
from selftrain.rerank.scoring import Job
from selftrain.stage import Context
from selftrain.stages.distinct import distinct_programs
from selftrain.stages.mine import MINE, MineSlice, bounded, mine_pairs
from tests.contexts import judging

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
    return mined_from({"sft": made}, earlier, round, seed, **settings)


def mined_from(
    pools: dict[str, Made],
    earlier: list[Pair] | None = None,
    round: int = 2,
    seed: int = 0,
    **settings: Any,
) -> list[Pair]:
    """What `mine_pairs` makes of several pools with the same problems."""
    config = MineSlice(seed=seed, round=round, pools=tuple(pools), mine=MineConfig(**settings))
    problems = {id: problem for made in pools.values() for id, problem in made.problems.items()}
    scores = {f"{name}/{id}": score for name, made in pools.items() for id, score in made.scores.items()}
    found, _ = distinct_programs(
        problems, {name: (made.candidates, list(made.executions.values())) for name, made in pools.items()}
    )
    if round > 1:
        found = {id: [replace(p, score=scores.get(p.id)) for p in each] for id, each in found.items()}
    return bounded(earlier or [], mine_pairs(problems, found.items(), earlier or [], config), config)[1]


def texts(pairs: list[Pair], kind: str | None = None) -> set[tuple[str, str]]:
    """(chosen, rejected) of the pairs of a kind."""
    return {(pair.chosen, pair.rejected) for pair in pairs if kind in (None, pair.kind)}


def test_the_first_round_pairs_right_with_wrong_and_keeps_their_texts():
    pairs = mined(pool(a=[("good", PASSED), ("bad", WRONG)], b=[("fine", PASSED), ("boom", CRASHED)]))
    assert pairs == [
        Pair("a", "prompt of a", "good", "bad", "sft/a#0", "sft/a#1", "on_policy", 1, task="a"),
        Pair("b", "prompt of b", "fine", "boom", "sft/b#0", "sft/b#1", "easy", 1, task="b"),
    ]


@pytest.mark.parametrize("verdict", [Verdict.compile_error, Verdict.runtime_error])
def test_easy_pairs_are_those_whose_wrong_program_crashes_or_does_not_compile(verdict: Verdict):
    assert [pair.kind for pair in mined(pool(a=[("good", PASSED), ("bad", verdict)]))] == ["easy"]


@pytest.mark.parametrize(
    "verdict", [WRONG, Verdict.timeout, Verdict.memory_exceeded, Verdict.output_exceeded, Verdict.tampered]
)
def test_a_wrong_program_that_runs_is_not_easy(verdict: Verdict):
    assert [pair.kind for pair in mined(pool(a=[("good", PASSED), ("bad", verdict)]))] == ["on_policy"]


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
    assert [(pair.chosen_id, pair.rejected_id) for pair in pairs] == [("sft/a#0", "sft/a#1")]


MANY = pool(
    a=[*((f"good {i}", PASSED) for i in range(4)), *((f"bad {i}", WRONG) for i in range(4)), *((f"boom {i}", CRASHED) for i in range(4))],
    b=[("good", PASSED), ("bad", WRONG)],
)  # fmt: skip


def test_a_problem_gives_no_more_than_its_cap_and_easy_ones_their_share_of_it():
    pairs = mined(MANY, pairs_per_problem=8, kinds={"on_policy": 3, "easy": 1})
    assert sum(pair.problem_id == "a" for pair in pairs) == 8
    assert sum(pair.problem_id == "b" for pair in pairs) == 1
    assert sum(pair.kind == "easy" for pair in pairs) <= 2
    assert len(texts(pairs)) == 9
    assert len(texts(pairs, "easy")) == 2
    assert not texts(mined(MANY, kinds={"on_policy": 1}), "easy")
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
    pairs = mined(SCORED, round=2, kinds={"hard_negative": 1, "on_policy": 1e-9})
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
    one = mined(SCORED, round=2, kinds={"hard_negative": 1, "on_policy": 3}, pairs_per_problem=4)
    assert texts(one, "hard_negative") == {("right 1", "top")}
    assert len(one) == 4
    two = mined(SCORED, round=2, kinds={"hard_negative": 1, "on_policy": 1}, pairs_per_problem=4)
    hard = [(pair.chosen, pair.rejected) for pair in two if pair.kind == "hard_negative"]
    assert hard == [("right 1", "top"), ("right 1", "mid")]
    assert len(texts(two, "hard_negative")) == 2
    assert not texts(mined(SCORED, round=2, kinds={"on_policy": 1, "easy": 1}), "hard_negative")


def test_above_the_threshold_is_hard_whatever_passed():
    made = pool(a=[("right", PASSED, 9.0), ("high", WRONG, 2.0), ("low", WRONG, 1.0), ("lower", WRONG, 0.5)])
    assert not texts(mined(made, round=2), "hard_negative")
    assert texts(mined(made, round=2, threshold=0.75), "hard_negative") == {
        ("right", "high"),
        ("right", "low"),
    }
    assert texts(mined(made, round=2, threshold=1.0), "hard_negative") == {("right", "high")}, "above, not at"
    assert not texts(mined(made, round=1, threshold=0.0), "hard_negative"), "nothing is scored in round 1"


# Several pools are one set


def test_right_programs_of_an_earlier_pool_are_paired_where_the_newest_pool_is_all_wrong():
    sft = pool(a=[("right", PASSED, 0.0), ("more right", PASSED, 3.0), ("wrong", WRONG, -1.0)])
    ppo = pool(a=[("high", WRONG, 5.0), ("higher", CRASHED, 6.0)])
    pairs = mined_from({"sft": sft, "ppo-1": ppo}, kinds={"hard_negative": 1})
    assert [(p.chosen, p.chosen_id, p.chosen_score, p.rejected, p.rejected_id, p.rejected_score) for p in pairs] == [
        ("right", "sft/a#0", 0.0, "higher", "ppo-1/a#1", 6.0),
        ("right", "sft/a#0", 0.0, "high", "ppo-1/a#0", 5.0),
        ("more right", "sft/a#1", 3.0, "higher", "ppo-1/a#1", 6.0),
        ("more right", "sft/a#1", 3.0, "high", "ppo-1/a#0", 5.0),
    ]  # fmt: skip
    assert mined_from({"ppo-1": ppo}) == []


def test_a_threshold_finds_hard_negatives_where_nothing_of_the_newest_pool_passes():
    sft, ppo = pool(a=[("right", PASSED, 9.0)]), pool(a=[("high", WRONG, 2.0), ("low", WRONG, 0.5)])
    assert not texts(mined_from({"sft": sft, "ppo-1": ppo}), "hard_negative")
    pairs = mined_from({"sft": sft, "ppo-1": ppo}, threshold=1.0, kinds={"hard_negative": 1})
    assert [(p.chosen, p.chosen_id, p.rejected, p.kind, p.round) for p in pairs] == [
        ("right", "sft/a#0", "high", "hard_negative", 2)
    ]


def test_a_program_of_two_pools_is_one_program():
    sft = pool(a=[("right", PASSED, 0.0), ("wrong", WRONG, -1.0)])
    ppo = pool(a=[("wrong", WRONG, -1.0), ("right\n", PASSED, 0.0)])
    pairs = mined_from({"sft": sft, "ppo-1": ppo})
    assert [(pair.chosen_id, pair.rejected_id) for pair in pairs] == [("sft/a#0", "sft/a#1")]


def test_a_pair_of_an_earlier_round_is_not_taken_again():
    made = pool(a=[("right", PASSED, 0.0), ("wrong\n", WRONG, 1.0), ("new", WRONG, 2.0)])
    earlier = [Pair("a", "prompt of a", "right", "wrong", "sft/a#70", "sft/a#71", "on_policy", 1)]
    assert texts(mined(made, earlier, round=2)) == {("right", "new")}


# The room of a problem is shared among the kinds


def many(hard: int, plain: int, easy: int) -> Made:
    """A problem with one right program, and so many wrong ones for each kind of pairs."""
    return pool(
        a=[
            ("right", PASSED, 0.0),
            *((f"hard {i}", WRONG, 1.0 + i) for i in range(hard)),
            *((f"plain {i}", WRONG, -1.0) for i in range(plain)),
            *((f"easy {i}", CRASHED, -1.0) for i in range(easy)),
        ]
    )


@pytest.mark.parametrize(
    ("cap", "there", "expected"),
    [
        # weights 4 : 3 : 1
        (8, (9, 9, 9), (4, 3, 1)),
        (4, (9, 9, 9), (2, 2, 0)),
        (1, (9, 9, 9), (1, 0, 0)),
        (16, (20, 20, 20), (8, 6, 2)),
        (8, (9, 0, 9), (7, 0, 1)),
        (8, (1, 2, 9), (1, 2, 5)),
        (8, (0, 9, 9), (0, 6, 2)),
        (8, (9, 0, 0), (8, 0, 0)),
        (8, (0, 0, 9), (0, 0, 8)),
        (4, (0, 0, 9), (0, 0, 4)),
        (1, (0, 0, 9), (0, 0, 1)),
        (8, (1, 1, 1), (1, 1, 1)),
    ],
)
def test_kinds_share_the_room_by_their_weights_and_fill_what_others_leave(
    cap: int, there: tuple[int, int, int], expected: tuple[int, int, int]
):
    pairs = mined(many(*there), round=2, pairs_per_problem=cap)
    kinds = ("hard_negative", "on_policy", "easy")
    assert tuple(sum(pair.kind == kind for pair in pairs) for kind in kinds) == expected


@pytest.mark.parametrize(("cap", "there", "expected"), [(8, (9, 9), (6, 2)), (4, (9, 9), (3, 1)), (1, (9, 9), (1, 0)), (8, (0, 9), (0, 8)), (1, (0, 2), (0, 1))])  # fmt: skip
def test_in_round_1_three_of_four_pairs_are_on_policy_where_there_are_so_many(
    cap: int, there: tuple[int, int], expected: tuple[int, int]
):
    made = many(0, *there)
    made.scores.clear()
    pairs = mined(made, pairs_per_problem=cap)
    assert tuple(sum(pair.kind == kind for pair in pairs) for kind in ("on_policy", "easy")) == expected


def test_without_hard_negatives_no_wrong_program_is_scored_above_its_right_one():
    pairs = mined(many(9, 2, 3), round=2, kinds={"on_policy": 3, "easy": 1})
    assert len(pairs) == 5
    assert all(pair.chosen_score > pair.rejected_score for pair in pairs)  # type: ignore[operator]


def test_hard_negatives_alone_fill_as_many_pairs_as_all_kinds():
    alone = mined(many(9, 9, 9), round=2, kinds={"hard_negative": 1})
    assert [pair.rejected for pair in alone] == [f"hard {i}" for i in (8, 7, 6, 5, 4, 3, 2, 1)]
    assert len(alone) == len(mined(many(9, 9, 9), round=2)) == 8


def test_random_pairs_are_drawn_whatever_their_scores_and_verdicts():
    pairs = mined(many(4, 4, 4), round=2, kinds={"random": 1}, pairs_per_problem=12)
    assert {pair.kind for pair in pairs} == {"random"}
    names = [f"{name} {i}" for name in ("hard", "plain", "easy") for i in range(4)]
    assert sorted(pair.rejected for pair in pairs) == sorted(names)
    first = {
        mined(many(4, 4, 4), round=2, seed=seed, kinds={"random": 1})[0].rejected[:4] for seed in range(30)
    }
    assert first == {"hard", "plai", "easy"}


def test_a_pair_is_taken_once_where_random_and_another_kind_have_it():
    pairs = mined(many(2, 0, 0), round=2, kinds={"hard_negative": 1, "random": 1})
    assert sorted(pair.rejected for pair in pairs) == ["hard 0", "hard 1"]


def test_kinds_of_later_rounds_say_nothing_of_the_first_round():
    for kinds in ({"hard_negative": 1}, {"random": 1}, {"hard_negative": 1, "on_policy": 3, "easy": 1}):
        assert mined(MANY, kinds=kinds) == mined(MANY)
    assert not texts(mined(MANY, kinds={"hard_negative": 1, "on_policy": 1}), "easy")


def test_no_more_pairs_than_the_bound_in_all_rounds_together():
    every = mined(MANY)
    assert len(every) == 9
    some = mined(MANY, max_pairs=5)
    assert len(some) == 5
    assert some == [pair for pair in every if pair in some], "a part of them, in the same order"
    assert some != mined(MANY, max_pairs=5, seed=1)
    earlier = [Pair("b", "prompt of b", f"x{i}", "y", "sft/b#8", "sft/b#9", "easy", 1) for i in range(3)]
    assert len(mined(MANY, earlier, round=2, max_pairs=5)) == 2
    assert len(mined(MANY, earlier, round=2, max_pairs=2)) == 1, "half of the room is round 2's"
    assert mined(MANY, max_pairs=9) == every


@pytest.mark.parametrize(
    ("round", "earlier", "new", "most", "kept"),
    [
        (2, 6, 6, 6, (3, 3)),
        (3, 6, 6, 6, (4, 2)),
        (3, 6, 6, 7, (5, 2)),
        (2, 6, 2, 6, (4, 2)),
        (2, 2, 6, 6, (2, 4)),
        (2, 6, 6, 12, (6, 6)),
        (1, 0, 6, 4, (0, 4)),
    ],
)
def test_each_round_has_its_share_of_the_room(
    round: int, earlier: int, new: int, most: int, kept: tuple[int, int]
):
    pairs = [Pair("b", "prompt", f"x{i}", "y", f"b#{i}", "b#y", "easy", 1) for i in range(earlier + new)]
    config = MineSlice(seed=0, round=round, pools=("sft",), mine=MineConfig(max_pairs=most))
    old, fresh = bounded(pairs[:earlier], pairs[earlier:], config)
    assert (len(old), len(fresh)) == kept
    assert old == [pair for pair in pairs[:earlier] if pair in old], "in the same order"
    assert fresh == [pair for pair in pairs[earlier:] if pair in fresh]


# The stage: how the problems did, and what is said where there is no pair

OURS = Verdict.sandbox_error


def build(folder: Path, made: Made, earlier: Sequence[Pair] | None = None, **settings: Any) -> dict[str, Any]:
    """Figures of stage `mine` of the first round, or with `earlier` pairs of the second."""
    write_records(folder / "problems.parquet", made.problems.values(), Problem)
    write_records(folder / "candidates.parquet", made.candidates, Candidate)
    write_records(folder / "executions.parquet", made.executions.values(), Execution)
    inputs = dict.fromkeys(("problems", "sft.candidates", "sft.executions"), folder)
    if earlier is not None:
        (folder / "earlier").mkdir()
        write_records(folder / "earlier" / "pairs.parquet", earlier, Pair)
        inputs |= {"pairs": folder / "earlier", "reranker": folder}
    round = 1 if earlier is None else 2
    config = MineSlice(seed=0, round=round, pools=("sft",), mine=MineConfig(**settings))
    return MINE.run(Context(config, inputs, folder, RuntimeConfig(), lambda **_: None)).metrics


def test_each_program_is_scored_once_and_the_earlier_pairs_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    made = pool(a=[("x = 1", PASSED), ("x = 2", WRONG), ("x = 2  # two", WRONG), ("x = 1", PASSED)])
    made.problems["a"] = replace(made.problems["a"], prompt="")
    seen: list[str] = []

    def scores(context: Context, jobs: list[Job]) -> dict[str, dict[str, float]]:
        rows = read_records(context.inputs[jobs[0].candidates] / "candidates.parquet", CandidateText)
        seen.extend(row.id for row in rows)
        return {jobs[0].name: {row.id: 2.0 if row.completion == "x = 2" else 1.0 for row in rows}}

    monkeypatch.setattr("selftrain.stages.mine.score_candidates", scores)
    earlier = [Pair("b", "prompt of b", "x", "y", "sft/b#8", "sft/b#9", "easy", 1)]
    figures = build(tmp_path, made, earlier)
    assert seen == ["sft/a#0", "sft/a#1"]
    assert (figures["pairs"], figures["new"], figures["kinds"]) == (2, 1, {"hard_negative": 1})
    pairs = read_records(tmp_path / "pairs.parquet", Pair)
    assert [(p.chosen, p.rejected, p.round, p.rejected_score) for p in pairs] == [("x", "y", 1, None), ("x = 1", "x = 2", 2, 2.0)]  # fmt: skip


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
            {"kinds": {"on_policy": 1, "hard_negative": 1}},
            (1, 0, 1),
            r"of a kind that mine\.kinds=on_policy, hard_negative takes in round 1; the kinds of round 1 are on_policy and easy",
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


def test_a_problem_that_a_pool_lacks_is_mined_from_the_others(tmp_path: Path):
    """A generator may have left a problem out, as too long for it."""
    pools = {"sft": pool(a=[("x", PASSED)], b=[("x", PASSED), ("y", WRONG)]), "ppo-1": pool(a=[("y", WRONG)])}
    write_records(tmp_path / "problems.parquet", pools["sft"].problems.values(), Problem)
    inputs = {"problems": tmp_path}
    for name, made in pools.items():
        inputs |= dict.fromkeys((f"{name}.candidates", f"{name}.executions"), tmp_path / name)
        (tmp_path / name).mkdir()
        write_records(tmp_path / name / "candidates.parquet", made.candidates, Candidate)
        write_records(tmp_path / name / "executions.parquet", made.executions.values(), Execution)
    config = MineSlice(seed=0, round=1, pools=tuple(pools), mine=MineConfig())
    MINE.run(Context(config, inputs, tmp_path, RuntimeConfig(), lambda **_: None))
    found = {pair.problem_id: pair.rejected_id for pair in read_records(tmp_path / "pairs.parquet", Pair)}
    assert found == {"a": "ppo-1/a#0", "b": "sft/b#1"}


def test_the_programs_of_all_pools_are_scored_by_the_reranker(tmp_path: Path, reranker: Path):
    sft = pool(a=[("right", PASSED), ("wrong", WRONG)])
    ppo = pool(a=[("wrong", WRONG), ("new", WRONG)])
    inputs = {"problems": tmp_path, "pairs": tmp_path / "earlier", "reranker": reranker}
    for name, made in {"sft": sft, "ppo-1": ppo, "earlier": None}.items():
        folder = tmp_path / name
        folder.mkdir()
        if made is None:
            write_records(folder / "pairs.parquet", [], Pair)
            continue
        write_records(folder / "candidates.parquet", made.candidates, Candidate)
        write_records(folder / "executions.parquet", made.executions.values(), Execution)
        inputs |= {f"{name}.candidates": folder, f"{name}.executions": folder}
    write_records(tmp_path / "problems.parquet", sft.problems.values(), Problem)
    config = MineSlice(seed=0, round=2, pools=("sft", "ppo-1"), mine=MineConfig())
    figures = MINE.run(
        Context(config, inputs, tmp_path, RuntimeConfig(processes=1), lambda *_, **__: None)
    ).metrics
    assert figures["new"] == 2
    pairs = read_records(tmp_path / "pairs.parquet", Pair)
    assert {(p.chosen_id, p.rejected_id) for p in pairs} == {
        ("sft/a#0", "sft/a#1"),
        ("sft/a#0", "ppo-1/a#1"),
    }
    for pair in pairs:
        assert pair.chosen_score is not None
        assert pair.rejected_score is not None
        assert (pair.kind == "hard_negative") == (pair.rejected_score > pair.chosen_score)


def test_a_pair_says_which_share_of_the_assertions_its_wrong_program_passes(tmp_path: Path):
    """The wrong programs pass 3 of 4 assertions, none, and (it crashes on one argument) 3 of 4; one does not compile."""
    tests = "def check(f):\n" + "".join(f"    assert f({n}) == {n}\n" for n in range(4)) + "check(f)\n"
    problem = Problem("a", "a", "py", "def f(n):\n", tests, "rl", "made")
    texts = ("return n", "return min(n, 2)", "return -1 - n", "return n / (n - 3) * (n - 3)", "return (")
    verdicts = (PASSED, WRONG, WRONG, CRASHED, Verdict.compile_error)
    candidates = [
        Candidate(f"a#{n}", "a", n, f"    {text}\n", (1,), 0.0, "stop") for n, text in enumerate(texts)
    ]
    write_records(tmp_path / "problems.parquet", [problem], Problem)
    write_records(tmp_path / "candidates.parquet", candidates, Candidate)
    rows = [Execution(c.id, "a", verdict, 0) for c, verdict in zip(candidates, verdicts, strict=True)]
    write_records(tmp_path / "executions.parquet", rows, Execution)
    inputs = dict.fromkeys(("problems", "sft.candidates", "sft.executions"), tmp_path)
    runtime = RuntimeConfig(backend="process", workers=1)
    gaps = []
    for assertions in (False, True):
        settings = MineConfig(assertions=assertions)
        config = MineSlice(
            seed=1, round=1, pools=("sft",), mine=settings, execute=ExecuteConfig(), toolchain={}
        )
        MINE.run(judging(config, inputs, tmp_path, runtime))
        found = read_records(tmp_path / "pairs.parquet", Pair)
        gaps.append({pair.rejected_id: pair.gap for pair in found})
    assert gaps[0] == {f"sft/a#{n}": 1.0 for n in (1, 2, 3, 4)}
    assert gaps[1] == {"sft/a#1": 0.25, "sft/a#2": 1.0, "sft/a#3": 0.25, "sft/a#4": 1.0}
