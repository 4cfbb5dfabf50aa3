"""The fixture of the tests of `yaotask run`, taken in with `pytest_plugins = ["run_fixtures"]`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from run_support import TASK, WITNESS


@pytest.fixture
def hold(project: Callable[..., Path]) -> Callable[..., Path]:
    """Makes a project of one task, `hold`, with this script."""

    def make(script: str, settings: str | None = None, task: str = TASK) -> Path:
        return project(tasks={"hold": task}, scripts={"hold": script, "witness": WITNESS}, settings=settings)

    return make
