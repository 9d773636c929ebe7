"""Verdicts that are known: a program that was judged once, under the same toolchain and limits, is not run again.

One SQLite file, safe for several processes at once. It is a cache: losing it costs time only.
"""

import hashlib
import json
import sqlite3
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path

from sandbox.verdicts import Program, Result

_BUSY_SECONDS = 60
_MANY = 500  # keys asked for in one statement


class VerdictCache:
    """Results by content. `identity`: language -> what its verdicts depend on (backend, versions); part of every key."""

    def __init__(self, path: Path, identity: dict[str, str]) -> None:
        self.identity = identity
        self._db = sqlite3.connect(path, timeout=_BUSY_SECONDS)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("CREATE TABLE IF NOT EXISTS verdicts (key TEXT PRIMARY KEY, result TEXT NOT NULL)")
        self._db.commit()

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def key(self, program: Program) -> str:
        """sha256 over everything that the verdict depends on; not over the program's id."""
        content = {**asdict(replace(program, id="")), "identity": self.identity[program.language]}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def find(self, programs: Iterable[Program]) -> dict[str, Result]:
        """Known results by the programs' ids, marked `cached`."""
        ids: dict[str, list[str]] = {}
        for program in programs:
            ids.setdefault(self.key(program), []).append(program.id)
        keys = list(ids)
        found: dict[str, Result] = {}
        for at in range(0, len(keys), _MANY):
            some = keys[at : at + _MANY]
            marks = ",".join("?" * len(some))
            rows = self._db.execute(f"SELECT key, result FROM verdicts WHERE key IN ({marks})", some)  # noqa: S608
            for key, text in rows:
                result = Result.from_json(json.loads(text))
                found |= {id: replace(result, id=id, cached=True) for id in ids[key]}
        return found

    def keep(self, judged: Iterable[tuple[Program, Result]]) -> None:
        """Remember results; those that say nothing about the program (`sandbox_error`) are not kept."""
        rows = [
            (self.key(program), json.dumps(result.to_json()))
            for program, result in judged
            if result.verdict.is_label
        ]
        with self._db:
            self._db.executemany("INSERT OR REPLACE INTO verdicts VALUES (?, ?)", rows)
