"""Tests of the command line `python -m sandbox`: `run`, `judge` (rows, resume, cache, answers), `languages`, exit codes."""

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sandbox.languages import LANGUAGES
from sandbox.rows import parse_row

ROOT = Path(__file__).parents[2]


def sandbox(*arguments: str | Path, backend: str | None = "process") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sandbox", *map(str, arguments)]
    return subprocess.run(
        [*command, "--backend", backend] if backend else command,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def write_rows(path: Path, rows: list) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read_rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_help_shows_examples_and_exit_codes_and_imports_little() -> None:
    done = sandbox("--help", backend=None)
    assert done.returncode == 0
    assert "python -m sandbox judge completions.jsonl" in done.stdout
    assert "3 the sandbox itself failed" in done.stdout


def test_the_package_stands_alone() -> None:
    """The package imports nothing else of the project, and no heavy library."""
    probe = "import sys, sandbox.cli, sandbox.runner; print(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", probe], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not {"torch", "prefect", "selftrain", "flows", "tasks", "numpy", "transformers"} & set(
        done.stdout.split()
    )


def test_languages_lists_the_table() -> None:
    done = sandbox("languages")
    assert done.returncode == 0
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["backend:", *LANGUAGES]
    assert "python3: Python 3." in done.stdout


def test_a_reader_that_leaves_early_is_no_mistake() -> None:
    command = [sys.executable, "-m", "sandbox", "languages", "--backend", "process"]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as done:
        assert done.stdout is not None
        done.stdout.close()
        assert done.stderr is not None
        assert "Traceback" not in done.stderr.read()


@pytest.mark.parametrize(
    ("source", "verdict", "code"),
    [("print(input())", "passed", 0), ("print(1)", "wrong_answer", 1), ("1/0", "runtime_error", 1)],
)
def test_run_prints_one_verdict(tmp_path: Path, source: str, verdict: str, code: int) -> None:
    (tmp_path / "a.py").write_text(source)
    (tmp_path / "in").write_text("7\n")
    (tmp_path / "out").write_text("7\n")
    done = sandbox(
        "run", "--language", "py", tmp_path / "a.py", "--stdin", tmp_path / "in", "--expect", tmp_path / "out"
    )
    assert done.returncode == code
    (line,) = done.stdout.splitlines()
    assert json.loads(line)["verdict"] == verdict
    assert "isolates nothing" in done.stderr


def test_run_takes_a_limit(tmp_path: Path) -> None:
    (tmp_path / "a.sh").write_text("while :; do :; done")
    done = sandbox("run", "--language", "sh", tmp_path / "a.sh", "--cpu-seconds", "0.3")
    assert (done.returncode, json.loads(done.stdout)["verdict"]) == (1, "timeout")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "--language", "py", "/nowhere/a.py"), "error: /nowhere/a.py: "),
        (("run", "--language", "cobol", "a"), "argument --language: unknown language 'cobol'; known: py, "),
        (
            ("run", "--language", "py", "a", "--cpu-seconds", "-1"),
            "expected a number of seconds above 0 and at most 86400, got -1",
        ),
        (
            ("run", "--language", "py", "a", "--cpu-seconds", "2s"),
            "expected a number of seconds above 0 and at most 86400, got 2s",
        ),
        (("judge", "/nowhere/in.jsonl", "out.jsonl"), "error: /nowhere/in.jsonl: "),
        (("serve", "--port", "65536"), "error: --port: expected 0 to 65535, got 65536"),
        (("serve", "--port", "-1"), "error: --port: expected 0 to 65535, got -1"),
        ((), "required: COMMAND"),
    ],
)
def test_wrong_usage_exits_with_2(arguments: tuple[str, ...], message: str) -> None:
    done = sandbox(*arguments, backend=None)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_judge_keeps_the_order_of_its_rows(tmp_path: Path) -> None:
    rows = [
        {"id": "slow", "language": "py", "program": "import time; time.sleep(1)"},
        {"id": "same", "language": "py", "program": "print(1)"},
        {"id": "same", "language": "py", "program": "print(1)"},
        {
            "id": "mpl",
            "language": "py",
            "prompt": "def f():\n",
            "completion": "    exit(0)",
            "tests": "assert f()",
        },
        {"id": "io", "language": "sh", "program": "cat", "cases": [{"stdin": "a", "stdout": "b"}]},
    ]
    output = tmp_path / "made" / "out.jsonl"
    done = sandbox("judge", write_rows(tmp_path / "in.jsonl", rows), output, "--workers", "2")
    assert done.returncode == 0, done.stderr
    results = read_rows(output)
    assert [(row["id"], row["verdict"]) for row in results] == [
        ("slow", "passed"),
        ("same", "passed"),
        ("same", "passed"),
        ("mpl", "wrong_answer"),
        ("io", "wrong_answer"),
    ]
    assert results[2]["cached"]
    assert "5/5 programs" in done.stderr
    assert "3 passed, 2 wrong_answer" in done.stderr
    assert not output.with_name("out.jsonl.part").exists()


def test_judge_counts_the_libraries_that_are_not_there(tmp_path: Path) -> None:
    programs = {
        "a": "import nosuch",
        "b": "import nosuch\n",
        "c": "import other.part",
        "d": "print()",
        "e": "1/0",
    }
    rows = [{"id": id, "language": "py", "program": program} for id, program in programs.items()]
    output = tmp_path / "out.jsonl"
    done = sandbox("judge", write_rows(tmp_path / "in.jsonl", rows), output, "--workers", "2")
    assert done.returncode == 0, done.stderr
    said = "is not found here; see Libraries in sandbox/README.md"
    assert [row["note"] for row in read_rows(output)] == [
        f"dependency_missing: nosuch {said}",
        f"dependency_missing: nosuch {said}",
        f"dependency_missing: other {said}",
        "",
        "",
    ]
    told = "1 passed; dependency_missing: nosuch 2, other 1"
    assert told in done.stderr


GOOD = {"id": "a", "language": "py", "program": ""}


def test_a_field_that_is_null_is_as_one_that_is_not_there() -> None:
    """As a table has them whose rows differ."""
    columns = dict.fromkeys(
        (
            "program",
            "prompt",
            "completion",
            "tests",
            "cases",
            "compare",
            "checker",
            "every_case",
            "limits",
            "audit",
        )
    )
    rows = (
        {"id": "a", "language": "py", "program": "print(1)"},
        {"id": "b", "language": "py", "prompt": "x = 1", "completion": "", "tests": "assert x"},
    )
    for row in rows:
        full = parse_row(columns | row | {"name": None})
        assert full.program == parse_row(row).program
        assert full.extra == {"name": None}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "Expecting property name"),
        ("[]", "{id, language, prompt, completion, tests} | {id, language, program}, got list"),
        (
            '{"id": "b", "language": "py"}',
            "the last with or without cases, compare, checker and every_case; got id, language\n",
        ),
        (
            '{"id": "b", "language": "py", "Program": ""}',
            "got Program, id, language 'Program'; did you mean 'program'?",
        ),
        (
            '{"id": "b", "language": "py", "prompt": "", "complation": "", "tests": "", "name": "n"}',
            "'complation'; did you mean 'completion'?",
        ),
        (
            json.dumps(GOOD | {"prompt": "", "completion": "", "tests": ""}),
            "got completion, id, language, program,",
        ),
        (
            '{"id": "b", "language": "py", "prompt": "", "completion": "", "tests": "", "cases": []}',
            "expected an object with the fields",
        ),
        (json.dumps(GOOD | {"compare": 0}), "compare: expected a string, got int"),
        (json.dumps(GOOD | {"every_case": 0}), "every_case: expected true or false, got 0"),
        (json.dumps(GOOD | {"case": []}), "unknown field 'case'; did you mean 'cases'?"),
        ("[" * 200_000, "nested too deep"),
        (json.dumps(GOOD)[:-1] + ', "more": ' + '{"a":' * 200_000 + "1" + "}" * 200_001, "nested too deep"),
        (json.dumps(GOOD | {"id": 1}), "id: expected a string, got int"),
        (json.dumps(GOOD | {"language": "cobol"}), "unknown language 'cobol'"),
        (json.dumps(GOOD | {"cases": {}}), "cases: expected a list, got dict"),
        (
            json.dumps(GOOD | {"cases": [{"stdin": ""}]}),
            "cases: expected objects with the fields stdin, stdout",
        ),
        (
            json.dumps(GOOD | {"cases": [{"stdin": "", "stdout": 1}]}),
            "stdout: expected a string",
        ),
    ],
)
def test_a_bad_row_is_named_by_file_and_line(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text(json.dumps(GOOD) + "\n\n" + line + "\n")
    done = sandbox("judge", path, tmp_path / "out.jsonl")
    assert done.returncode == 2
    assert f"error: {path}:3: " in done.stderr
    assert message in done.stderr
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("in.jsonl", "in.jsonl"), "in.jsonl: input and output are one file"),
        (("in.jsonl", "link.jsonl"), "link.jsonl: input and output are one file"),
        (("in.jsonl", "hard.jsonl"), "hard.jsonl: input and output are one file"),
        (("out.jsonl.part", "out.jsonl"), "out.jsonl.part: input and output are one file"),
        (("in.jsonl", "out.jsonl", "--cache", "in.jsonl"), "in.jsonl: input and cache are one file"),
        (("in.jsonl", "out.jsonl", "--cache", "out.jsonl"), "out.jsonl: output and cache are one file"),
        (("in.jsonl", "out.jsonl", "--cache", "notes"), "notes: no verdict cache"),
        (("in.jsonl", "out.jsonl", "--cache", "folder"), "folder is a folder"),
        (("in.jsonl", "folder"), "folder is a folder"),
        (("in.jsonl", "null"), "null is a device, pipe or socket; expected the name of a file to write"),
        (("in.jsonl", "pipe"), "pipe is a device, pipe or socket; expected the name of a file to write"),
        (("in.jsonl", "out.jsonl", "--cache", "null"), "null is a device, pipe or socket"),
    ],
)
def test_judge_writes_over_no_file_that_it_reads_or_does_not_know(
    tmp_path: Path, names: tuple[str, ...], message: str
) -> None:
    write_rows(tmp_path / "in.jsonl", [GOOD])
    write_rows(tmp_path / "out.jsonl.part", [GOOD])
    (tmp_path / "link.jsonl").symlink_to("in.jsonl")
    (tmp_path / "hard.jsonl").hardlink_to(tmp_path / "in.jsonl")
    (tmp_path / "notes").write_text("# Mine\n" * 200)
    (tmp_path / "notes.txt").write_text("mine too")
    (tmp_path / "folder").mkdir()
    (tmp_path / "null").symlink_to("/dev/null")
    os.mkfifo(tmp_path / "pipe")
    before = {path.name: path.is_file() and path.read_text() for path in tmp_path.iterdir()}
    done = sandbox("judge", *(name if name[0] == "-" else tmp_path / name for name in names))
    assert done.returncode == 2
    assert message in done.stderr
    assert {path.name: path.is_file() and path.read_text() for path in tmp_path.iterdir()} == before


def test_an_output_that_is_a_link_is_written_where_it_leads(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "out.jsonl").symlink_to("disk/out.jsonl")
    done = sandbox("judge", write_rows(tmp_path / "in.jsonl", [GOOD]), tmp_path / "out.jsonl")
    assert done.returncode == 0
    assert (tmp_path / "out.jsonl").is_symlink()
    assert read_rows(tmp_path / "disk" / "out.jsonl")[0]["verdict"] == "passed"
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["out.jsonl"]


def test_a_packed_file_is_to_be_unpacked(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl.gz").write_bytes(gzip.compress(json.dumps(GOOD).encode()))
    done = sandbox("judge", tmp_path / "in.jsonl.gz", tmp_path / "out.jsonl")
    assert done.returncode == 2
    assert done.stderr.endswith(": not UTF-8 (invalid start byte); unpack it\n")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"id,language,program\na,py,print(1)\n", ":1: broken JSON at column 1 (Expecting value): 'id,language,program'"),
        (b'[\n{"id": "a"},\n', ":1: broken JSON at column 2 (Expecting value): '['"),
        (json.dumps({"id": "a"}).encode("utf-16"), ": not UTF-8 (invalid start byte); save the file as UTF-8"),
        (b'{"language": "py", "program": "1"}', "got language, program, without id"),
        (b'{"id": "a", "language": "py", "tests": "1", "completion": "1"}', "without prompt"),
    ],
)  # fmt: skip
def test_a_file_in_another_format_is_told_by_what_is_wrong(
    tmp_path: Path, content: bytes, message: str
) -> None:
    (tmp_path / "in.jsonl").write_bytes(content)
    done = sandbox("judge", tmp_path / "in.jsonl", tmp_path / "out.jsonl")
    assert done.returncode == 2
    assert message in done.stderr


def test_other_fields_go_to_the_results(tmp_path: Path) -> None:
    """Other fields of a row go to its result, do not overwrite the result's own fields, and are listed in one note."""
    mpl = {
        "id": "m",
        "language": "py",
        "prompt": "def f():\n",
        "completion": "    return 1",
        "tests": "assert f()",
    }
    rows = [
        mpl
        | {"name": "HumanEval_0_f", "stop_tokens": ["\ndef"], "doctests": None, "prompt_terminology": "x"},
        GOOD | {"labels": {"n": [1, "\u00e9", "\ud800"]}, "verdict": "timeout", "stdout": "mine"},
        GOOD | {"program": "print(1)", "cases": [], "name": "other"},
    ]
    done = sandbox("judge", write_rows(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl")
    assert done.returncode == 0, done.stderr
    first, second, third = read_rows(tmp_path / "out.jsonl")
    assert first["stop_tokens"] == ["\ndef"]
    assert first["doctests"] is None
    assert first["name"] == "HumanEval_0_f"
    assert second["labels"] == {"n": [1, "\u00e9", "\ud800"]}
    assert (second["verdict"], second["stdout"]) == ("passed", "")
    assert third["name"] == "other"
    assert not {"program", "prompt", "tests", "completion", "cases"} & (
        first.keys() | second.keys() | third.keys()
    )
    said = [line for line in done.stderr.splitlines() if "not used" in line]
    assert said == [
        f"{tmp_path}/in.jsonl: fields not used, carried over to the results: name, stop_tokens, doctests, "
        "prompt_terminology, labels; not used, and left out, because results have such fields: verdict, stdout"
    ]


@pytest.mark.parametrize("mark", ["\ufeff", "\ufeff\n\ufeff", "\ufeff  "])
def test_byte_order_marks_of_files_that_were_put_together(tmp_path: Path, mark: str) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text(f"{mark}{json.dumps(GOOD)}\r\n\ufeff{json.dumps(GOOD | {'id': 'b'})}\r\n", "utf-8")
    assert sandbox("judge", path, tmp_path / "out.jsonl").returncode == 0
    assert [row["id"] for row in read_rows(tmp_path / "out.jsonl")] == ["a", "b"]


def test_verdicts_are_kept_from_call_to_call(tmp_path: Path) -> None:
    unique = "import uuid; print(uuid.uuid4())"
    rows = [GOOD | {"id": "a", "program": unique}, GOOD | {"id": "b", "program": f"{unique}#"}]
    path, cache = write_rows(tmp_path / "in.jsonl", rows), tmp_path / "verdicts.sqlite"
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    assert sandbox("judge", path, first, "--cache", cache).returncode == 0
    write_rows(path, [*rows[::-1], GOOD | {"id": "c"}])
    assert sandbox("judge", path, second, "--cache", cache).returncode == 0
    known = {row["id"]: row["stdout"] for row in read_rows(first)}
    assert [(row["id"], row["stdout"], row["cached"]) for row in read_rows(second)] == [
        ("b", known["b"], True),
        ("a", known["a"], True),
        ("c", "", False),
    ]


def test_answers_are_taken_apart(tmp_path: Path) -> None:
    """Code is extracted from an answer in markdown or with the prompt repeated; a plain completion stays unchanged."""
    f = {"language": "py", "prompt": "def f(n):\n", "tests": "assert f(1) == 2"}
    rows = [
        f | {"id": "plain", "completion": "    return n + 1"},
        f
        | {"id": "markdown", "completion": "Sure:\n```python\ndef f(n):\n    return n + 1\n```\nThat is it."},
        f | {"id": "again", "completion": "def f(n):\n    return n + 1\nprint(f(3))\n"},
        f | {"id": "wrong", "completion": "```python\ndef f(n):\n    return n\n```"},
    ]
    helper = "```python\nimport math\ndef one():\n    return math.gcd(1, 3)\n```"
    rows += [
        f | {"id": "apart", "completion": f"{helper}\nSo:\n```python\ndef f(n):\n    return n + one()\n```"},
        f | {"id": "no code", "completion": "<think>Well.\n```python\ndef f(n):\n    return n + 1\n```"},
        f | {"id": "no f", "completion": "```python\ndef g(n, m):\n    return n + 1\n```"},
    ]
    path, output = write_rows(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    done = sandbox("judge", path, output)
    assert done.returncode == 0, done.stderr
    found = read_rows(output)
    verdicts = [row["verdict"] for row in found]
    assert verdicts == [
        "passed",
        "passed",
        "passed",
        "wrong_answer",
        "passed",
        "wrong_answer",
        "wrong_answer",
    ]
    assert [row["note"] for row in found[-3:]] == [
        "",
        "unreadable answer: it ends inside of its thoughts",
        "unreadable answer: no block of it defines f; defined: g",
    ]
    assert found[-1]["exit_code"] is None
    assert (
        "4 passed, 3 wrong_answer; 2 of the wrong_answer unreadable answers, see their notes" in done.stderr
    )
    assert "7 programs" in sandbox("judge", path, tmp_path / "again.jsonl", "--resume").stderr
    assert read_rows(tmp_path / "again.jsonl")[-1]["note"] == found[-1]["note"]


def test_a_full_disk_is_told_and_what_was_judged_stays(tmp_path: Path) -> None:
    path, output = write_rows(tmp_path / "in.jsonl", [GOOD, GOOD | {"id": "b"}]), tmp_path / "out.jsonl"
    (tmp_path / "out.jsonl.part").symlink_to("/dev/full")
    done = sandbox("judge", path, output)
    assert done.returncode == 2
    assert f"error: cannot write {output}: [Errno 28] No space left on device" in done.stderr
    assert "--resume" in done.stderr
    assert "Traceback" not in done.stderr
    assert not output.exists()


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    done = sandbox("judge", write_rows(tmp_path / "in.jsonl", []), tmp_path / "out.jsonl")
    assert done.returncode == 2
    assert "got an empty file" in done.stderr


def test_a_killed_judge_goes_on_where_it_was(tmp_path: Path) -> None:
    """Resuming keeps the (random) output of judged rows; a changed row and an incomplete line are judged again."""
    unique = "import uuid, time; time.sleep({}); print(uuid.uuid4())"
    rows = [{"id": str(n), "language": "py", "program": unique.format(0.2 + n / 100)} for n in range(20)]
    path, output = write_rows(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    part = output.with_name("out.jsonl.part")
    command = [
        sys.executable,
        "-m",
        "sandbox",
        "judge",
        str(path),
        str(output),
        "--backend",
        "process",
        "--workers",
        "1",
    ]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (part.exists() and len(part.read_text().splitlines()) >= 3):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = {line["row"]: line["result"]["stdout"] for line in map(json.loads, part.read_text().splitlines())}
    with part.open("a") as file:
        file.write('{"row": 19, "resu')
    rows[0]["program"] = "print('changed')"
    write_rows(path, rows)

    done = sandbox("judge", path, output, "--workers", "2", "--resume")
    assert done.returncode == 0, done.stderr
    results = read_rows(output)
    assert [row["id"] for row in results] == [row["id"] for row in rows]
    assert results[0]["stdout"] == "changed\n"
    assert [results[row]["stdout"] for row in sorted(kept) if row] == [
        kept[row] for row in sorted(kept) if row
    ]
    assert all(row["verdict"] == "passed" for row in results)


def test_rows_have_rules_checkers_and_limits_of_their_own(tmp_path: Path) -> None:
    """A row's own rule and limits take precedence over those of the command line."""

    def row(id: str, printed: str, expected: str, **more: object) -> dict:
        cases = [{"stdin": "", "stdout": expected}]
        return {"id": id, "language": "py", "program": f"print({printed!r})", "cases": cases} | more

    busy = "import time\nwhile time.process_time() < 0.6: pass"
    prompt = {"language": "py", "prompt": f"{busy}\n", "completion": "", "tests": "pass"}
    accepts = {"language": "sh", "program": "test -e got && echo accept"}
    rows = [
        row("lines", "1 2", "1 2\n", compare="lines"),
        row("lines, no", "1  2", "1 2\n", compare="lines"),
        row("tokens by default", "1  2", "1 2\n"),
        row("none", "1  2", "1 2\n", compare=None, checker=None, limits=None),
        row("float", "0.3334", "0.3333", compare="float:1e-3"),
        row("contests", "YES 0.50", "Yes 0.5", compare="code-contests"),
        row("checker", "anything", "", checker=accepts),
        {"id": "short", "language": "py", "program": busy, "limits": {"cpu_seconds": 0.2}},
        {
            "id": "long",
            "language": "py",
            "program": busy,
            "limits": {"cpu_seconds": 5, "memory_bytes": 1 << 28},
        },
        prompt | {"id": "tests", "limits": {"cpu_seconds": 0.2}},
        {"id": "much", "language": "py", "program": "print('x' * 99)", "limits": {"output_bytes": 50}},
    ]
    output = tmp_path / "out.jsonl"
    done = sandbox(
        "judge",
        write_rows(tmp_path / "in.jsonl", rows),
        output,
        "--compare",
        "tokens",
        "--cpu-seconds",
        "0.5",
    )
    assert done.returncode == 0, done.stderr
    assert {row["id"]: row["verdict"] for row in read_rows(output)} == {
        "lines": "passed",
        "lines, no": "wrong_answer",
        "tokens by default": "passed",
        "none": "passed",
        "float": "passed",
        "contests": "passed",
        "checker": "passed",
        "short": "timeout",
        "long": "passed",
        "tests": "timeout",
        "much": "output_exceeded",
    }


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ({"compare": "tokns"}, "unknown rule to compare output by: 'tokns'; known: exact, lines, "),
        ({"compare": 1}, "compare: expected a string, got int"),
        ({"checker": "x"}, "checker: expected an object with the fields language, program"),
        ({"checker": {"language": "py"}}, "checker: expected an object with the fields language, program"),
        ({"checker": {"language": "cobol", "program": ""}}, "unknown language 'cobol'"),
        ({"checker": {"language": "py", "program": 1}}, "checker.program: expected a string, got int"),
        ({"limits": {"time": 1}}, "limits: expected an object with fields of cpu_seconds, wall_seconds, "),
        ({"limits": 2}, "got int"),
        ({"limits": {"cpu_seconds": 0}}, "limits.cpu_seconds: expected a number (float) above 0 and at most 86400, got 0"),
        ({"limits": {"cpu_seconds": 1e300}}, "limits.cpu_seconds: expected a number (float) above 0 and at most 86400, got 1e+300"),
        ({"limits": {"wall_seconds": 1e300}}, "and at most 259200, got 1e+300"),
        ({"limits": {"wall_seconds": 10**400}}, "and at most 259200, got 1000000000"),
        ({"limits": {"compile_wall_seconds": float("nan")}}, "and at most 259200, got nan"),
        ({"limits": {"cpu_seconds": -1}}, "and at most 86400, got -1"),
        ({"limits": {"cpu_seconds": "2"}}, "and at most 86400, got '2'"),
        ({"limits": {"memory_bytes": 10**30}}, "and at most 1125899906842624, got 1000000000"),
        ({"limits": {"file_bytes": 2**64}}, "and at most 1125899906842624, got 18446744073709551616"),
        ({"limits": {"processes": 2**40}}, "and at most 4194304, got 1099511627776"),
        ({"limits": {"memory_bytes": 1.5}}, "limits.memory_bytes: expected a number (int) above 0 and at most 1125899906842624, got 1.5"),
        ({"limits": {"cpu_seconds": True}}, "limits.cpu_seconds: expected a number"),
        ({"comparer": "lines"}, "unknown field 'comparer'; did you mean 'compare'?"),
    ],
)  # fmt: skip
def test_a_bad_rule_checker_or_limit_is_named(tmp_path: Path, field: dict, message: str) -> None:
    path = write_rows(tmp_path / "in.jsonl", [GOOD, GOOD | {"cases": [{"stdin": "", "stdout": ""}]} | field])
    done = sandbox("judge", path, tmp_path / "out.jsonl")
    assert done.returncode == 2
    assert f"error: {path}:2: " in done.stderr
    assert message in done.stderr


def test_run_compares_by_a_rule_or_by_a_checker(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("print(1.50)")
    (tmp_path / "out").write_text("1.5000001")
    (tmp_path / "check.sh").write_text('[ "$(cat got)" = 1.5 ] && echo accept || echo reject')
    arguments = ("run", "--language", "py", tmp_path / "a.py")
    expects = (*arguments, "--expect", tmp_path / "out")
    assert sandbox(*expects).returncode == 1
    assert sandbox(*expects, "--compare", "float:1e-5").returncode == 0
    assert sandbox(*arguments, "--checker", f"sh:{tmp_path}/check.sh").returncode == 0
    (tmp_path / "check.sh").write_text("exit 1")
    done = sandbox(*arguments, "--checker", f"sh:{tmp_path}/check.sh")
    assert (done.returncode, json.loads(done.stdout)["verdict"]) == (3, "sandbox_error")
    for wrong, message in (
        ("check.sh", "expected LANGUAGE:FILE, got 'check.sh'"),
        ("sh:/nowhere", "/nowhere: "),
    ):
        done = sandbox(*arguments, "--checker", wrong)
        assert done.returncode == 2
        assert message in done.stderr
    done = sandbox(*expects, "--compare", "float")
    assert done.returncode == 2
    assert "unknown rule to compare output by: 'float'" in done.stderr
