"""The ledger: every write of a process goes through here, many to a transaction.

It commits as soon as the last commit ended, with everything that came in meanwhile. Nothing waits
for company: under load a commit is shared by many, when idle a request has one to itself.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable, Collection, Mapping
from typing import Any

from yaotask.chance import Chance
from yaotask.clock import Clock
from yaotask.errors import StorageError
from yaotask.jobs import Claim, Failed, Lost, Outcome, Succeeded
from yaotask.store.consumers import Consumer, Courier
from yaotask.store.hints import EVERYWHERE, says_all
from yaotask.store.inbox import Inbox, take
from yaotask.store.lookout import Lookout
from yaotask.store.protocol import Add, Errand, Finish, Harvest, Mailbox, Progress, Started, Ticket
from yaotask.store.shelf import Shelf
from yaotask.store.shouts import Shout
from yaotask.store.sql import SqlStore

log = logging.getLogger(__name__)

# How long to leave a store alone that could not be written.
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0


class Ledger:
    """Collects requests from any thread; `turn` writes them, on one thread only."""

    def __init__(self, store: SqlStore, clock: Clock, chance: Chance, poll: float = 1.0) -> None:
        self.store = store
        self._clock = clock
        self.poke: Callable[[], None] = lambda: None
        # Told of each attempt that ended otherwise than well, once that is stored.
        self.tell: Callable[[Claim, Outcome], None] = lambda claim, outcome: None
        # Told once that the worker was taken for dead by others, and claims no more; must not raise.
        self.dismissed: Callable[[], None] = lambda: None
        # Tells the workers of this machine of which tasks there is something to claim, or, with none, that there is
        # something to look for; must not raise, nor wait.
        self.hint: Callable[[Collection[str]], None] = lambda tasks: None
        # Tells those of other machines, where somebody has to.
        self.shout: Shout | None = None
        # How the attempts of this process ended: those that were written here, and those in their own transactions.
        self._ended: Counter[type] = Counter()
        self._committed: deque[type] = deque()
        self._inbox = Inbox()
        self._worker: int | None = None
        self._consumers: Mapping[str, Consumer] = {}
        self._courier: Courier | None = None
        self._lookout = Lookout(store, clock, chance, poll)
        # What is in the hands of others.
        self._shelf = Shelf(clock)
        self._trouble = 0.0
        # Why it could not be written, as it was said since it last was.
        self._told: set[str] = set()
        # How many lines the log did not take.
        self._unsaid = 0
        self._in_turn = False

    # --- requests, from any thread ------------------------------------------------------------------

    def add(self, add: Add) -> None:
        self._inbox.adds.append(add)
        self.poke()

    def errand(self, run: Callable[[Any], Any], ticket: Ticket) -> None:
        self._inbox.errands.append(Errand(run, ticket))
        self.poke()

    def finish(self, finish: Finish) -> None:
        self._inbox.finishes.append(finish)
        self.poke()

    def progress(self, note: Progress) -> None:
        self._inbox.progress.append(note)
        self.poke()

    def started(self, note: Started) -> None:
        self._inbox.started.append(note)
        self.poke()

    def hinted(self, tasks: frozenset[str] = EVERYWHERE) -> None:
        """Somebody says that there is something to claim of these tasks, or anything to be seen anywhere."""
        self._lookout.hear(tasks)
        self.poke()

    def committed(self, outcome: Outcome) -> None:
        """An attempt has ended in a transaction of its own."""
        self._committed.append(type(outcome))
        if not self.store.tells_changes:
            # Jobs and events may have been stored with it, and nobody else would say so.
            self.hinted()

    @property
    def ended(self) -> Counter[type]:
        """How the attempts of this process ended, by kind of outcome; one whose claim was lost counts nowhere."""
        # Copied at one stroke: the ledger's thread may count a kind that is new to it meanwhile.
        return Counter(self._ended) + Counter(self._committed)

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

        None means: until poked. A store that cannot be written costs the askers an error, unless what they added may
        be stored. That is kept for a while, and progress and finishes for as long as it takes.
        """
        self._in_turn = True
        try:
            return self._turn()
        finally:
            self._in_turn = False

    def _turn(self) -> float | None:
        mailbox = self._shelf.take_due(self._worker) or self._collect()
        try:
            if not mailbox.hurried:
                self._lookout.ask_for(mailbox)
            if not mailbox:
                return self._rest()
            mailbox.others_run = self._run_by_others(mailbox)
            harvest = self.store.run_cycle(mailbox)
        except StorageError as error:
            return self._put_off(mailbox, error)
        except BaseException as error:
            _refuse(mailbox, error)
            raise
        if self._told:
            self._say(log.info, "the store can be written again")
            self._told.clear()
        self._trouble = 0.0
        if harvest.held or mailbox.hurried:
            self._shelf.keep(mailbox.take_out(harvest.held))
        self._tally(mailbox, harvest)
        self._hand_out(mailbox, harvest)
        self._lookout.learn(mailbox, harvest)
        self._tell_others(harvest)
        return 0.0 if self._inbox or self._lookout.wants_more else self._rest()

    def _rest(self) -> float | None:
        rests = [
            None if self._worker is None else self._lookout.rest(),
            None if self.shout is None else self.shout.pay(),
            self._shelf.rest(),
        ]
        return min((rest for rest in rests if rest is not None), default=None)

    def _tell_others(self, harvest: Harvest) -> None:
        if self.shout is not None and harvest.passed_on is not None:
            self.shout.passed_on()
        # Where a look at the database tells everybody, a worker need not say what it leaves to others.
        quiet = self._worker is not None and self.store.tells_changes
        left = set() if quiet else self._lookout.left_over(harvest.woken)
        if not left and not harvest.asked_to_stop:
            return
        tasks = EVERYWHERE if harvest.asked_to_stop or harvest.wrote_events or harvest.paid_debts else frozenset(left)
        self.hint(tasks)
        if self.shout is not None and not says_all(harvest.passed_on, tasks):
            self.shout.owe(tasks)
            self.shout.pay()

    def _run_by_others(self, mailbox: Mailbox) -> frozenset[str]:
        """The tasks of adds of which others can be told just now, as this process does not run them."""
        if self.shout is None or not self.shout.is_free:
            return frozenset()
        return frozenset(add.task for add in mailbox.adds if add.task not in self._consumers)

    def _hand_out(self, mailbox: Mailbox, harvest: Harvest) -> None:
        for task, claims in harvest.claims.items():
            if claims:
                self._consumers[task].deliver(claims)
        if harvest.deliveries and self._courier is not None:
            self._courier.deliver(harvest.deliveries)
        if harvest.lost:
            self._tell_lost(mailbox, harvest)
        for key, fence in harvest.outrun:
            for consumer in self._consumers.values():
                consumer.lost(key, fence)
        if harvest.dismissed and mailbox.worker is not None:
            self._say(log.error, "this worker was taken for dead: it claims no more")
            self.dismiss(mailbox.worker)
            self.dismissed()

    def _tell_lost(self, mailbox: Mailbox, harvest: Harvest) -> None:
        names = {(finish.claim.key, finish.claim.fence): finish.claim.name for finish in mailbox.finishes}
        for key, fence in harvest.lost:
            name = names.get((key, fence), "a job")
            self._say(
                log.warning, "%s was given to another worker, or ended: what this one did of it is not stored", name
            )
            for consumer in self._consumers.values():
                consumer.lost(key, fence)

    def _tally(self, mailbox: Mailbox, harvest: Harvest) -> None:
        lost = set(harvest.lost)
        for claim, outcome, _, _ in mailbox.finishes:
            if lost and (claim.key, claim.fence) in lost:
                continue
            kind: type = type(outcome)
            if kind is not Succeeded:
                self._say(self.tell, claim, outcome)
                if isinstance(outcome, Lost) and outcome.poisoned:
                    # A loss too many is how a job fails.
                    kind = Failed
            self._ended[kind] += 1
        self._ended.update(take(self._committed, len(self._committed)))

    def refuse(self, error: BaseException) -> None:
        """Answer everything that waits with an error: nothing will be written any more."""
        while self._inbox:
            _refuse(self._collect(), error)
        _refuse(self._shelf.take(), error)

    @property
    def is_quiet(self) -> bool:
        """Whether all that came in is written, and no event waits to be taken; from any thread.

        In this order, because what is taken out of the queues is in a turn until it is written.
        """
        return not self._inbox and not self._in_turn and not self._shelf and not self._lookout.events_wet

    @property
    def is_behind(self) -> bool:
        """Whether there is something to write, and hope that it can be written."""
        return (bool(self._inbox) or self._shelf.is_hopeful) and self._trouble < LONGEST_PAUSE

    def _collect(self) -> Mailbox:
        mailbox = self._inbox.collect(self._worker)
        if self._courier is not None:
            delivered, failed = self._courier.settled()
            mailbox.delivered += delivered
            mailbox.failed += failed
        self._shelf.divert(mailbox)
        return mailbox

    def _say(self, tell: Callable[..., None], *words: Any) -> None:
        """Whatever users' code has made of the log: a line that is lost is no reason to do nothing more."""
        try:
            tell(*words)
            if self._unsaid:
                log.warning("lines of the log that were lost before: %d", self._unsaid)
                self._unsaid = 0
        except Exception:  # noqa: BLE001 - it is said as soon as something can be said
            self._unsaid += 1

    def _put_off(self, mailbox: Mailbox, error: StorageError) -> float:
        """The store failed: tell the askers of what is not stored, keep the rest, and wait a little."""
        self._trouble = min(max(FIRST_PAUSE, self._trouble * 2), LONGEST_PAUSE)
        undecided = mailbox.take_out_undecided(self._clock.monotonic())
        _refuse(mailbox, error)
        mailbox.adds = undecided
        self._inbox.put_back(mailbox)
        if mailbox.hurried:
            # What was held is not on the shelf any more.
            self._shelf.keep(Mailbox(hurried=True))
        self._lookout.forget()
        why = str(error)
        # Where no worker has something to lose, whoever asked hears of it, and nobody else need.
        if self._worker is not None and why not in self._told:
            self._told.add(why)
            self._say(log.error, "the store cannot be written: %s", why)
        return self._trouble


def _refuse(mailbox: Mailbox, error: BaseException) -> None:
    for add in mailbox.adds:
        add.refuse(error)
    for errand in mailbox.errands:
        errand.ticket.reject(error)
