"""What somebody who wrote an unknown name has probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that is most like this one, or None where none is like it.

    A word that differs in nothing but capitals wins over one that is spelled nearly the same.
    """
    by_lower = {other.lower(): other for other in known}
    close = difflib.get_close_matches(word.lower(), by_lower, n=1)
    return by_lower[close[0]] if close else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown word: `; did you mean "Send"?`, or nothing."""
    meant = nearest(word, known)
    return f'; did you mean "{meant}"?' if meant else ""
