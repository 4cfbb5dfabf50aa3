"""Lines to a server that pass each byte by itself, or are reset in the middle of a message."""

from __future__ import annotations

import random
import select
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from server_fixtures import Database

from yaotask.chaos.line import HERE, MOST, Address
from yaotask.store import sessions

# A line to be reset is so after fewer bytes than these, either way, of each connection.
LONGEST = 8_000
# Unsent data is thrown away, and the other end hears of a reset.
AT_ONCE = struct.pack("ii", 1, 0)


class Line:
    """Listens at `port` of this machine, and goes on to the server. To be used from any thread."""

    def __init__(self, server: Address) -> None:
        # Whether bytes pass one by one.
        self.is_slow = False
        # How many connections are to be reset still.
        self.resets_left = 0
        self._server = server
        self._chance = random.Random(28)  # noqa: S311 - when a line breaks is no secret
        self._lock = threading.Lock()
        self._listener = socket.create_server((HERE, 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._listen, daemon=True).start()

    def close(self) -> None:
        """Take no more connections; those that are there end with one of their ends."""
        # Wakes who waits for one.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _listen(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._carry, args=(client,), daemon=True).start()

    def _carry(self, client: socket.socket) -> None:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # One of them may leave in the middle of anything.
        with suppress(OSError), client, self._server.connect() as server:
            server.settimeout(None)
            if self._is_torn({client: server, server: client}):
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)

    def _is_torn(self, others: dict[socket.socket, socket.socket]) -> bool:
        """Pass on what they say until one of them leaves, or the connection is to be reset: whether that is so."""
        left = self._next()
        while True:
            for ready in select.select(list(others), [], [])[0]:
                said = ready.recv(MOST)
                torn = len(said) > left and self._may_reset()
                self._send(others[ready], said[:left] if torn else said)
                if torn or not said:
                    return torn
                left = left - len(said) if len(said) < left else self._next()

    def _next(self) -> int:
        """After how many bytes a connection is to be reset: at least one of what is said then has passed."""
        return self._chance.randrange(1, LONGEST)

    def _may_reset(self) -> bool:
        with self._lock:
            if not self.resets_left:
                return False
            self.resets_left -= 1
            return True

    def _send(self, target: socket.socket, said: bytes) -> None:
        size = 1 if self.is_slow else MOST
        for at in range(0, len(said), size):
            target.sendall(said[at : at + size])


@contextmanager
def reached_by_way_of(database: Database) -> Iterator[tuple[Line, Database]]:
    """A line to a server, and the database as it is reached through it."""
    line = Line(Address(*sessions.where(database.url)))
    try:
        yield line, Database(database.kind, sessions.by_way_of(database.url, HERE, line.port))
    finally:
        line.close()
