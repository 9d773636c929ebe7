"""Data classes for the sandbox's input (`Program`, `Case`, `Checker`, `Limits`) and output (`Result`, `Phase`, `Verdict`)."""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from sandbox.compare import DEFAULT_RULE, check_rule
from sandbox.exchange import Named, check_args, check_files

MIB = 1 << 20
LARGEST_MEMORY_BYTES = 2048 * MIB
"""The largest memory limit that works on every backend. Backend docker refuses larger ones."""
LONGEST_SECONDS = 24 * 3600
"""Largest limit on CPU time; on wall-clock time it is three times as much."""
LARGEST_BYTES = 2**50
"""Largest limit on memory, output and files."""
MOST_PROCESSES = 2**22
"""Largest limit on processes; Linux has no more."""


class Verdict(StrEnum):
    """The verdict on a program. Every verdict except `sandbox_error` is a statement about the program."""

    passed = "passed"
    wrong_answer = "wrong_answer"  # a failed test, wrong output, an end before the tests ran; an answer without a program
    compile_error = "compile_error"  # the compiler, or the interpreter's parser, rejected the program
    runtime_error = "runtime_error"  # an exception, a signal, an exit code other than 0, too many processes
    timeout = "timeout"  # the program exceeded its CPU or wall-clock limit in two runs
    memory_exceeded = "memory_exceeded"
    output_exceeded = "output_exceeded"
    tampered = "tampered"  # passed, but not because of what it returns: it also passes tests that have to fail (`sandbox.twin`)
    sandbox_error = "sandbox_error"  # the sandbox failed; says nothing about the program

    @property
    def is_label(self) -> bool:
        """Whether the verdict may be used as a label of the program; False only for `sandbox_error`."""
        return self is not Verdict.sandbox_error


@dataclass(frozen=True)
class Case:
    """One test case: the program runs once on `stdin` and has to print `expected_stdout` (None: any output is right)."""

    stdin: str
    expected_stdout: str | None


@dataclass(frozen=True)
class Limits:
    """Limits of one program. When the program exceeds one, its whole process tree is killed.

    `cpu_seconds`: user + system time of one run (each `Case` is a run), over all processes of the program.
    `wall_seconds`: wall-clock time of one run; it stops programs that sleep or wait.
    `compile_cpu_seconds`, `compile_wall_seconds`: the same two limits for the compiler.
    `memory_bytes`: resident memory, over all processes.
    `output_bytes`: stdout + stderr of one run.
    `file_bytes`: the largest file that the program may write.
    `processes`: processes and threads that exist at the same time.
    """

    cpu_seconds: float = 10.0
    wall_seconds: float = 30.0
    compile_cpu_seconds: float = 30.0
    compile_wall_seconds: float = 90.0
    memory_bytes: int = 1024 * MIB
    output_bytes: int = 8 * MIB
    file_bytes: int = 64 * MIB
    processes: int = 256

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            most = largest(name)
            if not 0 < value <= most:
                expected = f"must be greater than 0 and at most {most}"
                raise ValueError(f"Limits.{name} {expected}, got {value!r:.40}")

    def with_cpu(self, seconds: float) -> "Limits":
        """A copy with `seconds` as the limit on CPU time of a run, and a wall-clock limit of at least three times `seconds`."""
        return replace(self, cpu_seconds=seconds, wall_seconds=max(self.wall_seconds, 3 * seconds))


def largest(limit: str) -> int:
    """The largest value of a limit, by its name in `Limits`. The kernel and the runtimes of languages take no larger ones."""
    if limit == "processes":
        return MOST_PROCESSES
    if limit.endswith("_bytes"):
        return LARGEST_BYTES
    return LONGEST_SECONDS * (3 if "wall" in limit else 1)


@dataclass(frozen=True)
class Checker:
    """A program that decides whether the output of another program is right, for problems with several right outputs. The sandbox
    does not trust the checker and isolates it like any program.

    The checker starts in a folder with the files `input` (the case's stdin), `expected` (its expected output) and `got` (the
    program's output), byte for byte. It has to exit with code 0 and print `accept` or `reject` as its last line. Anything else,
    such as exceeding its language's limits, is a failure of the checker and gives `sandbox_error` with a note that begins with
    `checker_failed`.
    """

    language: str
    source: str


_LATER = ("every_case", "args", "files", "fetch", "tests_at", "audit", "whole_output")
"""Fields of `Program` that were added after verdicts had been cached. `to_json` omits them when they are empty, so that the cache
keys of older programs stay the same."""


@dataclass(frozen=True)
class Program:
    """One program to judge.

    Without `cases` the program has to exit with code 0. If `end_marker` is not None, it also has to print the marker on its own
    line; the statement that prints it is part of `source` (see `sandbox.programs.assemble`). With `cases` the program is run once
    for each case, and its output has to equal the expected output by the rule `compare` (`sandbox.compare`), or `checker` has to
    accept it. The first case that fails ends the judgement unless `every_case` is set.

    `id`: chosen by the caller and returned in the `Result`. `limits`: None means the language's default limits.
    `args`: the command-line arguments. `files`: files to put into the directory in which the program is compiled and starts, as (name,
    content in base64). `fetch`: names of files to return from there if the program creates them, at most `Limits.output_bytes` in all. A
    program with `files` or `fetch` may write to that directory, at most `Limits.file_bytes` in all.

    `whole_output`: the result has the whole output of a last command that ended by itself, not only its beginning and end.

    `tests_at`: the offset in `source`, in characters, at which the tests begin. `audit`: if the program passes, look for evidence
    of tampering with its tests (`sandbox.twin`); this needs `tests_at`.

    Raises `ValueError` for an unknown rule, an audit without `tests_at`, arguments with which no program can be
    started, a file name that leads out of the directory, or content that is not base64.
    """

    id: str
    language: str
    source: str
    cases: tuple[Case, ...] = ()
    end_marker: str | None = None
    limits: Limits | None = None
    compare: str = DEFAULT_RULE
    checker: Checker | None = None
    every_case: bool = False
    args: tuple[str, ...] = ()
    files: Named = ()
    fetch: tuple[str, ...] = ()
    tests_at: int | None = None
    audit: bool = False
    whole_output: bool = False

    def __post_init__(self) -> None:
        check_rule(self.compare)
        if self.audit and (self.tests_at is None or not 0 <= self.tests_at <= len(self.source)):
            raise ValueError(
                f"audit needs tests_at, an offset of 0 to {len(self.source)} in the source at which the tests begin; got {self.tests_at}"
            )
        check_args(self.args)
        check_files(self.files, self.fetch)

    @property
    def exchanges_files(self) -> bool:
        """Whether the caller gives the program files or wants files back."""
        return bool(self.files or self.fetch)

    def to_json(self) -> dict[str, Any]:
        """The program as plain JSON values. Fields of `_LATER` that are empty are omitted, so that cached verdicts stay valid."""
        fields = vars(self) | {
            "cases": [vars(case) for case in self.cases],
            "limits": vars(self.limits) if self.limits else None,
            "checker": vars(self.checker) if self.checker else None,
        }
        return {name: value for name, value in fields.items() if value or name not in _LATER}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "Program":
        """The inverse of `to_json`."""
        cases = tuple(Case(**case) for case in fields["cases"])
        limits = Limits(**fields["limits"]) if fields["limits"] else None
        checker = Checker(**fields["checker"]) if fields["checker"] else None
        files = tuple((name, content) for name, content in fields.get("files", ()))
        more = {name: tuple(fields.get(name, ())) for name in ("args", "fetch")} | {"files": files}
        return cls(**(fields | {"cases": cases, "limits": limits, "checker": checker} | more))


@dataclass(frozen=True)
class Phase:
    """One command that was run for a program: its compiler, or the program itself on one case.

    `verdict`: `passed`, or the reason why this command failed; a compiler may also exceed its limits on time or memory.
    `exit_code`: 128 + n if signal n ended the command, None if the sandbox ended it. `seconds`: wall-clock time.
    `stdout`, `stderr`: the output; of a long text only the beginning and the end.
    """

    verdict: Verdict
    exit_code: int | None
    seconds: float
    cpu_seconds: float
    peak_memory_bytes: int
    stdout: str
    stderr: str

    def to_json(self) -> dict[str, Any]:
        """The phase as plain JSON values."""
        return vars(self) | {"verdict": str(self.verdict)}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "Phase":
        """The inverse of `to_json`."""
        return cls(**(fields | {"verdict": Verdict(fields["verdict"])}))


@dataclass(frozen=True)
class Result:
    """The result of one program. Its "last command" is the compiler if that rejected the program, else the run that decided the
    verdict.

    `exit_code`: of the last command; 128 + n if signal n ended it, None if nothing ran or the sandbox ended it.
    `compile_seconds`, `run_seconds`: wall-clock time. `cpu_seconds`: CPU time of compiling and running, all processes.
    `peak_memory_bytes`: memory of the run (not of the compiler): the largest sum over all processes, sampled every 50 ms, and at
    least the kernel's exact peak of the largest process.
    `stdout`, `stderr`: output of the last command, at most 65,536 characters each (see `Program.whole_output`), without the end marker.
    `cached`: True if this program was not run: the result is that of an identical program, from the same call or from a cache.
    `note`: one line that explains the verdict, such as which library is missing or why an answer contains no program.
    `compiled`: the compiler's run; None for languages without a compiler.
    `cases`: with `Program.every_case` one run per case, in order; else empty.
    `files`: the files of `Program.fetch` that the program created, as (name, content in base64).
    `audited`: how the audit of a program that passed looked for tampering: `split` (`sandbox.split`), `twin` (one expected value of the tests changed) or
    `assertion` (a failing assertion inserted, which detects less); empty if there was no audit or it was not possible.
    `audit_cpu_seconds`: the CPU time of the audit, which `cpu_seconds` does not contain.
    """

    id: str
    verdict: Verdict
    exit_code: int | None = None
    compile_seconds: float = 0.0
    run_seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_memory_bytes: int = 0
    stdout: str = ""
    stderr: str = ""
    cached: bool = False
    note: str = ""
    compiled: Phase | None = None
    cases: tuple[Phase, ...] = ()
    files: Named = ()
    audited: str = ""
    audit_cpu_seconds: float = 0.0

    @property
    def ran(self) -> Phase | None:
        """The run that decided the verdict; None if the compiler rejected the program."""
        if self.compiled and self.compiled.verdict is not Verdict.passed:
            return None
        cpu_seconds = self.cpu_seconds - (self.compiled.cpu_seconds if self.compiled else 0.0)
        used = (self.run_seconds, cpu_seconds, self.peak_memory_bytes)
        return Phase(self.verdict, self.exit_code, *used, self.stdout, self.stderr)

    @property
    def pass_rate(self) -> float | None:
        """The share of the cases that passed, 0 to 1; None unless every case was run (`Program.every_case`)."""
        passed = [case.verdict is Verdict.passed for case in self.cases]
        return sum(passed) / len(passed) if passed else None

    def to_json(self) -> dict[str, Any]:
        """The result as plain JSON values. `compiled`, `cases`, `files` and the fields of the audit are omitted when empty."""
        fields = vars(self) | {
            "verdict": str(self.verdict),
            "compiled": self.compiled.to_json() if self.compiled else None,
            "cases": [case.to_json() for case in self.cases],
        }
        omitted = ("compiled", "cases", "files", "audited", "audit_cpu_seconds")
        return {name: value for name, value in fields.items() if value or name not in omitted}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "Result":
        """The inverse of `to_json`."""
        compiled = Phase.from_json(fields["compiled"]) if fields.get("compiled") else None
        cases = tuple(map(Phase.from_json, fields.get("cases", ())))
        more = {"verdict": Verdict(fields["verdict"]), "compiled": compiled, "cases": cases}
        files = tuple((name, content) for name, content in fields.get("files", ()))
        return cls(**(fields | more | {"files": files}))
