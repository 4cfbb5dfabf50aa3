"""Where a project is."""

from __future__ import annotations

import os
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


# --- whose it is -------------------------------------------------------------------------------------

# The second has no name.
NOBODY, STRANGER = 65_534, 1_234_567

only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")


@pytest.fixture
def below(project: Project, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Somebody stands in a folder of a project, which has all that one may have."""
    root = project(tasks={"a": ""}, scripts={"b": ""}, settings="")
    (root / "below").mkdir()
    monkeypatch.chdir(root / "below")
    return root


def as_user(monkeypatch: pytest.MonkeyPatch, uid: int) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: uid)


@only_root
@pytest.mark.parametrize("name", [".", "yaotask.yml", "tasks", "scripts"])
@pytest.mark.parametrize("caller", [0, NOBODY])
def test_a_project_above_of_which_a_part_is_somebody_elses_is_refused(
    below: Path, monkeypatch: pytest.MonkeyPatch, name: str, caller: int
) -> None:
    os.chown(below / name, STRANGER, -1)
    as_user(monkeypatch, caller)
    with pytest.raises(NoProject) as refused:
        find_root(None, {})

    assert str(refused.value) == (
        f"{below / name}: belongs to the user {STRANGER}, whose code would run as you: name the project if you trust"
        " it: -a DIR or YAOTASK_ROOT"
    )


@only_root
def test_a_link_is_somebody_elses_whatever_it_leads_to(below: Path) -> None:
    (below / "tasks").rename(below / "real")
    (below / "tasks").symlink_to("real")
    os.chown(below / "tasks", NOBODY, -1, follow_symlinks=False)

    with pytest.raises(NoProject, match="tasks: belongs to nobody, whose code"):
        find_root(None, {})


@only_root
def test_what_a_link_leads_to_is_somebody_elses_whoever_made_the_link(below: Path) -> None:
    (below / "tasks").rename(below / "real")
    (below / "tasks").symlink_to("real")
    os.chown(below / "real", NOBODY, -1)

    with pytest.raises(NoProject, match="tasks: belongs to nobody, whose code"):
        find_root(None, {})


@only_root
def test_a_project_above_may_be_its_callers_and_roots(below: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.chown(below, STRANGER, -1)
    os.chown(below / "tasks", STRANGER, -1)
    as_user(monkeypatch, STRANGER)

    assert find_root(None, {}) == below


@only_root
def test_a_project_that_is_named_or_that_one_stands_in_may_be_anybodys(
    below: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.chown(below, STRANGER, -1)

    assert find_root(below, {}) == below
    assert find_root("..", {}) == below
    assert find_root(None, {"YAOTASK_ROOT": str(below)}) == below
    monkeypatch.chdir(below)
    assert find_root(None, {}) == below


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
