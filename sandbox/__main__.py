"""Entry point of `python -m sandbox`; the commands are in `sandbox.cli`."""

import sys

from sandbox.cli import main

if __name__ == "__main__":
    sys.exit(main())
