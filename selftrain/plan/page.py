"""The plan as one HTML page that needs nothing else."""

from collections.abc import Iterator, Sequence
from html import escape

from selftrain.plan.plan import Plan
from selftrain.plan.table import Table, assumptions, capacity_table, heading, stage_table, workload

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 75em; margin: 2em auto; padding: 0 1em; color: #222; }
table { border-collapse: collapse; margin: 1em 0; } th, td { padding: .2em .7em; text-align: right; }
th:first-child, td:first-child { text-align: left; } thead { border-bottom: 2px solid #888; }
tbody tr:nth-child(even) { background: #f4f4f4; } .warning { color: #a00; font-weight: bold; }
.wide { overflow-x: auto; }
"""


def page(plan: Plan) -> str:
    """The page."""
    return "\n".join(_parts(plan))


def _parts(plan: Plan) -> Iterator[str]:
    yield (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" '
        'content="default-src \'none\'; style-src \'unsafe-inline\'"><meta name="viewport" content="width=device-width">'
        f"<title>Plan of {escape(plan.config.name)}</title><style>{STYLE}</style></head><body>"
    )
    yield f"<h1>Plan of {escape(plan.config.name)}</h1>"
    yield from (f"<p>{escape(line)}</p>" for line in heading(plan))
    yield from (f'<p class="warning">{escape(line)}</p>' for line in plan.warnings)
    if plan.capacities:
        yield f"<h2>Machines and hours</h2><p>{escape(workload(plan))}</p>"
        yield from _table(*capacity_table(plan))
        yield from (f"<p>{escape(line)}</p>" for line in plan.notes)
    yield "<h2>Stages, on one machine of each kind</h2>" if plan.capacities else "<h2>Stages</h2>"
    yield from _table(*stage_table(plan))
    yield "<h2>Where these figures are from</h2><ul>"
    yield from (f"<li>{escape(line)}</li>" for line in assumptions(plan))
    yield "</ul></body></html>"


def _table(head: Sequence[str], rows: Table) -> Iterator[str]:
    cells = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    yield f'<div class="wide"><table><thead><tr>{cells}</tr></thead><tbody>'
    for row in rows:
        yield "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>"
    yield "</tbody></table></div>"
