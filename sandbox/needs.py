"""Finds the imports, types, values and other functions of an answer that a function in it needs."""

import re
from collections.abc import Iterable

from sandbox.grammars import GRAMMARS
from sandbox.outline import Item, Items, Place, function

_TEST_LIBRARIES = re.compile(
    r"junit|testng|nunit|xunit|TestTools|unittest|pytest|doctest|chai|\bjest|mocha|catch2|gtest|phpunit|rspec|minitest|Test::"
    r"|test/unit|ExUnit|hspec|HUnit|QuickCheck|ounit|testthat|munit|scalatest|busted|luaunit|super::",
    re.IGNORECASE,
)
_IMPORT_WORDS = {
    "import", "from", "as", "use", "using", "require", "static", "const", "let", "var", "extern", "crate", "type",
}  # fmt: skip


def needed(found: Place, others: Items, asked: str, tested: Items, language: str) -> list[Item]:
    """The items of an answer that the function `found` needs, directly or indirectly, in their order.

    `others`: the items of the answer's other code blocks. `asked`: the function's name in the prompt. `tested`: the items of the
    tests; the tests define the names of these items, so the answer does not have to.

    Two kinds of items of the function's own block are included even if nothing names them: types that do not use the function,
    and statements about values that are needed.
    """
    own = [item for item in [*found.outer_siblings, *found.siblings] if found.item.text not in item.text]
    known = {asked, *found.item.names, *(name for item in own for name in item.names)}
    pool = [item for item in others if not known & {*item.names}] + own
    pool = [item for item in pool if item.kind in ("function", "type", "value")]
    pool = [item for item in pool if not _is_redefinition(item, found)]
    of_tests = {name for item in tested if item.kind != "function" for name in item.names}
    using = _users({asked, *found.item.names}, pool, language)
    todo = [item for item in own if item.kind == "type" and not using & words_of(item, language)]
    kept, values = {id(item) for item in todo}, set[str]()
    todo.append(found.item)
    defining = _by_word((other, {*other.names}) for other in pool if other.kind != "value")
    binding = _by_word((other, {*other.names}) for other in pool if other.kind == "value")
    unmet = {id(item): words_of(item, language) & using for item in own if item.kind == "statement"}
    naming = _by_word((item, words_of(item, language)) for item in own if id(item) in unmet)
    while todo:
        words = words_of(item := todo.pop(), language)
        free = words - _bound(item, language) - of_tests
        more = [other for word in words for other in defining.pop(word, ())]
        more += [other for word in free for other in binding.pop(word, ())]
        new = {name for other in more if other.kind == "value" for name in other.names} - values
        values |= new
        for word in new:
            for other in naming.pop(word, ()):
                unmet[id(other)].discard(word)
                more += [other] * (not unmet[id(other)])
        todo += {id(other): other for other in more if id(other) not in kept}.values()
        kept |= {id(other) for other in more}
    return [item for item in [*others, *own] if id(item) in kept]


def _by_word(items: Iterable[tuple[Item, set[str]]]) -> dict[str, list[Item]]:
    """The items, by each of their words: a search through all of them for each would take the square of an answer's length."""
    found: dict[str, list[Item]] = {}
    for item, words in items:
        for word in words:
            found.setdefault(word, []).append(item)
    return found


def _users(names: set[str], pool: Items, language: str) -> set[str]:
    """`names`, and the names of all items of `pool` that use them, directly or indirectly."""
    naming = _by_word((item, words_of(item, language)) for item in pool)
    names, todo = {*names}, [*names]
    while todo:
        for item in naming.pop(todo.pop(), ()):
            todo += {*item.names} - names
            names |= {*item.names}
    return names


def words_of(item: Item, language: str) -> set[str]:
    """All names that occur in an item's code."""
    return set(re.findall(GRAMMARS[language].word, item.bare))


def going_inside(those: Items, found: Place) -> list[Item]:
    """Those of the items that belong into the class of the prompt's function, not above that class."""
    if not found.holder:
        return [item for item in those if item.kind in ("function", "value", "statement")]
    siblings = {id(item) for item in found.siblings}
    return [item for item in those if id(item) in siblings]


def _bound(item: Item, language: str) -> set[str]:
    """The names that a function binds itself (parameters, variables). They hide values with the same names outside it."""
    if item.kind != "function" or re.search(r"\b(?:global|nonlocal|GLOBALS)\b", item.bare):
        return set()
    names: set[str] = set(re.findall(r"\bfor\s*\(?\s*(?:(?:const|let|var|auto|my)\s+)?[$@]?(\w+)", item.bare))
    if made := function(item, language):
        names |= {name.lstrip("$") for name in made.parameters}
    value, word = re.compile(GRAMMARS[language].value), GRAMMARS[language].word
    for line in item.bare[item.code :].split("\n")[1:]:
        bound = value.match(line.strip())
        if bound and (language != "lua" or line.strip().startswith("local")):
            names.update(*(re.findall(word, text) for text in bound.groups() if text))
    return names


def _is_redefinition(item: Item, found: Place) -> bool:
    """Whether `item` is the function itself, or an earlier version of it."""
    if item.text == found.item.text:
        return True
    same = item.kind == found.item.kind and item.names == found.item.names
    return same and not item.bare.rstrip().endswith(";") and _arity(item) == _arity(found.item)


def _arity(item: Item) -> int:
    opened = item.bare.find("(")
    head = item.bare[opened : item.bare.find(")", opened) + 1]
    return head.count(",") + bool(head.strip("() \n"))


def is_in_prompt(item: Item, asked: Place) -> bool:
    """Whether the prompt already contains `item`."""
    there = [*asked.siblings, *asked.outer_siblings]
    there = [own for own in there if own is not asked.item and own is not asked.holder]
    same = any(item.kind == own.kind and item.names == own.names for own in there if item.names)
    return same or any(_plain(item.text) == _plain(own.text) for own in there)


def _plain(text: str) -> str:
    return "".join(text.split()).rstrip(";")


def imports(asked: Place, found: Place, others: Items, new: Items, tested: Items, language: str) -> list[str]:
    """The imports that have to be added to the prompt: those of the answer that prompt and tests lack.

    Imports of test libraries are left out. In languages whose imports contain the names that they bind, imports of unused names
    are left out too. `new`: the items that are added to the prompt; the other arguments are as in `needed` and
    `sandbox.splice.splice`.
    """
    of_tests = {name for item in tested for name in item.names}
    own, theirs = (
        [item for item in those if item.kind == "import" and not of_tests & {*item.names}]
        for those in ([*found.outer_siblings, *found.siblings], others)
    )
    grammar = GRAMMARS[language]
    added = {id(item) for item in new}
    if own and not grammar.names_imports and not any(id(item) in added for item in others):
        theirs = []
    used = {word for item in [found.item, *new] for word in words_of(item, language)}
    there = _Imports()
    for item in [*asked.outer_siblings, *asked.siblings]:
        for text in _single(item, language) if item.kind == "import" else ():
            there.add(text)
    kept: list[str] = []
    for text in (text for item in [*theirs, *own] for text in _single(item, language)):
        words = set(re.findall(grammar.word, text)) - _IMPORT_WORDS
        if language == "go":
            words = {re.sub(r"/v\d+\"|\"", "", text.split()[-1]).rsplit("/", 1)[-1], text.split()[1]}
        named = grammar.names_imports and not re.search(r"\*|\b_\b", text.split("//")[0])
        tests = language not in ("clj", "rkt") and _TEST_LIBRARIES.search(text)
        if not (there.cover(text) or tests or (named and not words & used)):
            kept.append(text)
            there.add(text)
    return kept


def first_lines(found: Place) -> list[str]:
    """The answer's lines that have to come first in a program: Haskell's LANGUAGE pragmas, Python's `__future__` imports."""
    pattern = re.compile(r"(?ms)^(?:\{-#\s*LANGUAGE.*?#-\}|from __future__ import [^\n]*)")
    return [line for item in [*found.siblings, found.item] for line in pattern.findall(item.text)]


def _single(item: Item, language: str) -> list[str]:
    """The text of each import in an item."""
    text = item.text[item.code :].strip()
    if language == "go":
        specs = re.findall(r"(?:[\w.]+[ \t]+)?\"[^\"\n]+\"", text.removeprefix("import"))
        return [f"import {spec.strip()}" for spec in specs]
    if language in ("js", "ts") and text.startswith("import"):
        return [_required(text)] * bool(_required(text))
    if language == "py" and text.startswith("from __future__"):
        return []
    if language == "clj" and text.startswith("(ns") and "(:" not in text:
        return []
    return [text]


def _required(text: str) -> str:
    """A JavaScript or TypeScript import, rewritten as a call of `require`; empty if it imports only types."""
    found = re.match(
        r"import\s+(?!type\b)(?:\*\s+as\s+(\w+)|(\w+)|(\{[^}]*\}))\s+from\s+([\"'][^\"']+[\"'])", text
    )
    if not found:
        return "" if text.startswith("import type") else text
    name = found[1] or found[2] or re.sub(r"\s+as\s+", ": ", found[3])
    return f"const {name} = require({found[4]});"


class _Imports:
    """Imports that a program has."""

    def __init__(self) -> None:
        self._plain: set[str] = set()
        self._packages: set[str] = set()  # all of whose names are imported
        self._all_headers = False

    def add(self, text: str) -> None:
        package, star, _ = _plain(text).partition(".*")
        self._plain.add(_plain(text))
        self._packages |= {package} if star else set()
        self._all_headers |= "<bits/stdc++.h>" in text

    def cover(self, text: str) -> bool:
        """Whether they make import `text` redundant."""
        if text.startswith("#") and self._all_headers and re.search(r"<[\w/]+(?:\.h|\+\+\.h)?>", text):
            return True
        return _plain(text) in self._plain or _plain(text).rpartition(".")[0] in self._packages
