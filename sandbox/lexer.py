"""Locates strings, comments and brackets in a program's text, in every language of the sandbox.

This is not a parser: the module knows just enough of each language's lexical rules to tell code from strings and comments.
`masked` blanks out strings and comments, so that patterns can be applied to the code alone.
"""

import re
from functools import cache, lru_cache
from typing import NamedTuple

STRING, JOINED = "\0", "\1"
"""In masked text, `STRING` replaces a character of a string, and `JOINED` a line end inside a string or comment."""


class Masked(NamedTuple):
    """Masked code. `text` has the same length as the code: comments are blanks, characters of strings are `STRING`, line ends in
    both are `JOINED`. Code is unchanged, also code inside a string (`${...}`). `closed`: no string or block comment is open at
    the end."""

    text: str
    closed: bool


class _Token(NamedTuple):
    """Patterns for one kind of string or comment. In all of them, parentheses inside sets are escaped: groups are counted.

    `open`: the beginning, or all of the token if `close` is empty.
    `close`: the end. In it, `{0}`, `{1}`, ... stand for the groups of `open`, and `{mirror}` for the bracket that closes the
    first group.
    `code`: the beginning of code inside the string (empty: the string contains none).
    `comment`: whether it is a comment. `nested`: whether it can contain itself.
    `escape`: text inside the string that does not end it.
    `after_line`: whether the string begins on the next line (a here-document).
    """

    open: str
    close: str = ""
    code: str = ""
    comment: bool = False
    nested: bool = False
    escape: str = r"\\."
    after_line: bool = False


_DEEPEST = 20  # how deep code in strings in code in strings ... is followed
_NONE = r"(?!)"
_MIRROR = {"(": ")", "[": "]", "{": "}", "<": ">"}

_LINE = _Token(r"//[^\n]*", comment=True)
_HASH = _Token(r"#[^\n]*", comment=True)
_BLOCK = _Token(r"/\*", r"\*/", comment=True, escape=_NONE)
_NESTED = _Token(r"/\*", r"\*/", comment=True, escape=_NONE, nested=True)
_DOUBLE = _Token(r'"(?:\\.|[^"\\\n])*+"?')
_SINGLE = _Token(r"'(?:\\.|[^'\\\n])*+'?")
_DOUBLE_LINES = _Token('"', '"')
_SINGLE_LINES = _Token("'", "'")
_TRIPLE = _Token('"""', '"""')
_CHARACTER = _Token(r"(?<![\w'])'(?:\\[^'\n]+|\\'|[^\\'\n])'")
_BRACES = r"\\.|\{\{"
_RUBY = r"#\{"
_REGEX = _Token(
    r"(?:(?<=[\(,=:\[!&|?{};~+])|(?<=\breturn)|(?<=\bcase)|(?<=\bif)|(?<=\bsplit)|(?<=\bunless)|(?<=\bwhen)|(?<=^))"
    r"[ \t]*/(?![/*=\s])(?:\\.|\[(?:\\.|[^\]\\\n])*\]|[^/\\\n\[])+/[a-z]*"
)
_SCRIPT = (_LINE, _BLOCK, _REGEX, _DOUBLE, _SINGLE, _Token("`", "`", r"\$\{"))
_C = (_LINE, _BLOCK)

_TOKENS: dict[str, tuple[_Token, ...]] = {
    "py": (
        _HASH,
        _Token(r"\b(?:[fF][rR]?|[rR][fF])(\"\"\"|''')", "{0}", r"\{", escape=_BRACES),
        _Token(r"(\"\"\"|''')", "{0}"),
        _Token(r"\b(?:[fF][rR]?|[rR][fF])([\"'])", r"{0}|(?=\n)", r"\{", escape=_BRACES),
        _DOUBLE,
        _SINGLE,
    ),
    "cpp": (
        *_C,
        _Token(r'\bR"([^\(\)\s\\"]{0,16})\(', r'\){0}"', escape=_NONE),
        _DOUBLE,
        _Token(r"(?<![0-9a-fA-F])'(?:\\.|[^'\\\n])*'?"),
    ),
    "java": (*_C, _TRIPLE, _DOUBLE, _SINGLE),
    "cs": (
        *_C,
        _Token('"""', '"""', escape=_NONE),
        _Token(r'(?:\$@|@\$)"', '"', r"\{", escape=r'""|\{\{'),
        _Token(r'@"(?:""|[^"])*+"?'),
        _Token(r'\$"', r'"|(?=\n)', r"\{", escape=_BRACES),
        _DOUBLE,
        _SINGLE,
    ),
    "php": (
        *_C,
        _Token(r"#(?!\[)[^\n]*", comment=True),
        _Token(r"<<<[ \t]*([\"']?)(\w+)\1", r"^[ \t]*{1}\b", escape=_NONE, after_line=True),
        _Token('"', '"', r"\{(?=\$)"),
        _SINGLE_LINES,
    ),
    "js": _SCRIPT,
    "ts": _SCRIPT,
    "sh": (
        _Token(r"(?:(?<=[\s;&|\(\)])|(?<=^))#[^\n]*", comment=True),
        _Token(r"\\."),
        _Token(
            r"(?<!<)<<-[ \t]*([\"']?)([A-Za-z_]\w*)\1(?=[\s\S]*^\t*\2$)",
            r"^\t*{1}$",
            escape=_NONE,
            after_line=True,
        ),
        _Token(
            r"(?<!<)<<[ \t]*([\"']?)([A-Za-z_]\w*)\1(?=[\s\S]*^\2$)", r"^{1}$", escape=_NONE, after_line=True
        ),
        _Token(r"\$'(?:\\.|[^'\\])*+'?"),
        _Token("'", "'", escape=_NONE),
        _Token('"', '"', r"\$\((?!\()|\$\{"),
    ),
    "go": (*_C, _Token("`", "`", escape=_NONE), _DOUBLE, _SINGLE),
    "rs": (_LINE, _NESTED, _Token(r'\bb?r(#*)"', '"{0}', escape=_NONE), _DOUBLE_LINES, _CHARACTER),
    "rb": (
        _Token(r"^=begin\b", r"^=end\b", comment=True, escape=_NONE),
        _Token(r"#(?!\{)[^\n]*", comment=True),
        _Token(r"<<[~-]?([\"']?)([A-Z_]\w*)\1", r"^[ \t]*{1}\b", _RUBY, after_line=True),
        _Token(r"(?<=[\s\(,=\[])%[qQwWiIr]?([\(\[{<])(?!=)", "{mirror}"),
        _Token(r"(?<=[\s\(,=\[{])\?(?:\\.|\S)(?!\w)"),
        _REGEX,
        _Token('"', '"', _RUBY),
        _SINGLE_LINES,
        _Token("`", "`", _RUBY),
    ),
    "lua": (
        _Token(r"--\[(=*)\[", r"\]{0}\]", comment=True, escape=_NONE),
        _Token(r"--[^\n]*", comment=True),
        _Token(r"\[(=*)\[", r"\]{0}\]", escape=_NONE),
        _DOUBLE,
        _SINGLE,
    ),
    "pl": (
        _Token(r"^=[a-z]\w*", r"^=cut\b|\Z", comment=True, escape=_NONE),
        _Token(r"(?<![$\\{])#[^\n]*", comment=True),
        _Token(r"<<~?([\"']?)([A-Z_]\w*)\1", r"^[ \t]*{1}$", escape=_NONE, after_line=True),
        _Token(
            r"(?<![$@%&>\w])(?:s|tr|y)(?P<d>[/|!,])(?:\\.|(?!(?P=d))[^\\])*(?P=d)(?:\\.|(?!(?P=d))[^\\])*(?P=d)\w*"
        ),
        _Token(
            r"(?<![$@%&>\w])(?:s|tr|y)\{(?:\\.|[^\\{}]|\{[^{}]*\})*\}\s*\{(?:\\.|[^\\{}]|\{[^{}]*\})*\}\w*"
        ),
        _Token(r"(?<![$@%&>\w])(?:m|qr|qq?)(?P<e>[/|!])(?:\\.|(?!(?P=e))[^\\])*(?P=e)\w*"),
        _Token(r"(?<![$@%&>\w])(?:m|qr|q[qwx]?)\s*([\(\[{<])(?!\w+\})", "{mirror}"),
        _REGEX,
        _Token(r"\$[\"'`;&]"),
        _DOUBLE_LINES,
        _SINGLE_LINES,
        _Token("`", "`"),
    ),
    "r": (
        _HASH,
        _Token(r"\b[rR][\"'](-*)([\(\[{])", r"[)\]}]{0}[\"']", escape=_NONE),
        _DOUBLE_LINES,
        _SINGLE_LINES,
        _Token("`", "`"),
    ),
    "d": (
        *_C,
        _Token(r"/\+", r"\+/", comment=True, escape=_NONE, nested=True),
        _Token(r'\br"[^"]*"?'),
        _Token("`", "`", escape=_NONE),
        _DOUBLE_LINES,
        _SINGLE,
    ),
    "rkt": (
        _Token(r"#\|", r"\|#", comment=True, escape=_NONE, nested=True),
        _Token(r"#lang[^\n]*", comment=True),
        _Token(r"#\\(?:[a-zA-Z]+|.)"),
        _Token(r";[^\n]*", comment=True),
        _DOUBLE_LINES,
    ),
    "clj": (_Token(r";[^\n]*", comment=True), _Token(r"\\(?:[a-z]+|.)"), _DOUBLE_LINES),
    "ml": (
        _Token(r"\(\*(?!\))", r"\*\)", comment=True, escape=_NONE, nested=True),
        _Token(r"\{(\w*)\|", r"\|{0}\}", escape=_NONE),
        _DOUBLE_LINES,
        _CHARACTER,
    ),
    "hs": (
        _Token(r"\{-", r"-\}", comment=True, escape=_NONE, nested=True),
        _Token(r"(?<![!#$%&*+./<=>?@\\^|~:-])--+(?![!#$%&*+./<=>?@\\^|~:-])[^\n]*", comment=True),
        _DOUBLE,
        _CHARACTER,
    ),
    "ex": (
        _Token(r"#(?!\{)[^\n]*", comment=True),
        _Token(r"~[a-zA-Z](\"\"\"|''')", "{0}"),
        _Token(r"(\"\"\"|''')", "{0}", _RUBY),
        _Token(r"~[a-zA-Z]([\(\[{<])", "{mirror}"),
        _Token(r"~[a-zA-Z](?P<s>[/|\"'])(?:\\.|(?!(?P=s))[^\\])*(?P=s)\w*"),
        _Token(r"(?<!\w)\?(?:\\.|\S)"),
        _Token('"', '"', _RUBY),
        _SINGLE_LINES,
    ),
    "scala": (
        _LINE,
        _NESTED,
        _Token(r'\b[a-zA-Z]+"""', '"""(?!")', r"\$\{", escape=_NONE),
        _Token('"""', '"""(?!")', escape=_NONE),
        _Token(r'\b[a-zA-Z]+"', r'"|(?=\n)', r"\$\{"),
        _DOUBLE,
        _CHARACTER,
    ),
}
"""The tokens of each language, by short name, in order of precedence. Strings have escapes unless `escape` is `_NONE`."""


@cache
def _opening(language: str) -> re.Pattern[str]:
    """A pattern that matches the beginning of any token (token number N in group `tN`) or a bracket (in no group)."""
    tokens = [f"(?P<t{at}>{_numbered(token.open, at)})" for at, token in enumerate(_TOKENS[language])]
    return re.compile("|".join([*tokens, r"[(\[{]|[)\]}]"]), re.MULTILINE)


def _numbered(pattern: str, number: int) -> str:
    """`pattern` with group names and back references that are unique to token `number`, so that patterns can be combined."""
    pattern = re.sub(r"\(\?P([<=])(\w+)", rf"(?P\g<1>n{number}_\2", pattern)
    names = iter(range(1, 9))
    pattern = re.sub(r"(?<!\\)\((?!\?)", lambda _: f"(?P<g{number}_{next(names)}>", pattern)
    return re.sub(r"\\([1-9])", rf"(?P=g{number}_\1)", pattern)


@lru_cache(64)
def masked(code: str, language: str) -> Masked:
    """Blank out the strings and comments of `code`. In a language that the sandbox does not know, the text stays unchanged."""
    if language not in _TOKENS:
        return Masked(code, True)
    mask = _Mask(code, language)
    _, closed = mask.code_from(0, 0)
    return Masked("".join(mask.out), closed)


class _Mask:
    """The masking of one program. `out`: its characters, which are masked one piece after another."""

    def __init__(self, code: str, language: str) -> None:
        self.code, self.language, self.out = code, language, list(code)

    def code_from(self, at: int, inside: int) -> tuple[int, bool]:
        """Mask from position `at` on. At `inside` = 0 go on to the end of `code`; inside of `inside` nested strings, only to the
        bracket that ends the code in the innermost string. Returns the end position and whether all strings and comments are
        closed."""
        code, opening, depth = self.code, _opening(self.language), 0
        late: list[tuple[_Token, tuple[str, ...]]] = []  # here-documents whose text begins on the next line
        while found := opening.search(code, at):
            if late and (line := code.find("\n", at, found.start() + 1)) >= 0:
                at, closed = self._token(line, line + 1, *late.pop(0), inside)
                if not closed:
                    return len(code), False
                continue
            at = found.end()
            if found.lastgroup is None:
                depth += 1 if found.group() in "([{" else -1
                if inside and depth < 0:
                    return at, True
                continue
            number = found.lastgroup[1:]
            token, texts = _TOKENS[self.language][int(number)], found.groupdict().items()
            groups = tuple(text or "" for name, text in texts if name.startswith(f"g{number}_"))
            if token.after_line:
                late.append((token, groups))
                continue
            at, closed = self._token(found.start(), at, token, groups, inside)
            if not closed:
                return len(code), False
        for token, groups in late:
            if (line := code.find("\n", at)) >= 0:
                at, closed = self._token(line, line + 1, token, groups, inside)
                if not closed:
                    return len(code), False
        return len(code), not inside

    def _token(
        self, start: int, at: int, token: _Token, groups: tuple[str, ...], inside: int
    ) -> tuple[int, bool]:
        """Mask the token that begins at `start` and whose opening ends at `at`. Returns the token's end and whether it is closed."""
        if not token.close:
            self._blank(start, at, token)
            return at, True
        first = next(filter(None, groups), "")
        mirror = re.escape(_MIRROR.get(first, first))
        close = token.close
        for number, group in enumerate(groups):
            close = close.replace(f"{{{number}}}", re.escape(group))
        pieces = [token.escape, rf"(?P<close>{close.replace('{mirror}', mirror)})"]
        if token.code and inside < _DEEPEST:
            pieces.append(rf"(?P<code>{token.code})")
        if token.nested or (first in _MIRROR and "{mirror}" in token.close):
            pieces.append(rf"(?P<again>{re.escape(first) if '{mirror}' in token.close else token.open})")
        pattern, code, depth = re.compile("|".join(pieces), re.MULTILINE | re.DOTALL), self.code, 1
        while found := pattern.search(code, at):
            if found.lastgroup == "code":
                self._blank(start, found.start(), token)
                start, closed = self.code_from(found.end(), inside + 1)
                if not closed:
                    return len(code), False
                at = start
                continue
            at = found.end()
            depth += {"close": -1, "again": 1}.get(found.lastgroup or "", 0)
            if depth == 0:
                self._blank(start, at, token)
                return at, True
        self._blank(start, len(code), token)
        return len(code), False

    def _blank(self, start: int, end: int, token: _Token) -> None:
        for place in range(start, end):
            self.out[place] = JOINED if self.out[place] == "\n" else " " if token.comment else STRING
