"""How what is in a project's `scripts/` is called, where users read of it."""

from __future__ import annotations

import re

FOLDER = "scripts"
# What the packages begin with under which Python knows such a folder.
PACKAGE = "_yaotask_scripts_"
_PACKAGES = re.compile(rf"\b{PACKAGE}[0-9a-f]+")


def as_written(text: str) -> str:
    """A text in which modules of a project bear the names that its files use: `scripts.mail.Bounce`.

    For the names of classes, and for tracebacks, which end in one.
    """
    return _PACKAGES.sub(FOLDER, text)


def class_name(kind: type) -> str:
    """A class by the name that users know: `list`, `decimal.Decimal`, `scripts.mail.Bounce`."""
    if kind.__module__ == "builtins":
        return kind.__qualname__
    return as_written(f"{kind.__module__}.{kind.__qualname__}")
