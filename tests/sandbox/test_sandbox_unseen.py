"""Tests that a Python program cannot reach its own source and end marker while it runs."""

import pytest

from sandbox.client import Sandbox
from sandbox.programs import assemble
from sandbox.verdicts import Result, Verdict
from tests.needs import need_tools

PROMPT = "import gc, os, re, sys\ndef double(x):\n"
TESTS = "def check(candidate):\n    assert candidate(2) == 4\n\ncheck(double)"
# A wrong program that prints every marker that it finds in `found`, and ends.
END = "\n    os.write(1, '\\n'.join(['', *re.findall('end-[0-9a-f]{24}', str(found)), '']).encode())\n    os._exit(0)"
TRICKS = {
    "its file": "    found = open(__file__).read()",
    "its file by argument": "    found = open(sys.argv[0]).read()",
    "files in reach": "    found = [open(name, errors='replace').read() for place in ('.', sys.path[0]) for name in map((place + '/').__add__, os.listdir(place))]",
    "its loader": "    found = sys.modules['__main__'].__loader__.get_source('__main__')",
    "the interpreter with -O": "    os.execv(sys.executable, [sys.executable, '-O', sys.argv[0]])\n    found = ''",
    "constants": "    todo, found = [sys._getframe(1).f_code, sys._getframe(2).f_code], []\n    for code in todo:\n"
    "        found += map(repr, code.co_consts)\n        todo += [one for one in code.co_consts if type(one) is type(code)]",
    "frames": "    frame, found = sys._getframe(), []\n    while frame:\n        found.append([*frame.f_locals.values(), *frame.f_globals.values(), frame.f_code.co_consts])\n        frame = frame.f_back",
    "all objects": "    found = [repr(gc.get_referents(one)) for one in gc.get_objects() if type(one) in (list, dict, tuple)]",
    "modules": "    found = [vars(module) for module in list(sys.modules.values()) if hasattr(module, '__dict__')]",
    "descriptors": "    found = [os.pread(int(fd), 1 << 20, 0) for fd in os.listdir('/proc/self/fd') if int(fd) > 2 and os.path.isfile('/proc/self/fd/' + fd)]",
    "command line": "    found = [open(f'/proc/self/{name}').read() for name in ('cmdline', 'environ')]",
}


def judge(sandbox: Sandbox, completion: str, prompt: str = PROMPT, tests: str = TESTS) -> Result:
    need_tools("gcc")
    (result,) = sandbox.run([assemble("py", prompt, completion, tests).program("x", "py")])
    return result


@pytest.mark.parametrize("name", TRICKS)
def test_no_program_prints_the_marker_that_it_finds(sandbox: Sandbox, name: str) -> None:
    result = judge(sandbox, TRICKS[name] + END)
    assert result.verdict in (Verdict.wrong_answer, Verdict.runtime_error), result
    assert "end-" not in result.stdout


def test_the_marker_is_printed_after_the_tests_only(sandbox: Sandbox) -> None:
    passed = judge(sandbox, "    print('out')\n    return x + x")
    assert (passed.verdict, passed.stdout, passed.exit_code) == (Verdict.passed, "out\n", 0), passed
    for early in ("sys.exit(0)", "os._exit(0)", "raise SystemExit", "quit()"):
        assert judge(sandbox, f"    {early}").verdict is Verdict.wrong_answer
    assert judge(sandbox, "    return x + x", tests=TESTS + "\nsys.exit()").verdict is Verdict.wrong_answer


def test_a_program_that_redirects_its_output_passes(sandbox: Sandbox) -> None:
    result = judge(sandbox, "    import io\n    sys.stdout = io.StringIO()\n    return x + x")
    assert result.verdict is Verdict.passed, result


def test_messages_have_the_lines_of_source_as_with_a_file(sandbox: Sandbox) -> None:
    result = judge(sandbox, "    return x + 1")
    assert result.verdict is Verdict.wrong_answer
    assert "line 7, in <module>\n    check(double)\n" in result.stderr
    assert "line 5, in check\n    assert candidate(2) == 4\nAssertionError\n" in result.stderr
    result = judge(sandbox, "    return (x +")
    assert result.verdict is Verdict.compile_error
    assert "SyntaxError: '(' was never closed" in result.stderr


def test_names_are_those_of_a_program_in_a_file(sandbox: Sandbox) -> None:
    tests = f"""
assert double.__code__.co_filename == __file__ == sys.argv[0] == sys.orig_argv[1], (__file__, sys.argv)
assert os.path.basename(__file__) == 'main.py' and os.path.dirname(__file__) == sys.path[0], sys.path
assert __name__ == '__main__' and sys.modules['__main__'].double is double and __loader__.path == __file__
assert os.listdir(sys.path[0]) == [] and os.listdir('/proc/self/fd') == ['0', '1', '2', '3']
assert sys._getframe().f_back is None and 'ctypes' not in sys.modules
{TESTS}"""
    result = judge(sandbox, "    return x + x", tests=tests)
    assert result.verdict is Verdict.passed, result.stderr


@pytest.mark.parametrize("size", [10, 200_000])
def test_programs_of_any_size_and_text_pass(sandbox: Sandbox, size: int) -> None:
    prompt = "# coding: utf-8\n" + PROMPT
    result = judge(sandbox, f"    é = {'ü' * size!r}\n    assert len(é) == {size}\n    return x + x", prompt)
    assert result.verdict is Verdict.passed, result.stderr
