"""What a run of chaos left behind: the facts that its checker judges, and nothing else.

They come from four sides that know nothing of each other: the callers, the handlers and hooks, the database's
own triggers, and whoever made the faults. Moments are microseconds since 1970 by the clock of the machine of the run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

from yaotask.jobs import JobState


class JobId(NamedTuple):
    """A job as users name it."""

    task: str
    id: int

    def __str__(self) -> str:
        return f"{self.task}.{self.id}"


class Answer(StrEnum):
    """How a call ended, as in Jepsen's histories: whether it happened, and UNKNOWN where nobody can say."""

    OK = "ok"
    FAIL = "fail"
    UNKNOWN = "info"


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a caller. A caller that was killed in it, or heard OutcomeUnknown, cannot say whether it happened."""

    caller: str
    number: int
    operation: str
    """add, cancel, retry, or get."""
    began: int
    ended: int | None
    answer: Answer
    job: JobId | None = None
    """Of an add the job that was answered, of others the job that was asked about."""
    tag: str | None = None
    """What an add wrote into its job's arguments: no two adds have one, unless they repeat each other by their key."""
    key: str | None = None
    value: Mapping[str, Any] | None = None
    """What `get` answered."""
    error: str | None = None
    """The type of what was raised."""


class Doing(StrEnum):
    """What handlers and hooks note of themselves, each line synced before they go on."""

    START = "start"
    END = "end"
    PROGRESS = "progress"
    EVENT = "event"


@dataclass(frozen=True, slots=True)
class Note:
    """A line of a handler or a hook."""

    at: int
    node: str
    pid: int
    doing: Doing
    job: JobId
    tag: str | None = None
    generation: int | None = None
    attempt: int | None = None
    fence: int | None = None
    """Of events: not known to hooks."""
    event: str | None = None
    """The hook that was called: success, error, and so on."""
    seq: int | None = None
    """Progress: which report of the attempt it was, from 1."""


@dataclass(frozen=True, slots=True)
class Row:
    """A job's row, as a trigger saw it."""

    state: JobState
    generation: int
    attempt: int
    fence: int
    losses: int
    deaths: int
    worker: int | None
    cancel_at: int | None
    started_at: int | None
    finished_at: int | None
    result: str | None
    """The first hundred characters of it."""


@dataclass(frozen=True, slots=True)
class Change:
    """A committed change of a job's row, in the order of `seq` for each job; `before` is None for an add, `after` for
    a row that was removed.
    """

    seq: int
    at: int
    job: JobId
    before: Row | None
    after: Row | None


@dataclass(frozen=True, slots=True)
class Job:
    """A job in the store, once all was drained."""

    key: int
    job: JobId
    tag: str
    row: Row
    idempotency_key: str | None
    tries: Sequence[tuple[int, str]] = ()
    """Of each row in `attempts` its fence and outcome, by fence."""


@dataclass(frozen=True, slots=True)
class Event:
    """A row that was ever in the outbox, as its trigger saw it."""

    seq: int
    job: JobId
    event: str
    state: int
    """0 while it was to be delivered, 1 where it was given up."""
    generation: int
    """Of its job, as the event was written."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What was done to the run, from when to when, and to whom."""

    kind: str
    began: int
    ended: int
    target: str
    victims: Sequence[int] = ()
    """The keys of the workers in the store that died of it, where any did."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What a task of the run promises."""

    attempts: int
    losses: int
    worker_nums: int
    size: int
    timeout: int
    """Microseconds."""
    events: frozenset[str]
    is_ledgered: bool
    """Whether its handler writes into the ledger, in `job.transaction()`."""
    is_thread: bool
    """Whether a handler may outlive its timeout."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """The times of the run, in microseconds."""

    lease: int
    reap: int
    poll: int
    grace: int
    local: int
    """Within which a node takes back what its own dead worker had."""


@dataclass(frozen=True, slots=True)
class Facts:
    """All that is known of one run, after its end."""

    terms: Mapping[str, Terms]
    bounds: Bounds
    calls: Sequence[Call]
    notes: Sequence[Note]
    changes: Sequence[Change]
    events: Sequence[Event]
    faults: Sequence[Fault]
    jobs: Mapping[JobId, Job]
    workers: Mapping[int, str]
    """Each key of a worker that was ever in the store, with the name of its node."""
    ledger: Sequence[tuple[JobId, int]]
    """Job and fence of each row that a handler wrote in `job.transaction()`."""
    sizes: Mapping[str, int]
    """Of each task the number of waiting jobs that `size` goes by, at the end."""
    leftovers: Sequence[str] = field(default=())
    """Processes, files and connections that were still there when all had ended, in words."""
    was_drained: bool = True


@dataclass(frozen=True, slots=True)
class Violation:
    """A promise that was not kept."""

    invariant: str
    """I1 to I16."""
    what: str
    """For people, with the job and the fences."""
    job: JobId | None = None
