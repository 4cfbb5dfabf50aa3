"""From outcomes to the rows that a cycle writes: plain JSON texts, made without touching a database."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from yaotask.events import CANCEL_BIT, ERROR_BIT, IGNORE_BIT, RETRY_BIT, SUCCESS_BIT, EventKind
from yaotask.jobs import (
    Cancelled,
    Claim,
    Failed,
    Failure,
    Ignored,
    Interrupted,
    JobState,
    Lost,
    RetryAfter,
    Succeeded,
)
from yaotask.store.dialects.base import Nest
from yaotask.store.protocol import Finish, NewJob
from yaotask.values import dumps

MINUTE = 60_000_000


def texts(rows: list[str]) -> str:
    """Rows that are JSON texts already, as one JSON array."""
    return "[" + ",".join(rows) + "]"


def new_job(job: NewJob, id: int, nest: Nest | None) -> str:
    """A row for insert_jobs."""
    args, payload = (job.args, job.payload) if nest is None else (nest(job.args), nest(job.payload))
    return f"[{id},{args},{payload}]"


def when(run_at: int | None, now: int, held: bool) -> dict[str, int | None]:
    """When a new job runs, is ready, or comes due; a held job is neither ready nor will be due."""
    at = now if run_at is None else run_at
    later = at > now
    return {"run_at": at, "ready_at": None if later or held else now, "due_at": at if later and not held else None}


def success(finish: Finish, nest: Nest | None) -> str:
    """A row for finish_success."""
    claim, outcome, started, ended = finish
    result: Any = outcome.result  # type: ignore[union-attr]
    if nest is not None:
        result = nest(result)
    return f"[{claim[0]},{claim[1]},{started},{ended},{result}]"


class Ending:
    """How an attempt that did not simply succeed changes its job, and what is told of it."""

    def __init__(self, finish: Finish, now: int) -> None:
        self.claim, self.outcome, self.started, self.ended = finish
        self.failure: Failure | None = None
        self.result: str | None = None
        self.run_at: int | None = None
        self.ready_at: int | None = self.claim.ready_at
        self.due_at: int | None = None
        match self.outcome:
            case RetryAfter(failure, after, at):
                self.state, self.word, self.failure = JobState.RETRYING, "retry", failure
                self._schedule(now if at is None and not after else at or now + after, now)
            case Failed(failure, result):
                self.state, self.word, self.failure, self.result = JobState.FAILURE, "failure", failure, result
            case Ignored(reason):
                self.state, self.word, self.failure = JobState.IGNORED, "ignored", Failure("Ignore", reason)
            case Cancelled():
                self.state, self.word = JobState.CANCELLED, "cancelled"
            case Lost(failure, poisoned=True):
                self.state, self.word, self.failure = JobState.FAILURE, "failure", failure
            case Lost(failure):
                self.state, self.word, self.failure = JobState.RETRYING, "lost", failure
                self._schedule(now, now)
            case Interrupted():
                fresh = self.claim.attempt == 1 and not self.claim.losses
                self.state, self.word = JobState.WAITING if fresh else JobState.RETRYING, "handed back"
            case Succeeded():
                raise TypeError("a success has a row of its own")

    def _schedule(self, run_at: int, now: int) -> None:
        held = bool(self.claim.events & RETRY_BIT)
        self.run_at = run_at
        self.ready_at = now if run_at <= now and not held else None
        self.due_at = run_at if run_at > now and not held else None

    @property
    def given_back(self) -> bool:
        return isinstance(self.outcome, Interrupted)

    @property
    def is_held(self) -> bool:
        """Whether the job goes on only once its event was tried."""
        return self.state is JobState.RETRYING and self.ready_at is None and self.due_at is None

    def row(self) -> list[Any]:
        """For finish_other."""
        failure, lost = self.failure, isinstance(self.outcome, Lost)
        # A loss does not count as a try, but one that ends the job was its last.
        untried = self.given_back or (lost and not self.state.is_terminal)
        return [
            self.claim.key,
            self.claim.fence,
            int(self.state),
            int(untried),
            None if self.given_back else self.started,
            self.ended,
            self.ended if self.state.is_terminal else None,
            self.run_at,
            self.ready_at,
            self.due_at,
            self.result,
            failure and failure.type,
            failure and failure.message,
            failure and failure.traceback,
            int(lost),
        ]

    def attempt_row(self) -> list[Any]:
        """For insert_attempts."""
        claim, failure = self.claim, self.failure
        return [
            claim.key,
            claim.fence,
            claim.generation,
            claim.attempt,
            self.word,
            self.started,
            self.ended,
            failure and failure.type,
            failure and failure.message,
            failure and failure.traceback,
        ]

    def event(self) -> tuple[EventKind, str] | None:
        """What hooks are told, where the job listens to it: the kind, and its data as JSON text."""
        match self.outcome:
            case RetryAfter(failure, after, at) if self.claim.events & RETRY_BIT:
                # As it was decided, not counted from when it happens to be written.
                wait = (after if at is None else max(0, at - self.ended)) // 1_000
                return EventKind.RETRY, dumps([told(failure), self.claim.attempt, wait])
            case Lost(failure, poisoned=False) if self.claim.events & RETRY_BIT:
                return EventKind.RETRY, dumps([told(failure), self.claim.attempt, 0])
            case Failed(failure) | Lost(failure, poisoned=True) if self.claim.events & ERROR_BIT:
                return EventKind.ERROR, dumps([told(failure)])
            case Ignored(reason) if self.claim.events & IGNORE_BIT:
                return EventKind.IGNORE, dumps([reason])
            case Cancelled() if self.claim.events & CANCEL_BIT:
                return EventKind.CANCEL, "[]"
            case _:
                return None


def told(failure: Failure) -> dict[str, Any]:
    """A failure as an event carries it to its hook."""
    return {"type": failure.type, "message": failure.message, "traceback": failure.traceback}


def event(key: int, task: str, id: int, kind: EventKind, data: str) -> list[Any]:
    """A row for insert_events."""
    return [key, task, id, int(kind), data]


def success_event(claim: Claim, result: Any) -> list[Any] | None:
    if not claim.events & SUCCESS_BIT:
        return None
    return event(claim.key, claim.task, claim.id, EventKind.SUCCESS, f"[{result}]")


class Tally:
    """What one cycle adds to the rollups."""

    def __init__(self) -> None:
        self._sums: defaultdict[tuple[str, int, int, int], list[int]] = defaultdict(lambda: [0, 0, 0])

    def __bool__(self) -> bool:
        return bool(self._sums)

    def copy(self) -> Tally:
        """As it is now."""
        copy = Tally()
        copy._sums.update((key, list(sums)) for key, sums in self._sums.items())
        return copy

    def count(self, claim: Any, state: int, started: int, ended: int) -> None:
        """One job more that ended: `claim` is a Claim, or a row with its task and ready_at."""
        run = ended - started
        sums = self._sums[claim.task, ended - ended % MINUTE, state, (max(run, 0) // 1_000).bit_length()]
        sums[0] += 1
        sums[1] += run
        sums[2] += started - claim.ready_at

    def cancelled(self, task: str, now: int) -> None:
        """One job more that was ended while it did not run."""
        self._sums[task, now - now % MINUTE, int(JobState.CANCELLED), 0][0] += 1

    def rows(self, shard: int) -> str:
        """For add_rollups."""
        # In one order everywhere, so that no two transactions wait for each other.
        return dumps([[*key, shard, *sums] for key, sums in sorted(self._sums.items())])
