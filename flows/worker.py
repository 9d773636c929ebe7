"""A worker of the pool `selftrain`. SELFTRAIN_METRICS makes it serve figures to Prometheus, SELFTRAIN_LOGS=json write JSON lines.

python -m flows.worker [OPTION of `prefect worker start` ...]
"""

import os
import sys

from selftrain.errors import UsageError


def main() -> None:
    """Be Prefect's worker, with what the environment asks for; exits with 2 if that is wrong."""
    try:
        _prepare()
    except UsageError as error:
        print(f"selftrain: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    from prefect.cli import app

    sys.argv[1:] = ["worker", "start", "--pool", "selftrain", *sys.argv[1:]]
    app()


def _prepare() -> None:
    """Set up logs and figures; runs inherit the environment. Before Prefect is imported, which reads it."""
    from tasks import logs

    kind = os.environ.get(logs.VARIABLE)
    if kind not in (None, "", "json"):
        raise UsageError(f"{logs.VARIABLE}={kind}: expected json, or no value for plain text")
    if kind:
        os.environ.update(logs.SETTINGS)
    from tasks import figures

    if address := os.environ.get(figures.VARIABLE):
        figures.serve(address)


if __name__ == "__main__":
    main()
