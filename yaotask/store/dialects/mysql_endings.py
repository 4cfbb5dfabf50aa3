"""Finds in SQL text what would end a transaction: MySQL has no hook that could forbid it.

Nearly every statement that defines something commits whatever is under way. What a procedure or a compound statement
does is not seen here, only afterwards, by the guard.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from yaotask.store.dialects.server import first_ending

# Most statements hold none of these words and need no closer look.
_SUSPECT = re.compile(
    r"\b(?:commit|rollback|begin|start|xa|autocommit|alter|create|drop|rename|truncate|grant|revoke|lock|unlock|analyze"
    r"|check|optimize|repair|flush|reset|change|stop|install|uninstall|import|password|cache|load)\b",
    re.IGNORECASE,
)
_ENDING = re.compile(
    r"""
    (?P<rollback>rollback\b(?!\s+(?:work\s+)?to\b))
    | (?P<commit>commit\b | begin\b | start\s+transaction\b | xa\b | set\b.*\bautocommit\b)
    | (?P<definition>
        (?:alter|rename|truncate|grant|revoke|lock|unlock|optimize|repair|flush|reset|change|stop|install|uninstall
            |import)\b
        | (?:create|drop)\b(?!\s+temporary\b)
        | (?:analyze|check)\s+(?:\w+\s+)?tables?\b
        | start\s+(?:all\s+)?(?:slaves?|replicas?|group_replication)\b
        | (?:cache|load)\s+index\b
        | set\s+(?:default\s+role|password)\b)
    """,
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)
# What a statement may hold that is not to be read as words. A comment with an exclamation mark is read by the server.
_OPAQUE = re.compile(
    r"""
    (?P<comment>--(?=[\s\x00-\x1f]|\Z)[^\n]* | \#[^\n]* | /\*(?!M?!).*?(?:\*/|\Z))
    | (?P<read>/\*M?!\d* | \*/)
    | (?P<text>'(?:[^'\\]|\\.|'')*(?:'|\Z) | "(?:[^"\\]|\\.|"")*(?:"|\Z) | `[^`]*(?:`|\Z))
    | (?P<end>;)
    """,
    re.VERBOSE | re.DOTALL,
)
_PLAIN_TEXT = re.compile(r"'[^']*(?:'|\Z)|\"[^\"]*(?:\"|\Z)|`[^`]*(?:`|\Z)", re.DOTALL)


def ending_in(text: str, *, plain_backslashes: bool = False) -> str | None:
    """`commit`, `rollback` or `definition` where a statement of this text ends the transaction.

    A savepoint's end is not meant. `plain_backslashes` is the session's NO_BACKSLASH_ESCAPES.
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
            case "text":
                plain = _PLAIN_TEXT.match(text, opaque.start()) if plain_backslashes else None
                place = plain.end() if plain else place
                said.append("?")
            case _:
                said.append(" ")
    said.append(text[place:])
    yield "".join(said).strip()
