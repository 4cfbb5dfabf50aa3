"""Notices what hangs in the processes of a node, and has it ended: by what they say, and by what they do not say."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from datetime import timedelta

import anyio
import anyio.to_thread

from yaotask import processes
from yaotask.clock import SECOND, Clock
from yaotask.errors import StorageError
from yaotask.jobs import Claim
from yaotask.runtime import hangs
from yaotask.runtime.estate import Legacy
from yaotask.runtime.execute import Policy, timed_out
from yaotask.runtime.life import Life
from yaotask.runtime.stacks import users_stacks
from yaotask.runtime.ward import Ward
from yaotask.store import presence
from yaotask.store.access import Access
from yaotask.store.protocol import Finish

log = logging.getLogger(__name__)

EVERY = 0.25
# Processes speak twice a second. One that has not been heard of for so long hangs, or its machine does.
SILENT_AFTER = 1.5
# One that has no job to be judged by may be silent for so long.
IDLE_SILENCE = 30.0
# How long a process may take to write down what its threads do.
ANSWER = 0.1
# Loading the project's scripts may take its time; after so many seconds we say that we wait for it.
SLOW_START = 30.0
# How long to wait for the store to say what a process has claimed.
LONGEST_LOOK = 2.0
# A clock that is set by fewer seconds changes little.
JUMP = 1.0
# Milliseconds for a job of a task that is not known here, as for one whose definition names none.
TIMEOUT_UNKNOWN = 300_000


class Watch:
    """Looks at all wards of a node, again and again."""

    def __init__(
        self,
        wards: Sequence[Ward],
        access: Access,
        clock: Clock,
        policy_of: Callable[[str], Policy | None],
        *,
        grace: float,
        cancel_grace: timedelta,
        root: str,
    ) -> None:
        self._wards = wards
        self._access = access
        self._clock = clock
        self._policy_of = policy_of
        self._grace = grace
        self._cancel_grace = cancel_grace // timedelta(microseconds=1)
        self._root = root
        self._looked = clock.monotonic()
        self._bystanders = hangs.Bystanders()
        # How far the clock is ahead of the monotonic one, in seconds; and the time to which it has jumped last.
        self._offset: float | None = None
        self._jumped: int | None = None
        # Whether the store has not answered yet what it was asked.
        self._is_asking = False

    async def run(self) -> None:
        """Look, until cancelled."""
        while True:
            now = self._clock.monotonic()
            paused, self._looked = now - self._looked > SILENT_AFTER, now
            self._look_at_clock()
            # When we ourselves stood still, what they have said meanwhile is still to be read.
            if not paused:
                for ward in self._wards:
                    if ward.life is not None:
                        await self._look_at(ward, ward.life, now)
            if os.getpid() == 1:
                processes.reap_strays({ward.life.spawned.pid for ward in self._wards if ward.life is not None})
            await self._clock.sleep(EVERY)

    async def _look_at(self, ward: Ward, life: Life, now: float) -> None:
        if life.spawned.ended():
            # What it started may still hold its end of the channel.
            life.scope.cancel()
        elif life.legacy is not None:
            return  # it has been killed; a big one takes its time
        elif life.due is not None and now > life.due:
            what = "holds on although it has left" if life.left else "did not end in time: its jobs are handed back"
            log.warning("%s %s; it is killed", ward.place.name, what)
            ward.end(life)
        elif life.left or life.complaint is not None:
            return  # it says no more
        elif life.worker is None:
            self._look_at_start(ward, life, now)
        elif now - life.heard > SILENT_AFTER:
            await self._look_at_silence(ward, life, now)
        else:
            await self._look_at_words(ward, life)

    def _look_at_start(self, ward: Ward, life: Life, now: float) -> None:
        if now - life.born > SLOW_START and not life.is_slow:
            life.is_slow = True
            log.warning(
                "%s has been loading for %g s; what a script does at its import comes first",
                ward.place.name,
                SLOW_START,
            )

    # --- what it says -----------------------------------------------------------------------------------

    async def _look_at_words(self, ward: Ward, life: Life) -> None:
        if life.silent:
            life.silent = False
            log.info("%s answers again", ward.place.name)
        blocked = life.beat.get("blocked")
        if blocked and blocked["overdue"]:
            await self._end_blocked(ward, life, blocked["job"], blocked.get("suspects", ()))
        elif life.beat.get("stuck") and not life.draining:
            for task, why in life.beat["stuck"].items():
                log.error("%s is replaced: %s: %s", ward.place.name, task, why)
            await ward.replace(life, self._grace)

    async def _end_blocked(
        self, ward: Ward, life: Life, job: tuple[int, int] | None, suspects: Sequence[Sequence[int]]
    ) -> None:
        if suspects:
            await self._end_suspected(ward, life, {(key, fence) for key, fence in suspects})
        elif job is None:
            log.error("%s is ended: its event loop is blocked by what is no job, a hook for example", ward.place.name)
            ward.end(life)
        elif (held := await self._held(life)) is not None:
            verdict = hangs.blame(held, *job)
            if verdict:
                self._convict(ward, life, verdict)
            else:
                self._look_at_disowned(ward, life)

    async def _end_suspected(self, ward: Ward, life: Life, suspects: Collection[tuple[int, int]]) -> None:
        """One of these must have started what blocks the loop. All run alone next time, where each can be ended."""
        held = await self._held(life)
        if held is None or life.worker is None:
            return
        found = [claim for claim, _ in held if (claim.key, claim.fence) in suspects]
        names = ", ".join(claim.name for claim in found) or "a job that it does not have any more"
        log.error("%s is ended: its event loop is blocked by what one of these has started: %s", ward.place.name, names)
        ward.end(life, Legacy(life.worker, suspects=frozenset(claim.key for claim in found)))

    def _look_at_disowned(self, ward: Ward, life: Life) -> None:
        """What blocks it is no job of its own any more: it was cancelled, or it has ended since the last beat."""
        doubted, life.doubted = life.doubted, life.beat
        # A later beat that says the same knows that it has not ended.
        if doubted is not None and doubted is not life.beat and doubted["blocked"] == life.beat["blocked"]:
            log.error("%s is ended: its event loop is blocked by a job that it does not have any more", ward.place.name)
            ward.end(life)

    # --- what it does not say ---------------------------------------------------------------------------

    async def _look_at_silence(self, ward: Ward, life: Life, now: float) -> None:
        if not life.silent:
            life.silent = True
            await self._tell_silence(ward, life, now - life.heard)
        held = await self._held(life)
        if held == [] and now - life.heard > IDLE_SILENCE:
            log.error("%s is ended: it has not answered for %g s, and has no job", ward.place.name, IDLE_SILENCE)
            ward.end(life)
        elif held:
            self._convict(ward, life, self._judge(held))

    async def _tell_silence(self, ward: Ward, life: Life, seconds: float) -> None:
        held = await self._held(life) or []
        names = ", ".join(claim.name for claim, _ in held[:5]) + (f" and {len(held) - 5} more" if len(held) > 5 else "")
        stacks = await self._stacks(life)
        log.error(
            "%s (process %d) has not answered for %.1f s; it has %s; %s",
            ward.place.name,
            life.spawned.pid,
            seconds,
            names or "no job",
            "this is where its threads are:" if stacks else "it may have been stopped, for it does nothing at all",
            extra={"yaotask_stack": stacks},
        )

    async def _stacks(self, life: Life) -> str:
        """Where the threads of a process are."""
        life.spawned.ask_for_stacks()
        await self._clock.sleep(ANSWER)
        return users_stacks(life.spawned.stacks_told(), self._root)

    def _judge(self, held: Sequence[hangs.Held]) -> hangs.Verdict:
        now = self._look_at_clock()
        verdict = hangs.judge(held, now, self._timeout_of, self._cancel_grace, self._jumped)
        return self._bystanders.reconsider(verdict, held, now) if verdict else verdict

    def _look_at_clock(self) -> int:
        """What time it is; a jump since the last look is noted."""
        now = self._clock.now()
        offset, before = now / SECOND - self._clock.monotonic(), self._offset
        self._offset = offset
        if before is not None and abs(offset - before) > JUMP:
            self._jumped = now
        return now

    def _timeout_of(self, claim: Claim) -> int:
        policy = self._policy_of(claim.task)
        if policy is not None:
            return policy.timeout_of(claim)
        # A worker that was started later may know tasks that we do not.
        return TIMEOUT_UNKNOWN if claim.timeout is None else claim.timeout

    # --- the end ----------------------------------------------------------------------------------------

    def _convict(self, ward: Ward, life: Life, verdict: hangs.Verdict) -> None:
        if not verdict or life.worker is None:
            return
        overdue, suspects = [], set(verdict.suspects)
        if not verdict.culprits:
            text = "%s is ended: it has not answered beyond the timeouts of %d jobs, which run again alone"
            log.error(text, ward.place.name, len(suspects))
        for claim, started in verdict.culprits:
            log.error(
                "%s is ended: %s took longer than its timeout, and cannot be ended otherwise",
                ward.place.name,
                claim.name,
            )
            policy = self._policy_of(claim.task)
            if policy is None:
                suspects.add(claim.key)
            else:
                ended = started or claim.claimed_at, self._clock.now()
                overdue.append(Finish(claim, timed_out(claim, policy), *ended))
        ward.end(life, Legacy(life.worker, overdue=overdue, suspects=frozenset(suspects)))

    async def _held(self, life: Life) -> list[hangs.Held] | None:
        """What the process has claimed; None while the store cannot be read, or does not answer."""
        if life.worker is None:
            return []
        held: list[hangs.Held] | None = None
        if not self._is_asking:
            # Others are to be looked at meanwhile, and what does not end in time is to be killed.
            with anyio.move_on_after(LONGEST_LOOK), suppress(StorageError, RuntimeError):  # or there is no thread
                held = await anyio.to_thread.run_sync(self._read, life.worker, abandon_on_cancel=True)
        return held

    def _read(self, worker: int) -> list[hangs.Held]:
        # Said by the thread itself: one that never came to run would leave it said for ever.
        self._is_asking = True
        try:
            with self._access.opened.store.reading() as connection:
                return presence.claims_of(connection, worker)
        finally:
            self._is_asking = False
