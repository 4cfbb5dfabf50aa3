"""Fixtures of the tests of child processes, taken in with `pytest_plugins = ["children_fixtures"]`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from children_support import children
from runtime_support import SETTINGS

from yaotask import App


@pytest.fixture
def apart(
    project: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., App]]:
    """Opens a project of one task, `mail`, whose handler is `Send` of the given script, run in child processes.

    Keys of the definition are given by name. The project is the current folder. No child may be left in the end.
    """
    apps: list[App] = []

    def open_it(script: str, *, settings: str = "", **keys: Any) -> App:
        definition = {"name": "Mail", "process": "scripts.mail.Send", "executor": "process", **keys}
        root = project(
            tasks={"mail": json.dumps(definition)}, scripts={"mail": script}, settings=f"{SETTINGS}{settings}\n"
        )
        monkeypatch.chdir(root)
        apps.append(App(root))
        assert not apps[-1].problems
        return apps[-1]

    yield open_it
    for app in apps:
        app.close()
    assert children() == []
