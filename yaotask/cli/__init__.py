"""The command line: `yaotask COMMAND`, a thin skin over `App`.

Each command lives in a module of its own, which is imported when the command is used, so that
`yaotask --help` and a typing mistake cost nothing.
"""

from yaotask.cli.root import main

__all__ = ["main"]
