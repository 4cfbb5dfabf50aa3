"""The lock of a move on MySQL and MariaDB: a name, which one session has."""

from __future__ import annotations

from sqlalchemy.engine import Connection

from yaotask.store.direct import execute

# It waits while rows are copied, for as long as a session may wait at most: in seconds, a year.
_BE_PATIENT = "SET SESSION wait_timeout = 31536000"
_TAKE = "SELECT GET_LOCK(concat('yaotask move ', left(md5(database()), 32)), 0)"
LOOK = "SELECT coalesce(IS_USED_LOCK(concat('yaotask move ', left(md5(database()), 32))) = CONNECTION_ID(), 0)"
LEAVE = "DO RELEASE_LOCK(concat('yaotask move ', left(md5(database()), 32)))"


def take(connection: Connection) -> bool:
    """Take the lock for this session; False where another one has it."""
    execute(connection, _BE_PATIENT)
    return bool(execute(connection, _TAKE).scalar() == 1)
