"""The pulse of a worker: a thread that says twice a second how it is, and notices when its loop does not turn.

A handler that keeps the interpreter to itself stops this thread too. Then the supervisor hears nothing, and
judges by that.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

from yaotask.channel import Channel, Message
from yaotask.clock import Clock
from yaotask.runtime import calling, herald, slots
from yaotask.runtime.attempt import Attempt
from yaotask.runtime.calling import Call
from yaotask.runtime.hooks import MESSENGERS
from yaotask.runtime.pool import Pool
from yaotask.runtime.stacks import stack_of

log = logging.getLogger(__name__)

EVERY = 0.5
TURN = 0.25
# A loop that has not turned for so many seconds is blocked. It is noticed within 2 s.
BLOCKED_AFTER = 1.4
# So many of those that may block it are named.
MOST_NAMED = 5


class Pulse:
    """Beats for the pools of one worker; a process without any just says that it lives."""

    def __init__(
        self,
        channel: Channel,
        clock: Clock,
        pools: Sequence[Pool] = (),
        *,
        ended: Callable[[], Counter[str]] = Counter,
        is_helpless: Callable[[], bool] = lambda: False,
        late_hooks: Callable[[], Sequence[Call]] = lambda: (),
        cancel_grace: float = 0.0,
        hook_timeout: float = 0.0,
    ) -> None:
        self._channel = channel
        self._clock = clock
        self._pools = pools
        self._ended = ended
        self._is_helpless = is_helpless
        self._late_hooks = late_hooks
        self._cancel_grace = cancel_grace
        self._hook_timeout = hook_timeout
        self._turned = self._looked = clock.monotonic()
        # When a job was last seen to block the loop.
        self._by_job = self._turned
        self._blocked: Message | None = None
        self._loop_thread = 0
        # Since when each zombie on the loop has been seen, by attempt.
        self._seen: dict[Attempt, float] = {}
        # The same of hooks.
        self._late_since: dict[Call, float] = {}
        self._is_turning = True
        self._over = threading.Event()

    @contextmanager
    def beating(self) -> Iterator[None]:
        """Beat while the block lasts, in which the loop has to call `turn`."""
        self._loop_thread = threading.get_ident()
        self._turned = self._looked = self._clock.monotonic()
        thread = threading.Thread(target=self._run, name="yaotask-pulse", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._over.set()

    async def turn(self) -> None:
        """Show that the loop turns, until cancelled."""
        while True:
            self._turned = self._clock.monotonic()
            await self._clock.sleep(TURN)

    # --- the thread -------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._over.wait(EVERY):
            self._look_at_loop()
            if not self._channel.send({"beat": self._beat()}):
                return

    def _beat(self) -> Message:
        zombies = {pool.work.task: pool.zombies() for pool in self._pools}
        return {
            "ended": dict(self._ended()),
            "zombies": {task: len(some) for task, some in zombies.items() if some},
            "stuck": self._stuck(zombies),
            "blocked": self._blocked,
        }

    # --- the loop ---------------------------------------------------------------------------------------

    def _look_at_loop(self) -> None:
        now = self._clock.monotonic()
        paused, self._looked = now - self._looked > BLOCKED_AFTER, now
        age = now - self._turned
        self._is_turning = not paused and age <= BLOCKED_AFTER
        if paused:
            return  # all of this process stood still; the loop gets its chance first
        if age > BLOCKED_AFTER:
            self._hold(age, now)
        elif self._blocked is not None:
            self._blocked = None
            log.warning("the event loop turns again")
            for pool in self._pools:
                pool.on_hold = False
                pool.ledger.poke()

    def _hold(self, age: float, now: float) -> None:
        frame = sys._current_frames().get(self._loop_thread)
        attempt = _attempt_in(frame)
        suspects = [] if attempt is not None or _is_of_hook(frame) else self._on_loop()
        if self._blocked is None and frame is not None:
            names = ", ".join(one.job.name for one in suspects[:MOST_NAMED])
            who = attempt.job.name if attempt is not None else f"something (of {names}?)" if names else "something"
            text = "%s has blocked the event loop for %.1f s, and with it all other jobs; this is where it is:"
            log.error(text, who, age, extra={"yaotask_stack": stack_of(frame)})
        # Again each time: a batch that was on its way may have come meanwhile.
        for pool in self._pools:
            pool.hold()
        self._blocked = self._blame(attempt, suspects, age, now)

    def _on_loop(self) -> list[Attempt]:
        """The attempts whose handlers live on the loop: what they have started there is not seen to be theirs."""
        return [one for pool in self._pools for one in pool.attempts() if one.stop is not None]

    def _blame(self, attempt: Attempt | None, suspects: Sequence[Attempt], age: float, now: float) -> Message:
        if suspects:
            self._by_job = now
            late = [one.job.claim for one in suspects if now > one.deadline + self._cancel_grace]
            return {"job": None, "suspects": [[one.key, one.fence] for one in late], "overdue": bool(late)}
        if attempt is None or attempt.job.over:
            # A hook, or what users' code left on the loop; or a handler whose job has ended without it.
            # Jobs that block it one after the other leave it no turn between them: their time is not counted.
            return {"job": None, "overdue": min(age, now - self._by_job) > self._hook_timeout + self._cancel_grace}
        self._by_job = now
        claim = attempt.job.claim
        return {"job": [claim.key, claim.fence], "overdue": now > attempt.deadline + self._cancel_grace}

    # --- zombies ----------------------------------------------------------------------------------------

    def _stuck(self, zombies: dict[str, list[Attempt]]) -> dict[str, str]:
        """The tasks that only another process can help, with the reason."""
        now = self._clock.monotonic()
        alive = {attempt for some in zombies.values() for attempt in some}
        self._seen = {attempt: self._seen.get(attempt, now) for attempt in alive}
        stuck = {}
        for pool in self._pools:
            some = zombies[pool.work.task]
            old = [attempt for attempt in some if now - self._seen[attempt] > self._cancel_grace]
            if any(attempt.stop is not None for attempt in old):
                stuck[pool.work.task] = "a handler goes on although it was cancelled"
            elif old and len(old) >= pool.work.worker_nums:
                stuck[pool.work.task] = "handlers that do not end hold all its places"
            elif pool.has_dead_threads:
                stuck[pool.work.task] = "a thread that ran its handlers has died"
        if (why := self._why_hooks_are_stuck(now)) is not None:
            stuck["hooks"] = why
        if self._is_helpless():
            stuck["child processes"] = "none can be started: what runs here has used up its open files (ulimit -n)"
        return stuck

    def _why_hooks_are_stuck(self, now: float) -> str | None:
        """Why another process should deliver, as what hooks do here does not end."""
        # A loop that does not turn can cancel nothing, and it is not they who block it.
        late = self._late_hooks() if self._is_turning else ()
        self._late_since = {call: self._late_since.get(call, now) for call in late}
        old = [call for call, since in self._late_since.items() if now - since > self._cancel_grace]
        if any(call.is_async for call in old):
            return "one goes on although it was cancelled"
        return "those that do not end hold too many threads" if len(old) >= MESSENGERS else None


def _is_of_hook(frame: FrameType | None) -> bool:
    """Whether a thread is in users' code that was called as a hook."""
    while frame is not None:
        if frame.f_code.co_filename in (calling.__file__, herald.__file__):
            return True
        frame = frame.f_back
    return False


def _attempt_in(frame: FrameType | None) -> Attempt | None:
    """The attempt whose handler a thread is in, as the frame of its slot knows it."""
    while frame is not None:
        if frame.f_code.co_filename == slots.__file__:
            found: Any = frame.f_locals.get("attempt")
            if isinstance(found, Attempt):
                return found
        frame = frame.f_back
    return None
