"""Finds in SQL text what would end a transaction: PostgreSQL has no hook that could forbid it.

Only statements that begin so can do it: inside a transaction block no function, DO or CALL may commit, and PREPARE
takes no such statement. Bodies of functions written as BEGIN ATOMIC … END are taken for endings too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from yaotask.store.dialects.server import first_ending

# Most statements hold none of these words and need no closer look.
_SUSPECT = re.compile(r"\b(?:commit|end|rollback|abort|prepare)\b", re.IGNORECASE)
_ENDING = re.compile(
    r"(?P<commit>commit|end|prepare\s+transaction)\b|(?P<rollback>rollback|abort)\b"
    r"(?!\s+(?:work\s+|transaction\s+)?to\b)",
    re.IGNORECASE,
)
# What a statement may hold that is not to be read as words; a comment may hold others, so that its end is counted.
_OPAQUE = re.compile(
    r"""
    (?P<line>--[^\n\r]*)
    | (?P<block>/\*)
    | (?P<dollar>(?<![\w$])\$(?P<tag>(?:[^\W\d]\w*)?)\$.*?(?:\$(?P=tag)\$|\Z))
    | (?P<escaped>(?<![\w$])[eE]'(?:[^'\\]|\\.|'')*(?:'|\Z))
    | (?P<text>'[^']*(?:'|\Z))
    | (?P<name>"[^"]*(?:"|\Z))
    | (?P<end>;)
    """,
    re.VERBOSE | re.DOTALL,
)
_OLD_TEXT = re.compile(r"'(?:[^'\\]|\\.|'')*(?:'|\Z)", re.DOTALL)
_BLOCK_EDGE = re.compile(r"/\*|\*/")


def ending_in(text: str, *, plain_backslashes: bool = True) -> str | None:
    """`commit` or `rollback` where a statement of this text ends the transaction; a savepoint's are not meant.

    `plain_backslashes` is the server's standard_conforming_strings.
    """
    if not _SUSPECT.search(text):
        return None
    return first_ending(_statements(text, plain_backslashes), _ENDING)


def _statements(text: str, plain_backslashes: bool) -> Iterator[str]:
    """Each statement of a text, its comments as spaces, its strings and quoted names as marks."""
    said: list[str] = []
    place = 0
    while opaque := _OPAQUE.search(text, place):
        said.append(text[place : opaque.start()])
        place = opaque.end()
        match opaque.lastgroup:
            case "end":
                yield "".join(said).strip()
                said.clear()
                continue
            case "block":
                place = _end_of_block(text, place)
                said.append(" ")
                continue
            case "line":
                said.append(" ")
                continue
            case "text" if not plain_backslashes:
                older = _OLD_TEXT.match(text, opaque.start())
                place = older.end() if older else place
        said.append('"')
    said.append(text[place:])
    yield "".join(said).strip()


def _end_of_block(text: str, place: int) -> int:
    depth = 1
    while depth:
        edge = _BLOCK_EDGE.search(text, place)
        if edge is None:
            return len(text)
        place = edge.end()
        depth += 1 if edge.group() == "/*" else -1
    return place
