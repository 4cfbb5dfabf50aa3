"""Adds are checked here before anything is stored: names, values, sizes, and whose the id is."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextvars import copy_context
from dataclasses import dataclass
from typing import Any

from yaotask import context, invoke
from yaotask.definitions import payload as payloads
from yaotask.definitions.catalog import Catalog
from yaotask.definitions.model import Definition
from yaotask.errors import DuplicateJobId, InvalidPayload
from yaotask.events import EventKind
from yaotask.handlers import Handlers
from yaotask.jobs import MAX_ID
from yaotask.options import Options
from yaotask.settings import Limits
from yaotask.signatures import Parameters
from yaotask.store.cycle import SqlCycle
from yaotask.store.ledger import Ledger
from yaotask.store.protocol import Add, NewJob, Ticket
from yaotask.values import clean_text, encode_argument

log = logging.getLogger(__name__)

NO_PAYLOAD = "{}"
# Shapes of calls whose fit is remembered, a task.
MOST_SHAPES = 1_000


@dataclass(frozen=True, slots=True)
class Prepared:
    """Checked jobs of one task, to be stored together."""

    task: str
    jobs: list[NewJob]
    size: int
    events: int

    def request(self, ledger: Ledger, ticket: Ticket) -> None:
        """Ask the ledger to store them; the ticket gets the list of ids."""
        ledger.add(Add(self.task, self.jobs, self.size, self.events, ticket))

    def store(self, cycle: SqlCycle) -> list[int]:
        """Store them in a transaction that is open."""
        add = Add(self.task, self.jobs, self.size, self.events, Ticket())
        cycle.add(add)
        return add.stored


class Intake:
    """Checks what callers give for the tasks of one project."""

    def __init__(self, catalog: Catalog, handlers: Handlers, limits: Limits, owner: object) -> None:
        self._catalog = catalog
        self._handlers = handlers
        self._limits = limits
        self._owner = owner
        self._validators: dict[str, Callable[[Mapping[str, Any]], None]] = {}
        self._fits: dict[str, dict[tuple[int, tuple[str, ...]], str | None]] = {}

    # --- jobs ---------------------------------------------------------------------------------------------

    def prepare(self, task: str, args: Sequence[Any], payload: Mapping[str, Any], options: Options) -> Prepared:
        """Check one job, and ask `event.next` for its id. Raises UnknownTask, InvalidPayload, DuplicateJobId."""
        definition = self._catalog.get(task)
        job = self._job(definition, args, payload, options)
        return self._prepared(definition, [self._with_id(definition, job)])

    async def aprepare(self, task: str, args: Sequence[Any], payload: Mapping[str, Any], options: Options) -> Prepared:
        """Like `prepare`, on a loop."""
        definition = self._catalog.get(task)
        job = self._job(definition, args, payload, options)
        if definition.event.next is not None:
            job = job._replace(id=await self._anext_id(definition))
        return self._prepared(definition, [job])

    def prepare_many(self, task: str, items: Sequence[Any], options: Options) -> Prepared:
        """Check many jobs: each item is a list or tuple of arguments, or a mapping, the payload."""
        definition = self._catalog.get(task)
        jobs = [self._job(definition, *_split(item), options) for item in items]
        if definition.event.next is not None:
            jobs = [self._with_id(definition, job) for job in jobs]
        return self._prepared(definition, jobs)

    def _prepared(self, definition: Definition, jobs: list[NewJob]) -> Prepared:
        return Prepared(definition.id, jobs, definition.size, _mask(definition))

    def _job(self, definition: Definition, args: Sequence[Any], payload: Mapping[str, Any], options: Options) -> NewJob:
        text, named = self._encode("$.args", list(args)), NO_PAYLOAD
        if payload or definition.input is not None:
            named = self._encode("$.payload", payload)
            self._check_payload(definition, payload)
        if len(text) + len(named) > self._limits.args_bytes:
            size = len(text) + len(named)
            raise InvalidPayload(
                f"is {size:,} characters in all; the limit is {self._limits.args_bytes:,} (limits.args_bytes)"
            )
        self._check_fit(definition.id, len(args), payload)
        priority = definition.priority if options.priority is None else options.priority
        return NewJob(
            text,
            named,
            None,
            priority,
            options.attempts,
            options.timeout,
            options.created_by,
            options.key,
            options.run_at,
        )

    def _encode(self, path: str, value: Any) -> str:
        limits = self._limits
        return encode_argument(
            value,
            path=path,
            limit=limits.args_bytes,
            setting="limits.args_bytes",
            depth=limits.depth,
            nodes=limits.nodes,
        )

    def _check_payload(self, definition: Definition, payload: Mapping[str, Any]) -> None:
        if definition.input is None:
            return
        validate = self._validators.get(definition.id)
        if validate is None:
            validate = self._validators[definition.id] = payloads.validator(definition.input, path="$.payload")
        validate(payload)

    def _check_fit(self, task: str, count: int, payload: Mapping[str, Any]) -> None:
        """Refuse what the handler cannot be called with, where the handler is known in this process."""
        handler = self._handlers.known(task)
        if handler is None:
            return
        fits, shape = self._fits.setdefault(task, {}), (count, tuple(payload))
        if shape not in fits:
            if len(fits) >= MOST_SHAPES:
                fits.clear()
            fits[shape] = handler.parameters.misfit(1 + count, payload)
        if (misfit := fits[shape]) is not None:
            raise InvalidPayload(misfit)

    # --- ids ----------------------------------------------------------------------------------------------

    def _with_id(self, definition: Definition, job: NewJob) -> NewJob:
        if definition.event.next is None:
            return job
        try:
            id = self.call(self._handlers.resolver.resolve(definition.event.next))
        except Exception as error:  # noqa: BLE001 - contract: a fault of `next` costs the job nothing but its own id
            return _without_id(definition, job, error)
        return job._replace(id=_checked_id(definition.id, id))

    async def _anext_id(self, definition: Definition) -> int | None:
        mark = context.owner.set(self._owner)
        try:
            id = await invoke.acall(self._handlers.resolver.resolve(definition.event.next or ""))
        except Exception as error:  # noqa: BLE001 - as above
            _complain(definition, error)
            return None
        finally:
            context.owner.reset(mark)
        return _checked_id(definition.id, id)

    # --- users' functions -----------------------------------------------------------------------------------

    def call(self, function: Callable[..., Any], *args: Any, **named: Any) -> Any:
        """Call a function of the project from a thread, on behalf of its App."""
        inside = copy_context()
        inside.run(context.owner.set, self._owner)
        return inside.run(invoke.call, function, *args, **named)

    def announce(self, task: str, id: int, *progress: Any) -> None:
        """Call the progress hook of a task from a thread; what goes wrong there is logged."""
        try:
            hook = self._handlers.hook(self._catalog.get(task), "progress")
            if hook is not None:
                self.call(hook, id, *progress)
        except Exception as error:  # noqa: BLE001 - a hook can do nothing to its job
            log.warning("the progress hook of %s.%s failed: %s: %s", task, id, type(error).__name__, error)

    def parameters(self, definition: Definition) -> Parameters | None:
        """What the handler takes; None where it cannot be found."""
        handler = self._handlers.try_find(definition)
        return None if handler is None else handler.parameters

    def message(self, text: str) -> str:
        """A progress message that can be stored."""
        return clean_text(text, self._limits.message_bytes)


def _split(item: Any) -> tuple[Sequence[Any], Mapping[str, Any]]:
    match item:
        case list() | tuple():
            return item, {}
        case Mapping():
            return (), item
        case _:
            raise InvalidPayload(
                f"is a {type(item).__name__}; an item is a list of arguments, or a mapping: the payload"
            )


def _mask(definition: Definition) -> int:
    return sum(kind.bit for kind in EventKind if getattr(definition.event, kind.hook) is not None)


def _checked_id(task: str, id: object) -> int:
    if not isinstance(id, int) or isinstance(id, bool) or not 1 <= id <= MAX_ID:
        shown = id if isinstance(id, int | float) else f"a {type(id).__name__}"
        raise DuplicateJobId(
            task, id, f"`event.next` of {task} returned {shown}: an id is an integer from 1 to 2**53 - 1"
        )
    return id


def _without_id(definition: Definition, job: NewJob, error: BaseException) -> NewJob:
    _complain(definition, error)
    return job


def _complain(definition: Definition, error: BaseException) -> None:
    log.warning("`event.next` of %s failed, so an id is generated: %s: %s", definition.id, type(error).__name__, error)
