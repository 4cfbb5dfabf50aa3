"""Takes what running jobs say of themselves: to the ledger, to the progress hook, into a transaction."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from yaotask import context, invoke
from yaotask.callbacks import Callbacks
from yaotask.clock import Clock
from yaotask.context import Job
from yaotask.errors import ResultNotJson, TransactionError
from yaotask.jobs import Outcome, Succeeded
from yaotask.runtime.alarm import ring
from yaotask.runtime.attempt import Attempt
from yaotask.runtime.execute import Policy, encoded, retry_or_fail
from yaotask.runtime.failures import brief, failure
from yaotask.runtime.herald import Herald, Report
from yaotask.runtime.spawner import Spawner
from yaotask.store.protocol import Finish, Progress
from yaotask.values import clean_text

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from yaotask.store.transactions import Transaction

log = logging.getLogger(__name__)

# A transaction holds SQLite's write lock, and with it everybody else's writes.
LONGEST_TRANSACTION = 5.0


class Recorder(Protocol):
    """Writes what a desk has for the store: the ledger, or who is on the way to it."""

    def progress(self, note: Progress) -> None: ...

    def finish(self, finish: Finish) -> None: ...

    def committed(self, outcome: Outcome) -> None: ...


class Vault(Protocol):
    """Opens transactions: the store."""

    def transaction(self) -> Transaction: ...


class Timer(Protocol):
    """Looks after transactions that are open for too long."""

    def wake_by(self, moment: float) -> None: ...


@dataclass(slots=True)
class OpenTransaction:
    """The transaction of an attempt, what the job said meanwhile, and when it has been open for too long."""

    transaction: Transaction
    cap: float
    # Whether the handler has it: not yet where its definition asked for it.
    is_handed_out: bool
    changes: dict[str, Any] = field(default_factory=dict)
    # Rolled back already, because an exception left its block.
    closed: bool = False


class JobDesk:
    """The desk of one task's jobs."""

    def __init__(
        self,
        policy: Policy,
        ledger: Recorder,
        store: Vault,
        clock: Clock,
        deadlines: Timer,
        herald: Herald | None = None,
    ) -> None:
        self.herald = herald
        self._policy = policy
        self._ledger = ledger
        self._store = store
        self._clock = clock
        self._deadlines = deadlines
        self._spawner: Spawner | None = None

    def open(self, spawner: Spawner) -> None:
        """Begin to work on the running loop."""
        self._spawner = spawner
        if self.herald is not None:
            self.herald.open(spawner)

    # --- what handlers say -----------------------------------------------------------------------------

    def store(self, job: Job, changes: Mapping[str, Any]) -> None:
        """See Desk."""
        job.said |= changes
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

    def alarm(self, job: Job, callbacks: Callbacks) -> None:
        """See Desk."""
        ring(job, callbacks, self._policy.limits)

    # --- the progress hook -----------------------------------------------------------------------------

    def announce(self, job: Job, progress: Report) -> None:
        """See Desk."""
        if self.herald is not None:
            self.herald.announce(job, progress)

    async def announced(self, attempt: Attempt, outcome: Outcome) -> None:
        """See Herald."""
        if self.herald is not None:
            await self.herald.announced(attempt, outcome)

    # --- transactions ----------------------------------------------------------------------------------

    @contextmanager
    def transaction(self, job: Job) -> Iterator[Connection]:
        """See Job.transaction."""
        if invoke.on_loop():
            raise TransactionError("job.transaction() is for handlers in threads: an `async def` would block its loop")
        if not job.is_in_thread:
            raise TransactionError(
                "job.transaction() is for handlers that are sync functions: it ends with the handler, and the thread of"
                " an `async def` may go on"
            )
        opened: OpenTransaction | None = job.open_transaction
        if opened is not None and opened.is_handed_out:
            raise TransactionError("job.transaction() can be used once in an attempt")
        job.must_be_open()
        with self._begun(job) if opened is None else _handed_out(opened) as connection:
            yield connection

    @contextmanager
    def _begun(self, job: Job) -> Iterator[Connection]:
        # It may wait long for a lock that others have, which is not of its time.
        transaction = self._store.transaction()
        cap = self._clock.monotonic() + LONGEST_TRANSACTION
        # Where the definition asks for one, this is before the handler begins.
        opened = OpenTransaction(transaction, cap, is_handed_out=not self._policy.transaction)
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
            # With what was said before it was opened: that may still be on its way, and is refused after the end.
            if opened.transaction.finish(finish, job.said):
                self._ledger.committed(outcome)
            else:
                log.warning("%s was given to another worker: its transaction was rolled back", job.name)
        except Exception as error:  # noqa: BLE001 - a handler can do anything to its connection
            failed = retry_or_fail(failure(error, self._policy.limits, job.hide), job.claim, self._policy)
            if opened.changes:
                self.store(job, opened.changes)
            self._ledger.finish(finish._replace(outcome=failed, ended=self._clock.now()))
        return outcome

    def _roll_back(self, job: Job, opened: OpenTransaction) -> None:
        try:
            opened.transaction.rollback()
        except Exception as error:  # noqa: BLE001 - a handler can do anything to its connection
            told = brief(error, self._policy.limits, job.hide)
            log.warning("%s: its transaction ends with its connection: %s", job.name, told)
        opened.closed = True
        if opened.changes and not job.over:
            self.store(job, opened.changes)

    def expire(self, attempt: Attempt) -> None:
        """Roll back the transaction of an attempt, if it has one, although its handler goes on; called on the loop."""
        opened: OpenTransaction | None = attempt.job.open_transaction
        if opened is not None and not opened.closed and self._spawner is not None:
            self._spawner.start(partial(self._expire, attempt.job, opened))

    async def _expire(self, job: Job, opened: OpenTransaction) -> None:
        try:
            await invoke.in_thread(opened.transaction.expire)
        except Exception as error:  # noqa: BLE001 - what becomes of one transaction ends no worker
            told = brief(error, self._policy.limits, job.hide)
            log.warning("%s: its transaction could not be rolled back: %s", job.name, told)


@contextmanager
def _handed_out(opened: OpenTransaction) -> Iterator[Connection]:
    """One that was open when the handler began, for it."""
    opened.is_handed_out = True
    try:
        yield opened.transaction.connection
    except GeneratorExit:
        # Whoever entered it has let go of it.
        raise
    except BaseException:
        # What the handler did before this block is in it too, and must not be lost with a success.
        opened.transaction.doom()
        raise
