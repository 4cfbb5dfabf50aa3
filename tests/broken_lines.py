"""Lines from this process to its database that break at a chosen moment."""

from __future__ import annotations

import re
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from typing import Any

import psycopg
import pymysql
import pytest
from store_support import Bench

from yaotask.store import direct


class Fate(Enum):
    """When a line breaks."""

    AT_ONCE = "before the next statement"
    BEFORE_COMMIT = "before the next commit is sent"
    AFTER_COMMIT = "before the next commit, which is done, is answered"


class Line:
    """What this process says to its databases; `say` is to stand for `direct.run`."""

    def __init__(self) -> None:
        # What befalls the next commits; None where all is well.
        self.fates: Sequence[Fate | None] = ()
        self.broken = Counter[Fate]()
        # The sessions of broken lines, by the servers' numbers.
        self.sessions: list[int] = []
        self._run = direct.run
        # Each ledger has a thread of its own.
        self._lock = threading.Lock()

    def say(self, cursor: Any, statement: str, values: Any) -> None:
        fate = self._draw(statement)
        if fate in (None, Fate.AFTER_COMMIT):
            self._run(cursor, statement, values)
        if fate is not None:
            self.sessions += session_of(cursor.connection)
            raise break_off(cursor.connection)

    def _draw(self, statement: str) -> Fate | None:
        with self._lock:
            fate = next(iter(self.fates), None)
            if fate is not Fate.AT_ONCE and statement != "COMMIT":
                return None
            self.fates = self.fates[1:]
            if fate is not None:
                self.broken[fate] += 1
            return fate


def session_of(connection: Any) -> list[int]:
    """The number that its server has given to a driver's connection; a file gives none."""
    match connection:
        case sqlite3.Connection():
            return []
        case psycopg.Connection():
            return [] if connection.closed else [connection.info.backend_pid]
    return [connection.thread_id()] if connection.open else []


def break_off(connection: Any) -> Exception:
    """Break a driver's connection; what the driver says of the statement that this has met."""
    match connection:
        case sqlite3.Connection():
            # There is no line to a file, but a disk that fails tells as little.
            return sqlite3.OperationalError("disk I/O error")
        case psycopg.Connection():
            connection.close()
            return psycopg.OperationalError("server closed the connection unexpectedly")
    connection._force_close()
    return pymysql.err.OperationalError(2013, "Lost connection to server during query")


def broken(bench: Bench) -> Exception:
    """What the driver says when it is not known what has become of a statement."""
    if bench.store.dialect.name == "sqlite":
        return sqlite3.OperationalError("disk I/O error")
    lost: Exception = bench.store.readers.dialect.loaded_dbapi.OperationalError(2013, "the connection was lost")
    return lost


@contextmanager
def fails_instead_of_committing(bench: Bench) -> Iterator[None]:
    def run(cursor: Any, statement: str, values: Any) -> None:
        if statement == "COMMIT":
            raise break_off(cursor.connection)
        cursor.execute(statement, values)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(direct, "run", run)
        yield


@contextmanager
def commits_and_then_fails(bench: Bench, *, for_good: bool = True) -> Iterator[None]:
    """The reply to the next commit but the reservation of ids is lost; `for_good`, and nothing is answered any more."""
    writes, gone = [0], list[bool]()

    def run(cursor: Any, statement: str, values: Any) -> None:
        if gone:
            raise broken(bench)
        cursor.execute(statement, values)
        if statement.split()[0] != "SELECT" and re.search("yaotask_(?!ids)", statement):
            writes[0] += 1
        if statement == "COMMIT" and writes[0]:
            gone.extend([True] * for_good)
            raise broken(bench)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(direct, "run", run)
        yield
