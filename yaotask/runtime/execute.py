"""How an attempt ends: a claim and a handler become an outcome. Nothing here knows the store."""

from __future__ import annotations

import logging
import os
import traceback
from contextvars import Context
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import anyio

import yaotask
from yaotask import context, invoke
from yaotask.backoff import Backoff
from yaotask.chance import Chance
from yaotask.clock import microseconds
from yaotask.context import Job
from yaotask.durations import parse, show
from yaotask.errors import Fail, Ignore, ResultNotJson, Retry
from yaotask.invoke import Handler
from yaotask.jobs import Claim, Failed, Failure, Ignored, Interrupted, Outcome, RetryAfter, Succeeded
from yaotask.scripts import as_written
from yaotask.settings import Limits
from yaotask.values import clean_text, encode_result

log = logging.getLogger(__name__)

NOTHING = Succeeded("null")
INTERRUPTED = Interrupted()
# The innermost frames of a traceback are those that say what went wrong.
MOST_FRAMES = 30
_OWN_FRAMES = yaotask.__path__[0] + os.sep


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


class Cancelled(Exception):
    """The handler was made to end: its time was up, or its worker is."""


# --- running ---------------------------------------------------------------------------------------


async def execute(job: Job, handler: Handler, policy: Policy, start: Context) -> Outcome:
    """Run an async handler to its outcome, in a copy of the context `start`.

    Raises Cancelled where the cancellation of our scope ended it; whoever cancelled knows the outcome.
    """
    inside = start.copy()
    try:
        value = await invoke.drive(inside, inside.run(_begin, job, handler))
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        if isinstance(error, anyio.get_cancelled_exc_class()):
            raise Cancelled from error
        return raised(error, job, handler, policy)
    return NOTHING if value is None and job.result is None else returned(value, job, policy)


def execute_here(job: Job, handler: Handler, policy: Policy, start: Context) -> Outcome:
    """Run a handler in this thread to its outcome, in a copy of the context `start`."""
    try:
        value = start.copy().run(_call, job, handler, policy)
    except BaseException as error:  # noqa: BLE001 - SystemExit too is a failed try, and no thread may end by one
        return raised(error, job, handler, policy)
    return NOTHING if value is None and job.result is None else returned(value, job, policy)


def _begin(job: Job, handler: Handler) -> Any:
    context.current.set(job)
    claim = job.claim
    if not claim.payload:
        return handler.function(claim.id, *claim.args)
    named = handler.parameters.keywords(1 + len(claim.args), claim.payload)
    return handler.function(claim.id, *claim.args, **named)


def _call(job: Job, handler: Handler, policy: Policy) -> Any:
    if policy.transaction:
        context.current.set(job)
        with job.transaction():
            return invoke.call(_begin, job, handler)
    return invoke.call(_begin, job, handler)


# --- judging ---------------------------------------------------------------------------------------


def returned(value: Any, job: Job, policy: Policy) -> Outcome:
    """The outcome of a handler that returned."""
    if value is None and job.result is not None:
        return Succeeded(job.result)
    try:
        text, mended = encode_result(
            value, limit=policy.limits.result_bytes, depth=policy.limits.depth, nodes=policy.limits.nodes
        )
    except ResultNotJson as error:
        return Failed(Failure("ResultNotJson", f"what the handler returned cannot be stored: {error}"))
    if mended:
        log.warning("%s returned text that no database can store; it was mended", job.name)
    return Succeeded(text)


def raised(error: BaseException, job: Job, handler: Handler, policy: Policy) -> Outcome:
    """The outcome of a handler that raised."""
    claim = job.claim
    match error:
        case Ignore():
            return Ignored(_message(error, policy))
        case Fail(response=response):
            return Failed(failure(error, policy), _response(response, job, policy))
        case Retry():
            return _asked_to_retry(error, claim, policy)
        case _ if isinstance(error, policy.ignore_on):
            return Ignored(_message(error, policy))
        case _ if isinstance(error, policy.fail_on):
            return Failed(failure(error, policy))
        case TypeError() if misfit := handler.parameters.misfit(1 + len(claim.args), claim.payload):
            return Failed(Failure("InvalidPayload", clean_text(misfit, policy.limits.error_bytes)))
        case _:
            return retry_or_fail(failure(error, policy), claim, policy)


def timed_out(claim: Claim, policy: Policy) -> Outcome:
    """The outcome of an attempt whose time was up: a failed try."""
    limit = show(timedelta(milliseconds=policy.timeout_of(claim)))
    return retry_or_fail(Failure("TimeoutError", f"the attempt took longer than its timeout of {limit}"), claim, policy)


def retry_or_fail(failed: Failure, claim: Claim, policy: Policy) -> Outcome:
    """Another try while retries are left, after what the definition says (seed 002, seed 004)."""
    if claim.attempt > policy.attempts_of(claim):
        return Failed(failed)
    delay = policy.backoff.delay(policy.attempt_after, claim.attempt, policy.chance)
    return RetryAfter(failed, delay // timedelta(microseconds=1))


def _asked_to_retry(error: Retry, claim: Claim, policy: Policy) -> Outcome:
    outcome = retry_or_fail(failure(error, policy), claim, policy)
    if not isinstance(outcome, RetryAfter):
        return outcome
    try:
        return RetryAfter(outcome.failure, *_when(error, outcome.after))
    except ValueError as fault:
        log.warning("%s raised a Retry that cannot be followed, so the definition is: %s", claim.name, fault)
        return outcome


def _when(error: Retry, after: int) -> tuple[int, int | None]:
    """In how many microseconds, or at which instant, a handler wants to be tried again."""
    if error.at is not None:
        if not isinstance(error.at, datetime):
            raise ValueError("`at` takes a datetime with a time zone")
        return after, microseconds(error.at)
    if error.after is None:
        return after, None
    wish = error.after if isinstance(error.after, timedelta) else parse(error.after, "s")
    return max(0, wish // timedelta(microseconds=1)), None


def _response(response: Any, job: Job, policy: Policy) -> str | None:
    if response is None:
        return None
    outcome = returned(response, job, policy)
    if isinstance(outcome, Succeeded):
        return outcome.result
    log.warning("%s failed with a response that cannot be stored, so it is left out", job.name)
    return None


# --- telling ---------------------------------------------------------------------------------------


def failure(error: BaseException, policy: Policy) -> Failure:
    """An exception as text that any store can hold, without the frames that are ours."""
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(_OWN_FRAMES)
    ]
    trace = "".join(traceback.format_list(frames[-MOST_FRAMES:]))
    kind = type(error)
    name = (
        kind.__qualname__
        if kind.__module__ in ("builtins", "yaotask.errors")
        else f"{kind.__module__}.{kind.__qualname__}"
    )
    message = _message(error, policy)
    return Failure(
        as_written(name), message, clean_text(as_written(f"{trace}{name}: {message}"), policy.limits.error_bytes)
    )


def _message(error: BaseException, policy: Policy) -> str:
    try:
        text = str(error)
    except Exception as fault:  # noqa: BLE001 - the exception is the user's, and may be broken itself
        text = f"(its message cannot be told: {type(fault).__name__})"
    return clean_text(text, policy.limits.error_bytes)
