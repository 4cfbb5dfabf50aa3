"""Short words to move the jobs of a real store, a clock that only tests move, and the table of
transitions as a trigger. The fixtures are in store_fixtures.py.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import text

from yaotask.clock import SECOND
from yaotask.jobs import Claim, Failed, Failure, JobState, Outcome, RetryAfter, Succeeded
from yaotask.store.cycle import SqlCycle
from yaotask.store.protocol import Add, Errand, Finish, Harvest, Mailbox, NewJob, Terms, Ticket
from yaotask.store.sql import SqlStore

START = 1_800_000_000 * SECOND
URL = "sqlite:///.yaotask/yaotask.db"
EVERY_EVENT = 0b1111110

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

    def monotonic(self) -> float:
        return self.elapsed

    def pause(self, seconds: float) -> None:
        self.advance(seconds)

    async def sleep(self, seconds: float) -> None:
        self.advance(seconds)


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


# Every change of a job that the table of transitions allows, by its row of the table.
_ALLOWED = """
    NEW.key = OLD.key AND NEW.task = OLD.task AND NEW.id = OLD.id AND CASE
    -- T2
    WHEN OLD.state IN (0, 5) AND NEW.state = 1 THEN NEW.fence = OLD.fence + 1 AND NEW.attempt = OLD.attempt + 1
        AND NEW.generation = OLD.generation AND NEW.worker IS NOT NULL AND NEW.started_at IS NULL
    -- T8
    WHEN OLD.state IN (0, 5) AND NEW.state = 6 THEN NEW.fence = OLD.fence + 1 AND NEW.attempt = OLD.attempt
        AND NEW.generation = OLD.generation
    -- T8 of a claim that was not started
    WHEN OLD.state = 1 AND NEW.state = 6 AND NEW.fence = OLD.fence + 1 THEN NEW.attempt = OLD.attempt - 1
        AND NEW.generation = OLD.generation AND OLD.started_at IS NULL
    -- T7
    WHEN OLD.state = 1 AND NEW.fence = OLD.fence + 1 THEN NEW.state IN (3, 5) AND NEW.attempt = OLD.attempt - 1
        AND NEW.generation = OLD.generation AND NEW.deaths = OLD.deaths + 1 AND NEW.losses >= max(OLD.losses, 1)
        AND NEW.worker IS NULL
    -- T10
    WHEN OLD.state = 1 AND NEW.state IN (0, 5) AND NEW.attempt = OLD.attempt - 1 THEN NEW.fence = OLD.fence
        AND NEW.generation = OLD.generation AND NEW.worker IS NULL
        AND (NEW.state = 5) = (NEW.attempt > 0 OR OLD.losses > 0)
    -- T4, T5, T6, and the end of T9
    WHEN OLD.state = 1 AND NEW.state IN (2, 3, 5, 6, 7) THEN NEW.fence = OLD.fence AND NEW.attempt = OLD.attempt
        AND NEW.generation = OLD.generation AND NEW.worker IS NULL
    -- T11, round again
    WHEN OLD.state IN (3, 6) AND NEW.state = 0 THEN NEW.generation = OLD.generation + 1 AND NEW.fence = OLD.fence
        AND NEW.attempt = 0 AND NEW.losses = 0 AND NEW.deaths = 0 AND NEW.result IS NULL AND NEW.finished_at IS NULL
    -- T11, given up
    WHEN OLD.state = 3 AND NEW.state = 6 THEN NEW.generation = OLD.generation + 1 AND NEW.fence = OLD.fence
        AND NEW.attempt = OLD.attempt
    -- what has ended stays as it is
    WHEN OLD.state IN (2, 3, 6, 7) THEN NEW.state = OLD.state AND NEW.fence = OLD.fence
        AND NEW.attempt = OLD.attempt AND NEW.generation = OLD.generation
        AND NEW.result IS OLD.result AND NEW.finished_at IS OLD.finished_at
    -- T3, and becoming ready
    ELSE NEW.state = OLD.state AND NEW.fence = OLD.fence AND NEW.attempt = OLD.attempt
        AND NEW.generation = OLD.generation AND NEW.worker IS OLD.worker
    END
"""

TRIGGERS = (
    f"""
    CREATE TRIGGER only_known_changes BEFORE UPDATE ON yaotask_jobs WHEN NOT ({_ALLOWED})
    BEGIN SELECT RAISE(ABORT, 'no such transition'); END
    """,
    """
    CREATE TRIGGER only_waiting_jobs BEFORE INSERT ON yaotask_jobs
    WHEN NOT (NEW.state = 0 AND NEW.fence = 0 AND NEW.attempt = 0 AND NEW.generation = 0 AND NEW.worker IS NULL)
    BEGIN SELECT RAISE(ABORT, 'a job begins as WAITING'); END
    """,
    """
    CREATE TRIGGER only_ended_jobs BEFORE DELETE ON yaotask_jobs WHEN OLD.state NOT IN (2, 3, 6, 7)
    BEGIN SELECT RAISE(ABORT, 'only what has ended may go'); END
    """,
)


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

    def claim(self, most: int = 10, *, task: str = "mail", worker: int = 1) -> list[Claim]:
        return self.cycle(worker=worker, demands={task: most}).claims[task].read()

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
            return [dict(row) for row in connection.exec_driver_sql(statement, values).mappings()]

    def value(self, statement: str, **values: Any) -> Any:
        (row,) = self.query(statement, **values)
        (found,) = row.values()
        return found

    def write(self, statement: str, **values: Any) -> None:
        """Change something behind the store's back."""
        self.store.write(lambda connection: connection.exec_driver_sql(statement, values))

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


def ledger(bench: Bench) -> int:
    return int(bench.value("SELECT count(*) FROM ledger"))


def change(database: Path, statement: str) -> None:
    connection = sqlite3.connect(database)
    with connection:
        connection.execute(statement)
    connection.close()


def jobs(store: SqlStore) -> int:
    with store.reading() as connection:
        return int(connection.exec_driver_sql("SELECT count(*) FROM yaotask_jobs").scalar_one())
