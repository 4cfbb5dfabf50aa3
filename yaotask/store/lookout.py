"""Where there may be something to claim: nothing is looked for in vain, and nothing is overlooked for long."""

from __future__ import annotations

from collections.abc import Mapping

from yaotask.chance import Chance
from yaotask.clock import SECOND, Clock
from yaotask.store.consumers import Consumer, Courier
from yaotask.store.protocol import Errand, Harvest, Mailbox, Ticket
from yaotask.store.sql import SqlStore
from yaotask.store.work import MOST_BYTES, MOST_ROWS

# How often to look whether another process has written: often just after it has, then less and less.
EAGER_LOOK, LAZY_LOOK, EAGER_FOR = 0.02, 0.25, 1.0
SHORTEST_REST = 0.000_5


class Lookout:
    """Knows of which tasks a claim may find something. Belongs to the ledger's thread.

    A task that was found empty is left alone until something is added to it: by a cycle of this process,
    which says so, or by another process, which a look at the database tells.
    """

    def __init__(self, store: SqlStore, clock: Clock, chance: Chance, poll: float) -> None:
        self._store = store
        self._clock = clock
        self._chance = chance
        self._poll = poll
        self._consumers: Mapping[str, Consumer] = {}
        self._courier: Courier | None = None
        self._wet: set[str] = set()
        # Whether an event may be there to be delivered; from any thread.
        self.events_wet = False
        self._next_due: int | None = None
        self._next_event: int | None = None
        # How many claims of a task make as many bytes as one cycle should have.
        self._fit: dict[str, int] = {}
        self._next_poll = 0.0
        self._look = EAGER_LOOK
        self._last_work = 0.0

    def employ(self, consumers: Mapping[str, Consumer], courier: Courier | None) -> None:
        """Look out for these from now on; for nobody, where there are none."""
        self._consumers, self._courier = consumers, courier
        self.forget()

    def forget(self) -> None:
        """There may be something everywhere."""
        self._wet = set(self._consumers)
        self.events_wet = self._courier is not None and bool(self._courier.tasks)

    @property
    def wants_more(self) -> bool:
        """Whether somebody could take claims of a task that may have some."""
        return any(self._consumers[task].demand() > 0 for task in self._wet if task in self._consumers)

    # --- before a cycle ---------------------------------------------------------------------------------

    def ask_for(self, mailbox: Mailbox) -> None:
        """Put into the mailbox what is to be claimed in its cycle."""
        if mailbox.worker is None:
            return
        if self._store.changed() or self._clock.monotonic() >= self._next_poll:
            mailbox.others = True
            self._everything_may_have_changed()
        now = self._clock.now()
        due = self._next_due is not None and self._next_due <= now
        if due:
            # Of which task is not known; its claim can be in the transaction that promotes it.
            self._wet = set(self._consumers)
        if self._next_event is not None and self._next_event <= now:
            self.events_wet = True
        # What is added here can be claimed here.
        self._wet |= {add.task for add in mailbox.adds} & self._consumers.keys()
        # Where a transaction is needed anyway, a claim costs less than a look.
        look_first = not (mailbox or due)
        self._want_jobs(mailbox, look_first)
        self._want_events(mailbox, look_first)
        if due and not mailbox:
            # A cycle of nothing: it promotes what is due.
            mailbox.errands.append(Errand(lambda cycle: None, Ticket()))

    def _everything_may_have_changed(self) -> None:
        self._next_poll = self._clock.monotonic() + self._poll * self._chance.uniform(0.9, 1.1)
        self._next_due = self._store.next_due()
        self._look = EAGER_LOOK
        self.forget()

    def _want_jobs(self, mailbox: Mailbox, look_first: bool) -> None:
        for task in sorted(self._wet):
            consumer = self._consumers.get(task)
            demand = consumer.demand() if consumer is not None else 0
            if demand <= 0:
                continue
            if look_first and not self._store.any_ready(task):
                self._wet.discard(task)
            else:
                mailbox.demands[task] = min(demand, self._fit.get(task, demand))

    def _want_events(self, mailbox: Mailbox, look_first: bool) -> None:
        courier = self._courier
        if courier is None or not courier.tasks or not self.events_wet:
            return
        mailbox.delivery_tasks, mailbox.deliveries = courier.tasks, courier.demand()
        if look_first and mailbox.deliveries:
            self._next_event = self._store.next_event(courier.tasks)
            if self._next_event is None or self._next_event > self._clock.now():
                self.events_wet = False
                mailbox.deliveries = 0

    # --- after a cycle ----------------------------------------------------------------------------------

    def learn(self, mailbox: Mailbox, harvest: Harvest) -> None:
        """Take in what a cycle found, and what it left to be found."""
        self._last_work = self._clock.monotonic()
        self._wet |= harvest.woken & self._consumers.keys()
        for task, claims in harvest.claims.items():
            # The claim was the last thing of its transaction: fewer than were wanted means none is left.
            if len(claims) < mailbox.demands[task] and len(claims) < MOST_ROWS // len(mailbox.demands):
                self._wet.discard(task)
            if claims:
                self._fit[task] = max(1, MOST_BYTES * len(claims) // claims.size)
        if mailbox.worker is not None:
            if self._next_due is not None and self._next_due <= self._clock.now():
                # Its time may have come only after we asked.
                self._wet = set(self._consumers)
            self._next_due = harvest.next_due
        self._learn_events(mailbox, harvest)

    def _learn_events(self, mailbox: Mailbox, harvest: Harvest) -> None:
        courier = self._courier
        if courier is None:
            return
        if mailbox.deliveries:
            self.events_wet = len(harvest.deliveries) >= mailbox.deliveries
            if not self.events_wet:
                self._next_event = self._store.next_event(courier.tasks)
        elif harvest.wrote_events:
            self.events_wet = True

    def rest(self) -> float:
        """How many seconds nothing needs to be done, unless something comes in."""
        now, wall = self._clock.monotonic(), self._clock.now()
        if now - self._last_work > EAGER_FOR:
            self._look = min(self._look * 2, LAZY_LOOK)
        waits = [self._look, self._next_poll - now]
        if self._next_due is not None:
            waits.append((self._next_due - wall) / SECOND)
        if self._next_event is not None and not self.events_wet:
            # Otherwise nobody could take it before, and whoever can will ask.
            waits.append((self._next_event - wall) / SECOND)
        return max(SHORTEST_REST, min(waits))
