"""From an answer as a model or a person wrote it to the text that belongs after a problem's prompt.

The rule, in order:

1. A markdown answer is its first fenced block that defines the prompt's function, else its first fenced block.
2. Where the code defines the prompt's function again (with the prompt before it or not; under the prompt's name, the
   same name spelled another way, or any name if it is the only function), the body of that definition is taken and moved
   to the indentation of the prompt's signature. Code that defines no function is taken for the body itself.
3. The body ends with its function: what follows, like example calls, is left out. The closing brace stays in languages
   whose tests do not bring it (js, ts, php) and is left out where they begin with it (cpp, java, cs, sh).
4. It is cut at the first stop token, as a sampled completion is, and has no white space at its end.

5. An answer that cannot work there holds no completion: one that gives the function other parameters than the prompt
   does, or that calls a helper function defined outside of it (a completion cut at the stop tokens cannot hold it).

In other languages than py, js, ts, php, sh, cpp, java and cs, the first block, or the bare answer, is the completion, without
the prompt where it begins with it, and cut at the first stop token.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

_FENCE = re.compile(r"^[ \t]*```[^\n`]*\n(.*?)(?:^[ \t]*```|\Z)", re.MULTILINE | re.DOTALL)
_DOCSTRING = re.compile(r'\s*[rRuU]?("""|\'\'\').*?\1[ \t]*', re.DOTALL)

_SCRIPT = (
    r"^[ \t]*(?:export\s+)?(?:(?:async\s+)?function\s*\*?\s*(\w+)\s*(?:<[^<>()]*>)?\s*\("
    r"|(?:const|let|var)\s+(\w+)\b[^=\n]*=\s*(?:async\s*)?(?:function\b\s*\w*\s*)?\()"
)
_TYPED = r"^[ \t]*(?!(?:return|else|throw|new|case)\b)[A-Za-z_][\w:<>,\[\]&*?. \t]*[\s&*>\]](\w+)\s*\("
_DEFINITIONS = {
    "py": r"^[ \t]*(?:async\s+)?def\s+(\w+)\s*\(",
    "js": _SCRIPT,
    "ts": _SCRIPT,
    "php": r"^[ \t]*(?:(?:public|private|protected|static)\s+)*function\s+&?(\w+)\s*\(",
    "sh": r"^[ \t]*(?:function\s+([\w-]+)(?:\s*\(\s*\))?|([\w-]+)\s*\(\s*\))(?=\s*\{)",
    "cpp": _TYPED,
    "java": _TYPED,
    "cs": _TYPED,
}
"""How a definition begins: up to the parenthesis that opens its parameters (sh: up to its brace)."""

_COLON = re.compile(r"[^\n]*?:[ \t]*(?:#.*)?$|[^:\n]*:", re.MULTILINE)
_BRACE = re.compile(
    r"[^;\n]*\{[ \t]*(?:(?://|#).*|/\*.*\*/[ \t]*)?$|[^;\n{]*\{|[^;\n{]*\n\s*\{", re.MULTILINE
)

_TESTS_CLOSE = ("cpp", "java", "cs", "sh")
"""Languages whose MultiPL-E tests begin with the brace that closes the prompt's function."""


@dataclass(frozen=True)
class Definition:
    """A function's definition: name, indentation, names of parameters, and the text from its body to the code's end."""

    name: str
    indent: str
    parameters: tuple[str, ...]
    rest: str


def extract_completion(prompt: str, response: str, language: str, stop_tokens: Sequence[str] = ()) -> str:
    """The text of `response` that belongs after `prompt`; empty where it holds none. The module's docstring has the rule."""
    response = response.replace("\r\n", "\n")
    blocks = [match.group(1) for match in _FENCE.finditer(response)] or [response]
    asked = defined_functions(prompt, language)
    if not asked:
        text = blocks[0].lstrip("\n").removeprefix(prompt.lstrip("\n").rstrip())
        return _finish(prompt, text.split("\n"), stop_tokens)
    target = asked[-1]
    defined = [
        [d for d in defined_functions(block, language) if len(d.indent) <= len(target.indent)]
        for block in blocks
    ]
    chosen = ((_choose(target.name, outer), outer) for outer in defined)
    found, outer = next((pair for pair in chosen if pair[0]), (None, ()))
    if found is None and any(defined):
        return ""
    found = found or Definition(target.name, target.indent, target.parameters, "\n" + blocks[0])
    lines = _python_body(found) if language == "py" else _braced_body(found, language not in _TESTS_CLOSE)
    text = _finish(prompt, [_moved(line, found.indent, target.indent) for line in lines], stop_tokens)
    helpers = {d.name for d in outer} - {found.name}
    alone = found.parameters == target.parameters and not helpers & set(re.findall(r"\w+", text))
    return text if alone else ""


def is_answer(prompt: str, text: str) -> bool:
    """Whether `text` cannot be a completion of `prompt` as it stands: it has a markdown block, or begins with the prompt."""
    return bool(_FENCE.search(text)) or text.strip().startswith(prompt.strip())


def defined_functions(code: str, language: str) -> list[Definition]:
    """The functions that `code` defines, in their order."""
    found = []
    for match in re.finditer(_DEFINITIONS.get(language, r"(?!)"), code, re.MULTILINE):
        start = match.end() if language == "sh" else _after_parameters(code, match.end())
        opening = (_COLON if language == "py" else _BRACE).match(code, start)
        if opening:
            text = match.group()
            name = next(group for group in match.groups() if group)
            indent = text[: _depth(text)]
            parameters = _parameters(code[match.end() : start - 1], language)
            found.append(Definition(name, indent, parameters, code[opening.end() :]))
    return found


def _choose(name: str, definitions: Sequence[Definition]) -> Definition | None:
    """The definition of `name`, else of `name` in another spelling, else the only outermost function besides `main`."""
    for spelled in (str, _folded):
        for definition in definitions:
            if spelled(definition.name) == spelled(name):
                return definition
    others = [definition for definition in definitions if definition.name.lower() != "main"]
    return others[0] if len(others) == 1 else None


def _folded(name: str) -> str:
    return name.replace("_", "").lower()


def _after_parameters(code: str, start: int) -> int:
    """The position after the parenthesis that closes the parameters beginning at `start`."""
    depth = 1
    for at in range(start, len(code)):
        depth += {"(": 1, ")": -1}.get(code[at], 0)
        if depth == 0:
            return at + 1
    return len(code)


def _parameters(text: str, language: str) -> tuple[str, ...]:
    """The names of the parameters that `text` declares."""
    if language == "php":
        return tuple(re.findall(r"\$\w+", text))
    while (flat := re.sub(r"\[[^][]*\]|<[^<>]*>|\([^()]*\)|\{[^{}]*\}", " ", text)) != text:
        text = flat
    pieces = [re.sub(r"=.*", "", piece, flags=re.DOTALL) for piece in text.split(",")]
    words = [re.findall(r"\w+", piece) for piece in pieces]
    return tuple(found[-1 if language in ("cpp", "java", "cs") else 0] for found in words if found)


def _python_body(found: Definition) -> list[str]:
    """The lines of the body, without its docstring, up to the first that is no deeper than the definition."""
    text = _DOCSTRING.sub("", found.rest, count=1) if _DOCSTRING.match(found.rest) else found.rest
    if first := text.split("\n")[0].strip():
        return [f"{found.indent}    {first}"]
    lines = text.strip("\n").split("\n")
    ends = (at for at, line in enumerate(lines) if line.strip() and _depth(line) <= len(found.indent))
    return lines[: next(ends, len(lines))]


def _braced_body(found: Definition, keep_brace: bool) -> list[str]:
    """The lines of the body up to the brace that closes it, which is no deeper than the definition."""
    lines = found.rest.split("\n")
    closing = [found.indent + "}"] if keep_brace else []
    if "}" in lines[0]:
        return [f"{found.indent}    {lines[0][: lines[0].rindex('}')].strip()}", *closing]
    for at, line in enumerate(lines):
        if line.strip().startswith("}") and _depth(line) <= len(found.indent):
            return lines[:at] + closing
    return lines


def _depth(line: str) -> int:
    return len(line) - len(line.lstrip())


def _moved(line: str, indent: str, wanted: str) -> str:
    """`line` with the indentation `wanted` in place of `indent`."""
    return wanted + line.removeprefix(indent) if line.strip() and indent != wanted else line


def _finish(prompt: str, lines: Sequence[str], stop_tokens: Sequence[str]) -> str:
    """The lines as text that continues `prompt`, cut at the first stop token."""
    text = "\n".join(lines).strip("\n") + "\n"
    ends = [text.find(token) for token in stop_tokens if token in text]
    text = text[: min(ends, default=len(text))].rstrip()
    last = prompt[prompt.rfind("\n") + 1 :]
    if last.strip() and text:
        return "\n" + text
    return text.removeprefix(last)
