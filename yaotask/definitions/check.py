"""What only the code of a project can tell about its definitions: whether the functions are there, and fit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from datetime import timedelta
from typing import Any, TypeVar

from yaotask.definitions.catalog import Catalog
from yaotask.definitions.model import Definition, Hooks
from yaotask.durations import show
from yaotask.errors import HandlerNotFound
from yaotask.invoke import is_async
from yaotask.marks import Path
from yaotask.problems import Problem, sort
from yaotask.resolve import Resolver
from yaotask.signatures import Parameters

_Found = TypeVar("_Found")
_HOOKS = tuple(hook.name for hook in fields(Hooks))


def check(catalog: Catalog, resolver: Resolver, *, strict: bool = False) -> list[Problem]:
    """Everything that loading alone could not see, for every task; `strict` adds each key that was left out.

    Imports the modules that the definitions name.
    """
    problems: list[Problem] = []
    for definition in (*catalog.tasks.values(), *catalog.faulty.values()):
        looker = _Looker(catalog, resolver, definition)
        looker.own()
        looker.hooks()
        if strict:
            looker.left_out()
        problems += looker.problems
    return _traces_once(sort(problems))


def _traces_once(problems: list[Problem]) -> list[Problem]:
    """One file that cannot be imported is at fault wherever it is named, and its traceback shown once."""
    seen: set[str | None] = set()
    shorter = []
    for problem in problems:
        shorter.append(replace(problem, detail=None) if problem.detail in seen else problem)
        seen.add(problem.detail)
    return shorter


def broken(catalog: Catalog, resolver: Resolver) -> dict[str, list[Problem]]:
    """The tasks whose jobs have to wait, with the reasons: a handler that is not there, or not as it is asked to be.

    A hook that is not there breaks no task: its deliveries fail by themselves.
    """
    found = {}
    for id, definition in catalog.tasks.items():
        looker = _Looker(catalog, resolver, definition)
        looker.own()
        if looker.problems:
            found[id] = sort(looker.problems)
    return found


class _Looker:
    """Looks at what one definition names, and notes what is wrong."""

    def __init__(self, catalog: Catalog, resolver: Resolver, definition: Definition) -> None:
        self.problems: list[Problem] = []
        self._catalog = catalog
        self._resolver = resolver
        self._definition = definition

    def own(self) -> None:
        """What keeps the handler from running as the definition asks."""
        definition = self._definition
        handler = self._find(("process",), definition.process, self._resolver.resolve)
        if handler is not None:
            self._misfits(definition, handler)
        for key in ("fail_on", "ignore_on"):
            for index, path in enumerate(getattr(definition, key)):
                self._find((key, index), path, self._resolver.exception)

    def _misfits(self, definition: Definition, handler: Callable[..., Any]) -> None:
        on_loop, name = is_async(handler), self._shown(("process",), definition.process)
        if not _takes_an_id(handler):
            self._note(("process",), f"{name} takes no argument by position; a handler is given the job's id first")
        if definition.executor == "async" and not on_loop:
            self._note(("executor",), f"async needs an `async def`, and {name} is none; leave it out, or use thread")
        if definition.transaction and (on_loop or definition.executor == "async"):
            self._note(("transaction",), f"is not for handlers on a loop; make {name} a plain `def`")

    def hooks(self) -> None:
        """Hooks that are not there."""
        for name in _HOOKS:
            if path := getattr(self._definition.event, name):
                self._find(("event", name), path, self._resolver.resolve)

    def left_out(self) -> None:
        """Keys that the file leaves to a default."""
        for key in self._definition.missing:
            value = getattr(self._definition, key)
            text = show(value) if isinstance(value, timedelta) else value
            message = f"is left to its default; write it out, as in {key}: {text}"
            self.problems.append(self._catalog.marks[self._definition.id].problem((key,), message))

    def _find(self, key: Path, path: str, find: Callable[[str], _Found]) -> _Found | None:
        try:
            return find(path)
        except HandlerNotFound as error:
            if key in self._definition.secrets:
                self._note(key, "names nothing that can be found or imported; got *** from the environment")
            else:
                self._note(key, str(error), error.trace)
            return None

    def _shown(self, key: Path, value: str) -> str:
        return "***" if key in self._definition.secrets else value

    def _note(self, key: Path, message: str, detail: str | None = None) -> None:
        self.problems.append(self._catalog.problem(self._definition.id, key, message, detail))


def _takes_an_id(handler: Callable[..., Any]) -> bool:
    signature = Parameters.of(handler).signature
    try:
        if signature is not None:
            signature.bind_partial(1)
    except TypeError:
        return False
    return True
