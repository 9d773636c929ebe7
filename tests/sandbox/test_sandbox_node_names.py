"""Tests that TypeScript programs that read standard input may use node without declaring it (`sandbox.node_names`)."""

import pytest

from sandbox.client import Sandbox
from sandbox.languages import language
from sandbox.node_names import FILE, declarations
from sandbox.verdicts import Case, Program, Result, Verdict

READ = "const [a, b]: number[] = {}.split(' ').map(Number);\nconsole.log(a + b);\n"
PROGRAMS = {
    "all of a module": "import * as fs from 'fs';\n" + READ.format("fs.readFileSync(0, 'utf8')"),
    "its default": "import fs from 'fs';\n" + READ.format("fs.readFileSync(0, 'utf8')"),
    "a name": "import { readFileSync } from 'node:fs';\n" + READ.format("readFileSync(0, 'utf8')"),
    "require": "const fs = require('fs');\n" + READ.format("fs.readFileSync(0, 'utf8')"),
    "require, declared otherwise": "declare const require: (name: string) => any;\nconst fs = require('fs');\n"
    + READ.format("fs.readFileSync(0, 'utf8')"),
    "a function named process": "const fs = require('fs');\nfunction process(text: string): void {\n"
    "  const [a, b] = text.split(' ').map(Number);\n  console.log(a + b);\n}\nprocess(fs.readFileSync(0, 'utf8'));\n",
    "events": "const parts: Buffer[] = [];\nlet timer: NodeJS.Timeout;\nprocess.stdin.on('data', (part: Buffer) => parts.push(part));\n"
    "process.stdin.on('end', () => {\n  const [a, b] = Buffer.concat(parts).toString().split(' ').map(Number);\n  console.log(a + b);\n});\n",
    "lines": "import * as readline from 'readline';\nconst lines: readline.Interface = readline.createInterface({ input: process.stdin });\n"
    "lines.on('line', (line: string) => {\n  const [a, b] = line.split(' ').map(Number);\n  console.log(a + b);\n});\n",
    "lines, by their default": "import readline from 'readline';\nasync function main(): Promise<void> {\n"
    "  for await (const line of readline.createInterface({ input: process.stdin })) {\n"
    "    const [a, b] = line.split(' ').map(Number);\n    console.log(a + b);\n  }\n}\nmain();\n",
    "a class of its own": "import { EventEmitter } from 'events';\nclass Adder extends EventEmitter {}\nconst adder = new Adder();\n"
    "adder.on('add', (a: number, b: number) => console.log(a + b));\nadder.emit('add', 3, 4);\nif (require.main !== module) throw 1;\n",
}
REFUSED = {
    "a type error beside": "import * as fs from 'fs';\nconst a: number = 'x';\nconsole.log(fs, a);\n",
    "a name that node lacks": "import * as fs from 'fs';\nconsole.log(fs, processes);\n",
    "a module that node lacks": "import * as fs from 'fs';\nimport * as other from 'no-such-module';\nconsole.log(fs, other);\n",
}


def judge(sandbox: Sandbox, source: str, cases: tuple[Case, ...] = (Case("3 4\n", "7\n"),)) -> Result:
    sandbox.need("ts")
    (result,) = sandbox.run([Program("a", "ts", source, cases)])
    return result


@pytest.mark.parametrize("title", PROGRAMS)
def test_what_node_gives_need_not_be_declared(sandbox: Sandbox, title: str) -> None:
    result = judge(sandbox, PROGRAMS[title])
    assert (result.verdict, result.stdout) == (Verdict.passed, "7\n"), result


@pytest.mark.parametrize("title", REFUSED)
def test_other_mistakes_are_told_without_those_names(sandbox: Sandbox, title: str) -> None:
    result = judge(sandbox, REFUSED[title])
    assert result.verdict is Verdict.compile_error
    assert "'fs'" not in result.stdout + result.stderr
    assert result.note.startswith("dependency_missing: no-such-module ") == ("module" in title)


def test_the_declarations_are_gone_when_the_program_runs(sandbox: Sandbox) -> None:
    source = "import * as fs from 'fs';\nconsole.log(fs.readdirSync(__dirname).join());\n"
    result = judge(sandbox, source, (Case("", "main.js\n"), Case("", "main.js\n")))
    assert result.verdict is Verdict.passed, result


def test_a_program_with_tests_declares_what_it_uses(sandbox: Sandbox) -> None:
    assert judge(sandbox, PROGRAMS["require"], ()).verdict is Verdict.compile_error


def test_each_name_is_declared_once_and_no_other() -> None:
    said = (
        "main.ts(1,21): error TS2307: Cannot find module 'fs' or its corresponding type declarations.\n"
        "main.ts(2,21): error TS2307: Cannot find module 'fs' or its corresponding type declarations.\n"
        "main.ts(2,27): error TS2307: Cannot find module 'left-pad' or its corresponding type declarations.\n"
        "main.ts(3,1): error TS2580: Cannot find name 'process'. Do you need to install type definitions for node?\n"
        "main.ts(4,1): error TS2304: Cannot find name 'proces'.\n"
    )
    program = Program("a", "ts", "", (Case("", ""),))
    row = language("ts").of(program)
    assert declarations(row, program, said) == (
        "declare module 'fs';\ndeclare var process: any; declare type process = any;\n"
    )
    assert declarations(row, program, "main.ts(1,1): error TS1005: ';' expected.") == ""
    assert declarations(language("ts"), Program("a", "ts", ""), said) == ""
    own = Program("a", "ts", "", (Case("", ""),), files=((FILE, ""),))
    assert declarations(row, own, said) == ""
