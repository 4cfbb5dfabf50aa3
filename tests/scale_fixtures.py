"""Tests marked `scale` fill stores with millions of jobs: they run in CI, and where `--scale` asks for them."""

from __future__ import annotations

import os

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--scale", action="store_true", help="run what takes minutes and gigabytes too, as CI does")


def is_wanted(config: pytest.Config) -> bool:
    """Whether tests at scale run."""
    return bool(config.getoption("--scale")) or bool(os.environ.get("CI"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if is_wanted(config):
        return
    left_to_ci = pytest.mark.skip(reason="takes minutes and gigabytes: run it with pytest --scale")
    for item in items:
        if item.get_closest_marker("scale"):
            item.add_marker(left_to_ci)
