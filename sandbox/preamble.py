"""Which headers of a C++ program can be read beforehand, precompiled, without a change of what the program means.

Only such as it asks for itself, at its very beginning, before anything else: a `#define` or a `#pragma` may change what the headers
after it are, and a condition whether they are read at all. And only C++'s own, which mean the same in whatever order they are
read. The program stays as it is; where it comes to its own `#include`, the header is there already, as if read twice.

What is prepared is in the list here. Nothing of it comes from a program, so that none can prepare anything for another.
"""

import re

from sandbox.verdicts import Program

_ALL = "#include <bits/stdc++.h>\n"
# What <future> and <filesystem> declare, most of which g++ makes anew for every program, costs as much as all the rest.
_MOST = f"#define _GLIBCXX_FUTURE 1\n#define _GLIBCXX_FILESYSTEM 1\n{_ALL}"
_STREAMS = "#include <iostream>\n"
CONTEST = "-contest"
PREAMBLES = {
    "most": _MOST,
    "all": _ALL,
    "streams": _STREAMS,
    f"most{CONTEST}": _MOST,
    f"streams{CONTEST}": _STREAMS,
}
"""What can be read beforehand, by name; with `CONTEST` behind it, by programs with cases, whose compiler has other options.
Other headers are read so fast that it is not worth while."""

_SPEAKS_OF_THE_REST = re.compile(
    r"future|promise|packaged_task|async|launch|filesystem|_GLIBCXX|##|%:%:|\\\s*\n"
)
"""The names in <future> and <filesystem>, or what may put them together."""

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
"""
"""C++17's, but for those that are special in some way."""
_SPACE = r"(?:[ \t\r\n]|//[^\n]*\n|/\*(?:[^*]|\*(?!/))*+\*/)*+"
_INCLUDE = re.compile(
    rf"{_SPACE}\#[ \t]*include[ \t]*<([^>\n]+)>[ \t]*(?:/\*(?:[^*\n]|\*(?!/))*+\*/[ \t]*)?(?://[^\n]*)?\r?\n"
)
_LINE_GOES_ON = re.compile(r"\\|\?\?/")
"""Into the next one, may be: a comment, for instance."""


def first_headers(source: str) -> set[str]:
    """The standard headers that a program asks for before all else."""
    odd = _LINE_GOES_ON.search(source)
    start, end = int(source.startswith("\ufeff")), odd.start() if odd else len(source)
    standard, found = set(_STANDARD.split()), set[str]()
    while (include := _INCLUDE.match(source, start, end)) and include[1] in standard:
        found.add(include[1])
        start = include.end()
    return found


def preamble(program: Program) -> str:
    """Which of `PREAMBLES` a program can have; empty: none."""
    headers, contest = first_headers(program.source), CONTEST if program.cases else ""
    if "bits/stdc++.h" in headers:
        found = "all" if _SPEAKS_OF_THE_REST.search(program.source) else "most"
    else:
        found = "streams" if "iostream" in headers else ""
    return found + contest if found + contest in PREAMBLES else ""
