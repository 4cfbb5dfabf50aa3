"""A project in this process: builds the parts and joins them; owns no behaviour."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from anyio import CancelScope
from anyio.to_thread import run_sync

from yaotask import durations, following, names, nodeview
from yaotask.behalf import Behalf
from yaotask.calls import Calls
from yaotask.chance import Chance, SystemChance
from yaotask.client import Client, must_not_block
from yaotask.clock import Clock, SystemClock
from yaotask.context import Owner
from yaotask.errors import BadDefinitions
from yaotask.following import Callback, Subscriptions
from yaotask.handles import Id, Task, Tasks
from yaotask.intake import Intake
from yaotask.jobview import View
from yaotask.listing import Listing
from yaotask.problems import Problem
from yaotask.project import Project
from yaotask.runtime.embedded import Embedded
from yaotask.store import fleet, hints, opening, presence, reads
from yaotask.store.access import Access
from yaotask.store.ledger import Ledger
from yaotask.store.shouts import Shout
from yaotask.store.sql import SqlStore
from yaotask.works import Works

__all__ = ["App", "Task", "Tasks"]

log = logging.getLogger(__name__)

RUNS = "this app runs jobs, and is not closed: leave its `running()` before"

# Named here, because in the class `list` is a method.
Views = list[View]
Problems = list[Problem]


class App:
    """The door to one project, for any program: web application, script, or another project.

    `root` is the project's folder; without it YAOTASK_ROOT counts, else the nearest folder upward that has
    `yaotask.yml` or `tasks/`. The store is opened at the first use. An App may be used from many threads,
    and by the children of a process that forks. Jobs go by their names, as in "mail.12".

    Methods wait and are for threads; on a loop use their twins whose names begin with `a`.
    Raises NoProject where there is none, or where it is found above the current folder and is somebody else's, and
    BadDefinitions at the first use where the settings are at fault.
    """

    def __init__(
        self,
        root: str | Path | None = None,
        *,
        settings: Mapping[str, Any] | None = None,
        clock: Clock | None = None,
        chance: Chance | None = None,
    ) -> None:
        project = Project(root, settings)
        self._join(project, clock or SystemClock(), chance or SystemChance(), Owner(lambda: self))

    def _join(self, project: Project, clock: Clock, chance: Chance, owner: Owner) -> None:
        self._project = project
        self.root, self.settings, self.catalog = project.root, project.settings, project.catalog
        self.problems = project.problems
        self.clock, self.chance = clock, chance
        self._access = Access(self._open_store, self._ledger_of)
        self._subscriptions = Subscriptions(clock)
        # Blocks of `running` that go on.
        self._runs = 0
        behalf = Behalf(owner)
        intake = Intake(self.catalog, project.handlers, self.settings.limits, clock, behalf)
        self._client = Client(self.catalog, intake, self._access, owner)
        self._calls = Calls(self._client, project.resolver, behalf)
        self.tasks = Tasks(self._client, clock)
        # What yaotask's own processes are made of.
        self.works = Works(
            project=project, access=self._access, place=self._place, clock=clock, chance=chance, owner=owner
        )

    def __repr__(self) -> str:
        return f"<App {str(self.root)!r}>"

    # --- calls by name ----------------------------------------------------------------------------------

    def call(self, name: str, /, *args: Any, **payload: Any) -> Any:
        """Call a process of this project by name, as in `tasks.mail.add` or `scripts.mail.Send`."""
        return self._calls.call(name, args, payload)

    async def acall(self, name: str, /, *args: Any, **payload: Any) -> Any:
        """Like `call`, on a loop."""
        return await self._calls.acall(name, args, payload)

    def import_handler(self, task: str) -> bool:
        """Import the handler of a task, so that adds are checked against its parameters; whether it was found.

        Raises UnknownTask.
        """
        return self._project.handlers.try_find(self.catalog.get(task)) is not None

    # --- jobs -------------------------------------------------------------------------------------------

    def get(self, id: str) -> View:
        """The job. Raises JobNotFound."""
        return self._client.get(*names.split(id))

    def list(self, task: str | None = None, **filters: Any) -> View:
        """A page of jobs, the newest first. Filters: `status, since, until, text, page, page_size, cursor`."""
        return self._client.list(Listing.of(task, filters))

    def status(self, task: str, ids: Iterable[Id]) -> dict[int, str]:
        """The status of each of these jobs that exists. Raises UnknownTask, and InvalidPayload for what is no list."""
        return self.tasks[task].status(ids)

    def attempts(self, id: str) -> Views:
        """The recorded tries of a job; a success at the first try leaves none. Raises JobNotFound."""
        return self._client.attempts(*names.split(id))

    def cancel(self, id: str) -> str:
        """Cancel a job, or give up a failed one; the answer is its status now.

        One that runs is asked to stop, and is RUNNING until it has. Raises JobNotFound, AlreadyFinished.
        """
        return self._client.cancel(*names.split(id))

    def retry(self, id: str) -> None:
        """Let a failed or cancelled job run again, with all its tries. Raises JobNotFound, WrongState."""
        self._client.retry(*names.split(id))

    def progress(self, id: str, current: int, total: int | None = None, message: str | None = None) -> None:
        """Report progress of a running job. Raises JobNotFound, WrongState, InvalidPayload."""
        self._client.progress(*names.split(id), current, total, message)

    async def aget(self, id: str) -> View:
        """Like `get`, on a loop."""
        return await run_sync(self.get, id)

    async def alist(self, task: str | None = None, **filters: Any) -> View:
        """Like `list`, on a loop."""
        return await run_sync(partial(self.list, task, **filters))

    async def astatus(self, task: str, ids: Iterable[Id]) -> dict[int, str]:
        """Like `status`, on a loop."""
        return await run_sync(self.status, task, ids)

    async def aattempts(self, id: str) -> Views:
        """Like `attempts`, on a loop."""
        return await run_sync(self.attempts, id)

    async def acancel(self, id: str) -> str:
        """Like `cancel`, on a loop."""
        return await run_sync(self.cancel, id)

    async def aretry(self, id: str) -> None:
        """Like `retry`, on a loop."""
        await run_sync(self.retry, id)

    async def aprogress(self, id: str, current: int, total: int | None = None, message: str | None = None) -> None:
        """Like `progress`, on a loop."""
        await run_sync(self.progress, id, current, total, message)

    # --- watching ---------------------------------------------------------------------------------------

    def follow(self, id: str, timeout: float | str | timedelta | None = None) -> Iterator[View]:
        """The job now, after each change that is seen, and at its end. TimeoutError where that takes longer.

        ValueError for a `timeout` that is no length of time.
        """
        return following.follow(partial(self.get, id), self.clock, timeout)

    def afollow(self, id: str) -> AsyncIterator[View]:
        """Like `follow`, on a loop; `anyio.fail_after` limits the time."""
        return following.afollow(partial(self.get, id), self.clock)

    def subscribe(self, id: str, callback: Callback) -> None:
        """Call back in a thread with the job now, after each change that is seen, and at its end.

        A callback that raises is logged, and called again. Raises UnknownName for what is no job's name.
        """
        names.split(id)
        self._subscriptions.subscribe(id, partial(self.get, id), callback)

    def unsubscribe(self, id: str, callback: Callback | None = None) -> None:
        """Call back no more; without a callback, nobody for this job. In a thread, a call under way is waited for."""
        self._subscriptions.unsubscribe(id, callback)

    # --- working ----------------------------------------------------------------------------------------

    def workers(self) -> Views:
        """The processes of all nodes and what each has in hand; dead ones until their jobs were taken over."""
        must_not_block("workers")
        with self._access.reading() as connection:
            now = self.clock.now()
            return nodeview.views(fleet.processes(connection, now), fleet.claims(connection), now)

    async def aworkers(self) -> Views:
        """Like `workers`, on a loop."""
        return await run_sync(self.workers)

    def broken(self) -> dict[str, Problems]:
        """The tasks whose handlers cannot be used, with the reasons; their jobs wait. Imports the scripts."""
        return self._project.broken()

    def running(self, grace: float | str | timedelta | None = None) -> AbstractAsyncContextManager[None]:
        """Run jobs on this loop while the block lasts; then those that run get `grace` seconds, or the setting.

        Tasks that cannot be run are logged; their jobs wait. ValueError for a `grace` that is no length of time. The
        block may be left by another task than has entered it. Where the store cannot be used any more the block is
        cancelled, and StorageUnavailable raised.
        """
        return self._running(durations.seconds("grace", self.settings.grace if grace is None else grace))

    @asynccontextmanager
    async def _running(self, grace: float) -> AsyncIterator[None]:
        self._runs += 1
        try:
            async with (await self._worker()).running(grace):
                yield
        finally:
            self._runs -= 1

    async def _worker(self) -> Embedded:
        # To import the scripts and to reach the store may take a while, in which the loop shall turn.
        broken = await run_sync(self.broken)
        for problem in self.problems:
            log.warning("%s", problem)
        for task, problems in broken.items():
            log.warning("jobs of %s have to wait: %s", task, "; ".join(map(str, problems)))
        return await run_sync(self.works.embedded, broken)

    # --- the store --------------------------------------------------------------------------------------

    def _place(self) -> opening.Place:
        # Jobs must not go to the usual store because the setting that names another could not be read.
        if self._project.faults:
            raise BadDefinitions(self._project.faults)
        return opening.place(self.root, self.settings.store, is_given="store" in self._project.given)

    def _open_store(self) -> SqlStore:
        return opening.open_store(self._place(), self.clock, self.chance)

    def _ledger_of(self, store: SqlStore) -> Ledger:
        ledger = Ledger(store, self.clock, self.chance, self.settings.poll.total_seconds())
        if self.settings.hints:
            ledger.hint = partial(hints.hint, self._place().state / presence.FOLDER)
            ledger.shout = Shout(store, self.clock)
        return ledger

    def store_status(self) -> dict[str, Any]:
        """Where the store is, its schema and size, and how many jobs are in each state."""
        with self._access.reading() as connection:
            return {**opening.describe(self._place(), connection), "jobs": reads.by_state(connection)}

    def upgrade_store(self) -> dict[str, Any]:
        """Bring the store to the schema of this version; its status after that."""
        opening.open_store(self._place(), self.clock, self.chance, upgrade=True).close()
        return self.store_status()

    def close(self) -> None:
        """Write what has been asked for and let go of everything. More than once is fine.

        RuntimeError inside of `running()`, whose jobs would be lost to their worker.
        """
        if self._runs:
            raise RuntimeError(RUNS)
        self._subscriptions.close()
        self._access.close()
        self._project.close()

    async def aclose(self) -> None:
        """Like `close`, on a loop."""
        await run_sync(self.close)

    def __enter__(self) -> App:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or not self._runs:
            self.close()
        else:
            log.error("%s", RUNS)

    async def __aenter__(self) -> App:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with CancelScope(shield=True):
            await run_sync(self.__exit__, kind, error, trace)


def app_of(project: Project, clock: Clock, chance: Chance, owner: Owner) -> App:
    """The App of a process that has read its project already, and of an owner that is asked for one now."""
    app = App.__new__(App)
    app._join(project, clock, chance, owner)
    return app
