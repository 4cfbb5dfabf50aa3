"""The functions that definitions name, found once for each task."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from yaotask.definitions.model import Definition
from yaotask.errors import HandlerNotFound
from yaotask.invoke import Handler
from yaotask.resolve import Resolver


class Handlers:
    """Handlers and hooks by task. Finding one imports its module, so nothing is looked for before it is needed."""

    def __init__(self, resolver: Resolver) -> None:
        self.resolver = resolver
        self._known: dict[str, Handler] = {}

    def find(self, definition: Definition) -> Handler:
        """The handler of a task. Raises HandlerNotFound."""
        handler = self._known.get(definition.id)
        if handler is None:
            handler = self._known[definition.id] = Handler.find(self.resolver, definition.process, definition.executor)
        return handler

    def known(self, task: str) -> Handler | None:
        """The handler of a task, if it was needed in this process before."""
        return self._known.get(task)

    def try_find(self, definition: Definition) -> Handler | None:
        """The handler of a task, or None where it cannot be found or imported."""
        try:
            return self.find(definition)
        except HandlerNotFound:
            return None

    def hook(self, definition: Definition, name: str) -> Callable[..., Any] | None:
        """The function under `event.<name>`; None where there is none. Raises HandlerNotFound."""
        path: str | None = getattr(definition.event, name)
        return None if path is None else self.resolver.resolve(path)
