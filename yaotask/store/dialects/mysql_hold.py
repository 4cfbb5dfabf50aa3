"""The lock of a move on MySQL and MariaDB: a name, which one session has."""

from __future__ import annotations

from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from yaotask.store.dialects.mysql_errors import is_lost
from yaotask.store.direct import execute

# It waits while rows are copied, for as long as a session may wait at most: in seconds, a year.
_BE_PATIENT = "SET SESSION wait_timeout = 31536000"
_TAKE = "SELECT GET_LOCK(concat('yaotask move ', left(md5(database()), 32)), 0)"
# It is there as long as the session is.
LOOK = "SELECT 1"
LEAVE = "DO RELEASE_LOCK(concat('yaotask move ', left(md5(database()), 32)))"


def take(connection: Connection) -> bool:
    """Take the lock for this session; False where another one has it.

    A cluster that knows no such locks has none: there, what a move writes is looked at each time it writes.
    """
    execute(connection, _BE_PATIENT)
    try:
        return bool(execute(connection, _TAKE).scalar() == 1)
    except DBAPIError as error:
        if is_lost(error):
            raise
        return True
