"""The verdict cache: a program that was judged before with the same tools and limits is not run again.

The cache is one SQLite file, which several processes may use at once. A damaged file is replaced. If the file cannot be read or
written (a full disk, for example), the cache is switched off with a warning and all programs are run.
"""

import hashlib
import json
import logging
import sqlite3
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from sandbox.verdicts import Program, Result

log = logging.getLogger(__name__)

_BUSY_SECONDS = 60  # how long to wait for another process's write
_MAGIC = b"SQLite format 3\0"  # how such a file begins
_MANY = 500  # keys in one SQL statement


class VerdictCache:
    """Results of programs by cache key. `identity`: the `Sandbox.identity` of each language that programs or checkers are written
    in; it is part of the key."""

    def __init__(self, path: Path, identity: dict[str, str]) -> None:
        self.identity = identity
        self._db: sqlite3.Connection | None = None
        try:
            self._db = _open(path)
        except sqlite3.OperationalError as error:
            self._give_up(error)
        except sqlite3.DatabaseError as error:  # not an SQLite file, or a damaged one
            log.warning("%s is damaged (%s) and replaced", path, error)
            for suffix in ("", "-wal", "-shm", "-journal"):
                path.with_name(path.name + suffix).unlink(missing_ok=True)
            self._db = _open(path)

    def close(self) -> None:
        """Close the file."""
        if self._db:
            self._db.close()
            self._db = None

    def _give_up(self, error: sqlite3.Error) -> None:
        log.warning("the verdict cache cannot be used, programs are run again: %s", error)
        self.close()

    def key(self, program: Program) -> str:
        """The cache key: sha256 of everything that the verdict depends on, so without the program's id."""
        content = program.to_json() | {"id": "", "identity": self.identity[program.language]}
        if program.checker:
            content["checker identity"] = self.identity[program.checker.language]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def find(self, programs: Iterable[Program]) -> dict[str, Result]:
        """The results of the programs that are in the cache (hits), by program id and with `cached` set."""
        ids: dict[str, list[str]] = {}
        for program in programs:
            ids.setdefault(self.key(program), []).append(program.id)
        keys = list(ids)
        found: dict[str, Result] = {}
        try:
            for at in range(0, len(keys), _MANY):
                for key, text in self._rows(keys[at : at + _MANY]):
                    result = Result.from_json(json.loads(text))
                    found |= {id: replace(result, id=id, cached=True) for id in ids[key]}
        except sqlite3.Error as error:
            self._give_up(error)
        return found

    def _rows(self, keys: list[str]) -> Iterable[tuple[str, str]]:
        if self._db is None:
            return ()
        marks = ",".join("?" * len(keys))
        return self._db.execute(f"SELECT key, result FROM verdicts WHERE key IN ({marks})", keys)  # noqa: S608

    def keep(self, judged: Iterable[tuple[Program, Result]]) -> None:
        """Store results, except `sandbox_error`, which says nothing about the program."""
        kept = [(program, result) for program, result in judged if result.verdict.is_label]
        rows = [(self.key(program), json.dumps(result.to_json())) for program, result in kept]
        if self._db is None:
            return
        try:
            with self._db:
                self._db.executemany("INSERT OR REPLACE INTO verdicts VALUES (?, ?)", rows)
        except sqlite3.Error as error:
            self._give_up(error)


def foreign(path: Path) -> bool:
    """Whether `path` is a file of another format, which no cache may replace."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(_MAGIC)) not in (b"", _MAGIC)


def _open(path: Path) -> sqlite3.Connection:
    """Connect to the file and create its table if needed. Raises `sqlite3.Error`."""
    db = sqlite3.connect(path, timeout=_BUSY_SECONDS)
    try:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("CREATE TABLE IF NOT EXISTS verdicts (key TEXT PRIMARY KEY, result TEXT NOT NULL)")
        db.commit()
    except sqlite3.Error:
        db.close()
        raise
    return db
