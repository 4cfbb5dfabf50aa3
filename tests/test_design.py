"""The map of the package, for those who want to change it, names what is there."""

from __future__ import annotations

import re
from pathlib import Path

import yaotask

PACKAGE = Path(yaotask.__file__).parent
DESIGN = PACKAGE.parent / "docs" / "design.md"

# Packages that the map names as a whole.
WHOLE = {"check", "cli", "definitions", "doctor", "observers", "dialects", "moving", "project", "templates"}


def modules() -> set[str]:
    """The modules of all other packages, by the names of their files."""
    files = (path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))
    return {file.name for file in files if not WHOLE & set(file.parts) and not file.name.startswith("__")}


def test_the_map_names_each_module_once_and_no_other() -> None:
    _, _, after = DESIGN.read_text(encoding="utf-8").partition("## Where things are")
    shown, _, _ = after.partition("\n## ")
    named = re.findall(r"\b\w+\.py\b", shown)

    assert sorted(named) == sorted(modules())
