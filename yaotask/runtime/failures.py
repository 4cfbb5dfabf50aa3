"""What went wrong, as text that any store can hold and that speaks of users' code alone."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable

import yaotask
from yaotask import invoke
from yaotask.jobs import Failure
from yaotask.scripts import as_written
from yaotask.settings import Limits
from yaotask.values import clean_text

# The innermost frames of a traceback say what went wrong. An endless recursion has thousands of others.
MOST_READ = 50
_OWN_FRAMES = yaotask.__path__[0] + os.sep


def failure(error: BaseException, limits: Limits, hide: Callable[[str], str] = str) -> Failure:
    """An exception as text that any store can hold, without the frames that are ours and what `hide` takes out."""
    limit = limits.error_bytes
    name, text = name_of(type(error)), message(error, limits, hide)
    # A long message leaves room for where it was raised.
    last = clean_text(f"{name}: {text}", limit // 2)
    return Failure(name, text, _frames(error, limit - len(last.encode())) + last)


def name_of(kind: type[BaseException]) -> str:
    """The name of an exception as users write it."""
    if kind.__module__ in ("builtins", "yaotask.errors"):
        return kind.__qualname__
    return as_written(f"{kind.__module__}.{kind.__qualname__}")


def message(error: BaseException, limits: Limits, hide: Callable[[str], str] = str) -> str:
    """What an exception says, as text that any store can hold."""
    try:
        text = str(error)
    except BaseException as fault:  # the exception is the user's, and may be broken itself
        if invoke.is_interrupt(fault):
            raise
        text = f"(its message cannot be told: {type(fault).__name__})"
    # Before it is cut, which could leave half of a secret.
    return clean_text(hide(text), limits.error_bytes)


def brief(error: BaseException, limits: Limits) -> str:
    """An exception in one line, for a log."""
    return f"{name_of(type(error))}: {message(error, limits)}"


def innermost(error: BaseException) -> BaseException:
    """The first error of nested groups: what went wrong, not where it passed."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _frames(error: BaseException, room: int) -> str:
    """Where it was raised: of the frames that are not ours the innermost, as many as there is room for."""
    told = ""
    for frame in reversed(traceback.extract_tb(error.__traceback__)[-MOST_READ:]):
        if frame.filename.startswith(_OWN_FRAMES):
            continue
        text = clean_text(as_written("".join(traceback.format_list([frame]))), room)
        room -= len(text.encode())
        if room <= 0:
            break
        told = text + told
    return told
