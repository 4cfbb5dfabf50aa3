"""Stores with jobs in every state, made by statements alone, and all that is in a store.

As a program: `python tests/moving_support.py ROOT URL [JOBS]` fills the store at URL, as of the project ROOT.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Table, select
from sqlalchemy.engine import Connection

from yaotask.chance import SystemChance
from yaotask.clock import SECOND, SystemClock
from yaotask.jobs import JobState
from yaotask.store import tables
from yaotask.store.moving.words import as_it_is
from yaotask.store.opening import Place, open_store, place
from yaotask.store.sql import SqlStore

NOW = 1_800_000_000 * SECOND
# The worker of the jobs that run: its lease is over.
DEAD = 7
# Texts that are easily changed on their way.
TEXTS = ("", "plain", "Grüße, 世界 🌍", "quo\"te's \\ back\\\\slash", "100 % :name %(name)s", "two\nlines\tand a tab ")
STATES = (*JobState, JobState.WAITING, JobState.WAITING, JobState.RETRYING)
TASKS = ("mail", "media.video", "Mail")

Contents = dict[str, dict[tuple[Any, ...], dict[str, Any]]]


def job(number: int) -> dict[str, Any]:
    """A job, with its state and all else after its number."""
    state, task, text = STATES[number % len(STATES)], TASKS[number % len(TASKS)], TEXTS[number % len(TEXTS)]
    waits, held = state in (JobState.WAITING, JobState.RETRYING), number % 7 == 0
    at = NOW + number
    return {
        "key": 2 * number + 1,
        "task": task,
        "id": number + 1,
        "queue": task,
        "state": int(state),
        "priority": number % 5 - 2,
        "ready_at": at if state is JobState.RUNNING or (waits and number % 2 and not held) else None,
        "due_at": at + SECOND if waits and not number % 2 and not held else None,
        "generation": number % 3,
        "attempt": 1 if state is JobState.RUNNING else number % 4,
        "losses": number % 2,
        "deaths": number % 2,
        "fence": number % 9 + 1,
        "worker": DEAD if state is JobState.RUNNING else None,
        "attempts": number % 6 or None,
        "timeout": 5_000 if number % 2 else None,
        "events": number % 128,
        "counted": int(state is JobState.WAITING),
        "created_by": text or None,
        "idempotency_key": f"{text}{number}" if number % 5 == 0 else None,
        "args": f'["{number}"]',
        "payload": f'{{"text": "{"é" * (number % 50)}"}}',
        "created_at": at,
        "updated_at": at,
        "run_at": at,
        "claimed_at": at if state is JobState.RUNNING else None,
        "started_at": at if number % 2 else None,
        "finished_at": at + 5 if state.is_terminal else None,
        "cancel_at": at if state is JobState.RUNNING and number % 4 == 1 else None,
        "current": number,
        "total": 2**53 + number,
        "message": text or None,
        "step": text or None,
        "completed_steps": number % 3,
        "total_steps": 3,
        "success_count": number,
        "fail_count": 0,
        "ignored_count": 2**40,
        "extra": "{}" if number % 3 else None,
        "result": '"' + "x" * (200_000 if number % 997 == 500 else number % 100) + '"',
        "error_type": "ValueError" if state is JobState.FAILURE else None,
        "error": text if state is JobState.FAILURE else None,
        "traceback": text * 3 if state is JobState.FAILURE else None,
    }


def attempt(job: dict[str, Any]) -> dict[str, Any]:
    """A try that the job had before."""
    return {
        "job": job["key"],
        "fence": 0,
        "generation": 0,
        "attempt": 1,
        "outcome": "retry",
        "worker": DEAD,
        "started_at": None,
        "finished_at": NOW,
        "error_type": "ValueError",
        "error": job["message"],
        "traceback": None,
    }


def event(job: dict[str, Any]) -> dict[str, Any]:
    """One that is given up, one that is under way, or one that waits."""
    kind = job["id"] % 3
    return {
        "seq": job["key"] + 10,
        "job": job["key"],
        "task": job["task"],
        "id": job["id"],
        "kind": 1,
        "data": "[]",
        "created_at": NOW,
        # A job that is held waits for one that is not given up.
        "state": int(kind == 1 and job["finished_at"] is not None),
        "tries": kind,
        "next_at": NOW,
        "worker": DEAD if kind == 2 else None,
        "error": job["message"],
    }


def fill(store: SqlStore, number: int, *, at_once: int = 5_000) -> None:
    """So many jobs in all states; those that run belong to a worker whose lease is over."""
    for start in range(0, number, at_once):
        made = [job(one) for one in range(start, min(start + at_once, number))]
        store.write(lambda connection, made=made: _insert(connection, made))  # type: ignore[misc]
    store.write(lambda connection: _insert_rest(connection, number))
    store.write(store.dialect.database.set_counters)


def _insert(connection: Connection, made: list[dict[str, Any]]) -> None:
    tried = [attempt(one) for one in made if one["id"] % 3 == 0]
    told = [event(one) for one in made if (one["id"] - 1) % 7 == 0]
    for table, rows in ((tables.jobs, made), (tables.attempts, tried), (tables.events, told)):
        if rows:
            connection.execute(table.insert(), rows)


def _insert_rest(connection: Connection, number: int) -> None:
    made = [job(one) for one in range(number)]
    for task in sorted({one["task"] for one in made}):
        waiting = sum(one["counted"] for one in made if one["task"] == task)
        connection.execute(tables.sizes.insert(), [{"task": task, "waiting": waiting - 2}])
        connection.execute(tables.size_debts.insert(), [{"task": task, "added": 2}])
        connection.execute(tables.ids.insert(), [{"task": task, "next": number + 100}])
        counts = {"jobs": 3, "run_us": 2**50, "wait_us": 5}
        minutes = [{"task": task, "minute": NOW + at, "outcome": 2, "bucket": at % 7, **counts} for at in range(50)]
        connection.execute(tables.rollups.insert(), minutes)
    worker = {"key": DEAD, "incarnation": "dead", "host": "gone", "pid": 1, "started_at": NOW, "expires_at": 1}
    connection.execute(tables.workers.insert(), [worker])


def contents(connection: Connection) -> Contents:
    """All rows of all tables but of those that tell of the store itself, by their keys."""
    return {name: _rows(connection, table) for name, table in _tables(connection) if name != tables.meta.name}


def _tables(connection: Connection) -> Iterator[tuple[str, Table]]:
    for table in tables.metadata.sorted_tables:
        yield table.name, as_it_is(connection, table)


def _rows(connection: Connection, table: Table) -> dict[tuple[Any, ...], dict[str, Any]]:
    key = [column.name for column in table.primary_key]
    rows = [dict(row._mapping) for row in connection.execute(select(table))]
    return {tuple(row[name] for name in key): row for row in rows}


def contents_of(place: Place) -> Contents:
    """What is in the store of a place, whether it can be used or not."""
    engine = place.dialect().engine(writer=False)
    try:
        with engine.connect() as connection:
            return contents(connection)
    finally:
        engine.dispose()


@contextmanager
def opened(place: Place) -> Iterator[SqlStore]:
    store = open_store(place, SystemClock(), SystemChance())
    try:
        yield store
    finally:
        store.close()


def filled(place: Place, number: int) -> Place:
    """The place, with so many jobs in its store."""
    with opened(place) as store:
        fill(store, number)
    return place


if __name__ == "__main__":
    root, url, *more = sys.argv[1:]
    filled(place(Path(root).absolute(), url), int(more[0]) if more else 100_000)
