"""Who is alive: each process of a node has a row, whose lease is renewed, and a lock that proves its death."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any
from zlib import crc32

from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError

from yaotask.clock import SECOND
from yaotask.jobs import Claim
from yaotask.store import statements
from yaotask.store.cycle import SqlCycle
from yaotask.store.direct import ask, execute
from yaotask.store.locks import Lock, unheld
from yaotask.store.migrations import store_id
from yaotask.store.reaping import (
    NO_LIMIT,
    Lost,
    See,
    cancel_the_asked,
    is_lost,
    judge_nobody,
    lose,
    reap,
    remove,
    see_once,
    strays,
    suspect_events,
    take_out,
)
from yaotask.store.work import Misfit

__all__ = [
    "FOLDER",
    "Lock",
    "Lost",
    "See",
    "any_dead",
    "bury",
    "claims_of",
    "dedicate",
    "leave",
    "leave_or_bury",
    "lose",
    "reap",
    "register",
    "remove",
    "renew",
    "see_once",
    "strays",
    "unheld",
]

# Where, in the state folder, workers have their locks and their ears.
FOLDER = "workers"
# So many bits of the key of a process are chance; those above them are of the hour in which it was entered. Until the
# year 2200 that is no more than readers can keep that have numbers as doubles.
BITS, HOUR = 32, 3_600 * SECOND


def dedicate(reading: Callable[[], AbstractContextManager[Connection]], lock: Lock) -> None:
    """Have the file of a lock say to which store it belongs, before any row there tells of it."""
    with reading() as connection:
        lock.tell(store_id(connection) or "")


def register(
    cycle: SqlCycle,
    incarnation: str,
    lock: Lock,
    *,
    kind: str = "embedded",
    pid: int | None = None,
    node: int | None = None,
    number: int | None = None,
    lease: int | None = None,
) -> int:
    """Enter a new process; the answer is the key that its claims will carry.

    `lease` in microseconds, where somebody will renew it; without one its `lock` alone tells whether it lives.
    """
    key = _key(cycle.now, incarnation)
    who: dict[str, Any] = {"incarnation": incarnation, "host": socket.gethostname(), "pid": pid or os.getpid()}
    place = {"kind": kind, "node": node, "number": number}
    expires_at = None if lease is None else cycle.now + lease
    row = {"key": key, **who, **place, **lock.row(), "now": cycle.now, "expires_at": expires_at}
    cycle.execute(statements.REGISTER_WORKER, **row)
    return key


def _key(now: int, incarnation: str) -> int:
    """Of the hour and of chance, so that no other process ever has it.

    The database's own numbers would come again from a server that lost its last commits, as a replica may that takes
    over: who was entered in those still lives by his, would keep it alive for the other, and would hand back its jobs.
    """
    return int((now // HOUR << BITS) + crc32(incarnation.encode()))


def renew(connection: Connection, now: int, infos: Mapping[int, str], lease: int) -> set[int]:
    """Renew the leases of these, with what is known of each as JSON; the answer are those that are entered no more.

    In a transaction that does nothing else: jobs may be in the hands of others for long.
    """
    moment = {"now": now, "expires_at": now + lease}
    return {
        worker
        for worker, info in infos.items()
        if not execute(connection, statements.RENEW_WORKER, {"worker": worker, "info": info, **moment}).rowcount
    }


def leave(cycle: SqlCycle, worker: int, late: Iterable[int] = ()) -> int:
    """Take a worker out, its unfinished claims handed back (T10); how many those were.

    Its events go back too. The `late` ones, whose hooks run although they should have ended, may be why it leaves.
    """
    cancel_the_asked(cycle, worker)
    handed_back = cycle.execute(statements.HAND_BACK, worker=worker, now=cycle.now).rowcount
    for seq in late:
        cycle.execute(statements.SUSPECT_EVENT, seq=seq, worker=worker)
    cycle.execute(statements.RELEASE_EVENTS_OF, worker=worker)
    cycle.execute(statements.DELETE_WORKER, worker=worker)
    return handed_back


def bury(cycle: SqlCycle, worker: int, message: str) -> list[Lost]:
    """Take out a worker of one's own node that has died, its claims lost (T7).

    A claim that cannot be changed stays, and with it the worker, for any reaper to try again.
    """
    lost: list[Lost] = []
    while some := lose(cycle, worker, message):
        lost += some
    if not take_out(cycle, worker):
        cycle.execute(statements.DISOWN_WORKER, worker=worker)
    return lost


def leave_or_bury(cycle: SqlCycle, worker: int) -> tuple[list[Lost], int]:
    """Take out a worker of one's own node that was ended: like `leave`, or like `bury` where one claim forbids that.

    It may have been ended because of a hook. The answer are the claims that are lost thereby, and how many were
    handed back.
    """
    suspect_events(cycle, worker)
    try:
        with cycle.savepoint():
            return [], leave(cycle, worker)
    except (IntegrityError, Misfit):
        return bury(cycle, worker, "its worker was ended, and could not hand back all that it had"), 0


def claims_of(connection: Connection, worker: int) -> list[tuple[Claim, int | None]]:
    """All that a worker has claimed, without arguments, and when each was started, where that is known."""
    rows = ask(connection, statements.CLAIMS_OF, {"worker": worker, "most": NO_LIMIT}).all()
    return [(_claim(row), row.started_at) for row in rows]


def _claim(row: Any) -> Claim:
    return Claim(
        key=row.key,
        fence=row.fence,
        id=row.id,
        task=row.task,
        generation=row.generation,
        attempt=row.attempt,
        attempts=row.attempts,
        losses=row.losses,
        timeout=row.timeout,
        events=row.events,
        ready_at=row.ready_at,
        claimed_at=row.claimed_at,
        args=[],
        payload={},
        created_by=None,
        extra=None,
    )


def any_dead(
    connection: Connection, worker: int, lapsed_before: Callable[[], int] = judge_nobody, see: See = see_once
) -> bool:
    """Whether `reap` would find anything: a look without the write lock."""
    others, stay = see(lambda: ask(connection, statements.OTHER_WORKERS, {"worker": worker}).all())
    lapsed = lapsed_before()
    if any(is_lost(other, lapsed, stay) for other in others):
        return True
    return ask(connection, statements.ORPHANS).first() is not None
