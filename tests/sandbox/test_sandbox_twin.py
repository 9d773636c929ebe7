"""Tests of the audit: which assertion a twin changes, and which programs are caught by it."""

from dataclasses import replace
from pathlib import Path

import pytest

from sandbox.client import Sandbox
from sandbox.judge import Judge, Place
from sandbox.languages import LANGUAGES, language
from sandbox.programs import assemble
from sandbox.shapes import LIMITS, SHAPES
from sandbox.twin import Edit, chosen, edits_of, twin
from sandbox.verdicts import Limits, Program, Result, Verdict
from sandbox.worker import _longest_seconds
from tests.needs import need
from tests.sandbox.conftest import EIGHT, build_image

PASSED = Result("a", Verdict.passed, 0)
FAILED = Result("a", Verdict.wrong_answer, 1)
FAILED_APART = Result("a", Verdict.wrong_answer, 70)


def changed(name: str, tests: str) -> list[str]:
    """The tests of all possible twins."""
    return [tests[: edit.start] + edit.text + tests[edit.end :] for edit in edits_of(language(name), tests)]


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("py", "assert f(1) == 2\n", "assert f(1) == 3\n"),
        ("py", "    assert f([1, 2]) == [3, 10], 'no 9'\n", "    assert f([1, 2]) == [3, 20], 'no 9'\n"),
        ("py", "assert f('a == 1') == {'x': 'cat'}\n", "assert f('a == 1') == {'x': 'caa'}\n"),
        ("py", "assert f(1) == True\n", "assert f(1) == False\n"),
        ("py", "assert f(1) == [\n    0.25,\n]\n", "assert f(1) == [\n    1.25,\n]\n"),
        ("py", 'assert f(1) == ""\n', 'assert f(1) == "a"\n'),
        ("py", "self.assertEqual(f(1), -7)\n", "self.assertEqual(f(1), -6)\n"),
        ("cpp", "    assert(candidate((1)) == (2));\n", "    assert(candidate((1)) == (3));\n"),
        (
            "cpp",
            "assert(candidate((5)) == (std::vector<long>({(long)1, (long)64})));",
            "assert(candidate((5)) == (std::vector<long>({(long)1, (long)54})));",
        ),
        ("cpp", "assert(candidate((5)) == (0.001f));", "assert(candidate((5)) == (1.001f));"),
        ("java", 'assert(f((1l)).equals(("a b")));', 'assert(f((1l)).equals(("a a")));'),
        ("java", "assert(f((1l)) == (2l));", "assert(f((1l)) == (3l));"),
        ("php", 'if (f(1) !== array("a" => 3)) {', 'if (f(1) !== array("a" => 2)) {'),
        ("js", 'assert.deepEqual(candidate("a,b"),[1, 2]);', 'assert.deepEqual(candidate("a,b"),[1, 3]);'),
        ("ts", "assert.deepEqual(candidate(1),true);", "assert.deepEqual(candidate(1),false);"),
        ("cs", "Debug.Assert(F((1L)).Equals((2L)));", "Debug.Assert(F((1L)).Equals((3L)));"),
        ("sh", '[[ $(candidate "1") = "2 10" ]]', '[[ $(candidate "1") = "2 11" ]]'),
        (
            "go",
            "{ actual: candidate(1), expected: []int{7} },",
            "{ actual: candidate(1), expected: []int{6} },",
        ),
        (
            "cs",
            "Debug.Assert(F(1L).SequenceEqual((new long[]{2L})));",
            "Debug.Assert(F(1L).SequenceEqual((new long[]{3L})));",
        ),
        ("sh", r'[[ $(candidate "1") = "1 2\n3" ]]', r'[[ $(candidate "1") = "1 1\n3" ]]'),
        ("js", 'assert.deepEqual(candidate(1),["()"]);', 'assert.deepEqual(candidate(1),["a()"]);'),
        (
            "java",
            "assert(f(1) == ('('));\nassert(f(2) == ('x'));",
            "assert(f(1) == ('('));\nassert(f(2) == ('a'));",
        ),
        ("rs", "assert_eq!(candidate(1), vec![2]);", "assert_eq!(candidate(1), vec![3]);"),
        ("rb", 'assert_equal(["b"], candidate.call(1))', 'assert_equal(["a"], candidate.call(1))'),
        ("lua", "lu.assertEquals(candidate(1), {2})", "lu.assertEquals(candidate(1), {3})"),
        ("pl", "if(eq_deeply($candidate->(1),2)) {", "if(eq_deeply($candidate->(1),3)) {"),
        ("r", "isTRUE(all.equal(candidate(1), 2))", "isTRUE(all.equal(candidate(1), 3))"),
        ("d", "assert(candidate(1L) == 2L);", "assert(candidate(1L) == 3L);"),
        ("rkt", "(check-within (candidate 1) #t 0.001)", "(check-within (candidate 1) #f 0.001)"),
        ("ml", "(assert ((candidate 1) = 2));", "(assert ((candidate 1) = 3));"),
        ("hs", "if candidate 1 == 2 then pure ()", "if candidate 1 == 3 then pure ()"),
        ("ex", "assert 2 == candidate.(1)\n", "assert 3 == candidate.(1)\n"),
        ("scala", "assert(f((1l)) == (2l));", "assert(f((1l)) == (3l));"),
        ("clj", "(is (= (candidate 1) 2))", "(is (= (candidate 1) 3))"),
    ],
)
def test_a_twin_changes_one_expected_value(name: str, before: str, after: str) -> None:
    assert changed(name, before) == [after]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("assert abs(f(1) - 0.5) < 1e-6\n", "assert not (abs(f(1) - 0.5) < 1e-6)\n"),
        ("assert f(1) == [], 'x'\n", "assert not (f(1) == []), 'x'\n"),
        ("assert f(1) == g(2)\n", "assert not (f(1) == g(2))\n"),
        ("assert f(1) == 2 or True\n", "assert not (f(1) == 2 or True)\n"),
    ],
)
def test_a_condition_is_negated_where_no_expected_value_can_be_changed(before: str, after: str) -> None:
    assert changed("py", before) == [after]


@pytest.mark.parametrize(
    ("name", "tests"),
    [
        ("rkt", "(check-within (candidate 1) (list) 0.001)"),  # not the tolerance
        ("cpp", "// assert(candidate(1) == 2);"),
        ("cpp", 'puts("assert(f(1) == 2)");'),
        ("js", "assert.deepEqual(candidate(1),undefined);"),
        ("js", "assert.deepEqual(candidate(1),ok ? 1 : 2);"),
    ],
)
def test_what_is_no_expected_value_is_not_changed(name: str, tests: str) -> None:
    assert edits_of(language(name), tests) == []


def test_every_assertion_can_be_the_one_that_is_changed() -> None:
    tests = "assert f(1) == 2\nassert f(2) == 3\n"
    assert edits_of(language("py"), tests) == [Edit(15, 16, "4"), Edit(32, 33, "4")]
    twins = {twin(assemble("py", f"# {n}\n", "", tests).program("a", "py"))[1].source for n in range(20)}  # type: ignore[index]
    assert len({source.partition("assert")[2] for source in twins}) > 1


@pytest.mark.parametrize("name", LANGUAGES)
def test_a_failing_assertion_stands_before_the_end_where_none_is_known(name: str) -> None:
    shape = SHAPES[name]
    tests = shape.tests
    for edit in edits_of(language(name), tests):
        tests = tests[: edit.start] + "unknown" + tests[edit.end :]
    program = replace(assemble(name, shape.prompt, shape.passed, tests).program("a", name))
    if name == "py":  # conditions are negated
        return
    kind, other = twin(program)  # type: ignore[misc]
    assert kind == "assertion"
    before, _, after = other.source.rpartition(language(name).fails)
    assert before + after[1:] == program.source.replace(str(program.end_marker), str(other.end_marker))
    assert str(other.end_marker) in after


@pytest.mark.parametrize("name", LANGUAGES)
def test_a_twin_cannot_be_told_by_its_marker(name: str) -> None:
    """The marker of a twin is the one that `assemble` would give it, so a program that compares them learns nothing."""
    shape = SHAPES[name]
    made = assemble(name, shape.prompt, shape.passed, shape.tests)
    _, other = twin(made.program("a", name))  # type: ignore[misc]
    [edit] = edits_of(language(name), shape.tests)
    tests = shape.tests[: edit.start] + edit.text + shape.tests[edit.end :]
    again = assemble(name, shape.prompt, shape.passed, tests)
    assert (other.source, other.end_marker) == (again.source, again.end_marker)
    assert other.end_marker != made.end_marker


def test_a_marker_of_the_caller_stays() -> None:
    program = Program("a", "py", "assert f(1) == 2\nprint('done')", end_marker="done", tests_at=0)
    _, other = twin(program)  # type: ignore[misc]
    assert (other.source, other.end_marker) == ("assert f(1) == 3\nprint('done')", "done")


def test_a_changed_number_is_none_of_the_other_numbers() -> None:
    """A program that looks expected values up by their argument must not find another one's."""
    assert changed("py", "assert f(1) == 2\nassert f(5) == 3\n") == [
        "assert f(1) == 4\nassert f(5) == 3\n",
        "assert f(1) == 2\nassert f(5) == 4\n",
    ]
    every_digit = "assert f([1, 2, 3, 4, 5, 6, 7, 8, 9]) == 3\n"
    assert changed("py", every_digit) == [every_digit.replace("== 3", "== 2")]


def test_a_program_without_tests_has_no_twin() -> None:
    assert twin(Program("a", "py", "assert f(1) == 2")) is None
    with pytest.raises(ValueError, match="audit needs tests_at"):
        Program("a", "py", "print()", audit=True)


def test_rules() -> None:
    assert chosen("all", "x")
    assert not chosen("off", "x")
    share = sum(chosen("sample:0.3", str(n)) for n in range(1000)) / 1000
    assert 0.25 < share < 0.35
    assert [chosen("sample:0.3", str(n)) for n in range(50)] == [
        chosen("sample:0.3", str(n)) for n in range(50)
    ]
    for rule in ("", "none", "sample", "sample:0", "sample:1", "sample:x", "sample:nan"):
        with pytest.raises(ValueError, match="expected off, all or sample:P"):
            chosen(rule, "x")


QUICK = ("py", "cpp", "php", "sh", "js")
OF_BACKENDS = [
    *(("process", name) for name in EIGHT),
    *(("bubblewrap", name) for name in QUICK),
    *(("docker", name) for name in LANGUAGES),
]
"""All languages in docker's images; without them the paper's, in a box those that compile quickly. What a twin is depends on no
backend."""
INSERTED = [(backend, name) for backend, name in OF_BACKENDS if backend != "bubblewrap"]


def need_language(sandbox: Sandbox, name: str) -> None:
    if sandbox.backend == "docker":
        build_image(language(name).image)
    missing = sandbox.missing_tools(name)
    need(not missing, f"{name} needs {', '.join(missing)}")


def judged(sandbox: Sandbox, name: str, completion: str, tests: str | None = None) -> Result:
    shape = SHAPES[name]
    program = assemble(name, shape.prompt, completion, tests or shape.tests).program(
        "a", name, LIMITS, audit=True
    )
    [result] = sandbox.run([program])
    return result


@pytest.mark.parametrize(("sandbox", "name"), OF_BACKENDS, indirect=["sandbox"])
def test_a_right_program_passes_its_audit(sandbox: Sandbox, name: str) -> None:
    need_language(sandbox, name)
    result = judged(sandbox, name, SHAPES[name].passed)
    audit = "split" if name == "py" else "twin"
    assert (result.verdict, result.audited) == (Verdict.passed, audit), result.stderr
    assert result.audit_cpu_seconds > 0


@pytest.mark.parametrize(("sandbox", "name"), INSERTED, indirect=["sandbox"])
def test_a_right_program_fails_with_an_inserted_assertion(sandbox: Sandbox, name: str) -> None:
    need_language(sandbox, name)
    shape = SHAPES[name]
    program = assemble(name, shape.prompt, shape.passed, shape.tests).program("a", name, LIMITS)
    source = program.source
    end = language(name).end.format(marker=program.end_marker)
    at = source.rindex(end)
    failing = (
        source[:at] + language(name).fails + ("\n" if language(name).closing is None else " ") + source[at:]
    )
    [result] = sandbox.run([replace(program, source=failing)])
    assert result.verdict is not Verdict.passed, failing
    assert result.verdict is not Verdict.compile_error, result.stderr[-500:]


ALWAYS_EQUAL = "    return type('Any', (), {'__eq__': lambda a, b: True})()"
PATCHED = "  return 0;\n}\nrequire('node:assert').deepEqual = () => {};\nfunction g() {\n"


@pytest.mark.parametrize(
    ("name", "trick"),
    [
        ("py", ALWAYS_EQUAL),
        ("js", PATCHED),
        ("cpp", "    return 0;\n}\n#undef assert\n#define assert(x)\nvoid g() {"),
    ],
)
def test_a_trick_is_tampering(sandbox: Sandbox, name: str, trick: str) -> None:
    need_language(sandbox, name)
    result = judged(sandbox, name, trick)
    assert (result.verdict, result.audited) == (Verdict.tampered, "twin")
    assert "an assertion that has to fail" in result.note
    assert result.verdict.is_label


LOOKS = {
    "cpp": "#include <filesystem>\nint main() { for (auto& e : std::filesystem::directory_iterator(BOX))\n"
    '    if (e.path().extension() == ".cpp") return 1; }',
    "java": "class Main { public static void main(String[] a) {\n"
    'for (String f : new java.io.File(BOX).list()) if (f.endsWith(".java")) System.exit(1); } }',
    "cs": 'class P { static int Main() { return System.IO.Directory.GetFiles(BOX, "*.cs").Length; } }',
    "ts": "declare var require: any; declare var process: any;\n"
    "if (require('fs').readdirSync(BOX).some((f: string) => f.endsWith('.ts'))) { process.exit(1); }",
}


@pytest.mark.parametrize("name", LOOKS)
def test_the_source_of_a_compiled_program_is_gone_when_it_runs(sandbox: Sandbox, name: str) -> None:
    need_language(sandbox, name)
    box = '"/box"' if sandbox.backend == "bubblewrap" else '"."'
    source = LOOKS[name].replace("BOX", box)
    [result] = sandbox.run([Program("a", name, source, limits=LIMITS)])
    assert result.verdict is Verdict.passed, (result.verdict, result.stdout, result.stderr)


def test_a_worker_is_given_time_for_every_judgement_of_an_audit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, prompt, tests, results in (
        ("py", "def f():\n    return 1\n", "assert f() == 1\n", (PASSED, FAILED_APART, FAILED, FAILED)),
        ("js", "const f = () => 1;\n", "assert.equal(f(), 1);\n", (PASSED, FAILED)),
    ):
        program = assemble(name, prompt, "", tests).program("a", name, Limits(wall_seconds=10), True)
        left = list(results)
        judge = Judge(tmp_path, Place.process)
        monkeypatch.setattr(judge, "_judge", lambda _, left=left: left.pop(0))
        assert judge.judge(program).verdict is Verdict.passed
        assert left == []
        alone = _longest_seconds(replace(program, audit=False))
        assert alone == 190  # 90 s to compile, twice, and 10 s to run
        assert _longest_seconds(program) == len(results) * alone
