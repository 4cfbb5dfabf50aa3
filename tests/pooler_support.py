"""PgBouncer before the tests' PostgreSQL, in transaction mode: a real one, for one test."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from server_fixtures import Database
from servers import Missing
from sqlalchemy import URL, create_engine, make_url
from sqlalchemy.pool import NullPool

ADVICE = "PgBouncer is not installed for the tests: apt-get install pgbouncer"
PATIENCE = 30.0
# Of pgbouncer alone; it is let in at the server without one.
PASSWORD = "pooled-s3cret"
# The administrator's console is a database of this name.
CONSOLE = "pgbouncer"

# What one session of the server would leave to the next one that a pooler gives it to. What pgbouncer itself sets for
# each of its clients is not counted.
LEFT_BEHIND = """
SELECT 'prepared: ' || statement FROM pg_prepared_statements
UNION ALL SELECT 'set: ' || name FROM pg_settings WHERE source = 'session' AND name NOT IN (
    'application_name', 'client_encoding', 'DateStyle', 'IntervalStyle', 'TimeZone', 'standard_conforming_strings')
UNION ALL SELECT 'listens: ' || channel FROM pg_listening_channels() AS channel
UNION ALL SELECT 'locks: ' || objid FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()
UNION ALL SELECT 'table: ' || relname FROM pg_class WHERE relpersistence = 't' AND pg_table_is_visible(oid)
"""


class Pooler:
    """A pgbouncer that runs, and what it leads to."""

    def __init__(self, database: Database, folder: Path, port: int) -> None:
        user = make_url(database.url).username
        self._direct = URL.create("postgresql", user, PASSWORD, database=make_url(database.url).database)
        self.url = self._direct.update_query_dict({"host": str(folder), "port": str(port)})

    @property
    def database(self) -> Database:
        return Database("postgresql", self.url.render_as_string(hide_password=False))

    @contextmanager
    def connection(self, database: str | None = None) -> Iterator[Any]:
        """A connection through it, in autocommit, that prepares nothing."""
        url = self.url.set(drivername="postgresql+psycopg", database=database or self.url.database)
        engine = create_engine(url, poolclass=NullPool)
        _, options = engine.dialect.create_connect_args(url)
        connection = engine.dialect.loaded_dbapi.connect(**options, autocommit=True, prepare_threshold=None)
        with connection:
            yield connection

    def servers(self) -> set[int]:
        """The processes of the server that it has connections to, for our database."""
        with self.connection(CONSOLE) as console:
            cursor = console.execute("SHOW SERVERS")
            names = [column.name for column in cursor.description]
            rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
        return {int(row["remote_pid"]) for row in rows if row["database"] == self.url.database}

    def left_behind(self) -> set[str]:
        """What the connections to the server still have of those they were given to before; all are looked at."""
        known, found, seen = self.servers(), set[str](), set[int]()
        with ExitStack() as stack:
            # A transaction holds the connection that it was given, so that the next one is given another.
            for _ in known:
                connection = stack.enter_context(self.connection())
                stack.enter_context(connection.transaction())
                ((pid,),) = connection.execute("SELECT pg_backend_pid()").fetchall()
                seen.add(pid)
                found |= {what for (what,) in connection.execute(LEFT_BEHIND).fetchall()}
        assert known and known <= seen, f"not all were looked at: {known - seen}"
        return found


def program() -> str:
    """Where pgbouncer is. Raises Missing."""
    found = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if found is None:
        raise Missing(ADVICE)
    return found


@contextmanager
def pooling(database: Database, parent: Path, options: Mapping[str, object], *, port: int = 6432) -> Iterator[Pooler]:
    """Start pgbouncer before a database of the tests; `parent` is a folder that other users can look into."""
    command, folder = program(), Path(tempfile.mkdtemp(prefix="pool-", dir=parent))
    owner = _owner(folder)
    (folder / "users").write_text(f'"postgres" "{PASSWORD}"\n')
    (folder / "pgbouncer.ini").write_text(_settings(database, folder, {"listen_port": port, **options}))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([command, folder / "pgbouncer.ini"], stdout=log, stderr=log, cwd=folder, **owner)
    try:
        _wait(process, folder / f".s.PGSQL.{port}", folder / "log")
        yield Pooler(database, folder, port)
    finally:
        process.kill()
        process.wait(PATIENCE)
        shutil.rmtree(folder)


def _owner(folder: Path) -> dict[str, Any]:
    """As whom to run it: it refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    shutil.chown(folder, "nobody")
    return {"user": "nobody", "group": pwd.getpwnam("nobody").pw_gid, "extra_groups": []}


def _settings(database: Database, folder: Path, options: Mapping[str, object]) -> str:
    own: dict[str, object] = {
        "pool_mode": "transaction",
        "unix_socket_dir": folder,
        "auth_type": "plain",
        "auth_file": folder / "users",
        "admin_users": "postgres",
        **options,
    }
    lines = [f"{name} = {value}" for name, value in own.items()]
    server = make_url(database.url).query["host"]
    return "\n".join(["[databases]", f"* = host={server}", "[pgbouncer]", *lines, ""])


def _wait(process: subprocess.Popen[bytes], address: Path, log: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while not address.exists():
        assert process.poll() is None, f"pgbouncer ended: {log.read_text()}"
        assert time.monotonic() < deadline, f"pgbouncer does not get ready: {log.read_text()}"
        time.sleep(0.02)
