"""Compares the sandbox's verdicts with those of plain tools, on this project's own stdin programs in all languages.

    python -m tests.plain_set [--backend docker] [--languages py,java] [--jobs 2] [--keep]

Each program is written to a file unchanged, compiled by a fresh compiler and run in a fresh process, with the backend's tools
(`tests.plain`). The command lists each program whose verdict differs; exit code 1 if there are any.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from sandbox.client import Sandbox
from sandbox.languages import LANGUAGES
from sandbox.verdicts import Case, Program
from tests.plain import in_plain_words, keep, plain_verdicts

CASES = (Case("3 4\n", "7\n"), Case("-1 1\n", "0\n"))

SUMS = {
    "py": "a, b = map(int, input().split())\nprint(a + b)\n",
    "cpp": "#include <iostream>\nint main() {\n    long a, b;\n    std::cin >> a >> b;\n    std::cout << a + b << std::endl;\n}\n",
    "java": "import java.util.Scanner;\npublic class Sum {\n    public static void main(String[] args) {\n"
    "        Scanner in = new Scanner(System.in);\n        System.out.println(in.nextLong() + in.nextLong());\n    }\n}\n",
    "php": "<?php\n[$a, $b] = explode(' ', trim(fgets(STDIN)));\necho $a + $b, \"\\n\";\n",
    "ts": "declare var require: any;\nconst [a, b]: number[] = require('fs').readFileSync(0, 'utf8').split(' ').map(Number);\n"
    "console.log(a + b);\n",
    "cs": "using System;\nusing System.Linq;\nclass Sum {\n    static void Main() {\n"
    "        Console.WriteLine(Console.ReadLine().Split(' ').Select(long.Parse).Sum());\n    }\n}\n",
    "sh": "read -r a b\necho $((a + b))\n",
    "js": "const [a, b] = require('fs').readFileSync(0, 'utf8').split(' ').map(Number);\nconsole.log(a + b);\n",
    "go": 'package main\n\nimport "fmt"\n\nfunc main() {\n\tvar a, b int\n\tfmt.Scan(&a, &b)\n\tfmt.Println(a + b)\n}\n',
    "rs": "use std::io::Read;\n\nfn main() {\n    let mut text = String::new();\n    std::io::stdin().read_to_string(&mut text).unwrap();\n"
    '    let sum: i64 = text.split_whitespace().map(|x| x.parse::<i64>().unwrap()).sum();\n    println!("{}", sum);\n}\n',
    "rb": "puts gets.split.map(&:to_i).sum\n",
    "lua": 'local a, b = io.read("n", "n")\nprint(a + b)\n',
    "pl": 'my ($a, $b) = split " ", <STDIN>;\nprint $a + $b, "\\n";\n',
    "r": 'x <- scan(file("stdin"), quiet = TRUE)\ncat(sum(x), "\\n", sep = "")\n',
    "d": 'import std.stdio;\n\nvoid main() {\n    long a, b;\n    readf(" %d %d", &a, &b);\n    writeln(a + b);\n}\n',
    "rkt": "#lang racket\n(define a (read))\n(define b (read))\n(displayln (+ a b))\n",
    "ml": 'let () = Scanf.scanf " %d %d" (fun a b -> print_int (a + b); print_newline ())\n',
    "hs": 'main :: IO ()\nmain = interact (\\text -> show (sum (map read (words text) :: [Int])) ++ "\\n")\n',
    "ex": 'IO.gets("")\n|> String.split()\n|> Enum.map(&String.to_integer/1)\n|> Enum.sum()\n|> IO.puts()\n',
    "scala": 'object Sum {\n  def main(args: Array[String]): Unit =\n    println(scala.io.StdIn.readLine().split(" ").map(_.toLong).sum)\n}\n',
    "clj": "(println (+ (read) (read)))\n",
}
"""By language: the sum of two numbers, read and printed as the language usually does."""

BY_NAME = {
    "py": "a, b = map(int, open('/dev/stdin').read().split())\nopen('/dev/stderr', 'w').write('adding')\n"
    "print(a + b, file=open('/dev/stdout', 'w'))\n",
    "cpp": '#include <fstream>\nint main() {\n    std::ifstream in("/dev/stdin");\n    std::ofstream out("/dev/stdout"), note("/dev/stderr");\n'
    '    long a, b;\n    in >> a >> b;\n    note << "adding";\n    out << a + b << "\\n";\n}\n',
    "java": "import java.io.*;\nimport java.util.Scanner;\npublic class Named {\n"
    "    public static void main(String[] args) throws IOException {\n"
    '        Scanner in = new Scanner(new File("/dev/stdin"));\n'
    '        try (FileWriter out = new FileWriter("/dev/stdout")) {\n'
    '            out.write(in.nextLong() + in.nextLong() + "\\n");\n        }\n    }\n}\n',
    "php": "<?php\n[$a, $b] = explode(' ', trim(stream_get_contents(fopen('php://stdin', 'r'))));\nfile_put_contents('php://stderr', 'adding');\n"
    "file_put_contents('php://stdout', ($a + $b) . \"\\n\");\n",
    "ts": "declare var require: any;\nconst fs = require('fs');\n"
    "const [a, b]: number[] = fs.readFileSync('/dev/stdin', 'utf8').split(' ').map(Number);\n"
    "fs.writeFileSync('/dev/stdout', `${a + b}\\n`);\n",
    "cs": "using System;\nusing System.IO;\nclass Named {\n    static void Main() {\n"
    "        var x = new StreamReader(\"/dev/stdin\").ReadLine().Split(' ');\n"
    "        Console.WriteLine(long.Parse(x[0]) + long.Parse(x[1]));\n    }\n}\n",
    "sh": "read -r a b < /dev/stdin\necho adding > /dev/stderr\necho $((a + b)) > /dev/stdout\n",
    "js": "const fs = require('fs');\nconst [a, b] = fs.readFileSync('/dev/stdin', 'utf8').split(' ').map(Number);\n"
    "fs.writeFileSync('/dev/stderr', 'adding');\nfs.writeFileSync('/dev/stdout', `${a + b}\\n`);\n",
    "go": 'package main\n\nimport (\n\t"fmt"\n\t"os"\n)\n\nfunc main() {\n\tin, err := os.Open("/dev/stdin")\n\tif err != nil {\n\t\tpanic(err)\n\t}\n'
    '\tout, err := os.OpenFile("/dev/stdout", os.O_WRONLY, 0)\n\tif err != nil {\n\t\tpanic(err)\n\t}\n'
    "\tvar a, b int\n\tfmt.Fscan(in, &a, &b)\n\tfmt.Fprintln(out, a+b)\n}\n",
    "rs": 'fn main() {\n    let text = std::fs::read_to_string("/dev/stdin").unwrap();\n'
    "    let sum: i64 = text.split_whitespace().map(|x| x.parse::<i64>().unwrap()).sum();\n"
    '    std::fs::write("/dev/stdout", format!("{}\\n", sum)).unwrap();\n}\n',
    "rb": "x = File.read('/dev/stdin').split.map(&:to_i)\nFile.write('/dev/stderr', 'adding')\nFile.open('/dev/stdout', 'w') { |out| out.puts x.sum }\n",
    "lua": 'local input = assert(io.open("/dev/stdin"))\nlocal a, b = input:read("n", "n")\n'
    'assert(io.open("/dev/stdout", "w")):write(a + b, "\\n")\n',
    "pl": 'open(my $in, "<", "/dev/stdin") or die;\nopen(my $out, ">", "/dev/stdout") or die;\n'
    'my ($a, $b) = split " ", <$in>;\nprint $out $a + $b, "\\n";\n',
    "r": 'x <- scan("/dev/stdin", quiet = TRUE)\ncat(sum(x), "\\n", sep = "", file = "/dev/stdout")\n',
    "d": 'import std.stdio;\n\nvoid main() {\n    auto input = File("/dev/stdin");\n    long a, b;\n    input.readf(" %d %d", &a, &b);\n'
    '    File("/dev/stdout", "w").writeln(a + b);\n}\n',
    "rkt": '#lang racket\n(define in (open-input-file "/dev/stdin"))\n(define a (read in))\n(define b (read in))\n(displayln (+ a b))\n',
    "ml": 'let () =\n  let input = Scanf.Scanning.open_in "/dev/stdin" in\n'
    '  let output = open_out "/dev/stdout" in\n  Scanf.bscanf input " %d %d" (fun a b -> Printf.fprintf output "%d\\n" (a + b));\n  close_out output\n',
    "hs": 'main :: IO ()\nmain = do\n  text <- readFile "/dev/stdin"\n  print (sum (map read (words text) :: [Int]))\n',
    "ex": 'File.write!("/dev/stdout", "#{File.stream!("/dev/stdin") |> Enum.at(0) |> String.split() |> Enum.map(&String.to_integer/1) |> Enum.sum()}\\n")\n',
    "scala": "object Named {\n  def main(args: Array[String]): Unit =\n"
    '    println(scala.io.Source.fromFile("/dev/stdin").mkString.trim.split(" ").map(_.toLong).sum)\n}\n',
    "clj": '(let [in (java.io.PushbackReader. (java.io.FileReader. "/dev/stdin"))]\n  (println (+ (read in) (read in))))\n',
}
"""The same, from and to files of these names: contest solutions do so."""

EXIT_3 = {
    "py": "import sys\nsys.exit(3)\n",
    "php": "exit(3);\n",
    "ts": "declare var process: any;\nprocess.exitCode = 3;\n",
    "sh": "exit 3\n",
    "js": "process.exitCode = 3;\n",
    "rb": "exit 3\n",
    "lua": "os.exit(3)\n",
    "pl": "exit 3;\n",
    "r": "quit('no', 3)\n",
    "rkt": "(exit 3)\n",
    "ml": "let () = exit 3\n",
    "ex": "System.halt(3)\n",
    "clj": "(System/exit 3)\n",
}
"""What goes behind the right program for it to end with exit code 3, where a program ends at its last line."""


def variants(name: str) -> Iterator[tuple[str, str]]:
    """The programs of one language, each with a title that says what is special about it."""
    right = SUMS[name]
    yield "as usual", right
    yield "by name", BY_NAME[name]
    yield "a byte order mark", "\ufeff" + right
    yield "CRLF", right.replace("\n", "\r\n")
    yield "no newline at its end", right.rstrip("\n")
    yield (
        "wrong",
        right.replace("+ b", "- b")
        .replace("+ $b", "- $b")
        .replace("+ in.", "- in.")
        .replace("sum", "max")
        .replace("Sum()", "Max()")
        .replace("(+ ", "(- "),
    )
    yield "cut off", right[: len(right) * 2 // 3]
    yield "empty", ""
    if name in EXIT_3:
        yield "exit code 3", right + EXIT_3[name]


_CPP_MAIN = "int main() { long a, b; std::cin >> a >> b; std::cout << a + b << std::endl; }\n"
_IS_MAIN = 'a + b + !strstr(__FILE__, "main.cpp")'
_STD = "#include <bits/stdc++.h>\nusing namespace std;\n"
_C = "#include <cstdio>\n"
_C_MAIN = 'int main() { long a, b; if (scanf("%ld %ld", &a, &b) == 2) printf("%ld\\n", a + b); }\n'

CPP = {
    "no include": _CPP_MAIN,
    "iostream alone": f"#include <iostream>\n{_CPP_MAIN}",
    "strlen without its header": f'#include <cstdio>\n{_C_MAIN[:-2]} return strlen(""); }}\n',
    "sort without its header": f"#include <iostream>\nint x[3];\nvoid f() {{ std::sort(x, x + 3); }}\n{_CPP_MAIN}",
    "a global count": f"#include <iostream>\nusing namespace std;\nint count = 0;\n{_CPP_MAIN.replace('a + b', 'a + b + count')}",
    "a global count, all headers": f"{_STD}int count = 0;\n{_CPP_MAIN.replace('a + b', 'a + b + count')}",
    "a global y1": f"{_C}int y1 = 0;\n{_C_MAIN.replace('a + b', 'a + b + y1')}",
    "a global y1 beside cmath": f"#include <cmath>\n{_C}int y1 = 0;\n{_C_MAIN}",
    "a global map": f"#include <iostream>\nint map[9][9], stack[9], queue;\n{_CPP_MAIN}",
    "a global map, namespace std": f"{_STD}int map[9][9];\n{_CPP_MAIN.replace('a + b', 'a + b + map[0][0]')}",
    "a clamp of its own": f"{_STD}template <class T> T clamp(T x, T low, T high) {{ return min(max(x, low), high); }}\n"
    f"{_CPP_MAIN.replace('a + b', 'clamp(a + b, -9L, 9L)')}",
    "a clamp of its own, C++14's headers": "#include <iostream>\nusing namespace std;\n"
    f"long clamp(long x, long low, long high) {{ return x < low ? low : x > high ? high : x; }}\n{_CPP_MAIN.replace('a + b', 'clamp(a + b, -9, 9)')}",
    "a mutex of its own": f"#include <iostream>\nusing namespace std;\nbool mutex[3];\n{_CPP_MAIN}",
    "link": f"#include <iostream>\nint link[5], time, index;\n{_CPP_MAIN}",
    "link beside unistd": f"#include <unistd.h>\n#include <iostream>\nint link[5];\n{_CPP_MAIN}",
    "hash, data, size, rank, next": f"#include <iostream>\nint hash, data, size, rank, next, prev, distance, begin;\n{_CPP_MAIN}",
    "hash and data, namespace std": f"{_STD}int hash, data;\n{_CPP_MAIN.replace('a + b', 'a + b + data')}",
    "a complex of its own": f"#include <iostream>\nstruct complex {{ double re, im; }};\n{_CPP_MAIN}",
    "a macro before the headers": f"#define _GLIBCXX_DEBUG\n#include <vector>\n#include <iostream>\nstd::vector<int> v(1);\n{_CPP_MAIN.replace('a + b', 'a + b + v[3]')}",
    "int is long long": "#include <iostream>\n#define int long long\nsigned main() { int a, b; std::cin >> a >> b; std::cout << a + b; }\n",
    "int is long long, before": "#define int long long\n#include <iostream>\nsigned main() { int a, b; std::cin >> a >> b; std::cout << a + b; }\n",
    "a pragma first": f'#pragma GCC optimize("O2")\n#include <bits/stdc++.h>\n{_CPP_MAIN}',
    "headers after code": f"#include <cstdio>\nlong sum(long a, long b) {{ return a + b; }}\n#include <iostream>\n{_CPP_MAIN.replace('a + b', 'sum(a, b)')}",
    "headers under a condition": f"#ifdef NOBODY_DEFINES_THIS\n#include <iostream>\n#else\n#include <bits/stdc++.h>\n#endif\n{_CPP_MAIN}",
    "headers under a false condition": f"#if 0\n#include <iostream>\n#endif\n{_CPP_MAIN}",
    "headers in a comment": f"/*\n#include <iostream>\n*/\n{_CPP_MAIN}",
    "headers in a raw string": f'const char* text = R"(\n#include <iostream>\n)";\n{_CPP_MAIN}',
    "comments between headers": f"#include <cstdio> // first\n/* then */ #include <iostream>\n# include\t<vector>\n{_CPP_MAIN}",
    "a header in quotes": f'#include "bits/stdc++.h"\n{_CPP_MAIN}',
    "a header that is nowhere": f"#include <nowhere.h>\n#include <iostream>\n{_CPP_MAIN}",
    "a line that goes on": f"#include \\\n<iostream>\n{_CPP_MAIN}",
    "its line": f"#include <iostream>\nstatic_assert(__LINE__ == 2);\n{_CPP_MAIN}",
    "its file": f"#include <iostream>\n#include <cstring>\n{_CPP_MAIN.replace('a + b', _IS_MAIN)}",
    "a counter": f"#include <iostream>\nstatic_assert(__COUNTER__ == 0);\n{_CPP_MAIN}",
    "the depth of headers": f"#include <iostream>\nstatic_assert(__INCLUDE_LEVEL__ == 0);\n{_CPP_MAIN}",
    "an assertion": f"#include <cassert>\n#include <iostream>\n{_CPP_MAIN.replace('std::cout', 'assert(a < 0); std::cout')}",
    "NDEBUG": f"#define NDEBUG\n#include <cassert>\n#include <iostream>\n{_CPP_MAIN.replace('std::cout', 'assert(a > 9); std::cout')}",
    "NDEBUG after": f"#include <cassert>\n#include <iostream>\n#define NDEBUG\n#include <cassert>\n{_CPP_MAIN.replace('std::cout', 'assert(a > 9); std::cout')}",
    "a thread": f"#include <future>\n#include <iostream>\n{_CPP_MAIN.replace('a + b', 'std::async(std::launch::deferred, [=] { return a + b; }).get()')}",
    "a thread, all headers": f"{_STD}{_CPP_MAIN.replace('a + b', 'async(launch::deferred, [=] { return a + b; }).get()')}",
    "async is a name of its own": f"#include <bits/stdc++.h>\nlong async(long a) {{ return a; }}\n{_CPP_MAIN.replace('a + b', 'async(a + b)')}",
    "async is a name of its own, namespace std": f"{_STD}int async, future, launch;\n{_CPP_MAIN.replace('a + b', 'a + b + future')}",
    "a file system": f"{_STD}{_CPP_MAIN.replace('a + b', 'a + b + filesystem::path().string().size()')}",
    "a name put together": f"{_STD}#define JOIN(a, b) a##b\nJOIN(fut, ure)<long> f;\n{_CPP_MAIN.replace('a + b', 'a + b + f.valid()')}",
    "a name over two lines": f"{_STD}fut\\\nure<long> f;\n{_CPP_MAIN.replace('a + b', 'a + b + f.valid()')}",
    "the header's own macro": f"#include <bits/stdc++.h>\n#ifndef _GLIBCXX_FS_PATH_H\n#error\n#endif\n{_CPP_MAIN}",
    "a max of its own": "#include <iostream>\ntemplate <class T> T max(T a, T b) { return a < b ? b : a; }\n"
    f"{_CPP_MAIN.replace('a + b', 'max(a + b, -9L)')}",
    "a max of its own, namespace std": f"{_STD}template <class T> T max(T a, T b) {{ return a < b ? b : a; }}\n{_CPP_MAIN.replace('a + b', 'max(a + b, -9L)')}",
    "a swap of its own": f"{_STD}void swap(long& a, long& b) {{ long c = a; a = b; b = c; }}\n{_CPP_MAIN.replace('std::cout', 'swap(a, b); std::cout')}",
    "a queue of its own": f"#include <cstdio>\nusing namespace std;\nstruct queue {{ int head, tail; }} q;\n{_C_MAIN}",
    "a vector of its own": f"#include <cstdio>\n#include <cstdlib>\nstruct vector {{ double x, y; }} v;\nusing namespace std;\n{_C_MAIN}",
    "a global j1 and yn": f"#include <stdio.h>\nint j0, j1, y0, yn, gamma;\n{_C_MAIN}",
    "a global y1 beside all headers": f"{_STD}int y1;\n{_CPP_MAIN}",
    "a global time beside its header": f"#include <ctime>\n#include <iostream>\nint time;\n{_CPP_MAIN}",
    "a global remove": f"#include <iostream>\n#include <vector>\nint remove(int x) {{ return x; }}\n{_CPP_MAIN.replace('a + b', 'a + remove(b)')}",
    "a global read beside unistd": "#include <unistd.h>\n#include <iostream>\nlong read() { long x; std::cin >> x; return x; }\nint main() { std::cout << read() + read(); }\n",
    "a function named read": '#include <cstdio>\nlong read() { long x; return scanf("%ld", &x) == 1 ? x : 0; }\nint main() { printf("%ld\\n", read() + read()); }\n',
    "a global end": f"{_STD}int end;\n{_CPP_MAIN.replace('a + b', 'a + b + end')}",
    "ranges": f"{_STD}{_CPP_MAIN.replace('a + b', 'a + b + ranges::distance(vector<int>())')}",
    "a byte": f"#include <iostream>\n#include <cstddef>\nusing namespace std;\ntypedef unsigned char byte;\nbyte zero;\n{_CPP_MAIN}",
    "a byte without its header": f"#include <stdio.h>\nusing namespace std;\ntypedef unsigned char byte;\nbyte zero;\n{_C_MAIN}",
    "memset without its header": f"#include <iostream>\nint x[9];\n{_CPP_MAIN.replace('std::cout', 'memset(x, 0, sizeof x); std::cout')}",
    "INT_MAX without its header": f"#include <iostream>\nint most = INT_MAX;\n{_CPP_MAIN}",
    "a set without its header": f"#include <iostream>\nstd::set<int> all;\n{_CPP_MAIN}",
    "printf without its header": f"#include <vector>\nusing namespace std;\n{_C_MAIN}",
    "cout without its header": f"#include <vector>\n#include <string>\n{_CPP_MAIN}",
    "sqrt and abs by cmath": f"#include <cmath>\n#include <iostream>\n{_CPP_MAIN.replace('a + b', 'a + b + std::sqrt(0.0) + std::abs(-0.0)')}",
    "private is public": "#include <iostream>\n#define private public\n#include <vector>\n#undef private\nclass A { private: long x = 0; } it;\n"
    f"{_CPP_MAIN.replace('a + b', 'a + b')}",
    "a macro between headers": f"#include <iostream>\n#define _USE_MATH_DEFINES\n#define vector list\n#include <list>\n{_CPP_MAIN.replace('a + b', 'a + b + std::vector<int>().size()')}",
    "concepts of a later standard": f"#include <iostream>\n#include <concepts>\n#include <span>\n{_CPP_MAIN}",
    "a later standard": f"{_STD}auto span_of(auto x) {{ return std::span(x); }}\n{_CPP_MAIN}",
    "pragma target": f'#pragma GCC optimize("O3,unroll-loops")\n#pragma GCC target("sse4.2")\n{_STD}{_CPP_MAIN}',
    "pragma after headers": f'{_STD}#pragma GCC optimize("O3")\n{_CPP_MAIN}',
    "pragma once": f"#pragma once\n#include <iostream>\n{_CPP_MAIN}",
    "poison": f"#include <iostream>\n#pragma GCC poison printf\n#include <cstdio>\n{_CPP_MAIN}",
    "import": f"#import <iostream>\n{_CPP_MAIN}",
    "a module": f"import <iostream>;\n{_CPP_MAIN}",
    "a digraph": f"%:include <iostream>\n{_CPP_MAIN}",
    "a header by macro": f"#define STREAMS <iostream>\n#include STREAMS\n{_CPP_MAIN}",
    "has_include": f"#if __has_include(<bits/stdc++.h>)\n#include <bits/stdc++.h>\n#endif\n{_CPP_MAIN}",
    "a comment that goes on": f"// all \\\n#include <iostream>\n{_CPP_MAIN}",
    "a comment that goes on behind a blank": f"// all \\ \n#include <iostream>\n{_CPP_MAIN}",
    "a trigraph": f"// all ??/\n#include <iostream>\n{_CPP_MAIN}",
    "a comment that ends over two lines": f"/* all *\\\n/\n#include <iostream>\n/* */\n{_CPP_MAIN}",
    "a comment in the way": f"#include <cstdio> /* and\nthen */ #include <iostream>\n{_CPP_MAIN}",
    "a comment without end": f"/* #include <iostream>\n{_CPP_MAIN}",
    "words behind a header": f"#include <iostream> and more\n{_CPP_MAIN}",
    "a BOM, comments and CRLF": f"\ufeff// sum\r\n#include <bits/stdc++.h>\r\nusing namespace std;\r\n{_CPP_MAIN}",
    "a header in a folder": f"#include <sys/time.h>\n#include <iostream>\ntimeval t;\n{_CPP_MAIN}",
    "a header by its path": f"#include <../include/stdio.h>\n{_C_MAIN}",
    "a policy tree": "#include <ext/pb_ds/assoc_container.hpp>\n#include <bits/stdc++.h>\n__gnu_pbds::gp_hash_table<long, long> t;\n"
    f"{_CPP_MAIN.replace('a + b', 'a + b + t[3]')}",
    "twice the same": f"#include <iostream>\n#include <bits/stdc++.h>\n#include <iostream>\n#include <bits/stdc++.h>\n#include <vector>\n{_CPP_MAIN}",
    "C's and C++'s": f"#include <math.h>\n#include <cmath>\n#include <stdlib.h>\n#include <bits/stdc++.h>\nusing namespace std;\n"
    f"{_CPP_MAIN.replace('a + b', 'a + b + abs(0.25) - fabs(0.25) + isnan(1.0)')}",
    "main without int": "#include <bits/stdc++.h>\nmain() { }\n",
    "a warning": f"#include <iostream>\nint f() {{ }}\n{_CPP_MAIN}",
    "its function": f"#include <iostream>\n{_CPP_MAIN.replace('a + b', 'a + b + sizeof(__func__) - 5')}",
    "an answer to the judge": '#include <cstdio>\n#include <cstdlib>\nint main() {\n#ifdef ONLINE_JUDGE\n    if (!getenv("ONLINE_JUDGE")) return 2;\n'
    '#else\n    if (getenv("ONLINE_JUDGE")) return 2;\n#endif\n    long a, b;\n    if (scanf("%ld %ld", &a, &b) == 2) printf("%ld\\n", a + b);\n}\n',
    "300,000 calls deep": f"#include <iostream>\nlong down(long n) {{ volatile long x[20] = {{n}}; return n ? down(n - 1) + x[0] - n : 0; }}\n"
    f"{_CPP_MAIN.replace('a + b', 'a + b + down(a < 0 || a > 2 ? 300000 : 0)')}",
}

_JAVA_MAIN = (
    "public static void main(String[] args) { java.util.Scanner in = new java.util.Scanner(System.in); "
    "System.out.println(in.nextLong() + in.nextLong()); }"
)
JAVA = {
    "a package": f"package contest.one;\npublic class Main {{ {_JAVA_MAIN} }}\n",
    "a record": f"public record Main(int x) {{ {_JAVA_MAIN} }}\n",
    "an enum": f"public enum Main {{ ONE; {_JAVA_MAIN} }}\n",
    "an interface": f"interface Main {{ {_JAVA_MAIN.removeprefix('public ')} }}\n",
    "no public class": f"class Sum {{ {_JAVA_MAIN} }}\n",
    "a helper first": f"class Helper {{ int x; }}\npublic class Main {{ {_JAVA_MAIN} }}\n",
    "a helper last": f"public class Main {{ {_JAVA_MAIN} }}\nclass Helper {{ int x; }}\n",
    "an annotation": f'@SuppressWarnings("unchecked") public final class Main {{ {_JAVA_MAIN} }}\n',
    "modifiers in another order": f"final public class Main {{ {_JAVA_MAIN.replace('public static', 'static public')} }}\n",
    "indented": f"    public class Main {{\n        {_JAVA_MAIN}\n    }}\n",
    "nested at the margin": f"public class Main {{\nstatic class Inner {{ int x; }}\nclass Other {{ }}\n{_JAVA_MAIN}\n}}\n",
    "main in a nested class as well": f"public class Main {{ static class Inner {{ public static void main(String[] a) {{ }} }} {_JAVA_MAIN} }}\n",
    "main in a comment": f"// class Wrong {{ public static void main(String[] a) {{}} }}\npublic class Main {{ {_JAVA_MAIN} }}\n",
    "main in a text block": f'public class Main {{ {_JAVA_MAIN} static String s = """\n    public class Wrong {{ public static void main(String[] a)\n    """; }}\n',
    "class in a string": f'public class Main {{ static String s = "public class Wrong {{"; {_JAVA_MAIN} }}\n',
    "on lines of their own": f"public\nclass\nMain\n{{\n{_JAVA_MAIN}\n}}\n",
    "generic": f"public class Main<T extends Comparable<T>> {{ {_JAVA_MAIN} }}\n",
    "final varargs": f"public class Main {{ {_JAVA_MAIN.replace('String[] args', 'final String... args')} }}\n",
    "an inherited main": f"public class Main extends Base {{ }}\nclass Base {{ {_JAVA_MAIN} }}\n",
    "two public classes": f"public class Main {{ {_JAVA_MAIN} }}\npublic class Second {{ }}\n",
    "no main": "public class Main { static void run() { } }\n",
    "a unicode escape": f"public class M\\u0061in {{ {_JAVA_MAIN} }}\n",
    "a letter that is not ASCII": f"public class Zähler {{ {_JAVA_MAIN} }}\n",
    "a dollar": f"public class Main$1 {{ {_JAVA_MAIN} }}\n",
    "sealed": f"sealed interface Shape permits Round {{ }}\nrecord Round(int r) implements Shape {{ }}\npublic class Main {{ {_JAVA_MAIN} }}\n",
}

_PY = "import sys\na, b = map(int, sys.stdin.readline().split())\n"
PYTHON = {
    "sys.__stdout__": f"{_PY}sys.__stdout__.write(f'{{a + b}}\\n')\n",
    "a saved stdout": f"{_PY}import io\nkept = sys.stdout\nsys.stdout = io.StringIO()\nprint('lost')\nkept.write(str(a + b))\n",
    "descriptor 1 opened": f"{_PY}out = open(1, 'w', closefd=False)\nout.write(str(a + b))\n",
    "descriptor 1 opened in a function": f"{_PY}def f():\n    out = open(1, 'w', closefd=False)\n    out.write(str(a + b))\nf()\n",
    "descriptor 1 opened and closed": f"{_PY}with open(1, 'w') as out:\n    out.write(str(a + b))\n",
    "os.fdopen of a copy": f"{_PY}import os\nout = os.fdopen(os.dup(1), 'w')\nout.write(str(a + b))\n",
    "a wrapper of its own": f"{_PY}import io\nsys.stdout = io.TextIOWrapper(sys.stdout.buffer, 'utf-8')\nprint(a + b)\n",
    "a large buffer": f"{_PY}import io\nout = io.BufferedWriter(io.FileIO(1, 'w', closefd=False), 1 << 20)\nout.write(str(a + b).encode())\n",
    "atexit": f"{_PY}import atexit\natexit.register(lambda: print(a + b))\n",
    "atexit, in order": f"{_PY}import atexit\natexit.register(print)\natexit.register(print, a + b, end='')\n",
    "a destructor": f"{_PY}class Last:\n    def __del__(self):\n        print(a + b)\nlast = Last()\n",
    "a destructor in a cycle": f"{_PY}class Last:\n    def __del__(self):\n        sys.stdout.write(f'{{a + b}}\\n')\nlast = Last()\nlast.itself = last\n",
    "a thread that goes on": f"{_PY}import threading, time\ndef later():\n    time.sleep(0.1)\n    print(a + b)\nthreading.Thread(target=later).start()\n",
    "a daemon thread": f"{_PY}import threading, time\ndef later():\n    time.sleep(5)\n    print('late')\nthreading.Thread(target=later, daemon=True).start()\nprint(a + b)\n",
    "redirected and printed at the end": f"{_PY}import atexit, contextlib, io\ntext = io.StringIO()\nwith contextlib.redirect_stdout(text):\n    print(a + b)\n"
    "atexit.register(lambda: print(text.getvalue()))\n",
    "a generator's finally": f"{_PY}def g():\n    try:\n        yield\n    finally:\n        print(a + b)\nit = g()\nnext(it)\n",
    "weakref.finalize": f"{_PY}import weakref\nclass A: pass\nkept = A()\nweakref.finalize(kept, print, a + b)\n",
    "sys.exit in atexit": f"{_PY}import atexit\nprint(a + b)\natexit.register(lambda: sys.exit(3))\n",
    "an exception in a destructor": f"{_PY}class Last:\n    def __del__(self):\n        raise ValueError\nlast = Last()\nprint(a + b)\n",
    "os._exit": f"{_PY}import os\nprint(a + b)\nos._exit(0)\n",
    "os._exit after a flush": f"{_PY}import os\nprint(a + b, flush=True)\nos._exit(0)\n",
    "a pool": f"{_PY}from concurrent.futures import ThreadPoolExecutor\npool = ThreadPoolExecutor(2)\npool.submit(lambda: print(a + b))\n",
    "a fork": f"{_PY}import os\nif os.fork() == 0:\n    print(a + b)\nelse:\n    os.wait()\n",
    "logging": f"{_PY}import logging\nlogging.basicConfig(stream=sys.stdout, format='%(message)s')\nlogging.warning(a + b)\n",
    "a NUL": f"{_PY}print(a + b)\n\0",
    "a NUL in the middle": f"{_PY}print(a + b) \0 + 1\n",
    "a form feed": f"{_PY}\fprint(a + b)\n",
    "a coding": f"# -*- coding: latin-1 -*-\n{_PY}print(a + b)\n",
    "a mark and a coding": f"\ufeff# -*- coding: latin-1 -*-\n{_PY}print(a + b)\n",
}
"""What contest solutions, and others' tests, do at a program's end; and bytes in its source."""

SPECIAL: Mapping[str, Mapping[str, str]] = {"cpp": CPP, "java": JAVA, "py": PYTHON}


def programs(languages: list[str]) -> Iterator[Program]:
    """The programs in `languages`."""
    for name in languages:
        for title, source in [*variants(name), *SPECIAL.get(name, {}).items()]:
            yield Program(f"{name}: {title}", name, source, CASES)
        for title, source in CPP.items() if name == "cpp" else ():  # compiled with other options
            yield Program(f"{name}: {title}, no cases", name, source)


def differences(
    every: Sequence[Program], plain: Mapping[str, list[str]], backend: str, jobs: int
) -> list[str]:
    """A line for each program whose verdict in the sandbox differs from `plain`."""
    with Sandbox(backend, jobs) as sandbox:  # type: ignore[arg-type]
        return [
            f"{result.id}: plain {plain[result.id][0]}, sandbox {result.verdict}; {result.stdout[-100:]!r} {result.stderr[-300:]!r}"
            for result in sandbox.run(every)
            if in_plain_words(result.verdict) != plain[result.id][0]
        ]


def main() -> int:
    """Run it."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--backend", default="docker")
    options.add_argument("--languages", default=",".join(LANGUAGES))
    options.add_argument("--jobs", type=int, default=2)
    options.add_argument(
        "--keep", action="store_true", help="add what the plain tools say to tests.plain.KEPT"
    )
    asked = options.parse_args()
    every = list(programs(asked.languages.split(",")))
    plain = plain_verdicts(every, asked.backend, asked.jobs)
    if asked.keep:
        keep(every, asked.backend, plain)
    lines = differences(every, plain, asked.backend, asked.jobs)
    for line in lines:
        print("differs", line)
    counts = Counter(verdict for (verdict, *_) in plain.values()).most_common()
    said = ", ".join(f"{count} {verdict}" for verdict, count in counts)
    print(f"{len(every)} programs ({said}), {len(lines)} differ")
    return int(bool(lines))


if __name__ == "__main__":
    sys.exit(main())
