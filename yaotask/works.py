"""What runs the jobs of a project, put together from what its App has."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yaotask import nodeview
from yaotask.chance import Chance
from yaotask.clock import Clock
from yaotask.definitions.catalog import Catalog
from yaotask.events import Delivery
from yaotask.handlers import Handlers
from yaotask.observers import outcomes
from yaotask.plan import Plan
from yaotask.runtime.assembly import Assembly
from yaotask.runtime.bench import Bench
from yaotask.runtime.desk import Recorder, Timer
from yaotask.runtime.embedded import Embedded
from yaotask.runtime.maintenance import Maintenance
from yaotask.runtime.runner import Runner
from yaotask.runtime.shares import WHOLE, Share
from yaotask.runtime.supervisor import Supervisor
from yaotask.runtime.upbringing import Upbringing
from yaotask.settings import Settings
from yaotask.store.access import Access
from yaotask.store.opening import Place


@dataclass(frozen=True, slots=True, kw_only=True)
class Works:
    """Makes what works in one process, or keeps those that do."""

    root: Path
    settings: Settings
    # The settings that the App was given, which its children are given too.
    given: dict[str, Any]
    catalog: Catalog
    handlers: Handlers
    access: Access
    # Asked when it is needed: raises BadDefinitions where the settings have faults.
    place: Callable[[], Place]
    clock: Clock
    chance: Chance
    # The App on whose behalf users' code runs.
    owner: object

    def reach(self) -> None:
        """Open the store, unless it is open. Raises StorageError where that cannot be done now."""
        _ = self.access.opened

    def runner(self, broken: Collection[str], share: Share = WHOLE, only: Collection[str] = ()) -> Runner:
        """What runs a share of the project's jobs in this process, but for those of the `broken` tasks."""
        self.access.opened.ledger.tell = outcomes.tell
        return self._assembly().runner(broken, share, only)

    def bench(self, task: str, recorder: Recorder, timer: Timer) -> Bench:
        """What runs jobs of a task in a child process. Raises UnknownTask, HandlerNotFound."""
        return self._assembly().bench(task, recorder, timer)

    def call_hook(self, path: str, delivery: Delivery) -> str | None:
        """Call a hook in a child process; what went wrong, or None."""
        return self._assembly().call_hook(path, delivery)

    def embedded(self, broken: Collection[str] = ()) -> Embedded:
        """What runs the project's jobs on a loop of somebody else's program."""
        runner, state = self.runner(broken), self.place().state
        told = nodeview.told_of(self.catalog.tasks, broken)
        return Embedded(runner, self.access, state, self.settings, told, clock=self.clock, chance=self.chance)

    def maintenance(self) -> Maintenance:
        """What a node does for the store now and then."""
        return Maintenance(self.access, self.clock, self.chance)

    def supervisor(self, plan: Plan) -> Supervisor:
        """What keeps a node of this project."""
        state = self.place().state
        return Supervisor(plan, state, self.catalog, self.settings, self.access, clock=self.clock, chance=self.chance)

    def _assembly(self) -> Assembly:
        settings = self.settings
        return Assembly(
            self.catalog,
            self.handlers,
            settings,
            self.access,
            Upbringing(self.root, self.given, settings.max_jobs_per_child, settings.losses),
            clock=self.clock,
            chance=self.chance,
            owner=self.owner,
        )
