"""Lines from this process to its database that break at a chosen moment."""

from __future__ import annotations

import sqlite3
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
    """What this process says to its database; `say` is to stand for `direct.run`."""

    def __init__(self) -> None:
        # What befalls the next commits; None where all is well.
        self.fates: Sequence[Fate | None] = ()
        self.broken = 0
        self._run = direct.run

    def say(self, cursor: Any, statement: str, values: Any) -> None:
        fate = next(iter(self.fates), None)
        if fate is Fate.AT_ONCE or statement == "COMMIT":
            self.fates = self.fates[1:]
            if fate is not None:
                if fate is Fate.AFTER_COMMIT:
                    self._run(cursor, statement, values)
                self.broken += 1
                raise self._cut(cursor.connection)
        self._run(cursor, statement, values)

    @staticmethod
    def _cut(connection: Any) -> Exception:
        match connection:
            case sqlite3.Connection():
                # There is no line to a file, but a disk that fails tells as little.
                return sqlite3.OperationalError("disk I/O error")
            case psycopg.Connection():
                connection.close()
                return psycopg.OperationalError("server closed the connection unexpectedly")
        connection._force_close()
        return pymysql.err.OperationalError(2013, "Lost connection to server during query")
