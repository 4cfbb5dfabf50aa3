"""Lines from this process to its database that break at a chosen moment."""

from __future__ import annotations

import sqlite3
import threading
from collections import Counter
from collections.abc import Sequence
from enum import Enum
from typing import Any

import psycopg
import pymysql

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
        self._run = direct.run
        # Each ledger has a thread of its own.
        self._lock = threading.Lock()

    def say(self, cursor: Any, statement: str, values: Any) -> None:
        fate = self._draw(statement)
        if fate in (None, Fate.AFTER_COMMIT):
            self._run(cursor, statement, values)
        if fate is not None:
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
