"""The fixture of the tests of the promised behaviours, taken in with `pytest_plugins = ["seed_fixtures"]`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from seed_support import SETTINGS, OpenApp, ShiftedClock, definition

from yaotask import App


@pytest.fixture
def open_app(project: Callable[..., Path]) -> Iterator[OpenApp]:
    """Opens a project of one task, `mail`, and one script, which is dedented; closed after the test."""
    apps: list[App] = []

    def open_it(script: str, *, clock: ShiftedClock | None = None, settings: str = SETTINGS, **keys: Any) -> App:
        root = project(tasks={"mail": definition(**keys)}, scripts={"mail": dedent(script)}, settings=settings)
        app = App(root, clock=clock)
        apps.append(app)
        assert not app.problems
        return app

    yield open_it
    for app in apps:
        app.close()
