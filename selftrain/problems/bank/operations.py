"""The bank's operations: wordings for prompts, the function that each computes, and its classic mistake.

A mistake is the code of another operation (`>=` for `>`, ascending for descending, a missing `abs`), or the same code with
a number that is off by one. So no line of code is wrong in itself: whether it is wrong depends on the prompt.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Value = int | str | list[int]
"""Type of arguments and results; it includes bool, which is a subclass of int."""


@dataclass(frozen=True)
class Operation:
    """One step of a problem.

    name      key in `code`
    takes     type of the argument: "list" (of int), "string" or "number"
    gives     type of the result: as `takes`, or "bool"
    phrases   wordings for prompts; `{k}` stands for the operation's number
    compute   (value, k) -> right result, from which tests are built; must not change its argument
    numbers   the values from which `{k}` is drawn; empty if the operation has no number
    mistake   (name of an operation, change of k): the code that a mistaken answer has in its place; None: no mistake
    """

    name: str
    takes: str
    gives: str
    phrases: tuple[str, ...]
    compute: Callable[[Any, int], Value]
    numbers: tuple[int, ...] = ()
    mistake: tuple[str, int] | None = None


@dataclass(frozen=True)
class Step:
    """An operation with its number (0 where it has none)."""

    operation: Operation
    number: int

    def mistaken(self) -> "Step":
        """The step that a mistaken answer has in place of this one. The operation must have a mistake."""
        assert self.operation.mistake is not None, self.operation.name
        name, change = self.operation.mistake
        return Step(BY_NAME[name], self.number + change)


@dataclass(frozen=True)
class Family:
    """Problems about one type of value: chains of `steps`, which keep the type, and one of `endings`.

    openings   first words of a description
    empty      the empty value, an argument in every problem's tests
    draw       draws a random value
    """

    steps: tuple[Operation, ...]
    endings: tuple[Operation, ...]
    openings: tuple[str, ...]
    empty: Value
    draw: Callable[[random.Random], Value]


def _keep(test: Callable[[int, int], bool]) -> Callable[[list[int], int], list[int]]:
    return lambda xs, k: [x for x in xs if test(x, k)]


def _each(change: Callable[[int, int], int]) -> Callable[[list[int], int], list[int]]:
    return lambda xs, k: [change(x, k) for x in xs]


def _only(test: Callable[[str], bool]) -> Callable[[str, int], str]:
    return lambda s, k: "".join(c for c in s if test(c))


def _is_vowel(c: str) -> bool:
    return c in "aeiouAEIOU"


# Values from which an operation's number is drawn.
SMALL = (2, 3, 4, 5)
ANY = (1, 2, 3, 4, 5, 6, 7, 8, 9)

# fmt: off
WORDS = ("a", "I", "7", "42", "go", "Up", "tea", "Old", "x9", "bee", "Room", "Iris", "2nd", "Apple", "quiet",
         "Orange")

LIST_STEPS = (
    Operation("gt", "list", "list",
              ("keep the numbers greater than {k}", "drop everything that is not above {k}"),
              _keep(lambda x, k: x > k), ANY, ("ge", 0)),
    Operation("ge", "list", "list", ("keep the numbers that are at least {k}", "drop everything below {k}"),
              _keep(lambda x, k: x >= k), ANY, ("gt", 0)),
    Operation("lt", "list", "list",
              ("keep the numbers smaller than {k}", "drop everything that is not below {k}"),
              _keep(lambda x, k: x < k), ANY, ("le", 0)),
    Operation("le", "list", "list", ("keep the numbers that are at most {k}", "drop everything above {k}"),
              _keep(lambda x, k: x <= k), ANY, ("lt", 0)),
    Operation("even", "list", "list", ("keep the even numbers", "drop the odd numbers"),
              _keep(lambda x, k: x % 2 == 0), (), ("odd", 0)),
    Operation("odd", "list", "list", ("keep the odd numbers", "drop the even numbers"),
              _keep(lambda x, k: x % 2 != 0), (), ("even", 0)),
    Operation("minus", "list", "list", ("subtract {k} from every number", "make every number smaller by {k}"),
              _each(lambda x, k: x - k), ANY, ("from", 0)),
    Operation("from", "list", "list",
              ("subtract every number from {k}", "replace every number by {k} minus it"),
              _each(lambda x, k: k - x), ANY, ("minus", 0)),
    Operation("double", "list", "list", ("double every number", "multiply every number by two"),
              _each(lambda x, k: x * 2), (), ("square", 0)),
    Operation("square", "list", "list", ("square every number", "multiply every number by itself"),
              _each(lambda x, k: x * x), (), ("double", 0)),
    Operation("first", "list", "list", ("keep the first {k} elements", "cut the list off after {k} elements"),
              lambda xs, k: xs[:k], SMALL, ("first", 1)),
    Operation("skip", "list", "list", ("skip the first {k} elements", "leave out {k} elements at the start"),
              lambda xs, k: xs[k:], SMALL, ("skip", -1)),
    Operation("ascending", "list", "list", ("sort in ascending order", "sort from small to large"),
              lambda xs, k: sorted(xs), (), ("descending", 0)),
    Operation("descending", "list", "list", ("sort in descending order", "sort from large to small"),
              lambda xs, k: sorted(xs, reverse=True), (), ("ascending", 0)),
)
LIST_ENDINGS = (
    Operation("list", "list", "list", ("return the resulting list", "return what is left"), lambda xs, k: xs),
    Operation("sum", "list", "number", ("return the sum", "return the total"), lambda xs, k: sum(xs)),
    Operation("sum_abs", "list", "number",
              ("return the sum of the absolute values", "return the total of the absolute values"),
              lambda xs, k: sum(abs(x) for x in xs), (), ("sum", 0)),
    Operation("max", "list", "number",
              ("return the largest number, or 0 if there is none", "return the maximum (0 if empty)"),
              lambda xs, k: max(xs, default=0), (), ("min", 0)),
    Operation("min", "list", "number",
              ("return the smallest number, or 0 if there is none", "return the minimum (0 if empty)"),
              lambda xs, k: min(xs, default=0), (), ("max", 0)),
    Operation("count", "list", "number",
              ("return how many numbers there are", "return the number of elements"), lambda xs, k: len(xs)),
)

STRING_STEPS = (
    Operation("upper", "string", "string", ("change it to upper case", "turn every letter into a capital"),
              lambda s, k: s.upper(), (), ("lower", 0)),
    Operation("lower", "string", "string", ("change it to lower case", "turn every letter into a small one"),
              lambda s, k: s.lower(), (), ("upper", 0)),
    Operation("head", "string", "string",
              ("keep the first {k} characters", "cut it off after {k} characters"),
              lambda s, k: s[:k], SMALL, ("head", 1)),
    Operation("behead", "string", "string",
              ("drop the first {k} characters", "leave out {k} characters at the start"),
              lambda s, k: s[k:], SMALL, ("behead", -1)),
    Operation("tail", "string", "string",
              ("keep the last {k} characters", "keep only {k} characters at the end"),
              lambda s, k: s[-k:], SMALL, ("head", 0)),
    Operation("chop", "string", "string",
              ("drop the last {k} characters", "leave out {k} characters at the end"),
              lambda s, k: s[:-k], SMALL, ("behead", 0)),
    Operation("reverse", "string", "string", ("reverse it", "turn it back to front"), lambda s, k: s[::-1]),
    Operation("vowels", "string", "string", ("keep only the vowels", "drop everything but the vowels"),
              _only(_is_vowel), (), ("no_vowels", 0)),
    Operation("no_vowels", "string", "string", ("remove the vowels", "drop every vowel"),
              _only(lambda c: not _is_vowel(c)), (), ("vowels", 0)),
    Operation("digits", "string", "string", ("keep only the digits", "drop everything but the digits"),
              _only(str.isdigit), (), ("no_digits", 0)),
    Operation("no_digits", "string", "string", ("remove the digits", "drop every digit"),
              _only(lambda c: not c.isdigit()), (), ("digits", 0)),
    Operation("copies", "string", "string", ("write it {k} times in a row", "join {k} copies of it"),
              lambda s, k: s * k, SMALL, ("copies", -1)),
    Operation("append", "string", "string", ("put the digit {k} at its end", "append the digit {k}"),
              lambda s, k: s + str(k), ANY, ("prepend", 0)),
    Operation("prepend", "string", "string", ("put the digit {k} in front of it", "prepend the digit {k}"),
              lambda s, k: str(k) + s, ANY, ("append", 0)),
    Operation("every_space", "string", "string",
              ("replace every space by an underscore", "turn all spaces into underscores"),
              lambda s, k: s.replace(" ", "_"), (), ("first_space", 0)),
    Operation("first_space", "string", "string",
              ("replace the first space by an underscore", "turn only the first space into an underscore"),
              lambda s, k: s.replace(" ", "_", 1), (), ("every_space", 0)),
)
STRING_ENDINGS = (
    Operation("string", "string", "string",
              ("return the resulting string", "return the result"), lambda s, k: s),
    Operation("length", "string", "number", ("return its length", "return how many characters it has"),
              lambda s, k: len(s)),
    Operation("vowel_count", "string", "number",
              ("return how many vowels it has", "return the number of vowels"),
              lambda s, k: sum(map(_is_vowel, s)), (), ("small_vowel_count", 0)),
    Operation("small_vowel_count", "string", "number",
              ("return how many lower-case vowels it has", "return the number of lower-case vowels"),
              lambda s, k: sum(c in "aeiou" for c in s), (), ("vowel_count", 0)),
    Operation("words", "string", "number", ("return how many words it has", "return the number of words"),
              lambda s, k: len(s.split()), (), ("spaces", 0)),
    Operation("spaces", "string", "number", ("return how many spaces it has", "return the number of spaces"),
              lambda s, k: s.count(" "), (), ("words", 0)),
    Operation("longer", "string", "bool",
              ("return whether it is longer than {k} characters",
               "return whether it has more than {k} characters"),
              lambda s, k: len(s) > k, ANY, ("as_long", 0)),
    Operation("as_long", "string", "bool",
              ("return whether it is at least {k} characters long",
               "return whether it has {k} characters or more"),
              lambda s, k: len(s) >= k, ANY, ("longer", 0)),
    Operation("initial", "string", "string",
              ("return its first character, or an empty string if there is none",
               "return the character at its start (nothing if empty)"),
              lambda s, k: s[:1]),
    Operation("initial_or_mark", "string", "string",
              ("return its first character, or a question mark if there is none",
               "return the character at its start (a question mark if empty)"),
              lambda s, k: s[:1] or "?", (), ("initial", 0)),
)

NUMBER_STEPS = (
    Operation("plus", "number", "number", ("add {k} to it", "make it larger by {k}"),
              lambda n, k: n + k, ANY, ("less", 0)),
    Operation("less", "number", "number", ("subtract {k} from it", "make it smaller by {k}"),
              lambda n, k: n - k, ANY, ("less_from", 0)),
    Operation("less_from", "number", "number", ("subtract it from {k}", "replace it by {k} minus it"),
              lambda n, k: k - n, ANY, ("less", 0)),
    Operation("times", "number", "number", ("multiply it by {k}", "make it {k} times as large"),
              lambda n, k: n * k, SMALL, ("plus", 0)),
    Operation("twice", "number", "number", ("double it", "multiply it by two"),
              lambda n, k: n * 2, (), ("squared", 0)),
    Operation("squared", "number", "number", ("square it", "multiply it by itself"),
              lambda n, k: n * n, (), ("twice", 0)),
    Operation("distance", "number", "number",
              ("take its distance from {k}", "replace it by the absolute value of it minus {k}"),
              lambda n, k: abs(n - k), ANY, ("less", 0)),
    Operation("at_least", "number", "number", ("raise it to {k} if it is smaller", "make it at least {k}"),
              lambda n, k: max(n, k), ANY, ("at_most", 0)),
    Operation("at_most", "number", "number", ("lower it to {k} if it is larger", "make it at most {k}"),
              lambda n, k: min(n, k), ANY, ("at_least", 0)),
    Operation("plus_if_even", "number", "number",
              ("add {k} if it is even", "make it larger by {k} if it is even"),
              lambda n, k: n + k if n % 2 == 0 else n, ANY, ("plus_if_odd", 0)),
    Operation("plus_if_odd", "number", "number",
              ("add {k} if it is odd", "make it larger by {k} if it is odd"),
              lambda n, k: n + k if n % 2 != 0 else n, ANY, ("plus_if_even", 0)),
    Operation("less_if_gt", "number", "number",
              ("subtract {k} if it is greater than {k}", "make it smaller by {k} if it is above {k}"),
              lambda n, k: n - k if n > k else n, ANY, ("less_if_ge", 0)),
    Operation("less_if_ge", "number", "number",
              ("subtract {k} if it is at least {k}", "make it smaller by {k} if it is not below {k}"),
              lambda n, k: n - k if n >= k else n, ANY, ("less_if_gt", 0)),
    Operation("half_down", "number", "number", ("halve it, rounded down", "divide it by two and round down"),
              lambda n, k: n // 2, (), ("half_up", 0)),
    Operation("half_up", "number", "number", ("halve it, rounded up", "divide it by two and round up"),
              lambda n, k: (n + 1) // 2, (), ("half_down", 0)),
)
NUMBER_ENDINGS = (
    Operation("number", "number", "number",
              ("return the resulting number", "return the result"), lambda n, k: n),
    Operation("size", "number", "number", ("return its absolute value", "return it without its sign"),
              lambda n, k: abs(n), (), ("number", 0)),
    Operation("is_even", "number", "bool", ("return whether it is even", "return whether two divides it"),
              lambda n, k: n % 2 == 0, (), ("is_odd", 0)),
    Operation("is_odd", "number", "bool", ("return whether it is odd", "return whether it is not even"),
              lambda n, k: n % 2 != 0, (), ("is_even", 0)),
    Operation("above", "number", "bool",
              ("return whether it is greater than {k}", "return whether it is above {k}"),
              lambda n, k: n > k, ANY, ("reached", 0)),
    Operation("reached", "number", "bool",
              ("return whether it is at least {k}", "return whether it is not below {k}"),
              lambda n, k: n >= k, ANY, ("above", 0)),
    Operation("digit_count", "number", "number",
              ("return how many digits it has", "return the number of its digits"),
              lambda n, k: len(str(abs(n))), (), ("digit_sum", 0)),
    Operation("digit_sum", "number", "number",
              ("return the sum of its digits", "return what its digits add up to"),
              lambda n, k: sum(map(int, str(abs(n)))), (), ("digit_count", 0)),
)

FAMILIES = {
    "list": Family(
        LIST_STEPS, LIST_ENDINGS,
        ("Given a list of integers, ", "Take a list of integers: ", "For a list of whole numbers, "),
        [], lambda rng: [rng.randint(-9, 12) for _ in range(rng.randint(3, 8))]),
    "string": Family(
        STRING_STEPS, STRING_ENDINGS,
        ("Given a string, ", "Take a string: ", "For a line of text, "),
        "", lambda rng: " ".join(rng.choice(WORDS) for _ in range(rng.randint(1, 4)))),
    "number": Family(
        NUMBER_STEPS, NUMBER_ENDINGS,
        ("Given an integer, ", "Take an integer: ", "For a whole number, "),
        0, lambda rng: rng.randint(-15, 15)),
}
# fmt: on

OPERATIONS = tuple(op for family in FAMILIES.values() for op in (*family.steps, *family.endings))
BY_NAME = {operation.name: operation for operation in OPERATIONS}
