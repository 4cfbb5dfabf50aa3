"""Where the keys and values of a file stand, so that whoever finds a fault can point at it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from yaotask.nodes import Place
from yaotask.problems import Problem

# A line longer than this says more about the file than about the fault.
WIDEST_SNIPPET = 200


class _Key:
    """Marks a path as that of a key instead of its value."""

    def __repr__(self) -> str:
        return "KEY"


KEY: Final = _Key()
Path = tuple[str | int | _Key, ...]


@dataclass(frozen=True, slots=True)
class Marks:
    """Where the keys and values of one file stand, and which values came from the environment.

    `places[("event", "add")]` is the place of a value, `places[("event", "add", KEY)]` of its key.
    """

    file: str
    lines: list[str] = field(default_factory=list, repr=False)
    places: dict[Path, Place] = field(default_factory=dict, repr=False)
    secrets: set[Path] = field(default_factory=set)

    def problem(self, path: Path, message: str, *, name: str | None = None) -> Problem:
        """A problem at the nearest place known: the path's, its parent's, or the file as a whole.

        It is named after the path unless `name` says otherwise.
        """
        known = path
        while known and known not in self.places:
            known = known[:-1]
        place = self.places.get(known) if known else None
        return self.problem_at(place, show_path(path) if name is None else name, message)

    def problem_at(self, place: Place | None, name: str, message: str) -> Problem:
        """A problem at a place, with the line that stands there; None is the file as a whole."""
        if place is None:
            return Problem(self.file, 0, 0, name, message)
        line = self.lines[place.line - 1] if place.line <= len(self.lines) else ""
        return Problem(self.file, *place, name, message, snippet=line if 0 < len(line) <= WIDEST_SNIPPET else None)


def show_path(path: Path) -> str:
    """A path as users write it: `event.add`, `fail_on[0]`."""
    text = ""
    for name in path:
        if isinstance(name, int):
            text += f"[{name}]"
        elif isinstance(name, str):
            text += f".{name[:60]}" if text else name[:60]
    return text
