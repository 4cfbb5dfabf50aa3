"""A line between one program of a run and its database server, which can be cut, held, or lose answers.

It passes bytes and knows no protocol. What is committed while answers are lost is committed, and nobody hears of it.
"""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import NamedTuple

MOST = 65_536
HERE = "127.0.0.1"
# Seconds for a server to be reached.
PATIENCE = 10.0


class Address(NamedTuple):
    """Where a server listens: the path of a socket, or a host and its port."""

    host: str
    port: int = 0

    def connect(self) -> socket.socket:
        """A connection of our own. Raises OSError."""
        if not self.host.startswith("/"):
            return socket.create_connection((self.host, self.port), PATIENCE)
        server = socket.socket(socket.AF_UNIX)
        try:
            server.settimeout(PATIENCE)
            server.connect(self.host)
        except OSError:
            server.close()
            raise
        return server


class Pair(NamedTuple):
    """A connection of a client, and ours to the server for it."""

    client: socket.socket
    server: socket.socket

    def cut(self) -> None:
        """Break both; whoever waits on one of them hears of it."""
        for end in self:
            with suppress(OSError):  # it may have ended by itself
                end.shutdown(socket.SHUT_RDWR)


class Line:
    """Listens at `port` of this machine for one program. To be used from any thread."""

    def __init__(self, server: Address) -> None:
        self._server = server
        self._pairs: set[Pair] = set()
        self._passes = threading.Event()
        self._passes.set()
        self._loses = False
        self._lost: list[int] = []
        self._clients = set[socket.socket]()
        # Held by whoever holds it, or lets it lose answers.
        self.busy = threading.Lock()
        self._listener = socket.create_server((HERE, 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._listen, name="chaos line", daemon=True).start()

    def cut(self) -> int:
        """Break all connections, and lose no answers any more; how many there were."""
        pairs = list(self._pairs)
        for pair in pairs:
            pair.cut()
        self._loses = False
        return len(pairs)

    def lose_answers(self) -> None:
        """From now on what the server says goes nowhere, until `cut`."""
        self._loses = True

    @property
    def lost(self) -> int:
        """How many answers, or pieces of one, went nowhere so far."""
        return len(self._lost)

    def hold(self) -> int:
        """From now on nothing passes, and nobody is told; also what begins now waits, until `go_on`.

        How many connections there are, as `go_on` says too: with none at either time nobody noticed.
        """
        self._passes.clear()
        return len(self._clients)

    def go_on(self) -> int:
        """Let pass again; how many connections were held."""
        held = len(self._clients)
        self._passes.set()
        return held

    def close(self) -> None:
        """Listen no more, and break what there is."""
        with suppress(OSError):  # where that wakes nobody who waits for clients, its end does
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.go_on()
        self.cut()

    # --- its threads --------------------------------------------------------------------------------------

    def _listen(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return  # closed
            threading.Thread(target=self._meet, args=(client,), name="chaos line", daemon=True).start()

    def _meet(self, client: socket.socket) -> None:
        self._clients.add(client)
        self._passes.wait()
        with client:
            self._connect(client)
        self._clients.discard(client)

    def _connect(self, client: socket.socket) -> None:
        try:
            server = self._server.connect()
        except OSError:
            return  # it is away, and the client hears so by the end of its connection
        with server:
            self._join(Pair(client, server))

    def _join(self, pair: Pair) -> None:
        for end in pair:
            end.settimeout(None)
            if end.family in (socket.AF_INET, socket.AF_INET6):
                # What comes in several pieces is not kept back until the first of them is acknowledged.
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._pairs.add(pair)
        back = threading.Thread(target=self._pass, args=(pair, True), name="chaos line", daemon=True)
        back.start()
        self._pass(pair, False)
        back.join()
        self._pairs.discard(pair)

    def _pass(self, pair: Pair, is_answer: bool) -> None:
        source, target = reversed(pair) if is_answer else pair
        with suppress(OSError):  # cut, or left by one of the two
            while some := source.recv(MOST):
                self._passes.wait()
                if is_answer and self._loses:
                    self._lost.append(len(some))
                else:
                    target.sendall(some)
        pair.cut()
