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

    def __init__(self, path: Path) -> None:
        """Raises OSError where the system has no such sockets, or the path is too long for it."""
        self._path = path
        self._socket = _datagrams()
        try:
            with _address(self._path) as address:
                self._socket.bind(address)
            # Whatever the umask says.
            self._path.chmod(0o600)
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


def hint(folder: Path) -> None:
    """Tell all workers whose ears are in a folder to look. Never waits; one that cannot be told is passed over."""
    ears = _ears(folder)
    if not ears:
        return
    with _datagrams() as mouth:
        for path in ears:
            try:
                with _address(path) as address:
                    mouth.sendto(b"", address)
            except OSError:
                # It is dead, or has hints enough already: it polls.
                continue


def _ears(folder: Path) -> list[Path]:
    try:
        return [folder / name for name in os.listdir(folder) if name.endswith(SUFFIX)]
    except OSError:  # no worker was ever here
        return []
