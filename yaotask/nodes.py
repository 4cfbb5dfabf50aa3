"""What YAML and JSON files are read into before they are values: text with its place, nothing decided."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

# Deeper files are mistakes or attacks.
DEPTH = 32


class Place(NamedTuple):
    """Where something stands in a file: line and column, both from 1."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Scalar:
    """A piece of text; `plain` says that it was written without quotes, so that it may mean a number."""

    text: str
    plain: bool
    place: Place


@dataclass(frozen=True, slots=True)
class Sequence:
    """A list of nodes."""

    place: Place
    items: list[Node] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Mapping:
    """Keys and their nodes, in the order of the file; a key may still be there twice."""

    place: Place
    pairs: list[tuple[Scalar, Node]] = field(default_factory=list)


Node = Scalar | Sequence | Mapping


class Fault(Exception):
    """Text that cannot be read any further, and where."""

    def __init__(self, place: Place, message: str) -> None:
        super().__init__(message)
        self.place = place
