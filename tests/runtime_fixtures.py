"""Fixtures of the runtime tests, taken in with `pytest_plugins = ["runtime_fixtures"]`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import runtime_support
from runtime_support import SETTINGS, StageApp
from server_fixtures import Database

from yaotask import App


@pytest.fixture
def stage(project: Callable[..., Path], database: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[StageApp]:
    """Opens a project of one task, `mail`, whose handler and hooks are functions of the test; closed after it.

    Keys of the definition are given by name.
    """
    apps: list[App] = []

    def place(name: str, function: Callable[..., Any]) -> str:
        monkeypatch.setattr(runtime_support, name, function, raising=False)
        return f"runtime_support.{name}"

    def open_it(
        handler: Callable[..., Any],
        *,
        hooks: Mapping[str, Callable[..., Any] | str] | None = None,
        settings: str = SETTINGS,
        **keys: Any,
    ) -> App:
        keys = {"name": "Mail", "process": place("handler", handler), **keys}
        if hooks:
            keys["event"] = {
                name: hook if isinstance(hook, str) else place(f"on_{name}", hook) for name, hook in hooks.items()
            }
        app = App(project(tasks={"mail": json.dumps(keys)}, settings=settings + database.setting))
        apps.append(app)
        assert not app.problems
        return app

    yield open_it
    for app in apps:
        app.close()
