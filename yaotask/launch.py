"""How our programs are imported: in about four fifths of the time, because nobody looks for garbage meanwhile.

What is imported stays, so that Python's collector would go through it again and again, and find nothing.
`python -m yaotask.launch PROGRAM` is how a node starts its processes.
"""

import gc
import importlib
import sys
from types import ModuleType

from yaotask import requests


def load(name: str) -> ModuleType:
    """A module of ours with all that it needs."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        return importlib.import_module(name)
    finally:
        if was_enabled:
            gc.enable()


if __name__ == "__main__":
    # While all that is imported, too: the supervisor hears of it, and says to its processes what to do.
    requests.outlive()
    requests.hear()
    program = load(sys.argv[1])
    # Nor need anybody look through it later.
    gc.freeze()
    sys.exit(program.main(sys.argv[2:]))
