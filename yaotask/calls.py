"""Process calls: everything by name, as in `tasks.mail.add`.

Names of groups and methods may be written in any case; those of tasks and functions keep theirs.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import anyio.to_thread

from yaotask.behalf import Behalf
from yaotask.client import Client, must_not_block
from yaotask.errors import AddRefused, InvalidPayload, UnknownName
from yaotask.listing import Listing
from yaotask.names import integer, integers
from yaotask.options import NAMES, Options
from yaotask.resolve import Resolver
from yaotask.suggest import did_you_mean

log = logging.getLogger(__name__)

GROUPS = ("tasks", "scripts")
METHODS = ("add", "submit", "get", "progress", "status", "list", "cancel", "retry", "attempts")
SUBMIT = ("args", "payload", *(name for name in NAMES if name != "connection"))
NO_OPTIONS = Options()

Call = Callable[..., Any]


class Calls:
    """Finds what a name stands for, and calls it."""

    def __init__(self, client: Client, resolver: Resolver, behalf: Behalf) -> None:
        self._client = client
        self._resolver = resolver
        self._behalf = behalf
        self._methods: dict[str, Call] = {
            "add": self._add,
            "submit": self._submit,
            "get": self._get,
            "progress": self._progress,
            "status": self._status,
            "list": self._list,
            "cancel": self._cancel,
            "retry": self._retry,
            "attempts": self._attempts,
        }
        self._signatures = {name: inspect.signature(method) for name, method in self._methods.items()}

    def call(self, name: str, args: Sequence[Any], payload: Mapping[str, Any]) -> Any:
        """Make a call from a thread.

        Raises UnknownName for a name that stands for nothing, BlockingCall on a running loop (but for
        the progress of one's own job), and what the call itself raises.
        """
        group, rest = self._split(name)
        if group == "scripts":
            must_not_block(name)
            return self._behalf.call(self._script(rest), *args, **payload)
        task, method = self._method(rest)
        if not self._is_own_progress(task, method, args):
            must_not_block(name)
        return self._bound(name, task, method, args, payload)()

    async def acall(self, name: str, args: Sequence[Any], payload: Mapping[str, Any]) -> Any:
        """Make a call from a loop; what blocks runs in a thread."""
        group, rest = self._split(name)
        if group == "scripts":
            return await self._ascript(rest, args, payload)
        task, method = self._method(rest)
        if task is not None and method == "add":
            return await self._aadd(task, args, payload)
        call = self._bound(name, task, method, args, payload)
        if task is not None and method == "submit":
            return await self._asubmit(task, *args, **payload)
        if self._is_own_progress(task, method, args):
            return call()
        return await anyio.to_thread.run_sync(call)

    # --- names ------------------------------------------------------------------------------------------

    def _split(self, name: str) -> tuple[str, str]:
        group, _, rest = name.partition(".")
        if group.lower() not in GROUPS or not rest:
            hint = did_you_mean(group, GROUPS) if group.lower() not in GROUPS else ""
            raise UnknownName(
                f'"{name}" is no process{hint}; there are tasks.<id>.<method> and scripts.<path>.<Function>'
            )
        return group.lower(), rest

    def _method(self, rest: str) -> tuple[str | None, str]:
        """The task, or None for all of them, and the method."""
        task, dot, word = rest.rpartition(".")
        method = word.lower()
        if not dot and method == "list":
            return None, method
        if not dot or method not in METHODS:
            what = f'there is no method "{word}" of tasks{did_you_mean(word, METHODS)}'
            raise UnknownName(f"{what}; there are {', '.join(METHODS)}, as in tasks.mail.add")
        self._client.catalog.get(task)
        return task, method

    def _bound(
        self, name: str, task: str | None, method: str, args: Sequence[Any], payload: Mapping[str, Any]
    ) -> Callable[[], Any]:
        """The method with its arguments; TypeError, in the words of the call, where it does not take them."""
        try:
            self._signatures[method].bind(task, *args, **payload)
        except TypeError as error:
            raise TypeError(f"{name}: {error}") from None
        return partial(self._methods[method], task, *args, **payload)

    def _is_own_progress(self, task: str | None, method: str, args: Sequence[Any]) -> bool:
        if method != "progress" or task is None or not args:
            return False
        return self._client.own_job(task, integer(task, args[0])) is not None

    # --- methods -----------------------------------------------------------------------------------------

    def _add(self, task: str, /, *args: Any, **payload: Any) -> int:
        try:
            return self._client.add(task, args, payload, NO_OPTIONS)
        except AddRefused as refusal:
            return _refused(task, refusal)

    async def _aadd(self, task: str, args: Sequence[Any], payload: Mapping[str, Any]) -> int:
        try:
            return await self._client.aadd(task, args, payload, NO_OPTIONS)
        except AddRefused as refusal:
            return _refused(task, refusal)

    def _submit(self, task: str, given: Any = None, /, **named: Any) -> Any:
        return self._client.get(task, self._client.add(task, *self._wish(given, named)))

    async def _asubmit(self, task: str, given: Any = None, /, **named: Any) -> Any:
        id = await self._client.aadd(task, *self._wish(given, named))
        return await anyio.to_thread.run_sync(self._client.get, task, id)

    def _wish(self, given: Any, named: Mapping[str, Any]) -> tuple[Sequence[Any], Mapping[str, Any], Options]:
        wish = _merged(given, named)
        for name in wish:
            if name not in SUBMIT:
                raise UnknownName(f'submit takes no "{name}"{did_you_mean(name, SUBMIT)}; it takes {", ".join(SUBMIT)}')
        args, payload = wish.pop("args", None) or [], wish.pop("payload", None) or {}
        if not isinstance(args, list | tuple):
            raise InvalidPayload("must be a list", "$.args")
        if not isinstance(payload, Mapping):
            raise InvalidPayload("must be a mapping", "$.payload")
        return args, dict(payload), Options.of(wish)

    def _get(self, task: str, id: Any, /) -> Any:
        return self._client.get(task, integer(task, id))

    def _progress(
        self, task: str, id: Any, /, current: int, total: int | None = None, message: str | None = None
    ) -> None:
        self._client.progress(task, integer(task, id), current, total, message)

    def _status(self, task: str, ids: Any, /) -> dict[int, str]:
        return self._client.status(task, integers(task, ids))

    def _list(self, task: str | None, given: Any = None, /, **filters: Any) -> Any:
        return self._client.list(Listing.of(task, _merged(given, filters)))

    def _cancel(self, task: str, id: Any, /) -> str:
        return self._client.cancel(task, integer(task, id))

    def _retry(self, task: str, id: Any, /) -> None:
        self._client.retry(task, integer(task, id))

    def _attempts(self, task: str, id: Any, /) -> Any:
        return self._client.attempts(task, integer(task, id))

    # --- scripts -----------------------------------------------------------------------------------------

    def _script(self, rest: str) -> Call:
        return self._resolver.resolve(f"scripts.{rest}")

    async def _ascript(self, rest: str, args: Sequence[Any], payload: Mapping[str, Any]) -> Any:
        function = await anyio.to_thread.run_sync(self._script, rest)
        return await self._behalf.acall(function, *args, **payload)


def _merged(given: Any, named: Mapping[str, Any]) -> dict[str, Any]:
    """What was given by name, and in a mapping: a shell can only give that."""
    if given is not None and not isinstance(given, Mapping):
        raise InvalidPayload(f"must be a mapping, not a {type(given).__name__}", "$")
    return {**(given or {}), **named}


def _refused(task: str, refusal: AddRefused) -> int:
    log.warning("a job of %s was refused: %s", task, refusal)
    return 0
