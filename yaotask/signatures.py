"""How a job's arguments meet the parameters of its handler."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from inspect import Parameter
from typing import Any

WHOLE = "payload"
_BY_NAME = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)


@dataclass(frozen=True, slots=True)
class Parameters:
    """What a handler can be called with, as far as its signature says.

    A handler gets the job's id and the arguments by position, and the members of the payload by
    name; one with a parameter called `payload` gets the whole payload there instead, unless the
    payload is empty and an argument has come to that place already.
    `signature` is None for the few builtins that have none: those are taken to accept anything.
    """

    signature: inspect.Signature | None
    whole_at: int | None = None
    # What is truly called: a decorator may give the function inside something, and take something from its callers.
    called: inspect.Signature | None = None

    @classmethod
    def of(cls, function: Callable[..., Any]) -> Parameters:
        try:
            signature = inspect.signature(function)
        except (ValueError, TypeError):
            return cls(None)
        try:
            called = inspect.signature(function, follow_wrapped=False)
        except (ValueError, TypeError):
            # Such as `functools.cache` makes, which passes on what it gets.
            called = signature
        names = list(signature.parameters)
        if WHOLE not in names or signature.parameters[WHOLE].kind not in _BY_NAME:
            return cls(signature, called=called)
        return cls(signature, names.index(WHOLE), called)

    def keywords(self, positional: int, payload: Mapping[str, Any]) -> Mapping[str, Any]:
        """The keyword arguments by which a payload reaches the handler, after so many arguments by position."""
        if self.whole_at is None:
            return payload
        return {WHOLE: payload} if payload or positional <= self.whole_at else {}

    def misfit(self, positional: int, names: Collection[str]) -> str | None:
        """Why a call would fail before the handler's first line, or None where it would not.

        `positional` counts the job's id with the arguments; `names` are the payload's members.
        """
        called = self.called or self.signature
        if called is None:
            return None
        try:
            called.bind(*range(positional), **self.keywords(positional, dict.fromkeys(names)))
        except TypeError as error:
            return f"{error}; the handler takes {called}, and is given the job's id first"
        return None
