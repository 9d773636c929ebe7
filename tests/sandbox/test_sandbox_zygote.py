"""Tests that zygotes (`sandbox.zygote`), which speed up node and C++, have no visible effect on programs."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sandbox import prepared
from sandbox.languages import PATH
from sandbox.preamble import without_includes
from sandbox.verdicts import Case, Limits, Program, Result, Verdict
from tests.command import ROOT
from tests.needs import need, need_tools

BITS = "#include <bits/stdc++.h>\n"

CPP = {
    "passes": BITS
    + "int main() { std::vector<int> a{1, 2}; assert(a.size() == 2); std::cout << std::to_string(a[1]); }",
    "includes": "#include <assert.h>\n#include <math.h> // a\n"
    + BITS
    + "int main() { assert(abs(-1.5) == 1.5); }",
    "no math.h": BITS + "static_assert(sizeof(::abs(-1.5)) == sizeof(int)); int main() {}",
    "own name and line": BITS + "\n\nint main() { printf(__FILE__, __LINE__); assert(1 + 1 == 3); }",
    "exit code": BITS + "int main() { return 7; }",
    "exception": BITS + "int main() { throw std::runtime_error(__FUNCTION__); }",
    "error": BITS + "int main() { std::map<int, int> a; a.push(1); undefined; }",
    "two errors and a warning": BITS
    + "#warning here\nint f() { return nothing; }\nint main() { return none; }",
    "end of file": BITS + "int main() {",
    "comment without an end": BITS + "int main() {} /* ",
    "backslash at the end": BITS + "int main() {} // \\",
    "line comment at the end": BITS + "int main() {} // a",
    "reads itself": BITS
    + "#ifndef A\n#define A\n#include __FILE__\n#endif\n#ifdef B\nint main() { return 3; }\n#endif\n#define B",
    "other header": BITS + "#include <nowhere.h>\nint main() {}",
    "linker": BITS + "int f();\nint main() { return f(); }",
    "own specializations": BITS
    + "struct P { int x; };\nnamespace std { template <> struct hash<P> { size_t operator()(P p) const { return p.x; } };\n"
    "template <> void swap(P &a, P &b) noexcept { a.x = b.x = 9; } }\nbool operator==(P a, P b) { return a.x == b.x; }\n"
    "int main() { std::unordered_set<P> s{{1}, {1}}; std::vector<P> v{{1}, {2}}; std::swap(v[0], v[1]);\n"
    '  assert(s.size() == 1 && v[0].x == 9); std::reverse(v.begin(), v.end()); assert(std::regex_match("ab", std::regex("a."))); }',
    "own names": BITS
    + "using namespace std;\nnamespace mine { int count = 1, data = 2; }\nint main() { return mine::count + mine::data; }",
    "threads": BITS
    + "int main() { std::atomic<int> n{0}; std::thread a([&] { ++n; }), b([&] { ++n; }); a.join(); b.join(); return n; }",
    "streams": "#include <iostream>\n#include <vector>\nint main() { std::cout << std::vector<int>{4}.at(0); return 1; }",
    "time stamp": BITS + "int main() { puts(__TIMESTAMP__ + 20); }",
    "byte order mark": "\ufeff" + BITS + "int main() { return 2; }",
    "large": BITS + "//" + "a" * (48 << 10) + "\nint main() { return 2; }",
}
JS = {
    "passes": "require('assert').deepEqual([1], [1]); console.log('a')",
    "assertion": "require('assert').equal(1, 2)",
    "process": "const p = process; console.log(p.argv, p.execArgv, p.execPath, p.title, p.env, p.cwd(), p.argv0, p.versions, p.getuid() > 0)",
    "exit code": "process.exitCode = 3; setTimeout(() => console.log('later'), 5); process.on('exit', () => console.log('end'))",
    "exception": "console.log(1); function f() { throw new TypeError('a') }\nf()",
    "rejection": "Promise.reject(new Error('a'))",
    "syntax": "let a = ;",
    "signal": "process.kill(process.pid, 'SIGTERM'); setTimeout(() => {}, 9999)",
    "threads": "const w = require('worker_threads'); if (w.isMainThread) new w.Worker(__filename).on('message', m => console.log(m)); "
    "else w.parentPort.postMessage(8)",
    "children": "console.log(require('child_process').execFileSync(process.execPath, ['-p', '[process.argv.length, 6 * 7]']).toString())",
    "crypto": "const c = require('crypto'); console.log(c.createHash('sha256').update('a').digest('hex'), c.randomBytes(8).length)",
    "a lot": "process.stdout.write('a'.repeat(300000))",
    "limits": "console.log(require('fs').readFileSync('/proc/self/limits').toString(), "
    "require('fs').readFileSync('/proc/self/status').toString().match(/NoNewPrivs.*|CapEff.*|TracerPid.*|Threads.*/g))",
    "descriptors": "console.log(require('fs').readdirSync('/proc/self/fd').filter(n => n < 3).length)",
}


# A worker; the second one has no zygotes.
WORKERS = (
    "from sandbox.runner import main; main()",
    "from sandbox.judge import Judge; Judge.zygote = lambda *_: None; from sandbox.runner import main; main()",
)


class Worker:
    """A worker process of backend `process`, started by `script`."""

    def __init__(self, script: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", script, "process"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
        )

    def judge(self, program: Program) -> Result:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps({"judge": [program.to_json()]}).encode() + b"\n")
        self.process.stdin.flush()
        return Result.from_json(json.loads(self.process.stdout.readline())["answer"])

    def zygotes(self) -> list[str]:
        """What the worker's zygotes are."""
        found = []
        for child in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split():
            if b"SANDBOX_SOCKET=" in Path(f"/proc/{child}/environ").read_bytes():
                found.append(Path(f"/proc/{child}/comm").read_text().strip())
        return found


@pytest.fixture(scope="module")
def workers() -> Iterator[tuple[Worker, Worker]]:
    need(os.geteuid() == 0, "zygotes need root, to become a program's user")
    need_tools("gcc", "g++", "node")
    with_zygotes, without = map(Worker, WORKERS)
    yield with_zygotes, without
    for worker in (with_zygotes, without):
        worker.process.communicate()


def same_without(workers: tuple[Worker, Worker], program: Program, zygote: str) -> Result:
    """The result of `program`, which is the same without zygotes. `zygote`: the one that it takes."""
    result, plain = (worker.judge(program) for worker in workers)
    assert zygote in workers[0].zygotes()
    assert workers[1].zygotes() == []
    temporary = re.compile(r"/sandbox-\w+/|/cc\w+|\b\d+\.\d+ms")

    def told(one: Result) -> tuple[object, ...]:
        texts = (temporary.sub("", text) for text in (one.stdout, one.stderr))
        return one.verdict, one.exit_code, *texts

    assert told(result) == told(plain)
    return result


@pytest.mark.slow
@pytest.mark.parametrize("name", CPP)
def test_cpp_is_the_same(workers: tuple[Worker, Worker], name: str) -> None:
    verdicts = {
        "passes": Verdict.passed,
        "includes": Verdict.passed,
        "no math.h": Verdict.passed,
        "own specializations": Verdict.passed,
        "own name and line": Verdict.wrong_answer,
        "linker": Verdict.compile_error,
        "error": Verdict.compile_error,
        "end of file": Verdict.compile_error,
    }
    result = same_without(workers, Program(name, "cpp", CPP[name]), "cc1plus")
    assert result.verdict is verdicts.get(name, result.verdict)


@pytest.mark.slow
def test_cpp_with_cases_is_the_same(workers: tuple[Worker, Worker]) -> None:
    source = (
        BITS
        + "int main() { int a; std::cin >> a; std::cout << a + 1;\n#ifdef ONLINE_JUDGE\nreturn 0;\n#endif\nreturn 1; }"
    )
    result = same_without(
        workers, Program("a", "cpp", source, cases=(Case("1", "2"), Case("2", "3"))), "cc1plus"
    )
    assert result.verdict is Verdict.passed


@pytest.mark.slow
@pytest.mark.parametrize("name", JS)
def test_js_is_the_same(workers: tuple[Worker, Worker], name: str) -> None:
    result = same_without(workers, Program(name, "js", JS[name]), "node")
    assert name != "passes" or result.verdict is Verdict.passed


@pytest.mark.slow
def test_js_with_cases_has_the_deep_stack(workers: tuple[Worker, Worker]) -> None:
    source = "const f = n => n ? 1 + f(n - 1) : 0; process.stdin.on('data', d => console.log(f(+d)))"
    result = same_without(workers, Program("a", "js", source, cases=(Case("300000", "300000"),)), "node")
    assert result.verdict is Verdict.passed


@pytest.mark.slow
@pytest.mark.parametrize(
    ("language", "source", "verdict"),
    [
        ("js", "while (true);", Verdict.timeout),
        ("js", "const a = []; while (true) a.push(Buffer.alloc(1 << 20, 1))", Verdict.memory_exceeded),
        ("cpp", BITS + "template <int n> struct A { static const int a = A<n + 1>::a + A<n + 2>::a; };\n"
         "int main() { return A<0>::a; }", Verdict.compile_error),
        ("cpp", BITS + "constexpr int f(long n) { int a = 0; for (long i = 0; i < n; ++i) a ^= i; return a; }\n"
         "template <long n> struct A { static_assert(f(200000 + n)); static const int a = A<n + 1>::a; };\nint main() { return A<0>::a; }",
         Verdict.timeout),
    ],
)  # fmt: skip
def test_limits_hold(workers: tuple[Worker, Worker], language: str, source: str, verdict: Verdict) -> None:
    limits = Limits(cpu_seconds=1, compile_cpu_seconds=1, memory_bytes=300 << 20)
    assert workers[0].judge(Program("a", language, source, limits=limits)).verdict is verdict
    assert workers[0].judge(Program("b", "js", JS["passes"])).verdict is Verdict.passed


@pytest.mark.slow
def test_a_zygote_that_does_not_start_is_done_without(workers: tuple[Worker, Worker]) -> None:
    broken = (
        f"import sandbox.zygote; sandbox.zygote.prepared = lambda *_: ('/nowhere.so', None); {WORKERS[0]}"
    )
    worker = Worker(broken)
    for language, text in (("js", JS["passes"]), ("cpp", CPP["passes"])):
        assert worker.judge(Program("a", language, text)).verdict is Verdict.passed
    assert worker.zygotes() == []
    worker.process.communicate()


def test_only_directives_that_have_no_effect_are_taken_out() -> None:
    source = (
        "// <cmath>\n# include <cmath> // a\n#include <math.h>\n#include <iostream>\nint x;\n#include <map>\n"
    )
    bare = "// <cmath>\n" + " " * 17 + " // a\n#include <math.h>\n" + " " * 19 + "\nint x;\n#include <map>\n"
    assert without_includes(source, "most") == bare
    assert without_includes(source, "streams-contest") == source.replace("#include <iostream>", " " * 19)


def test_the_same_program_again_gets_a_fresh_process(workers: tuple[Worker, Worker]) -> None:
    program = Program("a", "js", "globalThis.n = (globalThis.n || 0) + 1; console.log(n, process.pid)")
    first, second = workers[0].judge(program), workers[0].judge(replace(program, id="b"))
    assert first.stdout.split()[0] == second.stdout.split()[0] == "1"
    assert first.stdout != second.stdout


def test_a_node_that_was_built_without_a_snapshot_gets_one(monkeypatch: pytest.MonkeyPatch) -> None:
    need_tools("node")
    real = shutil.which("node", path=PATH)
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)  # programs, which may be other users, have to be able to read it
        node = Path(folder, "node")
        node.write_text(f'#!/bin/sh\nif [ "$1" = -p ]; then echo "$BUILT_WITH"; else exec {real} "$@"; fi\n')
        node.chmod(0o755)
        monkeypatch.setenv("XDG_CACHE_HOME", folder)
        monkeypatch.setattr(prepared, "PATH", folder)
        for built_with, found in (("true", False), ("false", True)):
            monkeypatch.setattr(prepared, "_ENV", {"PATH": f"{folder}:{PATH}", "BUILT_WITH": built_with})
            prepared._directory.cache_clear()
            prepared._has_snapshot.cache_clear()
            argument, directory = prepared.prepared("snapshot", Limits())
            assert (argument.startswith("--snapshot-blob="), directory is not None) == (found, found)
    prepared._directory.cache_clear()
    prepared._has_snapshot.cache_clear()
