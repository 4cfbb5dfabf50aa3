"""Where the stores of benchmarks are: files, or databases of a server that is given, or started for them.

A server that is started here keeps what it has committed: it is set as one that is in earnest, and lies on the disk
of the benchmarks' folder. As a program this file is the keeper of one such server.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import ClassVar

from sqlalchemy import URL, Engine, make_url, text
from sqlalchemy.engine import Connection

from yaotask.settings import load_settings
from yaotask.store.opening import place

# The tests know how to start servers.
sys.path.append(str(Path(__file__).parent.parent / "tests"))
from servers import MariaDB, Missing, PostgreSQL

__all__ = ["KINDS", "Databases", "Missing", "asking", "databases"]


class LastingPostgreSQL(PostgreSQL):
    """As durable as it is by itself, with memory for what is measured."""

    stop = signal.SIGINT
    options: ClassVar[Mapping[str, str]] = {
        "listen_addresses": "",
        "fsync": "on",
        "synchronous_commit": "on",
        "full_page_writes": "on",
        "shared_buffers": "512MB",
        "max_wal_size": "4GB",
    }


class LastingMariaDB(MariaDB):
    """As durable as it is by itself, with memory for what is measured."""

    stop = signal.SIGTERM
    options: ClassVar[Mapping[str, str]] = {
        "innodb-flush-log-at-trx-commit": "1",
        "innodb-doublewrite": "1",
        "innodb-buffer-pool-size": "512M",
        "innodb-log-file-size": "512M",
    }


SERVERS: Mapping[str, type[LastingPostgreSQL] | type[LastingMariaDB]] = {
    "postgresql": LastingPostgreSQL,
    "mariadb": LastingMariaDB,
}
KINDS = ("sqlite", *SERVERS)
DRIVERS = {"postgresql": "postgresql+psycopg", "mysql": "mysql+pymysql", "mariadb": "mysql+pymysql"}

_ABOUT = {
    "postgresql": """
SELECT 'PostgreSQL ' || split_part(current_setting('server_version'), ' ', 1) || ' ('
    || (SELECT string_agg(name || ' ' || current_setting(name), ', ' ORDER BY name) FROM pg_settings
        WHERE name IN ('fsync', 'full_page_writes', 'shared_buffers', 'synchronous_commit')) || ')'
""",
    "mysql": """
SELECT concat(IF(version() LIKE '%MariaDB%', 'MariaDB ', 'MySQL '), substring_index(version(), '-', 1),
    ' (innodb_flush_log_at_trx_commit ', @@innodb_flush_log_at_trx_commit,
    ', innodb_buffer_pool_size ', @@innodb_buffer_pool_size DIV 1048576, ' MB, log_bin ', @@log_bin, ')')
""",
}


class Databases:
    """Stores of one kind: each project gets an empty one."""

    def __init__(self, server: URL | None = None) -> None:
        self._server = server
        self._made: list[str] = []
        self._numbers = count(1)

    @property
    def kind(self) -> str:
        """`sqlite`, `postgresql` or `mysql`."""
        backend = self._server.get_backend_name() if self._server else "sqlite"
        return "mysql" if backend == "mariadb" else backend

    def new(self) -> str | None:
        """The address of a new and empty database; None: the usual file of a project."""
        if self._server is None:
            return None
        name = f"yaotask_benchmark_{next(self._numbers)}"
        self._tell(f"DROP DATABASE IF EXISTS {name}")
        self._tell(f"CREATE DATABASE {name}{' TEMPLATE template0' if self.kind == 'postgresql' else ''}")
        self._made.append(name)
        return self._server.set(database=name).render_as_string(hide_password=False)

    def drop(self) -> None:
        """Remove all that were made on a server."""
        while self._made:
            self._tell(f"DROP DATABASE {self._made.pop()}")

    def about(self) -> str | None:
        """The server, its version, and how durable it is; None for files."""
        if self._server is None:
            return None
        with _using(self._engine()) as connection:
            return str(connection.execute(text(_ABOUT[self.kind])).scalar_one())

    def _tell(self, statement: str) -> None:
        with _using(self._engine()) as connection:
            connection.exec_driver_sql(statement)

    def _engine(self) -> Engine:
        assert self._server is not None
        address = self._server.render_as_string(hide_password=False)
        return place(Path(), address).dialect().engine(writer=True)


@contextmanager
def databases(store: str, folder: Path) -> Iterator[Databases]:
    """For `--store`: one of KINDS, whose server runs while the block lasts, or an address.

    At an address the databases are made beside the one that it names. Raises Missing.
    """
    if store == "sqlite":
        yield Databases()
    elif store in SERVERS:
        with _started(store, folder) as url:
            yield Databases(url)
    else:
        url = make_url(store)
        yield Databases(url.set(drivername=DRIVERS[url.get_backend_name()]))


@contextmanager
def asking(root: Path) -> Iterator[Connection]:
    """A connection to the store of a project, on which each statement counts at once."""
    settings, _ = load_settings(root, {})
    with _using(place(root, settings.store).dialect().engine(writer=False)) as connection:
        yield connection


@contextmanager
def _using(engine: Engine) -> Iterator[Connection]:
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


# --- a server and its keeper --------------------------------------------------------------------------------


@contextmanager
def _started(kind: str, folder: Path) -> Iterator[URL]:
    server, log = SERVERS[kind], folder / f"{kind}.log"
    folder.chmod(0o711)  # PostgreSQL runs as another user where we are root
    with log.open("wb") as written:
        command = [sys.executable, __file__, kind, str(folder / kind)]
        keeper = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=written, text=True, start_new_session=True
        )
    with keeper:  # which ends its standard input, and waits for it
        assert keeper.stdout is not None
        match keeper.stdout.readline().strip():
            case "ready":
                yield server.url(folder / kind).set(database=server.first)
            case "missing":
                raise Missing(server.advice)
            case _:
                raise RuntimeError(f"{kind} could not be started: {log.read_text(errors='replace')}")


def keep(kind: str, folder: Path) -> None:
    """Start a server, say so, and stop it when whoever started us ends, however that is."""
    folder.mkdir()
    try:
        process = SERVERS[kind].start(folder)
    except Missing:
        print("missing", flush=True)
        return
    try:
        print("ready", flush=True)
        sys.stdin.read()
    finally:
        process.send_signal(SERVERS[kind].stop)
        process.wait()


if __name__ == "__main__":
    keep(sys.argv[1], Path(sys.argv[2]))
