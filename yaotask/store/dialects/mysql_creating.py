"""Making the tables on MySQL, where each is committed at once: one process does it, or takes over from a dead one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from yaotask.errors import StorageUnavailable
from yaotask.store import tables
from yaotask.store.dialects.mysql_errors import code_of, is_lost
from yaotask.store.dialects.mysql_statements import STORE_NAME
from yaotask.store.dialects.server import on_tables
from yaotask.store.direct import execute

# How long one process waits for another that is just making the tables.
_SECONDS = 60
# MySQL's own names for: there is no such table; there is one already; an index of that name, a column, a row.
_NO_TABLE, _TAKEN = 1146, frozenset({1050, 1060, 1061, 1062})
_VIEW, _DROP_VIEW = "yaotask_jobs_readable", "DROP VIEW yaotask_jobs_readable"
_TABLES = "SELECT table_name, table_comment FROM information_schema.tables WHERE table_schema = database()"
# A view cannot be marked; it is known by its columns.
_SHOWN = (
    "job,task,id,status,priority,generation,attempt,losses,fence,worker,args,payload,created,run,started,finished,"
    "result,error"
)
_VIEWED = (
    "SELECT group_concat(column_name ORDER BY ordinal_position) FROM information_schema.columns"
    " WHERE table_schema = database() AND table_name = 'yaotask_jobs_readable'"
)


def create(connection: Connection, fill: Callable[[Connection], None], label: str) -> None:
    """Let `fill` make the tables, unless another process has made them meanwhile.

    What one left behind that died half-way is dropped first, but only by who has the lock: the row with the name of
    the store comes last, so that tables without it belong to nobody. Raises StorageUnavailable where there is what no
    process of ours has left so.
    """
    with alone(connection) as locked:
        if _is_finished(connection):
            return
        if locked:
            for statement in left_over(connection, label):
                connection.exec_driver_sql(statement)
        try:
            fill(connection)
        except DBAPIError as error:
            if code_of(error.orig) not in _TAKEN or not _finished_by_another(connection):
                raise _spoiled(error, label) from error


def _spoiled(error: DBAPIError, label: str) -> Exception:
    if code_of(error.orig) not in _TAKEN:
        return error
    return StorageUnavailable(
        f"{label} holds tables of a store that was never finished, or of somebody else: see that no node is starting,"
        " and drop all whose names begin with yaotask_, or choose another database"
    )


@contextmanager
def alone(connection: Connection) -> Iterator[bool]:
    """Whether others are kept off meanwhile: not every cluster has such locks."""
    locked = _ask_for_lock(connection)
    try:
        yield locked
    finally:
        if locked:
            execute(connection, "SELECT RELEASE_LOCK(concat('yaotask ', left(md5(database()), 32)))")


def _ask_for_lock(connection: Connection) -> bool:
    try:
        asked = "SELECT GET_LOCK(concat('yaotask ', left(md5(database()), 32)), :seconds)"
        return bool(execute(connection, asked, {"seconds": _SECONDS}).scalar() == 1)
    except DBAPIError as error:
        if is_lost(error):
            raise
        return False


def _is_finished(connection: Connection) -> bool:
    try:
        return execute(connection, STORE_NAME).scalar() is not None
    except DBAPIError as error:
        if code_of(error.orig) != _NO_TABLE:
            raise
        return False


def _finished_by_another(connection: Connection) -> bool:
    """Whether somebody else, who was first, comes to the end."""
    for _ in range(_SECONDS * 5):
        if _is_finished(connection):
            return True
        execute(connection, "DO SLEEP(0.2)")
    return False


def left_over(connection: Connection, label: str) -> list[str]:
    """What drops all that a dead process has left. Raises StorageUnavailable where any of it may be of use."""
    found: dict[str, str] = {str(row[0]): str(row[1]) for row in connection.exec_driver_sql(_TABLES)}
    left: list[Any] = [table.name for table in tables.metadata.sorted_tables if table.name in found]
    strange = [name for name in left if found[name] != tables.MARK or not _is_empty(connection, name)]
    if _VIEW in found and connection.exec_driver_sql(_VIEWED).scalar() != _SHOWN:
        strange.append(_VIEW)
    if strange:
        raise StorageUnavailable(
            f"{label} holds {', '.join(strange)}, but no yaotask store: if that is somebody else's, choose another"
            " database; if the store lost a table or its name, restore it from a backup"
        )
    return [*([_DROP_VIEW] if _VIEW in found else []), *([on_tables("DROP TABLE", left)] if left else [])]


def _is_empty(connection: Connection, table: str) -> bool:
    return connection.exec_driver_sql(on_tables("SELECT 1 FROM", [table], "LIMIT 1")).first() is None
