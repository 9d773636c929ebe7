"""What a person runs: one file each, only wiring."""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - what follows cannot be read by an older one
    print(
        f"selftrain needs Python 3.11 or newer, this is {sys.version.split()[0]} ({sys.executable}); "
        "`make setup PYTHON=/path/to/python3.11` makes .venv with it",
        file=sys.stderr,
    )
    sys.exit(2)
