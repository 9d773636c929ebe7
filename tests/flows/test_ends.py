"""Tests of runs that receive a signal: they end within seconds, print one line, leave no process behind, and can be resumed.

These tests use real processes, servers and terminals. Each test interrupts a run of the smoke config at another point.
"""

import contextlib
import fcntl
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from selftrain.stage import ArtifactRef
from selftrain.store.checkpoints import FOLDER, WHOLE
from selftrain.store.store import Store
from tests.command import ROOT, Finished, PrefectServer, prefect_server
from tests.kill_at_random import descendants, living, outcome, processes_of
from tests.servers import flaky, moto

LONGEST = 300
"""Longest wait, in seconds, for a run to reach the place where a test interrupts it."""
SECONDS_TO_END = 30
"""Three times the allowed time, for busy machines."""
SECONDS_TO_CLEAR = 30
"""Seconds in which processes end that outlived their run: a worker of the sandbox notices by its standard input."""
LONG = ("--set", "sft.epochs=100000")
"""Settings of a training that is too long for a test to wait for."""


@dataclass
class Running:
    """A `selftrain run smoke` in its own process group, with its store and output in `folder`."""

    folder: Path
    process: "subprocess.Popen[bytes]"
    terminal: int | None = None
    printed: list[bytes] = field(default_factory=list)

    @property
    def text(self) -> str:
        """The output so far."""
        if self.terminal is None:
            return (self.folder / "log").read_text(errors="replace")
        return b"".join(self.printed).decode(errors="replace")

    def wait_for(self, true: Callable[[], object], what: str) -> None:
        """Wait until the condition holds; fails if the run ends before."""
        deadline = time.monotonic() + LONGEST
        while not true():
            assert self.process.poll() is None, f"it ended before {what}:\n{self.text[-3000:]}"
            assert time.monotonic() < deadline, f"{what} did not come:\n{self.text[-3000:]}"
            time.sleep(0.05)

    def trains(self) -> bool:
        """Whether the first training has written a checkpoint."""
        return self.step() > 0

    def step(self) -> int:
        """The step of its newest complete checkpoint; 0 if there is none."""
        found = self.folder.glob(f"store/.local/work/sft/*/progress/{FOLDER}/*/{WHOLE}")
        return max((int(path.parent.name.rpartition("-")[2]) for path in found), default=0)

    def waits(self) -> bool:
        """Whether the run has reached a stage's lock."""
        for path in Path(f"/proc/{self.process.pid}/fd").glob("*"):
            with contextlib.suppress(OSError):
                if "/locks/" in os.readlink(path):
                    return True
        return False

    def group(self, *signals: signal.Signals) -> None:
        """Send signals to the process group, as `timeout`, a terminal or a batch system does."""
        for number in signals:
            os.killpg(self.process.pid, number)

    def ended(self, code: int, during: str = "", pause: float = SECONDS_TO_END) -> str:
        """Check exit code, time, last line and remaining processes of the ended run; returns its output."""
        known = descendants(self.process.pid)
        assert self.process.wait(pause) == code
        text = self.text
        assert "Traceback" not in text, text
        said = [line for line in text.splitlines() if line.startswith("selftrain: ")]
        if self.terminal is None:
            assert len(said) == 1, text
            assert f"ended by {signal.Signals(code - 128).name} during {during}" in said[0]
            assert "run again to go on" in said[0]
        deadline = time.monotonic() + SECONDS_TO_CLEAR
        while left := living(known) + processes_of(self.folder):
            assert time.monotonic() < deadline, left
            time.sleep(0.05)
        return text


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Starts a run. terminal: attach it to a terminal; environment: without PREFECT_API_URL in it the run starts its own server."""
    started = []

    def run(*extra: str, terminal: bool = False, folder: Path = tmp_path, **environment: str) -> Running:
        command = [sys.executable, "-m", "flows.cli", "run", "smoke", "--out", str(folder / "out")]
        command += ["--set", f"store={folder / 'store'}", *extra]
        variables = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
        variables |= {"KILLED_RUN": str(folder)} | environment
        mine = theirs = None
        folder.mkdir(exist_ok=True)
        with (folder / "log").open("wb") as log:
            if terminal:
                mine, theirs = pty.openpty()
            out = log.fileno() if theirs is None else theirs
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=variables,
                stdin=subprocess.DEVNULL if theirs is None else theirs,
                stdout=out,
                stderr=out,
                start_new_session=True,
                preexec_fn=partial(ready, theirs is not None),
            )
        made = Running(folder, process, mine)
        if theirs is not None:
            os.close(theirs)
            threading.Thread(target=read, args=(made,), daemon=True).start()
        started.append(made)
        return made

    yield run
    for made in started:
        if made.process.poll() is None:
            made.process.kill()
            made.process.wait()


def ready(terminal: bool) -> None:
    """In the child: reset signals as a shell does, also if the tests run under nohup, and set its terminal."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    if terminal:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def read(run: Running) -> None:
    """Store what a run prints on its terminal."""
    assert run.terminal is not None
    with contextlib.suppress(OSError):
        while content := os.read(run.terminal, 4096):
            run.printed.append(content)


# With a server of its own


def test_a_signal_to_the_group_ends_a_training_and_the_next_run_goes_on(start: Callable[..., Running]):
    run = start(*LONG, "--set", "runtime.processes=2")
    run.wait_for(run.trains, "a checkpoint")
    children = [process for process in descendants(run.process.pid) if process[0] != str(run.process.pid)]
    assert len(children) >= 4, "the server, torchrun and two ranks"
    made = {path: path.stat().st_mtime_ns for path in run.folder.glob("store/*/*/manifest.json")}
    assert [path.parts[-3] for path in made] == ["prepare"]
    run.group(signal.SIGTERM, signal.SIGTERM)  # `timeout` does both
    run.ended(143, "sft")
    before = run.step()
    again = start(*LONG, "--set", "runtime.processes=2", terminal=True)
    again.wait_for(lambda: re.search(r"sft +(\d+)/\d+ steps", again.text), "progress")
    steps = re.search(r"sft +(\d+)/\d+ steps", again.text)
    assert steps is not None
    assert int(steps[1]) >= before, "it went on from the last checkpoint"
    assert {path: path.stat().st_mtime_ns for path in made} == made
    assert again.terminal is not None
    os.write(again.terminal, b"\x03")
    assert "ended by SIGINT during sft" in again.ended(130)


def test_a_signal_while_the_server_starts(start: Callable[..., Running]):
    run = start()
    run.wait_for(lambda: any("flows.server" in line for line in processes_of(run.folder)), "the server")
    run.group(signal.SIGTERM)
    run.ended(143, "the start of Prefect's server")


# With another's server


def test_a_signal_to_the_one_process_while_another_builds_and_a_terminal_that_is_closed(
    start: Callable[..., Running], server: PrefectServer, smoke_run: Finished, tmp_path: Path
):
    with building(smoke_run, tmp_path):
        run = start(PREFECT_API_URL=server.url)
        run.wait_for(run.waits, "its wait")
        run.process.send_signal(signal.SIGTERM)
        run.ended(143, "prepare")
    crashed = {"type": {"any_": ["CRASHED"]}}
    (told,) = server.post("flow_runs/filter", flow_runs={"state": crashed}, sort="START_TIME_DESC", limit=1)
    assert told["name"].startswith("smoke")
    again = start(*LONG, terminal=True, PREFECT_API_URL=server.url)
    again.wait_for(again.trains, "a checkpoint")
    assert again.terminal is not None
    os.close(again.terminal)
    again.ended(129)


@contextlib.contextmanager
def building(like: Finished, *folders: Path) -> Iterator[None]:
    """Let runs in `folders` wait: another process holds the lock of their first stage."""
    with contextlib.ExitStack() as stack:
        for folder in folders:
            lock = folder / "store" / ".local" / "locks" / f"prepare-{like.stages['prepare']['key']}"
            lock.parent.mkdir(parents=True)
            fcntl.flock(stack.enter_context(lock.open("w")), fcntl.LOCK_EX)
        yield


def test_a_signal_while_programs_run_and_the_next_run_ends_as_an_undisturbed_one(
    start: Callable[..., Running], server: PrefectServer, smoke_run: Finished, tmp_path: Path
):
    shutil.copytree(smoke_run.store, tmp_path / "store")
    ref = smoke_run.stages["execute-sft-rl"]
    shutil.rmtree(tmp_path / "store" / ref["stage"] / ref["key"])
    shutil.rmtree(tmp_path / "store" / ".local")  # verdicts that are known need no sandbox
    run = start("--set", "runtime.workers=1", PREFECT_API_URL=server.url)
    work = tmp_path / "store" / ".local" / "work" / ref["stage"] / ref["key"]
    run.wait_for(
        lambda: work.is_dir() and any("sandbox.runner" in line for line in processes_of(tmp_path)),
        "the sandbox",
    )
    run.group(signal.SIGTERM)
    run.ended(143, "execute · sft · rl")
    again = start(PREFECT_API_URL=server.url)
    assert again.process.wait(LONGEST) == 0, again.text
    assert outcome(tmp_path) == outcome(smoke_run.out.parent)


# With a store on S3


def test_a_signal_during_an_upload_and_while_another_machine_holds_the_lease(
    start: Callable[..., Running], server: PrefectServer, tmp_path: Path
):
    with moto() as s3, flaky(s3.url, failed=0, slow=0, delay=60) as bad:
        url = s3.store()
        variables = s3.environment | {
            "AWS_ENDPOINT_URL": bad.url,
            "XDG_CACHE_HOME": str(tmp_path / "cache"),
            "PREFECT_API_URL": server.url,
        }
        bad.stuck = "problems.parquet"
        run = start("--set", f"store={url}", **variables)
        run.wait_for(lambda: bad.held, "an upload")
        run.group(signal.SIGTERM)
        run.ended(143, "prepare")
        bad.stuck = None
        store = Store(url, tmp_path / "reader", s3.options)
        (lock,) = tmp_path.glob("cache/selftrain/store/locks/prepare-*")
        key = lock.name.removeprefix("prepare-")
        lease = f"{store.root}/prepare/{key}/lease"
        assert store.files.children(lease) == [], "it was given up"
        other = json.dumps({"token": "t", "machine": "another", "host": "far", "pid": 1, "beats": 0})
        store.files.write(f"{lease}/7.json", other.encode())
        waits = start("--set", f"store={url}", **variables)
        asked = bad.count("lease/7.json")
        waits.wait_for(lambda: bad.count("lease/7.json") > asked + 1, "its wait")
        waits.group(signal.SIGTERM)
        waits.ended(143, "prepare")
        assert not store.has(ArtifactRef("prepare", key))


# With a server that is gone


def test_a_server_that_hangs_or_is_gone_keeps_no_run_from_its_end(
    start: Callable[..., Running], smoke_run: Finished, tmp_path: Path
):
    once, twice, told = (tmp_path / name for name in ("once", "twice", "told"))
    (tmp_path / "home").mkdir()
    with prefect_server(tmp_path / "home") as gone, building(smoke_run, once, twice, told):
        runs = [start(folder=folder, PREFECT_API_URL=gone.url) for folder in (once, twice, told)]
        for run in runs:
            run.wait_for(run.waits, "its wait")
        os.killpg(gone.pid, signal.SIGSTOP)
        runs[0].group(signal.SIGTERM)
        runs[1].group(signal.SIGINT)
        time.sleep(1)  # a second Ctrl-C sooner than that is taken for the first
        runs[1].group(signal.SIGINT)
        runs[1].ended(130, "prepare", pause=3)
        runs[0].ended(143, "prepare")
        os.killpg(gone.pid, signal.SIGKILL)
        runs[2].group(signal.SIGHUP)
        runs[2].ended(129, "prepare")


def test_a_run_whose_server_is_gone_fails_and_says_so(
    start: Callable[..., Running], smoke_run: Finished, tmp_path: Path
):
    shutil.copytree(smoke_run.store, tmp_path / "store")
    (tmp_path / "home").mkdir()
    with prefect_server(tmp_path / "home") as gone:
        run = start(PREFECT_API_URL=gone.url, PREFECT_CLIENT_MAX_RETRIES="1")
        run.wait_for(lambda: (tmp_path / "out" / "run.json").is_file(), "its begin")
        os.killpg(gone.pid, signal.SIGKILL)
        assert run.process.wait(LONGEST) == 1
    assert "Traceback" not in run.text
    assert f"selftrain: the Prefect server {gone.url}/ does not answer any more" in run.text
    assert processes_of(run.folder) == []
