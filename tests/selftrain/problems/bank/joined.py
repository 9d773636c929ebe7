"""Joins many MultiPL-E programs into one, for languages where starting the compiler takes longer than compiling.

For each program, the joined program prints a line `NUMBER passed` or `NUMBER failed`. Each program is in a separate namespace,
class or function, and a failed assertion is caught instead of ending the joined program.
"""

from collections.abc import Callable, Sequence


def join(language: str, programs: Sequence[str]) -> str:
    """One program of all `programs` (prompt + completion + tests, in cpp, java, ts, cs or js)."""
    return JOIN[language](programs)


def _without(program: str, *starts: str) -> str:
    return "".join(line for line in program.splitlines(keepends=True) if not line.startswith(starts))


def _cpp(programs: Sequence[str]) -> str:
    parts = [
        "#include <assert.h>\n#include <bits/stdc++.h>\n#undef assert\n#define assert(x) if (!(x)) throw 1\n"
    ]
    calls = []
    for at, program in enumerate(programs):
        body = _without(program, "#include").replace("int main()", "void tests()")
        parts.append(f"namespace p{at} {{\n{body}\n}}\n")
        calls.append(
            f'    try {{ p{at}::tests(); puts("{at} passed"); }} catch (int) {{ puts("{at} failed"); }}\n'
        )
    return "".join([*parts, "int main() {\n", *calls, "}\n"])


def _java(programs: Sequence[str]) -> str:
    parts = ["import java.util.*;\nimport java.util.stream.*;\n"]
    calls = []
    for at, program in enumerate(programs):
        parts.append(_without(program, "import ").replace("class Problem", f"class P{at}"))
        calls.append(
            f'        try {{ P{at}.main(args); System.out.println("{at} passed"); }}\n'
            f'        catch (AssertionError e) {{ System.out.println("{at} failed"); }}\n'
        )
    main = "class Main {\n    public static void main(String[] args) {\n" + "".join(calls) + "    }\n}\n"
    return "".join([parts[0], main, *parts[1:]])


def _cs(programs: Sequence[str]) -> str:
    parts = [
        "using System;\nusing System.Collections.Generic;\nusing System.Diagnostics;\nusing System.Linq;\n"
        "class Thrower : TraceListener {\n"
        "    public override void Write(string message) {}\n"
        "    public override void WriteLine(string message) {}\n"
        "    public override void Fail(string message, string detail) { throw new Exception(); }\n"
        "    public override void Fail(string message) { throw new Exception(); }\n"
        "}\n"
    ]
    calls = []
    for at, program in enumerate(programs):
        body = _without(program, "using ").replace("class Problem", f"class P{at}")
        parts.append(body.replace("void Main(string[] args)", "void Tests()"))
        calls.append(
            f'        try {{ P{at}.Tests(); Console.WriteLine("{at} passed"); }}\n'
            f'        catch (Exception) {{ Console.WriteLine("{at} failed"); }}\n'
        )
    listen = "        Debug.Listeners.Clear();\n        Debug.Listeners.Add(new Thrower());\n"
    main = (
        "class Joined {\n    public static void Main(string[] args) {\n"
        + listen
        + "".join(calls)
        + "    }\n}\n"
    )
    return "".join([*parts, main])


def _script(programs: Sequence[str], declare: str = "") -> str:
    parts = [declare + "const assert = require('node:assert');\n"]
    for at, program in enumerate(programs):
        parts.append(f"function p{at}() {{\n{_without(program, 'declare var require', 'const assert')}\n}}\n")
    names = ", ".join(f"p{at}" for at in range(len(programs)))
    loop = (
        f"[{names}].forEach((p, at) => {{\n"
        '  try { p(); console.log(at + " passed"); } catch (e) { console.log(at + " failed"); }\n'
        "});\n"
    )
    return "".join([*parts, loop])


JOIN: dict[str, Callable[[Sequence[str]], str]] = {
    "cpp": _cpp,
    "java": _java,
    "cs": _cs,
    "ts": lambda programs: _script(programs, "declare var require: any;\n"),
    "js": _script,
}
