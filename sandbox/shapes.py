"""A table of programs for every verdict in every language, for `python -m sandbox check`.

A row has a prompt and tests in MultiPL-E's format, for a function `f` that has to return its argument plus one, and a completion
for each verdict.
"""

from dataclasses import dataclass, replace

from sandbox.programs import assemble
from sandbox.verdicts import MIB, Case, Limits, Program, Verdict

# Limits for most tests.
LIMITS = Limits(wall_seconds=20, memory_bytes=300 * MIB, output_bytes=MIB)
ROOMY = replace(LIMITS, memory_bytes=1024 * MIB)
"""Limits for the test of `output_exceeded`. If node's garbage collector gets no processor time, the heap grows faster than the
output, so the memory limit has to be high."""
# Limits for the test of `timeout`.
HURRIED = Limits(cpu_seconds=0.5, wall_seconds=20)


@dataclass(frozen=True)
class Shape:
    """The programs of one language: `prompt`, `tests` (which call `f`), one completion for each name in `ENDINGS`, and `echo`, a
    program that prints its stdin."""

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

GO_TESTS = """func TestF(t *testing.T) {
  candidate := f
	type test struct {
		actual   interface{}
		expected interface{}
	}
   tests := []test{
     { actual: candidate(1), expected: 2 },
   }

	for i, tc := range tests {
		t.Run(fmt.Sprintf("test num % d", i), func(t *testing.T) {
			if fmt.Sprintf("%v", tc.actual) != fmt.Sprintf("%v", tc.expected) {
				t.Errorf("expected '%s', got '%s'", tc.expected, tc.actual)
			}
		})
	}
}
"""

_JS = Shape(
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
)

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
        echo="#include <iostream>\nint main() { std::string line; getline(std::cin, line); std::cout << line; }",
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
    "ts": replace(
        _JS,
        prompt="function f(n: number): number {\n",
        tests=f"}}\ndeclare var require: any;\n{JS_TESTS}",
        early_exit="  (globalThis as any).process.exit(0); return n;",
        compile_error="  return 'two';",
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
    "js": _JS,
    "go": Shape(
        prompt='package f_test\n\nimport (\n    "testing"\n    "fmt"\n)\n\nfunc f(n int) int {\n',
        tests=GO_TESTS,
        passed="    return n + 1\n}",
        wrong_answer="    return n\n}",
        early_exit="    testing.Main(nil, nil, nil, nil)\n    return n\n}",
        compile_error="    return m\n}",
        runtime_error="    var all []int\n    return all[n]\n}",
        timeout="    for {\n    }\n}",
        memory_exceeded="    var all [][]byte\n    for {\n        b := make([]byte, 1<<20)\n"
        "        for i := range b { b[i] = 1 }\n        all = append(all, b)\n    }\n}",
        output_exceeded='    for {\n        fmt.Println("a line of some length")\n    }\n}',
        echo='package main\nimport ("bufio"; "fmt"; "os")\nfunc main() {\n'
        "    line, _ := bufio.NewReader(os.Stdin).ReadString(10)\n    fmt.Print(line)\n}",
    ),
    "rs": Shape(
        prompt="fn f(n: isize) -> isize {\n",
        tests="}\n\nfn main() {\n    let candidate = f;\n    assert_eq!(candidate(1), 2);\n}\n",
        passed="    n + 1",
        wrong_answer="    n",
        early_exit="    std::process::exit(0)",
        compile_error="    m",
        runtime_error='    panic!("no")',
        timeout="    loop {}",
        memory_exceeded="    let mut all = Vec::new();\n    loop { all.push(vec![n; 1 << 20]); }",
        output_exceeded='    loop { println!("a line of some length"); }',
        echo='fn main() { let mut s = String::new(); std::io::stdin().read_line(&mut s).unwrap(); print!("{}", s); }',
    ),
    "rb": Shape(
        prompt="def f(n)\n",
        tests="require 'test/unit'\nclass TestHumanEval < Test::Unit::TestCase\n  def test_f\n"
        "    candidate = method(:f)\n    assert_equal(2, candidate.call(1))\n  end\nend\n",
        passed="    n + 1\nend",
        wrong_answer="    n\nend",
        early_exit="    exit!(0)\nend",
        compile_error="    (n\nend",
        runtime_error="    raise 'no'\nend",
        timeout="    loop {}\nend",
        memory_exceeded="    all = []\n    loop { all << 'x' * (1 << 20) }\nend",
        output_exceeded="    loop { puts 'a line of some length' }\nend",
        echo="puts gets",
    ),
    "lua": Shape(
        prompt="local function f(n)\n",
        tests="lu = require('luaunit')\n\nfunction test_humaneval()\nlocal candidate = f\n"
        "    lu.assertEquals(candidate(1), 2)\nend\n\nos.exit(lu.LuaUnit.run())",
        passed="    return n + 1\nend",
        wrong_answer="    return n\nend",
        early_exit="    os.exit(0)\nend",
        compile_error="    return (n\nend",
        runtime_error="    error('no')\nend",
        timeout="    while true do end\nend",
        memory_exceeded="    local all = {}\n    while true do all[#all + 1] = string.rep('x', 1 << 20) .. #all end\nend",
        output_exceeded="    while true do print('a line of some length') end\nend",
        echo="print(io.read())",
    ),
    "pl": Shape(
        prompt="sub f {\n    my($n) = @_;\n",
        tests="use Test::Deep;\n\n\nsub testhumaneval {\n    my $candidate = \\&f;\n"
        '        if(eq_deeply($candidate->(1),2)) {\n        print "ok!" }else{\n        exit 1;\n        }\n}\n\n'
        "testhumaneval();",
        passed="    return $n + 1;\n}",
        wrong_answer="    return $n;\n}",
        early_exit="    exit 0;\n}",
        compile_error="    return (;\n}",
        runtime_error="    die 'no';\n}",
        timeout="    while (1) {}\n}",
        memory_exceeded="    my @all; while (1) { push @all, 'x' x (1 << 20); }\n}",
        output_exceeded='    while (1) { print "a line of some length\\n"; }\n}',
        echo="print scalar <STDIN>;",
    ),
    "r": Shape(
        prompt="f <- function(n) {",
        tests="test_humaneval <- function() {\n    candidate <- f\n    stopifnot(isTRUE(all.equal(candidate(1), 2)))\n}\n"
        "test_humaneval()",
        passed="\n    n + 1\n}",
        wrong_answer="\n    n\n}",
        early_exit="\n    quit('no', 0)\n}",
        compile_error="\n    (n\n}",
        runtime_error="\n    stop('no')\n}",
        timeout="\n    while (TRUE) {}\n}",
        memory_exceeded="\n    all <- list(); while (TRUE) all[[length(all) + 1]] <- rnorm(1e6)\n}",
        output_exceeded="\n    while (TRUE) cat(strrep('a line of some length\\n', 1000))\n}",
        echo="cat(readLines(file('stdin'), 1))",
    ),
    "d": Shape(
        prompt="import std.math;\nlong f(long n) \n",
        tests="unittest\n{\n    alias candidate = f;\n\n    assert(candidate(1L) == 2L);\n}\nvoid main(){}",
        passed="{\n    return n + 1;\n}",
        wrong_answer="{\n    return n;\n}",
        early_exit="{\n    import core.stdc.stdlib : exit;\n    exit(0);\n    return n;\n}",
        compile_error="{\n    return m;\n}",
        runtime_error='{\n    throw new Exception("no");\n}',
        timeout="{\n    while (n > 0) {}\n    return n;\n}",
        memory_exceeded="{\n    long[][] all; while (n > 0) { auto a = new long[1 << 17]; a[] = n; all ~= a; }\n    return n;\n}",
        output_exceeded='{\n    import std.stdio; while (n > 0) writeln("a line of some length");\n    return n;\n}',
        echo="import std.stdio;\nvoid main() { write(readln()); }",
    ),
    "rkt": Shape(
        prompt="#lang racket\n\n(define (f n)\n",
        tests="(require rackunit)\n\n(define (test-humaneval) \n\n  (let (( candidate f))\n"
        "    (check-within (candidate 1) 2 0.001)\n))\n\n(test-humaneval)",
        passed="  (+ n 1))",
        wrong_answer="  n)",
        early_exit="  (exit 0))",
        compile_error="  m)",
        runtime_error='  (error "no"))',
        timeout="  (let loop () (loop)))",
        memory_exceeded="  (let loop ((all '())) (loop (cons (make-bytes 1000000 1) all))))",
        output_exceeded='  (let loop () (displayln "a line of some length") (loop)))',
        echo="#lang racket\n(display (read-line))",
    ),
    "ml": Shape(
        prompt="let f (n : int) : int =",
        tests="\nlet assertions =\n let candidate = f in\n  (assert ((candidate 1) = 2));\n  ()\n",
        passed=" n + 1",
        wrong_answer=" n",
        early_exit=" exit 0",
        compile_error=" m",
        runtime_error=' failwith "no"',
        timeout=" while true do () done; n",
        memory_exceeded=" let all = ref [] in while true do all := Bytes.make 1000000 'x' :: !all done; n",
        output_exceeded=' while true do print_endline "a line of some length" done; n',
        echo="print_string (read_line ())",
    ),
    "hs": Shape(
        prompt="import Control.Monad\nimport System.Exit\nimport System.IO.Unsafe\nf :: Int -> Int\nf n =",
        tests="\nmain :: IO ()\nmain = do\n  let candidate = f\n"
        '  if candidate 1 == 2 then pure () else error "assertion failed"\n  pure ()',
        passed=" n + 1",
        wrong_answer=" n",
        early_exit=" unsafePerformIO exitSuccess",
        compile_error=" m",
        runtime_error=' error "no"',
        timeout=" f (n + 1)",
        memory_exceeded=" sum all + length all where all = [1 ..]",
        output_exceeded=' unsafePerformIO (forever (putStrLn "a line of some length"))',
        echo="main = getLine >>= putStrLn",
    ),
    "ex": Shape(
        prompt="defmodule HumanEval do\n  def f(n) do\n",
        tests='ExUnit.start()\n\ndefmodule HumanEvalTest do\n  use ExUnit.Case, async: true\n  test "f" do\n'
        "    candidate = &HumanEval.f/1\n    assert 2 == candidate.(1)\n  end\nend\n",
        passed="    n + 1\n  end\nend",
        wrong_answer="    n\n  end\nend",
        early_exit="    System.halt(n - 1)\n  end\nend",
        compile_error="    m\n  end\nend",
        runtime_error='    raise "no #{n}"\n  end\nend',
        timeout="    f(n)\n  end\nend",
        memory_exceeded="    g([n])\n  end\n  def g(all) do\n    g([:binary.copy(<<1>>, 1_000_000) | all])\n  end\nend",
        output_exceeded='    IO.puts(String.duplicate("a line of some length\\n", 1000))\n    f(n)\n  end\nend',
        echo='IO.write(IO.gets(""))',
    ),
    "scala": Shape(
        prompt="import scala.math._\nimport scala.collection.mutable._\nobject Problem {\n    def f(n : Long) : Long = {\n",
        tests="    }\n    def main(args: Array[String]) = {\n    assert(f((1l)) == (2l));\n    }\n\n}\n",
        passed="        n + 1",
        wrong_answer="        n",
        early_exit="        System.exit(0); n",
        compile_error="        m",
        runtime_error='        throw new Exception("no")',
        timeout="        while (n > 0) {}\n        n",
        memory_exceeded="        val all = new ListBuffer[Array[Long]]()\n        while (n > 0) all += new Array[Long](1 << 20)\n        n",
        output_exceeded='        while (n > 0) println("a line of some length")\n        n',
        echo="object Main { def main(args: Array[String]): Unit = print(scala.io.StdIn.readLine()) }",
    ),
    "clj": Shape(
        prompt="(defn f\n  [n]\n",
        tests="(require '[clojure.test :refer [deftest is run-test]])\n\n(def candidate f)\n\n(deftest test-humaneval\n\n"
        "  (is (= (candidate 1) 2))\n)\n\n(run-test test-humaneval)",
        passed="  (+ n 1))",
        wrong_answer="  n)",
        early_exit="  (System/exit 0))",
        compile_error="  m)",
        runtime_error='  (throw (Exception. "no")))',
        timeout="  (while true))",
        memory_exceeded="  (loop [all []] (recur (conj all (long-array 1000000)))))",
        output_exceeded='  (while true (println "a line of some length")))',
        echo="(print (read-line))(flush)",
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
    """The program in `language` for `ending`, a name in `ENDINGS`."""
    shape, name = SHAPES[language], f"{language}-{ending}"
    if ending.startswith("echo"):
        second = Case("two words\n", "two words\n\n" if ending == "echo" else "two  words")
        return Program(name, language, shape.echo, (Case("a\n", "a \n"), second), limits=LIMITS)
    limits = {"timeout": HURRIED, "output_exceeded": ROOMY}.get(ending, LIMITS)
    made = assemble(language, shape.prompt, getattr(shape, ending), shape.tests)
    return made.program(name, language, limits)
