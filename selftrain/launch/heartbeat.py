"""Signs of life over a shared file system: a file that its writer changes every few seconds while it lives.

Clocks are not compared and nothing is locked: a reader sees the count go on, or stand still for `STALE_SECONDS`.
"""

import threading
import time
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

from pydantic import BaseModel, ValidationError

from selftrain.store.files import replace_file

BEAT_SECONDS = 2.0
STALE_SECONDS = 45.0
"""More than an NFS client keeps a file's attributes while it changes (30 s by default for folders)."""


class Beat(BaseModel):
    """What such a file holds."""

    beat: int = 0


Content = TypeVar("Content", bound=Beat)


class Heartbeat(Generic[Content]):
    """Keeps `path` beating with `content` until the block ends; then the file is gone, unless `leave` was called."""

    def __init__(self, path: Path, content: Content) -> None:
        self.path, self.content = path, content
        self._writing = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self.update()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        left = self._over.is_set()
        self._over.set()
        self._thread.join()
        if not left:
            self.path.unlink(missing_ok=True)

    def update(self, **changes: Any) -> None:
        """Write the content, changed."""
        with self._writing:
            self.content = self.content.model_copy(update={"beat": self.content.beat + 1, **changes})
            replace_file(self.path, self.content.model_dump_json().encode())

    def leave(self, **changes: Any) -> None:
        """Write the content, changed, for the last time; the file stays."""
        self._over.set()
        self._thread.join()
        self.update(**changes)

    def _run(self) -> None:
        while not self._over.wait(BEAT_SECONDS):
            try:
                self.update()
            except OSError:  # a file server that is away for a moment
                continue


class HeartbeatReader(Generic[Content]):
    """A reader's view of another process's file."""

    def __init__(self, path: Path, kind: type[Content]) -> None:
        self.path, self.kind = path, kind
        self.beats = 0
        """Times that it was seen to change."""
        self._text: bytes | None = None
        self._since = time.monotonic()

    def read(self) -> Content | None:
        """What the file holds; None where there is none, or what it holds cannot be understood."""
        try:
            text = self.path.read_bytes()
        except FileNotFoundError:
            self._text, self._since = None, time.monotonic()
            return None
        except OSError:  # the file server's trouble: what was last seen, which grows old
            text = self._text or b""
        if text != self._text:
            self.beats += self._text is not None
            self._text, self._since = text, time.monotonic()
        try:
            return self.kind.model_validate_json(text)
        except ValidationError:
            return None

    @property
    def stale(self) -> bool:
        """Whether it is there and has stood still for too long, at the last `read`."""
        return time.monotonic() - self._since > STALE_SECONDS
