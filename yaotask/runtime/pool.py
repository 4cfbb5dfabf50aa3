"""A pool: the jobs of one task on this node. Demand, claim, execute, finish."""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextvars import Context
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from yaotask.bell import Bell
from yaotask.clock import Clock
from yaotask.context import Job
from yaotask.invoke import Handler
from yaotask.jobs import Cancelled, Claim, Outcome, Succeeded
from yaotask.runtime.attempt import Attempt
from yaotask.runtime.backlog import Backlog
from yaotask.runtime.children import Children
from yaotask.runtime.execute import INTERRUPTED, Policy, timed_out
from yaotask.runtime.pace import Pace
from yaotask.runtime.slots import LoopSlot, ThreadSlot
from yaotask.runtime.spawner import Spawner
from yaotask.store.ledger import Ledger
from yaotask.store.protocol import Finish

if TYPE_CHECKING:
    from yaotask.runtime.deadlines import Deadlines
    from yaotask.runtime.desk import JobDesk

log = logging.getLogger(__name__)

# Seconds until a thread is asked for again that the system would not start.
NO_THREAD = 0.5


@dataclass(frozen=True, slots=True)
class Work:
    """What a pool does: the handler of a task, how many at once, and the rules of its attempts."""

    task: str
    handler: Handler
    worker_nums: int
    policy: Policy
    claim_batch: int | None = None
    # How many seconds a handler may take to end once its cancellation was asked for.
    cancel_grace: float = 5.0


class Pool:
    """Runs the claims of one task in at most `worker_nums` slots, which are made as they are needed.

    The ledger's thread asks for `demand` and brings claims with `deliver`; slots take them from one
    queue, in order. Everything else belongs to the loop.
    """

    def __init__(
        self, work: Work, ledger: Ledger, clock: Clock, desk: JobDesk, deadlines: Deadlines, children: Children
    ) -> None:
        self.work = work
        self.ledger = ledger
        self.clock = clock
        self.desk = desk
        self.deadlines = deadlines
        self.children = children
        # What slots copy for each job, so that nothing of one job reaches the next.
        self.context = Context()
        self.idle: deque[LoopSlot] = deque()
        self.backlog = Backlog(work.handler.holds_a_thread)
        self.waits_for_hooks = desk.herald is not None
        self._pace = Pace(clock, work.worker_nums)
        self._bell: Bell | None = None
        self._spawner: Spawner | None = None
        self._loop_slots: list[LoopSlot] = []
        self._thread_slots: list[ThreadSlot] = []
        self._stopping = False
        # Whether a thread is to be started as soon as the system has one.
        self._lacks_threads = False
        # While the loop does not turn, nothing is claimed.
        self.on_hold = False
        self._pid = os.getpid()

    def open(self, spawner: Spawner, context: Context) -> None:
        """Begin to work on the running loop."""
        self._spawner, self.context, self._bell = spawner, context, Bell.of_this_loop()
        self.desk.open(spawner)
        self.deadlines.watch(self)

    # --- the ledger's side --------------------------------------------------------------------------

    def demand(self) -> int:
        """How many claims to bring now: one for each free slot, and what will be started very soon."""
        if self._stopping or self.on_hold:
            return 0
        finished = self.finished
        free = self.work.worker_nums - (self.backlog.delivered - finished)
        wanted = free + self._pace.ahead(finished, sum(slot.busy for slot in self._slots))
        return min(wanted, self.work.claim_batch or wanted)

    def deliver(self, claims: Sequence[Claim]) -> None:
        """Run these; called on the ledger's thread."""
        self.backlog.add(claims)
        if self._bell is not None:
            self._bell.call(self._staff)

    def lost(self, key: int, fence: int) -> None:
        """Stop the attempt whose claim is no longer ours; called on the ledger's thread."""
        if self._bell is not None:
            self._bell.call(lambda: self._drop(key, fence))

    def cancelled(self, key: int, fence: int) -> bool:
        """Make the attempt of this claim end; False where there is none. Called on the ledger's thread."""
        attempt = self._attempt_of(key, fence)
        if attempt is None or self._bell is None:
            return False
        # Already here: a handler in a thread shall hear of it though the loop is blocked.
        attempt.ask_to_stop()
        self._bell.call(lambda: self._cancel(attempt))
        return True

    # --- the loop's side -----------------------------------------------------------------------------

    @property
    def finished(self) -> int:
        """How many claims have left the pool; from any thread."""
        return self.backlog.handed_back + sum(slot.done for slot in self._slots)

    @property
    def _slots(self) -> tuple[LoopSlot | ThreadSlot, ...]:
        return (*self._loop_slots, *self._thread_slots)

    def attempts(self) -> Iterator[Attempt]:
        """What runs now, and has not been ended by somebody else than its handler."""
        for slot in self._slots:
            attempt = slot.attempt
            if attempt is not None and not attempt.job.over:
                yield attempt

    def zombies(self) -> list[Attempt]:
        """Attempts that have been ended, but whose handlers hold their places still; from any thread."""
        return [attempt for slot in self._slots if (attempt := slot.attempt) is not None and attempt.job.over]

    @property
    def has_dead_threads(self) -> bool:
        """Whether threads of its places have ended unasked, for want of memory as a rule; from any thread.

        Nobody runs what one of them had taken.
        """
        return not self._stopping and any(slot.has_ended for slot in self._thread_slots)

    def hold(self) -> None:
        """Claim nothing until `on_hold` is lifted, and hand back what was not started; from any thread."""
        self.on_hold = True
        self.backlog.hand_back(self.give_back)

    def _staff(self) -> None:
        """Call idle slots to the claims that wait, and make new ones while there may be more."""
        waiting = self.backlog.unpack()
        if self._stopping:
            self.backlog.hand_back(self.give_back)
        elif self.work.handler.holds_a_thread:
            self._staff_threads()
        else:
            self._staff_loop(waiting)

    def _staff_loop(self, calls: int) -> None:
        while calls > 0 and self.idle:
            self.idle.popleft().call()
            calls -= 1
        while calls > 0 and len(self._loop_slots) < self.work.worker_nums and self._spawner is not None:
            slot = LoopSlot(self)
            self._loop_slots.append(slot)
            self._spawner.start(slot.run)
            calls -= 1

    def _staff_threads(self) -> None:
        held = self.backlog.delivered - self.finished
        while len(self._thread_slots) < min(self.work.worker_nums, held):
            slot = ThreadSlot(self)
            try:
                slot.start(self.context.copy())
            except RuntimeError as error:
                log.error("%s: no thread could be started for a handler, will try again: %s", self.work.task, error)
                self._staff_later()
                return
            self._thread_slots.append(slot)

    def _staff_later(self) -> None:
        if self._spawner is not None and not self._lacks_threads:
            self._lacks_threads = True
            self._spawner.start(self._staff_again)

    async def _staff_again(self) -> None:
        await self.clock.sleep(NO_THREAD)
        self._lacks_threads = False
        self._staff()

    def start(self, work: Callable[[Claim], Coroutine[Any, Any, None]], claim: Claim) -> None:
        """Have a claim of a thread run on the loop; from any thread."""
        if self._bell is not None and self._spawner is not None:
            self._bell.call(partial(self._spawner.start, partial(work, claim)))

    def begin(self, claim: Claim, stop: Callable[[], None] | None, cancel: Callable[[], None] | None = None) -> Attempt:
        """An attempt of the claim starts now; see Attempt."""
        policy = self.work.policy
        job = Job(claim, self.desk, self.clock.now(), policy.attempts_of(claim), policy.timeout_of(claim))
        return Attempt(job, self.clock.monotonic(), stop, cancel)

    def judge(self, attempt: Attempt, outcome: Outcome) -> Outcome:
        """What counts of how a handler ended: the timeout, where it came back late and nobody could tell the time."""
        if os.getpid() != self._pid:
            # A child that the handler forked must not go on as a second worker.
            os._exit(0 if type(outcome) is Succeeded else 1)
        if attempt.job.over or attempt.cancelling or self.clock.monotonic() <= attempt.deadline:
            return outcome
        log.warning("%s ended after its timeout unseen: does a handler block the event loop?", attempt.job.name)
        return timed_out(attempt.job.claim, self.work.policy)

    def end(self, attempt: Attempt, outcome: Outcome) -> int:
        """Have the end of an attempt stored, unless it was ended before; how many microseconds it took.

        With its cancellation asked for, all but a success counts as Cancelled.
        """
        job, now = attempt.job, self.clock.now()
        if attempt.close():
            if attempt.cancelling and type(outcome) is not Succeeded:
                outcome = Cancelled()
            self.desk.leave_word(job)
            self.ledger.finish(Finish(job.claim, outcome, job.started, now))
        return now - job.started

    def time_out(self, attempt: Attempt) -> None:
        """End an attempt whose time is up, as far as its handler can be ended."""
        attempt.job.ask_to_stop()
        self.end(attempt, timed_out(attempt.job.claim, self.work.policy))
        self._halt(attempt)

    def _halt(self, attempt: Attempt) -> None:
        if attempt.stop is not None:
            attempt.stop()
        self.desk.expire(attempt)

    def _attempt_of(self, key: int, fence: int) -> Attempt | None:
        for attempt in self.attempts():
            if attempt.job.claim.key == key and attempt.job.claim.fence == fence:
                return attempt
        return None

    def _drop(self, key: int, fence: int) -> None:
        attempt = self._attempt_of(key, fence)
        if attempt is not None and attempt.close():
            attempt.job.ask_to_stop()
            self._halt(attempt)

    def _cancel(self, attempt: Attempt) -> None:
        """Ask a handler to end, and give it until the grace is over; one in a thread has until its timeout."""
        if attempt.job.over or attempt.outcome is not None:
            return
        if attempt.stop is not None:
            attempt.deadline = min(attempt.deadline, self.clock.monotonic() + self.work.cancel_grace)
            self.deadlines.wake_by(attempt.deadline)
        if attempt.cancel is not None:
            attempt.cancel()

    # --- the end ----------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Start nothing more; what was not started goes back to the queue, untried (T10)."""
        self._stopping = True
        self.backlog.hand_back(self.give_back)

    def give_back(self, claim: Claim) -> None:
        """Have a claim that was not started stored as one that goes back to the queue."""
        now = self.clock.now()
        self.ledger.finish(Finish(claim, INTERRUPTED, now, now))

    def interrupt(self) -> None:
        """End the attempts that still run: they go back to the queue, untried (T10)."""
        for attempt in list(self.attempts()):
            attempt.job.ask_to_stop()
            self.end(attempt, attempt.outcome or INTERRUPTED)
            self._halt(attempt)

    def dissolve(self) -> list[ThreadSlot]:
        """Let all slots end; the answer is those whose threads are still held by a handler."""
        for slot in self._loop_slots:
            slot.end()
        for waiting in self._thread_slots:
            waiting.end()
        return [slot for slot in self._thread_slots if slot.attempt is not None or not slot.join(1.0)]
