"""Finds the code blocks of an answer in markdown.

A code block begins at a *fence*, a line of three or more backticks or tildes. The fence may be indented, in a list or in a
quotation, and may have an info string that names the language (`rust,ignore`, `python title="x"`, `{.python}`). The block ends at
the next fence of at least the same length that is not inside a string or comment of the code. The last block may lack its end.

Text between `<think>` and `</think>` (or `<thinking>`, `<thought>`, `<reasoning>`), or before a `</think>` without a `<think>`,
is ignored.
"""

import itertools
import re
from functools import lru_cache
from typing import NamedTuple

from sandbox.languages import LANGUAGES
from sandbox.lexer import JOINED, masked

_FENCE = re.compile(
    r"^(?P<indent>[ \t]*(?:>[ \t]*)*(?:(?:[-*+]|\d+[.)])[ \t]+)?)(?P<fence>`{3,}|~{3,})[ \t]*(?P<info>(?:[\w{+#.][^`\n]*)?)$",
    re.MULTILINE,
)
_THOUGHT = re.compile(r"(?ms)^[ \t]*<(think|thinking|thought|reasoning)>(?:.*?</\1>|.*\Z)")
_THOUGHT_ENDS = re.compile(r"(?ms)\A(?:(?!<think).)*</(?:think|thinking|thought|reasoning)>[ \t]*$")
_MOST_FENCES = 20  # how many fences are considered as the end of one block
_DEEPEST = 10  # levels of blocks in blocks of text that are looked into; each reads its text once more
_CONTRACTION = re.compile(r"\b([A-Za-z]+)'(s|t|re|ve|ll|d|m)\b")

_NO_CODE = "text txt plaintext plain output console log none json yaml toml xml html css sql diff markdown md mermaid latex"
_LANGUAGE = {text: row.name for row in LANGUAGES.values() for text in (*row.names, *row.fences)}
"""The short name of a language, by its names in info strings; `text` for contents that are no code."""
_LANGUAGE |= dict.fromkeys(_NO_CODE.split(), "text")


class Block(NamedTuple):
    """One code block.

    `language`: the short name of the language in its info string; `text` if that is no code; empty if it is missing or unknown.
    `continues`: whether the prompt contains the block's opening fence, so that the block continues the prompt.
    """

    text: str
    language: str = ""
    continues: bool = False


@lru_cache(2)  # whoever asks whether a text is an answer reads its blocks next
def blocks(prompt: str, answer: str, language: str) -> tuple[Block, ...] | None:
    """The code blocks of `answer`, in order; None if it has no markdown and so is code itself.

    The answer may be code that continues `prompt` in `language` (a short name) and has fences inside strings; these do not count.
    """
    return _blocks(prompt, answer, language, _DEEPEST)


def _blocks(prompt: str, answer: str, language: str, deeper: int) -> tuple[Block, ...] | None:
    """As `blocks`. `deeper`: how many levels of blocks in blocks of text are looked into."""
    answer = answer.replace("\r\n", "\n").removeprefix("\ufeff")
    if not re.search(r"```|~~~|</?(?:think|thought|reasoning)", answer):
        return None
    code = masked(prompt + _CONTRACTION.sub(r"\1_\2", answer), language).text

    def in_string(place: int) -> bool:
        place += len(prompt)
        return place > 0 and code[place - 1] == JOINED

    found: list[Block] = []
    markdown = False
    at = 0
    if (ends := _THOUGHT_ENDS.match(answer)) and not in_string(answer.rfind("\n", 0, ends.end()) + 1):
        at, markdown = ends.end(), True
    fence, thought = _FENCE.search(answer, at), _THOUGHT.search(answer, at)
    while begun := min(filter(None, (fence, thought)), key=lambda found: found.start(), default=None):
        at = begun.end()
        if markdown or not in_string(begun.start()):
            if begun.re is _FENCE and not markdown and not begun["info"] and _continues(answer, begun):
                found.append(Block(answer[: begun.start()], continues=True))
            elif begun.re is _FENCE:
                text, at = _block(answer, begun, language)
                is_text = _language(begun["info"]) == "text"
                inner = _blocks("", text, language, deeper - 1) if is_text and deeper else None
                found += inner or [Block(text, _language(begun["info"]))]
            markdown = True
        fence, thought = _from(answer, at, fence), _from(answer, at, thought)
    if markdown and not found and (rest := answer[at:]).strip():  # code after <think>...</think>
        found.append(Block(rest.lstrip("\n")))
    return tuple(found) if markdown else None


def _from(answer: str, at: int, known: re.Match[str] | None) -> re.Match[str] | None:
    """The first match in `answer` from position `at` on. `known`: that from an earlier position on, so that no text is searched
    twice."""
    return known if known is None or known.start() >= at else known.re.search(answer, at)


def _continues(answer: str, fence: re.Match[str]) -> bool:
    """Whether the answer's first fence closes a block that the prompt opened: there is text before it, and no code after it."""
    before, after = answer[: fence.start()], answer[fence.end() :]
    if not before.strip() or len(_FENCE.findall(after)) % 2:
        return False
    return not after.strip() or before.lstrip("\n")[0] in " \t{}"


def _block(answer: str, begun: re.Match[str], language: str) -> tuple[str, int]:
    """The text of the block that fence `begun` opens, and the position at which the search for the next block continues."""
    start = begun.end() + 1
    least, indent = begun["fence"], begun["indent"]
    fences = (fence for fence in _FENCE.finditer(answer, start) if fence["fence"].startswith(least))
    ends = list(itertools.islice(fences, _MOST_FENCES))
    if not ends:
        return _dedented(answer[start:].rstrip().removesuffix(least), indent), len(answer)
    code = masked(answer[start : ends[-1].start()], language).text
    possible = (fence for fence in ends if _may_end(code[: fence.start() - start], fence is ends[0]))
    end = next(possible, ends[0])
    return _dedented(answer[start : end.start()], indent), end.start() if end["info"] else end.end()


def _may_end(code: str, first: bool) -> bool:
    """Whether a block may end after `code`: no string is open there, and all brackets are closed. The `first` fence may end the
    block with open brackets."""
    whole = all(code.count(a) == code.count(b) for a, b in ("()", "[]", "{}"))
    return not code.endswith(JOINED) and (first or whole)


def _dedented(text: str, indent: str) -> str:
    """The text of a block without the indentation of its opening fence; markers of a list or a quotation count as indentation."""
    if ">" in indent:
        return re.sub(r"^[ \t]*(?:>[ \t]?)+", "", text, flags=re.MULTILINE)
    return re.sub(rf"^[ \t]{{1,{len(indent)}}}", "", text, flags=re.MULTILINE) if indent else text


def _language(info: str) -> str:
    names = re.findall(r"[\w+#]+", info.lower().removeprefix("language-").removeprefix("lang-"))
    return next((_LANGUAGE[name] for name in names[:2] if name in _LANGUAGE), "")
