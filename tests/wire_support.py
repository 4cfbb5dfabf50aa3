"""A wire to a server's socket that counts the ways: how often something is sent there, and then waited for."""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from server_fixtures import Database
from sqlalchemy import URL, make_url

_SIZE = 1 << 16


class Wire:
    """Connections to a socket in `folder` go on to the server at `there`, each letter after `delay` seconds."""

    def __init__(self, folder: Path, name: str, there: str, delay: float = 0.0) -> None:
        self.ways = 0
        self._there = there
        self._delay = delay
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(folder / name))
        self._socket.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Take no more connections; those that are there end with their client."""
        # Wakes who waits for one.
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._carry, args=(client,), daemon=True).start()

    def _carry(self, client: socket.socket) -> None:
        # Who is killed at one end says nothing to the other.
        with suppress(OSError), client, socket.socket(socket.AF_UNIX) as server:
            server.connect(self._there)
            others, sender = {client: server, server: client}, server
            while True:
                for ready in select.select([client, server], [], [])[0]:
                    said = ready.recv(_SIZE)
                    if not said:
                        return
                    self.ways += ready is client and sender is server
                    sender = ready
                    if self._delay:
                        time.sleep(self._delay)
                    others[ready].sendall(said)


@contextmanager
def wired(database: Database, folder: Path, delay: float = 0.0) -> Iterator[tuple[Wire, Database]]:
    """A wire to a server, and the database as it is reached through it."""
    url, query = make_url(database.url), dict(make_url(database.url).query)
    if database.kind == "postgresql":
        name, there = ".s.PGSQL.5432", f"{query['host']}/.s.PGSQL.5432"
        query["host"] = str(folder)
    else:
        name, there = "socket", str(query["unix_socket"])
        query["unix_socket"] = str(folder / name)
    wire = Wire(folder, name, there, delay)
    try:
        yield wire, Database(database.kind, _text(url.set(query=query)))
    finally:
        wire.close()


def _text(url: URL) -> str:
    return url.render_as_string(hide_password=False)
