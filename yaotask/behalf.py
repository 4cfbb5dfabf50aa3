"""Users' functions are called on behalf of an App: what they call by name is its project."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import copy_context
from typing import Any

from yaotask import context, invoke
from yaotask.context import Owner


class Behalf:
    """Calls functions for one App."""

    def __init__(self, owner: Owner) -> None:
        self.owner = owner

    def call(self, function: Callable[..., Any], /, *args: Any, **named: Any) -> Any:
        """Call a function from a thread without a loop; an async one runs on a loop of its own."""
        inside = copy_context()
        inside.run(context.owner.set, self.owner)
        return inside.run(invoke.call, function, *args, **named)

    async def acall(self, function: Callable[..., Any], /, *args: Any, **named: Any) -> Any:
        """Call a function from a loop; one that is not async runs in a thread."""
        mark = context.owner.set(self.owner)
        try:
            return await invoke.acall(function, *args, **named)
        finally:
            context.owner.reset(mark)
