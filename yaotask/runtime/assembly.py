"""From the definitions of a project to the runner that works them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextvars import Context, copy_context
from dataclasses import replace
from datetime import timedelta

from yaotask import context
from yaotask.chance import Chance
from yaotask.clock import Clock
from yaotask.definitions.catalog import Catalog
from yaotask.definitions.model import Definition
from yaotask.errors import HandlerNotFound
from yaotask.events import Delivery
from yaotask.handlers import Handlers
from yaotask.reporting import ProgressHook
from yaotask.runtime.bench import Bench
from yaotask.runtime.calling import Caller, call_here
from yaotask.runtime.children import Children
from yaotask.runtime.deadlines import Deadlines
from yaotask.runtime.desk import JobDesk, Recorder, Timer
from yaotask.runtime.execute import Policy
from yaotask.runtime.herald import Herald
from yaotask.runtime.hooks import MESSENGERS, Courier
from yaotask.runtime.listening import Listener
from yaotask.runtime.pool import Pool, Work
from yaotask.runtime.quarantine import Quarantine
from yaotask.runtime.runner import Runner
from yaotask.runtime.shares import WHOLE, Share
from yaotask.runtime.upbringing import Upbringing
from yaotask.settings import Settings
from yaotask.store.access import Access
from yaotask.store.transactions import Transaction

MILLISECOND = timedelta(milliseconds=1)


class Assembly:
    """Builds the parts of one worker process, each from what it needs and no more."""

    def __init__(
        self,
        catalog: Catalog,
        handlers: Handlers,
        settings: Settings,
        access: Access,
        upbringing: Upbringing,
        *,
        clock: Clock,
        chance: Chance,
        owner: object,
    ) -> None:
        self._catalog = catalog
        self._handlers = handlers
        self._settings = settings
        self._access = access
        self._upbringing = upbringing
        self._clock = clock
        self._chance = chance
        self._owner = owner

    def runner(self, broken: Collection[str], share: Share = WHOLE, only: Collection[str] = ()) -> Runner:
        """A runner for this share of all tasks, or of `only` these; but for the broken ones, whose jobs wait."""
        ledger = self._access.opened.ledger
        deadlines, children = Deadlines(ledger, self._clock), Children(self._upbringing, self._clock)
        wanted = [definition for id, definition in sorted(self._catalog.tasks.items()) if not only or id in only]
        whole = {definition.id: definition for definition in wanted if definition.id not in broken}
        parts = [(definition, share.part(definition.worker_nums, at)) for at, definition in enumerate(wanted)]
        return Runner(
            self._access,
            [
                self._pool(definition, part, deadlines, children)
                for definition, part in parts
                if part and definition.id not in broken
            ],
            # Where the handler is broken its hooks may be too: another node has them whole.
            self._courier(whole),
            deadlines,
            children,
            Listener(self._access, self._clock, self._chance, deaf=not self._settings.hints),
            start=self._start,
            clock=self._clock,
        )

    def bench(self, task: str, recorder: Recorder, timer: Timer) -> Bench:
        """What runs jobs of a task in a process that has no pools. Raises UnknownTask, HandlerNotFound."""
        definition = self._catalog.get(task)
        policy, herald, start = self._policy(definition), self._herald(definition), self._start()
        if herald is not None:
            herald.open_apart(start)
        desk = JobDesk(policy, recorder, _StoreWhenNeeded(self._access), self._clock, timer, herald)
        return Bench(self._handlers.find(definition), policy, desk, start)

    def call_hook(self, path: str, delivery: Delivery) -> str | None:
        """Call a hook in a process that has no loop; what went wrong, or None."""
        return call_here(self._handlers.resolver, path, delivery, self._start(), self._settings.limits)

    def _start(self) -> Context:
        """The context that users' code starts in: it knows whose it is, and no job."""
        start = copy_context()
        start.run(context.owner.set, self._owner)
        start.run(context.current.set, None)
        return start

    def _pool(self, definition: Definition, part: int, deadlines: Deadlines, children: Children) -> Pool:
        opened, policy = self._access.opened, self._policy(definition)
        desk = JobDesk(policy, opened.ledger, opened.store, self._clock, deadlines, self._herald(definition))
        work = Work(
            definition.id,
            self._handlers.find(definition),
            part,
            policy,
            self._settings.claim_batch,
            self._settings.cancel_grace.total_seconds(),
        )
        return Pool(work, opened.ledger, self._clock, desk, deadlines, children)

    def _herald(self, definition: Definition) -> Herald | None:
        hook = self._hook(definition)
        timeout = self._settings.hook_timeout.total_seconds()
        return None if hook is None else Herald(hook, timeout, self._settings.limits, self._clock)

    def _hook(self, definition: Definition) -> ProgressHook | None:
        try:
            return self._handlers.hook(definition, "progress")
        except HandlerNotFound as error:
            reason = str(error)

            def cannot_be_called(*progress: object) -> None:
                raise HandlerNotFound(reason)

            return cannot_be_called

    def _policy(self, definition: Definition) -> Policy:
        find = self._handlers.resolver.exception
        fail_on, ignore_on = map(find, definition.fail_on), map(find, definition.ignore_on)
        policy = policy_of(definition, self._settings, self._chance)
        return replace(policy, fail_on=tuple(fail_on), ignore_on=tuple(ignore_on))

    def _courier(self, tasks: Mapping[str, Definition]) -> Courier:
        settings, clock = self._settings, self._clock
        timeout = settings.hook_timeout.total_seconds()
        return Courier(
            tasks,
            self._access.opened.ledger,
            clock,
            Caller(self._handlers.resolver, clock, timeout, settings.limits, MESSENGERS),
            Quarantine(Children(self._upbringing, clock), timeout, clock),
            attempts=settings.hook_attempts,
        )


class _StoreWhenNeeded:
    """Opens the store for the first transaction."""

    def __init__(self, access: Access) -> None:
        self._access = access

    def transaction(self) -> Transaction:
        return self._access.opened.store.transaction()


def policy_of(definition: Definition, settings: Settings, chance: Chance) -> Policy:
    """The rules of a task's attempts, but for its exceptions, which only users' code can name."""
    return Policy(
        attempts=definition.attempts,
        attempt_after=definition.attempt_after,
        backoff=definition.backoff,
        timeout_ms=max(1, definition.timeout // MILLISECOND),
        fail_on=(),
        ignore_on=(),
        transaction=definition.transaction,
        sensitive=definition.sensitive,
        limits=settings.limits,
        chance=chance,
    )
