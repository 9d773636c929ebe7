"""Tests that the bank's tables of operations are complete and consistent, and that the code does what the phrases say."""

from typing import get_args

import pytest

from selftrain.config import WRITTEN_LANGUAGES, BankConfig
from selftrain.problems.bank.code import CODE
from selftrain.problems.bank.languages import LANGUAGES
from selftrain.problems.bank.operations import BY_NAME, FAMILIES, OPERATIONS, Operation, Step, Value

EXAMPLES: list[tuple[str, int, Value, Value]] = [
    ("gt", 3, [1, 3, 5], [5]),
    ("ge", 3, [1, 3, 5], [3, 5]),
    ("lt", 3, [1, 3, 5], [1]),
    ("le", 3, [1, 3, 5], [1, 3]),
    ("even", 0, [-3, -2, 0, 1], [-2, 0]),
    ("odd", 0, [-3, -2, 0, 1], [-3, 1]),
    ("minus", 2, [5, -1], [3, -3]),
    ("from", 2, [5, -1], [-3, 3]),
    ("double", 0, [3, -4], [6, -8]),
    ("square", 0, [3, -4], [9, 16]),
    ("first", 2, [7, 8, 9], [7, 8]),
    ("skip", 2, [7, 8, 9], [9]),
    ("ascending", 0, [2, -1, 3], [-1, 2, 3]),
    ("descending", 0, [2, -1, 3], [3, 2, -1]),
    ("list", 0, [2, -1], [2, -1]),
    ("sum", 0, [2, -5], -3),
    ("sum_abs", 0, [2, -5], 7),
    ("max", 0, [], 0),
    ("max", 0, [-2, -5], -2),
    ("min", 0, [], 0),
    ("min", 0, [2, 5], 2),
    ("count", 0, [4, 4], 2),
    ("upper", 0, "aB 1", "AB 1"),
    ("lower", 0, "aB 1", "ab 1"),
    ("head", 2, "abc", "ab"),
    ("behead", 2, "abc", "c"),
    ("tail", 2, "abc", "bc"),
    ("tail", 2, "a", "a"),
    ("chop", 2, "abc", "a"),
    ("chop", 2, "a", ""),
    ("reverse", 0, "abc", "cba"),
    ("vowels", 0, "Apple 1", "Ae"),
    ("no_vowels", 0, "Apple 1", "ppl 1"),
    ("digits", 0, "x9 42", "942"),
    ("no_digits", 0, "x9 42", "x "),
    ("copies", 3, "ab", "ababab"),
    ("append", 4, "ab", "ab4"),
    ("prepend", 4, "ab", "4ab"),
    ("every_space", 0, "a b c", "a_b_c"),
    ("first_space", 0, "a b c", "a_b c"),
    ("string", 0, "a b", "a b"),
    ("length", 0, "a b", 3),
    ("vowel_count", 0, "Iris", 2),
    ("small_vowel_count", 0, "Iris", 1),
    ("words", 0, " a  b ", 2),
    ("words", 0, "", 0),
    ("spaces", 0, " a  b ", 4),
    ("longer", 3, "abc", False),
    ("as_long", 3, "abc", True),
    ("initial", 0, "abc", "a"),
    ("initial", 0, "", ""),
    ("initial_or_mark", 0, "abc", "a"),
    ("initial_or_mark", 0, "", "?"),
    ("plus", 2, -5, -3),
    ("less", 2, 5, 3),
    ("less_from", 2, 5, -3),
    ("times", 3, -5, -15),
    ("twice", 0, -5, -10),
    ("squared", 0, -5, 25),
    ("distance", 3, 1, 2),
    ("at_least", 3, 1, 3),
    ("at_most", 3, 1, 1),
    ("plus_if_even", 3, -2, 1),
    ("plus_if_even", 3, -1, -1),
    ("plus_if_odd", 3, -1, 2),
    ("plus_if_odd", 3, 0, 0),
    ("less_if_gt", 3, 3, 3),
    ("less_if_gt", 3, 4, 1),
    ("less_if_ge", 3, 3, 0),
    ("less_if_ge", 3, 2, 2),
    ("half_down", 0, -5, -3),
    ("half_down", 0, 5, 2),
    ("half_up", 0, -5, -2),
    ("half_up", 0, 5, 3),
    ("number", 0, -5, -5),
    ("size", 0, -5, 5),
    ("is_even", 0, -4, True),
    ("is_odd", 0, -3, True),
    ("above", 3, 3, False),
    ("reached", 3, 3, True),
    ("digit_count", 0, -120, 3),
    ("digit_count", 0, 0, 1),
    ("digit_sum", 0, -125, 8),
]


@pytest.mark.parametrize(("name", "k", "value", "result"), EXAMPLES)
def test_operation_computes(name: str, k: int, value: Value, result: Value) -> None:
    computed = BY_NAME[name].compute(value, k)
    assert computed == result
    assert type(computed) is type(result)


def test_every_operation_has_an_example() -> None:
    assert {name for name, *_ in EXAMPLES} == {operation.name for operation in OPERATIONS}


def test_every_operation_has_code_in_every_language() -> None:
    assert set(CODE) == set(LANGUAGES) == set(WRITTEN_LANGUAGES)
    for language, column in CODE.items():
        assert set(column) == set(BY_NAME), language
        for name, code in column.items():
            assert ("{k}" in code) == bool(BY_NAME[name].numbers), (language, name)


def test_the_config_knows_every_family() -> None:
    (choice, _) = get_args(BankConfig.model_fields["families"].annotation)
    assert set(get_args(choice)) == set(FAMILIES)


def test_families_chain() -> None:
    """Any step can follow any other, and any ending can follow any step."""
    for name, family in FAMILIES.items():
        assert all((step.takes, step.gives) == (name, name) for step in family.steps)
        assert all(ending.takes == name for ending in family.endings)
        assert family.endings[0].gives == name


def test_names_and_phrases_say_one_thing() -> None:
    assert len(BY_NAME) == len(OPERATIONS)
    for family in FAMILIES.values():
        phrases = [phrase for operation in (*family.steps, *family.endings) for phrase in operation.phrases]
        assert len(phrases) == len(set(phrases))


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_phrases_and_mistake_of(operation: Operation) -> None:
    assert len(operation.phrases) >= 2
    assert all(("{k}" in phrase) == bool(operation.numbers) for phrase in operation.phrases)
    if operation.mistake is None:
        return
    for number in operation.numbers or (0,):
        wrong = Step(operation, number).mistaken()
        assert wrong != Step(operation, number)
        assert (wrong.operation.takes, wrong.operation.gives) == (operation.takes, operation.gives)
        assert bool(wrong.operation.numbers) == bool(operation.numbers)
        assert wrong.number >= min(number, 1)
