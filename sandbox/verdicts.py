"""The sandbox's input (`Program`) and output (`Result`)."""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from sandbox.compare import DEFAULT_RULE, check_rule
from sandbox.exchange import Named, check_files, check_name

MIB = 1 << 20
LARGEST_MEMORY_BYTES = 2048 * MIB
"""The largest memory limit that works on every backend; docker's containers have no more."""


class Verdict(StrEnum):
    """The verdict on a program. All but `sandbox_error` say something about the program."""

    passed = "passed"
    wrong_answer = "wrong_answer"  # a test failed, the output is wrong, it ended before its tests; no program in an answer
    compile_error = "compile_error"  # the compiler, or the interpreter's parser, rejected it
    runtime_error = "runtime_error"  # an uncaught exception, a signal, an exit code other than 0
    timeout = "timeout"  # it exceeded its CPU or wall-clock limit, in two runs
    memory_exceeded = "memory_exceeded"
    output_exceeded = "output_exceeded"
    sandbox_error = "sandbox_error"  # the sandbox failed; says nothing about the program

    @property
    def is_label(self) -> bool:
        """Whether the verdict says something about the program; false for `sandbox_error`."""
        return self is not Verdict.sandbox_error


@dataclass(frozen=True)
class Case:
    """One run of a program on standard input. `expected_stdout` None: any output is right."""

    stdin: str
    expected_stdout: str | None


@dataclass(frozen=True)
class Limits:
    """Limits of one program. When one is exceeded, its process tree is killed.

    `cpu_seconds`, `wall_seconds`: of one run (each `Case` is a run), user + system time over all processes.
    The CPU limit is the one for slow programs; the wall-clock limit stops programs that sleep.
    `compile_cpu_seconds`, `compile_wall_seconds`: those of the compiler.
    `memory_bytes`: resident, over all processes. `output_bytes`: stdout + stderr of one run.
    `file_bytes`: largest file it may write. `processes`: at once, threads included.
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
            if not value > 0:
                raise ValueError(f"Limits.{name} must be greater than 0, got {value!r}")

    def with_cpu(self, seconds: float) -> "Limits":
        """These limits with another limit on CPU time; the wall-clock limit becomes at least three times that."""
        return replace(self, cpu_seconds=seconds, wall_seconds=max(self.wall_seconds, 3 * seconds))


@dataclass(frozen=True)
class Checker:
    """A program that decides whether an output is right, for problems with several right outputs. It is untrusted too and runs in
    the sandbox.

    It starts in a folder with the files `input`, `expected` and `got`, byte for byte, and has to exit with code 0 and print `accept` or
    `reject` as its last line. Anything else, such as exceeding its language's limits, is its own failure and gives `sandbox_error`.
    """

    language: str
    source: str


_LATER = ("every_case", "args", "files", "fetch")
"""Fields of a program that are younger than the first caches."""


@dataclass(frozen=True)
class Program:
    """One program to judge.

    Without `cases` it has to exit with code 0, and to print `end_marker`, if that is not None, on its own line (the statement that does
    so is part of `source`; see `sandbox.programs.assemble`). With `cases` it is run once for each, and its output has to equal the
    expected one by the rule `compare` (`sandbox.compare`), or to be accepted by `checker`. The first case that fails ends the run
    unless `every_case` is set. `id` is chosen by the caller and returned in the `Result`. `limits` None: the language's default limits.

    `args`: its command-line arguments. `files`: files in the directory in which it starts, (name, content in base64); `fetch`: names of
    files to return, if it makes them, of at most `Limits.output_bytes` together. With either the program may write to its directory, at
    most `Limits.file_bytes` in all. Raises `ValueError` for an unknown rule, a file's name that leads out, or content that is not base64.
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

    def __post_init__(self) -> None:
        check_rule(self.compare)
        if self.files:
            check_files(self.files)
        for name in self.fetch:
            check_name(name)

    @property
    def exchanges_files(self) -> bool:
        """Whether it is given files or makes some for the caller."""
        return bool(self.files or self.fetch)

    def to_json(self) -> dict[str, Any]:
        """The program as plain JSON values; fields of `_LATER` only where they are set, so that cached verdicts stay valid."""
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
        more = {
            "args": tuple(fields.get("args", ())),
            "files": files,
            "fetch": tuple(fields.get("fetch", ())),
        }
        return cls(**(fields | {"cases": cases, "limits": limits, "checker": checker} | more))


@dataclass(frozen=True)
class Phase:
    """One command that was run for a program: its compiler, or the program itself on one case.

    `verdict`: `passed`, or why this command failed: a compiler may also be over its own time or memory. `exit_code`: 128 + n if
    signal n ended it, None if the sandbox did. `seconds`: wall-clock time. `stdout`, `stderr`: beginning and end of longer texts.
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
    """The result of one program.

    `exit_code`: of the last command run, 128 + n if signal n ended it, None if nothing ran or the sandbox ended it.
    `compile_seconds`, `run_seconds`: wall-clock time. `cpu_seconds`: compiling and running, all processes.
    `peak_memory_bytes`: of the run (not the compiler); the sum over all processes, sampled every 50 ms,
    and at least the kernel's exact peak of the largest process.
    `stdout`, `stderr`: of the last command run, at most 64 KiB each, with the end marker taken out.
    `cached`: the verdict of an identical program, from this call or a cache; this program was not run.
    `note`: one line that explains the verdict: why no program could be extracted from an answer, for example, or which library is
    missing.
    `compiled`: the compiler's run, None for languages without one. `cases`: with `Program.every_case` one run per case, in order;
    else empty. `files`: those of `Program.fetch` that it made, (name, content in base64).
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

    @property
    def pass_rate(self) -> float | None:
        """The share of the cases that passed; None unless every case was run."""
        passed = [case.verdict is Verdict.passed for case in self.cases]
        return sum(passed) / len(passed) if passed else None

    def to_json(self) -> dict[str, Any]:
        """The result as plain JSON values; `compiled`, `cases` and `files` only where there are any."""
        fields = vars(self) | {"verdict": str(self.verdict)}
        del fields["compiled"], fields["cases"]
        if not self.files:
            del fields["files"]
        if self.compiled:
            fields["compiled"] = self.compiled.to_json()
        if self.cases:
            fields["cases"] = [case.to_json() for case in self.cases]
        return fields

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "Result":
        """The inverse of `to_json`."""
        compiled = Phase.from_json(fields["compiled"]) if fields.get("compiled") else None
        cases = tuple(map(Phase.from_json, fields.get("cases", ())))
        more = {"verdict": Verdict(fields["verdict"]), "compiled": compiled, "cases": cases}
        files = tuple((name, content) for name, content in fields.get("files", ()))
        return cls(**(fields | more | {"files": files}))
