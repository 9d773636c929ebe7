"""Generates inputs for the function of a Python prompt, by its type hints and by the examples in its docstring.

Not covered: other languages, keyword arguments, classes as arguments, and conditions that the text sets ("a sorted list").
"""

import ast
import random
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from selftrain.problems.examples import example_tests

SIMPLE: dict[str, Any] = {"int": 0, "float": 0.0, "str": "", "bool": False, "list": [0], "dict": {"": 0}, "set": {0}, "tuple": (0, 0)}  # fmt: skip
"""Type without parameters -> a value of the type."""
UNKNOWN: tuple[Any, ...] = (0, [0], "")
"""Values for an argument of unknown type; one of them is drawn for each input."""
LETTERS = "abcdeXYZ 019"
"""Characters of generated texts where no example shows others."""
TRIES = 20
"""Draws per input that is asked for; small types have few different values."""


def function_inputs(prompt: str, count: int, seed: int) -> tuple[str, list[tuple[Any, ...]]] | None:
    """Name of the last function in `prompt`, and up to `count` different tuples of arguments, those of the examples first.

    None where the prompt is not Python, or has no function with positional arguments. Deterministic for one seed.
    """
    functions: list[ast.FunctionDef] = []
    for text in (prompt, f"{prompt}    pass\n"):  # a function without a docstring has no body yet
        with suppress(SyntaxError, ValueError):
            functions = [node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)]
            break
    arguments = [*functions[-1].args.posonlyargs, *functions[-1].args.args] if functions else []
    if not arguments:
        return None
    name = functions[-1].name
    shown = [values for values in _example_arguments(prompt, name) if len(values) == len(arguments)]
    hints = [_of_type(argument.annotation) for argument in arguments]
    rng = random.Random(f"{seed}/{prompt}")
    found = {repr(values): values for values in shown[:count]}
    for _ in range(TRIES * count):
        if len(found) == count:
            break
        like = rng.choice(shown) if shown else hints
        values = tuple(
            _like(hint if value is None else value, rng) for hint, value in zip(hints, like, strict=True)
        )
        found.setdefault(repr(values), values)
    return name, list(found.values())


def _example_arguments(prompt: str, name: str) -> Iterator[tuple[Any, ...]]:
    """Arguments of the calls of the function in the prompt's examples, where they are literals that `repr` writes as literals."""
    for node in ast.walk(ast.parse(example_tests(prompt, "py"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name:
            # TypeError: a set of lists; ValueError: no literal, or 1e999, which `repr` writes as inf.
            with suppress(ValueError, TypeError):
                values = tuple(ast.literal_eval(argument) for argument in node.args)
                ast.literal_eval(repr(values))
                yield values


def _of_type(hint: ast.expr | None) -> Any:
    """A value of the type that a hint names; None where that is unknown."""
    if isinstance(hint, ast.Name):
        return SIMPLE.get(hint.id.lower())
    if not isinstance(hint, ast.Subscript) or not isinstance(hint.value, ast.Name):
        return None
    inner = hint.slice.elts if isinstance(hint.slice, ast.Tuple) else [hint.slice]
    parts = [_of_type(part) for part in inner]
    match hint.value.id.lower():
        case "list" | "sequence" | "iterable":
            return parts[:1]
        case "tuple":
            return tuple(parts)
        case "dict" | "mapping" if len(parts) == 2 and isinstance(parts[0], int | float | str):
            return {parts[0]: parts[1]}
        case "optional":
            return parts[0]
    return None


def _like(value: Any, rng: random.Random) -> Any:
    """A random value of the type of `value`; texts have its characters, items of a list are like one of its items. Values of
    other types (complex numbers, bytes, ...) are unchanged."""
    if value is None:
        return _like(rng.choice(UNKNOWN), rng)
    if isinstance(value, bool):
        return rng.random() < 0.5
    if isinstance(value, int):
        return rng.choice((0, 1, 2, rng.randint(-10, 20), rng.randint(-100, 1000)))
    if isinstance(value, float):
        return round(rng.choice((0.0, rng.uniform(-2, 2), rng.uniform(-100, 100))), 2)
    if isinstance(value, str):
        return "".join(rng.choice(value or LETTERS) for _ in range(rng.randint(0, 8)))
    if isinstance(value, tuple):
        return tuple(_like(item, rng) for item in value)
    if not isinstance(value, list | dict | set):
        return value
    items = list(value) or list(UNKNOWN[:1])
    drawn = [_like(rng.choice(items), rng) for _ in range(rng.randint(0, 6))]
    if isinstance(value, dict):
        return {key: _like(rng.choice(list(value.values()) or [0]), rng) for key in drawn}
    return set(drawn) if isinstance(value, set) else drawn
