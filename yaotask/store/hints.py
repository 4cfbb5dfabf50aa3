"""A hint to the workers of this machine that somebody has added jobs: they look at once instead of at the next poll.

A hint is a datagram, which says where to look. Losing one costs time and nothing else, for the poll is the truth.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import anyio

# What a socket's address may hold, the shortest of the systems we know (macOS), with its closing zero.
LONGEST_ADDRESS = 104
SUFFIX = ".hint"

# What a hint says: the tasks of which jobs can be claimed, or this, which is to look for all there may be.
EVERYWHERE: frozenset[str] = frozenset()
# Bytes; of more tasks than that it is to look everywhere.
LONGEST = 2_000


def said(tasks: Collection[str]) -> str:
    """The words of a hint, which pass between processes of all versions."""
    words = "\n".join(sorted(tasks))
    return words if len(words.encode()) <= LONGEST else ""


def understood(words: str) -> frozenset[str]:
    """Where to look by the words of a hint; nobody vouches for them."""
    return frozenset(words.split("\n")) if words else EVERYWHERE


def together(hints: Collection[frozenset[str]]) -> frozenset[str]:
    """What several hints say."""
    return EVERYWHERE if EVERYWHERE in hints else EVERYWHERE.union(*hints)


def says_all(word: frozenset[str] | None, tasks: frozenset[str]) -> bool:
    """Whether who was given this word, if any was, looks wherever another would have them look."""
    return word == EVERYWHERE or (word is not None and tasks != EVERYWHERE and tasks <= word)


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

    async def hear(self) -> frozenset[str]:
        """Wait for a hint, and where it says to look; several that have come count as one."""
        heard: set[frozenset[str]] = set()
        while not heard:
            await anyio.wait_readable(self._socket)
            while True:
                try:
                    words = self._socket.recv(LONGEST)
                except BlockingIOError:
                    break
                heard.add(understood(words.decode(errors="replace")))
        return together(heard)

    def close(self) -> None:
        """Hear no more. More than once is fine."""
        self._path.unlink(missing_ok=True)
        self._socket.close()


def hint(folder: Path, tasks: Collection[str]) -> None:
    """Tell all workers whose ears are in a folder where to look. One that cannot be told at once is passed over."""
    ears = _ears(folder)
    if not ears:
        return
    words = said(tasks).encode()
    # Where there is no socket to be had they poll.
    with suppress(OSError), _datagrams() as mouth:
        for path in ears:
            # One that is dead, or has hints enough already, polls too.
            with suppress(OSError), _address(path) as address:
                mouth.sendto(words, address)


def _ears(folder: Path) -> list[Path]:
    try:
        return [folder / name for name in os.listdir(folder) if name.endswith(SUFFIX)]
    except OSError:  # no worker was ever here
        return []
