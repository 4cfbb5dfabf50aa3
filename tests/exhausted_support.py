"""What runs out under a node: its open files, and the connections of its server."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from run_support import Program, started, until
from server_fixtures import Database
from servers import SERVERS
from sqlalchemy import create_engine
from sqlalchemy.engine import Connection
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from yaotask.store import sessions

# `yaotask run` as it is after `ulimit -n`, which is its first word.
LIMITED = """
import resource, runpy, sys
most = int(sys.argv.pop(1))
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
runpy.run_module("yaotask", run_name="__main__")
"""

# How many connections a server takes, by its own name for that; MariaDB lets one administrator more in.
SETTING = {"postgresql": "max_connections", "mariadb": "max-connections"}
MOST = 20
ALL = {"postgresql": MOST, "mariadb": MOST + 1}
OWN_NUMBER: Mapping[str, str] = {"postgresql": "SELECT pg_backend_pid()", "mariadb": "SELECT connection_id()"}


@contextmanager
def running_with_files(root: Path, most: int) -> Iterator[Program]:
    """`yaotask run` whose processes may each have so many files open, once it works."""
    with started(root, ["-c", LIMITED, str(most), "run"]) as program:
        until(lambda: "running;" in program.errors or program.process.poll() is not None)
        yield program


def take_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let servers that start from now on take few connections."""
    for kind, name in SETTING.items():
        monkeypatch.setitem(SERVERS[kind].options, name, str(MOST))


@contextmanager
def all_connections_taken(database: Database) -> Iterator[None]:
    """Somebody has every connection that the server takes, and has ended those of others for it."""
    crowd = Crowd(database)
    try:
        until(crowd.has_all)
        yield
    finally:
        crowd.leave()


class Crowd:
    """Connections to a server, by number."""

    def __init__(self, database: Database) -> None:
        self._kind = database.kind
        options: Any = {"connect_args": {"ssl_disabled": True}} if database.kind == "mariadb" else {}
        self._engine = create_engine(database.url, poolclass=NullPool, isolation_level="AUTOCOMMIT", **options)
        self._first = self._engine.connect()
        self._held = {self._number_of(self._first): self._first}

    def has_all(self) -> bool:
        """Take what is free, and end what others have, for the next time."""
        while self._takes_one():
            pass
        for number in sessions.others(self._first):
            if number not in self._held:
                sessions.end(self._first, number)
        return len(self._held) == ALL[self._kind]

    def _takes_one(self) -> bool:
        try:
            connection = self._engine.connect()
        except OperationalError:
            return False
        self._held[self._number_of(connection)] = connection
        return True

    def _number_of(self, connection: Connection) -> int:
        return int(connection.exec_driver_sql(OWN_NUMBER[self._kind]).scalar_one())

    def leave(self) -> None:
        """Give all of them back."""
        for connection in self._held.values():
            connection.close()
