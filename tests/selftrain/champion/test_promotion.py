"""Tests of promotion: what is trained next, how challenger and champion are compared, and which of them wins."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from sandbox.verdicts import Verdict
from selftrain.champion.promotion import Attempt, compare, next_attempt, verdict
from selftrain.champion.registry import Contender, Identity, Record, Share
from selftrain.config import PromotionConfig
from selftrain.records import Candidate, Execution, Problem, write_records

TASKS = 16
SAME = PromotionConfig()


def chain(name: str) -> Callable[[int], str]:
    """Rerankers of one method, by round."""
    return lambda number: f"train_reward/{name}{number}"


def one(name: str, rounds: int) -> Contender:
    """The reranker of a method's round."""
    return Contender(reranker=chain(name)(rounds), rounds=rounds, ranker=f"rm-{rounds}")


def identity(champion: Contender | None, method: str) -> Identity:
    """Of a run of `method`."""
    return Identity(champion=champion and champion.reranker, problems="prepare/p", method=method)


def judged(
    number: int, challenger: Contender, rival: Contender | None, method: str, promoted: bool
) -> Record:
    """A decision on a challenger."""
    return Record(
        number=number,
        decision="promoted" if promoted else "not promoted",
        reason="made",
        challenger=challenger,
        rival=rival,
        champion=challenger if promoted or rival is None else rival,
        identity=identity(rival, method),
    )


def by_hand(number: int, champion: Contender) -> Record:
    """A decision by hand."""
    return Record(number=number, decision="rolled back", reason="made", champion=champion)


A1, A2, A3, B2 = one("a", 1), one("a", 2), one("a", 3), one("b", 2)
FIRST = judged(1, A2, None, "a", True)
LOST_3 = judged(2, A3, A2, "a", False)
NONE = judged(1, A2, None, "a", False).model_copy(update={"champion": None})


def after(records: list[Record], settings: PromotionConfig = SAME, method: str = "a") -> Attempt:
    """What comes next, where the config says two rounds."""
    champion = records[-1].champion if records else None
    return next_attempt(records, identity(champion, method), chain(method), 2, settings)


def limited(rounds: int, patience: int = 1) -> PromotionConfig:
    return PromotionConfig(max_rounds=rounds, patience=patience)


@pytest.mark.parametrize(
    ("records", "settings", "method", "expected"),
    [
        pytest.param([], SAME, "a", (2, None, True), id="no champion: the config's rounds"),
        pytest.param([], limited(1), "a", (1, None, True), id="no champion, bounded"),
        pytest.param(
            [NONE],
            limited(9, 2),
            "a",
            (3, None, True),
            id="still no champion: the round after the one that lost",
        ),
        pytest.param(
            [NONE], SAME, "b", (2, None, True), id="still no champion, another method: the config's rounds"
        ),
        pytest.param([FIRST], SAME, "a", (3, A2, True), id="one round more"),
        pytest.param([FIRST], limited(3), "a", (3, A2, True), id="one round more, just allowed"),
        pytest.param(
            [FIRST, LOST_3],
            limited(9, 2),
            "a",
            (4, A2, True),
            id="patient: the round after the one that lost",
        ),
        pytest.param(
            [FIRST], SAME, "b", (2, A2, False), id="another method: as many rounds as the champion has"
        ),
        pytest.param([FIRST], limited(1), "b", (1, A2, False), id="another method, bounded"),
        pytest.param([FIRST, LOST_3], SAME, "b", (2, A2, False), id="another method: patience starts anew"),
        pytest.param(
            [FIRST, judged(2, B2, A2, "b", False)],
            limited(9, 2),
            "b",
            (3, A2, False),
            id="another method, patient",
        ),
        pytest.param(
            [FIRST, judged(2, B2, A2, "b", True)], SAME, "b", (3, B2, True), id="the other method has won"
        ),
        pytest.param(
            [FIRST, judged(2, A3, A2, "a", True), by_hand(3, A2)],
            SAME,
            "a",
            (4, A2, True),
            id="rolled back: not rm-3 again",
        ),
        pytest.param(
            [FIRST, by_hand(2, A1)], SAME, "a", (3, A1, True), id="rolled back: rm-2 was judged before"
        ),
    ],
)
def test_what_comes_next(
    records: list[Record],
    settings: PromotionConfig,
    method: str,
    expected: tuple[int, Contender | None, bool],
):
    attempt = after(records, settings, method)
    assert (attempt.rounds, attempt.rival, attempt.of_chain) == expected
    assert attempt.nothing is None


@pytest.mark.parametrize(
    ("records", "settings", "expected", "said"),
    [
        pytest.param([FIRST], limited(2), (2, None, True), "max_rounds 2", id="bound reached: the champion's own run again"),
        pytest.param([FIRST], limited(1), (2, None, True), "max_rounds 1", id="bound lowered"),
        pytest.param([NONE], SAME, (2, None, True), "in a row", id="still no champion: the run that lost again"),
        pytest.param([FIRST, LOST_3], SAME, (3, A2, True), "in a row", id="out of patience: the run that lost again"),
        pytest.param([FIRST, LOST_3], limited(3, 2), (3, A2, True), "max_rounds 3", id="patient, but bounded"),
        pytest.param(
            [FIRST, judged(2, one("a", 3), B2, "a", True)], limited(3), (3, B2, False), "max_rounds 3",
            id="the run that beat another method's champion again",
        ),
    ],
)  # fmt: skip
def test_when_there_is_nothing_to_do_the_last_run_is_named_again(
    records: list[Record], settings: PromotionConfig, expected: tuple[int, Contender | None, bool], said: str
):
    attempt = after(records, settings)
    assert (attempt.rounds, attempt.rival, attempt.of_chain) == expected
    assert attempt.nothing is not None
    assert said in attempt.nothing


def test_other_settings_of_the_same_rerankers_are_judged_again():
    """More candidates to evaluate on: the rerankers are the same, the method is not, and what lost may win now."""
    champion = LOST_3.champion
    attempt = next_attempt([FIRST, LOST_3], identity(champion, "a, closer"), chain("a"), 2, SAME)
    assert (attempt.rounds, attempt.rival, attempt.nothing) == (3, A2, None)


# Comparing


def evaluation(folder: Path, picks: dict[str, list[bool]], validation: dict[str, bool]) -> dict[str, Path]:
    """Folders as the stages leave them. `TASKS` test problems, one validation problem, two candidates each: a passing one that
    is improbable and a failing one that is probable. `picks`: whether each ranker's pick passes, by test problem; on the
    validation problem by `validation`. With weight 10 `RANKER+logprob` always picks the failing one."""
    problems, candidates, executions = [], [], []
    scores: dict[str, dict[str, float]] = {name: {} for name in picks}
    for at in range(TASKS + 1):
        split = "test" if at < TASKS else "validation"
        name = f"p{at:02}"
        problems.append(Problem(f"{name}.py", name, "py", "def f():\n", "", split, "made", ()))
        for sample, passes in enumerate((True, False)):
            id = f"{name}/{sample}"
            logprob = -2.0 if passes else -1.0
            candidates.append(
                Candidate(id, f"{name}.py", sample, f"    return {sample}\n", (1,), logprob, "stop")
            )
            found = Verdict.passed if passes else Verdict.wrong_answer
            executions.append(Execution(id, f"{name}.py", found, 0 if passes else 1))
            for ranker, right in picks.items():
                wanted = right[at] if at < TASKS else validation[ranker]
                scores[ranker][id] = float(passes == wanted)
    for role in ("problems", "candidates", "executions", "evaluation"):
        (folder / role).mkdir()
    write_records(folder / "problems" / "problems.parquet", problems, Problem)
    write_records(folder / "candidates" / "candidates.parquet", candidates, Candidate)
    write_records(folder / "executions" / "executions.parquet", executions, Execution)
    result = {"logprob_weights": dict.fromkeys(picks, 10.0), "chosen": next(iter(picks))}
    (folder / "evaluation" / "evaluation.json").write_text(json.dumps(result))
    (folder / "evaluation" / "scores.json").write_text(json.dumps({"sft": scores}))
    return {
        "problems": folder / "problems",
        "sft.candidates": folder / "candidates",
        "sft.executions": folder / "executions",
        "evaluation": folder / "evaluation",
    }


GOOD = [True] * 12 + [False] * 4
BAD = [True] * 4 + [False] * 12
RIGHT = {"rm-2": True, "champion": True}


@pytest.mark.parametrize(
    ("challenger", "champion", "difference", "promoted"),
    [(GOOD, BAD, 0.5, True), (GOOD, GOOD, 0.0, False), (BAD, GOOD, -0.5, False)],
    ids=["better", "equal", "worse"],
)
def test_a_better_challenger_is_promoted_an_equal_and_a_worse_one_are_not(
    tmp_path: Path, challenger: list[bool], champion: list[bool], difference: float, promoted: bool
):
    inputs = evaluation(tmp_path, {"champion": champion, "rm-2": challenger}, RIGHT)
    found = compare(inputs, "rm-2", "champion", 2000, 0)
    assert found.rival is not None
    assert found.difference is not None
    assert (found.problems, found.tasks, found.random.value, found.oracle.value) == (TASKS, TASKS, 0.5, 1.0)
    assert (found.challenger.ranker, found.rival.ranker) == ("rm-2", "champion")
    assert found.challenger.solved.value == sum(challenger) / TASKS
    assert found.difference.value == difference
    if difference == 0:
        assert (found.difference.low, found.difference.high) == (0, 0)
    else:  # 8 of 16 problems differ: the standard error is 0.125
        assert found.difference.high - found.difference.low == pytest.approx(4 * 0.125, abs=0.06)
    assert verdict(found.difference, 0.0)[0] == promoted


def test_a_challenger_without_a_rival_needs_no_difference(tmp_path: Path):
    found = compare(evaluation(tmp_path, {"rm-2": GOOD}, RIGHT), "rm-2", None, 100, 0)
    assert (found.difference, found.rival, verdict(found.difference, 0.5)[0]) == (None, None, True)


@pytest.mark.parametrize(
    ("picks", "promoted"),
    [
        pytest.param(GOOD, True, id="better than both"),  # +0.25 with a standard error of 0.11, and +0.75
        pytest.param([True] * 9 + [False] * 7, False, id="not surely better than random"),
        pytest.param(BAD, False, id="worse than random, better than log-probability"),
    ],
)
def test_the_first_champion_has_to_beat_a_random_pick_and_log_probability(
    tmp_path: Path, picks: list[bool], promoted: bool
):
    found = compare(evaluation(tmp_path, {"rm-2": picks}, RIGHT), "rm-2", None, 2000, 0)
    solved = sum(picks) / TASKS
    assert {way: share.value for way, share in found.untrained.items()} == {
        "a random pick": solved - 0.5,
        "the pick by log-probability": solved,
    }
    won, why = verdict(found.difference, 0.5, found.untrained)
    assert won == promoted
    assert f"solves {solved - 0.5:+.3f} [" in why
    assert f"and {solved:+.3f} [" in why
    assert why.startswith("there was no champion yet" if promoted else "there is no champion yet")


def test_a_first_challenger_that_equals_a_random_pick_is_not_promoted():
    """All of a pool's programs fail: every way to pick solves nothing."""
    nothing = Share(value=0.0, low=0.0, high=0.0)
    won, why = verdict(None, 0.0, {"a random pick": nothing, "the pick by log-probability": nothing})
    assert (won, "not every interval lies above 0" in why) == (False, True)


@pytest.mark.parametrize(("tasks", "promoted"), [(1, False), (5, False), (6, True)])
def test_too_few_test_tasks_promote_nobody(tasks: int, promoted: bool):
    """Where all tasks go one way, the bootstrap's interval has no width, however few they are."""
    sure = Share(value=1.0, low=1.0, high=1.0)
    for won, why in (verdict(sure, 0.0, tasks=tasks), verdict(None, 0.0, {"a random pick": sure}, tasks)):
        assert won == promoted
        assert (f"the test split has {tasks} of the at least 6 tasks" in why) == (not promoted)


def test_each_is_used_as_the_validation_split_chose_for_it(tmp_path: Path):
    """Where the ranker alone fails on validation too, it is a tie, which goes to the ranker alone: make log-probability win."""
    inputs = evaluation(tmp_path, {"champion": BAD, "rm-2": GOOD}, {"champion": True, "rm-2": False})
    result = json.loads((inputs["evaluation"] / "evaluation.json").read_text())
    result["logprob_weights"]["rm-2"] = -10.0  # now `rm-2+logprob` always picks the improbable, passing one
    (inputs["evaluation"] / "evaluation.json").write_text(json.dumps(result))
    found = compare(inputs, "rm-2", "champion", 500, 0)
    assert found.rival is not None
    assert (found.challenger.ranker, found.challenger.logprob_weight) == ("rm-2+logprob", -10.0)
    assert found.challenger.solved.value == 1.0
    assert (found.rival.ranker, found.rival.logprob_weight) == ("champion", 0.0)
    assert found.difference is not None
    assert found.difference.value == 0.75


@pytest.mark.parametrize(
    ("low", "tolerance", "promoted"),
    [(0.01, 0.0, True), (0.0, 0.0, False), (0.02, 0.02, False), (0.021, 0.02, True)],
)
def test_the_whole_interval_must_lie_above_the_tolerance(low: float, tolerance: float, promoted: bool):
    won, why = verdict(Share(value=0.05, low=low, high=0.09), tolerance)
    assert won == promoted
    assert f"[{low:+.3f}, +0.090]" in why
    assert f"tolerance {tolerance:g}" in why
