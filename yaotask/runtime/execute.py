"""How an attempt ends: a claim and a handler become an outcome. Nothing here knows the store."""

from __future__ import annotations

import inspect
import logging
import traceback
from collections.abc import Awaitable
from contextvars import Context
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import anyio

from yaotask import context, invoke, masking
from yaotask.backoff import Backoff
from yaotask.chance import Chance
from yaotask.clock import microseconds
from yaotask.context import Job
from yaotask.durations import parse, show
from yaotask.errors import Fail, Ignore, ResultNotJson, Retry
from yaotask.invoke import Handler
from yaotask.jobs import Claim, Failed, Failure, Ignored, Interrupted, Outcome, RetryAfter, Succeeded
from yaotask.runtime.failures import failure, message
from yaotask.settings import Limits
from yaotask.values import clean_text, encode_result

log = logging.getLogger(__name__)

NOTHING = Succeeded("null")
INTERRUPTED = Interrupted()


@dataclass(frozen=True, slots=True)
class Policy:
    """What the definition of a task says about its attempts."""

    attempts: int
    attempt_after: timedelta
    backoff: Backoff
    timeout_ms: int
    fail_on: tuple[type[BaseException], ...]
    ignore_on: tuple[type[BaseException], ...]
    transaction: bool
    sensitive: tuple[str, ...]
    limits: Limits
    chance: Chance

    def attempts_of(self, claim: Claim) -> int:
        return self.attempts if claim.attempts is None else claim.attempts

    def timeout_of(self, claim: Claim) -> int:
        return self.timeout_ms if claim.timeout is None else claim.timeout


class ScopeCancelled(Exception):
    """The handler was made to end: its time was up, or its worker is."""


# --- running ---------------------------------------------------------------------------------------


async def execute(job: Job, handler: Handler, policy: Policy, start: Context) -> Outcome:
    """Run an async handler to its outcome, in a copy of the context `start`.

    Raises ScopeCancelled where the cancellation of our scope ended it; whoever cancelled knows the outcome.
    """
    inside = start.copy()
    _hide(job, handler, policy)
    try:
        value = await invoke.drive(inside, inside.run(_begin, job, handler))
    except BaseException as error:
        if invoke.is_interrupt(error):
            raise
        if invoke.ends_us(error):
            raise ScopeCancelled from error
        return raised(error, job, handler, policy)
    return NOTHING if value is None and job.result is None else returned(value, job, policy)


def execute_here(job: Job, handler: Handler, policy: Policy, start: Context) -> Outcome:
    """Run a handler in this thread to its outcome, in a copy of the context `start`."""
    job.is_in_thread = True
    _hide(job, handler, policy)
    try:
        value = start.copy().run(_call, job, handler, policy)
    except BaseException as error:  # noqa: BLE001 - SystemExit too is a failed try, and no thread may end by one
        return raised(error, job, handler, policy)
    return NOTHING if value is None and job.result is None else returned(value, job, policy)


def _hide(job: Job, handler: Handler, policy: Policy) -> None:
    if policy.sensitive:
        job.hide = masking.hider(job.args, job.payload, policy.sensitive, handler.parameters)


def _begin(job: Job, handler: Handler) -> Any:
    context.current.set(job)
    claim = job.claim
    if not claim.payload and handler.parameters.whole_at is None:
        return handler.function(claim.id, *claim.args)
    named = handler.parameters.keywords(1 + len(claim.args), claim.payload)
    return handler.function(claim.id, *claim.args, **named)


def _call(job: Job, handler: Handler, policy: Policy) -> Any:
    if policy.transaction:
        context.current.set(job)
        with job.transaction():
            return invoke.call(_run, job, handler)
    return invoke.call(_run, job, handler)


def _run(job: Job, handler: Handler) -> Any:
    value = _begin(job, handler)
    return _until_stopped(job, value) if inspect.isawaitable(value) else value


async def _until_stopped(job: Job, value: Awaitable[Any]) -> Any:
    """Await what an async handler does; it is cancelled once it should stop."""
    try:
        result = await invoke.stoppable(value, job.stops_by)
    except BaseException as error:
        await job.until_told(context.LAST_CALLS)
        if job.cancelled and isinstance(error, anyio.get_cancelled_exc_class()):
            raise ScopeCancelled from error
        raise
    await job.until_told(context.LAST_CALLS_OF_A_SUCCESS)
    return result


# --- judging ---------------------------------------------------------------------------------------


def returned(value: Any, job: Job, policy: Policy) -> Outcome:
    """The outcome of a handler that returned."""
    if value is None and job.result is not None:
        return Succeeded(job.result)
    try:
        text, mended = encoded(value, policy.limits)
    except ResultNotJson as error:
        return Failed(Failure("ResultNotJson", f"what the handler returned cannot be stored: {error}"))
    if mended:
        log.warning("%s returned text that no database can store; it was mended", job.name)
    return Succeeded(text)


def raised(error: BaseException, job: Job, handler: Handler, policy: Policy) -> Outcome:
    """The outcome of a handler that raised."""
    try:
        return _judged(error, job, handler, policy)
    except MemoryError:
        # What the frames of the handler still hold may be all the memory that this process can have.
        traceback.clear_frames(error.__traceback__)
        return _judged(error, job, handler, policy)


def _judged(error: BaseException, job: Job, handler: Handler, policy: Policy) -> Outcome:
    claim = job.claim
    match error:
        case Ignore():
            return Ignored(message(error, policy.limits, job.hide))
        case Fail():
            return Failed(failure(error, policy.limits, job.hide), _response(error, job, policy))
        case Retry():
            return _asked_to_retry(error, job, policy)
        case _ if isinstance(error, policy.ignore_on):
            return Ignored(message(error, policy.limits, job.hide))
        case _ if isinstance(error, policy.fail_on):
            return Failed(failure(error, policy.limits, job.hide))
        case TypeError() if misfit := handler.parameters.misfit(1 + len(claim.args), claim.payload):
            return Failed(Failure("InvalidPayload", clean_text(misfit, policy.limits.error_bytes)))
        case _:
            return retry_or_fail(failure(error, policy.limits, job.hide), claim, policy)


def timed_out(claim: Claim, policy: Policy) -> Outcome:
    """The outcome of an attempt whose time was up: a failed try."""
    limit = show(timedelta(milliseconds=policy.timeout_of(claim)))
    return retry_or_fail(Failure("TimeoutError", f"the attempt took longer than its timeout of {limit}"), claim, policy)


def retry_or_fail(failed: Failure, claim: Claim, policy: Policy) -> Outcome:
    """Another try while retries are left, after what the definition says."""
    if claim.attempt > policy.attempts_of(claim):
        return Failed(failed)
    delay = policy.backoff.delay(policy.attempt_after, claim.attempt, policy.chance)
    return RetryAfter(failed, delay // timedelta(microseconds=1))


def _asked_to_retry(error: Retry, job: Job, policy: Policy) -> Outcome:
    outcome = retry_or_fail(failure(error, policy.limits, job.hide), job.claim, policy)
    if not isinstance(outcome, RetryAfter):
        return outcome
    try:
        return RetryAfter(outcome.failure, *_when(error, outcome.after))
    except ValueError as fault:
        log.warning("%s raised a Retry that cannot be followed, so the definition is: %s", job.name, fault)
        return outcome


def _when(error: Retry, after: int) -> tuple[int, int | None]:
    """In how many microseconds, or at which instant, a handler wants to be tried again."""
    # Asked for softly: a subclass need not have called our __init__.
    at, wish = getattr(error, "at", None), getattr(error, "after", None)
    if at is not None:
        if not isinstance(at, datetime):
            raise ValueError("`at` takes a datetime with a time zone")
        return after, microseconds(at)
    if wish is None:
        return after, None
    if isinstance(wish, timedelta):
        wish = max(0.0, wish.total_seconds())
    return parse(wish, "s") // timedelta(microseconds=1), None


def _response(error: Fail, job: Job, policy: Policy) -> str | None:
    response = getattr(error, "response", None)
    if response is None:
        return None
    try:
        return encoded(response, policy.limits)[0]
    except ResultNotJson as fault:
        log.warning("%s failed with a response that cannot be stored, so it is left out: %s", job.name, fault)
        return None


def encoded(value: Any, limits: Limits) -> tuple[str, bool]:
    """A user's value as JSON text, and whether its text had to be mended. Raises ResultNotJson, whatever it is."""
    try:
        return encode_result(value, limit=limits.result_bytes, depth=limits.depth, nodes=limits.nodes)
    except ResultNotJson:
        raise
    except BaseException as fault:
        if invoke.is_interrupt(fault):
            raise
        # SystemExit too, which would end the slot's thread, or with the loop the whole worker.
        raise ResultNotJson(f"cannot be read: {type(fault).__name__}") from fault
