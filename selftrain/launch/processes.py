"""Starts child processes, handles their output line by line, and ends them together with all their descendants.

A child's stdin is a pipe from this process. The kernel closes the pipe when this process dies for any reason, and then the child
exits. Torchrun starts each rank in a separate session, which a signal to the child's process group does not reach. So each child
also gets a tag in its environment, which its descendants inherit; at the end, all processes that still have the tag are killed.
The tags of all children of this process begin with PARENT_TAG.
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
from selftrain.launch.forkserver import Forked, ForkServer
from selftrain.redact import known_secrets, without_secrets
from selftrain.stop import current

PROGRESS_MESSAGE, USAGE_MESSAGE, REQUEST_MESSAGE = "@progress ", "@usage-error ", "@request "
"""Prefixes of the output lines that are messages to the parent. The rest of such a line is JSON."""
MESSAGE = re.compile(rf"^(?:\S+: )?({PROGRESS_MESSAGE}|{USAGE_MESSAGE}|{REQUEST_MESSAGE})(.*)")
"""A message. On other machines, pdsh puts the host's name before each line."""
EMPTY_LINE = re.compile(r"\S+: \n")
"""An empty line after the host's name, as pdsh prints it. The line of an exception without a message looks the same."""
LAST_LINES = 40
"""Number of output lines that errors quote."""
GRACE_SECONDS = 10
"""Seconds between SIGTERM and SIGKILL."""
TAG_VARIABLE = "SELFTRAIN_CHILD"
"""Environment variable with a child's tag."""
PARENT_TAG = uuid.uuid4().hex
"""Prefix of the tags of all children of this process."""
FORK_SERVER = ForkServer({TAG_VARIABLE: f"{PARENT_TAG}-server"})

TORCHRUN = re.compile(r"^[IWE]\d{4} .*torch/distributed/elastic/.*?\] (failed \(exitcode: )?")
"""A log line of torchrun; group 1 matches the report of a failed rank."""
DEEPSPEED = re.compile(r"^(\S+: )?\[[-\d]+ [:,\d]+\] \[\w+\] \[(launch|runner|multinode_runner)\.py:")
"""A log line of DeepSpeed's launcher."""


def run(
    command: Sequence[str],
    name: str,
    environment: dict[str, str],
    log: Callable[[str], None],
    progress: Callable[..., None] = lambda **_: None,
    on_request: Callable[[Path], None] = lambda _: None,
    hours: float | None = None,
    cancel_reason: Callable[[], str | None] = lambda: None,
    fork: bool = False,
) -> str:
    """Run `command` and return its last lines of output.

    When this function returns or raises, the child and all its descendants have ended.

    name           name of the child in error messages
    log            called with each output line that is not a message, with secrets redacted
    progress       called with the child's progress reports (see `launch.report_progress`)
    on_request     called with the file of each request of the child (see `launch.parent_request`)
    hours          time limit; None: no limit
    cancel_reason  called every second; returns the reason to end the child early, or None
    fork           the child is a fork of a process that has imported its module; `command` is one that ForkServer.start takes

    Raises ChildFailed with the child's last lines, the UsageError that the child reported, or Stopped: the step has to end.
    """
    stop = current()
    stop.check()
    output, tag = _Output(log, progress, on_request), f"{PARENT_TAG}-{uuid.uuid4().hex}"
    own = {TAG_VARIABLE: tag}
    forked = FORK_SERVER.start(command, environment, own) if fork else None
    child = forked or _popen(command, environment, own)
    assert child.stdout is not None
    tree = _ProcessTree(child, tag, hours, lambda: stop.reason or cancel_reason())
    try:
        output.read(child.stdout)
        code = child.wait()
    finally:
        tree.end()
    last = "\n".join(output.last)
    if tree.reason:
        stop.check()
        raise ChildFailed(f"{name} was ended: {tree.reason}; its last lines:\n{last}")
    if code != 0:
        if output.usage_error:
            raise UsageError(output.usage_error)
        raise ChildFailed(f"{name} ended with code {code}; its last lines:\n{last}")
    return last


def _popen(command: Sequence[str], environment: dict[str, str], tag: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment | tag,
        start_new_session=True,
        text=True,
        errors="replace",
    )


class _Output:
    """Handles a child's output: passes messages to their callbacks, and other lines to the log.

    last         the last lines of output, without the log lines of a launcher
    usage_error  the text of the UsageError that the child reported, or ""
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
        """Handle all lines, until the child and its descendants have closed the output."""
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
        """Add `line` to `last`, unless a launcher logged it: such lines would displace the output of the failed rank."""
        torchrun = TORCHRUN.search(line)
        # After torchrun reports a failed rank, all further lines come from torchrun.
        self._launcher_failed = self._launcher_failed or bool(torchrun and torchrun[1])
        if not (self._launcher_failed or torchrun or DEEPSPEED.search(line)):
            self.last.append(line)


def _without_empty(lines: Iterable[str]) -> Iterator[str]:
    """Drop the empty lines that `launch._print_line` prints before a message, in the form in which pdsh prints them."""
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
    """The kind and the value of the message in `line`; kind "" where `line` is an ordinary line."""
    if found := MESSAGE.match(line):
        try:
            return found[1], json.loads(found[2])
        except ValueError:  # another process wrote into the middle of this line
            pass
    return "", None


class _ProcessTree:
    """A child and all its descendants. A thread ends them when the child ends, at the time limit, or on a reason to cancel.

    reason  why the child was ended early, or None
    """

    def __init__(
        self,
        child: subprocess.Popen[str] | Forked,
        tag: str,
        hours: float | None,
        cancel_reason: Callable[[], str | None],
    ) -> None:
        self.child, self.tag, self.hours, self.cancel_reason = child, tag, hours, cancel_reason
        self.reason: str | None = None
        self._ending = threading.Lock()
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        """Thread that ends the tree. The caller of `run` cannot: it may wait for output of a rank whose launcher is dead."""
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
        except Exception as error:  # an exception must not end this thread before the child ends
            return f"{type(error).__name__}: {error}"

    def end(self) -> None:
        """Close the child's stdin, end its process group (SIGTERM, then SIGKILL), then kill all descendants that are left."""
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
    """Kill at once all children that `run` started in this process, and their descendants."""
    _kill(PARENT_TAG, 1)


def _kill(tag: str, seconds: float) -> None:
    """Kill all processes whose tag begins with `tag`, repeatedly, until none is left or `seconds` have passed."""
    deadline = time.monotonic() + seconds
    while (left := descendants(tag)) and time.monotonic() < deadline:
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.05)


def descendants(tag: str) -> list[int]:
    """Ids of all processes whose tag begins with `tag`. Works on Linux only; elsewhere the result is empty."""
    wanted, found = f"{TAG_VARIABLE}={tag}".encode(), []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if any(value.startswith(wanted) for value in path.read_bytes().split(b"\0")):
                found.append(int(path.parent.name))
        except OSError:  # the process has ended, or belongs to another user
            continue
    return found
