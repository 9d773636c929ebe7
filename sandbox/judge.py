"""Judges one program after another, and keeps a Python interpreter, compilers and a compiled checker between programs."""

import itertools
import logging
import os
import shutil
import stat
import subprocess
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from enum import StrEnum
from functools import partial
from pathlib import Path

from sandbox import seccomp
from sandbox.checking import Checking
from sandbox.clear import clear_container, clear_owned, wipe, wipe_program
from sandbox.compilers import REMEMBERS, Compiler, command
from sandbox.confine import UID_BASE, program_uid
from sandbox.errors import SandboxError
from sandbox.group import Group
from sandbox.judgement import Judgement
from sandbox.languages import PATH, Language
from sandbox.launch import ForkServer
from sandbox.preamble import PREAMBLES
from sandbox.prepared import prepared
from sandbox.processes import Pinned
from sandbox.split import SPLIT, passes, split
from sandbox.twin import twin
from sandbox.verdicts import Case, Checker, Limits, Program, Result, Verdict
from sandbox.zygote import Zygote

log = logging.getLogger(__name__)

TAMPERED = "the program also passes with an assertion that has to fail"
FAILS_APART = "the program fails its tests if they are in another process"


class Place(StrEnum):
    """Where programs run, and how they are isolated."""

    process = "process"  # ordinary child processes, under another user if the runner is root
    bubblewrap = "bubblewrap"  # each program in its own bubblewrap box
    container = "container"  # all programs, one after another, in the container in which the runner runs


class Judge:
    """Judges programs, one at a time, each in its own directory under `scratch`.

    `caller`: a file descriptor that becomes readable when the client closes its end; `Judge` then kills the program and raises
    `CallerGone`.
    `uid`: the user that the program runs as; None: the runner's user.
    `calls`: the filter on system calls of programs, see `sandbox.seccomp`.
    `group`: the control group of the runner's process, if it has one.
    `clean`: False if a program left something that cannot be removed; then the runner has to end.
    """

    def __init__(
        self, scratch: Path, place: Place, caller: int | None = None, group: Group | None = None
    ) -> None:
        self.scratch, self.caller, self.group = scratch, caller, group
        self.isolated = place is Place.bubblewrap
        self.contained = place is Place.container
        self.calls = seccomp.program(memfd=group is not None)
        self.uid = program_uid()
        self.clean = True
        self.pinned = Pinned()
        self.server: ForkServer | None = None
        self.compilers: dict[str, Compiler] = {}
        self.zygotes: dict[str, Zygote | None] = {}
        # By language: how many compilers in a row failed on their first program (`_failures`), and how many programs are still to
        # be judged without a warm compiler (`_without`, the back-off).
        self._failures: Counter[str] = Counter()
        self._without: Counter[str] = Counter()
        first = int(os.environ.get("SANDBOX_UIDS", UID_BASE - 1_000_000 + os.getpid()))
        self.compiler_uid, self._uids = first, itertools.count(first + 1)
        # The name of the next program's directory. It grows only if a directory cannot be removed.
        self._directories = 0
        self._checking: Checking | None = None
        scratch.chmod(0o711)  # programs may run as another user
        closed = [folder for folder in scratch.parents if not folder.stat().st_mode & stat.S_IXOTH]
        self.closed = closed[0] if self.uid is not None and closed else None
        self.executable = not os.statvfs(scratch).f_flag & os.ST_NOEXEC

    def check_reachable(self) -> None:
        """Raise `SandboxError` if programs cannot read their own files. Otherwise every program would get `runtime_error`."""
        if self.closed is not None:
            raise SandboxError(
                f"programs run as another user, who cannot get into {self.closed}, where temporary files are; set TMPDIR to "
                "a folder that all users may enter, such as /tmp"
            )

    def check_executable(self, row: Language) -> None:
        """Raise `SandboxError` if programs in the language of `row` are executable files that cannot be executed here."""
        if not self.executable and row.run[0].startswith("{dir}"):
            raise SandboxError(
                f"nothing can be executed in {self.scratch.parent} (mounted noexec), where programs in {row.title} are; set TMPDIR to a "
                "folder where that is allowed"
            )

    def judge(self, program: Program) -> Result:
        """Compile and run one program, and look for tampering if it passed and `Program.audit` is set. Raises `SandboxError`,
        `OSError` if the sandbox fails."""
        result = self._judge(program)
        if not program.audit or result.verdict is not Verdict.passed:
            return result
        apart, spent = self._split(program)
        if apart is not None:
            return _audited(result, SPLIT, "" if apart else FAILS_APART, spent)
        if (found := twin(program)) is None:
            return replace(result, audit_cpu_seconds=spent)
        kind, other = found
        again = self._judge(other)
        tampered = TAMPERED if again.verdict is Verdict.passed else ""
        return _audited(result, kind, tampered, spent + again.cpu_seconds)

    def _split(self, program: Program) -> tuple[bool | None, float]:
        """Whether a program passes with its tests in another process (`sandbox.split`), None if that cannot be said; and the CPU
        time in seconds. A failure counts if a second run fails too."""
        other = split(program)
        if other is None:
            return None, 0.0
        first = self._judge(other)
        if passes(first) is not False:
            return passes(first), first.cpu_seconds
        second = self._judge(other)
        proven = passes(second) is False
        return False if proven else None, first.cpu_seconds + second.cpu_seconds

    def _judge(self, program: Program) -> Result:
        """Compile and run one program without an audit."""
        if self.contained:
            self.uid = next(self._uids)
        directory = self.scratch / str(self._directories)
        judgement = Judgement(self, program, directory)
        directory.mkdir(mode=0o700)
        self._directories += 1
        try:
            return judgement.result()
        finally:
            wipe_program(str(directory), judgement.source)
            # The next program gets the same path, so that the head of the request to the warm interpreter stays the same.
            self._directories -= 1
            self.clear_shared()

    def clear_shared(self) -> None:
        """Remove the files that a program left outside its directory. (A box of bubblewrap has ended with its program.)"""
        if self.contained:
            self.clean = clear_container()
        elif not self.isolated and self.uid is not None:
            clear_owned(self.uid)

    def python(self, env: Mapping[str, str]) -> ForkServer | None:
        """The warm Python interpreter, started on first use; None if its library cannot be built (`sandbox.prepared`)."""
        library, _ = prepared("fork", Limits())
        if self.server is None and library:
            python = shutil.which("python3", path=PATH)
            if python is None:
                raise SandboxError(f"python3 is not on {PATH}")
            where, compiling = self.pinned.everywhere, self.uid is None
            self.server = ForkServer(python, env, where, compiling, library, self.calls)
        return self.server

    def compiler(self, name: str) -> Compiler | None:
        """The warm compiler of language `name`, started on first use. None if the language has none, with bubblewrap, during a
        back-off, or if the runner is not root: only root can start a compiler as another user."""
        if self.uid is None or self.isolated:
            return None
        if self._without[name]:
            self._without[name] -= 1
            return None
        if name not in self.compilers and (argv := command(name)):
            self.compilers[name] = Compiler(argv, self.compiler_uid, REMEMBERS.get(name, 0))
        return self.compilers.get(name)

    def zygote(self, name: str, directory: Path) -> Zygote | None:
        """The zygote `name` for a program in `directory`, started on first use. None where `compiler` returns None, if it does not
        start, and in another directory than most programs have: a compiler's zygote knows the path of its source."""
        home = self.scratch / "0"
        if self.uid is None or self.isolated or (name in PREAMBLES and directory != home):
            return None
        if name not in self.zygotes:
            try:
                self.zygotes[name] = Zygote(name, home, self.calls)
            except (SandboxError, OSError, ValueError, subprocess.SubprocessError) as error:
                log.warning("programs will be slower: %s", error)
                self.zygotes[name] = None
        return self.zygotes[name]

    def drop_compiler(self, name: str) -> None:
        """End the warm compiler of language `name`; the next program in that language starts a new compiler.

        A compiler that failed on its first program may not work on this machine at all. So after 1, 2, 3, ... such failures in a
        row the next 1, 3, 7, ... programs (at most 999) are judged without a warm compiler.
        """
        compiler = self.compilers.pop(name)
        compiler.close()
        self._failures[name] = 0 if compiler.served else self._failures[name] + 1
        self._without[name] = min(2 ** self._failures[name], 1000) - 1

    def checking(self, checker: Checker) -> Checking:
        """`checker`, compiled and ready to run. Consecutive programs with the same checker share one compilation."""
        self.clear_shared()  # the checker must not see files that the program left
        kept = self._checking
        if kept is None or kept.checker != checker or kept.refused or kept.changed:
            self.drop_checker()
            directory = self.scratch / "checker"
            directory.mkdir(mode=0o700)
            # With a case, `Judgement` compiles and runs the checker as it does programs with cases.
            program = Program("checker", checker.language, checker.source, (Case("", None),))
            judgement = Judgement(self, program, directory)
            judgement.at_home = False
            if self.contained:
                judgement.uid = next(self._uids)
            run = partial(judgement.step, judgement.row.run)
            kept = self._checking = Checking(checker, directory, judgement.uid, judgement.compile(), run)
        return kept

    def drop_checker(self) -> None:
        """Remove the compiled checker."""
        self._checking = None
        wipe(self.scratch / "checker")

    @property
    def kept(self) -> frozenset[int]:
        """The process ids of the warm interpreter and compilers, which must not be killed together with a program."""
        warm = [self.server, *self.compilers.values(), *self.zygotes.values()]
        return frozenset(helper.pid for helper in warm if helper)

    def close(self) -> None:
        """End the warm interpreter and compilers and remove the checker. The next program starts the ones that it needs again."""
        self.drop_checker()
        self.pinned.release()
        if self.server:
            self.server.close()
            self.server = None
        for name in list(self.compilers):
            self.drop_compiler(name)
        for zygote in filter(None, self.zygotes.values()):
            zygote.close()
        self.zygotes.clear()


def _audited(result: Result, audited: str, tampered: str, seconds: float) -> Result:
    """The result after an audit. `tampered`: what proves tampering; empty if nothing does."""
    verdict = Verdict.tampered if tampered else result.verdict
    note = tampered or result.note
    return replace(result, verdict=verdict, note=note, audited=audited, audit_cpu_seconds=seconds)
