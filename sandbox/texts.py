"""Outputs as text, and how much of an output a result keeps."""

from sandbox.verdicts import Phase, Verdict
from sandbox.watch import Outcome

KEPT_CHARACTERS = 64 << 10
"""The most characters of stdout, and of stderr, in a `Result`. The cases of `Program.every_case` share them."""
KEPT_OF_A_CASE = 1 << 10
"""The most characters per case if there are so many cases that their shares would be smaller."""


def phase(verdict: Verdict, outcome: Outcome, most: int) -> Phase:
    """The `Phase` for one command, with at most `most` characters of stdout and of stderr."""
    code = None if outcome.over else outcome.exit_code
    used = (outcome.wall_seconds, outcome.cpu_seconds, outcome.memory_bytes)
    return Phase(verdict, code, *used, kept(text(outcome.stdout), most), kept(text(outcome.stderr), most))


def text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def kept(whole: str, most: int = KEPT_CHARACTERS) -> str:
    """`whole`, or the beginning and the end of it, `most` characters in all, if it is longer than that."""
    if len(whole) <= most:
        return whole
    note = f"\n... {len(whole)} characters in all ...\n"
    half = (most - len(note)) // 2
    return whole[:half] + note + whole[-half:]
