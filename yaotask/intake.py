"""Adds are checked here before anything is stored: names, values, sizes, and whose the id is."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from anyio.to_thread import run_sync

from yaotask import masking
from yaotask.behalf import Behalf
from yaotask.clock import Clock
from yaotask.definitions import payload as payloads
from yaotask.definitions.catalog import Catalog
from yaotask.definitions.model import Definition
from yaotask.errors import InvalidPayload
from yaotask.events import EventKind
from yaotask.handlers import Handlers
from yaotask.nextid import NextIds
from yaotask.options import Options
from yaotask.settings import Limits
from yaotask.signatures import Parameters
from yaotask.store.cycle import SqlCycle
from yaotask.store.ledger import Ledger
from yaotask.store.protocol import Add, NewJob, Terms, Ticket
from yaotask.values import clean_text, encode_argument

log = logging.getLogger(__name__)

NO_PAYLOAD = "{}"
# What is known of how a call fits its handler, besides why it does not.
FITS, UNKNOWN = "", "?"
# Shapes of calls whose fit is remembered, a task.
MOST_SHAPES = 1_000
# So much of a bulk add is stored in one transaction, and held in memory.
CHUNK, CHUNK_BYTES = 1_000, 4_000_000


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

    def __init__(self, catalog: Catalog, handlers: Handlers, limits: Limits, clock: Clock, behalf: Behalf) -> None:
        self._catalog = catalog
        self._handlers = handlers
        self._limits = limits
        self._clock = clock
        self._behalf = behalf
        self._next = NextIds(handlers, behalf)
        self._validators: dict[str, Callable[[Mapping[str, Any]], None]] = {}
        # Which events the hooks of each task listen to.
        self._masks: dict[str, int] = {}
        self._fits: dict[str, dict[tuple[int, tuple[str, ...]], str]] = {}

    # --- jobs ---------------------------------------------------------------------------------------------

    def prepare(self, task: str, args: Sequence[Any], payload: Mapping[str, Any], options: Options) -> Prepared:
        """Check one job, and ask `event.next` for its id. Raises UnknownTask, InvalidPayload, DuplicateJobId."""
        definition = self._catalog.get(task)
        job = self._job(definition, args, payload, self._terms(definition, options))
        if definition.event.next is not None:
            job = job._replace(id=self._next.draw(definition))
        return self._prepared(definition, [job])

    async def aprepare(self, task: str, args: Sequence[Any], payload: Mapping[str, Any], options: Options) -> Prepared:
        """Like `prepare`, on a loop."""
        definition = self._catalog.get(task)
        if definition.input is not None and task not in self._validators:
            # The first one imports jsonschema, which takes its time.
            await run_sync(self._validator, definition)
        job = self._job(definition, args, payload, self._terms(definition, options))
        if definition.event.next is not None:
            job = job._replace(id=await self._next.adraw(definition))
        return self._prepared(definition, [job])

    def chunks(self, task: str, items: Iterable[Any], options: Options) -> Iterator[Prepared]:
        """Check many jobs, and yield some at a time.

        An item is a list or tuple of arguments, or a mapping: the payload. Raises as `prepare`; the path of
        InvalidPayload begins with the item, as in `$[17].args[0]`.
        """
        definition = self._catalog.get(task)
        if options.key is not None:
            raise InvalidPayload("is the key of one job, and cannot be that of many", "$.key")
        jobs: list[NewJob] = []
        size = 0
        terms = self._terms(definition, options)
        for index, item in enumerate(items):
            job = self._item(definition, index, item, terms)
            if definition.event.next is not None:
                job = job._replace(id=self._next.draw(definition))
            jobs.append(job)
            size += len(job.args) + len(job.payload)
            if len(jobs) >= CHUNK or size >= CHUNK_BYTES:
                yield self._prepared(definition, jobs)
                # A delay counts from about when its jobs are stored.
                jobs, size, terms = [], 0, self._terms(definition, options)
        if jobs:
            yield self._prepared(definition, jobs)

    def _item(self, definition: Definition, index: int, item: Any, terms: Terms) -> NewJob:
        try:
            return self._job(definition, *_split(item), terms)
        except InvalidPayload as error:
            raise InvalidPayload(str(error).removeprefix(f"{error.path}: "), f"$[{index}]{error.path[1:]}") from None

    def _prepared(self, definition: Definition, jobs: list[NewJob]) -> Prepared:
        mask = self._masks.get(definition.id)
        if mask is None:
            mask = self._masks[definition.id] = _mask(definition)
        return Prepared(definition.id, jobs, definition.size, mask)

    def _terms(self, definition: Definition, options: Options) -> Terms:
        return Terms(
            definition.priority if options.priority is None else options.priority,
            options.attempts,
            options.timeout,
            options.created_by,
            options.key,
            options.ready_at(self._clock),
        )

    def _job(self, definition: Definition, args: Sequence[Any], payload: Mapping[str, Any], terms: Terms) -> NewJob:
        text, named = self._encode("$.args", list(args)), NO_PAYLOAD
        if payload or definition.input is not None:
            named = self._encode("$.payload", payload)
            if definition.input is not None:
                self._validator(definition)(payload)
        if len(text) + len(named) > self._limits.args_bytes:
            size = len(text) + len(named)
            raise InvalidPayload(
                f"is {size:,} characters in all; the limit is {self._limits.args_bytes:,} (limits.args_bytes)"
            )
        self._check_fit(definition.id, len(args), payload)
        return NewJob(text, named, terms)

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

    def _validator(self, definition: Definition) -> Callable[[Mapping[str, Any]], None]:
        validate = self._validators.get(definition.id)
        if validate is None:
            validate = self._validators[definition.id] = payloads.validator(definition.input, path="$.payload")
        return validate

    def _check_fit(self, task: str, count: int, payload: Mapping[str, Any]) -> None:
        """Refuse what the handler cannot be called with, where the handler is known in this process."""
        handler = self._handlers.known(task)
        if handler is None:
            return
        fits, shape = self._fits.setdefault(task, {}), (count, tuple(payload))
        misfit = fits.get(shape, UNKNOWN)
        if misfit is UNKNOWN:
            if len(fits) >= MOST_SHAPES:
                fits.clear()
            misfit = fits[shape] = handler.parameters.misfit(1 + count, payload) or FITS
        if misfit is not FITS:
            raise InvalidPayload(misfit)

    # --- progress from outside -----------------------------------------------------------------------------

    def announce(self, task: str, id: int, *progress: Any) -> None:
        """Call the progress hook of a task from a thread; what goes wrong there is logged."""
        try:
            hook = self._handlers.hook(self._catalog.get(task), "progress")
            if hook is not None:
                self._behalf.call(hook, id, *progress)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a hook can do nothing to its job
            log.warning("the progress hook of %s.%s failed: %s: %s", task, id, type(error).__name__, error)

    def parameters(self, definition: Definition) -> Parameters | None:
        """What the handler takes; None where it cannot be found."""
        handler = self._handlers.try_find(definition)
        return None if handler is None else handler.parameters

    def message(self, text: str, definition: Definition | None, args: Sequence[Any], payload: Mapping[str, Any]) -> str:
        """A progress message of a job with these arguments, as it can be stored."""
        if definition is not None and definition.sensitive:
            text = masking.hider(args, payload, definition.sensitive, self.parameters(definition))(text)
        return clean_text(text, self._limits.message_bytes)


def _split(item: Any) -> tuple[Sequence[Any], Mapping[str, Any]]:
    match item:
        case list() | tuple():
            return item, {}
        case Mapping():
            return (), dict(item)
        case _:
            raise InvalidPayload(
                f"is a {type(item).__name__}; an item is a list of arguments, or a mapping: the payload"
            )


def _mask(definition: Definition) -> int:
    return sum(kind.bit for kind in EventKind if getattr(definition.event, kind.hook) is not None)
