"""A server of PostgreSQL and a replica that follows it, which lacks what was stored last when it takes over."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from own_server import OwnServer
from run_support import until
from server_fixtures import Database
from servers import PostgreSQL
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool


class Primary(PostgreSQL):
    """None of its commits waits for a replica."""

    options: ClassVar[Mapping[str, str]] = {
        **PostgreSQL.options,
        "synchronous_commit": "local",
        "wal_level": "replica",
        "max_wal_senders": "2",
    }


def replica_of(primary: Path) -> type[PostgreSQL]:
    """A server that begins with what the one of this folder has, and follows it."""

    class Replica(Primary):
        @classmethod
        def creation(cls, programs: Path) -> list[str | Path]:
            how = ["--username", "postgres", "--checkpoint", "fast", "--write-recovery-conf", "--no-sync"]
            return [programs / "pg_basebackup", "--host", primary, *how]

    return Replica


class Pair:
    """Both of them; `database` is on whichever can be written."""

    def __init__(self, folder: Path) -> None:
        self._first, self._second = folder / "first", folder / "second"
        for place in (self._first, self._second):
            place.mkdir()
        self._servers = [OwnServer("postgresql", self._first, Primary)]
        try:
            self._servers[0].database()
            self._servers.append(OwnServer("postgresql", self._second, replica_of(self._first)))
        except BaseException:
            self.close()
            raise

    @property
    def database(self) -> Database:
        hosts = {"host": f"{self._first},{self._second}", "target_session_attrs": "read-write"}
        url = PostgreSQL.url(self._first).set(database="fleet").update_query_dict(hosts)
        return Database("postgresql", url.render_as_string(hide_password=False))

    def part(self) -> None:
        """From now on the replica lacks what is stored; it has all that was."""
        behind = "SELECT pg_current_wal_lsn() - replay_lsn FROM pg_stat_replication"
        until(lambda: self.ask(behind) == 0)
        self._servers[1].crash()

    def change(self) -> None:
        """The primary is gone, and the replica takes its place."""
        self._servers[0].crash()
        self._servers[1].start()
        self._first = self._second
        until(lambda: self._promotes())

    def _promotes(self) -> bool:
        try:
            return bool(self.ask("SELECT pg_promote()"))
        except OperationalError:
            return False

    def ask(self, question: str) -> Any:
        """One value, from the one that can be written."""
        engine = create_engine(PostgreSQL.url(self._first).set(database="fleet"), poolclass=NullPool)
        with engine.connect() as connection:
            return connection.execute(text(question)).scalar()

    def close(self) -> None:
        for server in self._servers:
            server.close()
