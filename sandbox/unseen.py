"""Keeps the source of a Python program with tests out of the program's reach while it runs.

A program that can read its source can read the expected values of its tests, and print the end marker without running them. So
there is no file: the interpreter gets the program in a file descriptor that it closes before the program starts (`get_code` in
`servers/fork.c`). The statement that prints the end marker is taken off the source. `servers/fork.c` prints the marker when the
program's code has returned, and the marker is another one in each run.
"""

import re
import secrets
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from sandbox.languages import Language
from sandbox.launch import Command
from sandbox.prepared import prepared
from sandbox.verdicts import Limits, Program

_ONCE = Path(__file__).parent / "servers" / "once.py"
_FRAME = re.compile(r'(?m)^  File ".*/main\.py", line (\d{1,9})(?:, in .*)?\n(?!    )')


class Unseen(NamedTuple):
    """A Python program's source without the statement that prints the end marker, and the marker to print instead (empty: none)."""

    source: str
    marker: str

    def with_lines(self, stderr: str) -> str:
        """Python's error message with the lines of source that Python prints if it finds the program's file."""
        lines = self.source.splitlines()

        def line_of(found: re.Match[str]) -> str:
            number = int(found[1])
            line = lines[number - 1].strip() if 0 < number <= len(lines) else ""
            return f"{found[0]}    {line}\n" if line else found[0]

        return _FRAME.sub(line_of, stderr)


def unseen(program: Program, row: Language) -> Unseen | None:
    """The program without its end; None if it runs from a file: another language, no tests inside, or no library to run it."""
    has_tests = program.end_marker is not None or program.tests_at is not None
    if row.name != "py" or not has_tests or program.args or not prepared("fork", Limits())[0]:
        return None
    end = f"\n{row.end.format(marker=program.end_marker)}\n"
    if program.end_marker is None or not program.source.endswith(end):
        return Unseen(program.source, "")
    return Unseen(program.source.removesuffix(end) + "\n", f"end-{secrets.token_hex(12)}")


def without_file(command: Command, program: int) -> Command:
    """`command`, which is `python3 FILE`, with the program in descriptor `program` (`sandbox.launch.in_memory`) for the file."""
    library, directory = prepared("fork", Limits())
    assert directory
    argv = ("python3", "-c", _ONCE.read_text(), library, str(program), command.argv[-1])
    return replace(command, argv=argv, reads=(directory,))
