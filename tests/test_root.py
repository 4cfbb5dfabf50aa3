"""Where a project is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from yaotask.errors import NoProject
from yaotask.root import find_root

Project = Callable[..., Path]


def at(folder: Path) -> Callable[[], Path]:
    """This is where somebody stands."""
    return lambda: folder


def test_the_root_is_what_was_named_first(project: Project, tmp_path: Path) -> None:
    root, other = project(), tmp_path / "other"
    other.mkdir()

    assert find_root(root, {"YAOTASK_ROOT": str(other)}, at(tmp_path)) == root
    assert find_root(None, {"YAOTASK_ROOT": str(other)}, at(root)) == other
    assert find_root("other", {}, at(tmp_path)) == other


@pytest.mark.parametrize("sign", ["yaotask.yml", "tasks/"])
def test_else_it_is_the_nearest_folder_upward_that_looks_like_one(project: Project, tmp_path: Path, sign: str) -> None:
    root = project(settings="") if sign == "yaotask.yml" else project(tasks={"a": ""})
    below = root / "scripts" / "deep"
    below.mkdir(parents=True)

    assert find_root(None, {}, at(below)) == root
    assert find_root(None, {"YAOTASK_ROOT": ""}, at(root)) == root


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NoProject, match="there is no such folder; make one with: yaotask init DIR"):
        find_root("nowhere", {}, at(tmp_path))


def test_a_place_outside_of_any_project_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(NoProject, match="make a project with: yaotask init"):
        find_root(None, {}, at(tmp_path))


def deleted() -> Path:
    raise FileNotFoundError(2, "No such file or directory")


def test_where_the_current_folder_is_gone_a_project_with_a_full_name_is_found(project: Project) -> None:
    root = project()

    assert find_root(root, {}, deleted) == root
    assert find_root(None, {"YAOTASK_ROOT": str(root)}, deleted) == root


@pytest.mark.parametrize("named", [None, "other"])
def test_where_the_current_folder_is_gone_and_needed_that_is_said(named: str | None) -> None:
    with pytest.raises(NoProject, match=r"the current folder was deleted; .*: -a DIR or YAOTASK_ROOT"):
        find_root(named, {}, deleted)
