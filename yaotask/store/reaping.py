"""Taking back what a worker had when it died (T7)."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy.exc import DBAPIError

from yaotask.errors import StorageUnavailable
from yaotask.events import ERROR_BIT, RETRY_BIT, EventKind
from yaotask.jobs import Failure, JobState
from yaotask.store import hints, rows, statements
from yaotask.store.cycle import SqlCycle
from yaotask.store.locks import is_dead
from yaotask.store.work import Misfit
from yaotask.values import dumps

log = logging.getLogger(__name__)

# So many deaths of any kind end a job that is always there when its worker dies.
MOST_DEATHS = 20

# Claims of a dead worker that one cycle takes back.
MOST_REAPED = 500


@dataclass(frozen=True, slots=True)
class Lost:
    """A job whose worker died, and whether that was once too often."""

    name: str
    worker: str
    poisoned: bool


@dataclass(frozen=True, slots=True)
class _Death:
    """How a worker ended, as its jobs are told. `alone` says that a job had the death to itself."""

    worker: int
    incarnation: str
    message: str
    alone: bool
    losses: int


def reap(cycle: SqlCycle, worker: int, losses: int) -> list[Lost]:
    """Take back the claims of every other worker that has died (T7), some at a time.

    A death that a job had to itself counts as a loss, and `losses` of them end it as PoisonedJob; a
    death that it shared leaves it with one loss at least. A row that cannot be changed is logged and
    left for the next time; it holds up no other.
    """
    lost: list[Lost] = []
    for other in cycle.execute(statements.OTHER_WORKERS, worker=worker).all():
        if is_dead(other):
            message = f"its worker (process {other.pid} on {other.host}) died while it had the job"
            lost += _take_back(cycle, other.key, other.incarnation, message, losses)
            _forget(cycle, other)
    for (orphaned,) in cycle.execute(statements.ORPHANS).all():
        message = "its worker is gone from the store, it must have died while it had the job"
        lost += _take_back(cycle, orphaned, str(orphaned), message, losses)
    return lost


def _take_back(cycle: SqlCycle, worker: int, incarnation: str, message: str, losses: int) -> list[Lost]:
    if cycle.execute(statements.RELEASE_EVENTS_OF, worker=worker).rowcount:
        cycle.harvest.wrote_events = True
    claims = cycle.execute(statements.CLAIMS_OF, worker=worker, most=MOST_REAPED + 1).all()
    death = _Death(worker, incarnation, message, len(claims) == 1, losses)
    if len(claims) > MOST_REAPED:
        # At least two stay for the next cycle, so that no last one seems to have been alone.
        claims = claims[: MOST_REAPED - 1]
    found = [_lose_safely(cycle, claim, death) for claim in claims]
    return [one for one in found if one is not None]


def _forget(cycle: SqlCycle, worker: Any) -> None:
    """Take the row of a dead worker out, once it has no claims any more."""
    if cycle.execute(statements.DELETE_IDLE_WORKER, worker=worker.key).rowcount and worker.lock_path:
        # After the commit: a row without its file could no longer be proved dead.
        cycle.harvest.afterwards.append(partial(_remove, Path(worker.lock_path)))


def _remove(lock: Path) -> None:
    try:
        for file in (lock, lock.with_suffix(hints.SUFFIX)):
            file.unlink(missing_ok=True)
    except OSError as error:
        log.warning("the files of a dead worker stay behind: %s", error)


def _lose_safely(cycle: SqlCycle, claim: Any, death: _Death) -> Lost | None:
    """One job, behind a savepoint of its own."""
    try:
        with cycle.savepoint():
            return _lose(cycle, claim, death)
    except (DBAPIError, Misfit) as error:
        if isinstance(error, DBAPIError):
            explained = cycle.dialect.translate(error)
            if not isinstance(explained, StorageUnavailable):
                raise  # busy or full: that is no fault of this row
        log.exception("%s.%s could not be taken back from a dead worker", claim.task, claim.id)
        return None


def _lose(cycle: SqlCycle, claim: Any, death: _Death) -> Lost:
    count = claim.losses + 1 if death.alone else max(claim.losses, 1)
    failure = _poison(claim, death, count)
    poisoned = failure is not None
    failure = failure or Failure("WorkerLost", death.message)
    changes = {"key": claim.key, "fence": claim.fence, "now": cycle.now, "error": failure.message, "losses": count}
    if poisoned:
        cycle.expect(1, statements.POISON, **changes)
    else:
        cycle.expect(1, statements.LOSE, ready_at=None if claim.events & RETRY_BIT else cycle.now, **changes)
        cycle.harvest.woken.add(claim.task)
    _record(cycle, claim, failure, death.worker, poisoned)
    return Lost(f"{claim.task}.{claim.id}", death.incarnation, poisoned)


def _poison(claim: Any, death: _Death, count: int) -> Failure | None:
    """Why this death was once too often, if it was."""
    if death.alone and count >= death.losses:
        many, had = count, "had the job to themselves"
    elif claim.deaths + 1 >= MOST_DEATHS:
        many, had = MOST_DEATHS, "had the job"
    else:
        return None
    return Failure("PoisonedJob", f"{many} workers died while they {had}; the last: {death.message}")


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
