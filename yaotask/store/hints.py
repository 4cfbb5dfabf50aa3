"""A hint to the workers of this machine that somebody has added jobs: they look at once instead of at the next poll.

A hint is a datagram without content. Losing one costs time and nothing else, for the poll is the truth.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio

# What a socket's address may hold, the shortest of the systems we know (macOS), with its closing zero.
LONGEST_ADDRESS = 104
SUFFIX = ".hint"


@contextmanager
def _address(path: Path) -> Iterator[str]:
    """A short way to say a path: through its folder, where the system has one."""
    if len(os.fsencode(path)) < LONGEST_ADDRESS:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def _datagrams() -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    made.setblocking(False)
    return made


class Ear:
    """Where one worker hears hints: a socket in the folder of the workers, which only its owner can enter."""

    def __init__(self, folder: Path, name: str) -> None:
        self._path = folder / f"{name}{SUFFIX}"
        self._socket = _datagrams()
        try:
            with _address(self._path) as address:
                self._socket.bind(address)
        except OSError:
            self._socket.close()
            raise

    async def hear(self) -> None:
        """Wait for a hint; several that have come count as one."""
        await anyio.wait_readable(self._socket)
        while True:
            try:
                self._socket.recv(1)
            except BlockingIOError:
                return

    def close(self) -> None:
        """Hear no more. More than once is fine."""
        self._path.unlink(missing_ok=True)
        self._socket.close()


class Mouth:
    """Gives hints to all workers whose ears are in a folder. Belongs to one thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._socket: socket.socket | None = None

    def hint(self) -> None:
        """Tell every worker to look; never waits, and a worker that cannot be told is passed over."""
        for path in self._ears():
            if self._socket is None:
                self._socket = _datagrams()
            try:
                with _address(path) as address:
                    self._socket.sendto(b"", address)
            except OSError:
                # Dead, or it has hints enough already: it polls.
                continue

    def _ears(self) -> list[Path]:
        try:
            return [self._folder / name for name in os.listdir(self._folder) if name.endswith(SUFFIX)]
        except FileNotFoundError:  # no worker was ever here
            return []

    def close(self) -> None:
        """More than once is fine; another hint opens it again."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
