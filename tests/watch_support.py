"""A watch over one worker that claims from a real store, on a clock that stands still between its looks."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace
from typing import Any, NoReturn, cast

import anyio
import anyio.lowlevel
from reach_support import Reach
from runtime_support import PATIENCE, a_policy
from store_support import Bench, ManualClock

from yaotask.clock import SECOND
from yaotask.errors import StorageBusy
from yaotask.jobs import Claim
from yaotask.processes import Spawned
from yaotask.runtime.estate import Legacy
from yaotask.runtime.execute import Policy
from yaotask.runtime.life import Life
from yaotask.runtime.ward import Ward
from yaotask.runtime.watch import EVERY, Watch
from yaotask.store.protocol import Started

GRACE = 25.0
CANCEL_GRACE = 5
TIMEOUT = 60
DUMP = 'Thread 1 (most recent call first):\n  File "/srv/app/scripts/mail.py", line 3 in Send'


class Process:
    """What was spawned, as far as it is looked at."""

    pid = 4711

    def __init__(self) -> None:
        self.is_over = False
        self.asked = 0

    def ended(self) -> bool:
        return self.is_over

    def ask_for_stacks(self) -> None:
        self.asked += 1

    def stacks_told(self) -> str:
        return DUMP if self.asked else ""


class Kept:
    """A ward with one process, and notes of what was done to it."""

    def __init__(self, worker: int) -> None:
        self.place = SimpleNamespace(name="worker 1")
        self.process = Process()
        self.life: Life | None = Life(cast(Spawned, self.process), 0.0, 0.0, worker=worker)
        self.ends: list[Legacy | None] = []
        self.replaced: list[float] = []

    def end(self, life: Life, legacy: Legacy | None = None) -> None:
        self.ends.append(legacy)
        self.life = None

    async def replace(self, life: Life, grace: float) -> None:
        life.draining = True
        self.replaced.append(grace)

    @property
    def living(self) -> Life:
        assert self.life is not None
        return self.life


class Guard:
    """What a test does to the worker, and lets the watch see."""

    def __init__(self, bench: Bench, worker: int) -> None:
        self.bench = bench
        self.clock = bench.clock
        self.ward = Kept(worker)
        self.reach = Reach(bench)
        self.policies: dict[str, Policy] = {"mail": a_policy(timeout_ms=TIMEOUT * 1_000)}
        self.worker = worker

    async def look(self, times: int = 1, *, silent: bool = False, pause: float = 0, jump: int = 0) -> None:
        """Let the watch look so many times; one that is not silent is heard of before each.

        After the first look the clock jumps by so many seconds.
        """
        rounds = Rounds(self, times, silent, jump)
        watch = Watch(
            cast(list[Ward], [self.ward]),
            self.reach.access,
            rounds,
            self.policies.get,
            grace=GRACE,
            cancel_grace=timedelta(seconds=CANCEL_GRACE),
            root="/srv/app",
        )
        self.clock.advance(pause)
        with anyio.fail_after(PATIENCE):
            async with anyio.create_task_group() as group:
                rounds.over = group.cancel_scope
                group.start_soon(watch.run)

    def claim(self, jobs: int = 1, *, task: str = "mail", started: bool = True) -> list[Claim]:
        self.bench.add(jobs, task=task)
        claims = self.bench.claim(task=task, worker=self.worker)
        if started:
            self.bench.cycle(started=[Started(claim.key, claim.fence, self.clock.now()) for claim in claims])
        return claims

    def beat(self, **told: Any) -> None:
        self.ward.living.beat = told

    def silence(self, seconds: float) -> None:
        self.ward.living.heard = self.clock.monotonic() - seconds


class Rounds(ManualClock):
    """The clock of a guard: each sleep of the watch is its next round, until all are over."""

    def __init__(self, guard: Guard, times: int, silent: bool, jump: int) -> None:
        self._guard, self._left, self._silent, self._jump = guard, times, silent, jump
        self.over: anyio.CancelScope
        self._hear()

    def now(self) -> int:
        return self._guard.clock.now()

    def monotonic(self) -> float:
        return self._guard.clock.monotonic()

    def _hear(self) -> None:
        if not self._silent and self._guard.ward.life is not None:
            self._guard.ward.life.heard = self.monotonic()

    async def sleep(self, seconds: float) -> None:
        self._guard.clock.advance(seconds)
        if seconds == EVERY:
            self._left -= 1
            self._guard.clock.wall += self._jump * SECOND
            self._jump = 0
            self._hear()
            if not self._left:
                self.over.cancel()
        await anyio.lowlevel.checkpoint()


def blocked(claim: Claim | None, *, overdue: bool = True) -> dict[str, Any]:
    return {"job": None if claim is None else [claim.key, claim.fence], "overdue": overdue}


def out_of_reach() -> NoReturn:
    raise StorageBusy("database is locked")
