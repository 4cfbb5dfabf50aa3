"""For whom the ledger claims: those who run jobs, and those who tell hooks. Both are called on its thread."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from yaotask.events import Delivery
from yaotask.jobs import Claim

# With what went wrong, and when its hook is called again; None: never. Where nothing did, its hook was not called, and
# somebody else may have it from then on.
FailedDelivery = tuple[Delivery, str | None, int | None]


class Consumer(Protocol):
    """Whoever runs the jobs of one task, as the ledger sees it."""

    def demand(self) -> int:
        """How many more claims it can take now."""
        ...

    def deliver(self, claims: Sequence[Claim]) -> None:
        """These claims are committed; run them in this order."""
        ...

    def lost(self, key: int, fence: int) -> None:
        """This claim is no longer ours; it may be another consumer's."""
        ...

    def cancelled(self, key: int, fence: int) -> bool:
        """Make the attempt of this claim end; False where it does not run here, or has ended."""
        ...


class Courier(Protocol):
    """Whoever delivers events to hooks, as the ledger sees it."""

    @property
    def tasks(self) -> tuple[str, ...]:
        """Those whose events it can take now."""
        ...

    def demand(self) -> int:
        """How many more events it can take now."""
        ...

    def deliver(self, deliveries: Sequence[Delivery]) -> None:
        """These events are ours to deliver."""
        ...

    def settled(self) -> tuple[list[Delivery], list[FailedDelivery]]:
        """What was delivered, and what failed, since this was last asked."""
        ...
