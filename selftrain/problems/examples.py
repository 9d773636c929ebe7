"""Turns the `>>>` examples in a prompt's docstring into tests."""

import ast
import doctest


def example_tests(prompt: str, language: str) -> str:
    """Asserts for the `>>>` examples in the docstring of `prompt`'s last function; empty where there are none.

    Python only: the result is empty for other languages, and where the prompt or its examples are not valid Python. An
    example becomes an assert if its expected output is a literal, or if the example is a comparison without expected output.
    Statements without output (an import, an assignment) are copied between the asserts.
    """
    if language != "py" or ">>>" not in prompt:
        return ""
    try:
        functions = [node for node in ast.parse(prompt).body if isinstance(node, ast.FunctionDef)]
        docstring = ast.get_docstring(functions[-1], clean=False) if functions else None
        examples = doctest.DocTestParser().get_examples(docstring or "")
    except (SyntaxError, ValueError):  # doctest raises ValueError for a layout that it cannot parse
        return ""
    lines = list(filter(None, map(_line, examples)))
    asserts = any(line.startswith("assert") for line in lines)
    return "\n" + "\n".join(lines) + "\n" if asserts else ""


def _line(example: doctest.Example) -> str:
    """The example as a line of a test; empty where it is neither a statement nor usable as an assert."""
    try:
        statement = ast.parse(example.source).body[0]
        if not isinstance(statement, ast.Expr):
            return "" if example.want else ast.unparse(statement)
        test = statement.value
        if example.want:
            expected = ast.parse(example.want.strip(), mode="eval").body
            ast.literal_eval(expected)  # raises ValueError if not a literal
            test = ast.Compare(test, [ast.Eq()], [expected])
    except (SyntaxError, ValueError, TypeError, IndexError):
        return ""
    return ast.unparse(ast.Assert(test)) if isinstance(test, ast.Compare) else ""
