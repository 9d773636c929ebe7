"""Tests that programs which read standard input find the environment of contest judges, in all languages."""

from sandbox.client import Sandbox
from sandbox.languages import LANGUAGES, MORE
from sandbox.verdicts import MIB, Case, Limits, Program, Verdict
from tests.sandbox.conftest import build_image, need_backend

DEEP = """#include <cstdio>
long down(long n) { volatile long kept[12] = {n}; return n ? down(n - 1) + kept[0] - n + 1 : 0; }
int main() { long n; if (scanf("%ld", &n) == 1) printf("%ld\\n", down(n)); }
"""
ENDLESS = DEEP.replace("down(n - 1)", "down(n + 1)")
SLOW = """#include <iostream>
#include <vector>
int main() {
    int n, best = 0;
    std::cin >> n;
    std::vector<int> a(n);
    for (int i = 0; i < n; i++) a[i] = (i * 48271L) % 65537;
    for (int i = 0; i < n; i++)
        for (int j = 0; j < n; j++) best = std::max(best, a[i] - a[j]);
    std::cout << best << std::endl;
}
"""
FULL = """#include <cstdio>
#include <cstring>
#include <sys/mman.h>
#include <unistd.h>
int main() {
    for (size_t size = 1 << 20; size >= 4096; size /= 2)
        for (void* some; (some = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)) != MAP_FAILED;)
            memset(some, 1, size);
    usleep(200000);
    puts("full");
}
"""
"""Takes all the memory that it may have, and lives long enough for that to be seen."""
JUDGED = """#include <cstdio>
#include <cstdlib>
int main() {
#ifdef ONLINE_JUDGE
    puts(getenv("ONLINE_JUDGE"));
#else
    return getenv("ONLINE_JUDGE") ? 2 : 3;
#endif
}
"""
THREADS = """#include <atomic>
#include <iostream>
#include <thread>
#include <vector>
int main() {
    std::atomic<int> sum{0};
    std::vector<std::thread> all;
    for (int i = 0; i < 20; i++) all.emplace_back([&sum, i] { sum += i; });
    for (auto& one : all) one.join();
    std::cout << sum << std::endl;
}
"""
# Each counts the calls down to N, read from standard input, by recursion that is not a tail call.
DEPTHS = {
    "py": """import functools, sys
sys.setrecursionlimit(10**7)
@functools.lru_cache(None)
def depth(n):
    return 1 + max(map(depth, [n - 1])) if n else 0
print(depth(int(input())))
""",
    "java": """import java.util.*;
public class Depth {
    static int[] next;
    static int visits;
    static int visit(int at, long weight, String name, double scale) {
        visits++;
        long heavier = weight * 31 + at;
        int below = next[at] < 0 ? 0 : visit(next[at], heavier, name, scale / 2);
        return below + 1 + (heavier == 7 && name.isEmpty() ? 1 : 0);
    }
    public static void main(String[] args) {
        int n = new Scanner(System.in).nextInt();
        next = new int[n];
        Arrays.setAll(next, at -> at - 1);
        System.out.println(visit(n - 1, 1, "tree", 1.0));
    }
}
""",
    "js": """const n = Number(require('fs').readFileSync(0, 'utf8'));
const depth = at => [at].map(x => (x ? depth(x - 1) + 1 : 0))[0];
console.log(depth(n));
""",
    "ts": """declare var require: any;
const n: number = Number(require('fs').readFileSync(0, 'utf8'));
function depth(at: number, kept: number[]): number { return at ? depth(at - 1, [at, ...kept.slice(0, 1)]) + 1 : 0; }
console.log(depth(n, []));
""",
    "php": """<?php
function depth(int $n): int { return $n ? array_sum(array_map('depth', [$n - 1])) + 1 : 0; }
echo depth((int) fgets(STDIN)), "\n";
""",
    "cs": """using System;
class Depth {
    static int Of(int n, string name, double scale) { return n == 0 ? 0 : Of(n - 1, name, scale / 2) + name.Length; }
    static void Main() { Console.WriteLine(Of(int.Parse(Console.ReadLine()), "x", 1.0)); }
}
""",
    "rb": "def depth(n) n > 0 ? [n - 1].map { |below| depth(below) }[0] + 1 : 0 end\nputs depth(gets.to_i)\n",
    "rs": """fn depth(n: u64, kept: &mut [u64; 8]) -> u64 {
    let mut own = *kept;
    own[(n % 8) as usize] = n;
    if n == 0 { 0 } else { depth(n - 1, &mut own) + 1 }
}
fn main() {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    println!("{}", depth(line.trim().parse().unwrap(), &mut [0; 8]));
}
""",
    "go": """package main
import "fmt"
func depth(n int) int { if n == 0 { return 0 }; return depth(n-1) + 1 }
func main() { var n int; fmt.Scan(&n); fmt.Println(depth(n)) }
""",
    "pl": "no warnings;\nsub depth { my ($n) = @_; return $n ? depth($n - 1) + 1 : 0 }\nprint depth(<STDIN> + 0), qq(\\n);\n",
    "d": """import std.stdio;
int depth(int n) { int[8] kept = n; return n ? depth(n - 1) + kept[n % 8] - n + 1 : 0; }
void main() { int n; readf(" %d", &n); writeln(depth(n)); }
""",
    "rkt": "#lang racket\n(define (depth n) (if (zero? n) 0 (+ 1 (depth (- n 1)))))\n(displayln (depth (read)))\n",
    "ml": """let rec depth n = if n = 0 then 0 else depth (n - 1) + 1
let () = Scanf.scanf " %d" (fun n -> Printf.printf "%d\\n" (depth n + List.length (List.map succ (List.init n succ)) - n))
""",
    "hs": "main :: IO ()\nmain = readLn >>= \\n -> print (foldr (\\_ deeper -> deeper + 1) 0 [1 .. n :: Int])\n",
    "ex": """defmodule Depth do
  def of(0), do: 0
  def of(n), do: of(n - 1) + 1
end
IO.gets("") |> String.trim() |> String.to_integer() |> Depth.of() |> IO.puts()
""",
    "scala": "object Depth extends App {\n  def of(n: Int): Int = if (n == 0) 0 else of(n - 1) + 1\n"
    "  println(of(scala.io.StdIn.readInt()))\n}\n",
    "clj": "(defn depth [n] (if (zero? n) 0 (inc (depth (dec n)))))\n(println (depth (read)))\n",
}  # fmt: skip
NOT_SO_DEEP = {"sh": "Bash takes time by the square of the depth", "lua": "200,000 calls", "r": "5,000 calls"}
"""Whose own limits are below 300,000 calls, whatever the stack; `cpp` is above."""
UNENDING = {
    "java": "public class E { static int f(int n) { return f(n + 1) + 1; } public static void main(String[] a) { f(0); } }",
    "js": "const f = n => f(n + 1) + 1;\nf(0);",
    "cs": "class E { static int F(int n) { return F(n + 1) + 1; } static void Main() { System.Console.Write(F(0)); } }",
    "php": "<?php function f($n) { return array_map('f', [$n + 1]); } f(0);",
    "py": "import sys\nsys.setrecursionlimit(1 << 30)\ndef f(n): return max(map(f, [n + 1]))\nf(0)",
    "rb": "def f(n) f(n + 1) + 1 end\nf(0)",
    "rs": "fn f(n: u64) -> u64 { if n == u64::MAX { 0 } else { f(n + 1) * 3 + n } }\nfn main() { println!(\"{}\", f(std::env::args().count() as u64)); }",
    "ml": "let rec f n = f (n + 1) + 1\nlet () = print_int (f 0)",
    "clj": "(defn f [n] (inc (f (inc n))))\n(println (f 0))",
    "d": "import std.stdio;\nint f(int n) { return n == -1 ? 0 : f(n + 1) * 3 + n; }\nvoid main(string[] a) { writeln(f(cast(int) a.length)); }",
}  # fmt: skip
ONLINE = {
    "py": "import os\nprint(os.environ.get('ONLINE_JUDGE'))",
    "java": 'public class A { public static void main(String[] a) { assert a.length > 0; System.out.println(System.getProperty("ONLINE_JUDGE")); } }',
    "js": "console.log(process.env.ONLINE_JUDGE)",
    "php": "<?php echo getenv('ONLINE_JUDGE');",
    "cs": 'class A {\n static void Main() {\n#if ONLINE_JUDGE && !DEBUG\n  System.Console.Write("true");\n#endif\n } }',
    "sh": 'echo "$ONLINE_JUDGE"',
    "go": 'package main\nimport ("fmt"; "os")\nfunc main() { fmt.Print(os.Getenv("ONLINE_JUDGE")) }',
    "rs": 'fn main() { let most = i32::MAX - 1 + std::env::args().count() as i32; println!("{}", cfg!(ONLINE_JUDGE) && most + 1 < 0); }',
    "rb": "puts ENV['ONLINE_JUDGE']",
    "lua": "print(os.getenv('ONLINE_JUDGE'))",
    "pl": "print $ENV{ONLINE_JUDGE}",
    "d": 'import std.stdio;\nvoid main() { version (ONLINE_JUDGE) writeln("true"); }\nunittest { writeln("a test"); }',
    "hs": '{-# LANGUAGE CPP #-}\nmain :: IO ()\nmain = putStrLn\n#ifdef ONLINE_JUDGE\n  "true"\n#else\n  "false"\n#endif\n',
    "scala": 'object A extends App { println(sys.props("ONLINE_JUDGE")) }',
    "clj": '(println (System/getProperty "ONLINE_JUDGE"))',
}  # fmt: skip
PROGRAMS = (
    (Program("1,000,000 calls deep", "cpp", DEEP, (Case("1000000\n", "1000000\n"),)), Verdict.passed),
    (
        Program("deeper than the memory", "cpp", DEEP, (Case("1000000\n", ""),), limits=Limits(memory_bytes=64 * MIB)),
        Verdict.runtime_error,
    ),
    (Program("without end", "cpp", ENDLESS, (Case("1\n", ""),)), Verdict.runtime_error),
    (Program("all its memory", "cpp", FULL, (Case("", "full\n"),), limits=Limits(memory_bytes=256 * MIB)), Verdict.passed),
    (
        Program("compiled for speed", "cpp", SLOW, (Case("40000\n", "65536\n"),), limits=Limits(cpu_seconds=4)),
        Verdict.passed,
    ),
    (Program("judged online", "cpp", JUDGED, (Case("", "true\n"),)), Verdict.passed),
    (Program("not judged online", "cpp", JUDGED), Verdict.runtime_error),
    (Program("threads with their own stacks", "cpp", THREADS, (Case("", "190\n"),)), Verdict.passed),
    (Program("Python", "py", "import os\nprint(os.environ['ONLINE_JUDGE'])", (Case("", "true"),)), Verdict.passed),
    (Program("Python with tests", "py", "import os\nassert 'ONLINE_JUDGE' not in os.environ"), Verdict.passed),
    (
        Program("Java with less memory", "java", DEPTHS["java"], (Case("300000", "300000"),), limits=Limits(memory_bytes=256 * MIB)),
        Verdict.passed,
    ),
    (
        Program("node with less memory", "js", DEPTHS["js"], (Case("100000", "100000"),), limits=Limits(memory_bytes=256 * MIB)),
        Verdict.passed,
    ),
    (Program("node without end, caught", "js", f"try {{ {UNENDING['js']} }} catch (e) {{ console.log(e.name); }}", (Case("", "RangeError"),)), Verdict.passed),
    (
        Program("Bash", "sh", 'echo "$ONLINE_JUDGE"; ulimit -s >&2', (Case("", "true"),)),
        Verdict.passed,
    ),
)  # fmt: skip
IN_DOCKER = {"ts", "go", "rs", "rb", "pl"}
"""Judged there alone: not every machine has the tools, or they take seconds."""


def of_languages(names: set[str]) -> list[tuple[Program, set[Verdict]]]:
    """Programs and the verdicts that are right."""
    endless = {Verdict.runtime_error, Verdict.memory_exceeded}
    return [
        (Program(f"{title} {name}", name, sources[name], cases), expected)
        for title, sources, cases, expected in (
            ("deep", DEPTHS, (Case("50000\n", "50000\n"), Case("300000\n", "300000\n")), {Verdict.passed}),
            ("endless", UNENDING, (Case("", ""),), endless),
            ("online", ONLINE, (Case("", "true\n"),), {Verdict.passed}),
        )
        for name in sorted(names & sources.keys())
    ]


def judged_as_expected(sandbox: Sandbox, programs: list[tuple[Program, set[Verdict]]]) -> None:
    results = {result.id: result for result in sandbox.run([program for program, _ in programs])}
    wrong = {
        program.id: results[program.id]
        for program, expected in programs
        if results[program.id].verdict not in expected
    }
    assert not wrong


def test_contest_programs_in_all_languages(sandbox: Sandbox) -> None:
    names = {name for name, row in LANGUAGES.items() if row.image != MORE and not sandbox.missing_tools(name)}
    judged_as_expected(sandbox, of_languages(names if sandbox.backend == "docker" else names - IN_DOCKER))


def test_contest_programs_in_languages_of_the_other_image() -> None:
    need_backend("docker")
    build_image(MORE)
    with Sandbox("docker", workers=2) as sandbox:
        judged_as_expected(
            sandbox, of_languages({name for name, row in LANGUAGES.items() if row.image == MORE})
        )


def test_every_language_is_told_of() -> None:
    assert {"cpp", *DEPTHS, *NOT_SO_DEEP} == set(LANGUAGES)


def test_contest_programs(sandbox: Sandbox) -> None:
    results = {result.id: result for result in sandbox.run([program for program, _ in PROGRAMS])}
    found = {id: result.verdict for id, result in results.items()}
    assert found == {program.id: verdict for program, verdict in PROGRAMS}, results
    assert results["not judged online"].exit_code == 3
