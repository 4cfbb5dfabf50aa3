"""JSON with comments and trailing commas, as Yao writes its definitions, read to nodes with places."""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Iterator
from typing import NamedTuple

from yaotask.nodes import DEPTH, Fault, Mapping, Node, Place, Scalar, Sequence

_TOKEN = re.compile(
    r"""(?P<skip>[ \t\r\n]+|//[^\r\n]*|/\*.*?\*/)
      | (?P<text>"(?:[^"\\\r\n]|\\.)*")
      | (?P<mark>[\[\]{},:])
      | (?P<word>[^\s\[\]{},:"/]+)
      | (?P<open_text>"[^\r\n]*)
      | (?P<open_comment>/\*)
      | (?P<other>.)""",
    re.VERBOSE | re.DOTALL,
)
_LITERAL = re.compile(r"null|true|false|-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_LINE_END = re.compile(r"\r\n|\r|\n")
_UNREADABLE = {
    "open_text": "this text has no closing quote on its line",
    "open_comment": "this comment has no closing */",
    "other": "this is not JSON",
}


class _Token(NamedTuple):
    kind: str
    text: str
    place: Place


def parse(text: str) -> Node | None:
    """The tree of a JSON document, None for one that holds nothing but space; raises Fault."""
    tokens = _Tokens(text)
    if tokens.next.kind == "end":
        return None
    node = _value(tokens, DEPTH)
    if tokens.next.kind != "end":
        raise Fault(tokens.next.place, "expected the end of the file here: one value a file")
    return node


def lines(text: str) -> list[str]:
    """The lines of a JSON document."""
    return _LINE_END.split(text)


class _Tokens:
    """The tokens of a text, with one token of look-ahead in `next`."""

    def __init__(self, text: str) -> None:
        self._stream = _scan(text)
        self.next = next(self._stream)

    def take(self) -> _Token:
        token = self.next
        if token.kind != "end":
            self.next = next(self._stream)
        return token

    def skip(self, mark: str) -> bool:
        """Take this mark if it comes next."""
        if self.next.kind != "mark" or self.next.text != mark:
            return False
        self.take()
        return True


def _scan(text: str) -> Iterator[_Token]:
    starts = [0, *(match.end() for match in _LINE_END.finditer(text))]

    def place(offset: int) -> Place:
        line = bisect_right(starts, offset)
        return Place(line, offset - starts[line - 1] + 1)

    for match in _TOKEN.finditer(text):
        kind = match.lastgroup or "other"
        if kind in _UNREADABLE:
            raise Fault(place(match.start()), _UNREADABLE[kind])
        if kind != "skip":
            yield _Token(kind, match.group(), place(match.start()))
    yield _Token("end", "the end of the file", place(len(text)))


def _value(tokens: _Tokens, room: int) -> Node:
    token = tokens.take()
    if token.text in ("{", "["):
        if room == 0:
            raise Fault(token.place, f"nested more than {DEPTH} deep")
        return _mapping(tokens, token.place, room) if token.text == "{" else _sequence(tokens, token.place, room)
    if token.kind == "text":
        return _text(token)
    if _LITERAL.fullmatch(token.text):
        return Scalar(token.text, plain=True, place=token.place)
    if token.kind == "word":
        raise Fault(token.place, f"{token.text[:40]} is not a JSON value; text needs double quotes")
    raise Fault(token.place, f"expected a value here, got {token.text}")


def _sequence(tokens: _Tokens, place: Place, room: int) -> Sequence:
    node = Sequence(place)
    while not tokens.skip("]"):
        node.items.append(_value(tokens, room - 1))
        _comma(tokens, "]")
    return node


def _mapping(tokens: _Tokens, place: Place, room: int) -> Mapping:
    node = Mapping(place)
    while not tokens.skip("}"):
        token = tokens.take()
        if token.kind != "text":
            raise Fault(token.place, f"expected a key in double quotes here, got {token.text[:40]}")
        if not tokens.skip(":"):
            raise Fault(tokens.next.place, f'expected ":" after the key, got {tokens.next.text[:40]}')
        node.pairs.append((_text(token), _value(tokens, room - 1)))
        _comma(tokens, "}")
    return node


def _comma(tokens: _Tokens, close: str) -> None:
    follows = tokens.next
    if not tokens.skip(",") and (follows.kind != "mark" or follows.text != close):
        raise Fault(follows.place, f'expected "," or "{close}" here, got {follows.text[:40]}')


def _text(token: _Token) -> Scalar:
    try:
        return Scalar(json.loads(token.text), plain=False, place=token.place)
    except json.JSONDecodeError as error:
        place = token.place._replace(column=token.place.column + error.pos)
        # Python goes on with a place of its own after the " at".
        raise Fault(place, f"this text is not JSON: {error.msg.removesuffix(' at')}") from None
