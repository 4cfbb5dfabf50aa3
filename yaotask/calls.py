"""Process calls: everything by name, as in `tasks.mail.add`.

Names of groups and methods may be written in any case; those of tasks and functions keep theirs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import anyio.to_thread

from yaotask import context, invoke
from yaotask.client import Client, must_not_block
from yaotask.clock import Clock
from yaotask.errors import AddRefused, InvalidPayload, UnknownName
from yaotask.intake import Intake
from yaotask.listing import Listing
from yaotask.names import integer
from yaotask.options import Options
from yaotask.resolve import Resolver
from yaotask.suggest import did_you_mean

log = logging.getLogger(__name__)

GROUPS = ("tasks", "scripts")
METHODS = ("add", "submit", "get", "progress", "status", "list", "cancel", "retry", "attempts")
SUBMIT = ("args", "payload", "key", "priority", "attempts", "timeout", "delay", "run_at", "created_by")
NO_OPTIONS = Options()

Call = Callable[..., Any]


class Calls:
    """Finds what a name stands for, and calls it."""

    def __init__(self, client: Client, intake: Intake, resolver: Resolver, clock: Clock, owner: object) -> None:
        self._client = client
        self._intake = intake
        self._resolver = resolver
        self._clock = clock
        self._owner = owner

    def call(self, name: str, args: Sequence[Any], payload: Mapping[str, Any]) -> Any:
        """Make a call from a thread.

        Raises UnknownName for a name that stands for nothing, BlockingCall on a running loop (but for
        the progress of one's own job), and what the call itself raises.
        """
        group, rest = self._split(name)
        if group == "scripts":
            must_not_block(name)
            return self._intake.call(self._script(rest), *args, **payload)
        task, method = self._method(rest)
        if not (method == "progress" and task is not None and self._is_own(task, args)):
            must_not_block(name)
        return self._bound(task, method)(*args, **payload)

    async def acall(self, name: str, args: Sequence[Any], payload: Mapping[str, Any]) -> Any:
        """Make a call from a loop; what blocks runs in a thread."""
        group, rest = self._split(name)
        if group == "scripts":
            return await self._ascript(rest, args, payload)
        task, method = self._method(rest)
        if method == "add" and task is not None:
            return await self._aadd(task, args, payload)
        call = partial(self._bound(task, method), *args, **payload)
        if method == "progress" and task is not None and self._is_own(task, args):
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

    def _bound(self, task: str | None, method: str) -> Call:
        if task is None:
            return partial(self._list, None)
        methods: dict[str, Call] = {
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
        return partial(methods[method], task)

    def _is_own(self, task: str, args: Sequence[Any]) -> bool:
        job = context.current.get()
        return job is not None and bool(args) and (job.task, job.id) == (task, integer(task, args[0]))

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

    def _submit(self, task: str, given: Mapping[str, Any] | None = None, /, **named: Any) -> Any:
        wish = {**(given or {}), **named}
        for name in wish:
            if name not in SUBMIT:
                raise UnknownName(f'submit takes no "{name}"{did_you_mean(name, SUBMIT)}; it takes {", ".join(SUBMIT)}')
        args, payload = wish.pop("args", None) or [], wish.pop("payload", None) or {}
        if not isinstance(args, list | tuple):
            raise InvalidPayload("must be a list", "$.args")
        if not isinstance(payload, Mapping):
            raise InvalidPayload("must be a mapping", "$.payload")
        id = self._client.add(task, args, payload, Options.of(wish, self._clock))
        return self._client.get(task, id)

    def _get(self, task: str, id: Any) -> Any:
        return self._client.get(task, integer(task, id))

    def _progress(self, task: str, id: Any, current: int, total: int | None = None, message: str | None = None) -> None:
        self._client.progress(task, integer(task, id), current, total, message)

    def _status(self, task: str, ids: Sequence[Any]) -> dict[int, str]:
        return self._client.status(task, [integer(task, id) for id in ids])

    def _list(self, task: str | None, **filters: Any) -> Any:
        return self._client.list(Listing.of(task, filters))

    def _cancel(self, task: str, id: Any) -> None:
        self._client.cancel(task, integer(task, id))

    def _retry(self, task: str, id: Any) -> None:
        self._client.retry(task, integer(task, id))

    def _attempts(self, task: str, id: Any) -> Any:
        return self._client.attempts(task, integer(task, id))

    # --- scripts -----------------------------------------------------------------------------------------

    def _script(self, rest: str) -> Call:
        return self._resolver.resolve(f"scripts.{rest}")

    async def _ascript(self, rest: str, args: Sequence[Any], payload: Mapping[str, Any]) -> Any:
        function = await anyio.to_thread.run_sync(self._script, rest)
        mark = context.owner.set(self._owner)
        try:
            return await invoke.acall(function, *args, **payload)
        finally:
            context.owner.reset(mark)


def _refused(task: str, refusal: AddRefused) -> int:
    log.warning("a job of %s was refused: %s", task, refusal)
    return 0
