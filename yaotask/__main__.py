"""The command line, as `python -m yaotask`."""

import sys

from yaotask.cli import main

if __name__ == "__main__":
    sys.exit(main())
