"""Typed ways to a task and to a job, for programs that embed yaotask."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from yaotask.client import Client
from yaotask.clock import Clock
from yaotask.definitions.model import Definition
from yaotask.options import Options

if TYPE_CHECKING:
    from sqlalchemy import Connection


class Task:
    """One task of a project: `app.tasks["mail"]`.

    Adding raises where the process call answers 0: QueueFull, InvalidPayload, DuplicateJobId; and StorageError.
    """

    def __init__(self, client: Client, clock: Clock, definition: Definition, options: Options | None = None) -> None:
        self.definition = definition
        self._client = client
        self._clock = clock
        self._options = options or Options()

    @property
    def id(self) -> str:
        return self.definition.id

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
        """The same task, whose adds have these options; a delay counts from this call.

        `key`: an add with a key that was used answers the first job. `priority`: larger runs first.
        `attempts`, `timeout`: instead of the definition's. `delay` or `run_at`: when it may run at the earliest.
        `connection`: store the job in this transaction of the caller's. Raises InvalidPayload for a value at fault.
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
        return Task(self._client, self._clock, self.definition, Options.of(given, self._clock))

    def add(self, *args: Any, **payload: Any) -> int:
        """Store a job and return its id; it is durable then. From a thread; on a loop use `aadd`."""
        return self._client.add(self.id, args, payload, self._options)

    async def aadd(self, *args: Any, **payload: Any) -> int:
        """Like `add`, on a loop."""
        return await self._client.aadd(self.id, args, payload, self._options)

    def add_many(self, items: Iterable[Any]) -> list[int]:
        """Store a job for each item, in bounded memory, and return the ids in order.

        An item is a list of arguments, or a mapping: the payload. QueueFull half-way has `.ids` of those stored.
        """
        return self._client.add_many(self.id, items, self._options)

    async def aadd_many(self, items: Iterable[Any]) -> list[int]:
        """Like `add_many`, on a loop."""
        return await self._client.aadd_many(self.id, items, self._options)


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
