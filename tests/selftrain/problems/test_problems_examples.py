"""Tests of the assertions that are generated from the examples in a Python prompt."""

from selftrain.problems.examples import example_tests


def prompt(*lines: str) -> str:
    return "from typing import List\n\ndef f(n):\n" + "\n".join(
        ['    """ Say it.', *(f"    {x}" for x in lines), '    """\n']
    )


def test_examples_become_asserts() -> None:
    made = example_tests(prompt(">>> f(1)", "2", ">>> f([1, 'a'])  # with a note", "[2, 'aa']"), "py")
    assert made == "\nassert f(1) == 2\nassert f([1, 'a']) == [2, 'aa']\n"


def test_they_tell_right_from_wrong() -> None:
    made = example_tests(prompt(">>> f(2) if True else 0", "4"), "py")
    exec("def f(n):\n    return 2 * n\n" + made, {})
    wrong: dict[str, object] = {}
    try:
        exec("def f(n):\n    return n\n" + made, wrong)
    except AssertionError:
        return
    raise AssertionError("the wrong function passed")


def test_statements_between_examples_are_kept() -> None:
    assert example_tests(prompt(">>> x = 3", ">>> f(x)", "6"), "py") == "\nx = 3\nassert f(x) == 6\n"


def test_a_comparison_without_output_is_an_assert_too() -> None:
    assert example_tests(prompt(">>> f(1) == 2", ">>> f(2)"), "py") == "\nassert f(1) == 2\n"


def test_output_that_is_no_literal_is_left_out() -> None:
    assert example_tests(prompt(">>> f(-1)", "Traceback (most recent call last):", "ValueError"), "py") == ""


def test_nothing_where_there_is_nothing_to_read() -> None:
    assert example_tests(prompt("f(1) is 2"), "py") == ""
    assert example_tests(prompt(">>>f(1)", "2"), "py") == ""  # doctest wants a blank there
    assert example_tests("def f(n:\n    >>> f(1)\n", "py") == ""
    assert example_tests("// >>> f(1)\n// 2\nfunction f(n){\n", "js") == ""


def test_only_the_last_functions_examples_count() -> None:
    helper = 'def g(n):\n    """\n    >>> g(1)\n    1\n    """\n    return n\n\n'
    assert example_tests(helper + prompt(">>> f(1)", "2"), "py") == "\nassert f(1) == 2\n"


def test_examples_within_the_text() -> None:
    """The forms of HumanEval's prompts; the results may be followed by a full stop or a comment."""
    made = example_tests(
        prompt(
            "f(1) == 2", "f(2) => 4", "* f(3) ==> 6.", "for f(4) -> 8  # twice", "f(5) \N{HEAVY TRIANGLE-HEADED RIGHTWARDS ARROW} 10",
            "f(6) returns 12", "f('#)') should return '##))'.", "f(7) = 14", "f(8)  # returns 16",
        ),
        "py",
    )  # fmt: skip
    results = ["1) == 2", "2) == 4", "3) == 6", "4) == 8", "5) == 10", "6) == 12", "'#)') == '##))'", "7) == 14", "8) == 16"]  # fmt: skip
    assert made == "\n" + "".join(f"assert f({result}\n" for result in results)


def test_lines_of_text_that_are_no_examples() -> None:
    """Variables, terms, other functions, and a list that goes on in the next line."""
    text = [
        "f(n) = 2",
        "f(1) -> 1 + 1 = 2",
        "off(1) == 2",
        "g.f(1) == 2",
        "f([",
        "f(1) >= 2",
        "f(1) returned 2",
    ]
    assert example_tests(prompt(*text), "py") == ""


def test_examples_within_the_text_do_not_count_beside_others() -> None:
    assert example_tests(prompt("f(1) == 3", ">>> f(2)", "4"), "py") == "\nassert f(2) == 4\n"
