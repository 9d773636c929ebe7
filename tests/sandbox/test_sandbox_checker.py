"""Tests of checkers (`Program.checker`): the protocol in many languages, failing checkers, isolation from the program."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from sandbox.cache import VerdictCache
from sandbox.client import Sandbox, content_key
from sandbox.errors import UsageError
from sandbox.verdicts import Case, Checker, Program, Result, Verdict

SUM_IN_PYTHON = """
wanted = int(open("input").read())
print("accept" if sum(map(int, open("got").read().split())) == wanted else "reject")
"""
SUMS = {
    "py": SUM_IN_PYTHON,
    "cpp": """#include <fstream>
#include <iostream>
int main() {
  long wanted = 0, sum = 0, number;
  std::ifstream("input") >> wanted;
  std::ifstream got("got");
  while (got >> number) sum += number;
  std::cout << (sum == wanted ? "accept" : "reject") << std::endl;
}
""",
    "java": """import java.nio.file.*;
import java.util.*;
class Check {
  public static void main(String[] arguments) throws Exception {
    long wanted = Long.parseLong(Files.readString(Path.of("input")).strip()), sum = 0;
    for (Scanner got = new Scanner(Path.of("got")); got.hasNextLong();) sum += got.nextLong();
    System.out.println(sum == wanted ? "accept" : "reject");
  }
}
""",
    "php": """<?php
$sum = array_sum(array_map('intval', preg_split('/\\s+/', trim(file_get_contents('got')))));
echo $sum == (int) file_get_contents('input') ? "accept\\n" : "reject\\n";
""",
    "ts": """declare var require: any;
const fs = require("fs");
const sum: number = fs.readFileSync("got", "utf8").split(/\\s+/).map(Number).reduce((a: number, b: number) => a + b, 0);
console.log(sum === Number(fs.readFileSync("input", "utf8")) ? "accept" : "reject");
""",
    "cs": """using System;
using System.IO;
using System.Linq;
class Check {
  static void Main() {
    var got = File.ReadAllText("got").Split((char[]) null, StringSplitOptions.RemoveEmptyEntries);
    Console.WriteLine(got.Sum(long.Parse) == long.Parse(File.ReadAllText("input")) ? "accept" : "reject");
  }
}
""",
    "sh": """sum=0
for number in $(cat got); do sum=$((sum + number)); done
if [ "$sum" = "$(cat input)" ]; then echo accept; else echo reject; fi
""",
    "js": """const fs = require("fs");
const sum = fs.readFileSync("got", "utf8").split(/\\s+/).map(Number).reduce((a, b) => a + b, 0);
console.log(sum === Number(fs.readFileSync("input", "utf8")) ? "accept" : "reject");
""",
    "go": """package main

import (
	"fmt"
	"os"
)

func main() {
	var wanted, sum, number int
	input, _ := os.Open("input")
	fmt.Fscan(input, &wanted)
	got, _ := os.Open("got")
	for n, _ := fmt.Fscan(got, &number); n == 1; n, _ = fmt.Fscan(got, &number) {
		sum += number
	}
	if sum == wanted {
		fmt.Println("accept")
	} else {
		fmt.Println("reject")
	}
}
""",
    "rs": """use std::fs::read_to_string;
fn main() {
    let wanted: i64 = read_to_string("input").unwrap().trim().parse().unwrap();
    let sum: i64 = read_to_string("got").unwrap().split_whitespace().map(|n| n.parse::<i64>().unwrap()).sum();
    println!("{}", if sum == wanted { "accept" } else { "reject" });
}
""",
    "rb": 'puts File.read("got").split.sum(&:to_i) == File.read("input").to_i ? "accept" : "reject"\n',
    "lua": """local sum = 0
for number in io.open("got"):read("a"):gmatch("%-?%d+") do sum = sum + tonumber(number) end
print(sum == tonumber(io.open("input"):read("n")) and "accept" or "reject")
""",
    "pl": """open my $got, "<", "got"; open my $input, "<", "input";
my $sum = 0; $sum += $_ for split " ", join "", <$got>;
print $sum == <$input> ? "accept\\n" : "reject\\n";
""",
}  # fmt: skip
"""By language: whether the numbers that were printed add up to the one that was read."""


def run(sandbox: Sandbox, *programs: Program) -> dict[str, Result]:
    return {result.id: result for result in sandbox.run(programs)}


def checked(id: str, source: str, checker: str, language: str = "sh", cases: int = 1, **more) -> Program:
    several = tuple(Case(f"{5 + at}\n", "2 3\n") for at in range(cases))
    return Program(id, language, source, several, checker=Checker("py", checker), **more)


def test_checkers_in_many_languages(sandbox: Sandbox) -> None:
    """Both right answers are accepted and a wrong one is rejected; the expected output is not used here."""
    there = [name for name in SUMS if not sandbox.missing_tools(name)]
    assert {"py", "sh"} <= set(there)
    programs = [
        Program(
            f"{name} {answer}",
            "sh",
            f"echo {answer}",
            (Case("5\n", "2 3\n"),),
            checker=Checker(name, SUMS[name]),
        )
        for name in there
        for answer in ("2 3", "1 4", "1 5")
    ]
    verdicts = {id: result.verdict for id, result in run(sandbox, *programs).items()}
    right = {f"{name} {answer}": Verdict.passed for name in there for answer in ("2 3", "1 4")}
    assert verdicts == right | {f"{name} 1 5": Verdict.wrong_answer for name in there}


def test_rules(sandbox: Sandbox) -> None:
    """Each rule accepts output that the rule before it rejects. Details of each rule are in test_sandbox_compare.py."""
    printed = {
        "exact": "1.50 Yes\n",
        "lines": "1.50 Yes  \n\n",
        "tokens": "\n1.50\nYes",
        "float:1e-2": "1.501 Yes",
        "code-contests": "1.500001 yES",
    }
    programs = [
        Program(f"{rule} on {name}", "sh", f"printf {text!r}", (Case("", "1.50 Yes\n"),), compare=rule)
        for rule in printed
        for name, text in printed.items()
    ]
    names = list(printed)
    right = {f"{rule} on {name}" for at, rule in enumerate(names) for name in names[: at + 1]}
    right -= {"code-contests on float:1e-2"}
    found = run(sandbox, *programs)
    assert {id for id, result in found.items() if result.verdict is Verdict.passed} == right
    assert {result.verdict for result in found.values()} == {Verdict.passed, Verdict.wrong_answer}


def test_every_case_is_checked_and_only_where_the_program_ends_well(sandbox: Sandbox) -> None:
    found = run(
        sandbox,
        checked("right", "read n; echo 1 $((n - 1))", SUM_IN_PYTHON, cases=3),
        checked("fixed", "echo 2 3", SUM_IN_PYTHON, cases=3),
        checked("fails", "echo 2 3; exit 3", SUM_IN_PYTHON),
        checked("broken", "echo $((", SUM_IN_PYTHON),
    )
    assert {id: result.verdict for id, result in found.items()} == {
        "right": Verdict.passed,
        "fixed": Verdict.wrong_answer,
        "fails": Verdict.runtime_error,
        "broken": Verdict.compile_error,
    }
    assert found["fixed"].stdout == "2 3\n", "the program's own output, not the checker's"


SAME_BYTES = "print('accept' if open('got', 'rb').read() == open('expected', 'rb').read() else 'reject')"


def test_files_hold_the_very_bytes(sandbox: Sandbox) -> None:
    awkward = ["", "\n", "a\r\nb\r", " \x00\x0c\v é 🦊", "no end", "x" * 300_000]
    echo = "import sys; sys.stdout.buffer.write(sys.stdin.buffer.read())"
    cases = tuple(Case(text, text) for text in awkward)
    bytes_of_input = SAME_BYTES.replace("expected", "input")
    found = run(
        sandbox,
        Program("expected", "py", echo, cases, checker=Checker("py", SAME_BYTES)),
        Program("input", "py", echo, cases, checker=Checker("py", bytes_of_input)),
        Program("other", "py", f"{echo}; print()", cases, checker=Checker("py", SAME_BYTES)),
        Program("no text", "py", "import sys; sys.stdout.buffer.write(b'\\xff')", (Case("", None),), checker=Checker("py",
            "print('accept' if open('got', 'rb').read() == b'\\xff' and open('expected').read() == '' else 'reject')")),
    )  # fmt: skip
    assert {id: result.verdict for id, result in found.items()} == {
        "expected": Verdict.passed,
        "input": Verdict.passed,
        "other": Verdict.wrong_answer,
        "no text": Verdict.passed,
    }


FAILING = {
    "exception": "1 / 0",
    "exit code": "print('accept')\nraise SystemExit(1)",
    "reject and exit code": "print('reject')\nraise SystemExit(1)",
    "silent": "",
    "other word": "print('accepted')",
    "word before": "print('accept')\nprint('done')",
    "syntax": "print('accept'",
    "memory": "x = bytearray(3 << 30)\nprint('accept')",
    "output": "while True: print('accept' * 10000)",
    "signal": "import os; os.kill(os.getpid(), 9)",
}


def test_a_checker_that_fails_is_never_the_programs_label(sandbox: Sandbox) -> None:
    found = run(sandbox, *(checked(name, "echo 2 3", source) for name, source in FAILING.items()))
    assert {id: result.verdict for id, result in found.items()} == dict.fromkeys(
        FAILING, Verdict.sandbox_error
    )
    for result in found.values():
        assert result.stderr.startswith(
            "the checker (py) failed: expected exit code 0 and a last line accept or reject"
        )
    assert "ZeroDivisionError" in found["exception"].stderr
    assert "output_exceeded" in found["output"].stderr
    refused = Program(
        "x", "sh", "echo 2 3", (Case("5", ""),), checker=Checker("cpp", "int main() { return }")
    )
    assert "compile_error" in run(sandbox, refused)["x"].stderr


def test_a_checker_may_say_more_than_its_last_line(sandbox: Sandbox) -> None:
    says = "import sys; print('two numbers?'); print('hm', file=sys.stderr); print('accept\\n\\n')"
    assert run(sandbox, checked("x", "echo 2 3", says))["x"].verdict is Verdict.passed


def test_a_failure_is_believed_only_after_a_second_time(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    for parent in tmp_path.parents[:-2]:
        parent.chmod(parent.stat().st_mode | 0o011)
    flaky = f"""
import os
if not os.path.exists("{tmp_path}/seen"):
    open("{tmp_path}/seen", "w").close()
    raise SystemExit(1)
print("accept")
"""
    with Sandbox("process") as sandbox:
        assert run(sandbox, checked("x", "echo 2 3", flaky))["x"].verdict is Verdict.passed


REACHES = r"""
import glob, os, sys
if int(input()) == 5:
    print(2, 3)
    sys.exit()
for path in glob.glob("/tmp/**/checker", recursive=True) + ["../checker", "/sandbox/checker", "/box/checker"]:
    for name in ("main.py", "got", "expected", "input"):
        try:
            print(open(f"{path}/{name}").read())
        except OSError:
            pass
        try:
            with open(f"{path}/{name}", "w") as file:
                file.write("print('accept')")
        except OSError:
            pass
    try:
        os.rename(path, path + "-gone")
    except OSError:
        pass
"""


def test_a_program_does_not_get_at_its_checker(sandbox: Sandbox) -> None:
    """The first run compiles the checker, which stays in its folder; the second run is a program with wrong output that looks for it."""
    if sandbox.backend == "process" and os.geteuid() != 0:
        pytest.skip("process isolates nothing, and here programs run as the sandbox's own user")
    result = run(sandbox, checked("x", REACHES, SUM_IN_PYTHON, language="py", cases=2))["x"]
    assert result.verdict is Verdict.wrong_answer
    assert result.stdout == ""


SWAPS = """
import os
for name in ("input", "expected", "got"):
    try:
        os.remove(name)
        os.symlink("TARGET", name) if name != "input" else os.makedirs("input/deep/er")
    except OSError:  # read-only in a box
        pass
print("accept")
"""


def test_a_checker_cannot_have_the_sandbox_write_elsewhere(sandbox: Sandbox, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("untouched")
    swaps = checked("x", "echo 2 3", SWAPS.replace("TARGET", str(target)), cases=3)
    assert run(sandbox, swaps)["x"].verdict is Verdict.passed
    assert target.read_text() == "untouched"


def test_a_checker_is_gone_when_the_next_program_runs(sandbox: Sandbox) -> None:
    leaves = """
import os, time
if os.fork() == 0:
    os.setsid()
    time.sleep(3)
    os._exit(0)
print("accept")
"""
    found = run(sandbox, *(checked(str(at), f"echo 2 3 # {at}", leaves) for at in range(3)))
    assert {result.verdict for result in found.values()} == {Verdict.passed}


def test_the_checker_and_the_rule_are_part_of_what_is_judged(tmp_path: Path) -> None:
    plain = Program("a", "py", "print(1)", (Case("", "1"),))
    others = [
        plain,
        replace(plain, compare="tokens"),
        replace(plain, checker=Checker("py", SAME_BYTES)),
        replace(plain, checker=Checker("sh", "echo accept")),
    ]
    assert len({content_key(program) for program in others}) == 4
    for program in others:
        assert Program.from_json(program.to_json()) == program
    identities: list[dict[str, str]] = [
        {"py": "1", "sh": "1"},
        {"py": "1", "sh": "2"},
        {"py": "2", "sh": "1"},
    ]
    keys = [
        [VerdictCache(tmp_path / "v", identity).key(program) for program in others] for identity in identities
    ]
    assert len(set(keys[0])) == 4
    assert [one == other for one, other in zip(keys[0], keys[1], strict=True)] == [True, True, True, False]
    assert not set(keys[0]) & set(keys[2])


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown rule to compare output by: 'tokns'"):
        Program("a", "py", "", compare="tokns")


def test_a_checker_that_a_container_cannot_run_is_told() -> None:
    with Sandbox("process") as sandbox:
        sandbox._missing |= {"ml": (), "cpp": (), "py": ()}
        sandbox.backend = "docker"
        program = Program("x", "ml", "")
        sandbox._need_checker("py", program)
        with pytest.raises(
            UsageError, match=r"program x: its checker is in cpp, .* has only .*\bml\b.* and py"
        ):
            sandbox._need_checker("cpp", program)
