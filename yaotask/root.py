"""Where a project is: the folder that a program or a shell means."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from yaotask import spelling
from yaotask.errors import NoProject
from yaotask.problems import Problem

FILE = "yaotask.yml"
FOLDER = "tasks"


def find_root(app: str | Path | None, environ: Mapping[str, str]) -> Path:
    """The project's folder, absolute: `app`, else YAOTASK_ROOT, else the nearest upward that looks like one.

    NoProject where there is no such folder, where nothing upward has `yaotask.yml` or `tasks/`, or where what is found
    above the current folder is somebody else's.
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
            root = _readable(folder)
            return root if folder == here else _trusted(root)
    message = f"neither this folder nor one above it has {FILE} or {FOLDER}/; make a project with: yaotask init"
    raise NoProject([Problem(str(here), 0, 0, "", message)])


def _trusted(root: Path) -> Path:
    """The folder, if nobody but the caller and root put there what makes it a project, and what that would run."""
    for path in (root, root / FILE, root / FOLDER, root / spelling.FOLDER):
        for owner in _owners(path):
            if owner not in (os.geteuid(), 0):
                message = (
                    f"belongs to {_name_of(owner)}, whose code would run as you: name the project if you trust it:"
                    " -a DIR or YAOTASK_ROOT"
                )
                raise NoProject([Problem(str(path), 0, 0, "", message)])
    return root


def _owners(path: Path) -> Iterator[int]:
    """Of what is there, and where that is a link of what it leads to."""
    with suppress(OSError):
        yield path.lstat().st_uid
        yield path.stat().st_uid


def _name_of(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return f"the user {user}"
