"""Runs a checker, a program that decides whether another program's output is right (see `sandbox.verdicts.Checker`).

A checker is as untrusted as any program and runs under its language's limits. If it fails, that is never a verdict on the judged
program.
"""

import os
from collections.abc import Callable
from pathlib import Path

from sandbox.encoding import encoded
from sandbox.exchange import write_inside
from sandbox.snapshot import Snapshot
from sandbox.verdicts import Case, Checker, Result, Verdict
from sandbox.watch import Outcome

FILES = ("input", "expected", "got")
"""The files in a checker's working directory."""

_TOLD = 500  # how many characters of a checker's output go into an error message


CHECKER_FAILED = "checker_failed: the checker decided nothing, which says nothing about the program; mend the checker, see stderr"
"""The note of a result whose checker failed. Other results with `sandbox_error` are failures of the sandbox, and a retry may help."""


class CheckerFailed(Exception):
    """A checker did not decide whether an output is right; the message says why."""

    def result(self, id: str) -> Result:
        """The result of program `id`, whose checker it is."""
        return Result(id, Verdict.sandbox_error, stderr=str(self), note=CHECKER_FAILED)


class Checking:
    """A checker, compiled in `directory` and run as user `uid` (None: the runner's user).

    `refused`: the checker's own result if it does not compile, else None. `run`: a function that runs the checker once.
    `changed`: whether the checker has changed its own files, so that it has to be compiled again.
    """

    def __init__(
        self,
        checker: Checker,
        directory: Path,
        uid: int | None,
        refused: Result | None,
        run: Callable[[], Outcome],
    ) -> None:
        self.checker, self.refused, self._run = checker, refused, run
        self._directory, self._uid = directory, uid
        self._built = Snapshot(directory)
        self.changed = False
        self._lock()

    def accepts(self, case: Case, got: bytes) -> bool:
        """Whether the checker accepts `got` as output for `case`. Raises `CheckerFailed`, `SandboxError`, `OSError`."""
        if self.refused:
            said = self.refused.stderr or self.refused.stdout
            self._fail(f"{self.refused.verdict} of the checker itself", said)
        contents = (encoded(case.stdin), encoded(case.expected_stdout or ""), got)
        try:
            for name, content in zip(FILES, contents, strict=True):
                write_inside(self._directory, name, content)
            if self._uid is not None:
                os.chown(self._directory, self._uid, self._uid)
            outcome = self._run()
        finally:
            self._lock()
        said, stderr = (data.decode("utf-8", "replace") for data in (outcome.stdout, outcome.stderr))
        if outcome.over:
            self._fail(f"{outcome.over} of the checker itself", stderr or said)
        words = [line.strip() for line in said.splitlines() if line.strip()]
        if outcome.exit_code != 0 or words[-1:] not in (["accept"], ["reject"]):
            self._fail(f"exit code {outcome.exit_code}", stderr or said)
        return words[-1] == "accept"

    def _lock(self) -> None:
        """Close the checker's folder to programs, which may run as the same user, and remove the files of the last case."""
        if self._uid is not None:
            os.chown(self._directory, 0, 0)
        os.chmod(self._directory, 0o700)
        self.changed = not self._built.restore()

    def _fail(self, what: str, said: str) -> None:
        raise CheckerFailed(
            f"the checker ({self.checker.language}) failed: expected exit code 0 and a last line accept or reject, got {what}: "
            f"{said.strip()[-_TOLD:]!r}; mend it, or take another way to compare"
        )
