"""The words in which the rest of yaotask asks a store, and is answered."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, TypeVar, overload

from yaotask.errors import OutcomeUnknown
from yaotask.events import Delivery
from yaotask.jobs import Claim, JobState, Outcome
from yaotask.store.consumers import FailedDelivery
from yaotask.values import loads

T = TypeVar("T")


class Terms(NamedTuple):
    """What an add says of a job besides its arguments.

    `run_at` None means now; `attempts` and `timeout` (ms) None mean the definition's.
    """

    priority: int = 0
    attempts: int | None = None
    timeout: int | None = None
    created_by: str | None = None
    key: str | None = None
    run_at: int | None = None


NO_TERMS = Terms()


class NewJob(NamedTuple):
    """A job to be stored. `args`, `payload` are JSON text; `id` None means the next one of its task."""

    args: str
    payload: str
    terms: Terms = NO_TERMS
    id: int | None = None


class Finish(NamedTuple):
    """How an attempt ended; `started` and `ended` are microseconds since 1970."""

    claim: Claim
    outcome: Outcome
    started: int
    ended: int


class Started(NamedTuple):
    """A claim whose handler is running, to be shown as RUNNING."""

    key: int
    fence: int
    started: int


class Progress(NamedTuple):
    """What a job says of itself while it runs; None leaves what was stored.

    `fence` None comes from outside the handler and is held against nothing but RUNNING.
    `changes` holds columns of the job by name.
    """

    key: int
    fence: int | None
    started: int | None
    changes: dict[str, Any]


@dataclass(slots=True, eq=False)
class Ticket:
    """Where the answer to one request is left; `settle` tells whoever waits, once."""

    value: Any = None
    error: BaseException | None = None
    settle: Callable[[], None] | None = None

    def resolve(self, value: Any) -> None:
        self.value = value
        self._done()

    def reject(self, error: BaseException) -> None:
        self.error = error
        self._done()

    def _done(self) -> None:
        settle, self.settle = self.settle, None
        if settle is not None:
            settle()


@dataclass(slots=True, eq=False)
class Commit:
    """One that got no answer. `at` is the one time of all that it wrote; `landed`, and it was seen to be stored."""

    at: int
    landed: bool = False


class Doubt(NamedTuple):
    """An add of which nobody has learned whether it was stored: `error` says so. Worth another try until `deadline`.

    `jobs` are as they were asked for: those of the add have the ids since under which they may be stored. `tries` has
    each commit that may have stored any of them, and the ids of those, in order.
    """

    error: OutcomeUnknown
    deadline: float
    jobs: list[NewJob]
    tries: tuple[tuple[Commit, Sequence[int]], ...]


@dataclass(slots=True, eq=False)
class Add:
    """Jobs of one task to be stored together. `size` bounds how many may wait; None does not.

    Its ticket gets the list of ids, or QueueFull (with the ids that were stored), DuplicateJobId, and OutcomeUnknown
    where it had a `doubt`, so that it may be stored already, for too long.
    """

    task: str
    jobs: list[NewJob]
    size: int | None
    events: int
    ticket: Ticket
    stored: list[int] = field(default_factory=list)
    doubt: Doubt | None = None

    def refuse(self, error: BaseException) -> None:
        """Answer that it is not stored; or, where that may be untrue, that nobody knows."""
        self.ticket.reject(error if self.doubt is None else self.doubt.error)


@dataclass(slots=True, eq=False)
class Errand:
    """A rare request: `run` is called inside the cycle's transaction, its answer goes to the ticket."""

    run: Callable[[Cycle], Any]
    ticket: Ticket


@dataclass(frozen=True, slots=True)
class Held:
    """What somebody else's open transaction keeps from us: `jobs` by their keys, `requests` that came across such a
    row or key, or may be stored still by a commit on its way, and with `settling` all that became of events.
    """

    jobs: frozenset[int] = frozenset()
    requests: frozenset[Add | Errand] = frozenset()
    settling: bool = False

    def __bool__(self) -> bool:
        return bool(self.jobs or self.requests or self.settling)


@dataclass(slots=True, eq=False)
class Mailbox:
    """All that came in since the last cycle, and what may be claimed in this one.

    `delivered` and `failed` are what became of events, of the failed with an error and the time of the next try.
    `others` says that another process may have added jobs that are to be counted, `due` that the time of a future
    job has come. With `entered` the worker claims nothing unless it is still among the workers of the store. A
    `hurried` one waits for nothing that somebody else's open transaction has. Of new jobs of the tasks that
    `others_run` these are told with the commit, where they can be.
    """

    worker: int | None = None
    entered: bool = False
    progress: list[Progress] = field(default_factory=list)
    started: list[Started] = field(default_factory=list)
    finishes: list[Finish] = field(default_factory=list)
    errands: list[Errand] = field(default_factory=list)
    adds: list[Add] = field(default_factory=list)
    demands: dict[str, int] = field(default_factory=dict)
    deliveries: int = 0
    delivery_tasks: Sequence[str] = ()
    others: bool = False
    due: bool = False
    delivered: list[Delivery] = field(default_factory=list)
    failed: list[FailedDelivery] = field(default_factory=list)
    hurried: bool = False
    others_run: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        told = self.progress or self.started or self.finishes or self.settles
        return bool(told or self.errands or self.adds or self.wants)

    @property
    def wants(self) -> bool:
        """Whether anything is to be claimed."""
        return bool(self.demands) or self.deliveries > 0

    @property
    def is_in_doubt(self) -> bool:
        """Whether some of its adds may be stored already."""
        return any(add.doubt for add in self.adds)

    @property
    def settles(self) -> bool:
        """Whether anything became of events."""
        return bool(self.delivered or self.failed)

    @property
    def jobs(self) -> frozenset[int]:
        """The keys of the jobs that are told of; errands look for theirs themselves."""
        told = [finish.claim.key for finish in self.finishes]
        told += [note.key for note in self.progress] + [note.key for note in self.started]
        told += [delivery.job for delivery in self.delivered] + [delivery.job for delivery, _, _ in self.failed]
        return frozenset(told)

    def append(self, other: Mailbox) -> None:
        """Take in, behind what is here, all that another one has but for what it wants."""
        for mine, more in zip(self._lists(), other._lists(), strict=True):
            mine += more

    def take_out(self, held: Held) -> Mailbox:
        """What of this one is held, as a hurried one of its own; it is here no more."""
        jobs, requests = held.jobs, held.requests
        out = Mailbox(self.worker, self.entered, hurried=True)
        self.progress, out.progress = _parted(self.progress, lambda note: note.key in jobs)
        self.started, out.started = _parted(self.started, lambda note: note.key in jobs)
        self.finishes, out.finishes = _parted(self.finishes, lambda finish: finish.claim.key in jobs)
        self.errands, out.errands = _parted(self.errands, lambda errand: errand in requests)
        self.adds, out.adds = _parted(self.adds, lambda add: add in requests)
        self.delivered, out.delivered = _parted(self.delivered, lambda one: held.settling or one.job in jobs)
        self.failed, out.failed = _parted(self.failed, lambda one: held.settling or one[0].job in jobs)
        return out

    def take_out_undecided(self, now: float) -> list[Add]:
        """The adds that may be stored, as nobody knows, and are still worth a try; they are here no more."""
        self.adds, out = _parted(self.adds, lambda add: add.doubt is not None and now < add.doubt.deadline)
        return out

    def _lists(self) -> list[list[Any]]:
        told: list[list[Any]] = [self.progress, self.started, self.finishes, self.delivered, self.failed]
        return [*told, self.errands, self.adds]


def _parted(requests: list[T], is_out: Callable[[T], bool]) -> tuple[list[T], list[T]]:
    """Those that stay, and those that are taken out."""
    return [one for one in requests if not is_out(one)], [one for one in requests if is_out(one)]


class ClaimBatch(Sequence[Claim]):
    """Claims of one task, in the order in which they are to run.

    They come as JSON text and are read at the first look at one of them, so that the thread which
    writes need not wait for this.
    """

    def __init__(self, task: str, count: int, text: str) -> None:
        self._task = task
        self._count = count
        self._text = text
        self._claims: list[Claim] | None = None

    def __len__(self) -> int:
        return self._count

    @property
    def size(self) -> int:
        """How long their text is."""
        return len(self._text)

    @overload
    def __getitem__(self, index: int) -> Claim: ...
    @overload
    def __getitem__(self, index: slice) -> list[Claim]: ...
    def __getitem__(self, index: int | slice) -> Claim | list[Claim]:
        return self.read()[index]

    def __iter__(self) -> Iterator[Claim]:
        return iter(self.read())

    def read(self) -> list[Claim]:
        """All of them."""
        if self._claims is None:
            task = self._task
            self._claims = [Claim(key, fence, id, task, *rest) for key, fence, id, *rest in loads(self._text)]
        return self._claims


@dataclass(slots=True, eq=False)
class Harvest:
    """What a committed cycle brought.

    `claims` by task, in the order in which they are to run; `deliveries` of events; `lost` the keys
    of claims that were no longer ours, which changed nothing; `known` those of ends that were stored
    before; `outrun` those that were found cancelled, or given to another, when they were to be shown as
    running; `dismissed` says that our worker was taken for dead, and may claim no more; `next_due` when the
    next future job comes due; `now` is the one time of all that it wrote, and `first_stored` the task and id of one
    job that was added; `woken` the tasks that were given jobs which can be claimed; `asked_to_stop` whether a
    running job was; `paid_debts` whether transactions of others are known now that may have left anything;
    `held` what of the mailbox could not be done yet, and is as it was; `afterwards` what
    was done once the commit was; `passed_on` the word that went to other nodes with the commit.
    """

    now: int = 0
    claims: dict[str, ClaimBatch] = field(default_factory=dict)
    deliveries: list[Delivery] = field(default_factory=list)
    lost: list[tuple[int, int]] = field(default_factory=list)
    known: set[tuple[int, int]] = field(default_factory=set)
    outrun: list[tuple[int, int]] = field(default_factory=list)
    woken: set[str] = field(default_factory=set)
    asked_to_stop: bool = False
    paid_debts: bool = False
    wrote_events: bool = False
    dismissed: bool = False
    next_due: int | None = None
    first_stored: tuple[str, int] | None = None
    held: Held = field(default_factory=Held)
    afterwards: list[Callable[[], None]] = field(default_factory=list)
    passed_on: frozenset[str] | None = None


class Cycle(Protocol):
    """One transaction under way, as an errand sees it."""

    now: int

    def add(self, add: Add) -> list[int]:
        """Store the jobs of one add (T1); the answer is their ids. A used idempotency key answers its first job.

        Raises QueueFull when not all fit: those that did are stored, its `ids` says which. Raises
        DuplicateJobId, and stores none of them, when one has an id that is taken.
        """
        ...

    def cancel(self, task: str, id: int) -> JobState:
        """End a waiting, retrying or claimed but unstarted job as CANCELLED (T8); a FAILURE is given up (T11).

        One that runs is asked to stop (T9), and the answer is RUNNING: its attempt then ends as a success or as
        CANCELLED. Raises JobNotFound, AlreadyFinished.
        """
        ...

    def retry(self, task: str, id: int) -> None:
        """Send a FAILURE or CANCELLED job round once more, as a new generation (T11).

        Its tries, losses and progress start again. Raises JobNotFound, WrongState.
        """
        ...

    def report(self, task: str, id: int, changes: Mapping[str, Any]) -> None:
        """Store progress of a running job that its handler did not send, and that no fence guards (T3).

        Raises JobNotFound, or WrongState for a job that does not run.
        """
        ...

    def settle(self, worker: int, delivered: Sequence[Delivery], failed: Sequence[FailedDelivery]) -> None:
        """Record deliveries of events: the delivered leave, of the others each gets its error and the
        time of its next try, or None to be kept as failed. One without an error was not called, and is put off.
        Jobs that waited for those that were called may go on.
        """
        ...


class Glance(NamedTuple):
    """What a poll sees: when the next future job and the next event are due, of which tasks jobs are `ready`,
    whether a job that runs here is `asked_to_stop`, and whether adds of others are `owed`, which are to be counted.
    """

    next_due: int | None
    next_event: int | None
    ready: frozenset[str]
    asked_to_stop: bool
    owed: bool
