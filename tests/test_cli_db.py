"""`yaotask db`: the store as its owner sees it, and what is said where it cannot be used."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_support import Run

from yaotask import App

pytest_plugins = ["cli_fixtures"]

TASK = "name: Mail\nprocess: scripts.mail.Send\n"


@pytest.fixture
def root(project: Callable[..., Path]) -> Path:
    root = project(tasks={"mail": TASK})
    with App(root) as app:
        app.tasks["mail"].add()
    return root


def test_status_tells_where_the_store_is_and_what_is_in_it(root: Path, run: Run) -> None:
    status, out, err = run("db", "status", "-a", root)
    shown = dict(line.split(":", 1) for line in out.splitlines())

    assert (status, err) == (0, "")
    assert shown["store"].strip() == f"sqlite:///{root}/.yaotask/yaotask.db"
    assert shown["jobs"].strip() == "WAITING: 1"
    assert shown["schema"].strip() == shown["current schema"].strip()


def test_status_as_json_is_for_programs(root: Path, run: Run) -> None:
    facts = json.loads(run("db", "status", "-a", root, "--json").out)

    assert facts["jobs"] == {"WAITING": 1}
    assert facts["schema"] == facts["current_schema"]


def test_upgrade_leaves_a_store_that_is_current_as_it_is(root: Path, run: Run) -> None:
    before = run("db", "status", "-a", root, "--json").out

    assert run("db", "upgrade", "-a", root, "--json") == (0, before, "")


@pytest.mark.parametrize("command", [("db", "status"), ("list",), ("get", "mail.1"), ("add", "mail")])
def test_a_store_that_is_no_store_ends_every_command_with_four(root: Path, run: Run, command: tuple[str, ...]) -> None:
    (root / ".yaotask" / "yaotask.db").write_bytes(b"this is a letter, not a database" * 100)
    ended = run(*command, "-a", root)

    assert (ended.status, ended.out) == (4, "")
    assert ".yaotask/yaotask.db" in ended.err


@pytest.mark.parametrize(
    "command", [("db", "status"), ("db", "upgrade"), ("list",), ("get", "mail.1"), ("add", "mail"), ("run",)]
)
def test_a_fault_in_the_settings_ends_every_command_with_three(
    project: Callable[..., Path], run: Run, command: tuple[str, ...]
) -> None:
    root = project(tasks={"mail": TASK}, settings="store: 5\n")
    ended = run(*command, "-a", root)

    assert (ended.status, ended.out) == (3, "")
    assert ended.err.startswith("yaotask.yml:1:8: store: ")
    assert not (root / ".yaotask").exists()


def test_a_command_without_a_project_says_how_to_make_one(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = run("list")

    assert (ended.status, ended.out) == (3, "")
    assert "make a project with: yaotask init" in ended.err
