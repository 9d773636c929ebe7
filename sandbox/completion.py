"""Extracts a program from an answer of a chat model or a person.

The *asked function* is the function that the prompt ends with. One rule serves all languages of the sandbox:

1.  A text without markdown is a completion, not an answer, and stays unchanged, unless it begins with the prompt or with a
    definition of the asked function.
2.  In an answer in markdown, the *last* code block that defines the asked function is used. The function is recognized by its
    name, else by its name in another spelling, else because it is the block's only function and has as many parameters. Text
    between <think> and </think> is ignored, and so are blocks in other languages. A block that defines no function is read as the
    function's body, which continues the prompt.
3.  Everything that the function needs is taken over too, from its own block or from others: imports, constants, types, other
    functions. Imports go below the prompt's imports, the rest above the function. Main programs, tests, examples of use and
    unused items are left out.
4.  The prompt's head of the function stays, followed by the answer's body at the prompt's indentation. If the parameters have
    other names or types, or the definition has several clauses or a decorator, the answer's complete definition replaces the
    prompt's head. A method that needs an object is called on a new object.
5.  Brackets (or `end`s) of the function that the tests close, as in C++, Java, C#, Bash, Rust and Scala, are left out.

If no program can be extracted, `Unreadable` is raised with the reason; the result is never an empty completion.
"""

import itertools
import re
from collections.abc import Callable, Iterator, Sequence

from sandbox.grammars import GRAMMARS
from sandbox.languages import short_name
from sandbox.lexer import masked
from sandbox.markdown import Block, blocks
from sandbox.needs import words_of
from sandbox.outline import Item, Items, Place, function, inside, items
from sandbox.splice import Answer, Unreadable, continued, splice

_MOST_NAMES = 20
"""How many of the names that an answer defines its error message shows."""
_DEEPEST = 30
"""Levels of classes in classes that are looked into; a text that a model wrote could have thousands."""


def is_answer(prompt: str, text: str, language: str) -> bool:
    """Whether `text` is an answer, not a completion of `prompt`: it is in markdown, begins with the prompt, or is code that
    defines the asked function again."""
    language = short_name(language)
    return blocks(prompt, text, language) is not None or _is_program(prompt, text, language)


def extract_program(
    prompt: str, answer: str, language: str, tests: str = "", loosely: bool = False
) -> Answer:
    """Extract the program from `answer`. Of a plain completion, only the part that belongs to the asked function is kept.

    `tests`: the text that will follow the program. `loosely`: keep the prompt's head of the function even if the answer's head
    has other types (the body may depend on them). In a language that the sandbox does not know, the last code block is used
    unchanged. Raises `Unreadable`.
    """
    language = short_name(language)
    asked, found = _asked(prompt, language), blocks(prompt, answer, language)
    if found is None:
        text = answer.replace("\r\n", "\n")
        if asked and not _is_program(prompt, text, language):
            return _body(prompt, text, language, asked, tests)
        found = (Block(text),)
    filled = [block for block in found if block.text.strip() and block.language != "text"]
    own = [block for block in filled if block.language in ("", language)] or filled
    if not own:
        raise Unreadable("it holds no code" if found else "it ends inside of its thoughts")
    if asked is None:
        text = own[-1].text.lstrip("\n")
        return Answer(prompt, continued(prompt, text.removeprefix(prompt.lstrip("\n").rstrip()).rstrip()))
    name = asked.item.names[0]
    rest = [block for block in filled if block.language not in ("", language)] if own is not filled else []
    for group in (own, rest):  # labels may be wrong
        for spelled, block in itertools.product((str, _folded, None), reversed(group)):
            if block.continues or (spelled and spelled(name) not in spelled(block.text)):
                continue
            if place := _find(block.text, language, asked, name, spelled):
                lists = (items(other.text, language) for other in group if other is not block)
                others = list(itertools.chain.from_iterable(lists))
                return splice(prompt, asked, place, others, language, tests, loosely)
    for block in own:
        if block.continues:
            return Answer(prompt, block.text.rstrip())
    bodies = [block for block in own if _is_body(block.text, language)]
    if not bodies:
        names = (n for block in own for item in items(block.text, language) for n in item.names)
        defined = list(itertools.islice(names, _MOST_NAMES + 1))
        defined[_MOST_NAMES:] = ["..."] * (len(defined) > _MOST_NAMES)
        raise Unreadable(f"no block of it defines {name}; defined: {', '.join(defined) or 'nothing'}")
    calls = re.compile(rf"(?<![\w.]){re.escape(name)}\b")
    without = [block for block in bodies if not calls.search(masked(block.text, language).text)]
    return _body(prompt, (without or bodies[:1])[-1].text, language, asked, tests)


def extract_completion(
    prompt: str, response: str, language: str, stop_tokens: Sequence[str] = (), tests: str = ""
) -> str:
    """The completion of `prompt` in `response` (an answer or a completion), cut at the first stop token.

    Raises `Unreadable`, also if the answer works only with changes to the prompt: imports, further definitions, or another head
    of the function.
    """
    answer = extract_program(prompt, response, language, tests, loosely=True)
    if answer.added:
        raise Unreadable(f"it needs {', '.join(answer.added)}")
    text = answer.completion
    return text[: min((at for at in map(text.find, stop_tokens) if at >= 0), default=len(text))].rstrip()


def whole_program(prompt: str, completion: str, language: str) -> str:
    """`prompt` and `completion` as an answer shows them: with the closing braces that MultiPL-E's tests bring otherwise.

    `extract_program` finds `completion` in it again. In languages without braces the text is prompt + completion.
    """
    language = short_name(language)
    text = (prompt + completion).rstrip()
    if language not in GRAMMARS or GRAMMARS[language].shape != "braces":
        return text
    opened: list[int] = []
    for place, sign in enumerate(masked(text, language).text):
        if sign == "{":
            opened.append(place)
        elif sign == "}" and opened:
            opened.pop()
    lines = [text[text.rfind("\n", 0, place) + 1 : place] for place in reversed(opened)]
    return text + "".join(f"\n{line[: len(line) - len(line.lstrip())]}}}" for line in lines)


def _body(prompt: str, text: str, language: str, asked: Place, tests: str) -> Answer:
    """The program in which `text` is the body of the asked function, possibly with more code after it. A Python body without
    indentation is indented."""
    text = text.strip("\n")
    if GRAMMARS[language].shape == "colon" and not text.startswith((" ", "\t")):
        text = re.sub(r"^(?=.)", "    ", text, flags=re.MULTILINE)
    place = _find(prompt + continued(prompt, text), language, asked, asked.item.names[0], str)
    if place is None or not place.function:
        return Answer(prompt, continued(prompt, text.rstrip()))
    own = len(prompt) - place.start
    if place.start == asked.start and 0 < own <= len(place.item.text):
        place = place._replace(function=place.function._replace(body=own))
    return splice(prompt, asked, place, [], language, tests, loosely=True)


def _is_program(prompt: str, text: str, language: str) -> bool:
    """Whether a text without markdown begins with the prompt, or is a program that defines the asked function."""
    if text.strip().startswith(prompt.strip()):
        return True
    if re.match(r"\s*^[ \t]|\s*\Z", text, re.MULTILINE):
        return False
    asked = _asked(prompt, language)
    first = next(iter(items(text, language)), None) if asked else None
    begins = first and not first.indent and first.kind not in ("statement", "value")
    return bool(begins and asked and _find(text, language, asked, asked.item.names[0], _folded))


def asked_function(prompt: str, language: str) -> str | None:
    """The name of the asked function, with which `prompt` ends; None if the prompt does not end with a function."""
    asked = _asked(prompt, short_name(language))
    return asked.item.names[0] if asked else None


def _asked(prompt: str, language: str) -> Place | None:
    if language not in GRAMMARS:
        return None
    outer = items(prompt, language)
    if outer and outer[-1].kind == "function":
        return Place(outer[-1], function(outer[-1], language), outer)
    if outer and outer[-1].kind == "type" and (members := inside(outer[-1], language)):
        inner = items(outer[-1].text, language, *members)
        if inner and inner[-1].kind == "function":
            return Place(inner[-1], function(inner[-1], language), inner, outer[-1], outer)
    return None


def _folded(name: str) -> str:
    return re.sub(r"[\W_]", "", name).casefold()


def _is_body(text: str, language: str) -> bool:
    """Whether `text` may be the body of a function: its first line is indented, or it consists of values and statements."""
    found = items(text, language)
    plain = all(item.kind in ("value", "statement") for item in found)
    return bool(found) and (bool(found[0].indent) or plain)


def _find(
    text: str, language: str, asked: Place, name: str, spelled: Callable[[str], str] | None
) -> Place | None:
    """The last definition in `text` of a function `name`, preferably with the parameters of the asked function. Names are compared
    as `spelled` writes them.

    If `spelled` is None: the only function in `text`, if it has as many parameters as the asked function and no other item names
    the asked function. None if nothing is found.
    """
    outer = items(text, language)
    places = [Place(item, function(item, language), outer) for item in outer]
    members = [place for holder in outer for place in _inside(holder, outer, language)]
    wanted = asked.function.parameters if asked.function else ()
    for group in (members, places) if GRAMMARS[language].wrapped else (places, members):
        if spelled is None:
            group = [place for place in group if place.item.kind == "function"]
            if len(group) == 1 and group[0].function and len(group[0].function.parameters) == len(wanted):
                others = [item for item in outer if item not in (group[0].item, group[0].holder)]
                spoken_of = any(asked.item.names[0] in words_of(item, language) for item in others)
                return None if spoken_of else group[0]
            continue
        named = [place for place in group if spelled(name) in map(spelled, place.item.names)]
        kinds = [(place, place.item.kind) for place in named]
        named = [p for p, kind in kinds if kind == "function" or (kind == "value" and not p.item.indent)]
        whole = [p for p in named if not p.item.bare.rstrip().endswith(";") or p.function] or named
        same = [place for place in whole if place.function and place.function.parameters == wanted]
        if whole:
            return (same or whole)[-1]
    return None


def _inside(holder: Item, outer_siblings: Items, language: str, deeper: int = _DEEPEST) -> Iterator[Place]:
    """The items in a class, object or module, and in classes, objects and modules nested in it, `deeper` levels of them."""
    if deeper and holder.kind == "type" and (members := inside(holder, language)):
        found = items(holder.text, language, *members)
        for item in found:
            yield Place(item, function(item, language), found, holder, outer_siblings)
            yield from _inside(item, [*outer_siblings, *found], language, deeper - 1)
