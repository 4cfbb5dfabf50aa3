"""A commit whose answer was lost on the way: whether it was stored, by what it would have left behind."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sqlalchemy.engine import Connection

from yaotask.errors import OutcomeUnknown
from yaotask.jobs import Interrupted, JobState, Succeeded
from yaotask.store import rows, statements
from yaotask.store.direct import execute
from yaotask.store.protocol import Add, ClaimBatch, Commit, Doubt, Finish, Harvest, Mailbox

# Looks at the store for the trace of a transaction.
Look = Callable[[Connection], bool]


def trace(mailbox: Mailbox, harvest: Harvest, now: int) -> Look | None:
    """How to see whether a cycle was stored: all of it was, or nothing. None where nobody could tell later.

    That it is not to be seen proves nothing: it may still be on its way.
    """
    if harvest.first_stored is not None:
        task, id = harvest.first_stored
        return lambda connection: is_stored(connection, task, id, harvest.now)
    for claims in harvest.claims.values():
        if claims:
            return lambda connection: _is_claimed(connection, claims, mailbox.worker)
    for finish in mailbox.finishes:
        name = finish.claim.key, finish.claim.fence
        # Of one that was stored before nothing can be seen that would be of this cycle.
        if name not in harvest.known and name not in harvest.lost and finish.claim.key not in harvest.held.jobs:
            return lambda connection: has_ended(connection, finish, now)
    return None


def is_stored(connection: Connection, task: str, id: int, at: int) -> bool:
    """Whether there is the job that was added with this id at this very time, whatever has become of it."""
    return execute(connection, statements.IS_STORED, {"task": task, "id": id, "at": at}).scalar() is not None


def remember(adds: Sequence[Add], harvest: Harvest, error: OutcomeUnknown, deadline: float) -> None:
    """Let adds whose commit got no answer have the ids under which it may have stored them.

    So no commit that is on its way still can be stored beside a later one: one of the two finds an id taken.
    """
    commit = Commit(harvest.now)
    for add in adds:
        known = add.doubt or Doubt(error, deadline, add.jobs, ())
        ids = tuple(add.stored)
        add.doubt = known._replace(tries=(*known.tries, (commit, ids))) if ids else known
        numbered = [job if job.id is not None else job._replace(id=id) for job, id in zip(add.jobs, ids, strict=False)]
        add.jobs = numbered + add.jobs[len(numbered) :]


def found(connection: Connection, add: Add, tries: Sequence[tuple[Commit, Sequence[int]]]) -> list[int] | None:
    """The ids under which one of these commits has stored an add; None where none is to be seen."""
    for commit, ids in tries:
        # One of a commit's rows is as good as all, but what has a key may be another's.
        own = next((id for job, id in zip(add.jobs, ids, strict=False) if job.terms.key is None), None)
        asked = ids if own is None else (own,)
        commit.landed = commit.landed or any(is_stored(connection, add.task, id, commit.at) for id in asked)
        if commit.landed:
            return list(ids)
    return None


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
