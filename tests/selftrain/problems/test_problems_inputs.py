"""Tests of generated inputs: by type hints, by examples, and where there are none."""

import ast

import pytest

from selftrain.problems.inputs import function_inputs


def test_inputs_have_the_types_of_the_hints() -> None:
    prompt = "def f(xs: List[int], name: str, share: Optional[float], pair: Tuple[int, bool]) -> int:\n"
    found = function_inputs(prompt, 20, seed=1)
    assert found is not None
    name, inputs = found
    assert name == "f"
    assert len({repr(values) for values in inputs}) == len(inputs) == 20
    for xs, text, share, (number, flag) in inputs:
        assert all(type(x) is int for x in xs)
        assert (type(text), type(share), type(number), type(flag)) == (str, float, int, bool)
    assert {len(values[0]) for values in inputs} >= {0, 1}
    assert function_inputs(prompt, 20, seed=1) == found
    assert function_inputs(prompt, 20, seed=2) != found


def test_examples_come_first_and_show_what_inputs_look_like() -> None:
    prompt = 'def f(text):\n    """ Groups.\n    >>> f("(())")\n    2\n    >>> f("()")\n    1\n    """\n'
    found = function_inputs(prompt, 10, seed=0)
    assert found is not None
    assert found[1][:2] == [("(())",), ("()",)]
    assert all(isinstance(values[0], str) and set(values[0]) <= set("()") for values in found[1])


def test_arguments_of_unknown_type_are_of_several() -> None:
    found = function_inputs("import math\n\ndef f(x):\n", 30, seed=0)
    assert found is not None
    assert {type(values[0]) for values in found[1]} == {int, list, str}


def test_a_type_with_few_values_gives_few_inputs() -> None:
    found = function_inputs("def f(x: bool):\n", 8, seed=0)
    assert found is not None
    assert sorted(values[0] for values in found[1]) == [False, True]


def test_a_prompt_without_such_a_function_has_no_inputs() -> None:
    assert function_inputs("def f() -> int:\n", 4, 0) is None
    assert function_inputs("x = 1\n", 4, 0) is None
    assert function_inputs("int f(int x) {\n", 4, 0) is None


def test_arguments_before_a_slash_count() -> None:
    found = function_inputs("def f(a: int, /, b: str):\n", 8, seed=0)
    assert found is not None
    assert {tuple(map(type, values)) for values in found[1]} == {(int, str)}


@pytest.mark.parametrize(
    "shown", ["{[]}", "{[1]: 2}", "1 + 2j", "...", "b'ab'", "1e999", "[None, (1 + 2j, {...})]"]
)
def test_examples_of_any_kind_give_inputs_that_can_be_written(shown: str) -> None:
    found = function_inputs(f'def f(x):\n    """\n    >>> f({shown})\n    1\n    """\n', 8, seed=0)
    assert found is not None
    assert found[1]
    assert ast.literal_eval(repr(found[1])) == found[1]
