"""Tests of the audit `split`: a Python program's functions and its tests in two processes."""

import importlib.util
import math

import pytest

from sandbox.client import Sandbox
from sandbox.programs import assemble
from sandbox.split import calls
from sandbox.verdicts import Result, Verdict
from tests.command import ROOT
from tests.needs import need_tools

_spec = importlib.util.spec_from_file_location("driver", ROOT / "sandbox" / "servers" / "split.py")
assert _spec
assert _spec.loader
driver = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(driver)

PROMPT = "import os, sys\ndef double(x):\n"
TESTS = "def check(candidate):\n    assert candidate(2) == 4\n    assert candidate([1]) == [1, 1]\n\ncheck(double)"


def judge(sandbox: Sandbox, completion: str, tests: str = TESTS, prompt: str = PROMPT) -> Result:
    need_tools("gcc")
    (result,) = sandbox.run([assemble("py", prompt, completion, tests).program("x", "py", audit=True)])
    return result


@pytest.mark.parametrize(
    "value",
    [None, True, False, 0, -1, 10**4000, 0.1, -0.0, math.inf, "", "é\n\ud800;", b"\0;", [], [1, [2.5, "a"]], (), (None,), set(),
     {3, 1}, frozenset({"a"}), {}, {(1, 2): {"a": [True]}}, {1: 1, 0: 0}],
)  # fmt: skip
def test_plain_values_cross_as_they_are(value: object) -> None:
    found = driver.get(driver.put(value))
    assert repr(found) == repr(value)
    assert type(found) is type(value)


class Equal(int):
    """Equals everything."""

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = int.__hash__


@pytest.mark.parametrize(
    "value", [Equal(1), [Equal(1)], {Equal(1): 1}, object(), len, iter([]), 1j, range(3), bytearray()]
)
def test_other_values_do_not_cross(value: object) -> None:
    with pytest.raises(TypeError):
        driver.put(value)


@pytest.mark.parametrize(
    "text", ["", "i", "i1", "ig;", "[", "[N", "]", "NN", "x;", "s0;", ":N.", "f;", "{[]}", "i1;i2;"]
)
def test_a_text_that_is_no_value_is_refused(text: str) -> None:
    with pytest.raises((ValueError, TypeError)):
        driver.get(text)


def test_the_functions_that_tests_call() -> None:
    assert calls(TESTS, {"double", "x"}) == {"double"}
    assert calls("import math\nassert math.isclose(f(1), g(h=2))", {"f"}) == {"f", "g"}
    assert calls("for i in range(3): assert f(i) is None", {"f"}) == {"f"}
    for tests in (
        "import sys\nassert f(1) == 1",
        "from os import path\nassert f(1) == 1",
        "assert f(a) is a",
        "assert f.__name__ == 'f'",
        "f.x = 1\nassert f(1) == 1",
        "print(f(1))",
        "def helper(): return 1\nassert f(1) == 1",
        "helper = 1\nassert f(1) == 1",
        "for helper in (1, 2): assert f(1) == 1",
        "assert f(1 == 1",
    ):
        assert calls(tests, {"f", "helper"}) is None


@pytest.mark.parametrize(
    ("completion", "tests"),
    [
        ("    return x + x", TESTS),
        ("    print('out')\n    return x + x", TESTS),
        (
            "    raise ValueError('no')",
            "try:\n    double(1)\n    assert False, 'no error'\nexcept ValueError as error:\n    assert error.args == ('no',)",
        ),
        ("    return double(x - 1) if x else 0", "assert double(985) == 0"),  # as deep as without a split
        (
            "    return {x: (None, {1.5, True}, b'1')}",
            "assert double('k') == {'k': (None, {1.5, True}, b'1')}",
        ),
    ],
)
def test_a_right_program_is_split(sandbox: Sandbox, completion: str, tests: str) -> None:
    result = judge(sandbox, completion, tests)
    assert (result.verdict, result.audited) == (Verdict.passed, "split"), result
    assert result.audit_cpu_seconds > 0


@pytest.mark.parametrize(
    ("completion", "tests"),
    [
        ("    x.append(1)\n    return x", "assert double([1]) == [1, 1]"),  # changes its argument
        ("    return iter([x])", "assert list(double(1)) == [1]"),
        ("    return x(1)", "assert double(lambda y: y) == 1"),
        ("    return x\nclass Other:\n    y = 1", "assert double(Other.y) == 1"),
        (
            "    class Own(Exception): pass\n    raise Own",
            "try:\n    double(1)\nexcept Exception:\n    pass\nassert 1 == 1",
        ),
    ],
)
def test_where_values_cannot_cross_the_twin_serves(sandbox: Sandbox, completion: str, tests: str) -> None:
    result = judge(sandbox, completion, tests)
    assert (result.verdict, result.audited) == (Verdict.passed, "twin"), result


ALWAYS = "class Any:\n        def __eq__(self, other): return True\n    return Any()"
TAMPERING = {
    "equals everything": f"    {ALWAYS}",
    "jumps over the tests": "    pass\nframe = sys._getframe()\ndef trace(frame, event, arg):\n    if event == 'line' and frame.f_lineno >= 8:\n"
    "        frame.f_lineno = frame.f_code.co_firstlineno\n    return trace\n",
    "another check": "    return 0\nclass Names(dict): pass\nimport builtins\nbuiltins.AssertionError = type('E', (Exception,), {})\n"
    "sys.excepthook = lambda *_: (os.write(1, b''), os._exit(0))",
    "reads the expected value": "    for name in ('f_locals', 'f_globals'): getattr(sys._getframe(1), name)\n"
    "    codes = sys._getframe(1).f_code.co_consts\n    found = [one for one in codes if type(one) is int]\n    return found[-1] if x == 2 else [1, 1]",
}


@pytest.mark.parametrize("name", TAMPERING)
def test_no_program_that_tampers_passes(sandbox: Sandbox, name: str) -> None:
    assert judge(sandbox, TAMPERING[name]).verdict is not Verdict.passed


@pytest.mark.parametrize(
    ("completion", "test"),
    [
        ("    return 1.0\n\nmath.isclose = lambda *_: True", "assert math.isclose(double(1), 2)"),
        ("    return 1.0\n\nimport builtins\nbuiltins.abs = lambda x: 0", "assert abs(double(1) - 2) < 1e-6"),
    ],
)
def test_a_condition_that_the_code_has_replaced_fails_in_the_other_process(
    sandbox: Sandbox, completion: str, test: str
) -> None:
    result = judge(sandbox, completion, f"import math\n{test}", f"import math\n\n{PROMPT}")
    assert (result.verdict, result.audited) == (Verdict.tampered, "split"), result


@pytest.mark.parametrize("test", ["abs(double(1) - 2) < 1e-6", "2 in double(1)", "double(1) is True"])
def test_what_a_value_of_a_class_of_its_own_passes(sandbox: Sandbox, test: str) -> None:
    """The gap that docs/sandbox.md names: such a value does not cross, and the twin's condition is true too. `is` cannot be overridden."""
    own = "    class Own(int):\n        __sub__ = lambda *_: 0\n        __contains__ = lambda *_: True\n    return Own(1)"
    result = judge(sandbox, own, f"assert {test}")
    wrong = "is True" in test
    assert result.verdict == (Verdict.wrong_answer if wrong else Verdict.passed), result
    assert result.audited == ("" if wrong else "twin")


def test_what_only_a_second_process_proves(sandbox: Sandbox) -> None:
    """A program that finds the expected value in the tests passes them, changed or not, as far as it finds the changed one."""
    reads = "    codes = sys._getframe(1).f_code.co_consts\n    return [one for one in codes if type(one) is int][-1]"
    result = judge(sandbox, reads, "def check(candidate):\n    assert candidate(2) == 4\n\ncheck(double)")
    assert (result.verdict, result.audited) == (Verdict.tampered, "split"), result
    assert result.note == "the program fails its tests if they are in another process"


REACHES = """    import ctypes
    found = []
    if not open(f"/proc/{os.getppid()}/cmdline").read().startswith("python3"):
        return found  # of bubblewrap, which may be read
    for how in (
        lambda: open(f"/proc/{os.getppid()}/mem", "rb"),
        lambda: os.listdir(f"/proc/{os.getppid()}/fd"),
        lambda: open(f"/proc/{os.getppid()}/environ", "rb"),
        lambda: ctypes.CDLL(None, use_errno=True).ptrace(16, os.getppid(), 0, 0) and 1 // 0,
        lambda: os.read(0, 1) or 1 // 0,
    ):
        try:
            how()
            found.append(how.__code__.co_firstlineno)
        except (OSError, ZeroDivisionError):
            pass
    return found"""


def test_the_tests_process_is_out_of_reach(sandbox: Sandbox) -> None:
    # Without a split the program's parent is the warm interpreter, which it cannot read either, or bubblewrap.
    result = judge(sandbox, REACHES, "assert double(0) == []")
    assert (result.verdict, result.audited) == (Verdict.passed, "split"), result
