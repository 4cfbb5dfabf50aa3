"""From the definitions of a project to the runner that works them."""

from __future__ import annotations

from collections.abc import Collection
from contextvars import Context, copy_context
from datetime import timedelta
from pathlib import Path

from yaotask import context
from yaotask.chance import Chance
from yaotask.clock import Clock
from yaotask.definitions.catalog import Catalog
from yaotask.definitions.model import Definition
from yaotask.errors import HandlerNotFound
from yaotask.handlers import Handlers
from yaotask.runtime.deadlines import Deadlines
from yaotask.runtime.desk import JobDesk
from yaotask.runtime.execute import Policy
from yaotask.runtime.herald import Herald
from yaotask.runtime.hooks import Courier
from yaotask.runtime.pool import Pool, Work
from yaotask.runtime.runner import Runner
from yaotask.settings import Settings
from yaotask.store.access import Access

MILLISECOND = timedelta(milliseconds=1)


class Assembly:
    """Builds the parts of one worker process, each from what it needs and no more."""

    def __init__(
        self,
        catalog: Catalog,
        handlers: Handlers,
        settings: Settings,
        access: Access,
        state: Path,
        *,
        clock: Clock,
        chance: Chance,
        owner: object,
    ) -> None:
        self._catalog = catalog
        self._handlers = handlers
        self._settings = settings
        self._access = access
        self._state = state
        self._clock = clock
        self._chance = chance
        self._owner = owner

    def runner(self, broken: Collection[str]) -> Runner:
        """A runner for all tasks but the broken ones, whose jobs wait."""
        ledger = self._access.opened.ledger
        deadlines = Deadlines(ledger, self._clock)
        good = [definition for id, definition in sorted(self._catalog.tasks.items()) if id not in broken]
        return Runner(
            self._access,
            [self._pool(definition, deadlines) for definition in good],
            self._courier(),
            deadlines,
            state=self._state,
            losses=self._settings.losses,
            start=self._start,
            clock=self._clock,
            chance=self._chance,
        )

    def _start(self) -> Context:
        """The context that users' code starts in: it knows whose it is, and no job."""
        start = copy_context()
        start.run(context.owner.set, self._owner)
        start.run(context.current.set, None)
        return start

    def _pool(self, definition: Definition, deadlines: Deadlines) -> Pool:
        opened, policy = self._access.opened, self._policy(definition)
        desk = JobDesk(policy, opened.ledger, opened.store, self._clock, deadlines, self._herald(definition))
        work = Work(
            definition.id, self._handlers.find(definition), definition.worker_nums, policy, self._settings.claim_batch
        )
        return Pool(work, opened.ledger, self._clock, desk, deadlines)

    def _herald(self, definition: Definition) -> Herald | None:
        hook = self._hook(definition)
        timeout = self._settings.hook_timeout.total_seconds()
        return None if hook is None else Herald(hook, timeout, self._settings.limits)

    def _hook(self, definition: Definition) -> context.ProgressHook | None:
        try:
            return self._handlers.hook(definition, "progress")
        except HandlerNotFound as error:
            reason = str(error)

            def cannot_be_called(*progress: object) -> None:
                raise HandlerNotFound(reason)

            return cannot_be_called

    def _policy(self, definition: Definition) -> Policy:
        find = self._handlers.resolver.exception
        return Policy(
            attempts=definition.attempts,
            attempt_after=definition.attempt_after,
            backoff=definition.backoff,
            timeout_ms=max(1, definition.timeout // MILLISECOND),
            fail_on=tuple(map(find, definition.fail_on)),
            ignore_on=tuple(map(find, definition.ignore_on)),
            transaction=definition.transaction,
            sensitive=definition.sensitive,
            limits=self._settings.limits,
            chance=self._chance,
        )

    def _courier(self) -> Courier:
        return Courier(
            self._catalog.tasks,
            self._handlers.resolver,
            self._access.opened.ledger,
            self._clock,
            timeout=self._settings.hook_timeout.total_seconds(),
            attempts=self._settings.hook_attempts,
            limits=self._settings.limits,
        )
