"""What users' code runs with in a process, whether that has pools and a store or not."""

from __future__ import annotations

from contextvars import Context, copy_context
from dataclasses import dataclass, replace
from datetime import timedelta

from yaotask import context
from yaotask.chance import Chance
from yaotask.clock import Clock
from yaotask.context import Owner
from yaotask.definitions.model import Definition
from yaotask.errors import HandlerNotFound
from yaotask.events import Delivery
from yaotask.invoke import Handler
from yaotask.project import Project
from yaotask.reporting import ProgressHook
from yaotask.runtime.calling import call_here
from yaotask.runtime.desk import JobDesk, Recorder, Timer, Vault
from yaotask.runtime.execute import Policy
from yaotask.runtime.herald import Herald
from yaotask.settings import Settings

MILLISECOND = timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class Bench:
    """The handler of a task, the rules of its attempts, where its jobs' words go, and what it starts in."""

    handler: Handler
    policy: Policy
    desk: JobDesk
    start: Context


@dataclass(frozen=True, slots=True)
class Benches:
    """Makes, for the tasks of a project, what their handlers and hooks run with."""

    project: Project
    clock: Clock
    chance: Chance
    owner: Owner

    def bench(self, task: str, recorder: Recorder, vault: Vault, timer: Timer) -> Bench:
        """What runs jobs of a task in a process that has no pools. Raises UnknownTask, HandlerNotFound."""
        definition = self.project.catalog.get(task)
        policy, herald, start = self.policy(definition), self.herald(definition), self.start()
        if herald is not None:
            herald.open_apart(start)
        desk = JobDesk(policy, recorder, vault, self.clock, timer, herald)
        return Bench(self.project.handlers.find(definition), policy, desk, start)

    def call_hook(self, path: str, delivery: Delivery) -> str | None:
        """Call a hook in a process that has no loop; what went wrong, or None."""
        return call_here(self.project.resolver, path, delivery, self.start(), self.project.settings.limits)

    def start(self) -> Context:
        """The context that users' code starts in: it knows whose it is, and no job."""
        start = copy_context()
        start.run(context.owner.set, self.owner)
        start.run(context.current.set, None)
        return start

    def policy(self, definition: Definition) -> Policy:
        """The rules of a task's attempts. Raises HandlerNotFound for an exception that there is not."""
        find = self.project.resolver.exception
        fail_on, ignore_on = map(find, definition.fail_on), map(find, definition.ignore_on)
        policy = policy_of(definition, self.project.settings, self.chance)
        return replace(policy, fail_on=tuple(fail_on), ignore_on=tuple(ignore_on))

    def herald(self, definition: Definition) -> Herald | None:
        """What calls the progress hook of a task, where it has one."""
        hook = self._progress_hook(definition)
        settings = self.project.settings
        timeout = settings.hook_timeout.total_seconds()
        return None if hook is None else Herald(hook, timeout, settings.limits, self.clock)

    def _progress_hook(self, definition: Definition) -> ProgressHook | None:
        try:
            return self.project.handlers.hook(definition, "progress")
        except HandlerNotFound as error:
            reason = str(error)

            def cannot_be_called(*progress: object) -> None:
                raise HandlerNotFound(reason)

            return cannot_be_called


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
