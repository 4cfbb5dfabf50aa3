"""Short words to move the jobs of a real store, and a clock that only tests move.

The fixtures are in store_fixtures.py.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import transitions
from server_fixtures import SQLITE_URL
from sqlalchemy import text
from sqlalchemy.engine import Connection

from yaotask.clock import SECOND
from yaotask.events import Delivery
from yaotask.jobs import Claim, Failed, Failure, JobState, Outcome, RetryAfter, Succeeded
from yaotask.store.consumers import FailedDelivery
from yaotask.store.cycle import SqlCycle
from yaotask.store.direct import ask, execute
from yaotask.store.opening import Place
from yaotask.store.protocol import Add, Errand, Finish, Harvest, Mailbox, NewJob, Terms, Ticket
from yaotask.store.sql import SqlStore

URL = SQLITE_URL
START = 1_800_000_000 * SECOND
EVERY_EVENT = 0b1111110

# What ends a session, and which one a connection has.
END = {"postgresql": "SELECT pg_terminate_backend(:session, 10000)", "mysql": "KILL :session"}
SESSION = {"postgresql": "SELECT pg_backend_pid()", "mysql": "SELECT CONNECTION_ID()"}
# How long a session waits for a lock: how that is set, in seconds, how it is asked for, and what a ledger has.
WAITS = {
    "postgresql": ("SET lock_timeout = '{}s'", "SHOW lock_timeout", "2s"),
    "mysql": ("SET innodb_lock_wait_timeout = {}", "SELECT @@innodb_lock_wait_timeout", 2),
}

FAILED = Failed(Failure("ValueError", "bad"))
DONE = Succeeded('"done"')


def retry_after(seconds: float = 0) -> RetryAfter:
    return RetryAfter(Failure("ValueError", "bad"), int(seconds * SECOND))


class ManualClock:
    """Stands still until a test moves it: `advance` for both clocks, or `wall` alone for a jump.

    A pause does not block; it moves the clock by its length.
    """

    def __init__(self) -> None:
        self.wall = START
        self.elapsed = 0.0

    def advance(self, seconds: float) -> None:
        self.wall += round(seconds * SECOND)
        self.elapsed += seconds

    def now(self) -> int:
        return self.wall

    def follow(self, moment: int, passed: float) -> None:
        """Nobody but the test moves it."""

    def monotonic(self) -> float:
        return self.elapsed

    def pause(self, seconds: float) -> None:
        self.advance(seconds)

    async def sleep(self, seconds: float) -> None:
        self.advance(seconds)


class Postman:
    """Takes events of these tasks; what the test says of them is told once."""

    def __init__(self, *tasks: str) -> None:
        self.tasks = tasks
        self.taken: list[Delivery] = []
        self.delivered: list[Delivery] = []
        self.failed: list[FailedDelivery] = []

    def demand(self) -> int:
        return 10 if self.tasks else 0

    def deliver(self, deliveries: Sequence[Delivery]) -> None:
        self.taken += deliveries

    def settled(self) -> tuple[list[Delivery], list[FailedDelivery]]:
        told, self.delivered, self.failed = (self.delivered, self.failed), [], []
        return told


class EvenChance:
    """Always the middle; names are numbered."""

    def __init__(self) -> None:
        self._names = 0

    def uniform(self, low: float, high: float) -> float:
        return (low + high) / 2

    def uuid(self) -> str:
        self._names += 1
        return f"{self._names:032x}"


# Something that a handler does in a table of its own.
INSERT = text("INSERT INTO ledger VALUES (1)")


@dataclass
class Bench:
    """A store and the shortest words to move its jobs; the worker is number 1 unless one is given."""

    store: SqlStore
    clock: ManualClock

    def cycle(self, **mail: Any) -> Harvest:
        return self.store.run_cycle(Mailbox(**mail))

    def adds(self, *adds: Add) -> list[Ticket]:
        self.cycle(adds=list(adds))
        return [add.ticket for add in adds]

    def add(self, count: int = 1, *, size: int | None = None, events: int = 0, **job: Any) -> list[int]:
        """Add so many equal jobs; raises what its ticket was given."""
        ids: list[int] = answer(self.adds(an_add(count, size=size, events=events, **job))[0])
        return ids

    def add_one(self, **job: Any) -> int:
        (id,) = self.add(1, **job)
        return id

    def claim(self, most: int = 10, *, task: str = "mail", worker: int = 1, due: bool = True) -> list[Claim]:
        """What is due and was not known to be, where it is not `due`, is promoted in a later cycle on some servers."""
        return self.cycle(worker=worker, demands={task: most}, due=due).claims[task].read()

    def claim_one(self, *, task: str = "mail", worker: int = 1) -> Claim:
        (claim,) = self.claim(1, task=task, worker=worker)
        return claim

    def end(self, claim: Claim, outcome: Outcome = DONE) -> Finish:
        return Finish(claim, outcome, self.clock.now(), self.clock.now())

    def finish(self, claim: Claim, outcome: Outcome = DONE, worker: int | None = 1) -> bool:
        """Whether it won."""
        return not self.cycle(worker=worker, finishes=[self.end(claim, outcome)]).lost

    def errand(self, run: Callable[[SqlCycle], Any]) -> Any:
        ticket = Ticket()
        self.cycle(errands=[Errand(run, ticket)])  # type: ignore[arg-type]
        return answer(ticket)

    def row(self, id: int = 1, task: str = "mail") -> dict[str, Any]:
        (found,) = self.query("SELECT * FROM yaotask_jobs WHERE task = :task AND id = :id", task=task, id=id)
        return found

    def state(self, id: int = 1, task: str = "mail") -> JobState:
        return JobState(self.row(id, task)["state"])

    def query(self, statement: str, **values: Any) -> list[dict[str, Any]]:
        with self.store.reading() as connection:
            return [dict(row) for row in ask(connection, statement, values).mappings()]

    def value(self, statement: str, **values: Any) -> Any:
        (row,) = self.query(statement, **values)
        (found,) = row.values()
        return found

    def write(self, statement: str, **values: Any) -> None:
        """Change something behind the store's back."""
        self.store.write(lambda connection: execute(connection, statement, values))

    def release(self, trigger: str = "only_known_changes") -> None:
        """Let a test do what the table of transitions refuses."""
        self.store.write(lambda connection: transitions.release(connection, trigger))

    def refuse(self, name: str, moment: str, wrong: str, said: str) -> None:
        """See that the database refuses a change of jobs."""
        self.store.write(lambda connection: transitions.refuse(connection, name, moment, wrong, said))

    def count_many(self, count: int, minute: int) -> None:
        """Enter so many rows of statistics of one minute, each of an outcome of its own."""
        rows = ", ".join(f"('mail', {minute}, {outcome}, 1, 1, 1, 1)" for outcome in range(1, count + 1))
        columns = "task, minute, outcome, bucket, jobs, run_us, wait_us"
        self.write(f"INSERT INTO yaotask_rollups ({columns}) VALUES {rows}")  # noqa: S608

    def waiting(self, task: str = "mail") -> int:
        return sum(row["waiting"] for row in self.query("SELECT waiting FROM yaotask_sizes WHERE task = :t", t=task))


def an_add(
    count: int = 1,
    *,
    task: str = "mail",
    size: int | None = None,
    events: int = 0,
    args: str = "[]",
    id: int | None = None,
    **terms: Any,
) -> Add:
    return Add(task, [NewJob(args, "{}", Terms(**terms), id) for _ in range(count)], size, events, Ticket())


def answer(ticket: Ticket) -> Any:
    if ticket.error is not None:
        raise ticket.error
    return ticket.value


def in_thread(run: Callable[[], Any]) -> None:
    """Run something on another thread, to its end."""
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()


def until_the_next_look(store: SqlStore) -> None:
    """Let the time pass after which a ledger looks for what other processes have written: none in SQLite."""
    if not store.tells_changes:
        store.clock.pause(2)


def ledger(bench: Bench) -> int:
    return int(bench.value("SELECT count(*) FROM ledger"))


def behind(place: Place, statement: str, **values: Any) -> list[tuple[Any, ...]]:
    """Run a statement of ours behind the store's back; what it answers."""
    with connected(place) as connection:
        return [tuple(row) for row in execute(connection, statement, values).all()]


@contextmanager
def connected(place: Place) -> Iterator[Connection]:
    """A connection of its own to a store's database, whether or not there is a store."""
    dialect = place.dialect()
    dialect.database.prepare()
    if dialect.database.is_missing():
        dialect.database.make()
    engine = dialect.engine(writer=False)
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


def change(place: Place, statement: str) -> None:
    behind(place, statement)


def jobs(store: SqlStore) -> int:
    with store.reading() as connection:
        return int(connection.exec_driver_sql("SELECT count(*) FROM yaotask_jobs").scalar_one())


def file_of(place: Place) -> Path:
    """The file of a store in SQLite."""
    assert place.file is not None
    return place.file
