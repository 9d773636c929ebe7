"""Every verdict, in every language: a function `f` that has to return its argument plus one, in MultiPL-E's shape,
completed in several ways. Part of `python -m sandbox check`.
"""

from dataclasses import dataclass, replace

from sandbox.programs import assemble
from sandbox.verdicts import MIB, Case, Limits, Program, Verdict

LIMITS = Limits(wall_seconds=20, memory_bytes=300 * MIB, output_bytes=MIB)
ROOMY = replace(LIMITS, memory_bytes=1024 * MIB)
"""Node's heap grows faster than its output where its collector gets no processor."""
HURRIED = Limits(cpu_seconds=0.5, wall_seconds=20)


@dataclass(frozen=True)
class Shape:
    """`prompt`, completions and `tests` that call `f`; `echo` is a program that repeats its stdin."""

    prompt: str
    tests: str
    passed: str
    wrong_answer: str
    early_exit: str
    compile_error: str
    runtime_error: str
    timeout: str
    memory_exceeded: str
    output_exceeded: str
    echo: str


JS_TESTS = """const assert = require('node:assert');

function test() {
  assert.deepEqual(f(1),2);
}

test();"""
JAVA_TESTS = """    }
    public static void main(String[] args) {
    assert(f((1l)) == (2l));
    }

}
"""
CS_PROMPT = """using System;
using System.Diagnostics;
class Problem {
    public static long F(long n) {
"""
CS_TESTS = """    }
    public static void Main(string[] args) {
    Debug.Assert(F((1L)) == (2L));
    }

}
"""
PHP_TESTS = """}
function test(): void {
    if (f(1) !== 2) { throw new Exception("Test failed!"); }
}

test();"""
SH_TESTS = """}

candidate() {
    f "$@"
}

set -e
run_test() {
    [[ $(candidate "1") = "2" ]]
}

run_test"""

SHAPES = {
    "py": Shape(
        prompt="def f(n):\n",
        tests="assert f(1) == 2\n",
        passed="    return n + 1",
        wrong_answer="    return n",
        early_exit="    exit(0)",
        compile_error="    return (n",
        runtime_error="    raise ValueError(n)",
        timeout="    while True: pass",
        memory_exceeded="    return [n] * 10**9",
        output_exceeded="    while True: print('x' * 1000)",
        echo="print(input())",
    ),
    "cpp": Shape(
        prompt="#include<assert.h>\n#include<bits/stdc++.h>\nlong f(long n) {\n",
        tests="}\nint main() {\n    auto candidate = f;\n    assert(candidate((1)) == (2));\n}\n",
        passed="    return n + 1;",
        wrong_answer="    return n;",
        early_exit="    exit(0);",
        compile_error="    return m;",
        runtime_error='    throw std::runtime_error("no");',
        timeout="    for (volatile long i = 0;; i = i + 1) {}",
        memory_exceeded="    while (true) memset(new char[1 << 20], 1, 1 << 20);",
        output_exceeded='    while (true) puts("a line of some length"); ',
        echo="int main() { std::string line; getline(std::cin, line); std::cout << line; }",
    ),
    "java": Shape(
        prompt="import java.util.*;\nclass Problem {\n    public static long f(long n) {\n",
        tests=JAVA_TESTS,
        passed="        return n + 1;",
        wrong_answer="        return n;",
        early_exit="        System.exit(0); return n;",
        compile_error="        return m;",
        runtime_error="        throw new RuntimeException();",
        timeout="        while (n > 0) {} return n;",
        memory_exceeded="        List<long[]> all = new ArrayList<>();\n"
        "        while (n > 0) all.add(new long[1 << 20]); return n;",
        output_exceeded='        while (n > 0) System.out.println("a line of some length"); return n;',
        echo="public class Main { public static void main(String[] a) {\n"
        "System.out.print(new java.util.Scanner(System.in).nextLine()); } }",
    ),
    "php": Shape(
        prompt="<?php\nfunction f($n) {\n",
        tests=PHP_TESTS,
        passed="    return $n + 1;",
        wrong_answer="    return $n;",
        early_exit="    exit(0);",
        compile_error="    return (;",
        runtime_error="    return intdiv($n, 0);",
        timeout="    while (true) {}",
        memory_exceeded="    while (true) $all[] = str_repeat('x', 1 << 20);",
        output_exceeded="    while (true) echo 'a line of some length';",
        echo="<?php echo fgets(STDIN);",
    ),
    "ts": Shape(
        prompt="function f(n: number): number {\n",
        tests=f"}}\ndeclare var require: any;\n{JS_TESTS}",
        passed="  return n + 1;",
        wrong_answer="  return n;",
        early_exit="  (globalThis as any).process.exit(0); return n;",
        compile_error="  return 'two';",
        runtime_error="  throw new Error('no');",
        timeout="  while (true) {}",
        memory_exceeded="  const all = []; while (true) all.push(new Array(1e6).fill(1));",
        output_exceeded="  while (true) console.log('a line of some length');",
        echo="declare var require: any;\nconsole.log(require('fs').readFileSync(0, 'utf8'));",
    ),
    "cs": Shape(
        prompt=CS_PROMPT,
        tests=CS_TESTS,
        passed="        return n + 1;",
        wrong_answer="        return n;",
        early_exit="        Environment.Exit(0); return n;",
        compile_error="        return m;",
        runtime_error="        throw new Exception();",
        timeout="        while (n > 0) {} return n;",
        memory_exceeded="        var all = new System.Collections.Generic.List<long[]>();\n"
        "        while (n > 0) all.Add(new long[1 << 20]); return n;",
        output_exceeded='        while (n > 0) Console.WriteLine("a line of some length"); return n;',
        echo="class P { static void Main() { System.Console.Write(System.Console.ReadLine()); } }",
    ),
    "sh": Shape(
        prompt="#!/bin/bash\nf() {\n",
        tests=SH_TESTS,
        passed="    echo $(($1 + 1))",
        wrong_answer="    echo $1",
        early_exit="    :\n}\nexit 0\ng() {\n    :",
        compile_error="    if then",
        runtime_error="    :\n}\nexit 3\ng() {\n    :",
        timeout="    while :; do :; done",
        memory_exceeded="    x=0123456789; while :; do x=$x$x; done",
        output_exceeded="    while :; do echo a line of some length >&2; done",
        echo="cat",
    ),
    "js": Shape(
        prompt="function f(n){\n",
        tests=f"}}\n{JS_TESTS}",
        passed="  return n + 1;",
        wrong_answer="  return n;",
        early_exit="  process.exit(0);",
        compile_error="  return (;",
        runtime_error="  throw new Error('no');",
        timeout="  while (true) {}",
        memory_exceeded="  const all = []; while (true) all.push(new Array(1e6).fill(1));",
        output_exceeded="  while (true) console.log('a line of some length');",
        echo="console.log(require('fs').readFileSync(0, 'utf8'));",
    ),
}

ENDINGS = {
    "passed": Verdict.passed,
    "wrong_answer": Verdict.wrong_answer,
    "early_exit": Verdict.wrong_answer,
    "compile_error": Verdict.compile_error,
    "runtime_error": Verdict.runtime_error,
    "timeout": Verdict.timeout,
    "memory_exceeded": Verdict.memory_exceeded,
    "output_exceeded": Verdict.output_exceeded,
    "echo": Verdict.passed,
    "echo_wrong": Verdict.wrong_answer,
}


def program(language: str, ending: str) -> Program:
    """The program of a language that ends in one of `ENDINGS`."""
    shape, name = SHAPES[language], f"{language}-{ending}"
    if ending.startswith("echo"):
        second = Case("two words\n", "two words\n\n" if ending == "echo" else "two  words")
        return Program(name, language, shape.echo, (Case("a\n", "a \n"), second), limits=LIMITS)
    source, marker = assemble(language, shape.prompt, getattr(shape, ending), shape.tests)
    limits = {"timeout": HURRIED, "output_exceeded": ROOMY}.get(ending, LIMITS)
    return Program(name, language, source, end_marker=marker, limits=limits)
