"""Test data: answers to one small problem, the sum of the squares of 1..n, in every language and in the styles of models.

`PIECES` has the pieces for each language; `styles` combines them. Every answer is right except in the style
`wrong_in_the_end`."""

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Pieces:
    """The pieces of one language. `body`: a completion that is right unchanged. `plain`: a definition without dependencies. `wrong`: a
    wrong one. `renamed`: with another parameter name. `short`: on as few lines as the language allows. `uses_helper`,
    `uses_constant`, `uses_import`: definitions that need `helper`, `constant`, `imports`. `file`: a complete program with the definition,
    a main program and examples of use. `held`: a definition in a class or module, if the language has them. `usage`: a call. `end`:
    the text that closes a completion."""

    tag: str
    prompt: str
    tests: str
    body: str
    plain: str
    wrong: str
    renamed: str
    short: str
    helper: str
    uses_helper: str
    constant: str
    uses_constant: str
    imports: str
    uses_import: str
    file: str
    usage: str
    held: str = ""


_JS_TESTS = """const assert = require('node:assert');


function test() {
  let candidate = squares;
  assert.deepEqual(candidate(3),14);
  assert.deepEqual(candidate(0),0);
}

test();"""

_JS = Pieces(
    tag="javascript",
    prompt="//Sum of the squares of 1..n.\nfunction squares(n){\n",
    tests=_JS_TESTS,
    body="  let s = 0;\n  for (let i = 1; i <= n; i++) { s += i * i; }\n  return s;\n}",
    plain="function squares(n) {\n  let s = 0;\n  for (let i = 1; i <= n; i++) {\n    s += i * i;\n  }\n  return s;\n}",
    wrong="function squares(n) {\n  return n * n;\n}",
    renamed="function squares(count) {\n  let s = 0;\n  for (let i = 1; i <= count; i++) s += i * i;\n  return s;\n}",
    short="const squares = (n) => n * (n + 1) * (2 * n + 1) / 6;",
    helper="function sq(x) {\n  return x * x;\n}",
    uses_helper="function squares(n) {\n  let s = 0;\n  for (let i = 1; i <= n; i++) s += sq(i);\n  return s;\n}",
    constant="const POWER = 2;",
    uses_constant="function squares(n) {\n  let s = 0;\n  for (let i = 1; i <= n; i++) s += i ** POWER;\n  return s;\n}",
    imports="const path = require('path');",
    uses_import="function squares(n) {\n  if (path.sep === '') return -1;\n  let s = 0;\n  for (let i = 1; i <= n; i++) s += i * i;\n  return s;\n}",
    file="'use strict';\n\nfunction squares(n) {\n  let s = 0;\n  for (let i = 1; i <= n; i++) {\n    s += i * i;\n  }\n  return s;\n}\n\n"
    "function main() {\n  const n = parseInt(require('fs').readFileSync(0, 'utf8'));\n  console.log(squares(n));\n}\n\nif (require.main === module) {\n  main();\n}\n\nmodule.exports = { squares };",
    usage="// Example usage:\nconst n = 3;\nconsole.log(squares(n)); // 14",
    held="class Solution {\n  square(x) {\n    return x * x;\n  }\n\n  squares(n) {\n    let s = 0;\n    for (let i = 1; i <= n; i++) s += this.square(i);\n    return s;\n  }\n}",
)

PIECES = {
    "py": Pieces(
        tag="python",
        prompt='def squares(n: int) -> int:\n    """ Sum of the squares of 1..n.\n    >>> squares(3)\n    14\n    """\n',
        tests="def check(candidate):\n    assert candidate(3) == 14\n    assert candidate(0) == 0\n\ncheck(squares)\n",
        body="    return sum(i * i for i in range(n + 1))",
        plain='def squares(n: int) -> int:\n    """Sum of the squares."""\n    total = 0\n    for i in range(1, n + 1):\n        total += i * i\n    return total',
        wrong="def squares(n):\n    return n * n",
        renamed="def squares(limit):\n    return sum(i * i for i in range(limit + 1))",
        short="def squares(n): return n * (n + 1) * (2 * n + 1) // 6",
        helper="def _sq(x):\n    return x * x",
        uses_helper="def squares(n):\n    return sum(_sq(i) for i in range(n + 1))",
        constant="POWER = 2",
        uses_constant="def squares(n):\n    return sum(i ** POWER for i in range(n + 1))",
        imports="from functools import reduce",
        uses_import="def squares(n):\n    return reduce(lambda s, i: s + i * i, range(n + 1), 0)",
        file="#!/usr/bin/env python3\n\nimport sys\n\n\ndef squares(n):\n    return sum(i * i for i in range(n + 1))\n\n\n"
        "def main():\n    n = int(sys.stdin.readline())\n    print(squares(n))\n\n\ndef test_squares():\n    assert squares(3) == 14\n\n\nif __name__ == '__main__':\n    main()",
        usage="# Example usage\nn = int(input())\nprint(squares(n))",
        held="class Solution:\n    def square(self, x):\n        return x * x\n\n    def squares(self, n):\n        return sum(self.square(i) for i in range(n + 1))",
    ),
    "cpp": Pieces(
        tag="cpp",
        prompt="#include<assert.h>\n#include<bits/stdc++.h>\n// Sum of the squares of 1..n.\nlong squares(long n) {\n",
        tests="}\nint main() {\n    auto candidate = squares;\n    assert(candidate((3)) == (14));\n    assert(candidate((0)) == (0));\n}\n",
        body="    long s = 0;\n    for (long i = 1; i <= n; i++) s += i * i;\n    return s;",
        plain="#include <iostream>\n\nlong squares(long n) {\n    long s = 0;\n    for (long i = 1; i <= n; ++i) {\n        s += i * i;\n    }\n    return s;\n}",
        wrong="long squares(long n) {\n    return n * n;\n}",
        renamed="long squares(long count) {\n    long s = 0;\n    while (count > 0) { s += count * count; count--; }\n    return s;\n}",
        short="long squares(long n) { return n * (n + 1) * (2 * n + 1) / 6; }",
        helper="template <typename T>\nT sq(T x) {\n    return x * x;\n}",
        uses_helper="long squares(long n)\n{\n    long s = 0;\n    for (long i = 1; i <= n; ++i)\n        s += sq(i);\n    return s;\n}",
        constant="static const int POWER = 2;\n#define START 1",
        uses_constant="long squares(long n) {\n    double s = 0;\n    for (long i = START; i <= n; ++i) s += std::pow(i, POWER);\n    return (long) s;\n}",
        imports="#include <numeric>\n#include <vector>\nusing namespace std;",
        uses_import="long squares(long n) {\n    vector<long> v(n);\n    iota(v.begin(), v.end(), 1L);\n    return inner_product(v.begin(), v.end(), v.begin(), 0L);\n}",
        file="#include <iostream>\n#include <cassert>\n\nusing namespace std;\n\n// Adds them up.\nlong squares(long n) {\n    long s = 0;\n    for (long i = 1; i <= n; ++i) s += i * i;\n    return s;\n}\n\n"
        "void test() {\n    assert(squares(3) == 14);\n}\n\nint main() {\n    long n;\n    cin >> n;\n    cout << squares(n) << endl;\n    return 0;\n}",
        usage="int main() {\n    std::cout << squares(3) << std::endl;\n    return 0;\n}",
        held="class Solution {\npublic:\n    long squares(long n) {\n        long s = 0;\n        for (long i = 1; i <= n; ++i) s += square(i);\n        return s;\n    }\nprivate:\n    long square(long x) { return x * x; }\n};",
    ),
    "java": Pieces(
        tag="java",
        prompt="import java.util.*;\nclass Problem {\n    // Sum of the squares of 1..n.\n    public static long squares(long n) {\n",
        tests="    }\n    public static void main(String[] args) {\n    assert(squares((3l)) == (14l));\n    assert(squares((0l)) == (0l));\n    }\n\n}\n",
        body="        long s = 0;\n        for (long i = 1; i <= n; i++) s += i * i;\n        return s;",
        plain="class Problem {\n    /** Adds them up. */\n    public static long squares(long n) {\n        long s = 0;\n        for (long i = 1; i <= n; i++) {\n            s += i * i;\n        }\n        return s;\n    }\n}",
        wrong="public static long squares(long n) {\n    return n * n;\n}",
        renamed="public class Solution {\n  public static long squares(long count) {\n    long s = 0;\n    for (long i = 1; i <= count; i++) s += i * i;\n    return s;\n  }\n}",
        short="public static long squares(long n) { return n * (n + 1) * (2 * n + 1) / 6; }",
        helper="private static long sq(long x) {\n    return x * x;\n}",
        uses_helper="public static long squares(long n) {\n    long s = 0;\n    for (long i = 1; i <= n; i++) s += sq(i);\n    return s;\n}",
        constant="private static final int POWER = 2;",
        uses_constant="public static long squares(long n) {\n    double s = 0;\n    for (long i = 1; i <= n; i++) s += Math.pow(i, POWER);\n    return (long) s;\n}",
        imports="import java.util.stream.LongStream;",
        uses_import="class Problem {\n    public static long squares(long n) {\n        return LongStream.rangeClosed(1, n).map(i -> i * i).sum();\n    }\n}",
        file="package com.example;\n\nimport java.util.Scanner;\n\npublic class Main {\n    static long square(long x) {\n        return x * x;\n    }\n\n    public static long squares(long n) {\n        long s = 0;\n"
        "        for (long i = 1; i <= n; i++) s += Main.square(i);\n        return s;\n    }\n\n    public static void main(String[] args) {\n        Scanner in = new Scanner(System.in);\n        System.out.println(squares(in.nextLong()));\n    }\n}",
        usage="System.out.println(Problem.squares(3)); // 14",
        held="class Solution {\n    private long square(long x) {\n        return x * x;\n    }\n\n    public long squares(long n) {\n        long s = 0;\n        for (long i = 1; i <= n; i++) s += square(i);\n        return s;\n    }\n}",
    ),
    "php": Pieces(
        tag="php",
        prompt="<?php\n// Sum of the squares of 1..n.\nfunction squares($n) {\n",
        tests='function candidate(...$args) {\n    return squares(...$args);\n}\n\nfunction test(): void {\n    if (candidate(3) !== 14) { throw new Exception("Test failed!"); }\n    if (candidate(0) !== 0) { throw new Exception("Test failed!"); }\n}\n\ntest();',
        body="    $s = 0;\n    for ($i = 1; $i <= $n; $i++) { $s += $i * $i; }\n    return $s;\n}",
        plain="<?php\n\nfunction squares(int $n): int {\n    $s = 0;\n    for ($i = 1; $i <= $n; $i++) {\n        $s += $i * $i;\n    }\n    return $s;\n}\n\n?>",
        wrong="<?php\nfunction squares($n) {\n    return $n * $n;\n}",
        renamed="function squares($count) {\n    $s = 0;\n    while ($count > 0) { $s += $count * $count; $count--; }\n    return $s;\n}",
        short="function squares($n) { return intdiv($n * ($n + 1) * (2 * $n + 1), 6); }",
        helper="function sq($x) {\n    return $x * $x;\n}",
        uses_helper="function squares($n) {\n    $s = 0;\n    for ($i = 1; $i <= $n; $i++) $s += sq($i);\n    return $s;\n}",
        constant="const POWER = 2;",
        uses_constant="function squares($n) {\n    $s = 0;\n    for ($i = 1; $i <= $n; $i++) $s += $i ** POWER;\n    return $s;\n}",
        imports="<?php\ndeclare(strict_types=1);\n\nuse ArrayObject as Numbers;\n",
        uses_import="function squares($n) {\n    $all = new Numbers();\n    for ($i = 1; $i <= $n; $i++) $all->append($i * $i);\n    return array_sum($all->getArrayCopy());\n}",
        file='<?php\nnamespace App;\n\nfunction squares(int $n): int\n{\n    $s = 0;\n    foreach (range(0, $n) as $i) {\n        $s += $i ** 2;\n    }\n    return $s;\n}\n\n$n = (int) trim(fgets(STDIN));\necho squares($n) . "\\n";\n?>',
        usage="$n = 3;\n$result = squares($n);\necho $result;",
        held="class Solution {\n    private function square($x) { return $x * $x; }\n\n    public function squares($n) {\n        $s = 0;\n        for ($i = 1; $i <= $n; $i++) $s += $this->square($i);\n        return $s;\n    }\n}",
    ),
    "js": _JS,
    "ts": Pieces(
        tag="typescript",
        prompt="//Sum of the squares of 1..n.\nfunction squares(n: number): number {\n",
        tests=f"declare var require: any;\n{_JS_TESTS}",
        body=_JS.body,
        plain="export function squares(n: number): number {\n  let s = 0;\n  for (let i = 1; i <= n; i++) {\n    s += i * i;\n  }\n  return s;\n}",
        wrong="function squares(n: number): number {\n  return n * n;\n}",
        renamed="function squares(count: number): number {\n  let s: number = 0;\n  for (let i = 1; i <= count; i++) s += i * i;\n  return s;\n}",
        short="const squares = (n: number): number => n * (n + 1) * (2 * n + 1) / 6;",
        helper="const sq = (x: number): number => {\n  return x * x;\n};",
        uses_helper="function squares(n: number): number {\n  let s = 0;\n  for (let i = 1; i <= n; i++) s += sq(i);\n  return s;\n}",
        constant="interface Settings { power: number }\nconst SETTINGS: Settings = { power: 2 };",
        uses_constant="function squares(n: number): number {\n  let s = 0;\n  for (let i = 1; i <= n; i++) s += i ** SETTINGS.power;\n  return s;\n}",
        imports="type Pair<T> = { left: T; right: T };",
        uses_import="function squares(n: number): number {\n  const p: Pair<number> = { left: 0, right: 1 };\n  while (p.right <= n) { p.left += p.right * p.right; p.right++; }\n  return p.left;\n}",
        file="const squares = function (n: number): number {\n  let s: number = 0;\n  for (let i = 1; i <= n; i++) {\n    s += i * i;\n  }\n  return s;\n};\n\nconst numbers: number[] = [1, 2, 3];\nnumbers.forEach((x) => console.log(squares(x)));\n\nexport default squares;",
        usage=_JS.usage,
        held="class Solution {\n  static squares(n: number): number {\n    let s = 0;\n    for (let i = 1; i <= n; i++) s += Solution.square(i);\n    return s;\n  }\n\n  private static square(x: number): number {\n    return x * x;\n  }\n}",
    ),
    "cs": Pieces(
        tag="csharp",
        prompt="using System;\nusing System.Diagnostics;\nclass Problem {\n    // Sum of the squares of 1..n.\n    public static long Squares(long n) {\n",
        tests="    }\n    public static void Main(string[] args) {\n    Debug.Assert(Squares((3L)) == (14L));\n    Debug.Assert(Squares((0L)) == (0L));\n    }\n\n}\n",
        body="        long s = 0;\n        for (long i = 1; i <= n; i++) s += i * i;\n        return s;",
        plain="public class Problem\n{\n    /// <summary>Adds them up.</summary>\n    public static long Squares(long n)\n    {\n        long s = 0;\n        for (long i = 1; i <= n; i++)\n        {\n            s += i * i;\n        }\n        return s;\n    }\n}",
        wrong="public static long Squares(long n)\n{\n    return n * n;\n}",
        renamed="public static long Squares(long count)\n{\n    long s = 0;\n    for (long i = 1; i <= count; i++) s += i * i;\n    return s;\n}",
        short="public static long Squares(long n) => n * (n + 1) * (2 * n + 1) / 6;",
        helper="private static long Sq(long x) => x * x;",
        uses_helper="public static long Squares(long n)\n{\n    long s = 0;\n    for (long i = 1; i <= n; i++) s += Sq(i);\n    return s;\n}",
        constant="private const int Power = 2;",
        uses_constant="public static long Squares(long n)\n{\n    double s = 0;\n    for (long i = 1; i <= n; i++) s += Math.Pow(i, Power);\n    return (long)s;\n}",
        imports="using System.Linq;",
        uses_import="class Problem\n{\n    public static long Squares(long n)\n    {\n        return Enumerable.Range(1, (int)n).Select(i => (long)i * i).Sum();\n    }\n}",
        file='using System;\nusing System.Collections.Generic;\n\nnamespace Answers\n{\n    public static class Extensions\n    {\n        public static long Squared(this long x) { return x * x; }\n    }\n\n    class Program\n    {\n        static long Squares(long n)\n        {\n            long s = 0;\n            for (long i = 1; i <= n; i++) s += i.Squared();\n            return s;\n        }\n\n'
        '        static void Main(string[] args)\n        {\n            Console.WriteLine($"{Squares(long.Parse(Console.ReadLine()))}");\n        }\n    }\n}',
        usage="Console.WriteLine(Problem.Squares(3)); // 14",
        held="public class Solution {\n    private long total = 0;\n    public long Squares(long n) {\n        for (long i = 1; i <= n; i++) Add(i);\n        return total;\n    }\n    void Add(long i) { total += i * i; }\n}",
    ),
    "sh": Pieces(
        tag="bash",
        prompt="#!/bin/bash\n# Sum of the squares of 1..n.\n#\n# $1 is an integer\nsquares() {\n",
        tests='}\n\ncandidate() {\n    squares "$@"\n}\n\nset -e\nrun_test() {\n    [[ $(candidate "3") = "14" ]]\n    [[ $(candidate "0") = "0" ]]\n}\n\nrun_test',
        body="    local s=0\n    for ((i = 1; i <= $1; i++)); do s=$((s + i * i)); done\n    echo $s",
        plain='#!/bin/bash\n\nsquares() {\n    local s=0 i\n    for i in $(seq 1 "$1"); do\n        s=$((s + i * i))\n    done\n    echo "$s"\n}',
        wrong="squares() {\n    echo $(($1 * $1))\n}",
        renamed="function squares {\n    local count=$1 s=0\n    while [ $count -gt 0 ]; do s=$((s + count * count)); count=$((count - 1)); done\n    echo $s\n}",
        short="squares() { echo $(($1 * ($1 + 1) * (2 * $1 + 1) / 6)); }",
        helper="sq() {\n    case $1 in\n        0) echo 0 ;;\n        *) echo $(($1 * $1)) ;;\n    esac\n}",
        uses_helper="function squares() {\n    local s=0\n    for ((i = 1; i <= $1; i++)); do\n        s=$((s + $(sq $i)))\n    done\n    echo $s\n}",
        constant="readonly POWER=2",
        uses_constant="squares() {\n    local s=0\n    for ((i = 1; i <= $1; i++)); do s=$((s + i ** POWER)); done\n    echo $s\n}",
        imports="shopt -s extglob",
        uses_import="squares() {\n    local s=0 n=$1\n    [[ $n == +([0-9]) ]] || return 1\n    for ((i = 1; i <= n; i++)); do s=$((s + i * i)); done\n    echo $s\n}",
        file='#!/usr/bin/env bash\nset -euo pipefail\n\nsquares() {\n  local s=0\n  for ((i = 1; i <= $1; i++)); do\n    (( s += i * i )) || true\n  done\n  echo "$s"\n}\n\nmain() {\n  read -r n\n  squares "$n"\n}\n\nif [[ "${BASH_SOURCE[0]}" == "$0" ]]; then\n  main "$@"\nfi',
        usage='squares 3  # 14\nread -p "n: " n\nsquares "$n"',
    ),
    "go": Pieces(
        tag="go",
        prompt='package squares_test\n\nimport (\n    "testing"\n    "fmt"\n)\n\n// Sum of the squares of 1..n.\nfunc squares(n int) int {\n',
        tests='func TestSquares(t *testing.T) {\n  candidate := squares\n\ttype test struct {\n\t\tactual   interface{}\n\t\texpected interface{}\n\t}\n   tests := []test{\n     { actual: candidate(3), expected: 14 },\n     { actual: candidate(0), expected: 0 },\n   }\n\n\tfor i, tc := range tests {\n\t\tt.Run(fmt.Sprintf("test num % d", i), func(t *testing.T) {\n\t\t\tif fmt.Sprintf("%v", tc.actual) != fmt.Sprintf("%v", tc.expected) {\n\t\t\t\tt.Errorf("expected \'%s\', got \'%s\'", tc.expected, tc.actual)\n\t\t\t}\n\t\t})\n\t}\n}\n',
        body="    s := 0\n    for i := 1; i <= n; i++ {\n        s += i * i\n    }\n    return s\n}",
        plain="package main\n\nfunc squares(n int) int {\n\ts := 0\n\tfor i := 1; i <= n; i++ {\n\t\ts += i * i\n\t}\n\treturn s\n}",
        wrong="func squares(n int) int {\n\treturn n * n\n}",
        renamed="func squares(count int) int {\n\ts := 0\n\tfor ; count > 0; count-- {\n\t\ts += count * count\n\t}\n\treturn s\n}",
        short="func squares(n int) int { return n * (n + 1) * (2*n + 1) / 6 }",
        helper="// sq squares.\nfunc sq[T int | float64](x T) T {\n\treturn x * x\n}",
        uses_helper="func squares(n int) int {\n\ts := 0\n\tfor i := 1; i <= n; i++ {\n\t\ts += sq(i)\n\t}\n\treturn s\n}",
        constant="const (\n\tpower = 2.0\n\tstart = 1\n)",
        uses_constant="func squares(n int) int {\n\ts := 0\n\tfor i := start; i <= n; i++ {\n\t\ts += i * i * int(power) / 2\n\t}\n\treturn s\n}",
        imports='import (\n\t"fmt"\n\t"math"\n\tstr "strings"\n)',
        uses_import="func squares(n int) int {\n\ts := 0.0\n\tfor i := 1; i <= n; i++ {\n\t\ts += math.Pow(float64(i), 2)\n\t}\n\treturn int(s)\n}",
        file='package main\n\nimport (\n\t"bufio"\n\t"fmt"\n\t"os"\n\t"sort"\n)\n\ntype byValue []int\n\nfunc (b byValue) Len() int           { return len(b) }\nfunc (b byValue) Less(i, j int) bool { return b[i] < b[j] }\nfunc (b byValue) Swap(i, j int)      { b[i], b[j] = b[j], b[i] }\n\n'
        "func squares(n int) int {\n\tall := byValue{}\n\tfor i := n; i > 0; i-- {\n\t\tall = append(all, i*i)\n\t}\n\tsort.Sort(all)\n\ts := 0\n\tfor _, x := range all {\n\t\ts += x\n\t}\n\treturn s\n}\n\nfunc main() {\n\tvar n int\n\tfmt.Fscan(bufio.NewReader(os.Stdin), &n)\n\tfmt.Println(squares(n))\n}",
        usage="func main() {\n\tfmt.Println(squares(3)) // 14\n}",
    ),
    "rs": Pieces(
        tag="rust",
        prompt="/// Sum of the squares of 1..n.\nfn squares(n: isize) -> isize {\n",
        tests="}\n\nfn main() {\n    let candidate = squares;\n    assert_eq!(candidate(3), 14);\n    assert_eq!(candidate(0), 0);\n}\n",
        body="    (1..=n).map(|i| i * i).sum()",
        plain="fn squares(n: isize) -> isize {\n    let mut s = 0;\n    for i in 1..=n {\n        s += i * i;\n    }\n    s\n}",
        wrong="fn squares(n: isize) -> isize {\n    n * n\n}",
        renamed="fn squares(mut count: isize) -> isize {\n    let mut s = 0;\n    while count > 0 {\n        s += count * count;\n        count -= 1;\n    }\n    s\n}",
        short="pub fn squares(n: isize) -> isize { n * (n + 1) * (2 * n + 1) / 6 }",
        helper="fn sq<T: std::ops::Mul<Output = T> + Copy>(x: T) -> T {\n    x * x\n}",
        uses_helper="fn squares(n: isize) -> isize {\n    (1..=n).map(sq).sum()\n}",
        constant="const POWER: u32 = 2;",
        uses_constant="fn squares(n: isize) -> isize {\n    (1..=n).map(|i| i.pow(POWER)).sum()\n}",
        imports="use std::collections::{BTreeMap, HashMap};",
        uses_import="fn squares(n: isize) -> isize {\n    let mut seen: HashMap<isize, isize> = HashMap::new();\n    for i in 1..=n {\n        seen.insert(i, i * i);\n    }\n    seen.values().sum()\n}",
        file="#![allow(dead_code)]\n\nuse std::io;\n\n#[derive(Debug, Clone)]\nstruct Adder {\n    total: isize,\n}\n\nimpl Adder {\n    fn new() -> Self {\n        Adder { total: 0 }\n    }\n\n    fn add(&mut self, x: isize) {\n        self.total += x * x;\n    }\n}\n\n/// Adds them up.\npub fn squares(n: isize) -> isize {\n"
        "    let mut a = Adder::new();\n    for i in 1..=n {\n        a.add(i);\n    }\n    a.total\n}\n\nfn main() {\n    let mut line = String::new();\n    io::stdin().read_line(&mut line).unwrap();\n    println!(\"{}\", squares(line.trim().parse().unwrap()));\n}\n\n#[cfg(test)]\nmod tests {\n    use super::*;\n\n    #[test]\n    fn it_adds() {\n        assert_eq!(squares(3), 14);\n    }\n}",
        usage='fn main() {\n    println!("{}", squares(3));\n}',
        held="struct Solution;\n\nimpl Solution {\n    pub fn squares(n: isize) -> isize {\n        (1..=n).map(Self::square).sum()\n    }\n\n    fn square(x: isize) -> isize {\n        x * x\n    }\n}",
    ),
    "rb": Pieces(
        tag="ruby",
        prompt="# Sum of the squares of 1..n.\ndef squares(n)\n",
        tests="require 'test/unit'\nclass TestHumanEval < Test::Unit::TestCase\n  def test_squares\n    candidate = method(:squares)\n    assert_equal(14, candidate.call(3))\n    assert_equal(0, candidate.call(0))\n  end\nend\n",
        body="  (1..n).sum { |i| i * i }\nend",
        plain="def squares(n)\n  s = 0\n  (1..n).each do |i|\n    s += i * i if i > 0\n  end\n  s\nend",
        wrong="def squares(n)\n  n * n\nend",
        renamed="def squares(count)\n  s = 0\n  while count > 0\n    s += count * count\n    count -= 1\n  end\n  s\nend",
        short="def squares(n) = n * (n + 1) * (2 * n + 1) / 6",
        helper="def sq(x)\n  x * x\nend",
        uses_helper="def squares n\n  (1..n).map { |i| sq(i) }.sum\nend",
        constant="POWER = 2",
        uses_constant="def squares(n)\n  (1..n).sum { |i| i**POWER }\nend",
        imports="require 'set'",
        uses_import="def squares(n)\n  Set.new(1..n).sum { |i| i * i }\nend",
        file="#!/usr/bin/env ruby\n# frozen_string_literal: true\n\nclass Integer\n  def squared\n    self * self\n  end\nend\n\ndef squares(n)\n  (1..n).sum(&:squared)\nend\n\nif __FILE__ == $PROGRAM_NAME\n  n = gets.to_i\n  puts squares(n)\nend",
        usage="n = gets.to_i\nputs squares(n)",
        held="class Solution\n  def square(x)\n    x * x\n  end\n\n  def squares(n)\n    (1..n).sum { |i| square(i) }\n  end\nend",
    ),
    "lua": Pieces(
        tag="lua",
        prompt="-- Sum of the squares of 1..n.\nlocal function squares(n)\n",
        tests="lu = require('luaunit')\n\nfunction test_humaneval()\nlocal candidate = squares\n    lu.assertEquals(candidate(3), 14)\n    lu.assertEquals(candidate(0), 0)\nend\n\nos.exit(lu.LuaUnit.run())",
        body="    local s = 0\n    for i = 1, n do s = s + i * i end\n    return s\nend",
        plain="local function squares(n)\n    local s = 0\n    for i = 1, n do\n        s = s + i * i\n    end\n    return s\nend",
        wrong="function squares(n)\n    return n * n\nend",
        renamed="function squares(count)\n    local s = 0\n    while count > 0 do\n        s = s + count * count\n        count = count - 1\n    end\n    return s\nend",
        short="local squares = function(n) return n * (n + 1) * (2 * n + 1) // 6 end",
        helper="local function sq(x)\n    return x * x\nend",
        uses_helper="local function squares(n)\n    local s = 0\n    for i = 1, n do\n        s = s + sq(i)\n    end\n    return s\nend",
        constant="local POWER <const> = 2",
        uses_constant="function squares(n)\n    local s = 0\n    for i = 1, n do s = s + math.floor(i ^ POWER) end\n    return s\nend",
        imports="local floor = math.floor",
        uses_import="function squares(n)\n    local s = 0\n    for i = 1, n do s = s + floor(i * i) end\n    return s\nend",
        file='local M = {}\n\nfunction M.square(x)\n    return x * x\nend\n\nfunction M.squares(n)\n    local s = 0\n    for i = 1, n do\n        s = s + M.square(i)\n    end\n    return s\nend\n\nlocal n = io.read("n")\nprint(M.squares(n))\n\nreturn M',
        usage='local n = tonumber(io.read())\nprint(squares(n))',
    ),
    "pl": Pieces(
        tag="perl",
        prompt="# Sum of the squares of 1..n.\nsub squares {\n    my($n) = @_;\n",
        tests='use Test::Deep;\n\n\nsub testhumaneval {\n    my $candidate = \\&squares;\n        if(eq_deeply($candidate->(3),14)) {\n        print "ok!" }else{\n        exit 1;\n        }\n        if(eq_deeply($candidate->(0),0)) {\n        print "ok!" }else{\n        exit 1;\n        }\n}\n\ntesthumaneval();',
        body="    my $s = 0;\n    $s += $_ * $_ for 1 .. $n;\n    return $s;\n}",
        plain="sub squares {\n    my ($n) = @_;\n    my $s = 0;\n    foreach my $i (1..$n) {\n        $s += $i * $i;\n    }\n    return $s;\n}",
        wrong="sub squares {\n    my($n) = @_;\n    return $n * $n;\n}",
        renamed="sub squares {\n    my $count = shift;\n    my $s = 0;\n    while ($count > 0) { $s += $count * $count; $count--; }\n    return $s;\n}",
        short="sub squares { my ($n) = @_; return $n * ($n + 1) * (2 * $n + 1) / 6; }",
        helper="sub sq {\n    my ($x) = @_;\n    return $x * $x;\n}",
        uses_helper="sub squares {\n    my ($n) = @_;\n    my $s = 0;\n    $s += sq($_) for (1..$n);\n    return $s;\n}",
        constant="use constant POWER => 2;\nmy %seen = ();",
        uses_constant="sub squares {\n    my ($n) = @_;\n    my $s = 0;\n    for my $i (1..$n) { $seen{$i} = $i ** POWER; $s += $seen{$i}; }\n    return $s;\n}",
        imports="use strict;\nuse warnings;\nuse List::Util qw(sum0);",
        uses_import="sub squares {\n    my ($n) = @_;\n    return sum0(map { $_ * $_ } 1..$n);\n}",
        file='#!/usr/bin/perl\nuse strict;\nuse warnings;\n\n# Adds them up.\nsub squares {\n    my ($n) = @_;\n    my $s = 0;\n    $s += $_ ** 2 foreach 1 .. $n;\n    return $s;\n}\n\nsub main {\n    my $n = <STDIN>;\n    chomp $n;\n    print squares($n), "\\n";\n}\n\nmain() unless caller;\n\n1;\n__END__\n=pod\n\nDone.\n',
        usage='my $n = 3;\nprint "Sum: " . squares($n) . "\\n";',
    ),
    "r": Pieces(
        tag="r",
        prompt="# Sum of the squares of 1..n.\nsquares <- function(n) {",
        tests="test_humaneval <- function() {\n    candidate <- squares\n    stopifnot(isTRUE(all.equal(candidate(3), 14)))\n    stopifnot(isTRUE(all.equal(candidate(0), 0)))\n}\ntest_humaneval()",
        body="\n    s <- 0\n    for (i in seq_len(n)) s <- s + i * i\n    s\n}",
        plain="squares <- function(n) {\n  s <- 0\n  for (i in seq_len(n)) {\n    s <- s + i^2\n  }\n  return(s)\n}",
        wrong="squares <- function(n) {\n  n * n\n}",
        renamed="squares <- function(count) {\n  s <- 0\n  while (count > 0) { s <- s + count^2; count <- count - 1 }\n  s\n}",
        short="squares <- function(n) sum(seq_len(n)^2)",
        helper="sq.one <- function(x) {\n  x * x\n}",
        uses_helper="squares = function(n) {\n  sum(vapply(seq_len(n), sq.one, numeric(1)))\n}",
        constant="POWER <- 2",
        uses_constant="squares <- function(n) {\n  sum(seq_len(n)^POWER)\n}",
        imports="library(stats)",
        uses_import="squares <- function(n) {\n  sum(setNames(seq_len(n)^2, seq_len(n)))\n}",
        file='#!/usr/bin/env Rscript\nsuppressPackageStartupMessages(library(utils))\n\nsquares <- function(n)\n{\n  total <- 0\n  for (i in seq_len(n)) {\n    total <- total + i * i\n  }\n  total\n}\n\nmain <- function() {\n  n <- as.integer(readLines(file("stdin"), 1))\n  cat(squares(n), "\\n")\n}\n\nif (!interactive()) {\n  main()\n}',
        usage="n <- 3\nprint(squares(n))",
    ),
    "d": Pieces(
        tag="d",
        prompt="import std.math;\n/*\nSum of the squares of 1..n.\n*/\nlong squares(long n) \n",
        tests="unittest\n{\n    alias candidate = squares;\n\n    assert(candidate(3L) == 14L);\n    assert(candidate(0L) == 0L);\n}\nvoid main(){}",
        body="{\n    long s = 0;\n    foreach (i; 1 .. n + 1) s += i * i;\n    return s;\n}",
        plain="long squares(long n)\n{\n    long s = 0;\n    for (long i = 1; i <= n; i++)\n    {\n        s += i * i;\n    }\n    return s;\n}",
        wrong="long squares(long n) {\n    return n * n;\n}",
        renamed="long squares(long count) {\n    long s = 0;\n    while (count > 0) { s += count * count; count--; }\n    return s;\n}",
        short="long squares(long n) { return n * (n + 1) * (2 * n + 1) / 6; }",
        helper="T sq(T)(T x)\n{\n    return x * x;\n}",
        uses_helper="long squares(long n) pure {\n    long s = 0;\n    foreach (i; 1 .. n + 1) s += sq(i);\n    return s;\n}",
        constant="enum POWER = 2;\nimmutable long START = 1;",
        uses_constant="long squares(long n) {\n    long s = 0;\n    foreach (i; START .. n + 1) s += i ^^ POWER;\n    return s;\n}",
        imports="import std.algorithm : map, sum;\nimport std.range : iota;",
        uses_import="long squares(long n) {\n    return iota(1, n + 1).map!(i => i * i).sum;\n}",
        file='module answers;\n\nimport std.stdio;\nimport std.math;\n\n/// Adds them up.\nlong squares(long n) @safe {\n    long s = 0;\n    foreach (i; 1 .. n + 1) {\n        s += i * i;\n    }\n    return s;\n}\n\nunittest {\n    assert(squares(3) == 14);\n}\n\nvoid main() {\n    long n;\n    readf("%d", &n);\n    writeln(squares(n));\n}',
        usage="void main() {\n    import std.stdio;\n    writeln(squares(3));\n}",
        held="class Solution {\n    long square(long x) { return x * x; }\n    long squares(long n) {\n        long s = 0;\n        foreach (i; 1 .. n + 1) s += square(i);\n        return s;\n    }\n}",
    ),
    "rkt": Pieces(
        tag="racket",
        prompt="#lang racket\n\n;; Sum of the squares of 1..n.\n(define (squares n)\n",
        tests="(require rackunit)\n\n(define (test-humaneval) \n\n  (let (( candidate squares))\n    (check-within (candidate 3) 14 0.001)\n    (check-within (candidate 0) 0 0.001)\n))\n\n(test-humaneval)",
        body="  (for/sum ([i (in-range 1 (+ n 1))]) (* i i)))",
        plain="#lang racket\n\n(define (squares n)\n  ; adds up\n  (let loop ([i 1] [s 0])\n    (if (> i n)\n        s\n        (loop (+ i 1) (+ s (* i i))))))",
        wrong="(define (squares n)\n  (* n n))",
        renamed="(define (squares count)\n  (if (= count 0)\n      0\n      (+ (* count count) (squares (- count 1)))))",
        short="(define squares (lambda (n) (/ (* n (+ n 1) (+ (* 2 n) 1)) 6)))",
        helper="(define (sq x)\n  (* x x))",
        uses_helper="(define (squares n)\n  (apply + (map sq (range 1 (+ n 1)))))",
        constant="(define POWER 2)",
        uses_constant="(define (squares n)\n  (for/sum ([i (in-range 1 (add1 n))])\n    (expt i POWER)))",
        imports="(require racket/list\n         math/base)",
        uses_import="(define (squares n)\n  (foldl + 0 (map (lambda (x) (exact-round (* x x))) (range 1 (+ n 1)))))",
        file="#lang racket/base\n\n(require racket/list)\n\n(provide squares)\n\n;; Adds them up.\n(define (squares n)\n  (define (one x) (* x x))\n  (apply + (map one (range 1 (+ n 1)))))\n\n(module+ main\n  (displayln (squares (string->number (read-line)))))\n\n(module+ test\n  (require rackunit)\n  (check-equal? (squares 3) 14))",
        usage="(define n (read))\n(displayln (squares n))",
    ),
    "ml": Pieces(
        tag="ocaml",
        prompt="(*Sum of the squares of 1..n.*)\nlet squares (n : int) : int =",
        tests="\nlet assertions =\n let candidate = squares in\n  (assert ((candidate 3) = 14));\n  (assert ((candidate 0) = 0));\n  ()\n",
        body="\n  let s = ref 0 in\n  for i = 1 to n do s := !s + i * i done;\n  !s",
        plain="let squares (n : int) : int =\n  let rec go i acc =\n    if i > n then acc else go (i + 1) (acc + i * i)\n  in\n  go 1 0",
        wrong="let squares n = n * n",
        renamed="let rec squares count =\n  if count = 0 then 0\n  else count * count + squares (count - 1)",
        short="let squares n = n * (n + 1) * (2 * n + 1) / 6;;",
        helper="let sq x = x * x",
        uses_helper="let squares n =\n  List.fold_left ( + ) 0 (List.init n (fun i -> sq (i + 1)))",
        constant="let offset = 1",
        uses_constant="let squares (n : int) : int =\n  List.fold_left (fun s i -> s + (i + offset) * (i + offset)) 0 (List.init n (fun i -> i))",
        imports="open List",
        uses_import="let squares n =\n  fold_left (fun s i -> s + (i + 1) * (i + 1)) 0 (init n (fun i -> i))",
        file='open Printf\n\ntype acc = { total : int }\n\n(* Adds them up. *)\nlet rec walk i n acc =\n  if i > n then acc\n  else walk (i + 1) n { total = acc.total + i * i }\n\nlet squares n =\n  (walk 1 n { total = 0 }).total\n\nlet () =\n  let n = read_int () in\n  printf "%d\\n" (squares n)',
        usage='let () =\n  let n = read_int () in\n  print_endline (string_of_int (squares n))',
        held="module Solution = struct\n  let square x = x * x\n\n  let rec squares n =\n    if n = 0 then 0 else square n + squares (n - 1)\nend",
    ),
    "hs": Pieces(
        tag="haskell",
        prompt="-- Sum of the squares of 1..n.\nsquares :: Int -> Int\nsquares n =",
        tests='\nmain :: IO ()\nmain = do\n  let candidate = squares\n  if candidate 3 == 14 then pure () else error "assertion failed"\n  if candidate 0 == 0 then pure () else error "assertion failed"\n  pure ()',
        body=" sum [i * i | i <- [1 .. n]]",
        plain="squares :: Int -> Int\nsquares n = go 1 0\n  where\n    go i acc\n      | i > n = acc\n      | otherwise = go (i + 1) (acc + i * i)",
        wrong="squares :: Int -> Int\nsquares n = n * n",
        renamed="squares :: Int -> Int\nsquares 0 = 0\nsquares count = count * count + squares (count - 1)",
        short="squares n = n * (n + 1) * (2 * n + 1) `div` 6",
        helper="sq :: Int -> Int\nsq x = x * x",
        uses_helper="squares :: Int -> Int\nsquares n\n  | n <= 0 = 0\n  | otherwise = sum (map sq [1 .. n])",
        constant="power :: Int\npower = 2",
        uses_constant="squares :: Int -> Int\nsquares n = sum $ do\n  i <- [1 .. n]\n  return (i ^ power)",
        imports="import qualified Data.Map as Map\nimport Data.List (foldl')",
        uses_import="squares :: Int -> Int\nsquares n = foldl' (+) 0 (Map.elems (Map.fromList [(i, i * i) | i <- [1 .. n]]))",
        file="{-# LANGUAGE TupleSections #-}\nmodule Main where\n\nimport Data.List (sort)\n\ndata Acc = Acc { total :: Int }\n\ninstance Show Acc where\n  show (Acc t) = show t\n\n-- | Adds them up.\nsquares :: Int -> Int\nsquares n = total (foldr step (Acc 0) (map (,()) [1 .. n]))\n  where\n    step (i, ()) (Acc t) = Acc (t + i * i)\n\n"
        "main :: IO ()\nmain = do\n  n <- readLn\n  print (squares n)",
        usage="main :: IO ()\nmain = print (squares 3)",
    ),
    "ex": Pieces(
        tag="elixir",
        prompt="# Sum of the squares of 1..n.\ndefmodule HumanEval do\n  def squares(n) do\n",
        tests='ExUnit.start()\n\ndefmodule HumanEvalTest do\n  use ExUnit.Case, async: true\n  test "squares" do\n    candidate = &HumanEval.squares/1\n    assert 14 == candidate.(3)\n    assert 0 == candidate.(0)\n  end\nend\n',
        body="    Enum.reduce(1..n//1, 0, fn i, s -> s + i * i end)\n  end\nend",
        plain='defmodule HumanEval do\n  @doc """\n  Adds them up.\n  """\n  def squares(n) do\n    Enum.reduce(1..n//1, 0, fn i, s ->\n      s + i * i\n    end)\n  end\nend',
        wrong="def squares(n) do\n  n * n\nend",
        renamed="defmodule Solution do\n  @spec squares(integer()) :: integer()\n  def squares(0), do: 0\n  def squares(count) when count > 0 do\n    count * count + squares(count - 1)\n  end\nend",
        short="def squares(n), do: div(n * (n + 1) * (2 * n + 1), 6)",
        helper="defp sq(x) do\n  x * x\nend",
        uses_helper="def squares(n) do\n  1..n//1 |> Enum.map(&sq/1) |> Enum.sum()\nend",
        constant="@power 2",
        uses_constant="def squares(n) do\n  1..n//1 |> Enum.map(fn i -> Integer.pow(i, @power) end) |> Enum.sum()\nend",
        imports="import Enum, only: [sum: 1]",
        uses_import="def squares(n) do\n  sum(for i <- 1..n//1, do: i * i)\nend",
        file='defmodule Squares do\n  @moduledoc """\n  Sums.\n  """\n\n  alias Integer, as: I\n\n  def squares(n) do\n    go(n, 0)\n  end\n\n  defp go(0, acc), do: acc\n\n  defp go(n, acc) do\n    go(n - 1, acc + I.pow(n, 2))\n  end\nend\n\nn = IO.gets("") |> String.trim() |> String.to_integer()\nIO.puts(Squares.squares(n))',
        usage="IO.inspect(HumanEval.squares(3))",
    ),
    "scala": Pieces(
        tag="scala",
        prompt="import scala.math._\nimport scala.collection.mutable._\nobject Problem {\n    // Sum of the squares of 1..n.\n    def squares(n : Long) : Long = {\n",
        tests="    }\n    def main(args: Array[String]) = {\n    assert(squares((3l)) == (14l));\n    assert(squares((0l)) == (0l));\n    }\n\n}\n",
        body="        (1L to n).map(i => i * i).sum",
        plain="object Problem {\n  def squares(n: Long): Long = {\n    var s = 0L\n    for (i <- 1L to n) {\n      s += i * i\n    }\n    s\n  }\n}",
        wrong="def squares(n: Long): Long = {\n  n * n\n}",
        renamed="def squares(count: Long): Long =\n  if (count == 0) 0L else count * count + squares(count - 1)",
        short="def squares(n: Long): Long = n * (n + 1) * (2 * n + 1) / 6",
        helper="private def sq(x: Long): Long = x * x",
        uses_helper="def squares(n: Long): Long = n match {\n  case 0 => 0L\n  case _ => sq(n) + squares(n - 1)\n}",
        constant="val Power = 2",
        uses_constant="def squares(n: Long): Long = {\n  (1L to n).map(i => math.pow(i, Power).toLong).sum\n}",
        imports="import scala.annotation.tailrec",
        uses_import="object Problem {\n  def squares(n: Long): Long = {\n    @tailrec\n    def go(i: Long, s: Long): Long = if (i > n) s else go(i + 1, s + i * i)\n    go(1L, 0L)\n  }\n}",
        file='package answers\n\nimport scala.io.StdIn\n\ncase class Acc(total: Long)\n\nobject Main {\n  implicit class Squared(x: Long) {\n    def squared: Long = x * x\n  }\n\n  def squares(n: Long): Long = {\n    (1L to n).foldLeft(Acc(0L))((a, i) => Acc(a.total + i.squared)).total\n  }\n\n  def main(args: Array[String]): Unit = {\n    println(s"${squares(StdIn.readLong())}")\n  }\n}',
        usage="println(Problem.squares(3))",
        held="class Solution {\n  private var total = 0L\n  def squares(n: Long): Long = {\n    for (i <- 1L to n) total += i * i\n    total\n  }\n}",
    ),
    "clj": Pieces(
        tag="clojure",
        prompt='(defn squares\n  "Sum of the squares of 1..n."\n  [n]\n',
        tests="(require '[clojure.test :refer [deftest is run-test]])\n\n(def candidate squares)\n\n(deftest test-humaneval\n\n  (is (= (candidate 3) 14))\n  (is (= (candidate 0) 0))\n)\n\n(run-test test-humaneval)",
        body="  (reduce + (map #(* % %) (range 1 (inc n)))))",
        plain='(defn squares\n  "Adds them up."\n  [n]\n  (loop [i 1 s 0] ; from 1\n    (if (> i n)\n      s\n      (recur (inc i) (+ s (* i i))))))',
        wrong="(defn squares [n]\n  (* n n))",
        renamed="(defn squares [limit]\n  (reduce + (map #(* % %) (range 1 (inc limit)))))",
        short="(defn squares [n] (quot (* n (inc n) (inc (* 2 n))) 6))",
        helper="(defn- sq [x]\n  (* x x))",
        uses_helper="(defn squares [n]\n  (reduce + (map sq (range 1 (inc n)))))",
        constant="(def power 2)",
        uses_constant="(defn squares\n  [n]\n  (long (reduce + (map #(Math/pow % power) (range 1 (inc n))))))",
        imports="(ns answers.core\n  (:require [clojure.string :as str]\n            [clojure.set :as set]))",
        uses_import="(defn squares [n]\n  (reduce + (map #(* % %) (set/union (clojure.core/set (range 1 (inc n)))))))",
        file="(ns answers.squares\n  (:gen-class))\n\n(declare go)\n\n(defn squares\n  ([n] (squares n 0))\n  ([n acc] (go n acc)))\n\n(defn go [n acc]\n  (if (zero? n) acc (recur (dec n) (+ acc (* n n)))))\n\n(defn -main [& args]\n  (println (squares (Integer/parseInt (read-line)))))\n\n(comment\n  (squares 3))",
        usage="(println (squares 3)) ; 14",
    ),
}  # fmt: skip


def styles(p: Pieces) -> Iterator[tuple[str, str]]:
    """The styles by name, each with an answer."""

    def fence(*code: str, tag: str = p.tag, mark: str = "```") -> str:
        text = "\n\n".join(code)
        return f"{mark}{tag}\n{text}\n{mark}\n"

    intro, outro = "Here's a solution:\n\n", "\nIt adds the squares up. That's all; it doesn't use more.\n"
    yield "bare", p.body
    yield "block", intro + fence(p.plain) + outro
    yield "one_line", fence(p.short)
    yield "renamed", fence(p.renamed) + outro
    yield "helper_above", intro + fence(p.helper, p.uses_helper)
    yield (
        "helper_below",
        fence(p.uses_helper, p.helper) + outro
        if p.tag not in ("lua", "clojure", "ocaml", "cpp")
        else fence(p.plain),
    )
    yield (
        "helper_in_its_own_block",
        f"First a helper:\n\n{fence(p.helper)}\nThen the function:\n\n{fence(p.uses_helper)}{outro}",
    )
    yield "constant", fence(p.constant, p.uses_constant) + outro
    yield "imports", intro + fence(p.imports, p.uses_import)
    yield "whole_file", intro + fence(p.file) + outro
    yield "usage_below", fence(p.plain, p.usage) + outro
    yield "usage_block", f"{fence(p.plain)}\nFor example:\n\n{fence(p.usage)}\nwhich prints\n\n```\n14\n```\n"
    yield (
        "draft_then_final",
        f"A first try:\n\n{fence(p.wrong)}\nThat isn't right, it doesn't add up. So:\n\n{fence(p.plain)}{outro}",
    )
    yield "wrong_in_the_end", f"{fence(p.plain)}\nShorter:\n\n{fence(p.wrong)}"
    yield "thoughts", f"<think>\nMaybe\n{fence(p.wrong)}\nno, that's wrong.\n</think>\n\n{fence(p.plain)}"
    yield "thoughts_without_begin", f"Let's see.\n{fence(p.wrong)}\nNo.\n</think>\n\n{intro}{fence(p.plain)}"
    yield "tildes", intro + fence(p.plain, mark="~~~")
    yield "four_backticks", fence(p.plain, mark="````") + outro
    yield "info_string", fence(p.plain, tag=f'{p.tag},ignore title="a.x"')
    yield "no_info_string", intro + fence(p.plain, tag="") + outro
    yield "not_closed", intro + fence(p.plain).rstrip().removesuffix("```").rstrip()
    yield "windows", (intro + fence(p.plain) + outro).replace("\n", "\r\n")
    indented = "".join(f"   {line}".rstrip() + "\n" for line in fence(p.plain, p.usage).splitlines())
    yield "in_a_list", f"1. Write it:\n{indented}2. Run it.\n"
    yield "prompt_again", p.prompt + p.body + "\n"
    yield "prompt_again_in_a_block", fence(p.prompt + p.body)
    yield "body_in_a_block", fence(p.body)
    yield "block_of_the_prompt", f"{p.body}\n```\n{outro}"
    if p.held:
        yield "held", intro + fence(p.held) + outro
