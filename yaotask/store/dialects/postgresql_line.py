"""PostgreSQL's connection for the ledger: what nobody waits for the answer of travels with what comes next.

A transaction of one job is a handful of short statements, and the way to the server and back takes longer than most of
them. One that is posted goes along with the next that is executed, in one go (libpq's pipeline mode): where it fails,
the next is not run, and raises the error.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import capabilities

from yaotask.store.direct import Line


class LedgerConnection(psycopg.Connection[Any], Line):
    """A connection on which statements can wait for the next one. Belongs to one thread. See Line."""

    can_wait = False

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.cursor_factory = LedgerCursor
        self._posted: list[tuple[str, Mapping[str, Any]]] = []

    def allow_waiting(self) -> None:
        """Let what is posted wait, if libpq can send it so. Not behind a pooler: there, BEGIN is several statements."""
        self.can_wait = capabilities.has_pipeline()

    def post(self, statement: str, values: Mapping[str, Any]) -> None:
        self._posted.append((statement, values))

    def settle(self) -> None:
        if self._posted:
            with self.posted_first():
                """Nothing comes after it."""

    def forget(self) -> None:
        self._posted.clear()

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
                # Its own end asks once more for what it is sent anyway, and then PostgreSQL would not end our
                # transaction if we stood still in it.
                pipeline._exit_gen = pipeline._sync_gen  # type: ignore[method-assign]
                try:
                    for statement, values in posted:
                        psycopg.Cursor(self).execute(statement, values)
                    yield
                except psycopg.Error as error:
                    first = error
        except psycopg.Error as error:
            # Of an earlier one the pipeline's end only says that it made all the rest fail.
            first = first or error
        if first is not None:
            # What was not run was not prepared either, which psycopg does not find out by itself.
            self._prepared.clear()
            raise first


class LedgerCursor(psycopg.Cursor[Any]):
    """A cursor that takes along what was posted."""

    def execute(self, *arguments: Any, **options: Any) -> Any:
        connection: LedgerConnection = self.connection  # type: ignore[assignment]
        if not connection.is_behind:
            return super().execute(*arguments, **options)
        with connection.posted_first():
            return super().execute(*arguments, **options)

    def executemany(self, *arguments: Any, **options: Any) -> None:
        connection: LedgerConnection = self.connection  # type: ignore[assignment]
        connection.settle()
        super().executemany(*arguments, **options)
