"""Heartbeats over a shared file system: a process rewrites its file with a higher count every BEAT_SECONDS.

A reader treats the process as dead when the count has not changed for STALE_SECONDS on the reader's own clock. Clocks of
different machines are never compared, and no file is locked.
"""

import threading
import time
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

from pydantic import BaseModel, ValidationError

from selftrain.store.files import replace_file

BEAT_SECONDS = 2.0
"""Seconds between two heartbeats."""
STALE_SECONDS = 45.0
"""Seconds without a change after which a heartbeat is stale. NFS clients cache the attributes of folders for 30 s by default."""


class Beat(BaseModel):
    """The content of a heartbeat file; `beat` counts how often the file was written."""

    beat: int = 0


Content = TypeVar("Content", bound=Beat)


class Heartbeat(Generic[Content]):
    """Context manager: a thread rewrites `path` with `content` and a higher count until the block ends.

    At the end of the block the file is deleted, unless `leave` was called.
    """

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
        """Change fields of the content and write the file."""
        with self._writing:
            self.content = self.content.model_copy(update={"beat": self.content.beat + 1, **changes})
            replace_file(self.path, self.content.model_dump_json().encode())

    def leave(self, **changes: Any) -> None:
        """Change fields of the content, write the file for the last time, and keep it after the block."""
        self._over.set()
        self._thread.join()
        self.update(**changes)

    def _run(self) -> None:
        while not self._over.wait(BEAT_SECONDS):
            try:
                self.update()
            except OSError:  # the file server may be unreachable for a moment
                continue


class HeartbeatReader(Generic[Content]):
    """Reads another process's heartbeat file."""

    def __init__(self, path: Path, kind: type[Content]) -> None:
        self.path, self.kind = path, kind
        self.beats = 0
        """Number of changes of the file that this reader has seen."""
        self._text: bytes | None = None
        self._since = time.monotonic()

    def read(self) -> Content | None:
        """Read the file's content; None where the file does not exist or is not valid."""
        try:
            text = self.path.read_bytes()
        except FileNotFoundError:
            self._text, self._since = None, time.monotonic()
            return None
        except OSError:  # the file server fails: use the last content, which becomes stale
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
        """Whether the file existed at the last `read` and has not changed for STALE_SECONDS."""
        return time.monotonic() - self._since > STALE_SECONDS
