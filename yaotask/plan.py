"""What a node is to be, before anything of it is there: light, so that its processes can be started at once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from yaotask.processes import Spawned, spawn


@dataclass(frozen=True, slots=True)
class Place:
    """What fills a place of a node: `worker 1` of a project, and the module that its processes run."""

    name: str
    kind: str
    number: int
    module: str
    plan: Plan

    def start(self) -> Spawned:
        """A process for this place. Raises OSError."""
        plan = self.plan
        hello = {"root": str(plan.root), "only": plan.only, "of": plan.processes, "number": self.number}
        return spawn(self.module, f"{self.name} of {plan.root}", hello)


@dataclass(frozen=True, slots=True)
class Plan:
    """Of which project, how many workers, and for which tasks; none named means all."""

    root: Path
    processes: int
    only: tuple[str, ...] = ()

    @property
    def workers(self) -> list[Place]:
        """The places of the workers."""
        return [
            Place(f"worker {number + 1}", "worker", number, "yaotask.worker", self) for number in range(self.processes)
        ]

    @property
    def services(self) -> Place:
        """The place of the services."""
        return Place("services", "services", 0, "yaotask.services", self)
