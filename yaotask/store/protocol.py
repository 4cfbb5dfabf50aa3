"""What the rest of yaotask asks of a store, and what a store promises in return."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, overload

from yaotask.events import Delivery
from yaotask.jobs import Claim, Outcome
from yaotask.values import loads


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
class Add:
    """Jobs of one task to be stored together. `size` bounds how many may wait; None does not.

    Its ticket gets the list of ids, or QueueFull (with the ids that were stored), DuplicateJobId.
    """

    task: str
    jobs: list[NewJob]
    size: int | None
    events: int
    ticket: Ticket
    stored: list[int] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Errand:
    """A rare request: `run` is called inside the cycle's transaction, its answer goes to the ticket."""

    run: Callable[[Cycle], Any]
    ticket: Ticket


@dataclass(slots=True, eq=False)
class Mailbox:
    """All that came in since the last cycle, and what may be claimed in this one.

    `others` says that another process has written since, so that its adds must be counted.
    """

    worker: int | None = None
    progress: list[Progress] = field(default_factory=list)
    started: list[Started] = field(default_factory=list)
    finishes: list[Finish] = field(default_factory=list)
    errands: list[Errand] = field(default_factory=list)
    adds: list[Add] = field(default_factory=list)
    demands: dict[str, int] = field(default_factory=dict)
    deliveries: int = 0
    delivery_tasks: Sequence[str] = ()
    others: bool = False

    def __bool__(self) -> bool:
        return bool(self.progress or self.started or self.finishes or self.errands or self.adds or self.wants)

    @property
    def wants(self) -> bool:
        """Whether anything is to be claimed."""
        return bool(self.demands) or self.deliveries > 0


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
    of claims that were no longer ours, which changed nothing; `next_due` when the next future job
    comes due; `woken` the tasks that were given jobs which can be claimed; `afterwards` what was done
    once the commit was.
    """

    claims: dict[str, ClaimBatch] = field(default_factory=dict)
    deliveries: list[Delivery] = field(default_factory=list)
    lost: list[tuple[int, int]] = field(default_factory=list)
    woken: set[str] = field(default_factory=set)
    wrote_events: bool = False
    next_due: int | None = None
    afterwards: list[Callable[[], None]] = field(default_factory=list)


class Cycle(Protocol):
    """One transaction under way, as an errand sees it."""

    now: int

    def add(self, add: Add) -> list[int]:
        """Store the jobs of one add (T1); the answer is their ids. A used idempotency key answers its first job.

        Raises QueueFull when not all fit: those that did are stored, its `ids` says which. Raises
        DuplicateJobId, and stores none of them, when one has an id that is taken.
        """
        ...

    def cancel(self, task: str, id: int) -> None:
        """End a waiting, retrying or claimed but unstarted job as CANCELLED (T8); a FAILURE is given up (T11).

        Raises JobNotFound, AlreadyFinished, or WrongState for one that runs.
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

    def settle(
        self, worker: int, delivered: Sequence[Delivery], failed: Sequence[tuple[Delivery, str, int | None]]
    ) -> None:
        """Record deliveries of events: the delivered leave, of the others each gets its error and the
        time of its next try, or None to be kept as failed. Jobs that waited for them may go on.
        """
        ...


class Store(Protocol):
    """The only meeting point of all processes, and the only truth."""

    def run_cycle(self, mailbox: Mailbox) -> Harvest:
        """Do all that is in the mailbox in one transaction, and leave the answers in its tickets.

        Progress, then finishes, errands, adds and claims: so the last progress of a job that ends
        here is kept, and a job can be claimed in the transaction that stores it. A request that
        cannot be done gets its own error and holds up none of the others. Tickets are settled after
        the commit only.

        Raises StorageBusy, StorageFull or StorageUnavailable when nothing was changed, and
        OutcomeUnknown when the commit itself failed; then no ticket was settled.
        """
        ...
