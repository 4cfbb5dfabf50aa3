"""Finds the definition files of a project and gives each its id."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from yaotask.problems import Problem

FOLDER = "tasks"
# How each kind of file is read: as JSON with comments, or as YAML.
SUFFIXES = {".yml": False, ".yaml": False, ".json": True, ".jsonc": True, ".yao": True}
LONGEST_ID = 128
ID = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*")


@dataclass(frozen=True, slots=True)
class Source:
    """One definition file: the id it stands for, its path and name within the project, and its kind."""

    id: str
    path: Path
    name: str
    json: bool


def find(root: Path) -> tuple[list[Source], list[Problem]]:
    """The definition files below `tasks/`, and those that cannot be, by name.

    A missing folder has none. Hidden files, and files of other kinds, are not looked at. Where two files
    stand for one id, or for two that a file system or a reader may take for one, neither is used.
    """
    problems: list[Problem] = []
    sources = []
    for path in _walk(root, problems):
        name = path.relative_to(root).as_posix()
        sources.append(Source(id_of(name), path, name, SUFFIXES[path.suffix.lower()]))
    return _without_clashes([*_well_named(sources, problems)], problems), problems


def _walk(root: Path, problems: list[Problem]) -> Iterator[Path]:
    def note(path: str | Path, message: str) -> None:
        problems.append(Problem(_printable(Path(path).relative_to(root).as_posix()), 0, 0, "", message))

    def unreadable(error: OSError) -> None:
        note(error.filename, f"cannot be read: {error.strerror}")

    if not os.path.lexists(root / FOLDER):
        return
    for folder, below, files in os.walk(root / FOLDER, onerror=unreadable):
        below[:] = sorted(name for name in below if not name.startswith("."))
        for link in (path for name in below if (path := Path(folder, name)).is_symlink()):
            note(link, "is a link to a folder, which is not followed; put the folder itself here")
        for name in sorted(files):
            if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES:
                yield Path(folder, name)


def id_of(name: str) -> str:
    """The id that a file stands for: `tasks/media/video.task.yml` is media.video."""
    path = PurePosixPath(name).relative_to(FOLDER)
    stem = path.stem[: -len(".task")] if path.stem.endswith(".task") else path.stem
    return ".".join((*path.parts[:-1], stem))


def _well_named(sources: Iterable[Source], problems: list[Problem]) -> Iterator[Source]:
    for source in sources:
        if len(source.id) > LONGEST_ID:
            fault = f"stands for an id of {len(source.id)} characters; the most is {LONGEST_ID}"
        elif not ID.fullmatch(source.id):
            fault = (
                f'stands for the id "{_printable(source.id)}"; '
                'an id is letters A to Z, digits, "_" and "-", with single dots between'
            )
        else:
            yield source
            continue
        problems.append(Problem(_printable(source.name), 0, 0, "", fault))


def _without_clashes(sources: list[Source], problems: list[Problem]) -> list[Source]:
    groups: dict[str, list[Source]] = {}
    for source in sources:
        groups.setdefault(source.id.casefold(), []).append(source)
    for group in groups.values():
        for source in group if len(group) > 1 else ():
            others = [other for other in group if other is not source]
            problems.append(Problem(source.name, 0, 0, "", _clash(source, others)))
    return [group[0] for group in groups.values() if len(group) == 1]


def _clash(source: Source, others: list[Source]) -> str:
    names = " and ".join(other.name for other in others)
    if any(other.id == source.id for other in others):
        return f'stands for the id "{source.id}", and so does {names}; rename or remove one of them'
    return f'stands for the id "{source.id}", which differs from that of {names} in capitals alone; rename one of them'


def _printable(name: str) -> str:
    """A name in which what a terminal would not show as itself is escaped."""
    text = unicodedata.normalize("NFC", name)
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)
