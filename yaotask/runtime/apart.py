"""Running a claim in a child process, from a slot: on the loop, which only listens meanwhile."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from yaotask.channel import Message
from yaotask.jobs import Claim, Outcome
from yaotask.runtime import wire
from yaotask.runtime.attempt import Attempt
from yaotask.runtime.childprocess import ChildProcess
from yaotask.runtime.children import NoChild
from yaotask.runtime.execute import INTERRUPTED

if TYPE_CHECKING:
    from yaotask.runtime.pool import Pool

log = logging.getLogger(__name__)


class Slot(Protocol):
    """A place of a pool, which the job takes as long as it runs."""

    pool: Pool
    attempt: Attempt | None
    busy: int
    done: int


async def run_apart(slot: Slot, claim: Claim) -> None:
    """Run a claim in a child process, to its end. One for which there is none goes back to the queue, untried."""
    children = slot.pool.children
    try:
        child = await children.take(claim.losses)
        try:
            is_run = await _run(slot, claim, child)
        finally:
            children.put(child)
        if not is_run:
            await children.pause()
    except NoChild:
        slot.pool.give_back(claim)
        # Whoever is better off may run it meanwhile; this place is taken, so that it does not come back at once.
        await children.pause()
    finally:
        slot.done += 1
        # Its end was stored while it held this place.
        slot.pool.ledger.poke()


async def _run(slot: Slot, claim: Claim, child: ChildProcess) -> bool:
    """Run it there; False where the child would not have it, so that it goes back."""
    pool = slot.pool
    attempt = slot.attempt = pool.begin(claim, child.kill, child.cancel)
    pool.deadlines.notice(attempt)

    def hear(changes: Mapping[str, Any]) -> None:
        if not attempt.job.over:
            attempt.job.recount(changes)
            pool.desk.store(attempt.job, changes)

    try:
        last = await child.run(claim, attempt.job.started, hear)
        outcome = await _outcome(pool, attempt, child, last)
    except BaseException:
        child.kill()
        pool.end(attempt, INTERRUPTED)
        raise
    if last is not None and "spent" in last:
        # What it has begun may go on.
        child.is_good = False
    slot.attempt = None
    slot.busy += pool.end(attempt, outcome)
    return last is None or "refused" not in last


async def _outcome(pool: Pool, attempt: Attempt, child: ChildProcess, last: Message | None) -> Outcome:
    """What counts of what a child has said last."""
    claim = attempt.job.claim
    match last:
        case {"outcome": told}:
            return pool.judge(attempt, wire.read(told))
        case {"committed": told}:
            attempt.close()
            pool.ledger.committed(outcome := wire.read(told))
            return outcome
        case {"refused": reason}:
            child.is_good = False
            pool.children.complain(claim.name, reason)
            return INTERRUPTED
        case {"lost": True}:
            # As its transaction has found.
            attempt.close()
            return INTERRUPTED
        case _:
            if last is not None:
                log.error("the process that ran %s ends: %s", claim.name, last.get("complaint"))
            return pool.judge(attempt, pool.children.upbringing.lost(claim, await child.fate()))
