"""Takes what running jobs say of themselves: to the ledger, to the progress hook, into a transaction."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread

from yaotask import context, invoke
from yaotask.bell import Bell
from yaotask.clock import Clock
from yaotask.context import Job
from yaotask.errors import ResultNotJson, StorageError, TransactionError
from yaotask.jobs import Outcome, Succeeded
from yaotask.runtime.attempt import Attempt
from yaotask.runtime.deadlines import Deadlines
from yaotask.runtime.execute import Policy, brief, encoded, failure, retry_or_fail
from yaotask.runtime.spawner import Spawner
from yaotask.store.ledger import Ledger
from yaotask.store.protocol import Finish, Progress
from yaotask.store.sql import SqlStore
from yaotask.store.transactions import Transaction
from yaotask.values import clean_text

if TYPE_CHECKING:
    from sqlalchemy import Connection

log = logging.getLogger(__name__)

# A transaction holds SQLite's write lock, and with it everybody else's writes.
LONGEST_TRANSACTION = 5.0

Report = tuple[int, int | None, str | None]


@dataclass(slots=True)
class OpenTransaction:
    """The transaction of an attempt, what the job said meanwhile, and when it has been open for too long."""

    transaction: Transaction
    cap: float
    changes: dict[str, Any] = field(default_factory=dict)
    # Rolled back already, because an exception left its block.
    closed: bool = False


@dataclass(slots=True)
class Calls:
    """Calls of the progress hook that one job still waits for."""

    waiting: deque[Report]
    done: anyio.Event


class JobDesk:
    """The desk of one task's jobs."""

    def __init__(
        self,
        policy: Policy,
        ledger: Ledger,
        store: SqlStore,
        clock: Clock,
        deadlines: Deadlines,
        hook: Callable[..., Any] | None = None,
        hook_timeout: float = 30.0,
    ) -> None:
        self.hook = hook
        self._policy = policy
        self._ledger = ledger
        self._store = store
        self._clock = clock
        self._deadlines = deadlines
        self._hook_timeout = hook_timeout
        self._spawner: Spawner | None = None
        self._bell: Bell | None = None
        self._calls: dict[Job, Calls] = {}

    def open(self, spawner: Spawner) -> None:
        """Begin to work on the running loop."""
        self._spawner, self._bell = spawner, Bell.of_this_loop()

    # --- what handlers say -----------------------------------------------------------------------------

    def store(self, job: Job, changes: Mapping[str, Any]) -> None:
        """See Desk."""
        opened: OpenTransaction | None = job.open_transaction
        if opened is not None and not opened.closed:
            opened.changes |= changes
        else:
            claim = job.claim
            self._ledger.progress(Progress(claim.key, claim.fence, job.started, dict(changes)))

    def leave_word(self, job: Job) -> None:
        """Have stored, with the end of the attempt, what was not reported before it."""
        try:
            changes = job.unsaved()
        except ResultNotJson as error:
            log.warning("%s: `job.extra` cannot be stored, so it is not: %s", job.name, error)
            return
        if changes:
            self.store(job, changes)

    def encode(self, value: Any) -> str:
        """See Desk."""
        return encoded(value, self._policy.limits)[0]

    def text(self, message: str) -> str:
        """See Desk."""
        return clean_text(message, self._policy.limits.message_bytes)

    # --- the progress hook -----------------------------------------------------------------------------

    def announce(self, job: Job, progress: Report) -> None:
        """Call the progress hook: at once in a handler's thread, on the worker's loop soon and in order."""
        hook = self.hook
        if hook is None:
            return
        if not invoke.on_loop():
            self._call_now(hook, job, progress)
        elif Bell.of_this_loop() is not self._bell:
            self._call_over_there(hook, job, progress)
        else:
            self._call_soon(hook, job, progress)

    def _call_now(self, hook: Callable[..., Any], job: Job, progress: Report) -> None:
        # In the handler's context, for the sake of its transaction; but a hook has no current job.
        inside = copy_context()
        inside.run(context.current.set, None)
        try:
            inside.run(invoke.call, hook, job.id, *progress)
        except BaseException as error:  # noqa: BLE001 - a hook can do nothing to its job, not even by sys.exit
            self._complain(job, error)

    def _call_over_there(self, hook: Callable[..., Any], job: Job, progress: Report) -> None:
        """From the loop of an `async def` in a thread, which has nobody else to keep waiting."""
        told = threading.Event()

        async def call() -> None:
            try:
                await self._call(hook, job, progress)
            finally:
                told.set()

        if self._bell is not None and self._spawner is not None:
            self._bell.call(partial(self._spawner.start, call))
            told.wait(self._hook_timeout)

    def _call_soon(self, hook: Callable[..., Any], job: Job, progress: Report) -> None:
        calls = self._calls.get(job)
        if calls is not None:
            calls.waiting.append(progress)
        elif self._spawner is not None:
            self._calls[job] = calls = Calls(deque([progress]), anyio.Event())
            self._spawner.start(partial(self._call_in_order, hook, job, calls))

    async def _call_in_order(self, hook: Callable[..., Any], job: Job, calls: Calls) -> None:
        try:
            while calls.waiting:
                await self._call(hook, job, calls.waiting.popleft())
        finally:
            del self._calls[job]
            calls.done.set()

    async def _call(self, hook: Callable[..., Any], job: Job, progress: Report) -> None:
        try:
            with anyio.fail_after(self._hook_timeout):
                await invoke.acall(hook, job.id, *progress)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt) or invoke.ends_us(error):
                raise
            self._complain(job, error)

    async def announced(self, attempt: Attempt, outcome: Outcome) -> None:
        """Wait until the progress hook was called for all that the job has said, at most `hook_timeout`.

        Later calls are dropped, so that none follows the end. A cancellation ends the wait, and nothing else.
        """
        calls = self._calls.get(attempt.job)
        if calls is None:
            return
        attempt.returned(outcome)
        with suppress(anyio.get_cancelled_exc_class()), anyio.move_on_after(self._hook_timeout):
            await calls.done.wait()
        calls.waiting.clear()

    def _complain(self, job: Job, error: BaseException) -> None:
        log.warning("the progress hook of %s failed: %s", job.name, brief(error, self._policy.limits))

    # --- transactions ----------------------------------------------------------------------------------

    @contextmanager
    def transaction(self, job: Job) -> Iterator[Connection]:
        """See Job.transaction."""
        if invoke.on_loop():
            raise TransactionError("job.transaction() is for handlers in threads: an `async def` would block its loop")
        if job.open_transaction is not None:
            raise TransactionError("job.transaction() can be used once in an attempt")
        job.must_be_open()
        opened = OpenTransaction(self._store.transaction(), self._clock.monotonic() + LONGEST_TRANSACTION)
        job.open_transaction = opened
        if job.over:
            # Whoever ended the attempt looked for a transaction after that: one of us has seen the other.
            self._roll_back(job, opened)
            job.must_be_open()
        self._deadlines.wake_by(opened.cap)
        # Never reset where all goes well: until the handler returns, all its calls go through the transaction.
        mark = context.transaction.set(opened.transaction)
        try:
            yield opened.transaction.connection
        except BaseException:
            context.transaction.reset(mark)
            self._roll_back(job, opened)
            raise

    def conclude(self, attempt: Attempt, outcome: Outcome) -> Outcome:
        """Commit the transaction of an attempt together with its success, or roll it back.

        Called in the handler's thread. Where this has stored the end, the attempt is closed.
        """
        opened: OpenTransaction = attempt.job.open_transaction
        if opened.closed:
            return outcome
        if isinstance(outcome, Succeeded) and attempt.close():
            return self._commit(attempt, opened, outcome)
        self._roll_back(attempt.job, opened)
        return outcome

    def _commit(self, attempt: Attempt, opened: OpenTransaction, outcome: Outcome) -> Outcome:
        job = attempt.job
        self.leave_word(job)
        opened.closed = True
        finish = Finish(job.claim, outcome, job.started, self._clock.now())
        try:
            if not opened.transaction.finish(finish, opened.changes):
                log.warning("%s was given to another worker: its transaction was rolled back", job.name)
        except (TransactionError, StorageError) as error:
            failed = retry_or_fail(failure(error, self._policy), job.claim, self._policy)
            if opened.changes:
                self.store(job, opened.changes)
            self._ledger.finish(finish._replace(outcome=failed, ended=self._clock.now()))
        return outcome

    def _roll_back(self, job: Job, opened: OpenTransaction) -> None:
        opened.transaction.rollback()
        opened.closed = True
        if opened.changes and not job.over:
            self.store(job, opened.changes)

    def expire(self, attempt: Attempt) -> None:
        """Roll back the transaction of an attempt, if it has one, although its handler goes on; called on the loop."""
        opened: OpenTransaction | None = attempt.job.open_transaction
        if opened is not None and not opened.closed and self._spawner is not None:
            self._spawner.start(partial(anyio.to_thread.run_sync, opened.transaction.expire))
