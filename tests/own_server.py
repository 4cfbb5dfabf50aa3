"""A server that belongs to one test, which may stop and crash it."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from run_support import until
from server_fixtures import Database
from servers import SERVERS, MariaDB, PostgreSQL
from sqlalchemy import Engine, create_engine
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

# What it has said to be stored, it has after a crash too; of all servers of a test this is one to lose nothing.
HONEST = {
    "postgresql": {"synchronous_commit": "on"},
    "mariadb": {"innodb-flush-log-at-trx-commit": "2"},
}
STOP = {"postgresql": signal.SIGINT, "mariadb": signal.SIGTERM}
CRASH = {"postgresql": signal.SIGQUIT, "mariadb": signal.SIGKILL}

# Gives a server of a kind a folder for as long as it lives.
Housing = Callable[[str], AbstractContextManager[Path]]


class OwnServer:
    """A server that belongs to one test, which may crash it."""

    def __init__(self, kind: str, place: Path, server: type[PostgreSQL] | type[MariaDB] | None = None) -> None:
        self._kind = kind
        self._place = place
        self._process = (server or SERVERS[kind]).start(place)
        # Of the server, when it begins again.
        self.environment = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}

    def database(self) -> Database:
        """A new one."""
        with self._engine(SERVERS[self._kind].first).connect() as connection:
            connection.exec_driver_sql("CREATE DATABASE fleet")
        url = SERVERS[self._kind].url(self._place).set(database="fleet")
        return Database(self._kind, url.render_as_string(hide_password=False))

    def _engine(self, database: str) -> Engine:
        server = SERVERS[self._kind]
        arguments: Any = {"connect_args": server.arguments, "poolclass": NullPool, "isolation_level": "AUTOCOMMIT"}
        return create_engine(server.url(self._place).set(database=database), **arguments)

    def crash(self) -> None:
        self._process.send_signal(CRASH[self._kind])
        self._process.wait(30)

    def start(self) -> None:
        """Begin again with what was stored."""
        owner: dict[str, Any] = {}
        if self._kind == "postgresql" and os.geteuid() == 0:
            owner = {"user": "nobody", "group": "nogroup", "extra_groups": [], "cwd": self._place}
        self._process = subprocess.Popen(
            self._process.args, env=self.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **owner
        )

    def restart(self, *, gently: bool) -> None:
        """End it in order, or not, and begin again; it serves when this comes back."""
        if gently:
            self._process.send_signal(STOP[self._kind])
            self._process.wait(30)
        else:
            self.crash()
        self.start()
        until(self._serves)

    def _serves(self) -> bool:
        try:
            with self._engine(SERVERS[self._kind].first).connect():
                return True
        except OperationalError:
            return False

    def close(self) -> None:
        self._process.kill()
        self._process.wait(30)
