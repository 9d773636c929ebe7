"""Tests of reading and checking the problems of each source."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from sandbox.languages import LANGUAGES, READ_ONLY, Language
from selftrain.config import (
    WRITTEN_LANGUAGES,
    BankConfig,
    ContestsConfig,
    JsonlConfig,
    MixedConfig,
    MultiPLEConfig,
    RunConfig,
)
from selftrain.errors import DataError
from selftrain.problems.contests import COMMENTS
from selftrain.problems.read import checker_languages, content_digest, read_problems
from selftrain.records import Problem, read_records, write_records
from selftrain.stages.prepare import PREPARE, PrepareSlice
from tests.selftrain.problems.made import DESCRIPTIONS, PY_STOP, py_row, sh_row, write_jsonl

SHARES = {"sft": 0.5, "rl": 0.3, "validation": 0.2}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten tasks to train on and two to evaluate on, in Python and in Bash."""
    for name, make, answer in (
        ("py", py_row, "    return 2 * n\n"),
        ("sh", sh_row, "```bash\nf() {\n  echo $((2 * $1))\n}\n```"),
    ):
        rows = [make(f"Made_{at}", text, response=answer) for at, text in enumerate(DESCRIPTIONS)]
        write_jsonl(tmp_path / f"train-{name}.jsonl", rows[:10])
        write_jsonl(tmp_path / f"held-{name}.jsonl.gz", rows[10:])
    return tmp_path


def multipl_e(folder: Path, **more: Any) -> MultiPLEConfig:
    return MultiPLEConfig.model_validate(
        {
            "languages": ["py", "sh"],
            "shares": SHARES,
            "seed": 2,
            "train": str(folder / "train-*"),
            "evaluation": str(folder / "held-*"),
        }
        | more
    )


def test_multipl_e(folder: Path) -> None:
    problems = read_problems(multipl_e(folder))
    assert len(problems) == 24
    assert {p.task for p in problems if p.split == "test"} == {"Made_10", "Made_11"}
    assert {p.split for p in problems} == {"sft", "rl", "validation", "test"}
    assert [p.id for p in problems[:4]] == ["Made_0.py", "Made_0.sh", "Made_1.py", "Made_1.sh"]
    answers = {"py": "    return 2 * n", "sh": "  echo $((2 * $1))"}
    for p in problems:
        assert p.response == (answers[p.language] if p.split in ("sft", "validation") else None)
        assert p.kind == "program"
    first = next(p for p in problems if p.id == "Made_10.py")
    row = py_row("Made_10", DESCRIPTIONS[10])
    assert first == Problem(
        "Made_10.py", "Made_10", "py", row["prompt"], row["tests"], "test", "held-py.jsonl.gz", tuple(PY_STOP)
    )


def test_records_survive_the_store(folder: Path) -> None:
    problems = read_problems(multipl_e(folder))
    write_records(folder / "problems.parquet", problems, Problem)
    assert read_records(folder / "problems.parquet", Problem) == problems


def prepare_key(config: Any) -> str:
    """The key of stage `prepare`."""
    return str(PREPARE.ref(PrepareSlice(problems=config, content=content_digest(config))))


def test_what_files_are_called_makes_no_difference(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = tmp_path_factory.mktemp("other")
    for at, path in enumerate(sorted(folder.iterdir(), reverse=True)):
        (other / f"{path.name.split('-')[0]}-{at}.{path.name.split('.', 1)[1]}").write_bytes(
            path.read_bytes()
        )
    without_source = [
        [replace(p, source="") for p in read_problems(multipl_e(place))] for place in (folder, other)
    ]
    assert without_source[0] == without_source[1]
    assert prepare_key(multipl_e(folder)) == prepare_key(multipl_e(other))


def test_the_key_changes_with_a_byte_and_with_a_choice(folder: Path) -> None:
    config, before = multipl_e(folder), content_digest(multipl_e(folder))
    assert str(folder) not in str(before)
    assert prepare_key(multipl_e(folder, seed=3)) != prepare_key(config)
    swapped = multipl_e(folder, train=str(folder / "held-*"), evaluation=str(folder / "train-*"))
    assert prepare_key(swapped) != prepare_key(config)
    path = folder / "train-py.jsonl"
    path.write_bytes(path.read_bytes().replace(b"2 * n", b"3 * n", 1))
    assert content_digest(multipl_e(folder))["evaluation"] == before["evaluation"]
    assert content_digest(multipl_e(folder))["train"] != before["train"]


def test_languages_that_are_not_asked_for_are_left_out(folder: Path) -> None:
    assert {p.language for p in read_problems(multipl_e(folder, languages=["sh"]))} == {"sh"}
    with pytest.raises(DataError, match=r"no problems in rs; found: py \(12\), sh \(12\)"):
        read_problems(multipl_e(folder, languages=["py", "rs", "sh"]))
    names = r"no problems in js; found: py \(12\), sh \(12\); .*only those that are there: problems.languages: \[py, sh\]"
    with pytest.raises(DataError, match=names):
        read_problems(multipl_e(folder, languages=["js"]))


def test_excluded_tasks(folder: Path) -> None:
    kept = read_problems(multipl_e(folder, exclude=["Made_3", "Made_11"]))
    assert len(kept) == 20
    assert not {"Made_3", "Made_11"} & {p.task for p in kept}
    with pytest.raises(DataError, match=r"exclude: no task is named Made_99"):
        read_problems(multipl_e(folder, exclude=["Made_99"]))


def test_go_has_another_name_in_the_files(folder: Path) -> None:
    row = py_row("Go_1", DESCRIPTIONS[11], language="go_test.go")
    config = multipl_e(
        folder, languages=["go"], train=[], evaluation=str(write_jsonl(folder / "go.jsonl", [row]))
    )
    assert [p.id for p in read_problems(config)] == ["Go_1.go"]


@pytest.mark.parametrize("row", LANGUAGES.values(), ids=LANGUAGES)
def test_every_name_of_a_language_is_known_in_rows(tmp_path: Path, row: Language) -> None:
    names = [spelled for name in (*row.names, row.multipl_e or row.name) for spelled in (name, name.upper())]
    files = {
        "theirs": [py_row(f"T_{at}", DESCRIPTIONS[at], language=name) for at, name in enumerate(names)],
        "mine": [own(at, language=name) for at, name in enumerate(names)],
    }
    paths = {name: str(write_jsonl(tmp_path / f"{name}.jsonl", rows)) for name, rows in files.items()}
    theirs = multipl_e(tmp_path, languages=[row.name], train=[], evaluation=paths["theirs"])
    mine = JsonlConfig(languages=(row.name,), files=(paths["mine"],), shares={"rl": 1})
    for problems in (read_problems(theirs), read_problems(mine)):
        assert [problem.language for problem in problems] == [row.name] * len(names)


def test_problems_in_languages_that_can_only_be_read_are_left_out(tmp_path: Path) -> None:
    named = [name for short, others in READ_ONLY.items() for name in (short, *others)]
    rows = [py_row(f"T_{at}", DESCRIPTIONS[0], language=name) for at, name in enumerate(["py", *named])]
    path = str(write_jsonl(tmp_path / "all.jsonl", rows))
    assert [
        p.id for p in read_problems(multipl_e(tmp_path, languages=["py"], train=[], evaluation=path))
    ] == ["T_0.py"]


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({"tests": None}, r"bad\.jsonl:2: field 'tests': Input should be a valid string, got None"),
        ({"tests": " \n"}, r"bad\.jsonl:2: field 'tests'"),
        (
            {"stop_tokens": [""]},
            r"bad\.jsonl:2: field 'stop_tokens.0': String should have at least 1 character",
        ),
        (
            {"language": "cobol"},
            r"bad\.jsonl:2: field 'language': unknown language 'cobol'; known: py, .*; read but not run: adb, ",
        ),
        ({"name": "Made_20"}, r"bad\.jsonl:2: problem 'Made_20\.py' is there twice; first at .*bad\.jsonl:1"),
        ({"prompt": "\ud800"}, r"bad\.jsonl:2: a text holds one half of a surrogate pair"),
    ],
)
def test_a_bad_row(folder: Path, broken: dict[str, Any], message: str) -> None:
    path = write_jsonl(folder / "bad.jsonl", [py_row("Made_20", "a"), py_row("Made_21", "b") | broken])
    with pytest.raises(DataError, match=message):
        read_problems(multipl_e(folder, train=str(path)))


def test_a_missing_field(folder: Path) -> None:
    row = py_row("Made_20", "a")
    del row["tests"]
    path = write_jsonl(folder / "bad.jsonl", [row])
    with pytest.raises(
        DataError, match=r"bad\.jsonl:1: field 'tests' is missing; needed: name, .*; found: name, language"
    ):
        read_problems(multipl_e(folder, train=str(path)))
    with pytest.raises(DataError, match=r"list\.jsonl:1: expected a JSON object, got \[1\]"):
        read_problems(multipl_e(folder, train=str(write_jsonl(folder / "list.jsonl", [[1]]))))


def test_a_split_without_tasks(folder: Path) -> None:
    path = write_jsonl(folder / "one.jsonl", [py_row("Made_0", DESCRIPTIONS[0], response="    return 2 * n")])
    with pytest.raises(
        DataError, match=r"no tasks in split .*\(tasks: sft \d, rl \d, validation \d, test 2\); give more"
    ):
        read_problems(multipl_e(folder, languages=["py"], train=str(path)))


def test_sft_without_answers(folder: Path) -> None:
    path = write_jsonl(
        folder / "bare.jsonl", [py_row(f"Made_{at}", text) for at, text in enumerate(DESCRIPTIONS[:10])]
    )
    config = multipl_e(folder, languages=["py"], train=str(path))
    with pytest.raises(DataError, match=r"none of the \d problems of split sft has an answer"):
        read_problems(config)
    without = multipl_e(folder, languages=["py"], train=str(path), shares={"rl": 0.6, "validation": 0.4})
    assert {p.split for p in read_problems(without)} == {"rl", "validation", "test"}


def test_evaluation_alone(folder: Path) -> None:
    assert {p.split for p in read_problems(multipl_e(folder, train=[]))} == {"test"}


def test_a_leak_between_files_fails_the_reading(folder: Path) -> None:
    leaked = py_row("Other_5", DESCRIPTIONS[10], function="another", response="    return 2 * n\n", tests="x")
    write_jsonl(folder / "train-more.jsonl", [leaked])
    with pytest.raises(
        DataError,
        match=r"Made_10\.(py|sh) \(test, held-.*\) has the text of Other_5\.py \(.*train-more\.jsonl\)",
    ):
        read_problems(multipl_e(folder))
    assert read_problems(multipl_e(folder, exclude=["Other_5"]))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"source": "multipl-e"}, "expected entries in `train`, `evaluation` or both"),
        ({"source": "multipl-e", "train": "a"}, "no problems to evaluate on"),
        ({"source": "multipl-e", "evaluation": "a", "shares": {"sft": 0.5}}, "expected a sum of 1, got 0.5"),
        ({"source": "multipl-e", "evaluation": "a", "shares": {"train": 1}}, "shares: unknown train"),
        (
            {"source": "multipl-e", "evaluation": "a", "languages": ["pyton"]},
            "languages: unknown language .pyton.; did you mean python",
        ),
        ({"source": "multipl-e", "evaluation": "a", "languages": ["py", "py"]}, "none twice"),
        ({"source": "contests", "evaluation": "a", "max_cases": 0}, "max_cases"),
        ({"source": "jsonl", "files": []}, "at least 1 item"),
        ({"source": "mixed", "parts": []}, "at least 1 item"),
        ({"source": "mixed", "parts": [{"source": "contests", "train": "a"}]}, "no problems to evaluate on"),
        ({"source": "mixed", "parts": [{"source": "mixed"}]}, "does not match any of the expected tags"),
        ({"source": "bank", "split_languages": {"dev": ["py"]}}, "split_languages: unknown dev"),
        (
            {"split_languages": {"test": ["js"]}},
            r"split_languages.test: expected some of .* py, sh, got \['js'\]",
        ),
        ({"split_languages": {"test": []}}, r"split_languages.test: expected some of .* got \[\]"),
        ({"source": "csv"}, "does not match any of the expected tags"),
    ],
)
def test_configs_that_make_no_sense(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        RunConfig.model_validate({"problems": config})


def test_the_bank_is_a_source_too() -> None:
    config = BankConfig(languages=("py",), sizes={"sft": 5, "rl": 5, "validation": 2, "test": 2})
    problems = read_problems(config)
    assert [p.source for p in problems] == ["bank"] * 14
    assert content_digest(config) == {}


def contest(name: str, text: str, **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "description": text,
        "public_tests": {"input": ["1\n"], "output": ["2\n"]},
        "private_tests": {"input": ["1\n", "2\n"], "output": ["2\n", "4\n"]},
        "generated_tests": {"input": ["3\n"], "output": ["6\n"]},
        "solutions": {
            "language": [1, 3, 2, 3],
            "solution": ["print 2", "print(2)", "int main() {}", "print(3)"],
        },
    } | more


def contests(folder: Path, rows: list[Any], **more: Any) -> ContestsConfig:
    path = write_jsonl(folder / "contests.jsonl", rows)
    shares = {"sft": 1.0}
    held = write_jsonl(folder / "held.jsonl", [contest("Z. Held", DESCRIPTIONS[9], private_tests={})])
    return ContestsConfig.model_validate(
        {"languages": ["py", "cpp", "php"], "shares": shares, "train": str(path), "evaluation": str(held)}
        | more
    )


def test_contests(tmp_path: Path) -> None:
    problems = read_problems(contests(tmp_path, [contest("A. Double", "Read n.\n\nPrint 2n ?>.")]))
    assert [p.id for p in problems if p.split == "sft"] == ["A. Double.py", "A. Double.cpp", "A. Double.php"]
    py, cpp, php = problems[:3]
    assert (py.kind, py.tests, py.stop_tokens) == ("stdio", "", ())
    assert py.cases == tuple({"stdin": f"{n}\n", "stdout": f"{2 * n}\n"} for n in (1, 2, 3))  # each case once
    assert [p.response for p in (py, cpp, php)] == ["print(2)", "int main() {}", None]  # 1 is Python 2
    ask = "Read the input from standard input and print the answer to standard output."
    assert py.prompt == f"# Read n.\n#\n# Print 2n ?>.\n#\n# {ask}\n"
    assert php.prompt == f"<?php\n// Read n.\n//\n// Print 2n ? >.\n//\n// {ask}\n"
    assert all(p.response is None for p in problems if p.split == "test")


def test_a_backslash_u_cannot_break_a_java_comment(tmp_path: Path) -> None:
    config = contests(
        tmp_path, [contest("A", r"Print \underline{2n} and no more.")], languages=["java"], max_cases=2
    )
    config = config.model_copy(update={"shares": {"rl": 1.0}})
    first = read_problems(config)[0]
    assert first.prompt.startswith("// Print \\ underline{2n} and no more.\n")
    assert len(first.cases) == 2


def test_contests_that_use_files_are_left_out(tmp_path: Path) -> None:
    rows = [contest("A", DESCRIPTIONS[0]), contest("B", DESCRIPTIONS[1], input_file="in.txt")]
    assert {p.task for p in read_problems(contests(tmp_path, rows))} == {"A", "Z. Held"}
    alone = ContestsConfig(train=str(write_jsonl(tmp_path / "files.jsonl", rows[1:])), languages=("py",))
    with pytest.raises(
        DataError, match=r"no problems in py; found: none; tasks left out: 1 \([^)]+\); add them$"
    ):
        read_problems(alone)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (
            {"public_tests": {"input": ["1"], "output": []}},
            r":1: field 'public_tests': .*1 inputs and 0 outputs",
        ),
        (
            {"solutions": {"language": [3], "solution": []}},
            r":1: field 'solutions': .*1 languages and 0 solutions",
        ),
        ({"description": ""}, r":1: field 'description'"),
        (
            {"public_tests": {}, "private_tests": {}, "generated_tests": {}},
            r"no tasks in split sft \(tasks: sft 0, test 1; left out: 1 \(has no test cases\)\)",
        ),
    ],
)
def test_a_bad_contest_row(tmp_path: Path, broken: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_problems(contests(tmp_path, [contest("A", DESCRIPTIONS[0], **broken)]))


def test_contests_are_written_in_known_languages_only(tmp_path: Path) -> None:
    with pytest.raises(
        ValidationError,
        match=r"problems of this source are not written in language 'rkt'; known: py, cpp, .*, js \[",
    ):
        contests(tmp_path, [contest("A", DESCRIPTIONS[0])], languages=["rkt"])
    assert tuple(COMMENTS) == WRITTEN_LANGUAGES


def own(at: int, **more: Any) -> dict[str, Any]:
    row = py_row("", DESCRIPTIONS[at])
    return {"task": f"own {at}", "language": "py", "prompt": row["prompt"], "tests": row["tests"]} | more


def jsonl(folder: Path, rows: list[Any], **more: Any) -> JsonlConfig:
    path = write_jsonl(folder / "own.jsonl", rows)
    return JsonlConfig.model_validate({"languages": ["py"], "files": str(path)} | more)


def test_own_problems(tmp_path: Path) -> None:
    rows = [
        own(
            0,
            split="sft",
            response="    return 2 * n",
            id="first",
            source="mine",
            stop_tokens=["\n\n"],
            example_tests="x",
        ),
        own(1, split="rl", tests="", cases=[{"stdin": "1", "stdout": "2"}]),
        own(2, split="validation", response="    pass"),
        own(3, split="test", response="    pass"),
    ]
    problems = read_problems(jsonl(tmp_path, rows))
    assert problems[0] == Problem(
        "first",
        "own 0",
        "py",
        rows[0]["prompt"],
        rows[0]["tests"],
        "sft",
        "mine",
        ("\n\n",),
        (),
        "    return 2 * n",
        "x",
    )
    assert (problems[1].id, problems[1].source, problems[1].kind) == ("own 1.py", "own.jsonl", "stdio")
    assert problems[1].cases == ({"stdin": "1", "stdout": "2"},)
    assert [p.split for p in problems] == ["sft", "rl", "validation", "test"]
    assert [p.response for p in problems[2:]] == ["    pass", None], "nothing learns from those of test"


def test_own_problems_have_a_rule_a_checker_and_limits(tmp_path: Path) -> None:
    case = {"stdin": "1", "stdout": "2"}
    checker = {"language": "cpp", "program": "int main() {}"}
    rows = [
        own(
            0,
            split="test",
            tests="",
            cases=[case],
            compare="float:1e-3",
            time_limit=1.5,
            memory_limit_bytes=5,
        ),
        own(1, split="test", tests="", cases=[case], checker=checker),
        own(2, split="test", time_limit="2s"),
        own(3, split="test", response="x"),
    ]
    config = jsonl(tmp_path, rows, shares={"rl": 1.0})
    ruled, checked, timed, plain = read_problems(config.model_copy(update={"shares": {}}))
    assert (ruled.compare, ruled.checker, ruled.time_limit, ruled.memory_limit_bytes) == (
        "float:1e-3",
        None,
        1.5,
        5,
    )
    assert (checked.compare, checked.checker) == ("lines", checker)
    assert timed.time_limit == 2.0
    assert (plain.compare, plain.checker, plain.time_limit, plain.memory_limit_bytes) == (
        "lines",
        None,
        None,
        None,
    )
    assert checker_languages(config) == {"cpp"}
    assert checker_languages(MixedConfig(parts=(config, config))) == {"cpp"}


def test_rows_without_a_split_are_shared_out(tmp_path: Path) -> None:
    rows = [own(at, split="test") for at in range(2)] + [
        own(at, response="    return n") for at in range(2, 6)
    ]
    problems = read_problems(jsonl(tmp_path, rows, shares={"sft": 1.0}))
    assert [p.split for p in problems] == ["test"] * 2 + ["sft"] * 4


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({"tests": ""}, r"own\.jsonl:1: expected either `tests` .* got neither"),
        ({"cases": [{"stdin": "", "stdout": ""}]}, r"own\.jsonl:1: .* got both"),
        (
            {"respnse": "x"},
            r"own\.jsonl:1: field 'respnse' is not known; did you mean response\?; allowed: task, language,",
        ),
        (
            {"split": "train"},
            r"own\.jsonl:1: field 'split': Input should be 'sft', 'rl', 'validation' or 'test', got 'train'",
        ),
        ({"cases": [{"stdin": "1"}], "tests": ""}, r"own\.jsonl:1: field 'cases\.0\.stdout' is missing"),
        ({"language": "cobol"}, r"own\.jsonl:1: field 'language': unknown language"),
        ({"compare": "tokens"}, r"own\.jsonl:1: `compare` and `checker` are for problems with `cases`"),
        (
            {"compare": "tokns"},
            r"own\.jsonl:1: field 'compare': .*unknown rule to compare output by: 'tokns'; known: exact",
        ),
        ({"checker": {"language": "py"}}, r"own\.jsonl:1: field 'checker\.program' is missing"),
        (
            {
                "checker": {"language": "cobol", "program": "x"},
                "tests": "",
                "cases": [{"stdin": "", "stdout": ""}],
            },
            r"own\.jsonl:1: field 'checker\.language': unknown language 'cobol'",
        ),
        (
            {
                "checker": {"language": "swift", "program": "x"},
                "tests": "",
                "cases": [{"stdin": "", "stdout": ""}],
            },
            r"own\.jsonl:1: field 'checker\.language': language 'swift' can be read .* not run; known: py, cpp",
        ),
        ({"time_limit": -1}, r"own\.jsonl:1: field 'time_limit"),
    ],
)
def test_a_bad_row_of_ones_own(tmp_path: Path, broken: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_problems(jsonl(tmp_path, [own(0, **broken)]))


# Several sources as one


def mixed(folder: Path, *parts: dict[str, Any], **more: Any) -> MixedConfig:
    """Contests to train on, MultiPL-E problems to evaluate on, and `parts`."""
    tasks = [contest(f"C{at}", text, private_tests={}) for at, text in enumerate(DESCRIPTIONS[:8])]
    held = [py_row(f"Made_{at}", DESCRIPTIONS[at]) for at in (10, 11)]
    learnt = {
        "source": "contests",
        "languages": ["py", "cpp"],
        "train": str(write_jsonl(folder / "contests.jsonl", tasks)),
        "shares": {"sft": 0.5, "rl": 0.3, "validation": 0.2},
    }
    evaluated = {"languages": ["py"], "evaluation": str(write_jsonl(folder / "held.jsonl", held))}
    return MixedConfig.model_validate(
        {"parts": [learnt, {"source": "multipl-e"} | evaluated, *parts], "seed": 2} | more
    )


def test_a_mix_has_the_problems_of_its_parts(tmp_path: Path) -> None:
    config = mixed(tmp_path)
    assert config.languages == ("py", "cpp")
    assert config.splits == ("sft", "rl", "validation", "test")
    problems = read_problems(config)
    assert {p.id for p in problems if p.split == "test"} == {"Made_10.py", "Made_11.py"}
    first, second = config.parts
    seeded = first.model_copy(update={"seed": 2})
    alone = [p for part in (seeded, second) for p in read_problems(part)]
    assert problems == alone
    assert len({p.task for p in problems if p.split != "test"}) == 8


def test_the_bank_is_a_part_of_a_mix(tmp_path: Path) -> None:
    bank = {
        "source": "bank",
        "languages": ["py", "js"],
        "sizes": {"sft": 5, "rl": 5, "validation": 2, "test": 2},
    }
    bank |= {"split_languages": {"test": ["js"]}}
    config = mixed(tmp_path, bank)
    assert config.languages == ("py", "cpp", "js")
    problems = read_problems(config)
    alone = read_problems(BankConfig.model_validate(bank | {"seed": 2}))
    assert [p for p in problems if p.source == "bank"] == alone
    assert Counter((p.split, p.language) for p in alone) == {
        ("sft", "py"): 5, ("sft", "js"): 5, ("rl", "py"): 5, ("rl", "js"): 5,
        ("validation", "py"): 2, ("validation", "js"): 2, ("test", "js"): 2,
    }  # fmt: skip
    assert content_digest(config)["parts"][2] == {}


def test_splits_have_languages_of_their_own(tmp_path: Path) -> None:
    rows = [own(at, task=f"t{at}", split=split, language=language, prompt=prompt, response="x")
            for at, split in enumerate(("sft", "rl", "validation", "test"))
            for language, prompt in (("py", f"def f{at}(n):\n"), ("sh", f"# Prints {at}.\n"))]  # fmt: skip
    every = jsonl(tmp_path, rows, languages=("py", "sh"))
    some = every.model_copy(update={"split_languages": {"rl": ("py",), "test": ("sh",)}})
    left_out = {("rl", "sh"), ("test", "py")}
    assert read_problems(some) == [p for p in read_problems(every) if (p.split, p.language) not in left_out]
    assert len(read_problems(every)) == 8


def test_the_content_of_a_mix_is_that_of_its_parts(tmp_path: Path) -> None:
    config = mixed(tmp_path)
    before = content_digest(config)
    assert before == {"parts": [content_digest(part) for part in config.parts]}
    assert read_problems(config, before) == read_problems(config)
    (tmp_path / "held.jsonl").write_text((tmp_path / "held.jsonl").read_text().replace("doubles", "triples"))
    after = content_digest(config)
    assert (after["parts"][0], after["parts"][1] != before["parts"][1]) == (before["parts"][0], True)


def test_a_problem_in_two_parts_of_a_mix_is_refused(tmp_path: Path) -> None:
    again = {"source": "multipl-e", "languages": ["py"], "evaluation": str(tmp_path / "held.jsonl")}
    with pytest.raises(DataError, match=r"problem 'Made_10\.py' is in two parts.*with `exclude`"):
        read_problems(mixed(tmp_path, again))


def test_what_one_part_evaluates_on_may_not_be_what_another_trains_on(tmp_path: Path) -> None:
    rows = [sh_row("C3", DESCRIPTIONS[9])]  # a task that the contests have in other languages
    leak = {
        "source": "multipl-e",
        "languages": ["sh"],
        "evaluation": str(write_jsonl(tmp_path / "l.jsonl", rows)),
    }
    with pytest.raises(DataError, match="would be evaluated on after training on them"):
        read_problems(mixed(tmp_path, leak))
