"""The command line `python -m sandbox`."""

import argparse
import contextlib
import json
import logging
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import get_args

from sandbox.backends import docker
from sandbox.backends.backend import Backend
from sandbox.backends.choice import Choice
from sandbox.cache import VerdictCache
from sandbox.check import check
from sandbox.checking import CHECKER_FAILED
from sandbox.client import Sandbox
from sandbox.compare import DEFAULT_RULE, check_rule
from sandbox.encoding import decoded
from sandbox.errors import SandboxError, UsageError
from sandbox.languages import COMMON, IMAGES, LANGUAGES, language
from sandbox.libraries import counted
from sandbox.multipl_e import completion_files, evaluate
from sandbox.progress import Progress
from sandbox.rows import UNREADABLE, ResultFile, check_paths, read_rows
from sandbox.twin import check_audit
from sandbox.verdicts import LONGEST_SECONDS, Case, Checker, Program, Verdict

log = logging.getLogger(__name__)

_EXAMPLES = """examples:
  python -m sandbox build                                      build the image of backend docker
  python -m sandbox build --apt python3-scipy --npm mathjs     with further libraries (docs/sandbox.md)
  python -m sandbox languages
  python -m sandbox check --backend docker
  python -m sandbox run --language cpp solution.cpp --stdin input.txt --expect output.txt
  python -m sandbox judge completions.jsonl verdicts.jsonl --workers 8 --resume
  python -m sandbox multipl-e completions/
  python -m sandbox serve --workers 8                          HTTP on 127.0.0.1:8080; a token: SANDBOX_TOKEN

rows of judge, one JSON object a line:
  {id, language, program}
  {id, language, program, cases: [{stdin, stdout}]}             and optionally: compare: a rule (sandbox/compare.py),
                                                                checker: {language, program} (docs/sandbox.md)
  {id, language, prompt, completion, tests}                     as in MultiPL-E; from an answer in markdown, or one that
                                                                repeats the prompt, the code is extracted (docs/sandbox.md);
                                                                optionally audit: off, all or sample:P, see --audit
  limits: {cpu_seconds: 2, memory_bytes: 268435456, ...}        optional in all rows
  other fields are copied to the results

exit codes:
  0 passed (judge: every row has a verdict), 1 not passed, 2 wrong usage, 3 the sandbox itself failed
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = _parser().parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    try:
        return int(arguments.action(arguments))
    except SandboxError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sandbox",
        description="Run programs that a model wrote and print a verdict for each.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, action: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        command: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
        command.set_defaults(action=action)
        if name != "build":
            _add_backend(command)
        return command

    add("languages", _languages, "list the languages with their tools' versions or missing tools")
    checked = add("check", _check, "test that a backend judges correctly and contains hostile programs")
    what = "(default: all installed ones)"
    checked.add_argument("--languages", type=_languages_named, default=(), metavar="A,B", help=what)
    make = add("build", _build, "build an image of backend docker")
    rows = LANGUAGES.values()
    of = {image: " ".join(row.name for row in rows if row.image == image) for image in IMAGES}
    what = "; ".join(f"{image}: {names}" for image, names in of.items()) + " (default: common)"
    make.add_argument("images", nargs="*", metavar="IMAGE", help=what)
    for kind, what in (("apt", "Debian packages"), ("pip", "Python packages"), ("npm", "node modules")):
        make.add_argument(
            f"--{kind}",
            nargs="+",
            action="extend",
            default=[],
            metavar="NAME",
            help=f"{what} to add; sandboxes use the image that was built last, so name all libraries in one call, after IMAGE",
        )
    _add_run(add("run", _run, "run one program and print its verdict as JSON"))
    what = "judge MultiPL-E's completions files (NAME.json.gz), write its results files"
    multipl_e = add("multipl-e", _multipl_e, what)
    multipl_e.add_argument("directory", type=Path, metavar="DIR")
    _add_workers(multipl_e)
    what = "judge a JSON-lines file of programs; `python -m sandbox --help` shows its rows"
    _add_judge(add("judge", _judge, what))
    what = "judge programs over HTTP, as SandboxFusion, Piston and open-instruct do; SANDBOX_TOKEN in the environment is the token"
    _add_serve(add("serve", _serve, what))
    return parser


def _add_backend(command: argparse.ArgumentParser) -> None:
    what = "how programs are isolated; 'process' isolates nothing (default: auto)"
    command.add_argument("--backend", choices=get_args(Backend), default="auto", help=what)
    what = "another runtime of backend docker, such as runsc (gVisor)"
    command.add_argument("--docker-runtime", metavar="NAME", help=what)


def _add_limits_and_rule(command: argparse.ArgumentParser) -> None:
    what = "limit on CPU time of one run (default: the language's)"
    command.add_argument("--cpu-seconds", type=_positive, metavar="S", help=what)
    command.add_argument(
        "--compare",
        type=_rule,
        default=DEFAULT_RULE,
        metavar="RULE",
        help="how output is compared if a row names no rule: exact, lines, tokens, float:1e-6, code-contests "
        "(default: %(default)s)",
    )


def _add_run(run: argparse.ArgumentParser) -> None:
    _add_limits_and_rule(run)
    run.add_argument("file", type=Path, metavar="FILE")
    run.add_argument("--language", required=True, type=_language, metavar="NAME", help=", ".join(LANGUAGES))
    run.add_argument("--stdin", type=Path, metavar="F", help="the program's standard input (default: empty)")
    run.add_argument("--expect", type=Path, metavar="F", help="the expected output (default: any)")
    what = "a program that decides whether the output is right"
    run.add_argument("--checker", type=_checker, metavar="LANGUAGE:F", help=what)


def _add_judge(judge: argparse.ArgumentParser) -> None:
    _add_limits_and_rule(judge)
    _add_audit(judge)
    judge.add_argument("input", type=Path, metavar="IN.jsonl")
    judge.add_argument("output", type=Path, metavar="OUT.jsonl")
    _add_workers(judge)
    judge.add_argument("--cache", type=Path, metavar="FILE", help="verdict cache, an SQLite file")
    what = "keep the results of an interrupted call, in OUT.jsonl.part"
    judge.add_argument("--resume", action="store_true", help=what)


def _add_workers(command: argparse.ArgumentParser) -> None:
    cores, what = len(os.sched_getaffinity(0)), "programs at once (default: %(default)s)"
    command.add_argument("--workers", type=int, default=cores, metavar="N", help=what)


def _language(text: str) -> str:
    try:
        return language(text).name
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _languages_named(text: str) -> tuple[str, ...]:
    return tuple(map(_language, text.split(",")))


def _rule(text: str, check: Callable[[str], str] = check_rule) -> str:
    try:
        return check(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _checker(text: str) -> Checker:
    name, _, path = text.partition(":")
    try:
        return Checker(language(name).name, _read(Path(path)))
    except UsageError as error:
        raise argparse.ArgumentTypeError(f"expected LANGUAGE:FILE, got {text!r}: {error}") from error


def _positive(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < (value := float(text)) <= LONGEST_SECONDS:
            return value
    allowed = f"above 0 and at most {LONGEST_SECONDS}"
    raise argparse.ArgumentTypeError(f"expected a number of seconds {allowed}, got {text}")


def _sandbox(arguments: argparse.Namespace, workers: int = 1) -> Sandbox:
    return Sandbox(arguments.backend, workers, docker_runtime=arguments.docker_runtime)


def _languages(arguments: argparse.Namespace) -> int:
    with _sandbox(arguments) as sandbox:
        print(f"backend: {sandbox.backend}")
        for name, row in LANGUAGES.items():
            missing = sandbox.missing_tools(name)
            state = f"missing: {', '.join(missing)}" if missing else sandbox.identity(name).partition(" ")[2]
            print(f"{name:5} {row.title:11} {state}")
    return 0


def _check(arguments: argparse.Namespace) -> int:
    problems = count = 0
    with _sandbox(arguments) as sandbox:
        for finding in check(sandbox, arguments.languages):
            count += 1
            problems += bool(finding.problem)
            mark = "FAILED" if finding.problem else "ok"
            print(f"{mark:<7} {finding.name:<40} {finding.said:<18} {finding.problem}".rstrip(), flush=True)
    print(f"backend {sandbox.backend}: {count - problems} of {count} as they should be")
    return 1 if problems else 0


def _add_audit(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--audit",
        type=partial(_rule, check=check_audit),
        default="off",
        metavar="RULE",
        help="which completions that pass are run once more to detect tampering with their tests, if a row names no rule: off, all "
        "or sample:P for a share P (default: %(default)s)",
    )


def _add_serve(command: argparse.ArgumentParser) -> None:
    _add_workers(command)
    _add_audit(command)
    command.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    command.add_argument("--port", type=int, default=8080, help="(default: %(default)s)")
    what = "programs that may wait; more get HTTP 503 (default: %(default)s)"
    command.add_argument("--queue", type=int, default=1024, metavar="N", help=what)


def _serve(arguments: argparse.Namespace) -> int:
    try:
        from sandbox.serve.command import TOKEN, check, serve
    except ModuleNotFoundError as error:
        raise UsageError(
            f"serve needs the package {error.name}, which is not installed; run `pip install fastapi prometheus-client uvicorn`"
        ) from error
    token = check(arguments.host, arguments.port)
    if arguments.host not in ("127.0.0.1", "::1", "localhost") and not token:
        where = f"{arguments.host}:{arguments.port}"
        log.warning("everyone who reaches %s may run programs; set %s to ask for a token", where, TOKEN)
    with _sandbox(arguments, arguments.workers) as sandbox:
        where = f"http://{arguments.host}:{arguments.port} (backend {sandbox.backend})"
        print(f"serving on {where}; /docs lists the routes", file=sys.stderr)
        serve(sandbox, arguments.host, arguments.port, arguments.queue, arguments.audit, token)
    return 0


def _build(arguments: argparse.Namespace) -> int:
    images = arguments.images or [COMMON]
    for image in images:
        if image not in IMAGES:
            raise UsageError(f"unknown image {image!r}; known: {', '.join(IMAGES)}")
    choice = Choice(arguments.apt, arguments.pip, arguments.npm)
    for image in images:
        for line in docker.build(image, choice):
            print(line)
        print(f"built {docker.chosen_tag(image, choice)}")
    return 0


def _run(arguments: argparse.Namespace) -> int:
    stdin = _read(arguments.stdin) if arguments.stdin else ""
    expected = _read(arguments.expect) if arguments.expect else None
    cases = (Case(stdin, expected),) if arguments.stdin or arguments.expect or arguments.checker else ()
    seconds = arguments.cpu_seconds
    limits = language(arguments.language).limits.with_cpu(seconds) if seconds else None
    name, source, of = str(arguments.file), _read(arguments.file), arguments.language
    program = Program(name, of, source, cases, None, limits, arguments.compare, arguments.checker)
    with _sandbox(arguments) as sandbox:
        (result,) = sandbox.run([program])
    print(json.dumps(result.to_json()))
    return {Verdict.passed: 0, Verdict.sandbox_error: SandboxError.exit_code}.get(result.verdict, 1)


def _read(path: Path) -> str:
    try:
        return decoded(path.read_bytes())
    except OSError as error:
        raise UsageError(f"{path}: {error}") from error


def _judge(arguments: argparse.Namespace) -> int:
    check_paths(arguments.input, arguments.output, arguments.cache)
    rows = read_rows(arguments.input, arguments.cpu_seconds, arguments.compare, arguments.audit)
    programs = [row.program for row in rows]
    with _sandbox(arguments, arguments.workers) as sandbox:
        for name in sorted(_languages_of(programs)):
            sandbox.need(name)
        results = ResultFile(arguments.output, rows, arguments.resume)
        for number, row in enumerate(rows):
            if row.known and number not in results.done:
                results.add(number, row.known)
        left = (row for row in range(len(programs)) if row not in results.done)
        todo = {str(row): replace(programs[row], id=str(row)) for row in left}
        with contextlib.closing(_cache(arguments.cache, sandbox, todo.values())) as cache:
            for id, result in cache.find(todo.values()).items():
                results.add(int(id), result)
            progress = Progress(len(programs), len(results.done))
            for result in sandbox.run(program for id, program in todo.items() if int(id) not in results.done):
                results.add(int(result.id), result)
                cache.keep([(todo[result.id], result)])
                progress.step()
        results.finish()
    verdicts = Counter(results.done.values())
    said = ", ".join(f"{count} {verdict}" for verdict, count in verdicts.most_common())
    if unreadable := sum(row.known is not None for row in rows):
        said += f"; {unreadable} of the {Verdict.wrong_answer} {UNREADABLE}s, see their notes"
    if broken := list(results.notes.values()).count(CHECKER_FAILED):
        said += f"; {broken} of the {Verdict.sandbox_error} because the row's checker failed, see stderr in the results"
    if lacking := counted(results.notes.values()):
        said += f"; dependency_missing: {lacking}"
    print(said, file=sys.stderr)
    return SandboxError.exit_code if verdicts[Verdict.sandbox_error] else 0


def _languages_of(programs: Iterable[Program]) -> set[str]:
    """The languages of `programs` and of their checkers."""
    return {name for one in programs for name in (one.language, one.checker and one.checker.language) if name}


def _cache(path: Path | None, sandbox: Sandbox, programs: Iterable[Program]) -> VerdictCache:
    """The verdict cache in file `path`; if `path` is None, an empty cache in memory."""
    identity = {name: sandbox.identity(name) for name in _languages_of(programs)}
    return VerdictCache(path or Path(":memory:"), identity)


def _multipl_e(arguments: argparse.Namespace) -> int:
    paths = completion_files(arguments.directory)
    passed = count = 0
    with _sandbox(arguments, arguments.workers) as sandbox:
        progress = Progress(len(paths), 0, "files")
        for _, done in evaluate(sandbox, paths):
            rows = done["results"]
            count += len(rows)
            passed += sum(row["status"] == "OK" and row["exit_code"] == 0 for row in rows)
            progress.step()
    problems = f"{len(paths)} problem{'s' * (len(paths) != 1)}"
    print(f"{passed} of {count} completions pass, of {problems}", file=sys.stderr)
    return 0
