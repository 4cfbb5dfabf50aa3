"""The inbox: what was asked of the ledger, from any thread, and no cycle has taken yet."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TypeVar

from yaotask.events import Delivery
from yaotask.jobs import Failed, Lost, RetryAfter, Succeeded
from yaotask.store.consumers import FailedDelivery
from yaotask.store.protocol import Add, Errand, Finish, Mailbox, Progress, Started
from yaotask.store.work import MOST_BYTES, MOST_ROWS

T = TypeVar("T")


class Inbox:
    """A queue for each kind of request: appended to from any thread, emptied on the ledger's. True while one waits."""

    def __init__(self) -> None:
        self.adds: deque[Add] = deque()
        self.errands: deque[Errand] = deque()
        self.finishes: deque[Finish] = deque()
        self.progress: deque[Progress] = deque()
        self.started: deque[Started] = deque()
        # What became of events, and could not be written.
        self.delivered: deque[Delivery] = deque()
        self.failed: deque[FailedDelivery] = deque()

    def __bool__(self) -> bool:
        told = self.progress or self.started or self.finishes or self.delivered or self.failed
        return bool(told or self.adds or self.errands)

    def collect(self, worker: int | None) -> Mailbox:
        """As much as one cycle should have, for this worker."""
        # Finishes first, progress after: what a job said before it ended is then always in the
        # mailbox with its end, never left for a cycle in which it is too late.
        finishes = _take_up_to(self.finishes, _outcome_size)
        progress = take(self.progress, len(self.progress))
        started = take(self.started, len(self.started))
        errands, adds = take(self.errands, MOST_ROWS), _take_up_to(self.adds, _add_size, _add_rows)
        delivered, failed = take(self.delivered, len(self.delivered)), take(self.failed, len(self.failed))
        entered = worker is not None
        return Mailbox(worker, entered, progress, started, finishes, errands, adds, delivered=delivered, failed=failed)

    def put_back(self, mailbox: Mailbox) -> None:
        """Keep a mailbox for a later cycle, but for its errands, whose askers have been answered."""
        self.adds.extendleft(reversed(mailbox.adds))
        self.finishes.extendleft(reversed(mailbox.finishes))
        self.progress.extendleft(reversed(mailbox.progress))
        self.started.extendleft(reversed(mailbox.started))
        self.delivered.extendleft(reversed(mailbox.delivered))
        self.failed.extendleft(reversed(mailbox.failed))


def take(requests: deque[T], most: int) -> list[T]:
    """The oldest requests. Others may append meanwhile: only what was there when we looked is taken."""
    return [requests.popleft() for _ in range(min(most, len(requests)))]


def _take_up_to(requests: deque[T], size: Callable[[T], int], rows: Callable[[T], int] = lambda request: 1) -> list[T]:
    """The oldest requests, until they have as many rows or bytes as one cycle should have."""
    taken: list[T] = []
    most, room = MOST_ROWS, MOST_BYTES
    while requests and most > 0 and room > 0:
        request = requests.popleft()
        taken.append(request)
        most -= rows(request)
        room -= size(request)
    return taken


def _outcome_size(finish: Finish) -> int:
    outcome = finish.outcome
    if type(outcome) is Succeeded:
        return len(outcome.result)
    if isinstance(outcome, RetryAfter | Failed | Lost):
        return len(outcome.failure.message) + len(outcome.failure.traceback or "")
    return 0


def _add_rows(add: Add) -> int:
    return len(add.jobs)


def _add_size(add: Add) -> int:
    return sum(len(job.args) + len(job.payload) for job in add.jobs)
