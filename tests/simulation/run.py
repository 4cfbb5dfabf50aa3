"""A run of one seed, from an empty store to its verdict."""

from __future__ import annotations

import gc
import hashlib
import json
import logging
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import anyio
from trio._core import _run  # what else there is has no seed

from simulation.caller import Caller
from simulation.node import STORE, Node, open_store
from simulation.ownership import handed_back_by_others
from simulation.world import World
from yaotask.app import App
from yaotask.chaos import scratch
from yaotask.chaos.check import judge
from yaotask.chaos.evidence import gather
from yaotask.chaos.facts import Facts, Violation
from yaotask.store import auditing

SETTINGS = (
    f"store: {STORE}\nlease: 2s\nheartbeat: 600ms\npoll: 400ms\ncancel_grace: 1s\nhints: 'off'\nhook_attempts: 50\n"
)
TASKS = {
    "plain": {"name": "Plain", "process": "simulation.handlers.work", "attempts": 3, "worker_nums": 3},
    "told": {
        "name": "With every hook",
        "process": "simulation.handlers.work",
        "attempts": 2,
        "worker_nums": 2,
        "event": {
            hook: f"simulation.handlers.on_{hook}" for hook in ("add", "success", "error", "retry", "cancel", "ignore")
        },
    },
}
NODES, CALLERS, JOBS = 3, 2, 48
# Virtual seconds in which all must have ended once nothing is broken any more.
PATIENCE = 60.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a seed."""

    seed: int
    facts: Facts
    broken: Sequence[Violation]
    seconds: float
    """Of the virtual clock."""
    incarnations: int
    faulty_commits: int

    @property
    def fingerprint(self) -> str:
        """The same for runs of the same history."""
        facts = self.facts
        history = (facts.calls, facts.notes, facts.changes, facts.events, facts.faults, sorted(facts.jobs.items()))
        return hashlib.sha256(repr(history).encode()).hexdigest()

    def __str__(self) -> str:
        words = "; ".join(f"{one.invariant}: {one.what}" for one in self.broken[:3]) or "all promises kept"
        return (
            f"seed {self.seed}: {len(self.facts.changes)} transitions in {self.seconds:.0f} virtual seconds,"
            f" {len(self.facts.faults)} faults, {self.faulty_commits} of commits: {words}"
            + (f"\nagain: PYTHONPATH=tests python -m simulation --seed {self.seed}" if self.broken else "")
        )


class Stage:
    """A project and an empty store, of which every run has a copy."""

    def __init__(self, folder: Path) -> None:
        self._template, self._runs = folder / "template", folder / "run"
        (self._template / "tasks").mkdir(parents=True)
        (self._template / "yaotask.yml").write_text(SETTINGS)
        for id, task in TASKS.items():
            keys = {**task, "attempt_after": 50, "timeout": 6, "size": 100}
            (self._template / "tasks" / f"{id}.yml").write_text(json.dumps(keys))
        self.app = App(self._template)
        assert not self.app.problems, self.app.problems
        store = open_store(self._template, World.of(0))
        store.write(auditing.install)
        store.close()

    def play(self, seed: int) -> Verdict:
        """Run one seed."""
        shutil.copytree(self._template, self._runs)
        try:
            with _silence(), _no_collections():
                return self._play(World.of(seed), self._runs)
        finally:
            shutil.rmtree(self._runs)

    def _play(self, world: World, folder: Path) -> Verdict:
        callers = [Caller(world, self.app, folder, f"caller-{number}", JOBS) for number in range(CALLERS)]
        _run._r.seed(world.seed)
        with world.taken_in(), patch.object(_run, "_ALLOW_DETERMINISTIC_SCHEDULING", True):
            drained = anyio.run(
                _all, world, self.app, folder, callers, backend="trio", backend_options={"clock": world.mock}
            )
        store = open_store(folder, world)
        with store.snapshot() as connection:
            facts = gather(
                connection,
                folder,
                terms=scratch.terms_of(self.app),
                bounds=scratch.bounds_of(self.app),
                faults=world.faults,
                leftovers=[],
                was_drained=drained,
            )
        store.close()
        calls = [call for caller in callers for call in caller.calls]
        facts = replace(facts, calls=calls, notes=world.notes)
        broken = [Violation("ledger", defect) for defect in world.defects]
        broken += [*judge(facts), *handed_back_by_others(facts, world.written)]
        return Verdict(world.seed, facts, broken, world.time.monotonic(), world.incarnations, world.broken)


async def _all(world: World, app: App, folder: Path, callers: Sequence[Caller]) -> bool:
    nodes = [Node(world, app, folder, f"node-{number}") for number in range(NODES)]
    async with anyio.create_task_group() as group:
        for node in nodes:
            group.start_soon(node.run)
        async with anyio.create_task_group() as adding:
            for caller in callers:
                adding.start_soon(caller.run)
        world.rages = False
        drained = await _settled(world, folder)
        for node in nodes:
            node.over.set()
    return drained


async def _settled(world: World, folder: Path) -> bool:
    store = open_store(folder, world)
    try:
        with anyio.move_on_after(PATIENCE):
            while True:
                with store.snapshot() as connection:
                    if auditing.is_settled(connection):
                        return True
                await anyio.sleep(0.5)
        return False
    finally:
        store.close()


@contextmanager
def staged() -> Iterator[Stage]:
    """A stage, in memory where the machine has a folder there."""
    memory = Path("/dev/shm")  # noqa: S108 - a folder of our own is made in it
    with TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Stage(Path(folder))


@contextmanager
def _no_collections() -> Iterator[None]:
    """A run leaves little behind; to look for its cycles again and again meanwhile takes an eighth of the time."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@contextmanager
def _silence() -> Iterator[None]:
    """What nodes log of all that breaks is not read by anyone."""
    logger = logging.getLogger("yaotask")
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(before)
