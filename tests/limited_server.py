"""PostgreSQL as others speak its language: a line to the server on which some of what it knows is unknown.

What passes is changed before it comes to the server, which then refuses it in its own way.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import threading
from collections import Counter
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from server_fixtures import Database
from sqlalchemy import make_url

SOCKET = ".s.PGSQL.5432"
# Of what a client says: a statement, or one that is prepared.
STATEMENTS = (b"Q", b"P")

_NOT_SUPPORTED = b"DO $$BEGIN RAISE feature_not_supported USING MESSAGE = 'unimplemented: this syntax'; END$$"
_NO_LOCKS = {b"pg_advisory_": b"no_advisory_", b"pg_try_advisory_": b"no_try_advisory_"}
# What stands for what, so that the server refuses it: 42883 for functions, and 42601, which is the whole text, or
# 0A000, which leaves the transaction failed, for statements.
LACKING: Mapping[str, Mapping[bytes, bytes]] = {
    "no such syntax": {b"LISTEN yaotask": b"LISTNE yaotask", b"pg_notify": b"no_notify", **_NO_LOCKS},
    "not supported": {b"LISTEN yaotask": _NOT_SUPPORTED, b"pg_notify": b"no_notify", **_NO_LOCKS},
}


class Line:
    """What passes between clients and the server; `refused` counts what the server was not asked."""

    def __init__(self, server: Path, lacking: Mapping[bytes, bytes]) -> None:
        self._server = server
        self._lacking = lacking
        self._tasks: set[asyncio.Task[Any]] = set()
        self.refused: Counter[str] = Counter()
        self.connections = 0

    async def serve(self, address: Path, begun: threading.Event, over: asyncio.Event) -> None:
        """Until it is `over`."""
        listening = await asyncio.start_unix_server(self._meet, address)
        begun.set()
        await over.wait()
        listening.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _meet(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        self.connections += 1
        server, to_server = await asyncio.open_unix_connection(self._server)
        ways = [self._forward(client, to_server), self._back(server, to_client)]
        tasks = [asyncio.ensure_future(_until_either_leaves(way)) for way in ways]
        self._tasks.update(tasks)
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for writer in (to_client, to_server):
            writer.close()

    async def _forward(self, client: asyncio.StreamReader, to_server: asyncio.StreamWriter) -> None:
        # The first message has no kind.
        to_server.write(await _message(client, b""))
        while True:
            kind = await client.readexactly(1)
            message = await _message(client, kind)
            to_server.write(self._changed(message) if kind in STATEMENTS else message)
            await to_server.drain()

    @staticmethod
    async def _back(server: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        while data := await server.read(1 << 16):
            to_client.write(data)
            await to_client.drain()

    def _changed(self, message: bytes) -> bytes:
        kind, body = message[:1], message[5:]
        for known, unknown in self._lacking.items():
            if known in body:
                self.refused[known.decode().split()[0]] += 1
                body = body.replace(known, unknown)
        return kind + (len(body) + 4).to_bytes(4, "big") + body


async def _message(reader: asyncio.StreamReader, kind: bytes) -> bytes:
    length = await reader.readexactly(4)
    return kind + length + await reader.readexactly(int.from_bytes(length, "big") - 4)


async def _until_either_leaves(way: Coroutine[Any, Any, None]) -> None:
    try:
        await way
    except (asyncio.IncompleteReadError, ConnectionError):
        pass  # one of them has left, which is how each way ends


@contextmanager
def limited(database: Database, parent: Path, lacking: str) -> Iterator[tuple[Database, Line]]:
    """The same database, as it is on a server that lacks what LACKING has of this name."""
    folder = Path(tempfile.mkdtemp(prefix="limited-", dir=parent))
    url = make_url(database.url)
    line = Line(Path(str(url.query["host"])) / SOCKET, LACKING[lacking])
    loop, begun, over = asyncio.new_event_loop(), threading.Event(), asyncio.Event()
    thread = threading.Thread(target=lambda: loop.run_until_complete(line.serve(folder / SOCKET, begun, over)))
    thread.start()
    try:
        assert begun.wait(10)
        here = url.update_query_dict({"host": str(folder)})
        yield Database(database.kind, here.render_as_string(hide_password=False)), line
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join()
        loop.close()
        shutil.rmtree(folder)
