"""The notebook docs/notebooks/quickstart.ipynb, run cell by cell on a small finished run."""

import ast
import json
from pathlib import Path
from typing import Any

import pytest

from tests.command import ROOT, Finished

NOTEBOOK = ROOT / "docs" / "notebooks" / "quickstart.ipynb"
PLACE = 'RUN = "../../runs/demo"'


def cells() -> list[str]:
    """Its code."""
    made = json.loads(NOTEBOOK.read_text())
    return ["".join(cell["source"]) for cell in made["cells"] if cell["cell_type"] == "code"]


def shown(code: str, names: dict[str, Any]) -> Any:
    """Run a cell; the value of its last expression, as a notebook shows it."""
    tree = ast.parse(code)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, str(NOTEBOOK), "exec"), names)
    return eval(compile(ast.Expression(last.value), str(NOTEBOOK), "eval"), names) if last else None


def test_the_notebook_is_stored_without_outputs_and_names_the_demos_run():
    made = json.loads(NOTEBOOK.read_text())
    assert (made["nbformat"], made["cells"][0]["cell_type"]) == (4, "markdown")
    assert not any(cell.get("outputs") for cell in made["cells"])
    assert len({cell["id"] for cell in made["cells"]}) == len(made["cells"])
    assert [code.count(PLACE) for code in cells()] == [1, 0, 0, 0, 0]


def test_every_cell_of_the_notebook_runs(smoke_run: Finished, capsys: pytest.CaptureFixture[str]):
    names: dict[str, Any] = {"__name__": "__main__"}
    values = [shown(code.replace(PLACE, f"RUN = {str(smoke_run.out)!r}"), names) for code in cells()]
    assert str(values[0]).startswith("score of rm-2")
    assert names["found"].pick in {one.text for one in names["found"].candidates}
    assert len(names["found"].verdicts) == 16
    assert Path(smoke_run.out, "report.json").is_file()
    assert values[-1]._repr_html_().startswith('<img src="data:image/svg+xml;base64,')
    assert "are right, at random: " in capsys.readouterr().out
