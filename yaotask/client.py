"""The one door in: every add, question and change of a job comes through here.

A call is made from a thread, and waits; its twin whose name begins with `a` is made from a loop. Inside
`job.transaction()` both go through the transaction of the job.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

import anyio.to_thread

from yaotask import context, invoke, jobview
from yaotask.context import whole
from yaotask.definitions.catalog import Catalog
from yaotask.errors import BlockingCall, JobNotFound, QueueFull
from yaotask.intake import Intake, Prepared
from yaotask.jobview import View
from yaotask.listing import Listing
from yaotask.options import Options
from yaotask.store import reads
from yaotask.store.access import Access
from yaotask.store.cycle import SqlCycle

if TYPE_CHECKING:
    from sqlalchemy import Connection

T = TypeVar("T")

# add_many stores so many jobs in one transaction, and holds no more than that in memory.
CHUNK = 1_000


class Client:
    """What can be done with jobs, for the tasks of one project."""

    def __init__(self, catalog: Catalog, intake: Intake, access: Access) -> None:
        self.catalog = catalog
        self._intake = intake
        self._access = access

    # --- add --------------------------------------------------------------------------------------------

    def add(self, task: str, args: Sequence[Any], payload: Mapping[str, Any], options: Options) -> int:
        """Store a job; it is durable when this returns its id.

        Raises UnknownTask, QueueFull, InvalidPayload, DuplicateJobId, StorageError.
        """
        must_not_block("add")
        return self._store(self._intake.prepare(task, args, payload, options), options.connection)

    async def aadd(self, task: str, args: Sequence[Any], payload: Mapping[str, Any], options: Options) -> int:
        """Like `add`, on a loop."""
        prepared = await self._intake.aprepare(task, args, payload, options)
        if options.connection is not None:
            return self._store(prepared, options.connection)
        ids: list[int] = await self._access.aask(prepared.request)
        return ids[0]

    def _store(self, prepared: Prepared, connection: Connection | None) -> int:
        mine = connection if connection is not None else _own_transaction()
        if mine is None:
            ids: list[int] = self._access.ask(prepared.request)
            return ids[0]
        return self._inside(mine, prepared.store)[0]

    def add_many(self, task: str, items: Iterable[Any], options: Options) -> list[int]:
        """Store a job for each item, some at a time, and return their ids in order.

        An item is a list or tuple of arguments, or a mapping, which is the payload. What an iterator yields is
        consumed as it is stored. Raises as `add`; QueueFull has the ids of the jobs that were stored.
        """
        must_not_block("add_many")
        ids: list[int] = []
        jobs = iter(items)
        while chunk := list(islice(jobs, CHUNK)):
            prepared = self._intake.prepare_many(task, chunk, options)
            try:
                ids += self._store_many(prepared, options.connection)
            except QueueFull as full:
                raise QueueFull(full.task, full.size, ids + full.ids) from None
        return ids

    def _store_many(self, prepared: Prepared, connection: Connection | None) -> list[int]:
        mine = connection if connection is not None else _own_transaction()
        if mine is not None:
            return self._inside(mine, prepared.store)
        ids: list[int] = self._access.ask(prepared.request)
        return ids

    async def aadd_many(self, task: str, items: Iterable[Any], options: Options) -> list[int]:
        """Like `add_many`, on a loop; the items are drawn and checked in a thread."""
        return await anyio.to_thread.run_sync(self.add_many, task, items, options)

    # --- change -----------------------------------------------------------------------------------------

    def cancel(self, task: str, id: int) -> None:
        """Cancel a job that waits, or give up a failed one. Raises JobNotFound, WrongState, AlreadyFinished."""
        self._change("cancel", lambda cycle: cycle.cancel(task, id))

    def retry(self, task: str, id: int) -> None:
        """Let a failed or cancelled job run again, with all its tries. Raises JobNotFound, WrongState."""
        self._change("retry", lambda cycle: cycle.retry(task, id))

    def progress(self, task: str, id: int, current: int, total: int | None = None, message: str | None = None) -> None:
        """Report progress of a running job, from outside its handler or from inside.

        Raises JobNotFound, WrongState where it does not run, InvalidPayload.
        """
        job = context.current.get()
        if job is not None and (job.task, job.id) == (task, id):
            job.progress(current, total, message)
            return
        text = None if message is None else self._intake.message(str(message))
        report = {"current": whole("current", current), "total": whole("total", total or 100), "message": text}
        self._change("progress", lambda cycle: cycle.report(task, id, report))
        self._intake.announce(task, id, *report.values())

    def _change(self, what: str, errand: Callable[[SqlCycle], Any]) -> Any:
        must_not_block(what)
        mine = _own_transaction()
        if mine is not None:
            return self._inside(mine, errand)
        return self._access.ask(lambda ledger, ticket: ledger.errand(errand, ticket))

    def _inside(self, connection: Connection, errand: Callable[[SqlCycle], T]) -> T:
        """Do it on an open transaction: it holds if that commits."""
        with self._access.opened.store.borrow(connection) as cycle:
            return errand(cycle)

    # --- ask --------------------------------------------------------------------------------------------

    def get(self, task: str, id: int) -> View:
        """The job. Raises JobNotFound."""
        row = self._read("get", lambda connection: reads.get(connection, task, id))
        if row is None:
            raise JobNotFound(task, id)
        return self._view(row)

    def status(self, task: str, ids: Sequence[int]) -> dict[int, str]:
        """The status of each of these jobs that exists."""
        self.catalog.get(task)
        rows = self._read("status", lambda connection: reads.status(connection, task, ids))
        return {row["id"]: jobview.status(row) for row in rows}

    def attempts(self, task: str, id: int) -> list[View]:
        """The recorded tries of a job, the oldest first; a success at the first try leaves none. Raises JobNotFound."""

        def read(connection: Connection) -> list[reads.Row]:
            row = reads.get(connection, task, id)
            if row is None:
                raise JobNotFound(task, id)
            return reads.attempts_of(connection, row["key"])

        return [jobview.attempt_view(row) for row in self._read("attempts", read)]

    def list(self, wanted: Listing) -> View:
        """A page of jobs, the newest first: `{items, total, page, page_size, next_cursor}`."""
        if wanted.filter.task is not None:
            self.catalog.get(wanted.filter.task)
        rows, total = self._read("list", wanted.read)
        return wanted.page_of([self._view(row) for row in rows], rows, total)

    def _view(self, row: reads.Row) -> View:
        definition = self.catalog.tasks.get(row["task"])
        parameters = self._intake.parameters(definition) if definition and definition.sensitive else None
        return jobview.view(row, definition, parameters)

    def _read(self, what: str, read: Callable[[Connection], T]) -> T:
        must_not_block(what)
        mine = _own_transaction()
        if mine is not None:
            return read(mine)
        with self._access.opened.store.reading() as connection:
            return read(connection)


def must_not_block(what: str) -> None:
    """Raise BlockingCall on a running loop."""
    if invoke.on_loop():
        raise BlockingCall(
            f"`{what}` waits, and would block this event loop: await its async twin, aprocess or `a{what}`"
        )


def _own_transaction() -> Connection | None:
    """The transaction that the job of this context has open."""
    opened = context.transaction.get()
    return None if opened is None else opened.connection
