"""What weakens a promise on MySQL or MariaDB, as far as its user may see it."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from yaotask.store.dialects import weaknesses
from yaotask.store.dialects.mysql_errors import code_of
from yaotask.store.dialects.weaknesses import Weakness
from yaotask.store.direct import execute

# As the text that each is. MariaDB has two that write each commit to the disk.
_FLUSHING = ("1", "3")
# What keeps torn pages from being mended. With MySQL's third they are found, and no more.
_NO_DOUBLEWRITE = {"0": "off", "OFF": "off", "DETECT_ONLY": "DETECT_ONLY"}
_SETTINGS = """
SELECT @@innodb_flush_log_at_trx_commit AS flush_log, @@innodb_doublewrite AS doublewrite, @@log_bin AS log_bin,
    @@sync_binlog AS sync_binlog, @@max_connections AS most, @@innodb_rollback_on_timeout AS rolls_back
"""

# One that is on has commits wait for a replica that knows of it. Those of a replica's own side have nobody wait.
_SEMI_SYNC = """
SHOW GLOBAL VARIABLES WHERE variable_name IN ('rpl_semi_sync_master_enabled', 'rpl_semi_sync_source_enabled')
"""

# Who may not see others' sessions sees none of them.
_REPLICAS = "SELECT count(*) FROM information_schema.processlist WHERE command LIKE 'Binlog Dump%'"

# When it began is in the time of the server's machine, whatever zone the server and its sessions are in.
_OLDEST = """
SELECT trx_mysql_thread_id AS session,
    coalesce(TIMESTAMPDIFF(SECOND, trx_started, CONVERT_TZ(now(), @@session.time_zone, 'SYSTEM')), 0) AS seconds
FROM information_schema.innodb_trx WHERE trx_mysql_thread_id <> connection_id() ORDER BY trx_started LIMIT 1
"""
_NO_RIGHT = 1227

_CONNECTED = "SHOW GLOBAL STATUS LIKE 'Threads_connected'"


def look(connection: Connection) -> Iterator[Weakness]:
    """Everything that is so, the worst first."""
    settings = execute(connection, _SETTINGS).one()
    if str(settings.flush_log) not in _FLUSHING:
        what = f"innodb_flush_log_at_trx_commit is {settings.flush_log}"
        what = f"{what}: a crash loses the last jobs that were acknowledged"
        yield Weakness(what, "set innodb_flush_log_at_trx_commit = 1")
    if doublewrite := _NO_DOUBLEWRITE.get(str(settings.doublewrite)):
        what = f"innodb_doublewrite is {doublewrite}: a crash of its machine can damage the database"
        yield Weakness(what, "set innodb_doublewrite = ON")
    if settings.log_bin and settings.sync_binlog != 1:
        what = f"sync_binlog is {settings.sync_binlog}: after a crash replicas may lack the last jobs"
        yield Weakness(what, "set sync_binlog = 1")
    if settings.rolls_back:
        what = "innodb_rollback_on_timeout is on: a row that somebody else keeps locked can undo the end of another job"
        yield Weakness(what, "set innodb_rollback_on_timeout = OFF")
    if not any(row[1] == "ON" for row in execute(connection, _SEMI_SYNC).all()):
        yield from weaknesses.asynchronous_replicas(execute(connection, _REPLICAS).scalar_one())
    yield from _transactions(connection)
    yield from weaknesses.many_connections(int(execute(connection, _CONNECTED).all()[0][1]), settings.most)


def _transactions(connection: Connection) -> Iterator[Weakness]:
    try:
        oldest = execute(connection, _OLDEST).one_or_none()
    except DBAPIError as error:
        if code_of(error.orig) != _NO_RIGHT:
            raise
        yield Weakness("long transactions could not be looked for: this user has not the right PROCESS")
        return
    if oldest is not None:
        yield from weaknesses.long_transaction(oldest.session, oldest.seconds, f"KILL {oldest.session}")
