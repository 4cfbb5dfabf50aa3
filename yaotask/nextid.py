"""Ids that `event.next` gives to new jobs."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from anyio.to_thread import run_sync

from yaotask.behalf import Behalf
from yaotask.definitions.model import Definition
from yaotask.errors import DuplicateJobId
from yaotask.handlers import Handlers
from yaotask.jobs import MAX_ID

log = logging.getLogger(__name__)


class NextIds:
    """Asks `event.next` of tasks that have it. Where it raises, that is logged, and the store shall generate an id."""

    def __init__(self, handlers: Handlers, behalf: Behalf) -> None:
        self._handlers = handlers
        self._behalf = behalf
        self._known: dict[str, Callable[..., Any]] = {}

    def draw(self, definition: Definition) -> int | None:
        """The id of the next job; None for one that is generated. Raises DuplicateJobId for what is no id."""
        try:
            id = self._behalf.call(self._find(definition))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - it costs the job nothing but an id of its own
            _complain(definition, error)
            return None
        return _checked(definition.id, id)

    async def adraw(self, definition: Definition) -> int | None:
        """Like `draw`, on a loop."""
        try:
            # Finding it imports its module, which may take its time.
            hook = self._known.get(definition.id)
            if hook is None:
                hook = await run_sync(self._find, definition)
            id = await self._behalf.acall(hook)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - as above
            _complain(definition, error)
            return None
        return _checked(definition.id, id)

    def _find(self, definition: Definition) -> Callable[..., Any]:
        hook = self._known.get(definition.id)
        if hook is None:
            hook = self._known[definition.id] = self._handlers.resolver.resolve(definition.event.next or "")
        return hook


def _checked(task: str, id: object) -> int:
    if not isinstance(id, int) or isinstance(id, bool) or not 1 <= id <= MAX_ID:
        shown = id if isinstance(id, int | float) else f"a {type(id).__name__}"
        raise DuplicateJobId(
            task, id, f"`event.next` of {task} returned {shown}: an id is an integer from 1 to 2**53 - 1"
        )
    return int(id)


def _complain(definition: Definition, error: BaseException) -> None:
    log.warning("`event.next` of %s failed, so an id is generated: %s: %s", definition.id, type(error).__name__, error)
