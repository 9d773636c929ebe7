"""The normal form of a prompt and a candidate: what a reranker reads, whatever form a caller gives them in.

Rerankers are trained on completions as they were sampled: the text after the prompt, up to the first stop text. A caller's
candidates may be other texts of the same programs, and a reranker gives those other scores. The normal form of a candidate is
that completion:

1.  Lines end with a line feed: CRLF becomes one. Blanks and line breaks at the candidate's end are left out. A carriage return
    alone stays, since generators write it too, and training reads what they wrote.
2.  A prompt whose last line break is missing gets it, unless the candidate continues the prompt's last line.
3.  A candidate that begins with the prompt, is in markdown, or defines the prompt's function again has its completion extracted
    by the sandbox's rule (`sandbox.completion`). Imports and definitions that the program needs besides go into the prompt.
4.  It is cut at the first of the problem's stop texts (`selftrain.sampling.stopping`), where these are known.

A sampled completion stays unchanged, apart from blanks at its end. Not covered: in a completion without markdown, code after the
asked function stays where no stop text ends it.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from sandbox.completion import Unreadable, asked_function, extract_program, is_answer
from sandbox.errors import UsageError as SandboxUsageError
from sandbox.languages import LANGUAGES, short_name
from sandbox.languages import language as row_of
from selftrain.errors import UsageError
from selftrain.problems.chat import completion_of
from selftrain.records import Problem, PromptStyle, cut

_CLOSED_BY_TESTS = {"cpp": "\n}", "java": "\n    }\n", "cs": "\n    }\n", "sh": "\n}"}
"""Languages in which MultiPL-E's tests close the prompt's function -> what ends a completion there."""
_COMPLETE = re.compile(r"[:{;]\s*\Z|(?:\"\"\"|'''|\*/)\s*\Z|^\s*(?:#|//|--|/?\*|%|;)")
"""A last line of a prompt after which a completion begins a new line."""
_MARKS = {
    "php": r"<\?php",
    "sh": r"\A#!\S*/(?:env )?(?:ba)?sh|\w\s*\(\)\s*\{\s*\Z",
    "cpp": r"^#include\b",
    "cs": r"^using System\b",
    "java": r"^import java|\bpublic static\b",
    "go": r"^package \w+|^func \w+\(",
    "rs": r"\bfn \w+.{0,2000}\{\s*\Z",
    "ts": r"\bfunction \w+\([^()]*\)\s*:|\bfunction \w+\(\w+:",
    "js": r"\bfunction \w+\(|=>\s*\{\s*\Z",
    "py": r"^[ \t]*(?:async )?def \w+\([^{}]{0,2000}:\s*(?:$|[rR]?[\"']{3})",
    "rb": r"^[ \t]*def \w+",
}
"""Language -> what its prompts contain, for callers that do not name the language; the first that fits counts. No pattern takes a
time that grows with the square of a text's length."""


class Normal(NamedTuple):
    """The texts that a reranker reads."""

    prompt: str
    completion: str


def normal(
    prompt: str,
    candidate: str,
    language: str | None = None,
    stops: Sequence[str] = (),
    style: PromptStyle = "completion",
) -> Normal:
    """The normal form of `candidate`, a program or completion for `prompt`.

    language  of the program; None: what the code block or the prompt looks like
    stops     the problem's stop texts, where they are known; they do not count in style `chat`
    style     the prompt style of the reranker, whose candidates in style `chat` may be whole programs in a code block

    The completion is empty where the candidate holds no program.
    """
    prompt, text = _lines(prompt), _lines(candidate)
    whole = prompt + "\n" * (not prompt.endswith("\n"))
    begun = _without_prompt(whole, text)
    if begun is not None:
        prompt, text = whole, begun
        if not stops and prompt.endswith("{\n"):
            stops = [_CLOSED_BY_TESTS.get(_language(language, prompt, text), "")]
    else:
        try:
            if _may_be_answer(text) and is_answer(whole, text, name := _language(language, whole, text)):
                return _extracted(whole, text, name, style)
        except RecursionError:  # code blocks nested by the hundred
            return Normal(prompt, "")
        prompt, text = _joined(prompt, text)
    if style == "completion":
        text = cut(f"{text.rstrip()}\n", filter(None, stops))
    return Normal(prompt, text.rstrip())


def check(prompt: str, candidates: Sequence[str]) -> None:
    """Raise UsageError unless `prompt` is a text that is not empty, and `candidates` is a list of texts."""
    check_prompt(prompt, "the text that the candidates complete")
    if isinstance(candidates, str | bytes):
        raise UsageError("candidates: expected a list of texts, got one text; put it into a list")
    if not isinstance(candidates, Sequence):
        raise UsageError(f"candidates: expected a list of texts, got {_kind(candidates)}")
    for at, text in enumerate(candidates):
        if not isinstance(text, str):
            raise UsageError(f"candidate {at + 1} of {len(candidates)}: expected a text, got {_kind(text)}")


def check_prompt(prompt: object, expected: str) -> None:
    """Raise UsageError unless `prompt` is a text in Unicode that is not empty; `expected`: what it has to be, for the message."""
    if not isinstance(prompt, str):
        raise UsageError(f"the prompt: expected a text, got {_kind(prompt)}")
    if not prompt.strip():
        raise UsageError(f"the prompt is empty: expected {expected}")
    if not is_unicode(prompt):
        raise UsageError("the prompt is no Unicode text: it has half of a surrogate pair")


def language_name(given: object) -> str | None:
    """The short name of the language that a caller gives; None where it is None or empty. Raises UsageError for what is none."""
    if given is None or given == "":
        return None
    if not isinstance(given, str):
        raise UsageError(f"the language: expected a text such as py, got {_kind(given)}")
    try:
        return row_of(given).name
    except SandboxUsageError as error:
        raise UsageError(str(error)[:300]) from error


def refusal(form: Normal) -> str | None:
    """Why a candidate with the normal form `form` cannot be scored; None where it can."""
    if not form.completion.strip():
        return "it is empty, or holds no program"
    return None if is_unicode("".join(form)) else "it is no Unicode text: half of a surrogate pair"


def _lines(text: str) -> str:
    return text.removeprefix("\ufeff").replace("\r\n", "\n")


def _without_prompt(prompt: str, text: str) -> str | None:
    """What follows the prompt in a text that begins with it, or with its last lines from the head of a function on; else None."""
    inner, begun = prompt.lstrip("\n"), text.lstrip("\n")
    if begun.startswith(inner):
        return begun[len(inner) :]
    first = begun[: begun.find("\n") + 1]
    if first and re.search(r"\w\s*\(", first) and f"\n{first}" in f"\n{inner}":
        end = inner[f"\n{inner}".rindex(f"\n{first}") :]
        if begun.startswith(end):
            return begun[len(end) :]
    return "" if begun.rstrip() == inner.rstrip() else None


def _may_be_answer(text: str) -> bool:
    """Whether `text` may be something else than a plain completion: a code block, or a program whose first line is not indented."""
    return bool(re.search(r"```|~~~|</?(?:think|thought|reasoning)|\A\s*^\S", text, re.MULTILINE))


def _joined(prompt: str, text: str) -> Normal:
    """Prompt and plain completion, with the line break between them at the prompt's end, and blanks at the completion's start."""
    line = prompt[prompt.rfind("\n") + 1 :]
    if not line:
        return Normal(prompt, text)
    if not line.strip():
        return Normal(prompt[: -len(line)], text if text.startswith(line) else line + text)
    if text.startswith("\n"):
        return Normal(f"{prompt}\n", text[1:])
    if re.match(r"\t|  ", text) or _COMPLETE.search(line):
        return Normal(f"{prompt}\n", text)
    return Normal(prompt, text)


def _extracted(prompt: str, text: str, language: str, style: PromptStyle) -> Normal:
    """The program in an answer; an empty completion where it has none."""
    tests = "}}" if language in _CLOSED_BY_TESTS and prompt.endswith("{\n") else ""
    if style == "chat":
        problem = Problem("", "", language, prompt, tests, "", "")
        return Normal(prompt, completion_of(problem, text, style).rstrip())
    try:
        found = extract_program(prompt, text, language, tests, loosely=True)
    except Unreadable:
        return Normal(prompt, "")
    return Normal(found.prompt, found.completion.rstrip())


def _language(given: str | None, prompt: str, text: str) -> str:
    """The short name of the language: `given`, else what `prompt` looks like, else what a code block of `text` names, else empty."""
    named = map(short_name, re.findall(r"^[ \t]*(?:`{3,}|~{3,})[ \t]*([\w+#]+)", text, re.MULTILINE))
    return short_name(given or language_of(prompt) or next((name for name in named if name in LANGUAGES), ""))


def language_of(prompt: str) -> str:
    """The short name of the language that `prompt` looks like; empty if it is none of _MARKS."""
    marks = (name for name, mark in _MARKS.items() if re.search(mark, prompt, re.MULTILINE))
    return next((name for name in marks if asked_function(prompt, name)), "")


def is_unicode(text: str) -> bool:
    """Whether `text` has no half of a surrogate pair, which JSON and Python's strings can hold and UTF-8 cannot."""
    return not re.search("[\ud800-\udfff]", text)


def _kind(value: object) -> str:
    return "None" if value is None else f"a value of type {type(value).__name__}"
