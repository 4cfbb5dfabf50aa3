"""Where there may be something to claim: nothing is looked for in vain, and nothing is overlooked for long."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Set

from yaotask.chance import Chance
from yaotask.clock import SECOND, Clock
from yaotask.store.consumers import Consumer, Courier
from yaotask.store.hints import EVERYWHERE, together
from yaotask.store.inbox import take
from yaotask.store.protocol import Errand, Harvest, Mailbox, Ticket
from yaotask.store.sql import SqlStore
from yaotask.store.work import MOST_BYTES, MOST_ROWS

# How often to look whether another process has written: often just after it has, then less and less.
EAGER_LOOK, LAZY_LOOK, EAGER_FOR = 0.02, 0.25, 1.0
SHORTEST_REST = 0.000_5
# So many wait to be taken; one more is to look everywhere, and says all that could come after it.
MOST_HINTS = 100


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
        # Where somebody said that there is something; from any thread.
        self._hints: deque[frozenset[str]] = deque()
        # Whether a job of ours may have been asked to stop, and those that were told so, until they have ended.
        self._cancels_wet = False
        self._told: set[tuple[str, int, int]] = set()
        self._next_due: int | None = None
        self._next_event: int | None = None
        # From when on an event is to be taken that is to be asked for; None: it is known, or is of no interest.
        self._events_from: int | None = None
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
        self._cancels_wet = bool(self._consumers)
        self._events_from = None

    @property
    def wants_more(self) -> bool:
        """Whether somebody could take claims of a task that may have some, or events, or must be told to stop."""
        return (
            self._cancels_wet
            or self._wants_events
            or any(self._consumers[task].demand() > 0 for task in self._wet if task in self._consumers)
        )

    @property
    def _wants_events(self) -> bool:
        courier = self._courier
        return self.events_wet and courier is not None and bool(courier.tasks) and courier.demand() > 0

    def hear(self, tasks: frozenset[str]) -> None:
        """Somebody says where there is something; from any thread."""
        waiting = len(self._hints)
        if waiting <= MOST_HINTS:
            self._hints.append(tasks if waiting < MOST_HINTS else EVERYWHERE)

    # --- before a cycle ---------------------------------------------------------------------------------

    def ask_for(self, mailbox: Mailbox) -> None:
        """Put into the mailbox what is to be claimed in its cycle."""
        if mailbox.worker is None:
            return
        hints = take(self._hints, len(self._hints))
        sure = False
        if self._store.changed() or EVERYWHERE in hints or self._clock.monotonic() >= self._next_poll:
            mailbox.others = self._everything_may_have_changed(mailbox.worker)
        elif hints:
            told = together(hints) & self._consumers.keys()
            self._wet |= told
            # A claim is the look.
            sure = bool(told)
        if self._cancels_wet:
            self._pass_on_cancels(mailbox.worker)
        now = self._clock.now()
        due = self._next_due is not None and self._next_due <= now
        mailbox.due = due
        if due:
            # Of which task is not known; its claim can be in the transaction that promotes it.
            self._wet = set(self._consumers)
        if self._events_from is not None:
            self._ask_for_events(self._events_from)
        if self._next_event is not None and self._next_event <= now:
            self.events_wet = True
        # What is added here can be claimed here.
        self._wet |= {add.task for add in mailbox.adds} & self._consumers.keys()
        # Where a transaction is needed anyway, a claim costs less than a look.
        look_first = not (mailbox or due or sure)
        self._want_jobs(mailbox, look_first)
        self._want_events(mailbox, look_first)
        if (due or self._store.owes) and not mailbox:
            # A cycle of nothing: it promotes what is due, and gives back what nobody was given.
            mailbox.errands.append(Errand(lambda cycle: None, Ticket()))

    def _ask_for_events(self, earliest: int) -> None:
        courier = self._courier
        if courier is not None:
            found = self._store.next_event(courier.tasks)
            self._next_event = None if found is None else max(found, earliest)
        self._events_from = None

    def _everything_may_have_changed(self, worker: int) -> bool:
        """Whether jobs of others may be to be counted."""
        self._next_poll = self._clock.monotonic() + self._poll * self._chance.uniform(0.9, 1.1)
        self._look, courier = EAGER_LOOK, self._courier
        glance = self._store.glance(worker, self._consumers, courier.tasks if courier is not None else ())
        if glance is None:
            self._next_due = self._store.next_due()
            self.forget()
            return True
        self._next_due, self._next_event = glance.next_due, glance.next_event
        # Whether its time has come is seen below.
        self.events_wet, self._events_from = False, None
        self._wet = set(glance.ready)
        self._cancels_wet = glance.asked_to_stop
        return glance.owed

    def _pass_on_cancels(self, worker: int) -> None:
        asked = set(self._store.cancels_of(worker))
        self._cancels_wet = False
        # One that is not to be found has hardly begun, or all but ended: it is told at the next look, or gone by then.
        self._told = {one for one in asked if one in self._told or self._cancel(*one)}

    def _cancel(self, task: str, key: int, fence: int) -> bool:
        consumer = self._consumers.get(task)
        return consumer is not None and consumer.cancelled(key, fence)

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
        if harvest.asked_to_stop:
            self._cancels_wet = bool(self._consumers)
        for task, claims in harvest.claims.items():
            # The claim was the last thing of its transaction: fewer than were wanted means none is left, but where
            # the text of one claim is bounded (in bytes, of which a letter has at most four).
            fewer = len(claims) < mailbox.demands[task] and len(claims) < MOST_ROWS // len(mailbox.demands)
            if fewer and claims.size * 4 < MOST_BYTES:
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
                # Before the next cycle, where a look may fail. One that is due, and did not come, is in others' hands.
                now = self._clock.now()
                self._events_from = now if harvest.deliveries else now + round(EAGER_LOOK * SECOND)
        elif harvest.wrote_events:
            self.events_wet = True

    def left_over(self, woken: Set[str]) -> set[str]:
        """Those of these tasks, that had something, of which anything may be left for others."""
        return {task for task in woken if task not in self._consumers or task in self._wet}

    def rest(self) -> float:
        """How many seconds nothing needs to be done, unless something comes in."""
        now, wall = self._clock.monotonic(), self._clock.now()
        waits = [self._next_poll - now]
        if self._store.tells_changes:
            if now - self._last_work > EAGER_FOR:
                self._look = min(self._look * 2, LAZY_LOOK)
            waits.append(self._look)
        if self._next_due is not None:
            waits.append((self._next_due - wall) / SECOND)
        if self._events_from is not None:
            waits.append(0.0)
        elif self._next_event is not None and not self.events_wet:
            # Otherwise nobody could take it before, and whoever can will ask.
            waits.append((self._next_event - wall) / SECOND)
        return max(SHORTEST_REST, min(waits))
