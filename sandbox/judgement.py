"""Judges one program; writes its source to a file, compiles it, runs it, and derives the verdict."""

import errno
import os
import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from sandbox.backends import bubblewrap
from sandbox.checking import CheckerFailed
from sandbox.classfiles import main_class
from sandbox.clear import wipe
from sandbox.compare import same
from sandbox.compilers import LARGEST_PYTHON, PYTHON_SECONDS, WITH_FILES, Compiled, limits_of_compiler
from sandbox.encoding import encoded, is_text
from sandbox.exchange import read_files, write_compiled, write_files, write_inside
from sandbox.languages import CONTEST_ENV, LINK, PATH, heap_mib, language, likely_name, stack_mib
from sandbox.launch import Command, Forked, Spawned, in_memory, rlimits, runnable
from sandbox.libraries import linker, note, openssl
from sandbox.node_names import FILE, declarations
from sandbox.preamble import CONTEST, preamble
from sandbox.prepared import IN_COMMANDS, check_there, prepared
from sandbox.room import check_compiled, check_room
from sandbox.snapshot import Snapshot
from sandbox.texts import KEPT_CHARACTERS, KEPT_OF_A_CASE, kept, phase, text
from sandbox.unseen import unseen, without_file
from sandbox.verdicts import Case, Limits, Phase, Program, Result, Verdict
from sandbox.watch import Budget, Child, Outcome, Stdio, watch
from sandbox.zygote import NODE, compilable, node_job, node_name, source

if TYPE_CHECKING:
    from sandbox.judge import Judge


class Judgement:
    """The judgement of one program. `at_home`: see `sandbox.launch.Command`."""

    at_home = True

    def __init__(self, judge: "Judge", program: Program, directory: Path) -> None:
        self.judge, self.program, self.directory, self.uid = judge, program, directory, judge.uid
        self.row = language(program.language).of(program)
        self.limits = program.limits or self.row.limits
        self.compile_seconds = self.run_seconds = self.cpu_seconds = 0.0
        self.peak_memory_bytes = 0
        self.name, self.entry = likely_name(self.row, program.source), ""
        self.text, self.marker = encoded(program.source), program.end_marker
        self.unseen = unseen(program, self.row) if is_text(self.text) else None
        if self.unseen:
            self.text, self.marker = encoded(self.unseen.source), self.unseen.marker or program.end_marker
        self.source = str(directory)
        self.code: bytes | None = None
        self.killed = 0
        if program.exchanges_files:
            self.at_home = False
        self.compiled: Phase | None = None
        self.built: Snapshot | None = None
        self.cases: list[Phase] = []

    def result(self) -> Result:
        """Compile the program and run its cases, up to the first that fails or, with `Program.every_case`, all of them. Each case
        finds the same files."""
        if refused := self._build():
            return refused
        failed: tuple[Verdict, Outcome] | None = None
        for number, case in enumerate(self.program.cases or (None,)):
            if number and (refused := self._restore()):
                return refused
            self.killed = self.judge.group.kills() if self.judge.group else 0
            outcome = self.step(self.row.run, case.stdin if case else "")
            self._add(outcome)
            verdict = self._verdict(outcome, case)
            if verdict is Verdict.passed and case and self.program.checker:
                try:
                    accepted = self.judge.checking(self.program.checker).accepts(case, outcome.stdout)
                except CheckerFailed as error:
                    return error.result(self.program.id)
                verdict = Verdict.passed if accepted else Verdict.wrong_answer
            if self.program.every_case and case:
                most = max(KEPT_CHARACTERS // len(self.program.cases), KEPT_OF_A_CASE)
                self.cases.append(phase(verdict, outcome, most))
            if verdict is not Verdict.passed:
                failed = failed or (verdict, outcome)
                if not self.program.every_case:
                    break
        return self._finish(*(failed or (verdict, outcome)))

    def _build(self) -> Result | None:
        """As `compile`; a compiled program's source is removed, because the program must not read its tests there."""
        refused = self.compile()
        if not refused and self.row.compile:
            name = os.path.basename(self.source)
            if not any(name in self._fill(part) for part in self.row.run):
                os.unlink(self.source)
        self.built = Snapshot(self.directory) if len(self.program.cases) > 1 else None
        return refused

    def _restore(self) -> Result | None:
        """Remove the files of the last case; compile again if it changed the program's own files. Returns as `compile`."""
        self.judge.clear_shared()
        if self.built and self.built.restore():
            return None
        wipe(self.directory)
        self.directory.mkdir(mode=0o700)
        return self._build()

    def compile(self) -> Result | None:
        """Write the source to a file and compile it. Returns a result if the compiler rejects the program, else None."""
        name = self._fill(self.row.file)
        self.source = f"{self.directory}/{name}"
        if not self.unseen:
            write_inside(self.directory, name, self.text, self.uid)
        if self.uid is not None:
            os.chown(self.directory, self.uid, self.uid)
        check_room(str(self.directory))
        write_files(self.directory, self.program.files, self.uid)
        self.judge.check_executable(self.row)
        if self.row.compile:
            more = WITH_FILES.get(self.row.name, ()) if self.program.files else ()
            asked, argv = f"{self.row.warm_options} {name}".lstrip(), (*self.row.compile, *more)
            outcome = self._compile_warm(asked) or self._compile_forked() or self._compile(argv)
            if outcome.exit_code and (
                lacking := declarations(self.row, self.program, text(outcome.stdout + outcome.stderr))
            ):
                said = replace(outcome, stdout=b"", stderr=b"")
                outcome = said.then(self._compile_declared(lacking, asked, argv))
            failed = outcome.over or (Verdict.compile_error if outcome.exit_code != 0 else None)
            self.compiled = phase(failed or Verdict.passed, outcome, KEPT_CHARACTERS)
            if failed:
                check_compiled(str(self.directory), self.text, outcome.stderr + outcome.stdout)
                return self._finish(failed if failed is Verdict.timeout else Verdict.compile_error, outcome)
            if "{entry}" in self.row.run:
                self.entry = main_class(self.directory, os.path.basename(self.source)) or self.name
        return None

    def _compile_declared(self, lacking: str, asked: str, argv: tuple[str, ...]) -> Outcome:
        """Compile again, with declarations of names that are `lacking`. `asked`: as the warm compiler gets the program's name."""
        if warm := self._compile_warm(asked, f"\0{lacking}\0".encode()):
            return warm
        write_inside(self.directory, FILE, lacking.encode(), self.uid)
        outcome = self._compile((*argv, f"{{dir}}/{FILE}"))
        (self.directory / FILE).unlink(missing_ok=True)
        return outcome

    def _compile_warm(self, name: str, first: bytes = b"") -> Outcome | None:
        """Compile with the language's warm compiler, which sees no other files. Returns None if there is none or if it failed.
        `first`: what it reads before the source."""
        alone = is_text(self.text) and not self.program.files
        if not alone or (done := self._warm(name, self.limits.compile_wall_seconds, first)) is None:
            return None
        if not write_compiled(self.directory, done.files):
            return None  # a new compiler process writes its files itself and reports this error properly
        outcome = Outcome(done.exit_code, None, done.wall_seconds, done.cpu_seconds, 0, b"", done.said)
        self._add(outcome, compiling=True)
        return outcome

    def _compile_forked(self) -> Outcome | None:
        """Compile a C++ program with a zygote. Returns None if there is none for it, or if g++ itself has to tell what is wrong."""
        header = preamble(self.program) if self.row.name == "cpp" and compilable(self.text) else ""
        zygote = self.judge.zygote(header, self.directory) if header and not self.program.files else None
        if zygote is None:
            return None
        command, out = self._command((), compiling=True), self.directory / "main.s"
        data = source(self.program.source, header)
        try:
            outcome = self._watched(lambda stdio: Forked(zygote, command, [str(out)], data, stdio), True)
            if outcome.over or outcome.exit_code not in (0, 1):
                return None
            self._add(outcome, compiling=True)
            if outcome.exit_code == 0:
                linked = self.step(LINK, compiling=True)
                self._add(linked, compiling=True)
                outcome = outcome.then(linked)
            return outcome
        finally:
            out.unlink(missing_ok=True)  # it contains the tests

    def _compile(self, argv: tuple[str, ...]) -> Outcome:
        """Compile with a new compiler process, and a second time if the compiler asks for another file name."""
        outcome = self.step(argv, compiling=True)
        self._add(outcome, compiling=True)
        named = re.search(self.row.misnamed, text(outcome.stderr)) if outcome.exit_code else None
        if named and self._rename(named[1]):
            outcome = self.step(argv, compiling=True)
            self._add(outcome, compiling=True)
        return outcome

    def _rename(self, name: str) -> bool:
        """Rename the program's file to `name`; returns whether that is possible."""
        self.name, before = name, self.source
        after = f"{self.directory}/{self._fill(self.row.file)}"
        try:
            os.rename(before, after)
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            return False
        self.source = after
        return True

    def _python(self) -> bytes:
        """The program's byte code from the warm Python compiler; empty if the program's own process has to compile the source."""
        if len(self.text) > LARGEST_PYTHON:
            return b""
        done = self._warm(f"{self.judge.pinned.processor} {self.source}", PYTHON_SECONDS)
        if done is None:
            return b""
        self.cpu_seconds += done.cpu_seconds
        code = done.files.get("code", b"")
        return code if len(code) <= LARGEST_PYTHON else b""

    def _warm(self, name: str, seconds: float, first: bytes = b"") -> Compiled | None:
        """The output of the language's warm compiler. None if there is no such compiler, if it failed, or if it took longer than
        `seconds` or than the limit on CPU time."""
        compiler = self.judge.compiler(self.row.name)
        if compiler is None:
            return None
        done = compiler.compile(name, first + self.text, seconds)
        if done and done.cpu_seconds > self.limits.compile_cpu_seconds:
            done = None
        if done is None or compiler.worn:
            self.judge.drop_compiler(self.row.name)
        return done

    def _verdict(self, outcome: Outcome, case: Case | None) -> Verdict:
        """The verdict on one run; `Language` explains the patterns."""
        row = self.row
        stdout, stderr = text(outcome.stdout), text(outcome.stderr)
        messages = stderr + stdout if row.reports_on_stdout else stderr
        if outcome.over:
            return outcome.over
        if outcome.exit_code != 0 or re.search(row.failed_quietly, messages):
            out_of_memory = self.judge.group is not None and self.judge.group.kills() != self.killed
            if out_of_memory or re.search(row.out_of_memory, messages):
                return Verdict.memory_exceeded
            if re.search(row.refused, messages) or self._is_refused(stderr):
                return Verdict.compile_error
            failed = re.search(row.test_failed, messages) or outcome.exit_code == row.test_failed_code
            return Verdict.wrong_answer if failed and not case else Verdict.runtime_error
        expected = case.expected_stdout if case else None
        if self.marker is not None and self.marker not in stdout.split("\n"):
            return Verdict.wrong_answer
        checked = (
            expected is None or self.program.checker or same(self.program.compare, outcome.stdout, expected)
        )
        return Verdict.passed if checked else Verdict.wrong_answer

    def _is_refused(self, stderr: str) -> bool:
        """Whether the language's parser rejects the source of a program that failed with `stderr`."""
        if self.row.syntax_check is None or not re.search(self.row.speaks_of_syntax, stderr):
            return False
        if self.unseen:
            wipe(Path(self.source))  # the program may have put something else there
            write_inside(self.directory, os.path.basename(self.source), self.text, self.uid)
        outcome = self.step(self.row.syntax_check, compiling=True)
        refused = not outcome.over and outcome.exit_code != 0
        if refused:
            check_compiled(str(self.directory), self.text, outcome.stderr + outcome.stdout)
        return refused

    def step(self, argv: tuple[str, ...], stdin: str = "", compiling: bool = False) -> Outcome:
        """Run one command of the language's row (its compiler, or the program) to its end."""
        judge, limits = self.judge, self._limits_of(compiling)
        command = self._command(argv, compiling)
        warm = self.row.name == "py" and not compiling and not judge.isolated and is_text(self.text)
        warm = warm and not self.program.args  # it passes no arguments to programs
        server = judge.python(command.env) if warm else None
        if server:
            judge.pinned.pin(server.pid)
            if self.code is None:
                self.code = self._python()
        node = not compiling and argv[0] == NODE
        zygote = judge.zygote(node_name(self.program), self.directory) if node else None

        def start(stdio: Stdio) -> Child:
            marker = self.unseen.marker if self.unseen else ""
            if judge.isolated:
                writable = compiling or self.program.exchanges_files
                if compiling or not self.unseen:
                    return bubblewrap.Boxed(command, stdio, limits, writable)
                with in_memory(runnable(self.text, False, marker)) as file:
                    return bubblewrap.Boxed(without_file(command, file), stdio, limits, writable, (file,))
            if server:
                data = runnable(self.code or self.text, bool(self.code), marker)
                job = (self.source, *map("=".join, command.env.items()))
                return Forked(server, command, job, data, stdio)
            if zygote:
                return Forked(zygote, command, node_job(command), b"", stdio)
            return Spawned(command, stdio)

        outcome = self._watched(start, compiling, stdin)
        if outcome.exit_code != 0:
            check_there(command.reads)
        return outcome

    def _watched(self, start: Callable[[Stdio], Child], compiling: bool, stdin: str = "") -> Outcome:
        """Run a command to its end, under the limits of this step."""
        judge, limits = self.judge, self._limits_of(compiling)
        cpu = limits.compile_cpu_seconds if compiling else limits.cpu_seconds
        wall = limits.compile_wall_seconds if compiling else limits.wall_seconds
        memory = limits.memory_bytes + (bubblewrap.OVERHEAD_BYTES if judge.isolated else 0)
        places = bubblewrap.IN_MEMORY if judge.isolated else ()
        budget = Budget(cpu, wall, memory, limits.output_bytes, limits.processes, places=places)
        if judge.group:
            judge.group.limit(memory)
        if self.program.exchanges_files and not compiling:
            budget = replace(budget, directory=self.directory, disk_bytes=limits.file_bytes)
        return watch(start, encoded(stdin), budget, judge.kept, judge.caller, self.uid, judge.group)

    def _limits_of(self, compiling: bool) -> Limits:
        return limits_of_compiler(self.limits, self.row.limits) if compiling else self.limits

    def _command(self, argv: tuple[str, ...], compiling: bool) -> Command:
        """A command of the language's row, filled in for this program."""
        judge, row = self.judge, self.row
        home = str(self.directory)
        if judge.isolated:
            home = bubblewrap.BOX if compiling else bubblewrap.HOME
        env = {"PATH": PATH, "HOME": home, "TMPDIR": home, "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8"}
        limits = self._limits_of(compiling)
        fill = partial(self._fill, limits=limits)
        env |= {name: fill(value) for name, value in row.env}
        contest = bool(self.program.cases)
        env |= CONTEST_ENV if contest else {}
        kernel = rlimits(
            limits,
            limits.compile_cpu_seconds if compiling else limits.cpu_seconds,
            # Compilers have no limit on address space: they are trusted, and some reserve far more than they use.
            address_space=row.limit_address_space and not compiling,
            # The kernel counts all processes of a user, so this limit works only if programs have a user of their own.
            processes=self.uid is not None and not judge.isolated,
            deep=contest and not compiling,
        )
        ready = [self._prepared(name)[1] for name in IN_COMMANDS if f"{{{name}}}" in argv]
        filled = tuple(part for part in map(fill, argv) if part)
        filled += () if compiling else self.program.args
        reads = tuple(path for path in ready if path)
        return Command(filled, self.directory, env, kernel, self.uid, reads, self.at_home, judge.calls)

    def _fill(self, template: str, limits: Limits | None = None) -> str:
        """Replace the `{...}` in a template of the language's row. `limits`: the limits of this run or compilation."""
        if "{" not in template:
            return template
        return re.sub(r"\{(\w+)\}", lambda match: self._value(match[1], limits or self.limits), template)

    def _value(self, name: str, limits: Limits) -> str:
        if name == "dir":
            return bubblewrap.BOX if self.judge.isolated else str(self.directory)
        if name in ("name", "entry"):
            return str(getattr(self, name))
        if name in ("heap", "stack"):
            return str(heap_mib(limits) if name == "heap" else stack_mib(limits))
        if name in ("openssl", "linker"):
            return openssl(self.program.source) if name == "openssl" else linker()
        return self._prepared(name)[0]

    def _prepared(self, name: str) -> tuple[str, Path | None]:
        if name == "snapshot" and self.program.cases:
            name += CONTEST
        return prepared(preamble(self.program) if name == "preamble" else name, self.limits)

    def _add(self, outcome: Outcome, compiling: bool = False) -> None:
        """Add the time and memory of a step to the result's totals."""
        self.cpu_seconds += outcome.cpu_seconds
        if compiling:
            self.compile_seconds += outcome.wall_seconds
        else:
            self.run_seconds += outcome.wall_seconds
            self.peak_memory_bytes = max(self.peak_memory_bytes, outcome.memory_bytes)

    def _finish(self, verdict: Verdict, last: Outcome) -> Result:
        """The program's result, with the output of the `last` step."""
        stdout = text(last.stdout)
        if self.marker:
            stdout = stdout.replace(f"\n{self.marker}\n", "", 1)
        stderr = text(last.stderr)
        if self.unseen:
            stderr = self.unseen.with_lines(stderr)
        whole = self.program.whole_output and not last.over
        most = self.limits.output_bytes if whole else KEPT_CHARACTERS
        stdout, stderr = kept(stdout, most), kept(stderr, most)
        return Result(
            self.program.id,
            verdict,
            None if last.over else last.exit_code,
            self.compile_seconds,
            self.run_seconds,
            self.cpu_seconds,
            self.peak_memory_bytes,
            stdout,
            stderr,
            note=note(self.row, verdict, last.exit_code, stdout, stderr),
            compiled=self.compiled,
            cases=tuple(self.cases),
            files=tuple(read_files(self.directory, self.program.fetch, self.limits.output_bytes)),
        )
