"""Starts child processes, reads their lines as they come, and ends them together with all their descendants.

A child's standard input is a lifeline: it closes when the parent dies, however it dies. Torchrun starts each rank in a session
of its own, which a signal to the child's process group does not reach. So every descendant also inherits a tag in its
environment, and whatever still carries the tag at the end is killed. A tag begins with `PARENT_TAG`, this process's own.
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

PROGRESS_MESSAGE, USAGE_MESSAGE, REQUEST_MESSAGE = "@progress ", "@usage-error ", "@request "
"""A line with one of these at its start is a message to the parent; JSON follows."""
MESSAGE = re.compile(rf"^(?:\S+: )?({PROGRESS_MESSAGE}|{USAGE_MESSAGE}|{REQUEST_MESSAGE})(.*)")
"""pdsh puts the host's name before each line."""
EMPTY_LINE = re.compile(r"\S+: \n")
"""An empty line as pdsh prints it, after the host's name; an exception without a text looks the same."""
LAST_LINES = 40
GRACE_SECONDS = 10
TAG_VARIABLE = "SELFTRAIN_CHILD"
PARENT_TAG = uuid.uuid4().hex

TORCHRUN = re.compile(r"^[IWE]\d{4} .*torch/distributed/elastic/.*?\] (failed \(exitcode: )?")
DEEPSPEED = re.compile(r"^(\S+: )?\[[-\d]+ [:,\d]+\] \[\w+\] \[(launch|runner|multinode_runner)\.py:")


def run(
    command: Sequence[str],
    name: str,
    environment: dict[str, str],
    log: Callable[[str], None],
    progress: Callable[..., None] = lambda **_: None,
    on_request: Callable[[Path], None] = lambda _: None,
    hours: float | None = None,
    cancel_reason: Callable[[], str | None] = lambda: None,
) -> str:
    """Run `command` and return its last lines. Neither it nor what it started outlives this call, however that ends.

    name           what errors call it
    log            called with each line that it prints, secrets redacted
    progress       called with what it reports (see `launch.report_progress`)
    on_request     called with the file of each of its requests (see `launch.parent_request`)
    hours          time limit
    cancel_reason  called every second: why the child is to be ended, or None

    Raises ChildFailed with its last lines, or the UsageError that it reported.
    """
    output, tag = _Output(log, progress, on_request), f"{PARENT_TAG}-{uuid.uuid4().hex}"
    child = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment | {TAG_VARIABLE: tag},
        start_new_session=True,
        text=True,
        errors="replace",
    )
    assert child.stdout is not None
    tree = _ProcessTree(child, tag, hours, cancel_reason)
    try:
        output.read(child.stdout)
        code = child.wait()
    finally:
        tree.end()
    last = "\n".join(output.last)
    if tree.reason:
        raise ChildFailed(f"{name} was ended: {tree.reason}; its last lines:\n{last}")
    if code != 0:
        if output.usage_error:
            raise UsageError(output.usage_error)
        raise ChildFailed(f"{name} ended with code {code}; its last lines:\n{last}")
    return last


class _Output:
    """What a child prints: messages go to their callbacks, other lines to the log.

    last         its last lines, without a launcher's own
    usage_error  the text of the UsageError that it reported, or ""
    """

    def __init__(
        self,
        log: Callable[[str], None],
        progress: Callable[..., None],
        on_request: Callable[[Path], None],
    ) -> None:
        self.log, self.progress, self.on_request = log, progress, on_request
        self.last: collections.deque[str] = collections.deque(maxlen=LAST_LINES)
        self.usage_error = ""
        self._secrets = known_secrets()
        self._launcher_failed = False

    def read(self, lines: Iterable[str]) -> None:
        """Handle all lines until the child closes its output."""
        for line in _without_empty(lines):
            line = without_secrets(line.rstrip(), self._secrets)
            kind, value = _message(line)
            if kind == PROGRESS_MESSAGE:
                self.progress(**value)
            elif kind == REQUEST_MESSAGE:
                self.on_request(Path(value))
            elif kind == USAGE_MESSAGE:
                self.usage_error = value
            elif line:
                self._keep(line)
                self.log(line)

    def _keep(self, line: str) -> None:
        """Add `line` to the last lines, unless it is a launcher's: those would push out the failed rank's own."""
        torchrun = TORCHRUN.search(line)
        # After torchrun's report of a failed rank come only lines of torchrun's own.
        self._launcher_failed = self._launcher_failed or bool(torchrun and torchrun[1])
        if not (self._launcher_failed or torchrun or DEEPSPEED.search(line)):
            self.last.append(line)


def _without_empty(lines: Iterable[str]) -> Iterator[str]:
    """`lines` without the empty ones that `launch._print_line` puts before a message, as pdsh prints them."""
    empty = ""
    for line in lines:
        if empty and not (line.startswith(empty[:-1]) and _message(line)[0]):
            yield empty
        empty = line if EMPTY_LINE.fullmatch(line) else ""
        if not empty:
            yield line
    if empty:
        yield empty


def _message(line: str) -> tuple[str, Any]:
    """The kind and the value of the message in `line`; kind "" where it is an ordinary line."""
    if found := MESSAGE.match(line):
        try:
            return found[1], json.loads(found[2])
        except ValueError:  # another process wrote into the middle of it
            pass
    return "", None


class _ProcessTree:
    """A child and all its descendants; ended when the child ends, at the time limit, or when there is a reason to cancel.

    reason  why it was ended early, or None
    """

    def __init__(
        self,
        child: subprocess.Popen[str],
        tag: str,
        hours: float | None,
        cancel_reason: Callable[[], str | None],
    ) -> None:
        self.child, self.tag, self.hours, self.cancel_reason = child, tag, hours, cancel_reason
        self.reason: str | None = None
        self._ending = threading.Lock()
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        """End the tree from a thread: the parent may wait for lines of a rank whose launcher is gone."""
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
                self.reason = self._reason_to_cancel()
        self.end()

    def _reason_to_cancel(self) -> str | None:
        try:
            return self.cancel_reason()
        except Exception as error:  # this thread must not end before the child
            return f"{type(error).__name__}: {error}"

    def end(self) -> None:
        """Close the lifeline, end the process group (SIGTERM, then SIGKILL), then kill the descendants that are left."""
        with self._ending:
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
            _kill(self.tag, GRACE_SECONDS)


def kill_all() -> None:
    """Kill every child of this process that `run` started, with its descendants, at once."""
    _kill(PARENT_TAG, 1)


def _kill(tag: str, seconds: float) -> None:
    """Kill what carries `tag`, repeatedly, until nothing does or `seconds` have passed."""
    deadline = time.monotonic() + seconds
    while (left := descendants(tag)) and time.monotonic() < deadline:
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.05)


def descendants(tag: str) -> list[int]:
    """Ids of the processes whose tag begins with `tag` (Linux; none elsewhere)."""
    wanted, found = f"{TAG_VARIABLE}={tag}".encode(), []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if any(value.startswith(wanted) for value in path.read_bytes().split(b"\0")):
                found.append(int(path.parent.name))
        except OSError:  # it has ended, or is another user's
            continue
    return found
