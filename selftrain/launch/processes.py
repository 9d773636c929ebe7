"""Child processes: their lines as they come, their last words, and an end that leaves nothing of them behind.

A child's standard input is a lifeline: it closes when the parent dies, however it dies. Torchrun gives each rank a session
of its own, out of reach of a signal to the child's group; so every descendant also carries a mark in its environment,
and what still has it at the end is killed. The mark begins with that of this process.
"""

import collections
import json
import os
import re
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from selftrain.errors import ChildFailed, UsageError
from selftrain.redact import known_secrets, without_secrets

PROGRESS_MARK, USAGE_MARK, ASK_MARK = "@progress ", "@usage-error ", "@ask "
"""What begins a line that is meant for the parent; JSON follows."""
MARKED = re.compile(r"^(?:\S+: )?(@progress |@usage-error |@ask )(.*)")
"""With the name of the host, which pdsh puts before each line."""
NO_WORD = re.compile(r"\S+: \n")
"""An empty line as pdsh gives it, with the name of the host; or the name of an exception that says nothing."""
LAST_LINES = 40
GRACE_SECONDS = 10
DESCENDANT = "SELFTRAIN_CHILD"
"""Name of the variable that holds the mark."""
OURS = uuid.uuid4().hex

TORCHRUN = re.compile(r"^[IWE]\d{4} .*torch/distributed/elastic/.*?\] (failed \(exitcode: )?")
DEEPSPEED = re.compile(r"^(\S+: )?\[[-\d]+ [:,\d]+\] \[\w+\] \[(launch|runner|multinode_runner)\.py:")


def run(
    command: Sequence[str],
    name: str,
    environment: dict[str, str],
    log: Callable[[str], None],
    progress: Callable[..., None] = lambda **_: None,
    asked: Callable[[Path], None] = lambda _: None,
    hours: float | None = None,
    cancel_reason: Callable[[], str | None] = lambda: None,
) -> str:
    """Run `command` and return its last lines. Neither it nor what it started outlives this call, however that ends.

    name           what errors call it
    log            takes each line that it prints, without secrets
    progress       takes what it reports (see `launch.report_progress`)
    asked          takes the file of each question that it asks (see `launch.ask`)
    hours          after which it is ended
    cancel_reason  asked every second: why it is to be ended, or None

    Raises ChildFailed with its last lines, or the UsageError that it ended with.
    """
    lines: collections.deque[str] = collections.deque(maxlen=LAST_LINES)
    usage, told = "", False
    mark, secrets = f"{OURS}-{uuid.uuid4().hex}", known_secrets()
    child = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment | {DESCENDANT: mark},
        start_new_session=True,
        text=True,
        errors="replace",
    )
    assert child.stdout is not None
    family = _Family(child, mark, hours, cancel_reason)
    try:
        for line in _without_empty(child.stdout):
            line = without_secrets(line.rstrip(), secrets)
            kind, value = _for_the_parent(line)
            if kind == PROGRESS_MARK:
                progress(**value)
            elif kind == ASK_MARK:
                asked(Path(value))
            elif kind == USAGE_MARK:
                usage = value
            elif line:
                torchrun = TORCHRUN.search(line)
                told = told or bool(torchrun and torchrun[1])
                if not (told or torchrun or DEEPSPEED.search(line)):  # it would push the rank's own words out
                    lines.append(line)
                log(line)
        code = child.wait()
    finally:
        family.end()
    last = "\n".join(lines)
    if family.reason:
        raise ChildFailed(f"{name} was ended: {family.reason}; its last lines:\n{last}")
    if code != 0:
        if usage:
            raise UsageError(usage)
        raise ChildFailed(f"{name} ended with code {code}; its last lines:\n{last}")
    return last


def _without_empty(lines: Iterable[str]) -> Iterator[str]:
    """The lines without those that `launch._say` ends, as pdsh gives them: a host's name before a line for the parent."""
    held = ""
    for line in lines:
        if held and not (line.startswith(held[:-1]) and _for_the_parent(line)[0]):
            yield held
        held = line if NO_WORD.fullmatch(line) else ""
        if not held:
            yield line
    if held:
        yield held


def _for_the_parent(line: str) -> tuple[str, Any]:
    """The mark of `line` and its value; no mark where it is an ordinary line."""
    if found := MARKED.match(line):
        try:
            return found[1], json.loads(found[2])
        except ValueError:  # another process wrote into the middle of it
            pass
    return "", None


class _Family:
    """A child and all its descendants; ended when the child is, when its time is over, or when it is not wanted."""

    def __init__(
        self,
        child: subprocess.Popen[str],
        mark: str,
        hours: float | None,
        cancel_reason: Callable[[], str | None],
    ) -> None:
        self.child, self.mark, self.hours, self.cancel_reason = child, mark, hours, cancel_reason
        self.reason: str | None = None
        self.ending = threading.Lock()
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        """Without it the parent would wait for the lines of a rank whose launcher is gone."""
        started = time.monotonic()
        while self.reason is None:
            try:
                self.child.wait(1)
                break
            except subprocess.TimeoutExpired:
                pass
            if self.hours is not None and time.monotonic() - started > self.hours * 3600:
                self.reason = f"it took longer than runtime.stage_hours={self.hours:g}"
            else:
                self.reason = self._unwanted()
        self.end()

    def _unwanted(self) -> str | None:
        try:
            return self.cancel_reason()
        except Exception as error:  # this thread must not end before the child
            return f"{type(error).__name__}: {error}"

    def end(self) -> None:
        """Close the lifeline and end the group, first gently, then not; then what is left of the descendants."""
        with self.ending:
            if self.child.stdin is not None:
                self.child.stdin.close()
            for kind in (signal.SIGTERM, signal.SIGKILL):
                try:
                    os.killpg(self.child.pid, kind)
                except ProcessLookupError:
                    break
                try:
                    self.child.wait(GRACE_SECONDS)
                except subprocess.TimeoutExpired:
                    continue
            _kill(self.mark, GRACE_SECONDS)


def kill_all() -> None:
    """Kill every child of this process that `run` started, with its descendants, at once."""
    _kill(OURS, 1)


def _kill(mark: str, seconds: float) -> None:
    """Kill what carries `mark`, again and again until nothing does."""
    deadline = time.monotonic() + seconds
    while (left := descendants(mark)) and time.monotonic() < deadline:
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.05)


def descendants(mark: str) -> list[int]:
    """Process ids of those that carry a mark that begins with `mark` (Linux; none elsewhere)."""
    wanted, found = f"{DESCENDANT}={mark}".encode(), []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if any(value.startswith(wanted) for value in path.read_bytes().split(b"\0")):
                found.append(int(path.parent.name))
        except OSError:  # it has ended, or is another user's
            continue
    return found
