"""Taking back what a worker had when it died (T7)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from yaotask.errors import StorageUnavailable
from yaotask.events import CANCEL_BIT, ERROR_BIT, RETRY_BIT, EventKind
from yaotask.jobs import Failure, JobState
from yaotask.store import hints, rows, statements
from yaotask.store.cycle import SqlCycle
from yaotask.store.direct import ask
from yaotask.store.locks import is_dead
from yaotask.store.migrations import store_id
from yaotask.store.work import Misfit
from yaotask.values import dumps

log = logging.getLogger(__name__)

# So many deaths of any kind end a job, or an event, that is always there when its worker dies.
MOST_DEATHS = 20
# Kept as the error of an event that ends so.
DIED = f"WorkerLost: {MOST_DEATHS} processes died while they had the event"

# Where a lease ends whose process was waited for by its own supervisor.
BURIED = 0
# Claims of a dead worker that one cycle takes back; and the limit where one of all is looked for.
MOST_REAPED, NO_LIMIT = 500, 2**31 - 1


@dataclass(frozen=True, slots=True)
class Lost:
    """A job whose worker died, and what became of it."""

    name: str
    poisoned: bool = False
    cancelled: bool = False


# Takes a look at other workers, and tells with it whose lease was seen to stay as it is for as long as it lasts, by
# their keys; None where nobody knows.
See = Callable[[Callable[[], Sequence[Any]]], tuple[Sequence[Any], Container[int] | None]]


def see_once(look: Callable[[], Sequence[Any]]) -> tuple[Sequence[Any], None]:
    """A look that knows of no other: what is in a lease is believed."""
    return look(), None


def judge_nobody() -> int:
    """No lease is held against anybody."""
    return 0


def is_lost(other: Any, lapsed_before: int, stay: Container[int] | None = None) -> bool:
    """Whether a worker is dead, or its lease has run out before this time: what it claimed is not its own any more.

    Where it is known whose leases `stay` as they are for as long as they last, those have run out, and no other,
    whatever the time is: clocks are set, and a server may have lost renewals.
    """
    return other.expires_at == BURIED or _has_run_out(other, lapsed_before, stay) or is_dead(other)


def _has_run_out(other: Any, lapsed_before: int, stay: Container[int] | None) -> bool:
    # 0: nobody is judged.
    if other.expires_at is None or not lapsed_before:
        return False
    return other.key in stay if stay is not None else bool(other.expires_at < lapsed_before)


def reap(
    cycle: SqlCycle,
    worker: int,
    lapsed_before: Callable[[], int] = judge_nobody,
    told: set[int] | None = None,
    see: See = see_once,
) -> list[Lost]:
    """Take back the claims of workers of other nodes that are lost (T7), some at a time.

    `worker` is one's own, or one's supervisor. `lapsed_before` tells whether leases may be judged, and which have run
    out by their end, for those who `see` nothing of how long each stays as it is. A row that cannot be changed is
    logged and left for the next time; it holds up no other. Those in `told` are not logged again, and it takes in
    those that are.
    """
    lost: list[Lost] = []
    told = set() if told is None else told
    # By the earlier of two looks at the clock. It may be set back, and a lease renewed by it, before the others are
    # looked at; and a lease may be renewed after that, before we come to look at the clock.
    lapsed = lapsed_before()
    others, stay = see(lambda: cycle.execute(statements.OTHER_WORKERS, worker=worker).all())
    lapsed = min(lapsed, lapsed_before())
    for other in others:
        if is_lost(other, lapsed, stay):
            who = f"{other.kind} (process {other.pid} on {other.host})"
            message = f"its {who} died, or was out of reach, while it had the job"
            lost += lose(cycle, other.key, message, told=told)
            _forget(cycle, other)
    for (orphaned,) in cycle.execute(statements.ORPHANS).all():
        message = "its worker is gone from the store, it must have died while it had the job"
        lost += lose(cycle, orphaned, message, told=told)
    return lost


def lose(
    cycle: SqlCycle,
    worker: int,
    message: str,
    keys: Container[int] | None = None,
    told: set[int] | None = None,
) -> list[Lost]:
    """Take back what a dead worker had claimed, at most MOST_REAPED; or of all that the jobs with these `keys`.

    Its death was shared by all that ran in it, so that each job has one loss at least, and no more for it: it
    will run alone, and what it does then is its own doing.
    """
    suspect_events(cycle, worker)
    most = MOST_REAPED if keys is None else NO_LIMIT
    claims = cycle.execute(statements.CLAIMS_TO_LOSE, worker=worker, most=most).all()
    wanted = [claim for claim in claims if keys is None or claim.key in keys]
    told = set() if told is None else told
    found = [_lose_safely(cycle, claim, worker, message, told) for claim in wanted]
    return [one for one in found if one is not None]


def suspect_events(cycle: SqlCycle, worker: int) -> None:
    """Let others deliver what a process had when it ended without a word: it may have died of any of these."""
    deadly = cycle.execute(statements.DEADLY_EVENTS_OF, worker=worker, most=MOST_DEATHS - 1).all()
    # A job that somebody else has is not waited for; its event is given one process more.
    busy = cycle.held_of({event.job for event in deadly})
    ended = [event for event in deadly if event.job not in busy]
    for event in ended:
        cycle.execute(statements.END_EVENT, seq=event.seq, worker=worker, died=DIED)
        cycle.harvest.afterwards.append(partial(log.error, "an event of %s.%s is kept: %s", event.task, event.id, DIED))
    cycle.release_held([event.job for event in ended])
    if cycle.execute(statements.SUSPECT_EVENTS_OF, worker=worker).rowcount or ended:
        cycle.harvest.wrote_events = True


def cancel_the_asked(cycle: SqlCycle, worker: int) -> None:
    """End those claims of a worker whose cancellation was asked for (T9)."""
    for claim in cycle.execute(statements.ASKED_CLAIMS_OF, worker=worker).all():
        _cancel(cycle, claim)


def take_out(cycle: SqlCycle, worker: int) -> bool:
    """Delete the row of a dead worker, unless it still has claims; whether this was done."""
    # Not in one statement: MySQL would wait there for claims that others have locked. One that is just being
    # committed is not seen either way, and is an orphan's.
    if cycle.execute(statements.HAS_CLAIMS, worker=worker).scalar() is not None:
        return False
    return bool(cycle.execute(statements.DELETE_WORKER, worker=worker).rowcount)


def _forget(cycle: SqlCycle, worker: Any) -> None:
    """Take the row of a dead worker out, once it has no claims any more."""
    gone, path = take_out(cycle, worker.key), worker.lock_path
    # The processes of a node have one lock together: a row without its file could no longer be proved dead. Nor could a
    # node that lives, whatever its lease was: it enters anew.
    if gone and is_dead(worker) and not cycle.execute(statements.IS_LOCK_USED, path=path).scalar():
        cycle.harvest.afterwards.append(partial(remove, Path(path)))


def strays(connection: Connection, free: Mapping[Path, str]) -> list[Path]:
    """Those of these locks of the dead, each with what it says, that no row tells of, and none of another store.

    Who took out the last row of one may have died before he removed the file, or was on another machine.
    """
    ours = ("", store_id(connection))
    return [lock for lock, store in free.items() if store in ours and not _is_told_of(connection, lock)]


def _is_told_of(connection: Connection, lock: Path) -> bool:
    return ask(connection, statements.IS_LOCK_USED, {"path": str(lock.resolve())}).first() is not None


def remove(lock: Path) -> None:
    """Remove a lock that nobody needs any more, and before it the ears of the processes whose lock it was."""
    try:
        for file in (*lock.parent.glob(f"{lock.stem}*{hints.SUFFIX}"), lock):
            file.unlink(missing_ok=True)
    except OSError as error:
        log.warning("the files of a dead worker stay behind: %s", error)


def _lose_safely(cycle: SqlCycle, claim: Any, worker: int, message: str, told: set[int]) -> Lost | None:
    """One job, behind a savepoint of its own."""
    try:
        with cycle.savepoint():
            return _cancel(cycle, claim) if claim.cancel_at is not None else _lose(cycle, claim, worker, message)
    except (DBAPIError, Misfit) as error:
        if isinstance(error, DBAPIError):
            explained = cycle.dialect.errors.explain(error.orig)
            if not isinstance(explained, StorageUnavailable):
                raise  # busy or full: that is no fault of this row
            # Nor is it that the connection is gone, which this raises.
            cycle.execute("SELECT 1")
        if claim.key not in told:
            told.add(claim.key)
            log.exception("%s.%s could not be taken back from a dead worker, will go on trying", claim.task, claim.id)
        return None


def _cancel(cycle: SqlCycle, claim: Any) -> Lost:
    cycle.expect(1, statements.END_CANCELLED, key=claim.key, fence=claim.fence, now=cycle.now)
    cycle.tally.count(claim, JobState.CANCELLED, claim.started_at or claim.claimed_at, cycle.now)
    if claim.events & CANCEL_BIT:
        cycle.insert_events([rows.event(claim.key, claim.task, claim.id, EventKind.CANCEL, "[]")])
    return Lost(f"{claim.task}.{claim.id}", cancelled=True)


def _lose(cycle: SqlCycle, claim: Any, worker: int, message: str) -> Lost:
    poisoned = claim.deaths + 1 >= MOST_DEATHS
    failure = Failure("WorkerLost", message)
    if poisoned:
        failure = Failure("PoisonedJob", f"{MOST_DEATHS} processes died while they had the job; the last: {message}")
    changes = {"key": claim.key, "fence": claim.fence, "now": cycle.now, "error": failure.message}
    losses = max(claim.losses, 1)
    if poisoned:
        cycle.expect(1, statements.POISON, losses=losses, **changes)
    else:
        ready_at = None if claim.events & RETRY_BIT else cycle.now
        cycle.expect(1, statements.LOSE, ready_at=ready_at, losses=losses, **changes)
        cycle.harvest.woken.add(claim.task)
    _record(cycle, claim, failure, worker, poisoned)
    return Lost(f"{claim.task}.{claim.id}", poisoned)


def _record(cycle: SqlCycle, claim: Any, failure: Failure, worker: int, poisoned: bool) -> None:
    word = "failure" if poisoned else "lost"
    row = [claim.key, claim.fence, claim.generation, claim.attempt, word, claim.started_at, cycle.now]
    cycle.insert_attempts([[*row, failure.type, failure.message, None]], worker)
    told = rows.told(failure)
    if poisoned:
        started = claim.started_at or claim.claimed_at
        cycle.tally.count(claim, JobState.FAILURE, started, cycle.now)
        if claim.events & ERROR_BIT:
            cycle.insert_events([rows.event(claim.key, claim.task, claim.id, EventKind.ERROR, dumps([told]))])
    elif claim.events & RETRY_BIT:
        data = dumps([told, claim.attempt, 0])
        cycle.insert_events([rows.event(claim.key, claim.task, claim.id, EventKind.RETRY, data)])
        cycle.release_held([claim.key])
