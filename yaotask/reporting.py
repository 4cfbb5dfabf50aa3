"""What a running job reports: to whom, and which numbers count."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

from yaotask.callbacks import Callbacks
from yaotask.errors import InvalidPayload
from yaotask.jobs import MAX_ID

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from yaotask.context import Job

ProgressHook = Callable[..., Any]

# The columns of steps have four bytes. What may be more, as bytes, is for `progress`.
MOST_STEPS = 2**31 - 1


class Desk(Protocol):
    """Where a job's words go; brought by whoever runs it."""

    def store(self, job: Job, changes: Mapping[str, Any]) -> None:
        """Keep these columns of the job, soon."""
        ...

    def announce(self, job: Job, progress: tuple[int, int | None, str | None]) -> None:
        """Call the progress hook."""
        ...

    def encode(self, value: Any) -> str:
        """A value as JSON text, within the limits of a result; raises ResultNotJson."""
        ...

    def text(self, message: str) -> str:
        """A message that can be stored, cut to its limit."""
        ...

    def transaction(self, job: Job) -> AbstractContextManager[Connection]:
        """See Job.transaction."""
        ...

    def alarm(self, job: Job, callbacks: Callbacks) -> None:
        """Call these soon, one after the other."""
        ...


def whole(name: str, number: object, most: int = MAX_ID) -> int:
    """A number of a progress report, rounded down; InvalidPayload for one that cannot be.

    The bits of `most` are all ones.
    """
    try:
        whole = int(number) if isinstance(number, (int, float)) else -1
    except (ValueError, OverflowError):  # NaN, infinity
        whole = -1
    if not 0 <= whole <= most:
        raise InvalidPayload(f"must be a number from 0 to 2**{most.bit_length()} - 1", f"$.{name}")
    return whole
