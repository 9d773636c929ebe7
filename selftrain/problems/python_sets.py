"""Converts HumanEval and MBPP to Python rows with MultiPL-E's fields; MultiPL-E's data set on the hub lacks Python.

Task names are the same as for other languages (`HumanEval_0_has_close_elements`, `mbpp_3_is_not_prime`), so that a task is
in the same split in all languages.
"""

import ast
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import Field

from selftrain.problems.hub import read_hub
from selftrain.problems.rows import Fields, Row, check_fields

STOP_TOKENS = ("\ndef", "\n#", "\nif", "\nclass")
"""MultiPL-E's stop tokens for Python."""


@dataclass(frozen=True)
class PythonSet:
    """The part of a data set on the hub from which a Python subset is read."""

    hub: str
    subset: str
    splits: tuple[str, ...]


PYTHON_SETS = {
    "humaneval-py": PythonSet("openai/openai_humaneval", "openai_humaneval", ("test",)),
    "mbpp-py": PythonSet(
        "google-research-datasets/mbpp", "sanitized", ("prompt", "test", "validation", "train")
    ),
}
"""Name of a subset that MultiPL-E's data set lacks -> the data set to read in its place."""


class _HumanEval(Fields):
    task_id: str = Field(pattern=r"^HumanEval/\d+$")
    prompt: str = Field(min_length=1)
    canonical_solution: str
    test: str = Field(pattern=r"\S")
    entry_point: str = Field(min_length=1)


class _Mbpp(Fields):
    task_id: int
    prompt: str = Field(min_length=1)
    code: str
    test_imports: list[str] = Field(default_factory=list)
    test_list: list[str] = Field(min_length=1)


def python_rows(subset: str, hub: str, commit: str) -> Iterator[Row]:
    """The rows of `PYTHON_SETS[subset]` in MultiPL-E's fields, from the data set or folder `hub` at `commit`.

    MBPP's prompts lack a signature, so it is taken from the reference solution. The row has no `response` if the solution has
    top-level code besides imports and this function, or if its body does not parse after the docstring. Raises what
    `read_hub` raises, and `DataError` for a row with unexpected fields.
    """
    where = PYTHON_SETS[subset]
    for split in where.splits:
        for row in read_hub(hub, commit, where.subset, split):
            fields = _of_humaneval(row) if subset == "humaneval-py" else _of_mbpp(row)
            if fields is not None:
                yield Row(
                    fields | {"language": "py", "stop_tokens": list(STOP_TOKENS)}, row.where, row.source
                )


def _of_humaneval(row: Row) -> dict[str, object]:
    fields = check_fields(row, _HumanEval)
    return {
        "name": f"{fields.task_id.replace('/', '_')}_{fields.entry_point}",
        "prompt": fields.prompt,
        "tests": f"{fields.test}\ncheck({fields.entry_point})\n",
        "response": fields.canonical_solution,
    }


def _of_mbpp(row: Row) -> dict[str, object] | None:
    """The fields; None where the code does not parse, or the first test uses no function of the solution."""
    fields = check_fields(row, _Mbpp)
    code = fields.code.replace("\r\n", "\n").expandtabs(4)
    try:
        tree, tested = ast.parse(code), ast.parse(fields.test_list[0])
    except (SyntaxError, ValueError):
        return None
    names = {node.id for node in ast.walk(tested) if isinstance(node, ast.Name)}
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name in names]
    if not functions:
        return None
    function = functions[-1]
    imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    head = "".join(f"{ast.unparse(node)}\n" for node in imports) + "\n" * bool(imports)
    text = fields.prompt.strip().replace("\\", r"\\").replace('"""', "'''")
    prompt = f'{head}def {function.name}({ast.unparse(function.args)}):\n    """ {text}\n    """\n'
    alone = len(tree.body) == len(imports) + 1
    return {
        "name": f"mbpp_{fields.task_id}_{function.name}",
        "prompt": prompt,
        "tests": "\n" + "".join(f"{line}\n" for line in [*fields.test_imports, *fields.test_list]),
        "response": _body(code, function, prompt) if alone else None,
    }


def _body(code: str, function: ast.FunctionDef, prompt: str) -> str | None:
    """The function's body, indented to follow `prompt`; None where the new indentation changes its syntax tree."""
    lines = code.split("\n")[function.body[0].lineno - 1 : function.end_lineno]
    body = textwrap.indent(textwrap.dedent("\n".join(lines)), "    ") + "\n"
    try:
        whole = ast.parse(prompt + body).body[-1]
    except SyntaxError:
        return None
    assert isinstance(whole, ast.FunctionDef)
    same = [ast.dump(node) for node in whole.body[1:]] == [ast.dump(node) for node in function.body]
    return body if same else None
