"""PostgreSQL's connection for the ledger: what nobody waits for the answer of travels with what comes next.

A transaction of one job is a handful of short statements, and the way to the server and back takes longer than most of
them. One that is posted goes along with the next that is executed, in one go (libpq's pipeline mode): where it fails,
the next is not run, and raises the error.
"""

from __future__ import annotations

import select
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import psycopg
from psycopg import capabilities
from psycopg.generators import send
from psycopg.pq import TransactionStatus

from yaotask.store.direct import Line, Posted, answer_of

# What a later psycopg may have no more; then nothing waits.
_OF_PSYCOPG = ("_exit_gen", "_enqueue_sync", "_communicate_gen", "_fetch_gen")


class LedgerConnection(psycopg.Connection[Any], Line):
    """A connection on which statements can wait for the next one. Belongs to one thread. See Line."""

    can_wait = False
    can_answer = True

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.cursor_factory = LedgerCursor
        self._posted: list[tuple[str, Mapping[str, Any], Posted]] = []

    def allow_waiting(self) -> None:
        """Let what is posted wait, if it can be sent so. Not behind a pooler: there, BEGIN is several statements."""
        self.can_wait = capabilities.has_pipeline() and all(hasattr(psycopg.Pipeline, name) for name in _OF_PSYCOPG)

    def post(self, statement: str, values: Mapping[str, Any], posted: Posted) -> None:
        self._posted.append((statement, values, posted))

    def settle(self) -> None:
        if self._posted:
            with self.posted_first():
                """Nothing comes after it."""

    def forget(self) -> None:
        self._posted.clear()

    def takes_commit_along(self) -> bool:
        # What is sent to a server that has left, or said that it leaves, would be in doubt although nobody had it.
        return self.is_fresh and not self.closed and not self._has_something_to_read()

    def _has_something_to_read(self) -> bool:
        poll = select.poll()
        poll.register(self.pgconn.socket, select.POLLIN)
        return bool(poll.poll(0))

    def was_undone(self) -> bool:
        return self.info.transaction_status in (TransactionStatus.INTRANS, TransactionStatus.INERROR)

    @property
    def is_behind(self) -> bool:
        """Whether something was posted that is not sent."""
        return bool(self._posted)

    @contextmanager
    def posted_first(self) -> Iterator[None]:
        """Send it, and what is executed inside after it; at the end of the block all is done."""
        posted, self._posted = self._posted, []
        first: psycopg.Error | None = None
        try:
            with self.pipeline() as pipeline:
                pipeline._exit_gen = partial(_end, pipeline)  # type: ignore[method-assign]
                try:
                    cursors = [psycopg.Cursor(self) for _ in posted]
                    for cursor, (statement, values, _) in zip(cursors, posted, strict=True):
                        cursor.execute(statement, values)
                    yield
                except psycopg.Error as error:
                    first = error
        except psycopg.Error as error:
            first = first or error
        if first is not None:
            # What was not run was not prepared either, which psycopg does not find out by itself.
            self._prepared.clear()
            raise first
        self.is_fresh = True
        for cursor, (_, _, answered) in zip(cursors, posted, strict=True):
            answered.comes_by(partial(answer_of, cursor))


def _end(pipeline: psycopg.Pipeline) -> Generator[Any, Any, None]:
    """Send the end of a pipeline and read all answers. Raises the first error: those behind it are no news.

    Psycopg's own way asks once more for what it is sent anyway, and with that PostgreSQL stops the clock by which it
    ends a transaction that stands still.
    """
    pipeline._enqueue_sync()
    first: psycopg.Error | None = None
    for step in (pipeline._communicate_gen(), send(pipeline.pgconn), pipeline._fetch_gen(flush=False)):
        try:
            yield from step
        except psycopg.Error as error:
            first = first or error
    if first is not None:
        raise first


class LedgerCursor(psycopg.Cursor[Any]):
    """A cursor that takes along what was posted."""

    def execute(self, *arguments: Any, **options: Any) -> Any:
        connection: LedgerConnection = self.connection  # type: ignore[assignment]
        if not connection.is_behind:
            done = super().execute(*arguments, **options)
            connection.is_fresh = True
            return done
        with connection.posted_first():
            return super().execute(*arguments, **options)

    def executemany(self, *arguments: Any, **options: Any) -> None:
        connection: LedgerConnection = self.connection  # type: ignore[assignment]
        connection.settle()
        super().executemany(*arguments, **options)
