"""Tests of the bank's prompts, bodies and tests in each language against texts written by hand."""

import itertools

import pytest

from selftrain.config import BankConfig
from selftrain.problems.bank.generate import draw_tasks
from selftrain.problems.bank.languages import LANGUAGES
from selftrain.problems.bank.operations import BY_NAME, Step, Value
from selftrain.problems.bank.render import render_prompt, render_solution, render_tests

PROGRAMS = {
    "py": '''\
from typing import List

def solve(xs: List[int]) -> List[int]:
    """ Do it.
    """
    xs = [x for x in xs if x > 3]
    return xs
def check(candidate):
    assert candidate([]) == []
    assert candidate([4, -1]) == [4]

check(solve)
''',
    "cpp": """\
#include<assert.h>
#include<bits/stdc++.h>
// Do it.
std::vector<long> solve(std::vector<long> xs) {
    { std::vector<long> ys; for (long x : xs) if (x > 3) ys.push_back(x); xs = ys; }
    return xs;
}
int main() {
    auto candidate = solve;
    assert(candidate((std::vector<long>())) == (std::vector<long>()));
    assert(candidate((std::vector<long>({(long)4, (long)-1}))) == (std::vector<long>({(long)4})));
}
""",
    "java": """\
import java.util.*;
import java.util.stream.*;
class Problem {
    // Do it.
    public static ArrayList<Long> solve(ArrayList<Long> xs) {
        xs.removeIf(x -> !(x > 3));
        return xs;
    }
    public static void main(String[] args) {
    assert(solve((new ArrayList<Long>(Arrays.asList()))).equals((new ArrayList<Long>(Arrays.asList()))));
    assert(solve((new ArrayList<Long>(Arrays.asList((long)4l, (long)-1l)))).equals(\
(new ArrayList<Long>(Arrays.asList((long)4l)))));
    }

}
""",
    "php": """\
<?php
// Do it.
function solve($xs) {
    $xs = array_values(array_filter($xs, fn($x) => $x > 3));
    return $xs;
}
function candidate(...$args) {
    return solve(...$args);
}

function test(): void {
    if (candidate(array()) !== array()) { throw new Exception("Test failed!"); }
    if (candidate(array(4, -1)) !== array(4)) { throw new Exception("Test failed!"); }
}

test();
""",
    "ts": """\
// Do it.
function solve(xs: number[]): number[] {
    xs = xs.filter(x => x > 3);
    return xs;
}
declare var require: any;
const assert = require('node:assert');


function test() {
  let candidate = solve;
  assert.deepEqual(candidate([]),[]);
  assert.deepEqual(candidate([4, -1]),[4]);
}

test();
""",
    "cs": """\
using System;
using System.Collections.Generic;
using System.Diagnostics;
using System.Linq;
class Problem {
    // Do it.
    public static List<long> Solve(List<long> xs) {
        xs = xs.Where(x => x > 3).ToList();
        return xs;
    }
    public static void Main(string[] args) {
    Debug.Assert(Solve((new List<long>())).SequenceEqual((new List<long>())));
    Debug.Assert(Solve((new List<long>(new long[]{(long)4L, (long)-1L}))).SequenceEqual(\
(new List<long>(new long[]{(long)4L}))));
    }

}
""",
    "sh": """\
#!/bin/bash
# Do it.
#
# $1 is a space-separated list
solve() {
    xs=($1)
    ys=(); for x in ${xs[@]}; do ((x > 3)) && ys+=($x); done; xs=(${ys[@]})
    echo ${xs[@]}
}

candidate() {
    solve "$@"
}

set -e
run_test() {
    [[ $(candidate "") = "" ]]
    [[ $(candidate "4 -1") = "4" ]]
}

run_test
""",
    "js": """\
// Do it.
function solve(xs){
    xs = xs.filter(x => x > 3);
    return xs;
}
const assert = require('node:assert');


function test() {
  let candidate = solve;
  assert.deepEqual(candidate([]),[]);
  assert.deepEqual(candidate([4, -1]),[4]);
}

test();
""",
}

SIGNATURES = {  # of a function from string to bool
    "py": "def solve(s: str) -> bool:",
    "cpp": "bool solve(std::string s) {",
    "java": "    public static boolean solve(String s) {",
    "php": "function solve($s) {",
    "ts": "function solve(s: string): boolean {",
    "cs": "    public static bool Solve(string s) {",
    "sh": "# $1 is a string",
    "js": "function solve(s){",
}

CASES: dict[str, tuple[str, str, str]] = {  # string to bool, string to string, number to number
    "py": ("candidate('a b') == True", "candidate('') == '?'", "candidate(-5) == 7"),
    "cpp": ('candidate(("a b")) == (true)', 'candidate(("")) == ("?")', "candidate((-5)) == (7)"),
    "java": ('solve(("a b")) == (true)', 'solve(("")).equals(("?"))', "solve((-5l)) == (7l)"),
    "php": ('candidate("a b") !== true', 'candidate("") !== "?"', "candidate(-5) !== 7"),
    "ts": ('candidate("a b"),true', 'candidate(""),"?"', "candidate(-5),7"),
    "cs": ('Solve(("a b")) == (true)', 'Solve(("")).Equals(("?"))', "Solve((-5L)) == (7L)"),
    "sh": ('$(candidate "a b") = "true"', '$(candidate "") = "?"', '$(candidate "-5") = "7"'),
    "js": ('candidate("a b"),true', 'candidate(""),"?"', "candidate(-5),7"),
}


@pytest.mark.parametrize("language", LANGUAGES)
def test_program_is_written_as(language: str) -> None:
    steps = [Step(BY_NAME["gt"], 3), Step(BY_NAME["list"], 0)]
    cases: list[tuple[Value, Value]] = [([], []), ([4, -1], [4])]
    prompt = render_prompt(language, "Do it.", "list", "list")
    program = prompt + render_solution(language, steps) + "\n" + render_tests(language, cases)
    assert program == PROGRAMS[language]


@pytest.mark.parametrize("language", LANGUAGES)
def test_types_and_values_are_written_as(language: str) -> None:
    assert SIGNATURES[language] in render_prompt(language, "Do it.", "string", "bool").splitlines()
    pairs: list[tuple[Value, Value]] = [("a b", True), ("", "?"), (-5, 7)]
    for case, text in zip(pairs, CASES[language], strict=True):
        assert text in render_tests(language, [case])


def test_text_that_looks_like_a_field_stays() -> None:
    assert "<arg> <takes>" in render_prompt("ts", "<arg> <takes>", "list", "bool")


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_answer_of_the_corpus_is_cut_by_a_stop_token(language: str) -> None:
    config = BankConfig(families=("list", "string", "number"), languages=(language,), sizes={"sft": 200})
    for task in itertools.islice(draw_tasks(config), 200):
        answer = render_solution(language, task.corpus[language]) + "\n"
        assert not [token for token in LANGUAGES[language].stop_tokens if token in answer]
