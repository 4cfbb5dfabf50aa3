"""The connection to MySQL or MariaDB for the ledger: what nobody waits for the answer of travels with what comes next.

A statement that is posted goes along with the next that is executed, as one text: where it fails, the next is not run,
and raises the error. It is why the ledger's connection, and no other, may send several statements at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pymysql
from pymysql.constants import CLIENT

from yaotask.store.dialects.mysql_connection import TlsOnceConnection
from yaotask.store.direct import Line, Posted, has_something_to_read

# What goes at once is far from the most that a server takes.
MOST_LETTERS = 1_000_000
# The numbers of errors that are no server's.
_DRIVERS = range(2_000, 3_000)


class LedgerConnection(TlsOnceConnection, Line):
    """A connection on which statements can wait for the next one. Belongs to one thread. See Line."""

    can_wait = False

    def __init__(self, *arguments: Any, **options: Any) -> None:
        options["client_flag"] = options.get("client_flag", 0) | CLIENT.MULTI_STATEMENTS
        self._posted: list[str] = []
        # Whether the last statement of those that went at once was certainly not tried.
        self.fell_short = False
        super().__init__(*arguments, **{**options, "cursorclass": LedgerCursor})

    def allow_waiting(self) -> None:
        """Let what is posted wait, unless a proxy is between us and the server, which may take one text for one
        statement: a proxy does not know the session that will serve us.
        """
        with self.cursor() as cursor:
            # Not as the bare word, which ProxySQL answers as if it were the server.
            cursor.execute("SELECT CONNECTION_ID() + 0")
            (served_by,) = cursor.fetchone()
        self.can_wait = served_by == self.thread_id()

    def post(self, statement: str, values: Mapping[str, Any]) -> Posted:
        self._posted.append(self.cursor().mogrify(statement, values))
        if sum(map(len, self._posted)) > MOST_LETTERS:
            self.settle()
        return Posted()

    def settle(self) -> None:
        if self._posted:
            with self.cursor() as cursor:
                cursor.execute(self._posted.pop())

    def forget(self) -> None:
        self._posted.clear()

    def takes_commit_along(self) -> bool:
        # What is sent to a server that has left, or said that it leaves, would be in doubt although nobody had it.
        return self.can_wait and self.is_fresh and self.open and not has_something_to_read(self._sock)

    def was_undone(self) -> bool:
        return self.fell_short

    def take(self) -> list[str]:
        """What was posted; whoever takes it sends it."""
        posted, self._posted = self._posted, []
        return posted


class LedgerCursor(pymysql.cursors.Cursor):
    """A cursor that takes along what was posted."""

    def execute(self, query: str, args: Any = None) -> int:
        line = self._line()
        line.fell_short, posted = False, line.take()
        if posted:
            changed = self._execute_all([*posted, query if args is None else self.mogrify(query, args)])
        else:
            changed = super().execute(query, args)
        line.is_fresh = True
        return changed

    def _execute_all(self, statements: Sequence[str]) -> int:
        """One after the other up to the first that fails; how many rows the last one has changed."""
        done = 0
        try:
            changed = super().execute(";\n".join(statements))
            while self.nextset():
                done, changed = done + 1, self.rowcount
        except pymysql.MySQLError as error:
            self._line().fell_short = _is_servers(error) and done < len(statements) - 1
            raise
        return changed

    def executemany(self, query: str, args: Any) -> int | None:
        self._line().settle()
        return super().executemany(query, args)

    def _line(self) -> Any:
        return self.connection


def _is_servers(error: pymysql.MySQLError) -> bool:
    """Whether it is the server's answer to a statement, and not what the driver says of the connection."""
    code = error.args[0] if error.args else None
    return isinstance(code, int) and code > 0 and code not in _DRIVERS
