"""Inserts a function from an answer, with everything that it needs, into the prompt."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from sandbox.grammars import GRAMMARS
from sandbox.lexer import JOINED, masked
from sandbox.needs import first_lines, going_inside, imports, is_in_prompt, needed
from sandbox.outline import Item, Items, Place, depth, inside, items, top

_DOCSTRING = re.compile(r'\s*[rRuU]?("""|\'\'\').*?\1[ \t]*(?=\n|$)', re.DOTALL)
_SIGNS = {"braces": "}", "end": "end", "parentheses": ")"}
"""The sign that closes a function's body, by `Grammar.shape`."""
_RESULTS = {"js": "return {};", "ts": "return {};", "cs": "return {};", "d": "return {};"}
"""How a function's body is made from an expression, by language; in other languages the expression is the body."""
_ON_NEW = {
    "py": "return {type}().{call}",
    "js": "return new {type}().{call};",
    "ts": "return new {type}().{call};",
    "php": "return (new {type}())->{call};",
    "rb": "{type}.new.{call}",
    "java": "return new {type}().{call};",
    "cs": "return new {type}().{call};",
    "scala": "new {type}().{call}",
    "cpp": "return {type}().{call};",
    "d": "return (new {type}()).{call};",
}
"""How a method is called on a new object of its class, by language."""
_ON_TYPE = {
    "js": "return {type}.{call};",
    "ts": "return {type}.{call};",
    "php": "return {type}::{call};",
    "rb": "{type}.{call}",
    "rs": "{type}::{call}",
    "cpp": "return {type}::{call};",
    "d": "return {type}.{call};",
    "ml": "{type}.{call}",
}
"""How a function of a class, a module or a namespace is called without an object, by language."""


_TYPED = ("cpp", "java", "cs", "ts", "go", "rs", "d", "scala")
"""Languages in which a function's body may depend on the types in its head."""
_MODIFIERS = (
    r"\b(?:export|default|function|const|let|var|public|private|protected|internal|static|final|inline|pub|fn|def|func)\b"
    r"|\bstd::|@\w+"
)


class Unreadable(ValueError):
    """No program can be extracted from the answer; the message says why."""


class Answer(NamedTuple):
    """A program without its tests: `prompt`, with the changes that the answer needs, and `completion`, which continues it.

    `added`: the kinds of changes to the prompt: `imports`, `definitions`, `another head` (of the function).
    """

    prompt: str
    completion: str
    added: tuple[str, ...] = ()


def splice(
    prompt: str, asked: Place, found: Place, others: Items, language: str, tests: str, loosely: bool
) -> Answer:
    """The program in which the answer's function `found` implements the prompt's function `asked`.

    `others`: the items of the answer's other code blocks. `tests`: the text that will follow the program. `loosely`: keep the
    prompt's head of the function even if the answer's head has other types. Raises `Unreadable`.
    """
    call, renames = _call(asked, found, language), _renames(asked, found)
    if call and found.holder:
        found = Place(_without_mains(found.holder, language), None, found.outer_siblings)
        there = asked.holder is not None and found.item.names[:1] == asked.holder.names[:1]
        renames = {name: f"{name}_" for name in found.item.names[:1] if there}
    tested = items(tests, language)
    kept = needed(found, others, asked.item.names[0], tested, language)
    new = [item for item in kept if not is_in_prompt(item, asked)]
    siblings = going_inside(new, found) if asked.holder and not call else []
    below = {id(item) for item in siblings}
    above = [item for item in new if id(item) not in below] + [found.item] * bool(call)
    outermost = asked.holder or asked.item
    pieces = [
        ("imports", top(prompt), first_lines(found)),
        ("imports", _below_imports(prompt, asked), imports(asked, found, others, new, tested, language)),
        ("definitions", outermost.start, [_text(item, "", language) for item in above]),
        ("definitions", asked.start, [_text(item, asked.item.indent, language) for item in siblings]),
    ]
    closers = _closers(asked, tests, language)
    if call:
        line = _opener(asked, language) + f"{asked.item.indent}    {call}"
        body, head = _closed(line, closers, language), len(prompt)
    elif _same_head(asked, found, language, loosely):
        body, head = _body(asked, found, closers, language), len(prompt)
    else:
        body, head = _definition(asked, found, closers, language)
    body = _renamed(body, renames, language)
    if head == len(prompt):
        body = continued(prompt, body)
    added = ["another head"] * (head < len(prompt))
    made, at = "", 0
    for what, place, texts in pieces:
        made, at = made + prompt[at:place], place
        if texts:
            added.append(what)
            text = "\n".join(_renamed(text, renames, language) for text in texts)
            made += "\n" * (made[-1:] not in ("", "\n")) + text + "\n"
    added = list(dict.fromkeys(added))
    return Answer(made + prompt[at:head], body, tuple(added))


def continued(prompt: str, text: str) -> str:
    """`text`, changed at its beginning so that it can follow `prompt`, whose last line may be incomplete."""
    last = prompt[prompt.rfind("\n") + 1 :]
    if last.strip():
        return text if text.startswith((" ", "\n")) and not text.startswith("  ") else f"\n{text}"
    return text.removeprefix(last)


def _below_imports(prompt: str, asked: Place) -> int:
    """The position in the prompt at which imports are inserted."""
    outermost = asked.holder or asked.item
    siblings = asked.outer_siblings if asked.holder else asked.siblings
    above = [item for item in siblings if item.kind in ("import", "first") and item.start < outermost.start]
    return above[-1].start + len(above[-1].text) if above else min(top(prompt), outermost.start)


def _renames(asked: Place, found: Place) -> dict[str, str]:
    """New names, by old name, for the function and its class, where the answer's names differ from the prompt's."""
    name, names = asked.item.names[0], found.item.names
    renames = {} if name in names else {names[0]: name}
    if asked.holder and found.holder:
        renames |= dict(zip(found.holder.names[:1], asked.holder.names[:1], strict=False))
    return {old: new for old, new in renames.items() if old != new}


def _call(asked: Place, found: Place, language: str) -> str | None:
    """Code that calls the answer's function; None if its body can be used instead.

    A call is needed if the answer's function is in a class or module and the prompt's is not, or if it needs an object. Raises
    `Unreadable` if the function cannot be called.
    """
    if not found.holder or language == "ex":
        return None
    head = found.item.bare[: found.function.body if found.function else None]
    around = found.holder.bare[found.holder.code :]
    of_type = bool(re.search(r"\bstatic\b|\bself\.", head)) or language in ("rs", "ml")
    of_type = of_type or bool(re.match(r"(?:namespace|module|object|case\s+object)\b", around))
    if asked.holder:
        others = (item for item in found.siblings if item is not found.item)
        siblings = [item for item in others if item.kind in ("function", "value")]
        inherits = re.search(r"\b(?:extends|implements|with)\b", found.holder.bare.partition("{")[0])
        if of_type or not (siblings or inherits):
            return None
    template = (_ON_TYPE if of_type else _ON_NEW).get(language)
    named = re.search(r"\bimpl\b(?:<[^>]*>)?\s+(?:[\w:<>]+\s+for\s+)?(\w+)", found.holder.bare)
    holder = named.group(1) if named and language == "rs" else "".join(found.holder.names[:1])
    if not template or not holder or not asked.function:
        where = holder or "something"
        raise Unreadable(f"{found.item.names[0]} is in {where}, from where it cannot be called")
    names = [name for name in asked.function.parameters if name != "rec"]
    arguments = " " + " ".join(names or ["()"]) if language == "ml" else f"({', '.join(names)})"
    return template.format(type=holder, call=found.item.names[0] + arguments)


def _same_head(asked: Place, found: Place, language: str, loosely: bool) -> bool:
    """Whether the body of the answer's function can follow the prompt's head. `loosely`: even if their types differ."""
    if not asked.function or not found.function or not found.function.plain:
        return False
    if language == "hs":  # the layout of the body depends on the width of its head
        return _clause(asked) == _clause(found)
    if asked.function.parameters != found.function.parameters:
        return False
    return loosely or language not in _TYPED or _types(asked) == _types(found)


def _types(place: Place) -> str:
    """The types in the head of a function: the head without the function's name, modifiers and the sign that opens the body."""
    assert place.function
    head, name = place.item.bare[place.item.code : place.function.body], re.escape(place.item.names[0])
    head = re.sub(rf"{_MODIFIERS}|\b{name}\b(?=\s*[=(])|(?:=>|[={{])\s*\Z", "", head)
    return "".join(head.split()).removeprefix("=")


def _clause(place: Place) -> str:
    assert place.function
    return place.item.text[: place.function.body].rpartition("\n")[2].strip()


def _inner(found: Place, language: str) -> tuple[str, bool]:
    """The text of the body of the answer's function, and whether the body is complete."""
    assert found.function
    item, body, shape = found.item, found.function.body, GRAMMARS[language].shape
    bare = item.bare.rstrip(" \t\r\n" + JOINED + ";" * (shape != "colon"))
    if found.function.result:
        return item.text[body : len(bare)], True
    sign = _SIGNS.get(shape, "")
    whole = bare.endswith(sign) and (shape == "end" or not depth(bare, language))
    if not whole:  # the body is cut off, or the tests close it
        return item.text[body:].rstrip(), False
    return item.text[body : max(len(bare) - len(sign), body)], True


def _body(asked: Place, found: Place, closers: list[str], language: str) -> str:
    """The body of the answer's function, formatted so that it can follow the prompt's head."""
    assert asked.function
    assert found.function
    shape, indent = GRAMMARS[language].shape, asked.item.indent
    text, whole = _inner(found, language)
    rest = asked.item.text[asked.function.body :]
    if shape == "equals":
        return text.rstrip()
    if found.function.result:
        result = _moved(text.strip(), found.item.indent, indent, language)
        return _closed(f"{indent}    {_RESULTS.get(language, '{}').format(result)}", closers, language)
    if found.item.text[found.function.body - 1] == "\n":  # written below the prompt's head
        made = text.strip("\n").rstrip()
        return _closed(made, closers, language) if whole and closers else made
    if shape == "colon":
        text = _unsaid(text, rest)
        doc = _DOCSTRING.match(text)
        text = text[doc.end() :] if doc and text[doc.end() :].strip() else text
        text = _unsaid(text, rest)
        first = text.split("\n")[0].strip()
        wanted = re.match(r"(?:\s*#[^\n]*\n)*\s*?([ \t]*)\S", rest)  # a comment may stand at any indentation
        indent = wanted.group(1) if wanted and "\n" in rest[: wanted.end()] else f"{indent}    "
        lines = text.split("\n", 1)[1] if "\n" in text else ""
        own = re.match(r"(?:[ \t]*(?:#[^\n]*)?\n)*([ \t]*)", lines)
        moved = _moved(lines, own.group(1) if own else "", indent, language)
        return (f"{indent}{first}\n" * bool(first) + moved).strip("\n").rstrip()
    first, _, lines = text.partition("\n")
    lines = _moved(lines, found.item.indent, indent, language)
    said = "".join(rest.split()).lstrip("{")
    if said and "".join(lines.split()).startswith(said):  # leave out lines that the prompt has already
        while said and lines:
            line, _, lines = lines.partition("\n")
            said = said.removeprefix("".join(line.split()))
    made = (f"{indent}    {first.strip()}\n" * bool(first.strip()) + lines).strip("\n").rstrip()
    return _opener(asked, language) + (_closed(made, closers, language) if whole else made)


def _unsaid(text: str, said: str) -> str:
    """`text` without the comments at its beginning that are also in `said`, the prompt behind the function's head."""
    there = {_comment(line) for line in re.findall(r"#[^\n]*", said)}
    while (found := re.match(r"\s*(#[^\n]*)\n", text)) and _comment(found.group(1)) in there:
        if not text[found.end() :].strip():
            break
        text = f"\n{text[found.end() :]}"
    return text


def _comment(line: str) -> str:
    return " ".join(line.lstrip("#").split())


def _opener(asked: Place, language: str) -> str:
    """The opening brace with which the completion has to begin; empty if the prompt has it already."""
    there = GRAMMARS[language].shape != "braces" or "{" in asked.item.bare[asked.item.code :]
    return "" if there else "{\n"


def _definition(asked: Place, found: Place, closers: list[str], language: str) -> tuple[str, int]:
    """The complete definition of the answer's function, and the position in the prompt after which it replaces the text."""
    item, place = found.item, asked.start + asked.item.code
    bare = item.bare.rstrip(" \t\r\n" + JOINED).removesuffix(";;")
    text, shape = item.text[item.code : len(bare)], GRAMMARS[language].shape
    name = asked.item.names[0]
    if language == "hs" and (typed := re.search(rf"(?m)^{name}\s*::", asked.item.bare)):
        text = re.sub(rf"(?m)^{re.escape(item.names[0])}\s*::[^\n]*(?:\n[ \t]+[^\n]*)*\n", "", text)
        clause = re.compile(rf"(?m)^{name}(?=[\s(])(?!\s*::)").search(asked.item.bare, typed.end())
        place = asked.start + (clause.start() if clause else asked.item.code)
    static = not found.function or re.search(r"\bstatic\b", text[: found.function.body - item.code])
    if language in ("java", "cs") and not static:
        text = re.sub(r"^((?:(?:public|private|protected|internal)\s+)?)", r"\1static ", text)
    text = item.indent + _exported(text, language)
    sign = _SIGNS.get(shape, "")
    indents = 1 + bool(asked.holder)
    if not sign or len(closers) == indents:  # the tests close nothing
        moved = _moved(text, item.indent, asked.item.indent, language).lstrip()
        return (_closed(moved, closers[1:], language) if sign else moved), place
    if not found.function:
        raise Unreadable(f"{item.names[0]} is defined in a way that the tests cannot close")
    if found.function.result:
        head = text[: len(item.indent) + found.function.body - item.code].rstrip()
        result = _RESULTS.get(language, "{}").format(_inner(found, language)[0].strip())
        text = f"{head.removesuffix('=>')} {{\n{item.indent}    {result}"
    elif bare.endswith(sign):
        text = text.rstrip(" ;\n").removesuffix(sign).rstrip()
    else:
        closers = []
    moved = _moved(text, item.indent, asked.item.indent, language).lstrip()
    return _closed(moved, closers, language), place


def _closers(asked: Place, tests: str, language: str) -> list[str]:
    """The closing signs of the function and of its class, except the signs that the tests contain."""
    shape = GRAMMARS[language].shape
    indents = [item.indent for item in (asked.item, asked.holder) if item]
    sign = _SIGNS.get(shape)
    if not sign:
        return []
    brought = len(re.findall(r"\bend\b", re.match(r"(?:\s*\bend\b)*", tests).group()))  # type: ignore[union-attr]
    if shape != "end":
        open_ones, bare = 0, masked(tests, language).text
        signs = "{}" if language == "sh" else "(){}[]"
        for found in bare:
            if found in signs:
                open_ones += 1 if found in "([{" else -1
                brought = max(brought, -open_ones)
    return [indent * (shape != "parentheses") + sign for indent in indents][: max(len(indents) - brought, 0)]


def _closed(text: str, closers: Sequence[str], language: str) -> str:
    text = text.rstrip()
    last = text[text.rfind("\n") + 1 :]
    inline = GRAMMARS[language].shape == "parentheses" and ";" not in last
    return text + "".join(closer if inline else f"\n{closer}" for closer in closers)


def _text(item: Item, indent: str, language: str) -> str:
    """The text of an item of the answer, indented by `indent`. A Java class loses `public`, which requires a file of its name."""
    text = item.text
    if language == "java" and item.kind == "type" and not indent:
        text = text[: item.code] + re.sub(r"^((?:@\w+\s+)*)public\s+", r"\1", text[item.code :])
    moved = _moved(text, item.indent, indent, language).strip("\n").rstrip()
    return _exported(re.sub(r"\A[ \t]*(?:<\?php|#!)[^\n]*\n", "", moved), language)


def _moved(text: str, indent: str, wanted: str, language: str) -> str:
    """`text` with indentation `wanted` in place of `indent`. Lines that begin inside a string stay unchanged."""
    if indent == wanted:
        return text
    bare, lines, at = masked(text, language).text, [], 0
    for line in text.split("\n"):
        inside_string = at > 0 and bare[at - 1] == JOINED and bare[at : at + 1] != " "
        lines.append(line if inside_string or not line.strip() else wanted + line.removeprefix(indent))
        at += len(line) + 1
    return "\n".join(lines)


def _renamed(text: str, renames: dict[str, str], language: str) -> str:
    """`text` with names replaced by `renames` (new name by old name). Members of other objects keep their names."""
    for old, new in renames.items():
        bare = masked(text, language).text
        before = r"(?<![\w$])(?:(?<![.>:])|(?<=\bthis\.)|(?<=\bself\.)|(?<=\bSelf::))"
        pattern = rf"{before}{re.escape(old)}(?![\w$])"
        for found in reversed(list(re.finditer(pattern, bare))):
            text = text[: found.start()] + new + text[found.end() :]
    return text


def _exported(text: str, language: str) -> str:
    """`text` without JavaScript's and TypeScript's `export`, which is allowed only in modules."""
    pattern = r"(?m)^([ \t]*)export\s+(?:default\s+)?"
    return re.sub(pattern, r"\1", text) if language in ("js", "ts") else text


def _without_mains(holder: Item, language: str) -> Item:
    """A class without its entry point and its tests."""
    contents = inside(holder, language)
    for item in reversed(items(holder.text, language, *contents) if contents else []):
        if item.kind == "main":
            end = item.start + len(item.text)
            text, bare = (part[: item.start] + part[end:] for part in (holder.text, holder.bare))
            holder = holder._replace(text=text, bare=bare)
    return holder
