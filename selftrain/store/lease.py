"""A lease with a heartbeat, so that one of the machines that share a remote store builds a key while the others wait.

    FOLDER/N.json        the N-th lease; if there are several files, the highest number is the current lease

A process takes the lease by creating the file with the next number. Where the store honours exclusive creation
(`Files.exact`) only one process succeeds. On other stores the process reads its file again after a while; rarely, two
processes build the same key, which wastes time but does no harm, since either result is valid. A waiting process measures
with its own monotonic clock how long the heartbeat has not changed; clocks of different machines are never compared.
"""

import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from selftrain.errors import StoreError
from selftrain.stop import current
from selftrain.store.files import Files

BEAT = 15.0
"""Seconds between heartbeats."""
EXPIRY = 60.0
"""Seconds without a heartbeat after which a lease expires."""
POLL = 3.0
"""Seconds between two reads of another process's lease."""
SETTLE = 3.0
"""Seconds until a process reads its new lease again, on a store that does not honour exclusive creation."""
LOGGER = logging.getLogger("selftrain")


@contextmanager
def in_background(work: Callable[[threading.Event], object]) -> Iterator[None]:
    """Run `work(event)` in a thread while the block runs. At the end of the block the event is set and the thread joined."""
    stop = threading.Event()
    thread = threading.Thread(target=work, args=(stop,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextmanager
def held(files: Files, folder: str, machine: str) -> Iterator[None]:
    """Hold the lease in `folder` for the block; waits until no other machine holds it.

    machine  name of this machine. The caller holds the machine's lock of the same key, so an older lease with this name is
             stale.
    """
    lease = _Lease(files, folder, machine)
    lease.acquire()
    try:
        with current().holding(lease.release), in_background(lease.beat):
            yield
    finally:
        lease.release()


class _Lease:
    def __init__(self, files: Files, folder: str, machine: str) -> None:
        self.files, self.folder, self.machine = files, folder, machine
        self.token = uuid.uuid4().hex
        self.number = self.beats = 0

    def acquire(self) -> None:
        """Wait until the lease is free, stale or expired, and take it."""
        seen, since = b"", 0.0
        while True:
            number, content = self._current()
            expired = content == seen and time.monotonic() - since >= EXPIRY
            if not content or _fields(content).get("machine") == self.machine or expired:
                if self._take(number + 1):
                    return
            elif content != seen:
                if not seen:
                    who = _fields(content).get("host")
                    LOGGER.info("%s is being built by %s; waiting for it", self.folder, who)
                seen, since = content, time.monotonic()
            time.sleep(POLL)

    def beat(self, stop: threading.Event) -> None:
        """Write heartbeats until `stop`, or until another process has taken the lease."""
        while not stop.wait(BEAT):
            try:
                if self._lost():
                    LOGGER.warning("%s: another builder has taken over; both results are valid", self.folder)
                    return
                self.beats += 1
                self.files.write(self._path(self.number), self._content())
            except StoreError as error:
                LOGGER.warning("no heartbeat for %s: %s", self.folder, error)

    def release(self) -> None:
        """Delete the lease. A failure does no harm, since the lease expires."""
        try:
            if not self._lost():
                self.files.delete(self._path(self.number))
        except StoreError as error:
            LOGGER.warning("the lease of %s stays until it expires: %s", self.folder, error)

    def _take(self, number: int) -> bool:
        """Try to take the lease with this number; whether it is ours now."""
        if not self.files.create(self._path(number), self._content()):
            return False
        self.number = number
        if not self.files.exact:
            time.sleep(SETTLE)
            if self._lost():
                return False
        for other in self._numbers():
            if other > number:  # another process also found the previous lease expired
                self.release()
                return False
            if other < number:
                self.files.delete(self._path(other))
        return True

    def _lost(self) -> bool:
        """Whether the lease with our number was deleted or belongs to another process."""
        try:
            return _fields(self.files.read(self._path(self.number))).get("token") != self.token
        except FileNotFoundError:
            return True

    def _current(self) -> tuple[int, bytes]:
        """Number and content of the current lease; 0 and b"" where there is none."""
        number = max(self._numbers(), default=0)
        if not number:
            return 0, b""
        try:
            return number, self.files.read(self._path(number))
        except FileNotFoundError:  # released after it was listed
            return 0, b""

    def _numbers(self) -> list[int]:
        names = (name.removesuffix(".json") for name in self.files.children(self.folder))
        return [int(name) for name in names if name.isdigit()]

    def _path(self, number: int) -> str:
        return f"{self.folder}/{number}.json"

    def _content(self) -> bytes:
        fields = {
            "token": self.token,
            "machine": self.machine,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "beats": self.beats,
        }
        return json.dumps(fields).encode()


def _fields(content: bytes) -> dict[str, object]:
    """The fields of a lease; empty where its file is truncated."""
    try:
        fields = json.loads(content)
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}
