"""Where a project is: the folder that a program or a shell means."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from yaotask.errors import NoProject
from yaotask.problems import Problem

FILE = "yaotask.yml"
FOLDER = "tasks"


def find_root(app: str | Path | None, environ: Mapping[str, str]) -> Path:
    """The project's folder, absolute: `app`, else YAOTASK_ROOT, else the nearest upward that looks like one.

    NoProject where there is no such folder, or where nothing upward has `yaotask.yml` or `tasks/`.
    """
    named = app or environ.get("YAOTASK_ROOT")
    if named and Path(named).is_absolute():
        return _existing(Path(named), named)
    try:
        here = Path.cwd().resolve()
    except FileNotFoundError as error:
        message = "the current folder was deleted; go to one that is there, or name the project: -a DIR or YAOTASK_ROOT"
        raise NoProject([Problem(str(named or "."), 0, 0, "", message)]) from error
    return _existing(here / named, named) if named else _nearest(here)


def _existing(root: Path, named: str | Path) -> Path:
    if root.is_dir():
        return _readable(root.resolve())
    raise NoProject([Problem(str(named), 0, 0, "", "there is no such folder; make one with: yaotask init DIR")])


def _readable(root: Path) -> Path:
    """The folder, if its name is text, which the store and messages need."""
    try:
        str(root).encode()
    except UnicodeEncodeError as error:
        message = "the name of the folder is no text here; rename it, or set a locale that can read it: LANG=C.UTF-8"
        raise NoProject([Problem(ascii(str(root)), 0, 0, "", message)]) from error
    return root


def _nearest(here: Path) -> Path:
    for folder in (here, *here.parents):
        if (folder / FILE).is_file() or (folder / FOLDER).is_dir():
            return _readable(folder)
    message = f"neither this folder nor one above it has {FILE} or {FOLDER}/; make a project with: yaotask init"
    raise NoProject([Problem(str(here), 0, 0, "", message)])
