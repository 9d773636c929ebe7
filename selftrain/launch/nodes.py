"""Trains one model on several machines: the first machine runs the stage, all others run `selftrain node STORE`.

The machines communicate through a folder of the store, on a file system that all of them mount under the same path:

    jobs/lock            locked by the first machine, so that only one job runs at a time
    jobs/NAME.json       the job, with the first machine's heartbeat
    jobs/NAME.ATTEMPT.2  the seat of machine number 2 (counted from 0): its heartbeat, and its error when it fails

When the job's file is deleted or stale (see `heartbeat`), the other machines end their processes and wait for the next job.
When a seat's file is deleted or stale, the first machine ends its own processes and the stage fails; the next attempt resumes
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
from typing import TextIO

from pydantic import Field

from selftrain.config import RuntimeConfig
from selftrain.errors import ChildFailed, SelftrainError, UsageError
from selftrain.launch.commands import environment, need_deepspeed, torchrun
from selftrain.launch.heartbeat import STALE_SECONDS, Beat, Heartbeat, HeartbeatReader
from selftrain.launch.processes import run
from selftrain.models.memory import check_memory
from selftrain.stop import current
from selftrain.units import count_of

GATHER_SECONDS = 1800.0
"""Seconds that the first machine waits for the other machines to join."""
END_SECONDS = 30.0
"""Seconds that the first machine waits for the others after its own processes have ended.

Without this wait, torchrun logs a traceback where the launcher on one machine ends long before the launcher on another."""
LAST_WORDS_SECONDS = 10.0
"""Seconds that the first machine waits for the others' error messages after its own processes have failed."""
POLL_SECONDS = 0.5
"""Seconds between two readings of the heartbeat files."""

Log = Callable[[str], None]


class Job(Beat):
    """A job that the first machine offers to the others.

    attempt   id of this attempt at the stage
    module    the child module to run
    resolved  path of the child's `resolved.json`
    needs     bytes of memory that each process needs at least
    going     whether all machines have joined
    """

    attempt: str
    module: str = Field(pattern=r"^selftrain\.training\.(ppo\.)?[a-z_]+$")
    resolved: Path
    runtime: RuntimeConfig
    needs: int = 0
    going: bool = False


class Seat(Beat):
    """A machine that has joined a job.

    over    whether the machine's processes have ended
    failed  the error message if they failed, else ""
    """

    host: str
    over: bool = False
    failed: str = ""


# The first machine


class OtherMachines:
    """The first machine's view of the other machines in a running job.

    seats  readers of the machines' heartbeat files, by machine number
    hosts  host names, by machine number
    """

    def __init__(self, seats: dict[int, HeartbeatReader[Seat]]) -> None:
        self.seats = seats
        self.hosts: dict[int, str] = {}

    def failure(self) -> str | None:
        """The reason why the job cannot continue; None while all machines are alive."""
        for number, reader in self.seats.items():
            seat = reader.read()
            host = f"machine {number + 1} ({self.hosts.get(number, '?')})"
            if seat is not None:
                self.hosts[number] = seat.host
                if seat.failed:
                    return f"{host} failed"
                if seat.over:
                    continue
            elif not reader.path.exists():
                return f"{host} has left"
            if reader.stale:
                return f"{host} gives no sign of life"
        return None

    def wait_for_end(self) -> None:
        """Wait until the processes of all other machines have ended, for END_SECONDS at most."""
        deadline = time.monotonic() + END_SECONDS
        while time.monotonic() < deadline:
            seats = [reader.read() for reader in self.seats.values()]
            if all(seat is None or seat.over or seat.failed for seat in seats):
                return
            time.sleep(POLL_SECONDS)

    def last_words(self) -> str:
        """The error messages of the machines that failed. Waits for the first message, for LAST_WORDS_SECONDS at most."""
        deadline = time.monotonic() + LAST_WORDS_SECONDS
        while True:
            seats = {number: reader.read() for number, reader in self.seats.items()}
            said = [(n, seat) for n, seat in seats.items() if seat is not None and seat.failed]
            if said or time.monotonic() > deadline:
                return "".join(f"\nmachine {n + 1} ({seat.host}): {seat.failed}" for n, seat in said)
            time.sleep(POLL_SECONDS)


@contextmanager
def gather(folder: Path, job: Job, log: Log) -> Iterator[OtherMachines]:
    """Context manager on the first machine: offer `job` to the other machines, and start the block when all have joined.

    The end of the block ends the job. Waits while another job holds the folder's lock.

    Raises ChildFailed where not all machines have joined after GATHER_SECONDS, and Stopped: the step has to end.
    """
    name = hashlib.sha256(str(job.resolved).encode()).hexdigest()[:16]
    wanted = job.runtime.nodes - 1
    seats = {
        number: HeartbeatReader(folder / f"{name}.{job.attempt}.{number}", Seat)
        for number in range(1, wanted + 1)
    }
    with _one_job(folder, log):
        _clear(folder, name)  # files of an attempt that was killed
        try:
            with Heartbeat(folder / f"{name}.json", job) as offered:
                _wait_for(seats, folder, log)
                offered.update(going=True)
                yield OtherMachines(seats)
        finally:
            _clear(folder, name)


def _wait_for(seats: dict[int, HeartbeatReader[Seat]], folder: Path, log: Log) -> None:
    """Wait until all seats are taken by living machines; see `gather`."""
    started, logged = time.monotonic(), -60.0
    while True:
        there = 0
        for reader in seats.values():
            there += reader.read() is not None and not reader.stale
            if reader.stale:  # this machine died before all had joined; another machine may take its number
                reader.path.unlink(missing_ok=True)
        waited = time.monotonic() - started
        if there == len(seats):
            return
        missing = f"{len(seats) - there} of {count_of(len(seats) + 1, 'machine')} are not there; start `selftrain node STORE` on them"
        if waited > GATHER_SECONDS:
            raise ChildFailed(f"{missing} (this one looks for them in {folder}, and waited {waited:.0f} s)")
        if waited - logged >= 60:
            log(missing)
            logged = waited
        current().check()
        time.sleep(POLL_SECONDS)


@contextmanager
def _one_job(folder: Path, log: Log) -> Iterator[None]:
    """Hold the folder's lock, so that only one job runs. Two jobs could deadlock, each with half of the machines."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        if not _locked(file):
            log("waiting for another job on these machines to end")
            while not _locked(file):
                current().check()
                time.sleep(POLL_SECONDS)
        yield


def _locked(file: TextIO) -> bool:
    """Lock the file; False while another has it. Raises OSError for another error."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # the latter from some network file systems
        return False
    return True


def _clear(folder: Path, name: str) -> None:
    """Delete all files of the job `name`."""
    for path in folder.glob(f"{name}.*"):
        path.unlink(missing_ok=True)


# The other machines


def serve(folder: Path, say: Log) -> None:
    """Main loop of `selftrain node`: join the jobs offered in `folder`, one after the other, until interrupted.

    say  prints a line for the user

    Raises UsageError where the folder cannot be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"{folder}: {error}; expected the store's folder, on a file system that all machines share"
        ) from error
    say(f"waiting for jobs in {folder}")
    readers: dict[Path, HeartbeatReader[Job]] = {}
    served: set[str] = set()
    strange: set[Path] = set()
    while True:
        for path in sorted(folder.glob("*.json")):
            reader = readers.setdefault(path, HeartbeatReader(path, Job))
            job = reader.read()
            if not reader.beats or reader.stale:  # an unchanged file may be that of a dead machine
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
                    _take_part(folder / f"{path.stem}.{job.attempt}.{number}", number, job, reader, say)
                except OSError as error:  # the shared file system failed
                    say(str(error))
        time.sleep(POLL_SECONDS)


def _take_seat(folder: Path, name: str, job: Job) -> int | None:
    """Join `job`: returns this machine's number, or None where all numbers are taken."""
    for number in range(1, job.runtime.nodes):
        try:
            (folder / f"{name}.{job.attempt}.{number}").touch(exist_ok=False)
            return number
        except FileExistsError:
            continue
    return None


def _take_part(path: Path, number: int, job: Job, reader: HeartbeatReader[Job], say: Log) -> None:
    """Run this machine's ranks of `job`, with a heartbeat in `path`, until they or the job end."""

    def over() -> str | None:
        """Why this machine must end its processes, or None."""
        now = reader.read()
        if now is None or now.attempt != job.attempt:
            return "the first machine has ended the job"
        return "the first machine gives no sign of life" if reader.stale else None

    started = time.monotonic()
    with Heartbeat(path, Seat(host=socket.gethostname())) as seat:
        try:
            while not ((now := reader.read()) and now.going and job.resolved.is_file()):
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
