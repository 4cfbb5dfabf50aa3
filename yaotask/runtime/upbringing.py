"""The upbringing of child processes: what they are told, and what their deaths mean for their jobs."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yaotask.channel import Message
from yaotask.jobs import Claim, Failure, Lost
from yaotask.store.reaping import MOST_DEATHS


@dataclass(frozen=True, slots=True)
class Upbringing:
    """What children are told at their start, and the rules of their lives."""

    root: Path
    settings: dict[str, Any]
    most_jobs: int
    losses: int
    # What of the catalog need not be looked at again.
    sound: Collection[str] = ()

    @property
    def hello(self) -> Message:
        return {"root": str(self.root), "settings": self.settings, "sound": sorted(self.sound)}

    def lost(self, claim: Claim, fate: str) -> Lost:
        """What becomes of a job whose child has met this fate."""
        last = f"its process ended {ended(fate)} while it ran the job"
        deaths = claim.losses + 1
        if deaths < min(self.losses, MOST_DEATHS):
            return Lost(Failure("WorkerLost", last))
        many = f"{deaths} processes died while they had the job; the last: " if deaths > 1 else ""
        return Lost(Failure("PoisonedJob", many + last), poisoned=True)


def ended(fate: str) -> str:
    """How a process has ended that met this fate: `with exit status 7`."""
    how = f"by {fate}" if fate.startswith("SIG") else f"with {fate}"
    return f"{how}, as when memory runs out" if fate == "SIGKILL" else how
