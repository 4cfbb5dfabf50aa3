"""What was taken for a worker by a cycle of which nobody learned whether it was stored: to be given back, if it was."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from yaotask.events import Delivery
from yaotask.jobs import Cancelled, Claim, Interrupted
from yaotask.store import statements
from yaotask.store.cycle import SqlCycle
from yaotask.store.protocol import Finish, Harvest

# A job or an event by its key, and the worker that it was taken for; a claim has its fence besides.
ClaimName = tuple[int, int, int]
EventName = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Owing:
    """Claims and events that nobody was given. Each stays until it is sure what became of it."""

    claims: Mapping[ClaimName, Claim] = field(default_factory=dict)
    events: Mapping[EventName, Delivery] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.claims or self.events)

    def plus(self, harvest: Harvest, worker: int) -> Owing:
        """This, and what such a cycle took for a worker."""
        claims = {(claim.key, claim.fence, worker): claim for some in harvest.claims.values() for claim in some}
        events = {(delivery.seq, worker): delivery for delivery in harvest.deliveries}
        return Owing({**self.claims, **claims}, {**self.events, **events})

    def without(self, harvest: Harvest, worker: int | None) -> Owing:
        """This, but for what the worker has taken once more, and knows of."""
        if worker is None or not self:
            return self
        claims = {(claim.key, claim.fence, worker) for some in harvest.claims.values() for claim in some}
        events = {(delivery.seq, worker) for delivery in harvest.deliveries}
        return Owing(
            {name: claim for name, claim in self.claims.items() if name not in claims},
            {name: event for name, event in self.events.items() if name not in events},
        )

    def give_back(self, cycle: SqlCycle) -> Owing:
        """Give back what was stored (T10); what is left is in somebody's open transaction.

        That may be the one in doubt, whose commit is on its way still: as long as it is, it keeps its rows locked.
        Where nobody has a row, what it shows is what became of it, and a row that is not as we took it is another's.
        """
        if not self:
            return self
        busy = cycle.held_of({key for key, _, _ in self.claims})
        busy_events = cycle.held_events_of({seq for seq, _ in self.events})
        _give_back_claims(cycle, {name: claim for name, claim in self.claims.items() if name[0] not in busy})
        _give_back_events(cycle, {name: one for name, one in self.events.items() if name[0] not in busy_events})
        return Owing(
            {name: claim for name, claim in self.claims.items() if name[0] in busy},
            {name: event for name, event in self.events.items() if name[0] in busy_events},
        )


def _give_back_claims(cycle: SqlCycle, claims: Mapping[ClaimName, Claim]) -> None:
    ends = []
    for (key, fence, worker), claim in claims.items():
        # Of a claim that was not stored another worker may have the same fence, taken in the same millisecond.
        held = cycle.execute(statements.HELD_BY, key=key, fence=fence, worker=worker).one_or_none()
        if held is not None:
            outcome = Interrupted() if held.cancel_at is None else Cancelled()
            ends.append(Finish(claim, outcome, cycle.now, cycle.now))
            cycle.harvest.woken.add(claim.task)
    cycle.finish(ends)


def _give_back_events(cycle: SqlCycle, events: Mapping[EventName, Delivery]) -> None:
    for seq, worker in events:
        if cycle.execute(statements.RELEASE_EVENT, seq=seq, worker=worker).rowcount:
            cycle.harvest.wrote_events = True
