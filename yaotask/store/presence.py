"""Who is alive: each worker has a row, and a file lock that proves its death."""

from __future__ import annotations

import os
import socket

from sqlalchemy.engine import Connection

from yaotask.store import statements
from yaotask.store.cycle import SqlCycle
from yaotask.store.locks import Lock, is_dead
from yaotask.store.reaping import Lost, reap

__all__ = ["FOLDER", "Lock", "Lost", "any_dead", "leave", "reap", "register"]

# Where, in the state folder, workers have their locks and their ears.
FOLDER = "workers"


def register(cycle: SqlCycle, incarnation: str, lock: Lock) -> int:
    """Enter a new worker; the answer is the key that its claims will carry."""
    values = {"incarnation": incarnation, "host": socket.gethostname(), "pid": os.getpid(), "now": cycle.now}
    return int(cycle.execute(statements.REGISTER_WORKER, **values, **lock.row()).scalar_one())


def leave(cycle: SqlCycle, worker: int) -> int:
    """Take a worker out, its unfinished claims handed back (T10); how many those were."""
    handed_back = cycle.execute(statements.HAND_BACK, worker=worker, now=cycle.now).rowcount
    cycle.execute(statements.RELEASE_EVENTS_OF, worker=worker)
    cycle.execute(statements.DELETE_WORKER, worker=worker)
    return handed_back


def any_dead(connection: Connection, worker: int) -> bool:
    """Whether `reap` would find anything: a look without the write lock."""
    others = connection.exec_driver_sql(statements.OTHER_WORKERS, {"worker": worker}).all()
    if any(is_dead(other) for other in others):
        return True
    return connection.exec_driver_sql(statements.ORPHANS).first() is not None
