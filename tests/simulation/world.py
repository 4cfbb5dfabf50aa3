"""What a run takes place in: its clock, its chance, its faults, and what was seen of it."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from pkgutil import resolve_name
from typing import Any
from unittest.mock import patch

import anyio
import anyio.lowlevel
import anyio.to_thread
from sqlalchemy.exc import DBAPIError
from trio.testing import MockClock

from simulation.ownership import Written
from yaotask import context, invoke
from yaotask.chaos.facts import Fault, JobId, Note
from yaotask.clock import SECOND
from yaotask.events import Delivery
from yaotask.runtime import slots
from yaotask.runtime.calling import arguments
from yaotask.runtime.quarantine import MOST_SUSPECTS, Called, Quarantine
from yaotask.runtime.slots import LoopSlot
from yaotask.store import direct, lookout, sql, writer
from yaotask.store.direct import Answer

LAST_CHANGE = "SELECT seq FROM sqlite_sequence WHERE name = 'yaotask_chaos_changes'"
START = 1_800_000_000 * SECOND

# Whose handler, hook or ledger it is that runs.
here: ContextVar[Place] = ContextVar("here")


class Died(BaseException):
    """The end of a node, in the middle of what it did."""


class Time:
    """The clock of trio's simulation; a pause moves it by its length."""

    def __init__(self, mock: MockClock) -> None:
        self._mock = mock

    def now(self) -> int:
        return START + round(self._mock.current_time() * SECOND)

    def follow(self, moment: int, passed: float) -> None:
        """There is one clock."""

    def monotonic(self) -> float:
        return self._mock.current_time()

    def pause(self, seconds: float) -> None:
        self._mock.jump(seconds)

    sleep = staticmethod(anyio.sleep)


class Dice(random.Random):
    """Draws from one seed."""

    def uuid(self) -> str:
        return f"{self.getrandbits(128):032x}"


@dataclass(slots=True)
class Place:
    """One node or caller, as far as what it runs needs to know."""

    world: World
    name: str
    pid: int = 0
    died: int | None = None

    @property
    def is_dead(self) -> bool:
        return self.died is not None

    def die(self) -> None:
        if self.died is None:
            self.died = self.world.time.now()


@dataclass
class World:
    """Faults happen while `rages` holds."""

    seed: int
    mock: MockClock
    time: Time
    dice: Dice
    rages: bool = True
    notes: list[Note] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    # Ledgers that died by themselves.
    defects: list[str] = field(default_factory=list)
    commits: int = 0
    broken: int = 0
    incarnations: int = 0
    written: list[Written] = field(default_factory=list)
    # Who is in a turn of its ledger, whose commit may fail.
    writing: Place | None = None

    @classmethod
    def of(cls, seed: int) -> World:
        mock = MockClock(autojump_threshold=0)
        return cls(seed, mock, Time(mock), Dice(seed))

    def note(self, what: str, job: JobId, **more: Any) -> None:
        place = here.get()
        if not place.is_dead:
            self.notes.append(Note(self.time.now(), place.name, place.pid, what, job, **more))

    def commit(self, plain: Callable[..., Answer], connection: Any, *rest: Any) -> Answer:
        """A commit, or what may come of one."""
        answer = self._commit(plain, connection, *rest)
        self._note_writer(plain, connection)
        return answer

    def _note_writer(self, plain: Callable[..., Answer], connection: Any) -> None:
        """Whose the changes are that were committed last."""
        last = plain(connection, LAST_CHANGE).scalar() or 0
        if not self.written or self.written[-1][0] < last:
            # Of nobody, where it is no turn of a ledger.
            self.written.append((last, self.writing.pid if self.writing is not None else 0))

    def _commit(self, plain: Callable[..., Answer], connection: Any, *rest: Any) -> Answer:
        self.commits += 1
        place, fate = self.writing, self.dice.random()
        if place is None or not self.rages or fate > 0.06:
            return plain(connection, *rest)
        self.broken += 1
        if fate < 0.01:
            raise broken("SQLITE_BUSY")
        if fate < 0.02:
            raise broken("SQLITE_FULL")
        if fate < 0.03:
            raise broken("SQLITE_IOERR_FSYNC")
        if fate < 0.035:
            raise Died
        if fate < 0.04:
            plain(connection, *rest)
            self._note_writer(plain, connection)
            raise Died
        if fate < 0.05:
            plain(connection, *rest)
            self._note_writer(plain, connection)
            raise broken("SQLITE_IOERR_FSYNC")
        self.time.pause(self.dice.uniform(0.01, 0.3))
        return plain(connection, *rest)

    def look(self, plain: Callable[..., Answer], *what: Any) -> Answer:
        """A look of a ledger outside of its transactions, which may fail."""
        if self.writing is not None and self.rages and self.dice.random() < 0.005:
            raise broken("SQLITE_IOERR_READ", what[1])
        return plain(*what)

    @contextmanager
    def taken_in(self) -> Iterator[None]:
        """Commits and looks may fail; what is given to threads and to child processes is done on the loop."""
        plain = direct.execute

        def execute(connection: Any, statement: str, *rest: Any) -> Answer:
            if statement == "COMMIT":
                return self.commit(plain, connection, statement, *rest)
            return plain(connection, statement, *rest)

        with (
            # Most looks find nothing, and take as long as one that does.
            patch.object(lookout, "EAGER_LOOK", 0.2),
            patch.object(writer, "execute", execute),
            patch.object(sql, "execute", partial(self.look, plain)),
            patch.object(anyio.to_thread, "run_sync", _at_once),
            patch.object(slots, "run_apart", LoopSlot._run),
            patch.object(Quarantine, "call", _call_here),
            patch.object(Quarantine, "room", lambda quarantine, *, is_deadly: MOST_SUSPECTS),
        ):
            yield


def broken(name: str, statement: str = "COMMIT") -> DBAPIError:
    error = sqlite3.OperationalError(f"simulated: {name}")
    error.sqlite_errorname = name
    return DBAPIError(statement, {}, error)


def own() -> tuple[World, JobId, Any]:
    """The world of the handler that runs, its job, and its claim."""
    job = context.current.get()
    assert job is not None
    return here.get().world, JobId(job.claim.task, job.claim.id), job


async def _call_here(quarantine: Quarantine, path: str, delivery: Delivery) -> Called:
    """A hook, as in a child, which it may end."""
    world = here.get().world
    if world.rages and world.dice.random() < 0.1:
        return Called("simulated", did_harm=True)
    try:
        await invoke.acall(resolve_name(path), delivery.id, *arguments(delivery))
    except RuntimeError as error:
        return Called(str(error))
    return Called(None)


async def _at_once(function: Callable[..., Any], *args: Any, **_: Any) -> Any:
    await anyio.lowlevel.checkpoint()
    return function(*args)
