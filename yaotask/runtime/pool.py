"""A pool: the jobs of one task on this node. Demand, claim, execute, finish."""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextvars import Context
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from yaotask.bell import Bell
from yaotask.clock import Clock
from yaotask.context import Job
from yaotask.invoke import Handler
from yaotask.jobs import Claim, Interrupted, Outcome, Succeeded
from yaotask.runtime.attempt import Attempt
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


@dataclass(frozen=True, slots=True)
class Work:
    """What a pool does: the handler of a task, how many at once, and the rules of its attempts."""

    task: str
    handler: Handler
    worker_nums: int
    policy: Policy
    claim_batch: int | None = None


class Pool:
    """Runs the claims of one task in at most `worker_nums` slots, which are made as they are needed.

    The ledger's thread asks for `demand` and brings claims with `deliver`; slots take them from one
    queue, in order. Everything else belongs to the loop.
    """

    def __init__(self, work: Work, ledger: Ledger, clock: Clock, desk: JobDesk, deadlines: Deadlines) -> None:
        self.work = work
        self.ledger = ledger
        self.clock = clock
        self.desk = desk
        self.deadlines = deadlines
        # What slots copy for each job, so that nothing of one job reaches the next.
        self.context = Context()
        self.idle: deque[LoopSlot] = deque()
        self.waits_for_hooks = desk.herald is not None
        self._pace = Pace(clock, work.worker_nums)
        self._bell: Bell | None = None
        self._spawner: Spawner | None = None
        self._loop_slots: list[LoopSlot] = []
        self._thread_slots: list[ThreadSlot] = []
        # As they come from the ledger's thread, which has no time to read them.
        self._batches: deque[Sequence[Claim]] = deque()
        self._waiting: deque[Claim] = deque()
        self._queue: SimpleQueue[Claim | None] = SimpleQueue()
        self._delivered = 0
        self._handed_back = 0
        self._stopping = False
        self._pid = os.getpid()

    def open(self, spawner: Spawner, context: Context) -> None:
        """Begin to work on the running loop."""
        self._spawner, self.context, self._bell = spawner, context, Bell.of_this_loop()
        self.desk.open(spawner)
        self.deadlines.watch(self)

    # --- the ledger's side --------------------------------------------------------------------------

    def demand(self) -> int:
        """How many claims to bring now: one for each free slot, and what will be started very soon."""
        if self._stopping:
            return 0
        finished = self.finished
        free = self.work.worker_nums - (self._delivered - finished)
        wanted = free + self._pace.ahead(finished, sum(slot.busy for slot in self._slots))
        return min(wanted, self.work.claim_batch or wanted)

    def deliver(self, claims: Sequence[Claim]) -> None:
        """Run these; called on the ledger's thread."""
        self._delivered += len(claims)
        self._batches.append(claims)
        if self._bell is not None:
            self._bell.call(self._staff)

    def lost(self, key: int, fence: int) -> None:
        """Stop the attempt whose claim is no longer ours; called on the ledger's thread."""
        if self._bell is not None:
            self._bell.call(lambda: self._drop(key, fence))

    # --- the loop's side -----------------------------------------------------------------------------

    @property
    def finished(self) -> int:
        """How many claims have left the pool; from any thread."""
        return self._handed_back + sum(slot.done for slot in self._slots)

    @property
    def _slots(self) -> tuple[LoopSlot | ThreadSlot, ...]:
        return (*self._loop_slots, *self._thread_slots)

    def attempts(self) -> Iterator[Attempt]:
        """What runs now, and has not been ended by somebody else than its handler."""
        for slot in self._slots:
            attempt = slot.attempt
            if attempt is not None and not attempt.job.over:
                yield attempt

    def _staff(self) -> None:
        """Call idle slots to the claims that wait, and make new ones while there may be more."""
        self._unpack()
        if self._stopping:
            self._hand_back()
        elif self.work.handler.is_async:
            self._staff_loop()
        else:
            self._staff_threads()

    def _unpack(self) -> None:
        """Read the batches that have come."""
        while self._batches:
            claims = self._batches.popleft()
            if self.work.handler.is_async:
                self._waiting.extend(claims)
            else:
                for claim in claims:
                    self._queue.put(claim)

    def _staff_loop(self) -> None:
        calls = len(self._waiting)
        while calls > 0 and self.idle:
            self.idle.popleft().call()
            calls -= 1
        while calls > 0 and len(self._loop_slots) < self.work.worker_nums and self._spawner is not None:
            slot = LoopSlot(self)
            self._loop_slots.append(slot)
            self._spawner.start(slot.run)
            calls -= 1

    def _staff_threads(self) -> None:
        held = self._delivered - self.finished
        while len(self._thread_slots) < min(self.work.worker_nums, held):
            slot = ThreadSlot(self, self._queue)
            self._thread_slots.append(slot)
            slot.start(self.context.copy())

    def next_claim(self) -> Claim | None:
        """The claim that is to be run next."""
        if not self._waiting:
            self._unpack()
        return self._waiting.popleft() if self._waiting else None

    def begin(self, claim: Claim, stop: Callable[[], None]) -> Attempt:
        """An attempt of the claim starts now."""
        policy = self.work.policy
        job = Job(claim, self.desk, self.clock.now(), policy.attempts_of(claim), policy.timeout_of(claim))
        return Attempt(job, self.clock.monotonic(), stop)

    def judge(self, attempt: Attempt, outcome: Outcome) -> Outcome:
        """What counts of how a handler ended: the timeout, where it came back late and nobody could tell the time."""
        if os.getpid() != self._pid:
            # A child that the handler forked must not go on as a second worker.
            os._exit(0 if type(outcome) is Succeeded else 1)
        if attempt.job.over or self.clock.monotonic() <= attempt.deadline:
            return outcome
        log.warning("%s ended after its timeout unseen: does a handler block the event loop?", attempt.job.name)
        return timed_out(attempt.job.claim, self.work.policy)

    def end(self, attempt: Attempt, outcome: Outcome) -> int:
        """Have the end of an attempt stored, unless it was ended before; how many microseconds it took."""
        job, now = attempt.job, self.clock.now()
        if attempt.close():
            self.desk.leave_word(job)
            self.ledger.finish(Finish(job.claim, outcome, job.started, now))
        return now - job.started

    def time_out(self, attempt: Attempt) -> None:
        """End an attempt whose time is up, as far as its handler can be ended."""
        attempt.job.cancelled = True
        self.end(attempt, timed_out(attempt.job.claim, self.work.policy))
        self._halt(attempt)

    def _halt(self, attempt: Attempt) -> None:
        attempt.stop()
        self.desk.expire(attempt)

    def _drop(self, key: int, fence: int) -> None:
        for attempt in self.attempts():
            if attempt.job.claim.key == key and attempt.job.claim.fence == fence and attempt.close():
                attempt.job.cancelled = True
                self._halt(attempt)

    # --- the end ----------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Start nothing more; what was not started goes back to the queue, untried (T10)."""
        self._stopping = True
        self._hand_back()

    def _hand_back(self) -> None:
        self._unpack()
        for claim in self._unstarted():
            now = self.clock.now()
            self._handed_back += 1
            self.ledger.finish(Finish(claim, Interrupted(), now, now))

    def _unstarted(self) -> Iterator[Claim]:
        while (claim := self.next_claim()) is not None:
            yield claim
        while True:
            try:
                queued = self._queue.get_nowait()
            except Empty:
                return
            if queued is not None:
                yield queued

    def interrupt(self) -> None:
        """End the attempts that still run: they go back to the queue, untried (T10)."""
        for attempt in list(self.attempts()):
            attempt.job.cancelled = True
            self.end(attempt, attempt.outcome or INTERRUPTED)
            self._halt(attempt)

    def dissolve(self) -> list[ThreadSlot]:
        """Let all slots end; the answer is those whose threads are still held by a handler."""
        for slot in self._loop_slots:
            slot.end()
        for _ in self._thread_slots:
            self._queue.put(None)
        return [slot for slot in self._thread_slots if slot.attempt is not None or not slot.join(1.0)]
