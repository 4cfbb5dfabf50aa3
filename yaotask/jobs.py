"""The words of a job's life: its states, the claim of one attempt, and how an attempt ends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple


class JobState(IntEnum):
    """The states as the store holds them."""

    WAITING = 0
    RUNNING = 1
    SUCCESS = 2
    FAILURE = 3
    RETRYING = 5
    CANCELLED = 6
    IGNORED = 7

    @property
    def is_terminal(self) -> bool:
        return self in TERMINAL


KNOWN = frozenset(JobState)
TERMINAL = frozenset({JobState.SUCCESS, JobState.FAILURE, JobState.CANCELLED, JobState.IGNORED})


def name_of(state: int) -> str:
    """The name of a state as the store holds it: of what is none, UNKNOWN with its number."""
    return JobState(state).name if state in KNOWN else f"UNKNOWN {state}"


# The largest integer that every reader of JSON keeps exactly (RFC 8259 section 6).
MAX_ID = 2**53 - 1

# What users may write for a status, besides its own name.
STATUS_WORDS = {
    "pending": "WAITING",
    "0": "WAITING",
    "processing": "RUNNING",
    "running": "RUNNING",
    "1": "RUNNING",
    "completed": "SUCCESS",
    "2": "SUCCESS",
    "failed": "FAILURE",
    "3": "FAILURE",
    "partial": "PARTIAL",
    "4": "PARTIAL",
}
STATUSES = (*(state.name for state in JobState), "PARTIAL")


class Claim(NamedTuple):
    """The right to one attempt of a job, good while `fence` is the job's current one.

    Times are microseconds since 1970, `timeout` is milliseconds. `attempt` counts this try from 1,
    `attempts` is how many retries the job may have; it and `timeout` are None where the definition's
    count. A named tuple, because thousands of these are made each second.
    """

    key: int
    fence: int
    id: int
    task: str
    generation: int
    attempt: int
    attempts: int | None
    losses: int
    timeout: int | None
    events: int
    ready_at: int
    claimed_at: int
    args: list[Any]
    payload: dict[str, Any]
    created_by: str | None
    extra: Any

    @property
    def name(self) -> str:
        """The job as users write it: `mail.12`."""
        return f"{self.task}.{self.id}"


@dataclass(frozen=True, slots=True)
class Failure:
    """What went wrong in a try, as it is stored: text only, never the exception itself."""

    type: str
    message: str
    traceback: str | None = None

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True, slots=True)
class Succeeded:
    """The handler returned; `result` is JSON text."""

    result: str


@dataclass(frozen=True, slots=True)
class RetryAfter:
    """The try failed and another follows, `after` microseconds from now or `at` an instant."""

    failure: Failure
    after: int
    at: int | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """The job has failed for good; `result` is JSON text where the handler gave one along."""

    failure: Failure
    result: str | None = None


@dataclass(frozen=True, slots=True)
class Ignored:
    """There was nothing to do."""

    reason: str


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The attempt ended because its cancellation was asked for."""


@dataclass(frozen=True, slots=True)
class Lost:
    """The process that the attempt had to itself has died (T7): no try, but a loss. `poisoned`: once too often."""

    failure: Failure
    poisoned: bool = False


@dataclass(frozen=True, slots=True)
class Interrupted:
    """The attempt was given back unfinished (T10); it does not count."""


Outcome = Succeeded | RetryAfter | Failed | Ignored | Cancelled | Lost | Interrupted

# How a run sums up its attempts, in this order.
OUTCOME_WORDS: Mapping[type, str] = {
    Succeeded: "succeeded",
    Failed: "failed",
    Ignored: "ignored",
    Cancelled: "cancelled",
    RetryAfter: "retried",
    Lost: "lost",
    Interrupted: "handed back",
}
