"""The ledger: every write of a process goes through here, many to a transaction.

It commits as soon as the last commit ended, with everything that came in meanwhile. Nothing waits
for company: under load a commit is shared by many, when idle a request has one to itself.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from yaotask.chance import Chance
from yaotask.clock import Clock
from yaotask.errors import StorageError
from yaotask.events import Delivery
from yaotask.jobs import Claim, Outcome, Succeeded
from yaotask.store.consumers import Consumer, Courier, FailedDelivery
from yaotask.store.lookout import Lookout
from yaotask.store.protocol import Add, Errand, Finish, Harvest, Mailbox, Progress, Started, Ticket
from yaotask.store.sql import SqlStore
from yaotask.store.work import MOST_BYTES, MOST_ROWS

log = logging.getLogger(__name__)
T = TypeVar("T")

# How long to leave a store alone that could not be written.
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0


class Ledger:
    """Collects requests from any thread; `turn` writes them, on one thread only."""

    def __init__(self, store: SqlStore, clock: Clock, chance: Chance, poll: float = 1.0) -> None:
        self.store = store
        self.poke: Callable[[], None] = lambda: None
        # Told of each attempt that ended otherwise than well, once that is stored; must not raise.
        self.tell: Callable[[Claim, Outcome], None] = lambda claim, outcome: None
        # Tells the workers of this machine that there is something to claim; must not raise, nor wait.
        self.hint: Callable[[], None] = lambda: None
        # How the attempts of this process ended: those that were written here, and those in their own transactions.
        self._ended: Counter[type] = Counter()
        self._committed: deque[type] = deque()
        self._adds: deque[Add] = deque()
        self._errands: deque[Errand] = deque()
        self._finishes: deque[Finish] = deque()
        self._progress: deque[Progress] = deque()
        self._started: deque[Started] = deque()
        self._worker: int | None = None
        self._consumers: Mapping[str, Consumer] = {}
        self._courier: Courier | None = None
        self._lookout = Lookout(store, clock, chance, poll)
        # What became of events, until that is written.
        self._delivered: list[Delivery] = []
        self._failed: list[FailedDelivery] = []
        self._trouble = 0.0
        self._in_turn = False

    # --- requests, from any thread ------------------------------------------------------------------

    def add(self, add: Add) -> None:
        self._adds.append(add)
        self.poke()

    def errand(self, run: Callable[[Any], Any], ticket: Ticket) -> None:
        self._errands.append(Errand(run, ticket))
        self.poke()

    def finish(self, finish: Finish) -> None:
        self._finishes.append(finish)
        self.poke()

    def progress(self, note: Progress) -> None:
        self._progress.append(note)
        self.poke()

    def started(self, note: Started) -> None:
        self._started.append(note)
        self.poke()

    def committed(self, outcome: Outcome) -> None:
        """An attempt has ended in a transaction of its own."""
        self._committed.append(type(outcome))

    @property
    def ended(self) -> Counter[type]:
        """How the attempts of this process ended, by kind of outcome; one whose claim was lost counts nowhere."""
        return self._ended + Counter(self._committed)

    def employ(self, worker: int, consumers: Mapping[str, Consumer], courier: Courier) -> None:
        """From now on claim for these, in the name of `worker`. Raises RuntimeError where another is at work."""
        if self._worker is not None:
            raise RuntimeError("this process runs the project's jobs already: one `running()` is enough")
        self._consumers, self._courier = consumers, courier
        self._lookout.employ(consumers, courier)
        self._worker = worker
        self.poke()

    def dismiss(self, worker: int) -> None:
        """Work for this one no more."""
        if worker != self._worker:
            return
        self._worker = None
        self._consumers, self._courier = {}, None
        self._lookout.employ({}, None)

    # --- the writer's side ----------------------------------------------------------------------------

    def turn(self) -> float | None:
        """Write what came in and claim what is wanted; how long to wait until the next turn.

        None means: until poked. A store that cannot be written costs the askers an error, but no
        progress and no finish: those are kept and written when it can be.
        """
        self._in_turn = True
        try:
            return self._turn()
        finally:
            self._in_turn = False

    def _turn(self) -> float | None:
        mailbox = self._collect()
        try:
            self._lookout.ask_for(mailbox)
            if not mailbox:
                return self._rest()
            harvest = self.store.run_cycle(mailbox)
        except StorageError as error:
            return self._put_off(mailbox, error)
        except BaseException as error:
            _refuse(mailbox, error)
            raise
        if self._trouble:
            log.info("the store can be written again")
        self._trouble = 0.0
        self._delivered, self._failed = [], []
        self._tally(mailbox, harvest)
        self._hand_out(mailbox, harvest)
        self._lookout.learn(mailbox, harvest)
        if harvest.woken and self._worker is None:
            self.hint()
        return 0.0 if self._pending() or self._lookout.wants_more else self._rest()

    def _rest(self) -> float | None:
        return None if self._worker is None else self._lookout.rest()

    def _hand_out(self, mailbox: Mailbox, harvest: Harvest) -> None:
        for task, claims in harvest.claims.items():
            if claims:
                self._consumers[task].deliver(claims)
        if harvest.deliveries and self._courier is not None:
            self._courier.deliver(harvest.deliveries)
        if harvest.lost:
            self._tell_lost(mailbox, harvest)

    def _tell_lost(self, mailbox: Mailbox, harvest: Harvest) -> None:
        names = {(finish.claim.key, finish.claim.fence): finish.claim.name for finish in mailbox.finishes}
        for key, fence in harvest.lost:
            name = names.get((key, fence), "a job")
            log.warning("%s was given to another worker, or ended: what this one did of it is not stored", name)
            for consumer in self._consumers.values():
                consumer.lost(key, fence)

    def _tally(self, mailbox: Mailbox, harvest: Harvest) -> None:
        lost = set(harvest.lost)
        for claim, outcome, _, _ in mailbox.finishes:
            if lost and (claim.key, claim.fence) in lost:
                continue
            kind = type(outcome)
            self._ended[kind] += 1
            if kind is not Succeeded:
                self.tell(claim, outcome)
        self._ended.update(_take(self._committed, len(self._committed)))

    def refuse(self, error: BaseException) -> None:
        """Answer everything that waits with an error: nothing will be written any more."""
        while self._pending():
            _refuse(self._collect(), error)

    @property
    def is_quiet(self) -> bool:
        """Whether all that came in is written, and no event waits to be taken; from any thread.

        In this order, because what is taken out of the queues is in a turn until it is written.
        """
        return not self._pending() and not self._in_turn and not self._lookout.events_wet

    @property
    def is_behind(self) -> bool:
        """Whether there is something to write, and hope that it can be written."""
        return self._pending() and self._trouble < LONGEST_PAUSE

    def _pending(self) -> bool:
        return bool(self._finishes or self._adds or self._errands or self._progress or self._started)

    def _collect(self) -> Mailbox:
        # Finishes first, progress after: what a job said before it ended is then always in the
        # mailbox with its end, never left for a cycle in which it is too late.
        finishes = _take_up_to(self._finishes, _result_size)
        progress = _take(self._progress, len(self._progress))
        started = _take(self._started, len(self._started))
        errands, adds = _take(self._errands, MOST_ROWS), _take_up_to(self._adds, _add_size, _add_rows)
        mailbox = Mailbox(self._worker, progress, started, finishes, errands, adds)
        self._collect_settled(mailbox)
        return mailbox

    def _collect_settled(self, mailbox: Mailbox) -> None:
        worker, courier = mailbox.worker, self._courier
        if courier is None or worker is None:
            return
        delivered, failed = courier.settled()
        self._delivered += delivered
        self._failed += failed
        if self._delivered or self._failed:
            told = self._delivered, self._failed
            # First: an errand may take our worker out, and with it its right to settle anything.
            mailbox.errands.insert(0, Errand(lambda cycle: cycle.settle(worker, *told), Ticket()))

    def _put_off(self, mailbox: Mailbox, error: StorageError) -> float:
        """The store failed: tell the askers, keep what must not be lost, and wait a little."""
        if not self._trouble:
            log.error("the store cannot be written: %s", error)
        self._trouble = min(max(FIRST_PAUSE, self._trouble * 2), LONGEST_PAUSE)
        _refuse(mailbox, error)
        self._finishes.extendleft(reversed(mailbox.finishes))
        self._progress.extendleft(reversed(mailbox.progress))
        self._started.extendleft(reversed(mailbox.started))
        self._lookout.forget()
        return self._trouble


def _take(requests: deque[T], most: int) -> list[T]:
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


def _result_size(finish: Finish) -> int:
    outcome = finish.outcome
    return len(outcome.result) if type(outcome) is Succeeded else 0


def _add_rows(add: Add) -> int:
    return len(add.jobs)


def _add_size(add: Add) -> int:
    return sum(len(job.args) + len(job.payload) for job in add.jobs)


def _refuse(mailbox: Mailbox, error: BaseException) -> None:
    for add in mailbox.adds:
        add.ticket.reject(error)
    for errand in mailbox.errands:
        errand.ticket.reject(error)
