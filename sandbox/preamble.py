"""Decides which precompiled headers a C++ program can use without changing its meaning.

Only headers that the program includes at its very beginning qualify: a `#define` or a `#pragma` before a header may change the
header, and a condition may skip it. And only standard headers qualify, because they mean the same in any order. The program's
text stays unchanged. When g++ reaches the program's own `#include`, it has read the header already, as if it were included twice.

The texts that are precompiled are the constants below. None of them comes from a program, so no program can affect another.
"""

import re
from collections.abc import Iterator

from sandbox.verdicts import Program

_ALL = "#include <bits/stdc++.h>\n"
# g++ instantiates most templates of <future> and <filesystem> again for every program, at the cost of all other headers together.
# Their include guards, defined in advance, leave them out.
_MOST = f"#define _GLIBCXX_FUTURE 1\n#define _GLIBCXX_FILESYSTEM 1\n{_ALL}"
_STREAMS = "#include <iostream>\n"
CONTEST = "-contest"
PREAMBLES = {"most": _MOST, "all": _ALL, "streams": _STREAMS}
PREAMBLES |= {f"most{CONTEST}": _MOST, f"streams{CONTEST}": _STREAMS}
"""The texts that are precompiled, by name. Names that end with `CONTEST` are for programs with cases, which are compiled with
other options. Reading other headers is so quick that precompiling them does not pay off."""

_SPEAKS_OF_THE_REST = re.compile(
    r"future|promise|packaged_task|async|launch|filesystem|_GLIBCXX|##|%:%:|\\\s*\n"
)
"""Matches names that <future> or <filesystem> declare, and syntax from which a program can compose such names (`##`, `\\`)."""

_STANDARD = """
    algorithm any array atomic bitset cassert cctype cerrno cfenv cfloat charconv chrono cinttypes climits clocale cmath complex
    condition_variable csetjmp csignal cstdarg cstddef cstdint cstdio cstdlib cstring ctime cwchar cwctype deque exception
    filesystem forward_list fstream functional future initializer_list iomanip ios iosfwd iostream istream iterator limits list
    locale map memory mutex new numeric optional ostream queue random ratio regex scoped_allocator set shared_mutex sstream stack
    stdexcept streambuf string string_view system_error thread tuple type_traits typeindex typeinfo unordered_map unordered_set
    utility valarray variant vector
    assert.h ctype.h errno.h float.h inttypes.h limits.h locale.h math.h signal.h stdarg.h stddef.h stdint.h stdio.h stdlib.h
    string.h time.h wchar.h wctype.h
    bits/stdc++.h
""".split()  # noqa: SIM905 - as a list it would be ten times as long
"""The standard headers of C++17, except the few whose meaning depends on their order."""
_IN_ALL = frozenset(name for name in _STANDARD if not name.endswith(".h")) | {"bits/stdc++.h", "assert.h"}
"""The headers that `bits/stdc++.h` contains. <math.h> and <stdlib.h> declare more than <cmath> and <cstdlib>."""
_SPACE = r"(?:[ \t\r\n]|//[^\n]*\n|/\*(?:[^*]|\*(?!/))*+\*/)*+"
_INCLUDE = re.compile(
    rf"{_SPACE}(?P<directive>\#[ \t]*include[ \t]*<(?P<header>[^>\n]+)>)[ \t]*(?:/\*(?:[^*\n]|\*(?!/))*+\*/[ \t]*)?(?://[^\n]*)?\r?\n"
)
_LINE_GOES_ON = re.compile(r"\\|\?\?/")
"""Matches a backslash or its trigraph, with which a line (a comment, for instance) may continue on the next line."""


def _first_includes(source: str) -> Iterator[re.Match[str]]:
    """The directives for standard headers with which a program begins."""
    odd = _LINE_GOES_ON.search(source)
    start, end = int(source.startswith("\ufeff")), odd.start() if odd else len(source)
    while (include := _INCLUDE.match(source, start, end)) and include["header"] in _STANDARD:
        yield include
        start = include.end()


def without_includes(source: str, name: str) -> str:
    """`source` with spaces in place of the first directives whose headers the precompiled headers `name` contain.

    The compiler has read these headers, so the directives have no effect. But it would read most of these files once more.
    """
    for include in _first_includes(source):
        header = include["header"]
        if header == "iostream" or ("streams" not in name and header in _IN_ALL):
            start, end = include.span("directive")
            source = source[:start] + " " * (end - start) + source[end:]
    return source


def preamble(program: Program) -> str:
    """The name in `PREAMBLES` of the precompiled headers that a program can use; empty if it can use none."""
    headers = {include["header"] for include in _first_includes(program.source)}
    contest = CONTEST if program.cases else ""
    if "bits/stdc++.h" in headers:
        found = "all" if _SPEAKS_OF_THE_REST.search(program.source) else "most"
    else:
        found = "streams" if "iostream" in headers else ""
    return found + contest if found + contest in PREAMBLES else ""
