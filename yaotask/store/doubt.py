"""A commit whose answer was lost on the way: whether it was stored, by what it would have left behind."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy.engine import Connection

from yaotask.jobs import Interrupted, JobState, Succeeded
from yaotask.store import rows, statements
from yaotask.store.direct import execute
from yaotask.store.protocol import ClaimBatch, Finish, Harvest, Mailbox

# Looks at the store for the trace of a transaction.
Look = Callable[[Connection], bool]


def trace(mailbox: Mailbox, harvest: Harvest, now: int) -> Look | None:
    """How to see whether a cycle was stored: all of it was, or nothing. None where nobody could tell later.

    That it is not to be seen proves nothing: it may still be on its way.
    """
    if harvest.first_stored is not None:
        task, id = harvest.first_stored
        return lambda connection: _exists(connection, task, id)
    for claims in harvest.claims.values():
        if claims:
            return lambda connection: _is_claimed(connection, claims, mailbox.worker)
    for finish in mailbox.finishes:
        name = finish.claim.key, finish.claim.fence
        # Of one that was stored before nothing can be seen that would be of this cycle.
        if name not in harvest.known and name not in harvest.lost and finish.claim.key not in harvest.held.jobs:
            return lambda connection: has_ended(connection, finish, now)
    return None


def _exists(connection: Connection, task: str, id: int) -> bool:
    return execute(connection, statements.IS_STORED, {"task": task, "id": id}).scalar() is not None


def _is_claimed(connection: Connection, claims: ClaimBatch, worker: int | None) -> bool:
    values = {"key": claims[0].key, "fence": claims[0].fence, "worker": worker}
    return execute(connection, statements.IS_CLAIMED, values).scalar() is not None


def has_ended(connection: Connection, finish: Finish, now: int) -> bool:
    """Whether this very finish is in the store, wherever the job has come to since."""
    claim = finish.claim
    if not isinstance(finish.outcome, Succeeded | Interrupted):
        recorded = {"key": claim.key, "fence": claim.fence, "word": rows.Ending(finish, now).word}
        return execute(connection, statements.IS_RECORDED, {**recorded, "at": finish.ended}).scalar() is not None
    row = execute(connection, statements.STATE_OF, {"key": claim.key}).one_or_none()
    if row is None or row.fence != claim.fence:
        return False
    if type(finish.outcome) is Succeeded:
        return bool(row.state == JobState.SUCCESS)
    return bool(row.state == rows.Ending(finish, now).state)
