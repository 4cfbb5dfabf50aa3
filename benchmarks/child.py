"""The process in which one measurement is made: `child.py MODULE FUNCTION ARGUMENTS`, answered as JSON."""

from __future__ import annotations

import importlib
import json
import sys


def main() -> None:
    module, function, arguments = sys.argv[1:]
    result = getattr(importlib.import_module(module), function)(**json.loads(arguments))
    json.dump(result, sys.stdout)


if __name__ == "__main__":
    main()
