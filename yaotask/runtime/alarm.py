"""Calls what handlers gave to `job.on_cancel`: in order, in a thread apart, and never to the harm of anybody."""

from __future__ import annotations

import logging
import threading
from contextvars import Context

import anyio
import anyio.from_thread

from yaotask import context, invoke
from yaotask.callbacks import Callback, Callbacks
from yaotask.context import Job
from yaotask.runtime.failures import brief
from yaotask.settings import Limits

log = logging.getLogger(__name__)

# What takes longer, on a loop where it can be ended, is ended.
LONGEST_CALL = 30.0


def ring(job: Job, callbacks: Callbacks, limits: Limits) -> None:
    """Call them now, unless that is under way already. From any thread; never waits, never raises."""
    if not callbacks.begin():
        return
    # Not on the loop: it may be blocked by the very handler that should stop.
    thread = threading.Thread(target=_call_all, args=(job, callbacks, limits), name="yaotask-on-cancel", daemon=True)
    try:
        thread.start()
    except RuntimeError as error:
        log.warning("what %s gave to on_cancel cannot be called: %s", job.name, error)
        # So that a later one has its chance.
        while callbacks.next() is not None:
            continue


def _call_all(job: Job, callbacks: Callbacks, limits: Limits) -> None:
    while (callback := callbacks.next()) is not None:
        try:
            Context().run(_call, job, callback)
        except BaseException as error:  # noqa: BLE001 - not even by sys.exit shall it keep the next from being called
            log.warning("what %s gave to on_cancel failed: %s", job.name, brief(error, limits, job.hide))


def _call(job: Job, callback: Callback) -> None:
    context.owner.set(callback.owner)
    context.current.set(job)
    if callback.loop is None or invoke.has_ended(callback.loop) or not invoke.is_async(callback.function):
        invoke.call(callback.function)
    else:
        anyio.from_thread.run(_call_on_loop, callback, token=callback.loop)


async def _call_on_loop(callback: Callback) -> None:
    with anyio.fail_after(LONGEST_CALL):
        await callback.function()
