"""The supervisor of a node: it starts the processes, renews their leases, and sees to what becomes of them.

No users' code runs here, so that nothing users write can keep it from its work.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from yaotask import nodeview
from yaotask.bell import Bell
from yaotask.chance import Chance
from yaotask.clock import Clock
from yaotask.definitions.catalog import Catalog
from yaotask.errors import StorageError
from yaotask.jobs import OUTCOME_WORDS, Interrupted
from yaotask.lifecycle import every
from yaotask.phrases import counted, listed
from yaotask.plan import Place, Plan
from yaotask.processes import Spawned
from yaotask.runtime import reaper
from yaotask.runtime.bench import policy_of
from yaotask.runtime.estate import Estate
from yaotask.runtime.execute import Policy
from yaotask.runtime.life import Life
from yaotask.runtime.membership import Membership
from yaotask.runtime.runner import GLANCE, until_settled
from yaotask.runtime.ward import PATIENCE, CrashLoop, Ward
from yaotask.runtime.watch import Watch
from yaotask.settings import Settings
from yaotask.store import checkup, hints, presence, reads
from yaotask.store.access import Access

log = logging.getLogger(__name__)


class Supervisor:
    """Keeps one node, from its first process to the last."""

    def __init__(
        self,
        plan: Plan,
        state: Path,
        catalog: Catalog,
        settings: Settings,
        access: Access,
        *,
        clock: Clock,
        chance: Chance,
    ) -> None:
        self._plan = plan
        self._folder = state / presence.FOLDER
        self._catalog = catalog
        self._settings = settings
        self._access = access
        self._clock = clock
        self._chance = chance
        # Taken for as long as the node is kept.
        self._lock: presence.Lock
        self._hurried = False
        # The tasks that this node runs, or would if they were not broken.
        self._tasks = {id: catalog.tasks[id] for id in plan.only or catalog.tasks} if plan.processes else {}
        # The tasks that were told to be broken, and how many jobs of each were left waiting by a drain.
        self._told: set[str] = set()
        self._left: dict[str, int] = {}

    # --- from the first process to the last -------------------------------------------------------------

    async def run(self, drain: bool = False, started: Mapping[Place, Spawned] | None = None) -> None:
        """Keep the node until `stop`; with `drain`, until nothing is left to do.

        Places whose process is `started` already begin with that. Raises CrashLoop where a process never comes to
        work, StorageError where the store cannot be used.
        """
        self._stopping = anyio.Event()
        self._crashed: CrashLoop | None = None
        with self._locked():
            lease = self._settings.lease
            self._membership = Membership(self._access, self._lock, lease, self._clock, self._chance)
            self._estate = Estate(self._access, self._clock)
            first = started or {}
            self._workers = [self._ward(place, first.get(place)) for place in self._plan.workers]
            self._wards = [*self._workers, self._ward(self._plan.services, None)]
            try:
                await self._keep(drain)
            finally:
                for ward in self._wards:
                    ward.close()
        if self._crashed is not None:
            raise self._crashed

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self._lock = presence.Lock.take(self._folder, self._chance.uuid())
        try:
            yield
        finally:
            # Where it was not released: whoever comes next sees by it that the processes of this node are dead.
            self._lock.abandon()

    def _ward(self, place: Place, first: Spawned | None) -> Ward:
        return Ward(place, first, self._enter, self._estate, self._clock, self._ear(place))

    def _ear(self, place: Place) -> Path:
        """Where the processes of a place hear hints; each takes it over from the one before."""
        return self._lock.path.with_name(f"{self._lock.path.stem}-{place.kind}{place.number}{hints.SUFFIX}")

    async def _keep(self, drain: bool) -> None:
        self._reaped = anyio.Event()
        # Without a ledger nothing can be kept; the end will say why.
        self._access.on_death = partial(Bell.of_this_loop().call, self._stopping.set)
        async with anyio.create_task_group() as group:
            self._living = len(self._wards)
            for ward in self._wards:
                group.start_soon(self._fill, ward)
            await self._enter_node()
            # Before the first claim: what a dead worker had comes first.
            await self._membership.reap()
            self._reaped.set()
            group.start_soon(self._estate.run, name="yaotask estate")
            group.start_soon(self._watch().run, name="yaotask watch")
            group.start_soon(self._every, self._settings.heartbeat.total_seconds(), self._renew, "renew its leases")
            group.start_soon(self._every, reaper.EVERY, self._reap, "look for dead workers")
            group.start_soon(self._tell_start, drain)
            await self._stopping.wait()
            await self._end()
            group.cancel_scope.cancel()

    async def _enter_node(self) -> None:
        try:
            await self._membership.enter_node()
        except StorageError:
            self._lock.release()
            raise

    async def _fill(self, ward: Ward) -> None:
        try:
            # What runs jobs comes first; there are only so many cores to import with.
            if ward in self._workers or await self._workers_ready():
                await ward.live()
        except CrashLoop as error:
            self._crashed = error
            self._stopping.set()
        finally:
            self._living -= 1

    async def _every(self, seconds: float, work: Callable[[], Awaitable[object]], what: str) -> None:
        await every(seconds, work, clock=self._clock, chance=self._chance, what=what)

    # --- births -----------------------------------------------------------------------------------------

    async def _enter(self, ward: Ward, life: Life) -> int:
        await self._reaped.wait()
        self._tell_broken(ward)
        return await self._membership.enter(ward.place, life.spawned.pid)

    def _tell_broken(self, ward: Ward) -> None:
        for task, reason in ward.broken.items():
            if task not in self._told:
                self._told.add(task)
                about = {"task": task}
                log.warning("%s is broken, its jobs wait: %s (mend it and start again)", task, reason, extra=about)

    async def _workers_ready(self) -> bool:
        """Wait until all workers work; False where the node is to end instead."""
        for ward in self._workers:
            await ward.ready.wait()
        return not self._stopping.is_set()

    async def _tell_start(self, drain: bool) -> None:
        if not await self._workers_ready():
            return
        log.info("running; %sSIGTERM or Ctrl-C ends it", self._at_once())
        if drain:
            await until_settled(self._unsettled, self._clock)
            self._left = await anyio.to_thread.run_sync(self._held_up)
            self._stopping.set()

    def _at_once(self) -> str:
        """How many jobs this node runs at once, in words; nothing where it runs services alone."""
        broken = self._broken()
        most = sum(definition.worker_nums for task, definition in self._tasks.items() if task not in broken)
        return f"at most {counted(most, 'job')} at once; " if self._tasks else ""

    def _unsettled(self) -> bool:
        """Whether anything is left to do, as far as the store can be read."""
        able = [task for task in sorted(self._tasks) if task not in self._told]
        try:
            with self._access.opened.store.snapshot() as connection:
                return self._plan.processes > 0 and reads.unsettled(connection, able)
        except StorageError:
            return True

    def _held_up(self) -> dict[str, int]:
        """Of each of our tasks that is broken how many jobs could run, as far as the store can be read."""
        broken = self._told & self._tasks.keys()
        if not broken:
            return {}
        try:
            with self._access.opened.store.snapshot() as connection:
                rows = checkup.waiting(connection, self._clock.now())
        except StorageError:
            return {}
        return {row["task"]: int(row["ready"]) for row in rows if row["ready"] and row["task"] in broken}

    # --- upkeep -----------------------------------------------------------------------------------------

    def _watch(self) -> Watch:
        return Watch(
            self._wards,
            self._access,
            self._clock,
            self._policy_of,
            grace=self._settings.grace.total_seconds(),
            cancel_grace=self._settings.cancel_grace,
            root=str(self._plan.root),
        )

    def _policy_of(self, task: str) -> Policy | None:
        definition = self._catalog.tasks.get(task)
        return None if definition is None else policy_of(definition, self._settings, self._chance)

    async def _renew(self) -> None:
        entered = [(ward, life) for ward in self._wards if (life := ward.life) is not None]
        lives = {life.worker: (ward, life) for ward, life in entered if life.worker is not None}
        told = {worker: self._info(*both) for worker, both in lives.items()}
        missing = await self._membership.renew(nodeview.told_of(self._tasks, self._broken()), told)
        for ward, life in (lives[worker] for worker in missing):
            # One that has left meanwhile is entered no more, and nothing is wrong with it.
            if ward.life is life and not (life.left or life.draining):
                log.error("%s is replaced: its lease ran out, and others have its jobs", ward.place.name)
                ward.end(life)

    def _broken(self) -> set[str]:
        """The tasks that no worker of this node can run, as far as they have said."""
        return set.intersection(*(set(ward.broken) for ward in self._workers)) if self._workers else set()

    def _info(self, ward: Ward, life: Life) -> dict[str, Any]:
        return {
            "state": life.state,
            "memory": ward.memory(),
            "beat": round(self._clock.monotonic() - life.heard, 3),
            "zombies": life.beat.get("zombies", {}),
            "ended": life.beat.get("ended", {}),
        }

    async def _reap(self) -> None:
        if await self._membership.reap():
            await self._renew()

    # --- the end ----------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Let running jobs have their grace, and hand the rest back."""
        self._stopping.set()

    def hurry(self) -> None:
        """No grace, or no more of it."""
        self._hurried = True
        self._stopping.set()

    @property
    def is_stopping(self) -> bool:
        return self._stopping.is_set()

    async def _end(self) -> None:
        grace = 0.0 if self._hurried else self._settings.grace.total_seconds()
        for ward in self._wards:
            await ward.stop(grace)
        hurried = False
        while self._living:
            if self._hurried and not hurried:
                hurried = True
                for ward in self._wards:
                    await ward.hurry()
            await self._clock.sleep(GLANCE)
        await self._settle()
        self._sum_up()

    async def _settle(self) -> None:
        """Have given back what was left behind, and leave the store. Raises StorageError where that cannot be."""
        deadline = self._clock.monotonic() + PATIENCE
        while not self._estate.is_settled and self._clock.monotonic() < deadline:
            await self._clock.sleep(GLANCE)
        if self._estate.failed is not None:
            raise self._estate.failed
        if not self._estate.is_settled:
            log.error("not all jobs could be given back in time: the next node takes them over as lost")
        await self._membership.leave(0.0 if self._hurried else PATIENCE)
        if self._estate.is_settled:
            self._lock.release()

    def _sum_up(self) -> None:
        ended: Counter[str] = Counter()
        for ward in self._wards:
            ended.update(ward.ended)
        ended[OUTCOME_WORDS[Interrupted]] += self._estate.handed_back
        # What took too long in those that we ended.
        ended.update({OUTCOME_WORDS[kind]: count for kind, count in self._access.opened.ledger.ended.items()})
        done = ", ".join(f"{ended[word]:,} {word}" for word in OUTCOME_WORDS.values() if ended[word])
        log.info("stopped; %s", "; ".join(filter(None, (done, self._waits()))) or "there was nothing to do")

    def _waits(self) -> str:
        """What a drain has left waiting, in words."""
        jobs = [f"{counted(number, 'job')} of {task}" for task, number in self._left.items()]
        whose = "whose handler is" if len(jobs) == 1 else "whose handlers are"
        return f"still waiting: {listed(jobs)}, {whose} broken" if jobs else ""
