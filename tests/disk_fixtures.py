"""Fixtures of disks that are not to be trusted, taken in with `pytest_plugins = ["disk_fixtures"]`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from disk_support import SCRIPTS, TASKS, Disk
from preloading import compiled

SEED = 1


@pytest.fixture
def disk(project: Callable[..., Path], tmp_path: Path) -> Disk:
    return Disk(project(tasks=TASKS, scripts=SCRIPTS), tmp_path / "disk", SEED)


@pytest.fixture
def powerloss(tmp_path: Path) -> Path:
    return compiled("powerloss", tmp_path)


@pytest.fixture
def failing_sync(tmp_path: Path) -> Path:
    return compiled("failing_sync", tmp_path)
