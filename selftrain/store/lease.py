"""One builder of a key among machines that share nothing but the store: a lease, kept alive by a heartbeat.

    FOLDER/N.json        the N-th lease; of several the one with the highest number counts

A lease is taken by creating the next number. Where the store creates exclusively (`Files.exact`) one process alone gets
it; elsewhere it looks again after a while, and two may rarely build the same, which is a waste but no harm: either result
is valid. Whoever waits judges by its own monotonic clock whether the holder still writes; clocks are not compared.
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
from selftrain.store.files import Files

BEAT = 15.0
"""Seconds between signs of life."""
EXPIRY = 60.0
"""Seconds without one after which a lease is void."""
POLL = 3.0
"""Seconds between looks at somebody else's."""
SETTLE = 3.0
"""Seconds after which one looks again where the store does not create exclusively."""
LOGGER = logging.getLogger("selftrain")


@contextmanager
def in_background(work: Callable[[threading.Event], object]) -> Iterator[None]:
    """Run `work` in a thread while the block runs; its event is set when the block ends, and the thread is joined."""
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
    """Hold the lease in `folder`; waits while another holds it.

    machine  the same for processes of which one at a time may try, so that what such a one left counts for nothing
    """
    lease = _Lease(files, folder, machine)
    lease.acquire()
    try:
        with in_background(lease.beat):
            yield
    finally:
        lease.release()


class _Lease:
    def __init__(self, files: Files, folder: str, machine: str) -> None:
        self.files, self.folder, self.machine = files, folder, machine
        self.token = uuid.uuid4().hex
        self.number = self.beats = 0

    def acquire(self) -> None:
        """Return when the lease is ours."""
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
        """Write signs of life until `stop`, or until the lease is another's."""
        while not stop.wait(BEAT):
            try:
                if self._lost():
                    LOGGER.warning("%s: another builder has taken over; both results are valid", self.folder)
                    return
                self.beats += 1
                self.files.write(self._path(self.number), self._content())
            except StoreError as error:
                LOGGER.warning("no sign of life for %s: %s", self.folder, error)

    def release(self) -> None:
        """Give it up. A failure does not matter: it expires."""
        try:
            if not self._lost():
                self.files.delete(self._path(self.number))
        except StoreError as error:
            LOGGER.warning("the lease of %s stays until it expires: %s", self.folder, error)

    def _take(self, number: int) -> bool:
        if not self.files.create(self._path(number), self._content()):
            return False
        self.number = number
        if not self.files.exact:
            time.sleep(SETTLE)
            if self._lost():
                return False
        for other in self._numbers():
            if other > number:  # somebody has judged the one before expired, too
                self.release()
                return False
            if other < number:
                self.files.delete(self._path(other))
        return True

    def _lost(self) -> bool:
        """Whether what is there under our number is not ours."""
        try:
            return _fields(self.files.read(self._path(self.number))).get("token") != self.token
        except FileNotFoundError:
            return True

    def _current(self) -> tuple[int, bytes]:
        """Number and content of the lease that counts; 0 and nothing where there is none."""
        number = max(self._numbers(), default=0)
        if not number:
            return 0, b""
        try:
            return number, self.files.read(self._path(number))
        except FileNotFoundError:  # given up just now
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
    """What a lease says; nothing where it is torn."""
    try:
        fields = json.loads(content)
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}
