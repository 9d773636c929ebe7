"""Tests of training one model on two machines, which are network namespaces that share the file system."""

import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from selftrain.config import PPOConfig, RuntimeConfig, SftConfig
from selftrain.errors import ChildFailed
from selftrain.launch import heartbeat, nodes
from selftrain.launch.heartbeat import STALE_SECONDS, Beat, Heartbeat, HeartbeatReader
from selftrain.launch.launch import launch
from selftrain.launch.nodes import Job, Seat, gather
from selftrain.stage import Context, Outcome
from selftrain.stages.ppo import PPOSlice
from selftrain.stages.sft import SFT, SftSlice
from tests.command import ROOT, children
from tests.machines import WIRE, Machines, wired
from tests.selftrain.conftest import TINY

SETTINGS: dict[str, Any] = {
    "epochs": 120,  # of one step each
    "batch_size": 8,
    "micro_batch_size": 4,
    "max_tokens": 96,
    "warmup_steps": 2,
    "learning_rate": 1e-3,
    "checkpoint_steps": 5,
}


@pytest.fixture
def machines() -> Iterator[Machines]:
    """Two machines that see nothing but each other."""
    with wired() as found:
        yield found


def train(out: Path, problems: Path, runtime: RuntimeConfig, progress: Any = lambda **_: None) -> Outcome:
    """The tiny SFT stage, with the store in `out`."""
    local = out / "store" / ".local"
    folder = local / "work" / "sft"
    folder.mkdir(parents=True, exist_ok=True)
    config = SftSlice(seed=1, model=TINY, base_digest=None, sft=SftConfig(**SETTINGS))
    inputs = {"problems": problems}
    return SFT.run(Context(config, inputs, folder, runtime, progress, shared=local, log=print))


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, problems: Path) -> Outcome:
    """What one process makes of it."""
    return train(tmp_path_factory.mktemp("alone"), problems, RuntimeConfig(processes=1))


def losses(metrics: dict[str, Any]) -> list[float]:
    """The loss curve."""
    return [row["loss"] for row in metrics["curve"]]


FIRST = """
import json, sys
from pathlib import Path
from selftrain.config import RuntimeConfig
from tests.selftrain.launch.test_nodes import train

out, problems, rendezvous = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
runtime = RuntimeConfig(processes=1, nodes=2, rendezvous=rendezvous, interface="wire")
def progress(done, **_):
    with (out / "steps").open("a") as file:
        file.write(f"{done}\\n")
try:
    outcome = train(out, problems, runtime, progress)
except Exception as error:
    print(f"{type(error).__name__}: {error}")
    sys.exit(3)
(out / "outcome.json").write_text(json.dumps(outcome.metrics))
"""


def first(machines: Machines, out: Path, problems: Path, attempt: int) -> subprocess.Popen[str]:
    """The tiny SFT stage on machine `a` of two."""
    endpoint = f"{WIRE['a']}:29400"
    arguments = ("-c", FIRST, str(out), str(problems), endpoint)
    return machines.start("a", *arguments, log=out / f"first-{attempt}.log")


def second(machines: Machines, out: Path, attempt: int) -> subprocess.Popen[str]:
    """`selftrain node` on machine `b`."""
    (out / "store").mkdir(parents=True, exist_ok=True)
    arguments = ("-m", "flows.cli", "node", str(out / "store"))
    return machines.start("b", *arguments, log=out / f"node-{attempt}.log")


def wait_until(true: Callable[[], bool], what: str, *logs: Path, seconds: float = 600) -> None:
    """Wait; where it does not come true in time, fail with what `logs` hold."""
    deadline = time.monotonic() + seconds
    while not true():
        said = "\n".join(f"--- {log.name}\n{log.read_text()[-4000:]}" for log in logs if log.exists())
        assert time.monotonic() < deadline, f"{what} did not happen in {seconds} s\n{said}"
        time.sleep(0.1)


def steps(out: Path) -> list[float]:
    """The steps that were reported so far."""
    path = out / "steps"
    return [float(line) for line in path.read_text().split()] if path.exists() else []


def test_two_machines_train_as_one_process_does_and_one_may_be_killed(
    machines: Machines, tmp_path: Path, problems: Path, alone: Outcome
):
    out = tmp_path / "together"
    out.mkdir()
    logs = [out / name for name in ("first-1.log", "node-1.log", "first-2.log", "node-2.log")]
    stage = first(machines, out, problems, 1)
    second(machines, out, 1)
    # A machine is lost in the middle, with all that runs on it.
    wait_until(lambda: bool(steps(out)) and steps(out)[-1] >= 12, "step 12", *logs[:2])
    machines.kill("b")
    wait_until(lambda: stage.poll() is not None, "the stage's end", *logs[:2], seconds=120)
    said = logs[0].read_text()
    assert stage.returncode == 3, said
    assert "ChildFailed: selftrain.training.sft" in said
    assert machines.processes("a") == [], "nothing of the failed attempt is left"
    assert not list((out / "store" / ".local" / "jobs").glob("*.*")), "nor what it held out"
    done = steps(out)
    assert max(done) < 120
    # Another takes its place; the stage goes on from the checkpoint.
    second(machines, out, 2)
    stage = first(machines, out, problems, 2)
    wait_until(lambda: stage.poll() is not None, "the stage's end", *logs)
    assert stage.returncode == 0, logs[2].read_text()[-4000:] + logs[3].read_text()[-4000:]
    again = steps(out)[len(done) :]
    assert again[0] > 10, f"it starts over: {again}"
    assert again[-1] == 120
    metrics = json.loads((out / "outcome.json").read_text())
    assert math.isfinite(metrics["loss"])
    assert losses(metrics) == pytest.approx(losses(alone.metrics), rel=1e-3)
    wait_until(lambda: "is finished" in logs[3].read_text(), "the node's word", logs[3], seconds=60)


def learn(out: Path, inputs: dict[str, Path], runtime: RuntimeConfig, asked: list[Any]) -> Outcome:
    """The tiny PPO stage's training process, with the store in `out`; a completion passes if its length is even. `asked`: gets each question."""

    def answer(rows: list[list[str]]) -> list[bool]:
        asked.append(rows)
        return [len(text) % 2 == 0 for _, text in rows]

    local = out / "store" / ".local"
    folder = local / "work" / "ppo"
    folder.mkdir(parents=True)
    settings = PPOConfig(
        steps=3, rollout_batch=8, mini_batch=4, micro_batch=2, execution_weight=1, learning_rate=1e-3
    )
    config = PPOSlice(seed=1, ppo=settings, max_new_tokens=8)
    context = Context(config, inputs, folder, runtime, lambda *_, **__: None, shared=local, log=print)
    return launch("selftrain.training.ppo.train", context, distributed=True, on_request=answer)


ASKED = """
import json, sys
from pathlib import Path
from selftrain.config import RuntimeConfig
from tests.selftrain.launch.test_nodes import learn

out, inputs = Path(sys.argv[1]), {name: Path(path) for name, path in json.loads(sys.argv[2]).items()}
asked = []
outcome = learn(out, inputs, RuntimeConfig(processes=1, nodes=2, rendezvous=sys.argv[3], interface="wire"), asked)
(out / "outcome.json").write_text(json.dumps({"metrics": outcome.metrics, "asked": asked}))
"""


def test_two_machines_learn_from_execution_as_one_process_does(
    machines: Machines, tmp_path: Path, problems: Path, generator: Path, reranker: Path
):
    inputs = {"problems": problems, "generator": generator, "reranker": reranker}
    out = tmp_path / "together"
    out.mkdir()
    places = json.dumps({name: str(path) for name, path in inputs.items()})
    stage = machines.start("a", "-c", ASKED, str(out), places, f"{WIRE['a']}:29400", log=out / "first-1.log")
    second(machines, out, 1)
    asked: list[Any] = []
    alone = learn(tmp_path / "alone", inputs, RuntimeConfig(processes=1), asked)
    logs = [out / name for name in ("first-1.log", "node-1.log")]
    wait_until(lambda: stage.poll() is not None, "the stage's end", *logs)
    assert stage.returncode == 0, "".join(log.read_text()[-4000:] for log in logs)
    together = json.loads((out / "outcome.json").read_text())
    assert [len(rows) for rows in asked] == [8, 8, 8]
    assert together["asked"] == asked, "the first machine asks for all"
    curves = [[row["reward"] for row in metrics["curve"]] for metrics in (alone.metrics, together["metrics"])]
    assert curves[0] == pytest.approx(curves[1], rel=1e-3)


# How they find each other


def held_out(resolved: Path, **changes: Any) -> Job:
    """A job for two machines."""
    runtime = RuntimeConfig(processes=1, nodes=2, rendezvous="127.0.0.1:29400")
    values = {"attempt": "one", "module": "selftrain.training.sft", "resolved": resolved, "runtime": runtime}
    return Job(**values | changes)


@dataclass
class Node:
    """A running `selftrain node`."""

    process: subprocess.Popen[bytes]
    log: Path

    def says(self, text: str) -> None:
        """Wait until it has printed `text`."""
        wait_until(lambda: text in self.log.read_text() or self.process.poll() is not None, text, self.log)
        assert text in self.log.read_text()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """One that waits for jobs of the store in `tmp_path`."""
    (tmp_path / "store").mkdir()
    log = tmp_path / "node.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "flows.cli", "node", str(tmp_path / "store")],
            cwd=ROOT,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        running = Node(process, log)
        running.says("waiting for jobs")
        yield running
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def jobs(tmp_path: Path) -> Path:
    """Where jobs of that store are held out."""
    return tmp_path / "store" / ".local" / "jobs"


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_a_node_ends_when_it_is_told_to(node: Node, kind: signal.Signals):
    node.process.send_signal(kind)
    assert node.process.wait(timeout=120) == 0
    assert "interrupted; this machine takes no more jobs" in node.log.read_text()
    assert "Traceback" not in node.log.read_text()


def test_why_a_node_fails_is_told_to_the_first_machine_and_the_node_goes_on(
    node: Node, jobs: Path, tmp_path: Path
):
    (tmp_path / "resolved.json").write_text("{}")
    for attempt in ("one", "two"):
        job = held_out(tmp_path / "resolved.json", attempt=attempt, needs=10**15)
        with gather(jobs, job, print) as others:
            wait_until(lambda: others.failure() is not None, "the node's failure", node.log, seconds=60)
            assert others.failure() == f"machine 2 ({socket.gethostname()}) failed"
            assert "training processes need at least" in others.last_words()
        assert not list(jobs.glob("*.*"))


def test_a_node_ends_its_part_when_the_job_is_over(node: Node, jobs: Path, tmp_path: Path):
    (tmp_path / "resolved.json").write_text("{}")
    with gather(jobs, held_out(tmp_path / "resolved.json"), print) as others:
        wait_until(lambda: bool(children(node.process.pid)), "the start of its ranks", node.log)
        assert others.failure() is None
    node.says("the first machine has ended the job")
    wait_until(lambda: not children(node.process.pid), "the end of its ranks", node.log)
    assert node.process.poll() is None


def test_a_node_takes_no_job_of_a_dead_machine_and_runs_nothing_but_training(
    node: Node, jobs: Path, tmp_path: Path
):
    (jobs / "dead.json").write_text(held_out(tmp_path).model_dump_json())
    strange = held_out(tmp_path).model_copy(update={"module": "http.server"})
    with Heartbeat(jobs / "strange.json", strange):
        node.says("strange.json cannot be understood")
    assert not list(jobs.glob("dead.one.*"))
    assert not list(jobs.glob("strange.one.*"))


def test_machines_that_do_not_come_are_told(jobs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(nodes, "GATHER_SECONDS", 0.1)
    said: list[str] = []
    with (
        pytest.raises(
            ChildFailed, match=r"1 of 2 machines are not there; start `selftrain node STORE` on them"
        ),
        gather(jobs, held_out(tmp_path), said.append),
    ):
        pytest.fail("it began without them")
    assert len(said) == 1
    assert not list(jobs.glob("*.*"))


def test_a_machine_that_dies_while_others_are_waited_for_gives_its_place_up(
    jobs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(heartbeat, "STALE_SECONDS", 0.5)
    monkeypatch.setattr(nodes, "GATHER_SECONDS", 5.0)
    jobs.mkdir(parents=True)

    def take_a_seat(_: str) -> None:
        name = next(jobs.glob("*.json")).stem
        (jobs / f"{name}.one.1").write_text(Seat(host="dying").model_dump_json())

    three = RuntimeConfig(processes=1, nodes=3, rendezvous="127.0.0.1:29400")
    with (
        pytest.raises(ChildFailed, match="2 of 3 machines are not there"),
        gather(jobs, held_out(tmp_path, runtime=three), take_a_seat),
    ):
        pytest.fail("it began without them")


def test_a_machine_that_gives_no_sign_of_life_is_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    others = nodes.OtherMachines({1: HeartbeatReader(tmp_path / "seat", Seat)})
    (tmp_path / "seat").write_text(Seat(host="b").model_dump_json())
    assert others.failure() is None
    monkeypatch.setattr(heartbeat, "STALE_SECONDS", -1.0)
    assert others.failure() == "machine 2 (b) gives no sign of life"


def test_a_sign_of_life_is_a_change_and_not_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert STALE_SECONDS > 10 * heartbeat.BEAT_SECONDS
    path = tmp_path / "beat"
    found = HeartbeatReader(path, Beat)
    assert found.read() is None
    path.write_text('{"beat": 5}')
    os.utime(path, (0, 0))
    assert found.read() == Beat(beat=5)
    assert (found.beats, found.stale) == (0, False)
    path.write_text('{"beat": 6}')
    os.utime(path, (0, 0))
    assert found.read() == Beat(beat=6)
    assert found.beats == 1
    monkeypatch.setattr(heartbeat, "STALE_SECONDS", -1.0)
    assert found.stale
    path.write_text("torn {")
    assert found.read() is None


def test_deepspeeds_launcher_trains_as_one_process_does(tmp_path: Path, problems: Path, alone: Outcome):
    (tmp_path / "hosts").write_text("localhost slots=2\n")
    seen: list[float] = []
    runtime = RuntimeConfig(processes=2, launcher="deepspeed", hostfile=str(tmp_path / "hosts"))
    found = train(tmp_path, problems, runtime, lambda done, **_: seen.append(done))
    assert seen[-1] == 120
    assert losses(found.metrics) == pytest.approx(losses(alone.metrics), rel=1e-3)
