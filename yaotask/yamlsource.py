"""Definition and settings files: text to plain values, with the place of each key and value.

YAML is read by the core schema of YAML 1.2, not by PyYAML's own of 1.1, so that `on`, `no` and `22:30` are text and
`010` is ten. Nothing is built that a small file could blow up: no tags, no cycles, a bound on depth
and on the number of values after aliases are expanded.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any, NoReturn, Protocol

import yaml

from yaotask import jsonsource
from yaotask.marks import Marks
from yaotask.nodes import DEPTH, Fault, Node, Place, Scalar
from yaotask.nodes import Mapping as MappingNode
from yaotask.nodes import Sequence as SequenceNode
from yaotask.problems import Problem
from yaotask.treereader import TreeReader

BYTES = 256 * 1024
# Where PyYAML ends a line; editors that end them elsewhere show the fault in another place.
_YAML_LINE_END = re.compile("\r\n|[\r\n\x85\u2028\u2029]")


def read(
    text: str | bytes, file: str, json: bool = False, *, environ: Mapping[str, str] | None = None
) -> tuple[Any, Marks, list[Problem]]:
    """Read one document; with `json`, JSON with comments instead of YAML.

    `file` names it in problems. With `environ`, `${NAME}` in values is replaced: typed in plain
    scalars, text in quoted ones. The value is None where the text cannot be read at all, or holds
    nothing. A value at fault on its own is None in its place, and one of the problems.
    """
    marks = Marks(file)
    reader = TreeReader(marks, environ)
    try:
        text = _decoded(text)
        marks.lines.extend(jsonsource.lines(text) if json else _YAML_LINE_END.split(text))
        node = jsonsource.parse(text) if json else _compose(text)
        value = None if node is None else reader.value(node, (), DEPTH)
    except Fault as fault:
        place = fault.place if fault.place.line else None
        return None, marks, [*reader.problems, marks.problem_at(place, "", str(fault))]
    return value, marks, reader.problems


def read_file(
    path: FilePath, file: str, json: bool = False, *, environ: Mapping[str, str] | None = None
) -> tuple[Any, Marks, list[Problem]]:
    """Like `read`, from a file; one that cannot be read is a problem too."""
    try:
        if not path.is_file():  # a pipe would be waited for
            path.stat()
            return None, Marks(file), [Problem(file, 0, 0, "", "is not a regular file")]
        with path.open("rb") as stream:
            data = stream.read(BYTES + 1)
    except OSError as error:
        return None, Marks(file), [Problem(file, 0, 0, "", f"cannot be read: {error.strerror}")]
    return read(data, file, json, environ=environ)


def _decoded(text: str | bytes) -> str:
    data = text if isinstance(text, bytes) else text.encode(errors="surrogatepass")
    if len(data) > BYTES:
        raise Fault(Place(0, 0), f"is larger than {BYTES // 1024} KiB, the most a file may have")
    if data.startswith(b"\xef\xbb\xbf"):
        raise Fault(Place(1, 1), "begins with a byte order mark; save the file as UTF-8 without one")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        before = data[: error.start].decode()
        line = before.count("\n") + 1
        column = len(before) - before.rfind("\n")
        raise Fault(Place(line, column), "is not UTF-8 here; save the file as UTF-8") from None


# --- YAML ------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Open:
    """A collection whose end has not come yet; `key` waits for its value."""

    node: SequenceNode | MappingNode
    key: Scalar | None = None

    def add(self, node: Node) -> None:
        if isinstance(self.node, SequenceNode):
            self.node.items.append(node)
        elif self.key is not None:
            self.node.pairs.append((self.key, node))
            self.key = None
        elif isinstance(node, Scalar):
            self.key = node
        else:
            raise Fault(node.place, "a key must be text")


def _compose(text: str) -> Node | None:
    """The tree of a YAML document, aliases shared, None for an empty one; raises Fault."""
    composer = _Composer()
    try:
        # Events come from a loop, not from recursion: depth is bounded here, before anything recurses.
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            composer.take(event)
    except yaml.MarkedYAMLError as error:
        _refuse(error, text)
    except yaml.reader.ReaderError as error:
        before = _YAML_LINE_END.split(text[: error.position])
        raise Fault(
            Place(len(before), len(before[-1]) + 1), f"U+{error.character:04X} is not allowed in YAML"
        ) from None
    except (ValueError, OverflowError) as error:  # "\\UFFFFFFFF" reaches chr() unchecked
        raise Fault(Place(0, 0), f"is not YAML: {error}") from None
    return composer.root


class _Composer:
    """Builds nodes from PyYAML's events, refusing what definitions have no use for."""

    def __init__(self) -> None:
        self.root: Node | None = None
        self._open: list[_Open] = []
        self._anchors: dict[str, Node] = {}
        self._documents = 0

    def take(self, event: yaml.Event) -> None:
        place = _place(event.start_mark)
        match event:
            case yaml.DocumentStartEvent():
                self._documents += 1
                if self._documents > 1:
                    raise Fault(place, "a second document begins here; one document a file")
            case yaml.AliasEvent():
                self._add(self._aliased(event.anchor, place))
            case yaml.ScalarEvent():
                self._check_tag(event.tag, place)
                self._anchored(event.anchor, Scalar(event.value, plain=not event.style, place=place))
            case yaml.SequenceStartEvent() | yaml.MappingStartEvent():
                self._check_tag(event.tag, place)
                self._begin(event, place)
            case yaml.SequenceEndEvent() | yaml.MappingEndEvent():
                self._open.pop()

    def _begin(self, event: yaml.SequenceStartEvent | yaml.MappingStartEvent, place: Place) -> None:
        if len(self._open) >= DEPTH:
            raise Fault(place, f"nested more than {DEPTH} deep")
        node = SequenceNode(place) if isinstance(event, yaml.SequenceStartEvent) else MappingNode(place)
        self._anchored(event.anchor, node)
        self._open.append(_Open(node))

    def _anchored(self, anchor: str | None, node: Node) -> None:
        self._add(node)
        if anchor is not None:
            self._anchors[anchor] = node

    def _add(self, node: Node) -> None:
        if self._open:
            self._open[-1].add(node)
        else:
            self.root = node

    def _aliased(self, anchor: str | None, place: Place) -> Node:
        node = self._anchors.get(anchor or "")
        if node is None:
            raise Fault(place, f"there is no anchor &{anchor} before this; put text that begins with * in quotes")
        if any(node is collection.node for collection in self._open):
            raise Fault(place, f"*{anchor} is inside of what it stands for, which would never end")
        return node

    @staticmethod
    def _check_tag(tag: str | None, place: Place) -> None:
        if tag is not None:
            raise Fault(place, "tags such as !!str are not used here; remove it, and quote what shall be text")


class _Mark(Protocol):
    """A place as PyYAML counts, from 0; its two parsers have a class each for it."""

    @property
    def line(self) -> int: ...

    @property
    def column(self) -> int: ...


def _place(mark: _Mark | None) -> Place:
    return Place(mark.line + 1, mark.column + 1) if mark else Place(0, 0)


# What PyYAML says, and what to do about it.
_CURES = {
    "while scanning an alias": 'text that begins with * needs quotes, as in "* * * * *"',
    "while scanning an anchor": "text that begins with & needs quotes",
    "mapping values are not allowed here": "put text that holds a colon and a space in quotes, or mend the indentation",
    "found character '\\t' that cannot start any token": "use spaces to indent, not tabs",
    "found character '%' that cannot start any token": "text that begins with % needs quotes",
    "found character '@' that cannot start any token": "text that begins with @ needs quotes",
    "found character '`' that cannot start any token": "text that begins with ` needs quotes",
}


def _refuse(error: yaml.MarkedYAMLError, text: str) -> NoReturn:
    mark = error.problem_mark or error.context_mark
    place = _place(mark)
    cure = _CURES.get(error.problem or "") or _CURES.get(error.context or "")
    line = _YAML_LINE_END.split(text)[mark.line] if mark else ""
    if cure is None and "${" in line:
        cure = "inside [ ] and { }, put ${...} in quotes"
    said = f"is not YAML: {error.problem or error.context}"
    raise Fault(place, f"{said}; {cure}" if cure else said) from None
