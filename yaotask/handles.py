"""Typed ways to a task and its jobs, for programs that embed yaotask."""

from __future__ import annotations

import builtins
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from anyio.to_thread import run_sync

from yaotask import following
from yaotask.client import Client
from yaotask.clock import Clock
from yaotask.definitions.model import Definition
from yaotask.jobview import View
from yaotask.listing import Listing
from yaotask.names import integer, integers
from yaotask.options import Options

if TYPE_CHECKING:
    from sqlalchemy import Connection

Id = int | str


class Task:
    """One task of a project: `app.tasks["mail"]`. Ids are 12, "12" or "mail.12".

    Adding raises where the process call answers 0: QueueFull, InvalidPayload, DuplicateJobId; and StorageError.
    Methods wait and are for threads; on a loop use their twins whose names begin with `a`.
    """

    def __init__(self, client: Client, clock: Clock, definition: Definition, options: Options | None = None) -> None:
        self.definition = definition
        self._client = client
        self._clock = clock
        self._options = options or Options()

    def __repr__(self) -> str:
        return f"<Task {self.id}>"

    @property
    def id(self) -> str:
        return self.definition.id

    # --- add --------------------------------------------------------------------------------------------

    def options(
        self,
        *,
        key: str | None = None,
        priority: int | str | None = None,
        attempts: int | None = None,
        timeout: float | str | timedelta | None = None,
        delay: float | str | timedelta | None = None,
        run_at: datetime | str | None = None,
        created_by: str | None = None,
        connection: Connection | None = None,
    ) -> Task:
        """The same task, whose adds have these options besides those that this one has.

        `key`: an add with a key that was used answers the first job. `priority`: larger runs first.
        `attempts`, `timeout`: instead of the definition's. `delay`, from each add, or `run_at`: when it may run at
        the earliest. `connection`: store the job in this transaction of the caller's; for threads.
        Raises InvalidPayload for a value at fault.
        """
        given = {
            "key": key,
            "priority": priority,
            "attempts": attempts,
            "timeout": timeout,
            "delay": delay,
            "run_at": run_at,
            "created_by": created_by,
            "connection": connection,
        }
        return Task(self._client, self._clock, self.definition, self._options.but(given))

    def add(self, /, *args: Any, **payload: Any) -> int:
        """Store a job and return its id; it is durable then."""
        return self._client.add(self.id, args, payload, self._options)

    async def aadd(self, /, *args: Any, **payload: Any) -> int:
        """Like `add`, on a loop."""
        return await self._client.aadd(self.id, args, payload, self._options)

    def add_many(self, items: Iterable[Any]) -> builtins.list[int]:
        """Store a job for each item, in bounded memory, and return the ids in order.

        An item is a list of arguments, or a mapping: the payload. What yaotask raises half-way has the `ids` of those
        that were stored.
        """
        return self._client.add_many(self.id, items, self._options)

    async def aadd_many(self, items: Iterable[Any]) -> builtins.list[int]:
        """Like `add_many`, on a loop; the items are drawn in a thread."""
        return await self._client.aadd_many(self.id, items, self._options)

    # --- its jobs ---------------------------------------------------------------------------------------

    def get(self, id: Id) -> View:
        """The job. Raises JobNotFound."""
        return self._client.get(self.id, integer(self.id, id))

    def list(self, **filters: Any) -> View:
        """A page of jobs, the newest first. Filters: `status, since, until, text, page, page_size, cursor`."""
        return self._client.list(Listing.of(self.id, filters))

    def status(self, ids: Iterable[Id]) -> dict[int, str]:
        """The status of each of these jobs that exists. Raises InvalidPayload for what is no list of ids."""
        return self._client.status(self.id, integers(self.id, ids))

    def attempts(self, id: Id) -> builtins.list[View]:
        """The recorded tries of a job; a success at the first try leaves none. Raises JobNotFound."""
        return self._client.attempts(self.id, integer(self.id, id))

    def cancel(self, id: Id) -> str:
        """Cancel a job, or give up a failed one; the answer is its status now.

        One that runs is asked to stop, and is RUNNING until it has. Raises JobNotFound, AlreadyFinished.
        """
        return self._client.cancel(self.id, integer(self.id, id))

    def retry(self, id: Id) -> None:
        """Let a failed or cancelled job run again, with all its tries. Raises JobNotFound, WrongState."""
        self._client.retry(self.id, integer(self.id, id))

    def progress(self, id: Id, current: int, total: int | None = None, message: str | None = None) -> None:
        """Report progress of a running job. Raises JobNotFound, WrongState, InvalidPayload."""
        self._client.progress(self.id, integer(self.id, id), current, total, message)

    def follow(self, id: Id, timeout: float | str | timedelta | None = None) -> Iterator[View]:
        """The job now, after each change that is seen, and at its end. TimeoutError where that takes longer.

        ValueError for a `timeout` that is no length of time.
        """
        return following.follow(partial(self._client.get, self.id, integer(self.id, id)), self._clock, timeout)

    def afollow(self, id: Id) -> AsyncIterator[View]:
        """Like `follow`, on a loop; `anyio.fail_after` limits the time."""
        return following.afollow(partial(self._client.get, self.id, integer(self.id, id)), self._clock)

    async def aget(self, id: Id) -> View:
        """Like `get`, on a loop."""
        return await run_sync(self.get, id)

    async def alist(self, **filters: Any) -> View:
        """Like `list`, on a loop."""
        return await run_sync(partial(self.list, **filters))

    async def astatus(self, ids: Iterable[Id]) -> dict[int, str]:
        """Like `status`, on a loop."""
        return await run_sync(self.status, ids)

    async def aattempts(self, id: Id) -> builtins.list[View]:
        """Like `attempts`, on a loop."""
        return await run_sync(self.attempts, id)

    async def acancel(self, id: Id) -> str:
        """Like `cancel`, on a loop."""
        return await run_sync(self.cancel, id)

    async def aretry(self, id: Id) -> None:
        """Like `retry`, on a loop."""
        await run_sync(self.retry, id)

    async def aprogress(self, id: Id, current: int, total: int | None = None, message: str | None = None) -> None:
        """Like `progress`, on a loop."""
        await run_sync(self.progress, id, current, total, message)


class Tasks(Mapping[str, Task]):
    """The tasks of a project by id. An unknown id raises UnknownTask and says what was probably meant."""

    def __init__(self, client: Client, clock: Clock) -> None:
        self._client = client
        self._clock = clock

    def __getitem__(self, id: str) -> Task:
        return Task(self._client, self._clock, self._client.catalog.get(id))

    def __contains__(self, id: object) -> bool:
        return id in self._client.catalog.tasks

    def __iter__(self) -> Iterator[str]:
        return iter(self._client.catalog.tasks)

    def __len__(self) -> int:
        return len(self._client.catalog.tasks)
