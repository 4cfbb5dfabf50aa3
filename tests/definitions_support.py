"""Loading the definitions of a test's project, and saying briefly what is wrong with them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from yaotask.definitions.catalog import Catalog
from yaotask.definitions.loader import load
from yaotask.problems import Problem, sort
from yaotask.settings import load_settings

# The two keys without which there is no definition.
TASK = "name: Mail\nprocess: scripts.mail.Send\n"


def catalog(root: Path, environ: Mapping[str, str] | None = None) -> Catalog:
    """The definitions of a project; its settings must be good, or be about `defaults`."""
    settings, _ = load_settings(root, environ or {})
    return load(root, settings, environ or {})


def all_problems(root: Path, environ: Mapping[str, str] | None = None) -> list[str]:
    """Each problem of settings and definitions on a line."""
    settings, found = load_settings(root, environ or {})
    return lines(sort([*found, *load(root, settings, environ or {}).problems]))


def lines(problems: list[Problem]) -> list[str]:
    return [str(problem) for problem in problems]
