"""The ledger: every write of a process goes through here, many to a transaction.

It commits as soon as the last commit ended, with everything that came in meanwhile. Nothing waits
for company: under load a commit is shared by many, when idle a request has one to itself.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from yaotask.chance import Chance
from yaotask.clock import SECOND, Clock
from yaotask.errors import StorageError, StorageUnavailable
from yaotask.events import Delivery
from yaotask.jobs import Claim, Outcome, Succeeded
from yaotask.store.forks import forks
from yaotask.store.protocol import Add, Errand, Finish, Harvest, Mailbox, Progress, Started, Ticket
from yaotask.store.sql import SqlStore

log = logging.getLogger(__name__)
T = TypeVar("T")

# A cycle takes at most so many rows of each kind, so that no transaction is long.
MOST_ROWS = 2_000

# How often to look whether another process has written: often just after it has, then less and less.
EAGER_LOOK, LAZY_LOOK, EAGER_FOR = 0.02, 0.25, 1.0

# How long to leave a store alone that could not be written.
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0


class Consumer(Protocol):
    """Whoever runs the jobs of one task, as the ledger sees it. Called on the ledger's thread."""

    def demand(self) -> int:
        """How many more claims it can take now."""
        ...

    def deliver(self, claims: Sequence[Claim]) -> None:
        """These claims are committed; run them in this order."""
        ...

    def lost(self, key: int, fence: int) -> None:
        """This claim is no longer ours; it may be another consumer's."""
        ...


class Courier(Protocol):
    """Whoever delivers events to hooks, as the ledger sees it. Called on the ledger's thread."""

    tasks: tuple[str, ...]

    def demand(self) -> int:
        """How many more events it can take now."""
        ...

    def deliver(self, deliveries: Sequence[Delivery]) -> None:
        """These events are ours to deliver."""
        ...

    def settled(self) -> tuple[list[Delivery], list[tuple[Delivery, str, int | None]]]:
        """What was delivered, and what failed, since this was last asked."""
        ...


class Ledger:
    """Collects requests from any thread; `turn` writes them, on one thread only."""

    def __init__(self, store: SqlStore, clock: Clock, chance: Chance, poll: float = 1.0) -> None:
        self.store = store
        self.clock = clock
        self.chance = chance
        self.poll = poll
        self.poke: Callable[[], None] = lambda: None
        # Told of each attempt that ended otherwise than well, once that is stored; must not raise.
        self.tell: Callable[[Claim, Outcome], None] = lambda claim, outcome: None
        # How the attempts of this process ended.
        self.ended: Counter[type] = Counter()
        self._adds: deque[Add] = deque()
        self._errands: deque[Errand] = deque()
        self._finishes: deque[Finish] = deque()
        self._progress: deque[Progress] = deque()
        self._started: deque[Started] = deque()
        self._worker: int | None = None
        self._consumers: Mapping[str, Consumer] = {}
        self._courier: Courier | None = None
        # What became of events, until that is written.
        self._delivered: list[Delivery] = []
        self._failed: list[tuple[Delivery, str, int | None]] = []
        # Tasks of which a claim may find something; the others were found empty and are left alone
        # until something is added.
        self._wet: set[str] = set()
        self._events_wet = True
        self._next_due: int | None = None
        self._next_event: int | None = None
        self._next_poll = 0.0
        self._look = EAGER_LOOK
        self._last_work = 0.0
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

    def employ(self, worker: int, consumers: Mapping[str, Consumer], courier: Courier) -> None:
        """From now on claim for these, in the name of `worker`."""
        self._consumers = consumers
        self._courier = courier
        self._wet = set(consumers)
        self._worker = worker
        self.poke()

    def dismiss(self) -> None:
        """Work for nobody any more."""
        self._worker = None
        self._consumers = {}
        self._courier = None

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
            self._look_around(mailbox)
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
        self._last_work = self.clock.monotonic()
        self._delivered, self._failed = [], []
        self._tally(mailbox, harvest)
        self._hand_out(mailbox, harvest)
        return 0.0 if self._pending() or self._wet_demand() else self._rest()

    def _tally(self, mailbox: Mailbox, harvest: Harvest) -> None:
        lost = set(harvest.lost)
        for claim, outcome, _, _ in mailbox.finishes:
            kind = type(outcome)
            self.ended[kind] += 1
            if kind is not Succeeded and (claim.key, claim.fence) not in lost:
                self.tell(claim, outcome)

    def refuse(self, error: BaseException) -> None:
        """Answer everything that waits with an error: nothing will be written any more."""
        while self._pending():
            _refuse(self._collect(), error)

    @property
    def is_quiet(self) -> bool:
        """Whether all that came in is written, and no event waits to be taken; from any thread.

        In this order, because what is taken out of the queues is in a turn until it is written.
        """
        return not self._pending() and not self._in_turn and not self._events_wet

    @property
    def is_behind(self) -> bool:
        """Whether there is something to write, and hope that it can be written."""
        return self._pending() and self._trouble < LONGEST_PAUSE

    def _pending(self) -> bool:
        return bool(self._finishes or self._adds or self._errands or self._progress or self._started)

    def _wet_demand(self) -> bool:
        return any(self._consumers[task].demand() > 0 for task in self._wet if task in self._consumers)

    def _collect(self) -> Mailbox:
        # Finishes first, progress after: what a job said before it ended is then always in the
        # mailbox with its end, never left for a cycle in which it is too late.
        finishes = _take(self._finishes, MOST_ROWS)
        progress = _take(self._progress, len(self._progress))
        started = _take(self._started, len(self._started))
        mailbox = Mailbox(self._worker, progress, started, finishes, _take(self._errands, MOST_ROWS))
        rows = 0
        while self._adds and rows < MOST_ROWS:
            add = self._adds.popleft()
            rows += len(add.jobs)
            mailbox.adds.append(add)
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
            mailbox.errands.append(Errand(lambda cycle: cycle.settle(worker, *told), Ticket()))

    # --- what may be claimed ----------------------------------------------------------------------------

    def _look_around(self, mailbox: Mailbox) -> None:
        if self._worker is None:
            return
        if self.store.changed() or self.clock.monotonic() >= self._next_poll:
            mailbox.others = True
            self._everything_may_have_changed()
        now = self.clock.now()
        due = self._next_due is not None and self._next_due <= now
        if due:
            # Of which task is not known; its claim can be in the transaction that promotes it.
            self._wet = set(self._consumers)
        if self._next_event is not None and self._next_event <= now:
            self._events_wet = True
        writes = bool(mailbox)
        self._want(mailbox, look_first=not (writes or due))
        if due and not mailbox:
            # A cycle of nothing: it promotes what is due.
            mailbox.errands.append(Errand(lambda cycle: None, Ticket()))

    def _everything_may_have_changed(self) -> None:
        now = self.clock.monotonic()
        self._next_poll = now + self.poll * self.chance.uniform(0.9, 1.1)
        self._wet = set(self._consumers)
        self._events_wet = True
        self._next_due = self.store.next_due()
        self._look = EAGER_LOOK

    def _want(self, mailbox: Mailbox, *, look_first: bool) -> None:
        for task in sorted(self._wet):
            consumer = self._consumers.get(task)
            demand = consumer.demand() if consumer is not None else 0
            if demand <= 0:
                continue
            if look_first and not self.store.any_ready(task):
                self._wet.discard(task)
            else:
                mailbox.demands[task] = demand
        courier = self._courier
        if courier is not None and courier.tasks and self._events_wet:
            mailbox.delivery_tasks = courier.tasks
            mailbox.deliveries = courier.demand()
            if look_first and mailbox.deliveries:
                self._next_event = self.store.next_event(courier.tasks)
                if self._next_event is None or self._next_event > self.clock.now():
                    self._events_wet = False
                    mailbox.deliveries = 0

    def _hand_out(self, mailbox: Mailbox, harvest: Harvest) -> None:
        self._wet |= harvest.woken & self._consumers.keys()
        for task, claims in harvest.claims.items():
            # The claim was the last thing of its transaction: fewer than were wanted means none is left.
            if len(claims) < mailbox.demands[task] and len(claims) < MOST_ROWS // len(mailbox.demands):
                self._wet.discard(task)
            if claims:
                self._consumers[task].deliver(claims)
        if mailbox.worker is not None:
            if self._next_due is not None and self._next_due <= self.clock.now():
                # Its time may have come only after we looked around.
                self._wet = set(self._consumers)
            self._next_due = harvest.next_due
        self._hand_out_events(mailbox, harvest)
        if harvest.lost:
            self._tell_lost(mailbox, harvest)

    def _tell_lost(self, mailbox: Mailbox, harvest: Harvest) -> None:
        names = {(finish.claim.key, finish.claim.fence): finish.claim.name for finish in mailbox.finishes}
        for key, fence in harvest.lost:
            name = names.get((key, fence), "a job")
            log.warning("%s was given to another worker, or ended: what this one did of it is not stored", name)
            for consumer in self._consumers.values():
                consumer.lost(key, fence)

    def _hand_out_events(self, mailbox: Mailbox, harvest: Harvest) -> None:
        courier = self._courier
        if courier is None:
            return
        if mailbox.deliveries:
            self._events_wet = len(harvest.deliveries) >= mailbox.deliveries
            if harvest.deliveries:
                courier.deliver(harvest.deliveries)
            if not self._events_wet:
                self._next_event = self.store.next_event(courier.tasks)
        elif harvest.wrote_events:
            self._events_wet = True

    # --- waiting ----------------------------------------------------------------------------------------

    def _rest(self) -> float | None:
        """How long nothing needs to be done, unless something comes in."""
        if self._worker is None:
            return None
        now = self.clock.monotonic()
        if now - self._last_work > EAGER_FOR:
            self._look = min(self._look * 2, LAZY_LOOK)
        waits = [self._look, self._next_poll - now]
        wall = self.clock.now()
        waits += [(moment - wall) / SECOND for moment in (self._next_due, self._next_event) if moment is not None]
        return max(0.000_5, min(waits))

    def _put_off(self, mailbox: Mailbox, error: StorageError) -> float:
        """The store failed: tell the askers, keep what must not be lost, and wait a little."""
        if not self._trouble:
            log.error("the store cannot be written: %s", error)
        self._trouble = min(max(FIRST_PAUSE, self._trouble * 2), LONGEST_PAUSE)
        _refuse(mailbox, error)
        self._finishes.extendleft(reversed(mailbox.finishes))
        self._progress.extendleft(reversed(mailbox.progress))
        self._started.extendleft(reversed(mailbox.started))
        self._wet = set(self._consumers)
        self._events_wet = True
        return self._trouble


def _take(requests: deque[T], most: int) -> list[T]:
    """The oldest requests. Others may append meanwhile: only what was there when we looked is taken."""
    return [requests.popleft() for _ in range(min(most, len(requests)))]


def _refuse(mailbox: Mailbox, error: BaseException) -> None:
    for add in mailbox.adds:
        add.ticket.reject(error)
    for errand in mailbox.errands:
        errand.ticket.reject(error)


class LedgerThread:
    """Drives a ledger on a thread of its own, which is started at the first request."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.died: BaseException | None = None
        self.on_death: Callable[[], None] = lambda: None
        self._poked = threading.Event()
        self._stopping = False
        self._over = False
        self._start = threading.Lock()
        self._thread: threading.Thread | None = None
        ledger.poke = self._poke

    def _poke(self) -> None:
        if not self._poked.is_set():
            self._poked.set()
        if self._thread is None:
            self._begin()

    def _begin(self) -> None:
        with self._start:
            if self._thread is None and not self._over:
                self._thread = threading.Thread(target=self._run, name="yaotask-ledger", daemon=True)
                self._thread.start()

    def refuse_if_over(self) -> None:
        """Answer what was asked too late: nothing will be written any more."""
        if self._over:
            # One at a time: several threads may have asked too late.
            with self._start:
                self.ledger.refuse(self._why())

    def _why(self) -> StorageUnavailable:
        if self.died is None:
            return StorageUnavailable("this app was closed")
        return StorageUnavailable(f"the ledger of this process has stopped: {self.died}")

    def close(self) -> None:
        """Write what has come in, then stop and let go of the store. More than once is fine."""
        self._stopping = True
        with self._start:
            thread = self._thread
            if thread is None and not self._over:
                self._over = True
                self.ledger.store.close()
        self._poked.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _run(self) -> None:
        try:
            while self._turn():
                pass
        except BaseException as error:
            log.critical("the ledger has died", exc_info=error)
            self.died = error
            self.on_death()
        finally:
            self._over = True
            self.refuse_if_over()
            self.ledger.store.close()

    def _turn(self) -> bool:
        """One turn and the wait after it; False when all is written and the end was asked for."""
        # Lowered before the look: whatever comes in from here on raises it again.
        self._poked.clear()
        with forks.held_off():
            wait = self.ledger.turn()
        if self._stopping and not self.ledger.is_behind:
            return False
        if wait is None or wait > 0:
            self._poked.wait(wait)
        return True
