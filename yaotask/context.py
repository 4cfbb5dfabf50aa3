"""What a handler can learn of its own job and say about it: `current_job()`."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from contextvars import ContextVar
from copy import deepcopy
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio

from yaotask.bell import Bell
from yaotask.callbacks import Callback, Callbacks
from yaotask.clock import instant
from yaotask.errors import ClaimLost, NoCurrentJob
from yaotask.jobs import Claim
from yaotask.reporting import MOST_STEPS, Desk, whole
from yaotask.values import dumps

if TYPE_CHECKING:
    from sqlalchemy import Connection

# The job whose handler runs in this context, and the transaction that it has open.
current: ContextVar[Job | None] = ContextVar("yaotask_job", default=None)
transaction: ContextVar[Any] = ContextVar("yaotask_transaction", default=None)
# On whose behalf users' code runs in this context.
owner: ContextVar[Owner | None] = ContextVar("yaotask_owner", default=None)


def _have_no_job() -> None:
    """In a process that was forked: the job is its parent's, and so is the way to say anything of it."""
    current.set(None)
    transaction.set(None)


os.register_at_fork(after_in_child=_have_no_job)

# So many seconds the end of a handler that was stopped waits for what it wants called then; where it has returned,
# less: that counts, and whoever stops it may not wait for long.
LAST_CALLS, LAST_CALLS_OF_A_SUCCESS = 30.0, 1.0
COUNTS = ("success_count", "fail_count", "ignored_count")


class Owner:
    """The App on whose behalf users' code runs: made when it is asked for, in a process that seldom needs one.

    Without a lock, which a fork could leave locked for ever: of two that are made at once, one is kept. The other has
    opened nothing.
    """

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._made: list[Any] = []

    @property
    def app(self) -> Any:
        """It. Raises what its making does."""
        if not self._made:
            self._made.append(self._make())
        return self._made[0]

    @property
    def has_app(self) -> bool:
        """Whether it was asked for yet."""
        return bool(self._made)


def job_name() -> str | None:
    """The name of the job whose handler runs in this context, if one does."""
    job = current.get()
    return None if job is None else job.name


def current_job() -> Job:
    """The job whose handler called this, also from threads and tasks that inherit its context.

    Raises NoCurrentJob outside a handler, hooks included.
    """
    job = current.get()
    if job is None:
        raise NoCurrentJob("there is no current job: current_job() is for handlers, and for what they call")
    return job


class Job:
    """The job that a handler runs, in one of its attempts.

    Whatever reports something raises ClaimLost once the attempt is over: it timed out, or its job was
    given to another worker. A handler that lets this pass ends at once, which is what it should do.
    """

    __slots__ = (
        *("claim", "started", "attempts", "timeout_ms", "cancelled", "over", "result", "hide"),
        *("open_transaction", "is_in_thread", "said", "_desk", "_extra", "_counts", "_callbacks", "_stop", "_lock"),
    )

    def __init__(self, claim: Claim, desk: Desk, started: int, attempts: int, timeout_ms: int) -> None:
        self.claim = claim
        self.started = started
        # Retries that the job may have, at most.
        self.attempts = attempts
        self.timeout_ms = timeout_ms
        # True once the handler should stop: see `on_cancel`.
        self.cancelled = False
        self.over = False
        # What set_result was given, as JSON text.
        self.result: str | None = None
        # Takes the sensitive arguments out of a text that will be seen.
        self.hide: Callable[[str], str] = str
        self.open_transaction: Any = None
        # Whether it has a thread or a process of its own: then whoever calls it ends what it leaves open.
        self.is_in_thread = False
        # All that was reported, by column: the latest of each.
        self.said: dict[str, Any] = {}
        self._desk = desk
        self._extra: dict[str, Any] | None = None
        self._counts: list[int] | None = None
        self._callbacks: Callbacks | None = None
        self._stop: Callable[[], None] | None = None
        # A handler may count from threads of its own, and be asked to stop meanwhile.
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<Job {self.name}>"

    @property
    def id(self) -> int:
        return self.claim.id

    @property
    def task(self) -> str:
        return self.claim.task

    @property
    def name(self) -> str:
        """The job as users write it: `mail.12`."""
        return self.claim.name

    @property
    def args(self) -> list[Any]:
        return self.claim.args

    @property
    def payload(self) -> dict[str, Any]:
        return self.claim.payload

    @property
    def attempt(self) -> int:
        """Which try this is, counted from 1."""
        return self.claim.attempt

    @property
    def generation(self) -> int:
        """0, and one more for each manual retry."""
        return self.claim.generation

    @property
    def deadline(self) -> datetime:
        """When this attempt times out, in UTC."""
        return instant(self.started) + timedelta(milliseconds=self.timeout_ms)

    @property
    def extra(self) -> dict[str, Any]:
        """Yours to fill with JSON values; kept with the job, through failure and into the next try.

        It is stored with the next progress, and when the attempt ends.
        """
        if self._extra is None:
            self._extra = deepcopy(self.claim.extra or {})
        return self._extra

    def progress(self, current: int, total: int | None = None, message: str | None = None) -> None:
        """Say how far the job is: 3 of 10; with `current` alone, percent.

        The latest report is what others see. Raises InvalidPayload for numbers that are negative or
        not finite, ClaimLost once the attempt is over.
        """
        if total is None:
            total = 100
        self._report(whole("current", current), whole("total", total), message, {})

    def progress_step(self, step: str, completed: int, total: int, message: str | None = None) -> None:
        """Progress by named steps: which one is under way, how many of how many are done.

        Raises InvalidPayload for a number below 0 or above 2**31 - 1.
        """
        done, of = whole("completed", completed, MOST_STEPS), whole("total", total, MOST_STEPS)
        steps = {"step": self._desk.text(self.hide(str(step))), "completed_steps": done, "total_steps": of}
        self._report(done, of, message, steps)

    def _report(self, current: int, total: int, message: str | None, more: Mapping[str, Any]) -> None:
        text = None if message is None else self._desk.text(self.hide(str(message)))
        self._store({"current": current, "total": total, "message": text, **more})
        self._desk.announce(self, (current, total, text))

    def count(self, success: int = 0, failure: int = 0, ignored: int = 0) -> None:
        """Count parts of the work. With failures counted, a SUCCESS shows as PARTIAL."""
        added = (whole("success", success), whole("failure", failure), whole("ignored", ignored))
        with self._lock:
            counts = self._counts or [0, 0, 0]
            self._counts = [before + more for before, more in zip(counts, added, strict=True)]
        self._store({})

    def recount(self, changes: Mapping[str, Any]) -> None:
        """Take over what the job has counted in another process, where it runs."""
        if "success_count" in changes:
            self._counts = [changes[name] for name in COUNTS]

    def set_result(self, value: Any) -> None:
        """Set the response before the end; what the handler returns replaces it, unless that is None.

        Raises ResultNotJson.
        """
        self.result = self._desk.encode(value)
        self._store({"result": self.result})

    def transaction(self) -> AbstractContextManager[Connection]:
        """A transaction on the store's own database, whose effects commit with the SUCCESS of the job or not at all.

        It is open until the handler returns, and all calls of the handler go through it. Where the definition has
        opened it, with `transaction: true`, this hands it out. For handlers in threads and child processes, once
        an attempt: TransactionError otherwise. Held for more than 5 seconds it is rolled back: TransactionTooLong, a
        failed try.
        """
        return self._desk.transaction(self)

    def on_cancel(self, callback: Callable[[], object]) -> None:
        """Have `callback` called once `cancelled` turns true; at once where it is already.

        That is when the job is cancelled, the attempt has timed out, its worker ends, or its claim was lost.
        Callbacks are called once, in the order in which they were given: an `async def` on the loop of the
        handler, any other in a thread. What they raise is logged, and changes nothing.
        """
        if not callable(callback):
            raise TypeError(f"on_cancel takes a function without arguments, not {type(callback).__name__}")
        with self._lock:
            if self._callbacks is None:
                self._callbacks = Callbacks()
            self._callbacks.add(Callback.of_here(callback, owner.get()))
            due = self.cancelled
        if due:
            self._desk.alarm(self, self._callbacks)

    def stops_by(self, stop: Callable[[], None]) -> None:
        """Have this called too once the handler should stop, from any thread: it makes it, and never waits."""
        with self._lock:
            self._stop = stop
            due = self.cancelled
        if due:
            stop()

    def ask_to_stop(self) -> None:
        """Make `cancelled` true and have the callbacks called; from any thread, more than once is fine."""
        with self._lock:
            is_first, self.cancelled = not self.cancelled, True
            stop = self._stop
        if is_first and stop is not None:
            stop()
        if is_first and self._callbacks is not None:
            self._desk.alarm(self, self._callbacks)

    async def until_told(self, seconds: float) -> None:
        """Where the handler was to stop: wait for what it wants called then, of which some needs its loop."""
        if self.cancelled and self._callbacks is not None:
            told = anyio.Event()
            # Behind those that are there.
            self._callbacks.add(Callback(partial(Bell.of_this_loop().call, told.set), None, owner.get()))
            self._desk.alarm(self, self._callbacks)
            with anyio.move_on_after(seconds):
                await told.wait()

    def _store(self, changes: dict[str, Any]) -> None:
        self.must_be_open()
        self._desk.store(self, {**self.unsaved(), **changes})

    def must_be_open(self) -> None:
        """Raise ClaimLost once the attempt is over."""
        if self.over:
            raise ClaimLost(
                f"this attempt of {self.name} is over: it took too long, or its job was given to another worker"
            )

    def unsaved(self) -> dict[str, Any]:
        """What is to be stored with the next report and at the end: counts, and what is new in `extra`."""
        changes: dict[str, Any] = {}
        if self._counts is not None:
            changes |= zip(COUNTS, self._counts, strict=True)
        if self._extra is not None:
            text = self._desk.encode(self._extra)
            # As texts: what users put there need not be comparable.
            if text != dumps(self.claim.extra or {}):
                changes["extra"] = text
        return changes
