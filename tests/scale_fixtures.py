"""Tests that take minutes: those marked `scale` fill stores with millions of jobs, and run in CI, or with `--scale`.

Those marked `mutants` keep the whole machine busy. They run alone, with `--mutants`, for which CI has a step.
"""

from __future__ import annotations

import os

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--scale", action="store_true", help="run what takes minutes and gigabytes too, as CI does")
    parser.addoption(
        "--mutants", action="store_true", help="plant bugs and see that runs of chaos find them, only that"
    )


def is_wanted(config: pytest.Config) -> bool:
    """Whether tests at scale run."""
    return bool(config.getoption("--scale")) or bool(os.environ.get("CI"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    alone = [bool(item.get_closest_marker("mutants")) == config.getoption("--mutants") for item in items]
    config.hook.pytest_deselected(items=[item for item, kept in zip(items, alone, strict=True) if not kept])
    items[:] = [item for item, kept in zip(items, alone, strict=True) if kept]
    if is_wanted(config):
        return
    left_to_ci = pytest.mark.skip(reason="takes minutes and gigabytes: run it with pytest --scale")
    for item in items:
        if item.get_closest_marker("scale"):
            item.add_marker(left_to_ci)
