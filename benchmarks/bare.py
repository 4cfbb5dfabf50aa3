"""What a database takes for the least that a queue can do with, by its driver alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from sqlalchemy import make_url
from sqlalchemy.pool import PoolProxiedConnection

import project
from yaotask.chance import SystemChance
from yaotask.store.opening import place

_TABLE = "CREATE TABLE bare (id {id} PRIMARY KEY, task VARCHAR(255) NOT NULL, args TEXT NOT NULL)"
_IDS = {
    "sqlite": "INTEGER",
    "postgresql": "BIGINT GENERATED ALWAYS AS IDENTITY",
    "mysql": "BIGINT AUTO_INCREMENT",
}


@contextmanager
def commits(root: Path) -> Iterator[Callable[[int], float]]:
    """Commits so many rows, each by itself, on a connection as ours is, and returns the seconds that it took.

    On SQLite they are in a file of their own.
    """
    dialect = place(root, project.address(root)).dialect()
    if not dialect.shared:
        dialect = place(root, "sqlite:///bare.db").dialect()
        dialect.database.make()
    connection = dialect.engine(writer=True).raw_connection()
    connection.cursor().execute(_TABLE.format(id=_IDS[dialect.name]))
    begin, values = ("BEGIN", "%s, %s") if dialect.shared else ("BEGIN IMMEDIATE", "?, ?")
    try:
        yield lambda count: _commit_rows(connection, begin, values, count)
    finally:
        connection.close()


def _commit_rows(connection: PoolProxiedConnection, begin: str, values: str, count: int) -> float:
    cursor, insert = connection.cursor(), f"INSERT INTO bare (task, args) VALUES ({values})"  # noqa: S608 - ours
    started = time.perf_counter()
    for number in range(count):
        cursor.execute(begin)
        cursor.execute(insert, ("noop", f"[{number}]"))
        cursor.execute("COMMIT")
    return time.perf_counter() - started


def hand_over(root: str, jobs: int, gap: float) -> list[int]:
    """Nanoseconds from a row's insert until another connection, told of it by NOTIFY, has committed that it is taken.

    On PostgreSQL, with seconds of about `gap` between two rows.
    """
    address = make_url(project.address(Path(root))).set(drivername="postgresql").render_as_string(hide_password=False)
    chance, taken = SystemChance(), []
    with psycopg.connect(address, autocommit=True) as giver, psycopg.connect(address, autocommit=True) as taker:
        giver.execute(_TABLE.format(id=_IDS["postgresql"]))
        taker.execute("LISTEN bare")
        for number in range(jobs):
            time.sleep(gap * chance.uniform(0.5, 1.5))
            begun = time.monotonic_ns()
            giver.execute("INSERT INTO bare (task, args) VALUES ('noop', %s)", [f"[{number}]"])
            giver.execute("SELECT pg_notify('bare', 'noop')")
            next(taker.notifies())
            done = taker.execute("UPDATE bare SET task = 'taken' WHERE task = 'noop'").rowcount
            taken.append(time.monotonic_ns() - begun)
            assert done == 1
    return taken
