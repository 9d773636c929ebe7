"""Tests of steps that work at the same time: slots, failures, stops, and what run.json says meanwhile."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from flows.method import graph
from sandbox.cache import VerdictCache
from selftrain.config import ExecuteConfig, RunConfig, RuntimeConfig, SlotsConfig
from selftrain.configfile import load_config
from selftrain.errors import RunError, UsageError
from selftrain.launch.ending import ENDING
from selftrain.launch.processes import run as run_child
from selftrain.records import Candidate, Execution, Problem, read_records, write_records
from selftrain.schedule import Schedule, resources, timeline
from selftrain.stage import ArtifactRef, Context, Outcome, Stage, Step
from selftrain.stages.execute import EXECUTE, ExecuteSlice, programs
from selftrain.stop import Stop, Stopped, current
from selftrain.store.store import PROGRESS, Store
from tasks.sandbox import sandbox_at_work
from tasks.schedule import ScheduledRun, carry_out
from tests.bench.overlap import critical_path
from tests.command import wait_until

Work = Callable[[Context], Outcome]


def step(stage: str, name: str, *inputs: ArtifactRef, **config: Any) -> Step:
    """A step of a stage that writes nothing."""
    made = Stage(stage, 1, lambda _: Outcome(""))
    named = {f"in-{at}": ref for at, ref in enumerate(inputs)}
    settings = {"name": name, **config}
    return Step(made, name, name, settings, named, made.ref(settings, **named))


def pipeline() -> list[Step]:
    """Two chains from one start: train -> execute, and sample -> train."""
    first = step("sft", "sft")
    a = step("sample", "a", first.ref)
    b = step("prepare", "b", a.ref)  # takes the sandbox
    c = step("train_reward", "c", b.ref)
    d = step("sample", "d", first.ref)
    e = step("prepare", "e", d.ref)
    return [first, a, b, c, d, e, step("report", "report", c.ref, e.ref)]


def test_each_input_is_an_edge_once_and_an_artifact_of_another_run_is_none():
    foreign = ArtifactRef("train_reward", "0" * 32)
    first = step("sft", "sft")
    twice = step("sample", "twice", first.ref, first.ref, foreign)
    again = Step(first.stage, "again", "again", first.config, first.inputs, first.ref)
    schedule = Schedule([first, twice, again], SlotsConfig())
    assert schedule.needs == {"sft": (), "twice": ("sft",), "again": ("sft",)}


def test_every_stage_of_the_method_comes_before_its_report():
    for pools in ("all", "newest", "sft", "resampled"):
        config = RunConfig.model_validate(
            {"rounds": 3, "mine": {"pools": pools}, "evaluate": {"agreement": 4}}
        )
        needs = Schedule(graph(config), SlotsConfig()).needs
        seen: set[str] = set()
        todo = ["report"]
        while todo:
            name = todo.pop()
            seen.add(name)
            todo += needs[name]
        assert seen == set(needs), "the report shows the seconds of every stage"


def test_a_step_holds_the_slots_of_what_it_uses():
    steps = {s.name: resources(s) for s in graph(RunConfig.model_validate({"mine": {"assertions": True}}))}
    assert steps["sft"] == steps["sample-sft-rl"] == steps["rm-1"] == steps["evaluate"] == {"train"}
    assert steps["prepare"] == steps["execute-ppo-1-rl"] == steps["mine-1"] == {"sandbox"}
    assert steps["mine-2"] == {"train", "sandbox"}
    assert steps["report"] == set()
    weighted = {
        s.name: resources(s) for s in graph(RunConfig.model_validate({"ppo": {"execution_weight": 0.5}}))
    }
    assert (weighted["ppo-1"], steps["ppo-1"]) == ({"train", "sandbox"}, {"train"})


def test_evaluation_fills_the_time_in_which_the_rounds_leave_the_devices_free():
    steps = pipeline()
    seconds = {s.name: 10.0 for s in steps} | {"report": 0.0}
    found = timeline(steps, SlotsConfig(), seconds)
    assert found["d"] == (20, 30), "while b is in the sandbox"
    assert found["c"] == found["e"] == (30, 40)
    assert max(end for _, end in found.values()) == critical_path(steps, SlotsConfig(), seconds) == 40
    one = timeline(steps, SlotsConfig(steps=1), seconds)
    assert max(end for _, end in one.values()) == 60
    assert [name for name, _ in sorted(one.items(), key=lambda item: item[1])] == [s.name for s in steps]
    two = timeline(steps, SlotsConfig(train=2), seconds)
    assert two["a"] == two["d"] == (10, 20)


@pytest.mark.parametrize(
    ("slots", "said"),
    [
        ({"train": 0}, "runtime.slots.train"),
        ({"sandbox": -1}, "runtime.slots.sandbox"),
        ({"gpu": 1}, "runtime.slots.gpu"),
        ({"train": "many"}, "runtime.slots.train"),
        ({"steps": 0}, "runtime.slots.steps"),
        (3, "runtime.slots"),
    ],
)
def test_wrong_slots_are_refused_by_name(slots: Any, said: str):
    with pytest.raises(UsageError, match=said):
        load_config("smoke", {"runtime.slots": slots})


def test_several_machines_train_one_model_at_a_time():
    settings = {"runtime.nodes": 2, "runtime.rendezvous": "host:1", "runtime.slots.train": 2}
    with pytest.raises(UsageError, match=r"runtime.slots.train is 2.*set it to 1"):
        load_config("smoke", settings)


def test_independent_steps_meet_and_no_slot_is_held_twice():
    together, most, lock = threading.Barrier(2, timeout=100), [0], threading.Lock()
    train: list[str] = []

    def work(one: Step) -> None:
        with lock:
            train.extend([one.name] if "train" in resources(one) else [])
            most[0] = max(most[0], len(train))
        if one.name in ("b", "d"):
            together.wait()  # each waits for the other
        with lock:
            if one.name in train:
                train.remove(one.name)

    carry_out(Schedule(pipeline(), SlotsConfig()), work, lambda: None)
    assert most[0] == 1


def test_the_first_error_is_raised_and_what_works_beside_it_is_stopped(tmp_path: Path):
    begun, left = threading.Event(), {}

    def work(one: Step) -> None:
        if one.name == "b":
            begun.wait(100)
            raise RunError("b is broken")
        if one.name == "d":
            child = ["sh", "-c", "echo begun; exec sleep 60"]
            try:
                run_child(child, "sleep", {}, lambda _: begun.set())
            except BaseException as error:
                left[one.name] = error
                raise

    started = time.monotonic()
    schedule = Schedule(pipeline(), SlotsConfig())
    with pytest.raises(RunError, match="b is broken"):
        carry_out(schedule, work, lambda: None)
    assert time.monotonic() - started < 50
    assert isinstance(left["d"], Stopped)
    assert "since b failed" in str(left["d"])
    assert set(schedule.running) == {"b", "d"}, "neither has come to a good end"


def test_what_a_step_holds_that_does_not_stop_in_time_is_given_up(monkeypatch: pytest.MonkeyPatch):
    """A lease of the store, say, whose holder is in the middle of an upload: others need not wait until it expires."""
    begun, over, given_up = threading.Event(), threading.Event(), list[str]()

    def work(one: Step) -> None:
        if one.name == "b":
            begun.wait(100)
            raise RunError("b is broken")
        with current().holding(lambda: given_up.append(one.name)):
            if one.name == "d":
                begun.set()
                over.wait(100)

    monkeypatch.setattr("tasks.schedule.SECONDS_AFTER_FAILURE", 0.1)
    with pytest.raises(RunError, match="b is broken"):
        carry_out(Schedule(pipeline(), SlotsConfig()), work, lambda: None)
    over.set()
    assert given_up == ["d"]


def test_a_signal_stops_all_steps_and_is_named_with_them():
    begun = threading.Barrier(3, timeout=100)
    ended: list[str] = []

    def work(one: Step) -> None:
        if one.name in ("b", "d"):
            begun.wait()
            while current().reason is None:
                time.sleep(0.01)
            ended.append(one.name)
            current().check()

    def changed() -> None:
        if ENDING.doing == "b, d":
            begun.wait()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        carry_out(Schedule(pipeline(), SlotsConfig()), work, changed)
    assert sorted(ended) == ["b", "d"]


def test_a_sandbox_at_work_ends_where_its_step_is_stopped():
    from sandbox.errors import SandboxError
    from sandbox.verdicts import Program
    from selftrain.stop import STOP

    stop = Stop()
    token = STOP.set(stop)
    try:
        with sandbox_at_work(RuntimeConfig(backend="process", workers=1)) as sandbox:
            threading.Timer(1.0, stop.stop, ["the run ends"]).start()
            programs = [Program(str(n), "py", f"import time\ntime.sleep(20 + {n})\n") for n in range(3)]
            started = time.monotonic()
            with pytest.raises(SandboxError):
                list(sandbox.run(programs))
            assert time.monotonic() - started < 15
        with pytest.raises(Stopped), sandbox_at_work(RuntimeConfig(backend="process")):
            pass
    finally:
        STOP.reset(token)


class Threaded(ScheduledRun):
    """Builds its steps as a run of Prefect does, without Prefect."""

    def execute(self, step: Step, there: bool) -> None:
        """Build the step."""
        self.build(step)


def fail_beside(folder: Path, slow: Work, broken: Work) -> Threaded:
    """The run of two stages side by side, the second of which fails with `broken`, which the run raises."""
    run = Threaded(RunConfig(name="x"), Store(str(folder)))
    run.do(Stage("slow", 1, slow), "slow", {}, {})
    run.do(Stage("broken", 1, broken), "broken", {}, {})
    with pytest.raises(RunError, match="^broken$"):
        run.complete()
    return run


def test_a_stage_that_is_stopped_says_so_whatever_it_raised(tmp_path: Path):
    waiting = threading.Event()

    def slow(context: Context) -> Outcome:
        waiting.set()
        while current().reason is None:
            time.sleep(0.01)
        raise OSError("the sandbox is closed")

    def broken(context: Context) -> Outcome:
        waiting.wait(100)
        raise RunError("broken")

    fail_beside(tmp_path, slow, broken)


def test_run_json_does_not_say_of_a_step_that_has_ended_that_it_is_at_work(tmp_path: Path):
    found: list[str] = []

    def slow(context: Context) -> Outcome:
        deadline = time.monotonic() + 5
        while found != ["slow"] and time.monotonic() < deadline:
            time.sleep(0.05)
            found[:] = json.loads((tmp_path / "run.json").read_text())["unfinished"]
        return Outcome("")

    run = Threaded(RunConfig(name="x"), Store(str(tmp_path / "store")))
    run.write(tmp_path, finished=False)
    run.do(Stage("slow", 1, slow), "slow", {}, {})
    run.do(Stage("quick", 1, lambda _: Outcome("")), "quick", {}, {})
    run.complete()
    assert found == ["slow"]


def test_progress_ends_a_step_that_is_stopped(tmp_path: Path):
    ends: list[Callable[[], None]] = []

    def slow(context: Context) -> Outcome:
        for number in range(2000):
            context.progress(number, 2000)
            time.sleep(0.01)
        ends.append(lambda: None)
        return Outcome("")

    def broken(context: Context) -> Outcome:
        raise RunError("broken")

    run = fail_beside(tmp_path, slow, broken)
    assert not ends
    assert not run.is_there(run.steps["slow"].ref)


def test_what_is_sampled_is_executed_while_others_are_sampled(tmp_path: Path):
    """The stand-in of `sample` goes on only when the verdicts of its first shard are known; others have the sandbox at first."""
    problem = Problem("p", "p", "py", "def f(n):\n", "assert f(1) == 2\n", "rl", "bank")
    bodies = ("    return n + 1\n", "    return n\n")
    rows = [Candidate(f"p#{at}", "p", at, body, (1,), -1.0, "stop") for at, body in enumerate(bodies)]
    tools = {"py": "process"}
    known: list[int] = []
    asked, held = list[bool](), threading.Event()

    class Shared(Threaded):
        """Its sandbox is that of others too."""

        @contextmanager
        def spare(self, step: Step) -> Iterator[bool]:
            """Not the first time."""
            asked.append(bool(asked))
            held.set()
            yield asked[-1]
            held.clear()

    def prepare(context: Context) -> Outcome:
        write_records(context.folder / "problems.parquet", [problem], Problem)
        return Outcome("1")

    def sample(context: Context) -> Outcome:
        folder = context.folder / PROGRESS
        folder.mkdir(exist_ok=True)
        write_records(folder / "shard-00000.parquet", rows[:1], Candidate)
        wanted = list(programs(problem, "p#0", bodies[0], ExecuteConfig()))
        deadline = time.monotonic() + 100
        while not known and time.monotonic() < deadline:
            cache = VerdictCache(run.store.local / "verdicts.sqlite", tools)
            known.extend(range(len(cache.find(wanted))))
            cache.close()
            time.sleep(0.2)
        wait_until(lambda: not held.is_set(), "its return: no shard is there", seconds=20)
        write_records(context.folder / "candidates.parquet", rows, Candidate)
        return Outcome("1")

    run = Shared(
        RunConfig(name="x", runtime=RuntimeConfig(backend="process", workers=1)), Store(str(tmp_path))
    )
    problems = run.do(Stage("prepare", 1, prepare), "prepare", {}, {})
    candidates = run.do(Stage("sample", 1, sample), "sample", {}, {"problems": problems})
    slice_ = ExecuteSlice(execute=ExecuteConfig(), toolchain=tools)
    executions = run.do(EXECUTE, "execute", slice_, {"problems": problems, "candidates": candidates})
    run.complete()
    assert known == [0], "before the pool was complete"
    assert asked == [False, True], "once for the shard that is there"
    found = read_records(run.store.path(executions) / "executions.parquet", Execution)
    assert [(row.candidate_id, row.passed) for row in found] == [("p#0", True), ("p#1", False)]


def test_executing_ahead_gives_its_slot_to_any_step_that_is_ready():
    first = step("sft", "sft")
    sampled = step("sample", "sample", first.ref)
    executed = step("execute", "execute", sampled.ref)
    other = step("prepare", "other", first.ref)
    schedule = Schedule([first, sampled, executed, other], SlotsConfig())
    assert schedule.take() is first
    assert schedule.take_early() is None, "nothing is sampled yet"
    schedule.end("sft")
    assert schedule.take() is sampled
    assert schedule.take() is other
    assert schedule.take_early() is None, "the sandbox is taken"
    schedule.end("other")
    assert schedule.take_early() == (executed, sampled)
    assert not schedule.wanted()
    schedule.end("sample")
    assert schedule.take() is None
    assert schedule.wanted(), "by the step itself, since its candidates are complete"
    schedule.end_early(again=True)
    assert schedule.take() is executed


@pytest.mark.parametrize("sandbox", [1, 2, 3])
def test_executing_ahead_ends_before_its_step_begins_however_many_slots_there_are(sandbox: int):
    first = step("sft", "sft")
    sampled = step("sample", "sample", first.ref)
    executed = step("execute", "execute", sampled.ref)
    begun, order = threading.Event(), list[str]()

    def work(one: Step) -> None:
        if one is sampled:
            begun.wait(20)
        order.append(one.name)

    def ahead(*pair: Any) -> None:
        begun.set()
        deadline = time.monotonic() + 5
        while pair[-1]() and time.monotonic() < deadline:
            time.sleep(0.01)
        order.append("ahead, not told to end" if pair[-1]() else "ahead")

    schedule = Schedule([first, sampled, executed], SlotsConfig(sandbox=sandbox))
    carry_out(schedule, work, lambda: None, ahead)
    assert order == ["sft", "sample", "ahead", "execute"]
