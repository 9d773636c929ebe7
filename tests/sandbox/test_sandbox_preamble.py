"""Tests of precompiled C++ headers (`sandbox.preamble`): which programs use them, and that verdicts do not change."""

import time

import pytest

from sandbox.preamble import preamble
from sandbox.verdicts import Case, Program

MAIN = "int main() {}\n"
BITS = "#include <bits/stdc++.h>\n"


@pytest.mark.parametrize(
    ("source", "name"),
    [
        (f"#include<assert.h>\n#include<bits/stdc++.h>\n{MAIN}", "most"),
        (f"\ufeff{BITS}{MAIN}", "most"),
        (f"// a\n/* b\n ** */ # include\t<cmath> // c\r\n\n/* # */{BITS}{MAIN}", "most"),
        (f"#include <iostream> /* * */ // streams\n{BITS}{MAIN}", "most"),
        (f'{BITS}int main() {{ puts("\\n"); }}\n', "most"),
        (f"{BITS}std::future<int> f;\n", "all"),
        (f"{BITS}namespace fs = std::filesystem;\n", "all"),
        (f"{BITS}#ifdef _GLIBCXX_FUTURE\n#endif\n", "all"),
        (f"{BITS}#define JOIN(a, b) a##b\n", "all"),
        (f"{BITS}std::fut\\\nure<int> f;\n", "all"),
        (f"#include <iostream>\n#include <vector>\n{MAIN}", "streams"),
        (f"#include <vector>\n#include <iostream>\n#include <unistd.h>\n{MAIN}", "streams"),
        (f"#include <iostream>\n#define map other\n{BITS}{MAIN}", "streams"),
        (f"#include <iostream>\nint async;\n{MAIN}", "streams"),
        (f"#include <vector>\n{MAIN}", ""),
        (MAIN, ""),
        ("", ""),
        (f"#define _GLIBCXX_DEBUG\n{BITS}", ""),
        (f"#pragma GCC optimize(3)\n{BITS}", ""),
        (f"#if 0\n{BITS}#endif\n", ""),
        (f"int x;\n{BITS}", ""),
        (f"int x; /*\n*/ {BITS}", ""),
        (f"#include <unistd.h>\n{BITS}", ""),
        (f"#include <nowhere>\n{BITS}", ""),
        (f"#include </tmp/iostream>\n{BITS}", ""),
        (f"#include <../iostream>\n{BITS}", ""),
        (f"#include <vector> /* goes\non */ {BITS}", ""),
        (f"// goes on \\\n{BITS}", ""),
        (f"// goes on \\ \n{BITS}", ""),
        (f"// goes on \\\r\n{BITS}", ""),
        (f"// goes on ??/\n{BITS}", ""),
        (f"/* ends *\\\n/\n#define X\n/* */ {BITS}", ""),
        (f"/* {BITS} */ {MAIN}", ""),
        (f"/* {BITS}{MAIN}", ""),
        (f'R"(\n{BITS})"{MAIN}', ""),
        ('#include "bits/stdc++.h"\n', ""),
        ('#include "iostream"\n', ""),
        ("#import <iostream>\n", ""),
        ("%:include <iostream>\n", ""),
        ("#include <bits/stdc++.hpp>\n", ""),
        ("#include <bits/stdc++.h> // not the whole line \\\n", ""),
    ],
)
def test_headers_are_read_beforehand_where_that_changes_nothing(source: str, name: str) -> None:
    assert preamble(Program("", "cpp", source)) == name


@pytest.mark.parametrize(
    ("source", "name"),
    [
        (BITS, "most-contest"),
        (f"{BITS}int async;", ""),
        ("#include <iostream>\n", "streams-contest"),
        ("", ""),
    ],
)
def test_those_of_programs_with_cases_are_others(source: str, name: str) -> None:
    assert preamble(Program("", "cpp", source, (Case("", ""),))) == name


@pytest.mark.parametrize(
    "source",
    ["int x;\n" * 100_000, "/*" * 300_000, "/* */ " * 100_000, "#include <map>\n" * 50_000, "\n" * 600_000, "/" * 600_000, "#include <iostream>\n" + "//\n" * 100_000],
    ids=lambda source: source[:20].split("\n")[0],
)  # fmt: skip
def test_long_programs_are_looked_at_once(source: str) -> None:
    started = time.process_time()
    preamble(Program("", "cpp", source))
    assert time.process_time() - started < 2, "half a megabyte takes some milliseconds"
