"""Where a project is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from yaotask.errors import NoProject
from yaotask.root import find_root

Project = Callable[..., Path]


def test_the_root_is_what_was_named_first(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, other = project(settings=""), tmp_path / "other"
    other.mkdir()
    monkeypatch.chdir(root)

    assert find_root(other, {"YAOTASK_ROOT": str(root)}) == other
    assert find_root(None, {"YAOTASK_ROOT": str(other)}) == other
    assert find_root("../other", {}) == other


@pytest.mark.parametrize("sign", ["yaotask.yml", "tasks/"])
def test_else_it_is_the_nearest_folder_upward_that_looks_like_one(
    project: Project, monkeypatch: pytest.MonkeyPatch, sign: str
) -> None:
    root = project(settings="") if sign == "yaotask.yml" else project(tasks={"a": ""})
    below = root / "scripts" / "deep"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)

    assert find_root(None, {}) == root
    assert find_root(None, {"YAOTASK_ROOT": ""}) == root


def test_a_folder_that_is_not_there_is_refused() -> None:
    with pytest.raises(NoProject, match="there is no such folder; make one with: yaotask init DIR"):
        find_root("nowhere", {})


def test_a_place_outside_of_any_project_says_how_to_make_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NoProject, match="make a project with: yaotask init"):
        find_root(None, {})


@pytest.fixture
def deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody stands in a folder that is not there any more."""
    (tmp_path / "deleted").mkdir()
    monkeypatch.chdir(tmp_path / "deleted")
    (tmp_path / "deleted").rmdir()


@pytest.mark.usefixtures("deleted")
def test_where_the_current_folder_is_gone_a_project_with_a_full_name_is_found(project: Project) -> None:
    root = project()

    assert find_root(root, {}) == root
    assert find_root(None, {"YAOTASK_ROOT": str(root)}) == root


@pytest.mark.usefixtures("deleted")
@pytest.mark.parametrize("named", [None, "other"])
def test_where_the_current_folder_is_gone_and_needed_that_is_said(named: str | None) -> None:
    with pytest.raises(NoProject, match=r"the current folder was deleted; .*: -a DIR or YAOTASK_ROOT"):
        find_root(named, {})
