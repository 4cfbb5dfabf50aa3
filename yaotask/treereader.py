"""From the nodes of a file to plain values: what each means, where it stands, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from yaotask.marks import KEY, Marks, Path, show_path
from yaotask.nodes import DEPTH, Fault, Node, Place, Scalar
from yaotask.nodes import Mapping as MappingNode
from yaotask.nodes import Sequence as SequenceNode
from yaotask.problems import Problem
from yaotask.scalars import scalar, storable
from yaotask.variables import expand

NODES = 10_000


class TreeReader:
    """Turns nodes into values, noting places and collecting what is wrong with single values."""

    def __init__(self, marks: Marks, environ: Mapping[str, str] | None) -> None:
        self.problems: list[Problem] = []
        self._marks = marks
        self._environ = environ
        self._left = NODES

    def value(self, node: Node, path: Path, room: int) -> Any:
        """The value of a node that stands at `path`, with `room` for so many levels; Fault at the bounds."""
        self._marks.places[path] = node.place
        self._left -= 1
        if self._left < 0:
            raise Fault(node.place, f"holds more than {NODES:,} values, counting aliases as often as they are used")
        match node:
            case Scalar():
                return self._scalar(node, path)
            case _ if room == 0:
                raise Fault(node.place, f"nested more than {DEPTH} deep")
            case SequenceNode():
                return [self.value(item, (*path, index), room - 1) for index, item in enumerate(node.items)]
            case MappingNode():
                return self._mapping(node, path, room)

    def _mapping(self, node: MappingNode, path: Path, room: int) -> dict[str, Any]:
        members: dict[str, Any] = {}
        for key, member in node.pairs:
            name = self._key(key, path)
            if name is not None:
                members[name] = self.value(member, (*path, name), room - 1)
        return members

    def _key(self, key: Scalar, path: Path) -> str | None:
        """The key, its place noted; None, and a problem, where it cannot be one."""
        try:
            name = storable(key.text)
        except ValueError as error:
            self._report(key.place, path, f"a key here {error}")
            return None
        if first := self._marks.places.get((*path, name, KEY)):
            self._report(key.place, (*path, name), f"the key is here twice; the first is on line {first.line}")
            return None
        self._marks.places[(*path, name, KEY)] = key.place
        return name

    def _scalar(self, node: Scalar, path: Path) -> Any:
        try:
            text, used = node.text, False
            if self._environ is not None:
                text, used = expand(text, self._environ)
            if used:
                self._marks.secrets.add(path)
            text = storable(text)
            return scalar(text) if node.plain else text
        except ValueError as error:
            self._report(node.place, path, str(error))
            return None

    def _report(self, place: Place, path: Path, message: str) -> None:
        self.problems.append(self._marks.problem_at(place, show_path(path), message))
