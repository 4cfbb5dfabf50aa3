"""What a run of chaos left behind: the facts that its checker judges, and nothing else.

They come from four sides that know nothing of each other: the callers, the handlers and hooks, the database's own
triggers, and whoever made the faults. Moments are microseconds since 1970, by the clock of the machine of the run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from yaotask.jobs import JobState

SECOND = 1_000_000

# The target of faults of the database server, which every node needs.
SERVER = "server"

# How a handler ended that raised nothing.
RETURNED = "returned"
# How a call ended, in the words of Jepsen's histories: it happened, it did not, nobody can say.
OK, FAIL, INFO = "ok", "fail", "info"


class JobId(NamedTuple):
    """A job as users name it."""

    task: str
    id: int

    def __str__(self) -> str:
        return f"{self.task}.{self.id}"


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a caller: INFO where it heard OutcomeUnknown, or was killed before it heard anything."""

    operation: str
    """add, cancel, retry, or get."""
    answer: str
    began: int
    ended: int | None
    job: JobId | None = None
    """Of an add the job that was answered, of others the job that was asked about."""
    tag: str | None = None
    """What an add writes into its job's arguments: only adds that repeat each other, with one key, share it."""
    key: str | None = None
    seen: Mapping[str, Any] | None = None
    """What `get` showed: its status, and which try it was."""
    error: str | None = None
    """The type of what was raised."""


@dataclass(frozen=True, slots=True)
class Note:
    """A line that a handler or a hook wrote of itself, outside the store."""

    at: int
    node: str
    pid: int
    what: str
    """start, end, or the name of the hook that was called."""
    job: JobId
    generation: int = 0
    fence: int = 0
    """0 where it was a hook, which is not told."""
    tag: str | None = None
    """Of a start the tag that the handler was given."""
    how: str | None = None
    """Of an end how the handler came to it: RETURNED, or the type of what it raised."""

    @property
    def is_of_hook(self) -> bool:
        return self.what not in ("start", "end")


class Row(NamedTuple):
    """What matters of a job's row."""

    state: JobState
    generation: int
    attempt: int
    fence: int
    losses: int
    deaths: int
    worker: int | None
    counted: int
    cancel_at: int | None
    started_at: int | None
    finished_at: int | None
    result: str | None
    message: str | None
    """Of its progress: handlers of the run say there which fence they have."""


class Change(NamedTuple):
    """A committed change of a job's row; those of one job are in the order of `seq`. `before` is None for an add."""

    seq: int
    at: int
    key: int
    before: Row | None
    after: Row


class Event(NamedTuple):
    """What was written into the outbox; in order for each job."""

    seq: int
    job: JobId
    hook: str
    given_up: bool
    pending: bool
    why: str = ""
    """What came of its calls so far, where it is still there."""


@dataclass(frozen=True, slots=True)
class Job:
    """A job in the store, once all was drained."""

    key: int
    id: JobId
    tag: str
    row: Row
    idempotency_key: str | None


class Worker(NamedTuple):
    """A process that was entered among the workers of the store."""

    key: int
    pid: int
    kind: str
    node: int | None
    at: int
    has_lock: bool
    """Whether it holds a lock that would prove its death; of any other its lease alone tells."""


class Lease(NamedTuple):
    """A lease of a process, when it was renewed, and its end; the first one begins with its entry."""

    worker: int
    at: int
    ends_at: int


@dataclass(frozen=True, slots=True)
class Fault:
    """What was done to the run, from when to when, and to which process or server."""

    kind: str
    began: int
    ended: int
    target: str
    killed: Sequence[int] = ()
    """The processes that were seen dead after it."""
    wrong: str = ""
    """What its target did about it that it must not do, in words."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What a task of the run promises; times in microseconds."""

    attempts: int
    worker_nums: int
    size: int
    timeout: int
    hooks: frozenset[str] = frozenset()
    is_ledgered: bool = False
    """Its handler writes a row of the ledger in `job.transaction()`."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """The times of the run's settings, in microseconds, and what they say of jobs that kill."""

    lease: int
    reap: int
    poll: int
    grace: int
    losses: int
    """Deaths that were the job's own, of which the last ends it."""
    deaths: int
    """Deaths of any kind, of which the last ends it."""


@dataclass(frozen=True, slots=True)
class Facts:
    """All that is known of one run after its end."""

    terms: Mapping[str, Terms]
    bounds: Bounds
    calls: Sequence[Call]
    notes: Sequence[Note]
    changes: Sequence[Change]
    events: Sequence[Event]
    faults: Sequence[Fault]
    jobs: Mapping[int, Job]
    """By their keys."""
    workers: Sequence[Worker]
    leases: Sequence[Lease]
    ledger: Sequence[tuple[JobId, int]]
    """Job and fence of each row that a handler wrote in `job.transaction()`."""
    waiting: Mapping[str, int]
    """Of each task the number that `size` goes by, at the end."""
    is_serial: bool
    """Whether changes of all jobs together are in the order of their commits, as where one writes at a time."""
    leftovers: Sequence[str] = ()
    """What was still there when all had ended, in words."""
    was_drained: bool = True


class Violation(NamedTuple):
    """A promise that was not kept."""

    invariant: str
    what: str
