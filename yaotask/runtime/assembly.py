"""From the definitions of a project to the runner that works them."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from yaotask.definitions.model import Definition
from yaotask.runtime.bench import Benches
from yaotask.runtime.calling import Caller
from yaotask.runtime.children import Children
from yaotask.runtime.deadlines import Deadlines
from yaotask.runtime.desk import JobDesk
from yaotask.runtime.hooks import MESSENGERS, Courier
from yaotask.runtime.listening import Listener
from yaotask.runtime.pool import Pool, Work
from yaotask.runtime.quarantine import Quarantine
from yaotask.runtime.runner import Runner
from yaotask.runtime.shares import WHOLE, Share
from yaotask.runtime.upbringing import Upbringing
from yaotask.store.access import Access


class Assembly:
    """Builds the parts of one worker process, each from what it needs and no more."""

    def __init__(self, benches: Benches, access: Access) -> None:
        self._benches = benches
        self._project = benches.project
        self._settings = benches.project.settings
        self._clock = benches.clock
        self._access = access

    def runner(self, broken: Collection[str], share: Share = WHOLE, only: Collection[str] = ()) -> Runner:
        """A runner for this share of all tasks, or of `only` these; but for the broken ones, whose jobs wait."""
        ledger, tasks = self._access.opened.ledger, self._project.catalog.tasks
        deadlines, children = Deadlines(ledger, self._clock), self._children()
        wanted = [definition for id, definition in sorted(tasks.items()) if not only or id in only]
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
            Listener(self._access, self._clock, self._benches.chance, deaf=not self._settings.hints),
            start=self._benches.start,
            clock=self._clock,
        )

    def _pool(self, definition: Definition, part: int, deadlines: Deadlines, children: Children) -> Pool:
        opened, policy = self._access.opened, self._benches.policy(definition)
        herald = self._benches.herald(definition)
        desk = JobDesk(policy, opened.ledger, opened.store, self._clock, deadlines, herald)
        work = Work(
            definition.id,
            self._project.handlers.find(definition),
            part,
            policy,
            self._settings.claim_batch,
            self._settings.cancel_grace.total_seconds(),
        )
        return Pool(work, opened.ledger, self._clock, desk, deadlines, children)

    def _courier(self, tasks: Mapping[str, Definition]) -> Courier:
        settings, clock = self._settings, self._clock
        timeout = settings.hook_timeout.total_seconds()
        return Courier(
            tasks,
            self._access.opened.ledger,
            clock,
            Caller(self._project.resolver, clock, timeout, settings.limits, MESSENGERS),
            Quarantine(self._children(), timeout, clock),
            attempts=settings.hook_attempts,
        )

    def _children(self) -> Children:
        project, settings = self._project, self._settings
        upbringing = Upbringing(
            project.root, project.given, settings.max_jobs_per_child, settings.losses, project.catalog.sound
        )
        return Children(upbringing, self._clock)
