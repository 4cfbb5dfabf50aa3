"""PostgreSQL's connection for the ledger: what nobody waits for the answer of travels with what comes next.

A transaction of one job is a handful of short statements, and the way to the server and back takes longer than most of
them. One that is posted goes along with the next that is asked, in one go: where it fails, the next is not run, and
raises the error.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import psycopg
from psycopg import capabilities
from psycopg.pq import TransactionStatus

from yaotask.store.dialects.postgresql_flight import Call, Flights
from yaotask.store.direct import Answer, Line, Posted, has_something_to_read

_COMMIT: Call = ("COMMIT", {})


class LedgerConnection(psycopg.Connection[Any], Line):
    """A connection on which statements can wait for the next one. Belongs to one thread. See Line."""

    can_wait = False
    can_answer = True

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.cursor_factory = LedgerCursor
        self._flights = Flights(self)
        self._posted: list[tuple[Call, Posted]] = []
        # What comes behind the next commit.
        self._followers: list[tuple[Call, Posted]] = []

    def allow_waiting(self, prepared_after: int) -> None:
        """Let what is posted wait, if it can be sent so, and prepare what has come so often.

        Not behind a pooler: there, BEGIN is several statements.
        """
        self.can_wait = capabilities.has_pipeline()
        self._flights.prepared_after = prepared_after

    def ask(self, statement: str, values: Mapping[str, Any]) -> Answer:
        if not self.can_wait:
            return super().ask(statement, values)
        return self._flights.read(self._send([(statement, values)])[-1])

    def post(self, statement: str, values: Mapping[str, Any]) -> Posted:
        posted = Posted()
        self._posted.append(((statement, values), posted))
        return posted

    def settle(self) -> None:
        if self._posted:
            self._send([])

    def forget(self) -> None:
        self._posted.clear()
        self._followers.clear()

    def follow(self, statement: str, values: Mapping[str, Any]) -> Posted | None:
        if not self.can_wait or self._flights.has_refused:
            return None
        posted = Posted()
        self._followers.append(((statement, values), posted))
        return posted

    def takes_commit_along(self) -> bool:
        # What is sent to a server that has left, or said that it leaves, would be in doubt although nobody had it.
        return self.is_fresh and not self.closed and not has_something_to_read(self.pgconn.socket)

    def was_undone(self) -> bool:
        open_still = (TransactionStatus.INTRANS, TransactionStatus.INERROR)
        return self._flights.fell_short or self.info.transaction_status in open_still

    def _send(self, more: list[Call]) -> list[Any]:
        """What was posted, then more; the answers to all."""
        posted, self._posted = self._posted, []
        followers: list[tuple[Call, Posted]] = []
        if more == [_COMMIT]:
            followers, self._followers = self._followers, followers
        calls = [call for call, _ in posted] + more
        results = self._flights.fly(calls, [call for call, _ in followers])
        self.is_fresh = True
        self._hand_on(posted, results)
        self._hand_on(followers, results[len(calls) :])
        return results[: len(calls)]

    def _hand_on(self, asked: list[tuple[Call, Posted]], results: list[Any]) -> None:
        for (_, posted), result in zip(asked, results, strict=False):
            if result is not None:
                posted.comes_by(partial(self._flights.read, result))


class LedgerCursor(psycopg.Cursor[Any]):
    """A cursor of psycopg's, for what SQLAlchemy does: it comes after what was posted."""

    def execute(self, *arguments: Any, **options: Any) -> Any:
        self._line().settle()
        done = super().execute(*arguments, **options)
        self._line().is_fresh = True
        return done

    def executemany(self, *arguments: Any, **options: Any) -> None:
        self._line().settle()
        super().executemany(*arguments, **options)

    def _line(self) -> Any:
        return self.connection
