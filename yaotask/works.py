"""What runs the jobs of a project, put together from what its App has."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from yaotask import nodeview
from yaotask.chance import Chance
from yaotask.clock import Clock
from yaotask.context import Owner
from yaotask.observers import outcomes
from yaotask.plan import Plan
from yaotask.project import Project
from yaotask.runtime.assembly import Assembly
from yaotask.runtime.bench import Benches
from yaotask.runtime.embedded import Embedded
from yaotask.runtime.maintenance import Maintenance
from yaotask.runtime.runner import Runner
from yaotask.runtime.shares import WHOLE, Share
from yaotask.runtime.supervisor import Supervisor
from yaotask.store.access import Access
from yaotask.store.opening import Place


@dataclass(frozen=True, slots=True, kw_only=True)
class Works:
    """Makes what works in one process, or keeps those that do."""

    project: Project
    access: Access
    # Asked when it is needed: raises BadDefinitions where the settings have faults.
    place: Callable[[], Place]
    clock: Clock
    chance: Chance
    owner: Owner

    def reach(self) -> None:
        """Open the store, unless it is open. Raises StorageError where that cannot be done now."""
        _ = self.access.opened

    def runner(self, broken: Collection[str], share: Share = WHOLE, only: Collection[str] = ()) -> Runner:
        """What runs a share of the project's jobs in this process, but for those of the `broken` tasks."""
        self.access.opened.ledger.tell = outcomes.tell
        assembly = Assembly(Benches(self.project, self.clock, self.chance, self.owner), self.access)
        return assembly.runner(broken, share, only)

    def embedded(self, broken: Collection[str] = ()) -> Embedded:
        """What runs the project's jobs on a loop of somebody else's program."""
        runner, state, project = self.runner(broken), self.place().state, self.project
        told = nodeview.told_of(project.catalog.tasks, broken)
        return Embedded(runner, self.access, state, project.settings, told, clock=self.clock, chance=self.chance)

    def maintenance(self) -> Maintenance:
        """What a node does for the store now and then."""
        return Maintenance(self.access, self.clock, self.chance)

    def supervisor(self, plan: Plan) -> Supervisor:
        """What keeps a node of this project."""
        state, project = self.place().state, self.project
        return Supervisor(
            plan, state, project.catalog, project.settings, self.access, clock=self.clock, chance=self.chance
        )
