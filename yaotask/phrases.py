"""Words for numbers, wherever people read them."""

from __future__ import annotations

from collections.abc import Sequence

# So many are named where there may be a thousand.
MOST_LISTED = 3


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """`1 job`, `2 jobs`, `1,234 jobs`; a `plural` that is not the noun and an s has to be given."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def listed(names: Sequence[str]) -> str:
    """`mail`, `mail, video`, `mail, page, video and 997 more`."""
    more = len(names) - MOST_LISTED
    return ", ".join(names[:MOST_LISTED]) + (f" and {more:,} more" if more > 0 else "")
