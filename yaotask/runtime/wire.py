"""Outcomes as a child process tells them to its worker: JSON values, there and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from yaotask.jobs import Cancelled, Failed, Failure, Ignored, Outcome, RetryAfter, Succeeded

_KINDS: dict[str, Callable[..., Outcome]] = {
    kind.__name__: kind for kind in (Succeeded, RetryAfter, Failed, Ignored, Cancelled)
}


def written(outcome: Outcome) -> list[Any]:
    """The name of its kind and what belongs to it. TypeError for what only a worker can say of an attempt."""
    match outcome:
        case Succeeded(result):
            rest: list[Any] = [result]
        case RetryAfter(failure, after, at):
            rest = [_texts(failure), after, at]
        case Failed(failure, result):
            rest = [_texts(failure), result]
        case Ignored(reason):
            rest = [reason]
        case Cancelled():
            rest = []
        case _:
            raise TypeError(f"{type(outcome).__name__} is for workers to say")
    return [type(outcome).__name__, *rest]


def read(told: list[Any]) -> Outcome:
    """What `written` has made."""
    name, *rest = told
    # Failures alone are told as lists.
    return _KINDS[name](*(Failure(*one) if isinstance(one, list) else one for one in rest))


def _texts(failure: Failure) -> list[str | None]:
    return [failure.type, failure.message, failure.traceback]
