"""Entry points for users: the Prefect flows and the `selftrain` command line."""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - older versions cannot parse the other modules
    print(
        f"selftrain needs Python 3.11 or newer, this is {sys.version.split()[0]} ({sys.executable}); "
        "`make setup PYTHON=/path/to/python3.11` makes .venv with it",
        file=sys.stderr,
    )
    sys.exit(2)
