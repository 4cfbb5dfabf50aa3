"""What the database answers to a statement, now or later."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any


class Answer:
    """What a statement answered, read to its end."""

    __slots__ = ("_names", "_rows", "rowcount")

    def __init__(self, rows: Sequence[Any], names: tuple[str, ...], rowcount: int) -> None:
        self._rows = rows
        self._names = names
        # How many rows were changed.
        self.rowcount = rowcount

    def all(self) -> list[Any]:
        """The rows; their columns are attributes."""
        return list(map(_row(self._names)._make, self._rows))

    def one_or_none(self) -> Any:
        """The only row, or None."""
        if len(self._rows) > 1:
            raise LookupError(f"{len(self._rows)} rows where one was expected")
        return next(iter(self.all()), None)

    def one(self) -> Any:
        """The only row. Raises LookupError where there is none or more."""
        row = self.one_or_none()
        if row is None:
            raise LookupError("no row where one was expected")
        return row

    def scalar(self) -> Any:
        """The first value, or None."""
        return self._rows[0][0] if self._rows else None

    def scalar_one(self) -> Any:
        """The first value of the only row. Raises LookupError where there is none or more."""
        return self.one()[0]


class Posted:
    """A question that may wait, and its answer once it has come."""

    __slots__ = ("_answer", "_read")

    def __init__(self, answer: Answer | None = None) -> None:
        self._answer = answer
        self._read: Callable[[], Answer] | None = None

    def comes_by(self, read: Callable[[], Answer]) -> None:
        """The answer is there, to be read so."""
        self._read = read

    @property
    def answer(self) -> Answer | None:
        """None as long as the question waits, and for good where it could not be sent, or nobody answered."""
        if self._answer is None and self._read is not None:
            self._answer = self._read()
        return self._answer


# The argument has a name for each column of a statement in this package, so that the cache stays small.
@cache
def _row(names: tuple[str, ...]) -> Any:
    return namedtuple("Row", names, rename=True)
