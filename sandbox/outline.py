"""Divides a program's text into imports, functions, types, values and statements.

An *item* is an outermost piece of the text, together with the comments above it. Brackets show where an item ends and, in
languages without a sign for the end of a piece, indentation does. The patterns of `sandbox.grammars` classify the items, after
`sandbox.lexer` has blanked out strings and comments. Programs are not parsed, so code with an unusual layout may be misread.
"""

import itertools
import re
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

from sandbox.grammars import GOES_ON, GRAMMARS, NEVER, Grammar
from sandbox.lexer import JOINED, STRING, masked


class Item(NamedTuple):
    """An outermost piece of a program.

    `text`: its code, with the comments above it. `bare`: the same, masked. `start`: its position in the program's text.
    `kind`: `function`, `type`, `value`, `import`, `first`, `main` or `statement`. `names`: the names that it defines.
    """

    text: str
    bare: str
    start: int
    kind: str
    names: tuple[str, ...]

    @property
    def code(self) -> int:
        """The position in `text` at which the code begins, after the comments."""
        return len(self.bare) - len(self.bare.lstrip(" \t\r\n" + JOINED))

    @property
    def indent(self) -> str:
        """The indentation of the item's first line of code."""
        return self.text[self.text.rfind("\n", 0, self.code) + 1 : self.code]


Items = Sequence[Item]


class Function(NamedTuple):
    """The function that an item defines.

    `parameters`: the names of the parameters. `body`: the position of the body in the item's text, after the sign that opens it.
    `result`: whether the body is an expression, the function's result.
    `plain`: whether the body still works under another head with the same parameter names.
    """

    name: str
    parameters: tuple[str, ...]
    body: int
    result: bool = False
    plain: bool = True


class Place(NamedTuple):
    """Where a function is in a text.

    `item`: the item that defines it. `function`: its head and body; None if they cannot be told apart.
    `siblings`: the items at the same level, `item` included. `holder`: the class or module around the function, if any.
    `outer_siblings`: the items at the level of `holder`.
    """

    item: Item
    function: Function | None
    siblings: Items
    holder: Item | None = None
    outer_siblings: Items = ()

    @property
    def start(self) -> int:
        """The position of the item in the text."""
        return self.item.start + (self.holder.start if self.holder else 0)


# Heads that no other head can replace: of asynchronous functions, generators and templates; with type parameters.
_OWN_HEAD = re.compile(r"\basync\b|\bfunction\s*\*|\btemplate\b")
_OWN_TYPES = re.compile(r"\b(?:static|public|private|protected|final)\s*<|\w\s*[<\[][^()]*[>\]]\s*$")


def items(code: str, language: str, start: int = 0, end: int | None = None) -> list[Item]:
    """The items of `code`, or of its part from `start` to `end`, in order."""
    grammar = GRAMMARS[language]
    bare = masked(code, language).text
    for tag in re.finditer(r"<\?(?:php\b|=)?|\?>", bare) if language == "php" else ():
        start_of, end_of, blank = tag.start(), tag.end(), " " * len(tag.group())
        code, bare = (text[:start_of] + blank + text[end_of:] for text in (code, bare))
    start, end = max(start, top(code)), len(code) if end is None else end
    bounds: list[int] = []  # positions of items
    open_ones, base, last, at = 0, None, start, start
    for line in bare[start:end].split("\n"):
        stripped = line.strip(" \t\r" + JOINED)
        indent = len(line) - len(line.lstrip())
        if stripped and open_ones <= 0:
            base = indent if base is None else base
            begins = bool(grammar.ends) or indent <= base
            if begins and bounds:
                begins = not re.match(GOES_ON, stripped) and _ended(bare[bounds[-1] : last], grammar)
            if begins:
                bounds.append(last if bounds else start)
        if stripped:
            open_ones += depth(line, language)
            last = min(at + len(line) + 1, end)
        at += len(line) + 1
    cuts = [(a, b) for a, b in itertools.pairwise([*bounds, end]) if bare[a:b].strip()]
    found = [_item(code[a:b], bare[a:b], a, language) for a, b in cuts]
    return _joined(found) if language in ("hs", "ex") else found


def top(code: str) -> int:
    """The first position at which lines may be inserted into `code`: after `<?php`, `#!` and `#lang`."""
    found = re.match(r"(?:\s*(?:(?:<\?php\b|#!/|#lang)[^\n]*)?\n)*", code)
    return found.end() if found else 0


def depth(bare: str, language: str) -> int:
    """The number of opening brackets minus the number of closing brackets. In Bash only braces count, because its `case` patterns
    end with a parenthesis that nothing opened."""
    opening, closing = ("{", "}") if language == "sh" else ("([{", ")]}")
    return sum(bare.count(sign) for sign in opening) - sum(bare.count(sign) for sign in closing)


def _ended(bare: str, grammar: Grammar) -> bool:
    """Whether an item may end where `bare` ends. The patterns tell by the last line, or match from the start, so the lines between
    are not searched: that would take a time that grows with the square of their number."""
    bare = bare.strip(" \t\r\n" + JOINED)
    pattern = grammar.ends or grammar.unfinished
    compiled = re.compile(pattern, re.DOTALL if r"\A" in pattern else 0)
    found = compiled.match(bare) or compiled.search(bare, max(bare.rfind("\n"), 0))
    return bool(found) == bool(grammar.ends)


def _item(text: str, bare: str, start: int, language: str) -> Item:
    grammar = GRAMMARS[language]
    kind, names = _kind(bare.strip(" \t\r\n" + JOINED), grammar)
    if language == "ml" and kind in ("function", "value"):
        names += tuple(re.findall(r"^[ \t]*and\s+([a-z_][\w']*)", bare, re.MULTILINE))
    return Item(text, bare, start, kind, names)


def _kind(code: str, grammar: Grammar) -> tuple[str, tuple[str, ...]]:
    for kind in ("main", "first", "imports", "type", "function", "value"):
        if found := _pattern(getattr(grammar, kind)).match(code):
            if kind == "imports":  # `const fs = require("fs")`
                found = _pattern(grammar.value).match(code) or found
            named = " ".join(text for text in found.groupdict().values() if text)
            names = tuple(re.findall(grammar.word, named))
            if names or kind != "function":  # `int 9(` defines none
                return kind.removesuffix("s"), names
    return "statement", ()


@cache
def _pattern(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.DOTALL)


def _joined(found: list[Item]) -> list[Item]:
    """The items, with the clauses of a function and its type signature joined into one item."""
    done: list[Item] = []
    for item in found:
        before = done[-1] if done else None
        if before and item.kind == before.kind == "function" and item.names == before.names:
            done[-1] = before._replace(text=before.text + item.text, bare=before.bare + item.bare)
        else:
            done.append(item)
    return done


def inside(item: Item, language: str) -> tuple[int, int] | None:
    """Where the contents of a class, object or module start and end in the item's text; None for other items."""
    bare, shape = item.bare.rstrip(), GRAMMARS[language].shape
    if shape == "braces":
        begun = bare.find("{", item.code)
        end = _pairs(bare, language).get(begun)
        return (begun + 1, len(item.text) if end is None else end) if begun >= 0 else None
    opening = {
        "colon": r"class\b[^\n]*:[ \t]*\n",
        "equals": r"module\b[^\n]*\bstruct\b",
        "end": r"(?:class|module)\b[^\n]*\n|defmodule\b[^\n]*\bdo\b",
    }.get(shape, NEVER)
    head = re.compile(opening).match(bare, item.code)
    end_word = re.search(r"\bend\Z", bare) if shape != "colon" else None
    return (head.end(), end_word.start() if end_word else len(item.text)) if head else None


def _pairs(bare: str, language: str) -> dict[int, int | None]:
    """The position of each opening bracket, with the position of its closing bracket, or None if there is none."""
    found: dict[int, int | None] = {}
    opened: list[int] = []
    for bracket in re.finditer(r"[{}]" if language == "sh" else r"[(\[{}\])]", bare):
        if bracket.group() in "([{":
            opened.append(bracket.start())
            found[bracket.start()] = None
        elif opened:
            found[opened.pop()] = bracket.start()
    return found


def function(item: Item, language: str) -> Function | None:
    """The function that `item` defines (the first, if it defines several); None if its head cannot be told from its body."""
    grammar = GRAMMARS[language]
    at = item.code
    found = _pattern(grammar.function).match(item.bare, at)
    if not found or item.kind != "function":
        return None
    name = item.names[0]
    plain = "@" not in item.bare[at : found.end()] or grammar.wrapped
    parameters: tuple[str, ...] = ()
    end = found.end()
    if grammar.shape == "parentheses":
        return _of_parentheses(item, language, name, end)
    if grammar.shape == "equals":
        return _of_equations(item, language, name, end)
    pairs = _pairs(item.bare, "")
    while item.bare[end : end + 1] == "(":
        closing = pairs.get(end)
        if closing is None:
            return None
        plain = plain and not parameters
        parameters = _parameters(item.bare[end + 1 : closing], language)
        end = closing + 1
        if language != "d":  # D has template parameters in parentheses before the others
            break
    if language in ("js", "ts") and (single := re.match(r"\s*([\w$]+)(?=\s*=>)", item.bare[end:])):
        parameters, end = (single.group(1),), end + single.end()
    plain = plain and not _OWN_HEAD.search(item.bare[at:end]) and not _OWN_TYPES.search(found.group())
    made = Function(name, parameters, end, plain=plain)
    if grammar.shape == "colon":
        colon = re.compile(r"[^\n:]*:").match(item.bare, made.body)
        return made._replace(body=colon.end()) if colon else None
    if grammar.shape == "end":
        return _of_end(made, item, language)
    return _of_braces(made, item, language)


def _of_end(made: Function, item: Item, language: str) -> Function | None:
    """The function in rb, lua, ex. Its head ends with the line and its body with `end`, or the body is an expression after `=` or
    `do:`."""
    rest = item.bare[made.body :]
    if language == "rb":
        if single := re.match(r"[ \t]*=(?!=)", rest):
            return made._replace(body=made.body + single.end(), result=True)
        if not made.parameters and (bare := re.match(r"[ \t]+([a-z_*&][^\n;]*)", rest)):
            made = made._replace(parameters=_parameters(bare.group(1), language), body=made.body + bare.end())
        return made
    if language == "ex":
        clauses = len(re.findall(r"^[ \t]*defp?\s", item.bare, re.MULTILINE))
        opening = re.match(r"[^\n]*?(?:\n\s*when[^\n]*)?(?:(,\s*do:)|\bdo\b(?!:))", rest)
        if not opening:
            return None
        plain = clauses == 1 and not re.search(r"\bwhen\b", opening.group())
        return made._replace(body=made.body + opening.end(), result=bool(opening.group(1)), plain=plain)
    return made


def _of_braces(made: Function, item: Item, language: str) -> Function | None:
    """The function in a language with braces. Its body ends with the item's last brace, or is an expression after `=>`, after `=`
    or, in R, after the parameters."""
    bare = item.bare.rstrip(" \t\r\n;" + JOINED)
    pairs = {at: end for at, end in _pairs(bare, language).items() if bare[at] == "{" and at >= made.body}
    wanted = len(bare) - 1 if bare.endswith("}") else None  # None: the body is cut off or continues
    opening = next((at for at, end in pairs.items() if end == wanted), None)
    between = bare[made.body : opening] if opening is not None else bare[made.body :]
    if re.match(r"\s*(?:throws\b|\(\s*\w+\s+[\w\[*])", between):  # Java's exceptions, Go's named results
        made = made._replace(plain=False)
    sign = {"js": "=>", "ts": "=>", "cs": "=>", "d": "=>", "scala": "="}.get(language)
    if re.search(r"\bfunction\b", item.bare[item.code : made.body]):
        sign = None
    flat = re.sub(r"\([^()]*\)", lambda inner: "_" * len(inner.group()), between)
    arrow = re.search(rf"(?<![=<>!]){sign}(?![=>])", flat) if sign else None
    if language == "r":
        arrow = re.match(r"(?=\s*\S)", between)
    if arrow and between[arrow.end() :].strip():
        return made._replace(body=made.body + arrow.end(), result=True)
    if opening is not None:
        return made._replace(body=opening + 1)
    if language == "d":  # D's prompts end before the brace
        return made
    return None


def _of_parentheses(item: Item, language: str, name: str, end: int) -> Function | None:
    rest = item.bare[end:]
    if language == "rkt":
        curried = item.bare[item.code : end].count("((") > 0
        lambda_ = re.search(r"[(\[](?:case-)?(?:lambda|λ)\s*$", item.bare[item.code : end])
        if lambda_:
            return None  # the whole definition is used
        head = re.match(r"([^()\[\]]*(?:\[[^\]]*\][^()\[\]]*)*)\)", rest)
        if not head:
            return None
        return Function(name, _parameters(head.group(1), language), end + head.end(), plain=not curried)
    if item.bare[item.code : end].endswith("(fn"):
        return None  # the whole definition is used
    head = re.match(rf"[\s{STRING}{JOINED}]*(?:\{{[^}}]*\}}\s*)?\[([^\]]*(?:\[[^\]]*\][^\]]*)*)\]", rest)
    if not head:
        return None
    return Function(name, _parameters(head.group(1), language), end + head.end())


def _of_equations(item: Item, language: str, name: str, end: int) -> Function | None:
    """The function in ml, hs. Its body follows the `=`. A function with several clauses or guards is not `plain`."""
    if language == "ml":
        opening = re.match(r"((?:[^=(]|\([^)]*\))*?)=(?!=)", item.bare[end:])
        if not opening:
            return None
        recursive = re.match(r"let\s+rec\b", item.bare[item.code :]) is not None
        text = re.sub(r":[^()]*$", "", opening.group(1))
        parameters = ("rec",) * recursive + _parameters(text, language)
        return Function(name, parameters, end + opening.end(), plain=len(item.names) == 1)
    clauses = list(re.finditer(rf"^{re.escape(name)}(?=[\s(])(?!\s*(?:::|,))", item.bare, re.MULTILINE))
    if not clauses:
        return None
    opening = re.compile(r"([^=|\n]*)(=)(?![=>])").match(item.bare, clauses[0].end())
    if not opening:
        return Function(name, (), clauses[0].end(), plain=False)
    return Function(name, _parameters(opening.group(1), language), opening.end(), plain=len(clauses) == 1)


def _parameters(text: str, language: str) -> tuple[str, ...]:
    """The names of the parameters that `text` declares."""
    if language == "php":
        return tuple(re.findall(r"\$\w+", re.sub(r"=[^,]*", "", text)))
    if language in ("rkt", "clj", "hs"):
        return tuple(re.findall(GRAMMARS[language].word, text))
    if language == "ml":
        while (flat := re.sub(r"\(\s*(~?\w+)\s*:[^()]*\)|:\s*\([^()]*\)", r" \1 ", text)) != text:
            text = flat
        return tuple(re.findall(r"[\w']+", text))
    while (flat := re.sub(r"\[[^][]*\]|<[^<>]*>|\([^()]*\)|\{[^{}]*\}", " ", text)) != text:
        text = flat
    pieces = [re.sub(r"(?s)(?<![=<>!])=(?![=>]).*|\\\\.*", "", piece) for piece in text.split(",")]
    word = r"(?:mut\s+)?[\w$.]+" if language == "rs" else r"[\w$.]+|\*+\w+"
    words = [re.findall(word, piece) for piece in pieces]
    return tuple(found[-1 if GRAMMARS[language].last_word else 0] for found in words if found)
