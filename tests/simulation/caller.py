"""A simulated program that adds jobs, and cancels or retries some of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio

from simulation.node import reaching
from simulation.world import Place, World
from yaotask.app import App
from yaotask.chaos.facts import FAIL, INFO, OK, Call, JobId
from yaotask.errors import AddRefused, AlreadyFinished, JobNotFound, StorageError, WrongState, YaotaskError
from yaotask.events import EventKind
from yaotask.store.access import Access
from yaotask.store.protocol import Add, NewJob, Terms
from yaotask.values import dumps

# What is told where nothing was done.
REFUSED = (AlreadyFinished, WrongState, JobNotFound)


class Caller:
    """Adds `count` jobs one after the other; what became of each is in `calls`."""

    def __init__(self, world: World, app: App, folder: Path, name: str, count: int) -> None:
        self.calls: list[Call] = []
        self._world = world
        self._app = app
        self._folder = folder
        self._name = name
        tasks = sorted(app.catalog.tasks)
        # Of each add its tag, which is its key, and its task: it is asked for again after a death, the same.
        self._left = [(f"{name}-{number}", world.dice.choice(tasks)) for number in range(count)]

    async def run(self) -> None:
        while self._left:
            place = Place(self._world, self._name)
            async with reaching(self._app, self._folder, place) as access:
                while self._left:
                    await self._add(access, *self._left[0])
                    self._left.pop(0)
                    await self._change(access)

    async def _add(self, access: Access, tag: str, task: str) -> None:
        dice = self._world.dice
        definition = self._app.catalog.get(task)
        events = sum(kind.bit for kind in EventKind if getattr(definition.event, kind.hook))
        while True:
            began = self._world.time.now()
            self.calls.append(Call("add", INFO, began, None, tag=tag, key=tag))
            jobs = [NewJob(dumps([tag]), "{}", Terms(key=tag))]

            def ask(ledger: Any, ticket: Any, jobs: Any = jobs) -> None:
                ledger.add(Add(task, jobs, definition.size, events, ticket))

            try:
                (id,) = await access.aask(ask)
            except (StorageError, AddRefused):
                await anyio.sleep(dice.uniform(0.05, 0.5))
                continue
            job = JobId(task, id)
            self.calls[-1] = Call("add", OK, began, self._world.time.now(), job, tag=tag, key=tag)
            break
        await anyio.sleep(dice.choice((0.0, 0.0, 0.0, 0.1, 0.8)))

    async def _change(self, access: Access) -> None:
        dice = self._world.dice
        known = [call.job for call in self.calls if call.job is not None and call.operation == "add"]
        if dice.random() > 0.4:
            return
        job, operation = dice.choice(known), dice.choice(("cancel", "retry"))
        began = self._world.time.now()

        def errand(cycle: Any) -> Any:
            return getattr(cycle, operation)(*job)

        # It may die before it hears an answer.
        self.calls.append(Call(operation, INFO, began, None, job))
        try:
            await access.aask(lambda ledger, ticket: ledger.errand(errand, ticket))
        except YaotaskError as error:
            answer = FAIL if isinstance(error, REFUSED) else INFO
            self.calls[-1] = Call(operation, answer, began, self._world.time.now(), job, error=type(error).__name__)
        else:
            self.calls[-1] = Call(operation, OK, began, self._world.time.now(), job)
