"""The one door in: every add, question and change of a job comes through here.

A call is made from a thread, and waits; its twin whose name begins with `a` is made from a loop. Inside
`job.transaction()` both go through the transaction of the job.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import anyio.to_thread

from yaotask import context, invoke, jobview
from yaotask.context import Job, Owner
from yaotask.definitions.catalog import Catalog
from yaotask.errors import AddRefused, BlockingCall, JobNotFound, StorageError
from yaotask.intake import Intake, Prepared
from yaotask.jobs import JobState
from yaotask.jobview import View
from yaotask.listing import Listing
from yaotask.options import Options
from yaotask.reporting import whole
from yaotask.store import reads
from yaotask.store.access import Access
from yaotask.store.cycle import SqlCycle
from yaotask.store.protocol import Started
from yaotask.values import loads

if TYPE_CHECKING:
    from sqlalchemy import Connection

T = TypeVar("T")


class Client:
    """What can be done with jobs, for the tasks of one project."""

    def __init__(self, catalog: Catalog, intake: Intake, access: Access, owner: Owner) -> None:
        self.catalog = catalog
        self._intake = intake
        self._access = access
        self._owner = owner

    # --- add --------------------------------------------------------------------------------------------

    def add(self, task: str, args: Sequence[Any], payload: Mapping[str, Any], options: Options) -> int:
        """Store a job; it is durable when this returns its id.

        Raises UnknownTask, QueueFull, InvalidPayload, DuplicateJobId, StorageError.
        """
        must_not_block("add")
        return self._store(self._intake.prepare(task, args, payload, options), options.connection)[0]

    async def aadd(self, task: str, args: Sequence[Any], payload: Mapping[str, Any], options: Options) -> int:
        """Like `add`, on a loop. Raises BlockingCall for the option `connection`, which is for threads."""
        if options.connection is not None:
            raise BlockingCall("`connection` would block this event loop: run the transaction, and `add`, in a thread")
        prepared = await self._intake.aprepare(task, args, payload, options)
        own = self._access.own_transaction()
        if own is not None:
            # On a loop of the handler's own thread. The write lock is ours already, so that nothing waits.
            return self._inside(own, prepared.store)[0]
        ids: list[int] = await self._access.aask(prepared.request)
        return ids[0]

    def add_many(self, task: str, items: Iterable[Any], options: Options) -> list[int]:
        """Store a job for each item, some at a time, and return their ids in order.

        An item is a list or tuple of arguments, or a mapping, which is the payload. What an iterator yields is
        consumed as it is stored. Raises as `add`, with the `ids` of the jobs that were stored before.
        """
        must_not_block("add_many")
        ids: list[int] = []
        try:
            for prepared in self._intake.chunks(task, items, options):
                ids += self._store(prepared, options.connection)
        except (AddRefused, StorageError) as error:
            error.ids = [*ids, *error.ids]
            raise
        return ids

    async def aadd_many(self, task: str, items: Iterable[Any], options: Options) -> list[int]:
        """Like `add_many`, on a loop; the items are drawn, and checked, in a thread."""
        if options.connection is not None:
            raise BlockingCall("`connection` is for the thread that it belongs to: use `add_many` there")
        return await anyio.to_thread.run_sync(self.add_many, task, items, options)

    def _store(self, prepared: Prepared, connection: Connection | None) -> list[int]:
        given = connection if connection is not None else self._access.own_transaction()
        if given is not None:
            return self._inside(given, prepared.store)
        ids: list[int] = self._access.ask(prepared.request)
        return ids

    # --- change -----------------------------------------------------------------------------------------

    def cancel(self, task: str, id: int) -> str:
        """Cancel a job, or give up a failed one; the answer is its status now.

        One that runs is asked to stop, and is RUNNING until it has. Raises JobNotFound, AlreadyFinished.
        """
        own = self.own_job(task, id)

        def errand(cycle: SqlCycle) -> JobState:
            if own is not None:
                # It runs, whether or not that was stored by now.
                cycle.store_started([Started(own.claim.key, own.claim.fence, own.started)])
            return cycle.cancel(task, id)

        state: JobState = self._change("cancel", task, errand)
        return state.name

    def retry(self, task: str, id: int) -> None:
        """Let a failed or cancelled job run again, with all its tries. Raises JobNotFound, WrongState."""
        self._change("retry", task, lambda cycle: cycle.retry(task, id))

    def progress(self, task: str, id: int, current: int, total: int | None = None, message: str | None = None) -> None:
        """Report progress of a running job, from outside its handler or from inside.

        Raises JobNotFound, WrongState where it does not run, InvalidPayload.
        """
        job = self.own_job(task, id)
        if job is not None:
            job.progress(current, total, message)
            return
        must_not_block("progress")
        numbers = {"current": whole("current", current), "total": whole("total", 100 if total is None else total)}
        report = {**numbers, "message": None if message is None else self._message(task, id, str(message))}
        self._change("progress", task, lambda cycle: cycle.report(task, id, report))
        self._intake.announce(task, id, *report.values())

    def own_job(self, task: str, id: int) -> Job | None:
        """The job whose handler runs in this context, if this is it."""
        job = context.current.get()
        is_own = job is not None and (job.task, job.id) == (task, id) and context.owner.get() is self._owner
        return job if is_own else None

    def _message(self, task: str, id: int, text: str) -> str:
        definition = self.catalog.tasks.get(task)
        if definition is None or not definition.sensitive:
            return self._intake.message(text, None, (), {})
        row = self._row("progress", task, id)
        return self._intake.message(text, definition, loads(row["args"]), loads(row["payload"]))

    def _change(self, what: str, task: str, errand: Callable[[SqlCycle], Any]) -> Any:
        must_not_block(what)
        own = self._access.own_transaction()
        try:
            if own is not None:
                return self._inside(own, errand)
            return self._access.ask(lambda ledger, ticket: ledger.errand(errand, ticket))
        except JobNotFound:
            # Where the task itself is unknown, that is the better answer.
            self.catalog.get(task)
            raise

    def _inside(self, connection: Connection, errand: Callable[[SqlCycle], T]) -> T:
        """Do it on an open transaction: it holds if that commits."""
        with self._access.borrowing(connection) as cycle:
            return errand(cycle)

    # --- ask --------------------------------------------------------------------------------------------

    def get(self, task: str, id: int) -> View:
        """The job. Raises JobNotFound, UnknownTask."""
        return self._view(self._row("get", task, id))

    def status(self, task: str, ids: Sequence[int]) -> dict[int, str]:
        """The status of each of these jobs that exists."""
        self.catalog.get(task)
        rows = self._read("status", lambda connection: reads.status(connection, task, ids))
        return {row["id"]: jobview.status(row) for row in rows}

    def attempts(self, task: str, id: int) -> list[View]:
        """The recorded tries of a job, the oldest first; a success at the first try leaves none. Raises JobNotFound."""
        key = self._row("attempts", task, id)["key"]
        rows = self._read("attempts", lambda connection: reads.attempts_of(connection, key))
        return [jobview.attempt_view(row) for row in rows]

    def list(self, wanted: Listing) -> View:
        """A page of jobs, the newest first: `{items, total, page, page_size, next_cursor}`."""
        if wanted.filter.task is not None:
            self.catalog.get(wanted.filter.task)
        rows, total = self._read("list", wanted.read)
        return wanted.page_of([self._view(row) for row in rows], rows, total)

    def _row(self, what: str, task: str, id: int) -> reads.Row:
        row = self._read(what, lambda connection: reads.get(connection, task, id))
        if row is None:
            self.catalog.get(task)
            raise JobNotFound(task, id)
        return row

    def _view(self, row: reads.Row) -> View:
        definition = self.catalog.tasks.get(row["task"])
        parameters = self._intake.parameters(definition) if definition and definition.sensitive else None
        return jobview.view(row, definition, parameters)

    def _read(self, what: str, read: Callable[[Connection], T]) -> T:
        must_not_block(what)
        with self._access.reading() as connection:
            return read(connection)


def must_not_block(what: str) -> None:
    """Raise BlockingCall on a running loop. `what` is a method with an async twin, or a process call."""
    if invoke.on_loop():
        twin = f'`await aprocess("{what}", ...)`' if "." in what else f"its async twin, `a{what}`"
        raise BlockingCall(f"`{what}` waits, and would block this event loop: use {twin}")
