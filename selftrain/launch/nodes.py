"""Several machines train one model: the first runs the stage, each of the others `selftrain node STORE`.

They meet in a folder that all of them see under the same path, as they do the store (a shared file system):

    jobs/lock            held by the first machine: one job at a time
    jobs/NAME.json       what is to be run, while the first machine lives
    jobs/NAME.ATTEMPT.2  the machine that takes part as number 2, while it lives; its last words when it fails

Each of these files beats (see `pulse`). When the job's file is gone or still, the others end their part and wait for the
next; when another machine's is gone or still, the first ends its own part, and the stage fails: the next attempt goes on
from the last checkpoint.
"""

import fcntl
import hashlib
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import Field

from selftrain.config import RuntimeConfig
from selftrain.errors import ChildFailed, SelftrainError, UsageError
from selftrain.launch.commands import environment, need_deepspeed, torchrun
from selftrain.launch.heartbeat import STALE_SECONDS, Beat, Heartbeat, HeartbeatReader
from selftrain.launch.processes import run
from selftrain.models.memory import check_memory

GATHER_SECONDS = 1800.0
"""How long the first machine waits for the others."""
END_SECONDS = 30.0
"""How long it waits for them to end after it has: their launchers leave together, and log a trace where one is missed."""
LAST_WORDS_SECONDS = 10.0
"""How long it waits for what they say of their failure, after its own."""
POLL_SECONDS = 0.5

Log = Callable[[str], None]


class Job(Beat):
    """What the other machines are to run.

    attempt   differs from try to try
    going     whether all of them are there
    needs     bytes of memory per process, at least
    """

    attempt: str
    module: str = Field(pattern=r"^selftrain\.training\.(ppo\.)?[a-z_]+$")
    resolved: Path
    runtime: RuntimeConfig
    needs: int = 0
    going: bool = False


class Seat(Beat):
    """A machine that takes part.

    over    its part has ended
    failed  its part has ended with these last words
    """

    host: str
    over: bool = False
    failed: str = ""


# The first machine


class OtherMachines:
    """The other machines of a job that is going."""

    def __init__(self, seats: dict[int, HeartbeatReader[Seat]]) -> None:
        self.seats = seats
        self.hosts: dict[int, str] = {}

    def failure(self) -> str | None:
        """Why the job cannot go on; None while it can."""
        for number, pulse in self.seats.items():
            seat = pulse.read()
            host = f"machine {number + 1} ({self.hosts.get(number, '?')})"
            if seat is not None:
                self.hosts[number] = seat.host
                if seat.failed:
                    return f"{host} failed"
                if seat.over:
                    continue
            elif not pulse.path.exists():
                return f"{host} has left"
            if pulse.stale:
                return f"{host} gives no sign of life"
        return None

    def wait_for_end(self) -> None:
        """Wait until the others have ended as well, or not for ever."""
        deadline = time.monotonic() + END_SECONDS
        while time.monotonic() < deadline:
            seats = [pulse.read() for pulse in self.seats.values()]
            if all(seat is None or seat.over or seat.failed for seat in seats):
                return
            time.sleep(POLL_SECONDS)

    def last_words(self) -> str:
        """What machines that failed said last; waits a little for it."""
        deadline = time.monotonic() + LAST_WORDS_SECONDS
        while True:
            seats = {number: pulse.read() for number, pulse in self.seats.items()}
            said = [(n, seat) for n, seat in seats.items() if seat is not None and seat.failed]
            if said or time.monotonic() > deadline:
                return "".join(f"\nmachine {n + 1} ({seat.host}): {seat.failed}" for n, seat in said)
            time.sleep(POLL_SECONDS)


@contextmanager
def gather(folder: Path, job: Job, log: Log) -> Iterator[OtherMachines]:
    """Hold `job` out to the other machines until the block ends; it begins when all of them are there.

    Raises ChildFailed where they are not after `GATHER_SECONDS`.
    """
    name = hashlib.sha256(str(job.resolved).encode()).hexdigest()[:16]
    wanted = job.runtime.nodes - 1
    seats = {
        number: HeartbeatReader(folder / f"{name}.{job.attempt}.{number}", Seat)
        for number in range(1, wanted + 1)
    }
    with _one_job(folder, log):
        _clear(folder, name)  # what a killed attempt left
        try:
            with Heartbeat(folder / f"{name}.json", job) as held_out:
                _wait_for(seats, folder, log)
                held_out.update(going=True)
                yield OtherMachines(seats)
        finally:
            _clear(folder, name)


def _wait_for(seats: dict[int, HeartbeatReader[Seat]], folder: Path, log: Log) -> None:
    started, told = time.monotonic(), -60.0
    while True:
        there = 0
        for pulse in seats.values():
            there += pulse.read() is not None and not pulse.stale
            if pulse.stale:  # it died while others were waited for; another may take its place
                pulse.path.unlink(missing_ok=True)
        waited = time.monotonic() - started
        if there == len(seats):
            return
        missing = f"{len(seats) - there} of {len(seats) + 1} machines are not there; start `selftrain node STORE` on them"
        if waited > GATHER_SECONDS:
            raise ChildFailed(f"{missing} (this one looks for them in {folder}, and waited {waited:.0f} s)")
        if waited - told >= 60:
            log(missing)
            told = waited
        time.sleep(POLL_SECONDS)


@contextmanager
def _one_job(folder: Path, log: Log) -> Iterator[None]:
    """Machines that share themselves out between two jobs would keep both waiting."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            log("waiting for another job on these machines to end")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _clear(folder: Path, name: str) -> None:
    for path in folder.glob(f"{name}.*"):
        path.unlink(missing_ok=True)


# The other machines


def serve(folder: Path, say: Log) -> None:
    """Take part in one job after the other that is held out in `folder`, until interrupted.

    Raises UsageError where the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"{folder}: {error}; expected the store's folder, on a file system that all machines share"
        ) from error
    say(f"waiting for jobs in {folder}")
    pulses: dict[Path, HeartbeatReader[Job]] = {}
    served: set[str] = set()
    strange: set[Path] = set()
    while True:
        for path in sorted(folder.glob("*.json")):
            pulse = pulses.setdefault(path, HeartbeatReader(path, Job))
            job = pulse.read()
            if not pulse.beats or pulse.stale:  # what was not seen to beat may be a dead machine's
                continue
            if job is None and path not in strange and path.exists():
                strange.add(path)
                say(f"{path} cannot be understood; expected the same version of selftrain on all machines")
            if job is None or job.going or job.attempt in served:
                continue
            if number := _take_seat(folder, path.stem, job):
                served.add(job.attempt)
                say(f"taking part in {job.module} as machine {number + 1} of {job.runtime.nodes}")
                try:
                    _take_part(folder / f"{path.stem}.{job.attempt}.{number}", number, job, pulse, say)
                except OSError as error:  # of the file system in between
                    say(str(error))
        time.sleep(POLL_SECONDS)


def _take_seat(folder: Path, name: str, job: Job) -> int | None:
    """The number of a seat that is this process's now; None where all are taken."""
    for number in range(1, job.runtime.nodes):
        try:
            (folder / f"{name}.{job.attempt}.{number}").touch(exist_ok=False)
            return number
        except FileExistsError:
            continue
    return None


def _take_part(path: Path, number: int, job: Job, pulse: HeartbeatReader[Job], say: Log) -> None:
    def over() -> str | None:
        now = pulse.read()
        if now is None or now.attempt != job.attempt:
            return "the first machine has ended the job"
        return "the first machine gives no sign of life" if pulse.stale else None

    started = time.monotonic()
    with Heartbeat(path, Seat(host=socket.gethostname())) as seat:
        try:
            while not ((now := pulse.read()) and now.going and job.resolved.is_file()):
                if reason := over():
                    return say(reason)
                if now and now.going and time.monotonic() - started > STALE_SECONDS:
                    raise UsageError(
                        f"{job.resolved} is not there; expected to see the store under the same path as on the first machine"
                    )
                time.sleep(POLL_SECONDS)
            need_deepspeed(job.runtime)
            check_memory(job.needs, job.runtime)
            command = torchrun(job.module, job.resolved, job.runtime, number, job.attempt)
            run(
                command,
                job.module,
                os.environ | environment(job.runtime),
                say,
                hours=job.runtime.stage_hours,
                cancel_reason=over,
            )
            say(f"{job.module} is finished")
            seat.leave(over=True)
        except SelftrainError as error:
            reason = over()
            say(reason or str(error))
            if reason is None:
                seat.leave(failed=str(error))
        except KeyboardInterrupt:
            seat.leave(failed="it was stopped by hand")
            raise
    return None
