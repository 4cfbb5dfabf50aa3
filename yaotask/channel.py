"""What two of our processes say to each other: JSON objects over a socket pair, one a line.

A message may be lost with the process that should have sent or read it: what must not be lost is in the store.
"""

from __future__ import annotations

import select
import socket
import threading
from typing import Any

import anyio

from yaotask.codec import decode, encode

Message = dict[str, Any]

READ_AT_ONCE = 65_536


class Channel:
    """One end. Threads use `send` and `receive`, loops `asend` and `areceive`; one reader at a time.

    Sending to a process that has ended gives False, reading from it None once all it said is read. What is no
    message ends the conversation too, and shows as `torn`.
    """

    def __init__(self, end: socket.socket) -> None:
        # One mode for both kinds of callers, who may share a channel.
        end.setblocking(False)
        self._socket = end
        self._sending = threading.Lock()
        self._read = bytearray()
        self._gone = False
        # Whether what is no message was read.
        self.torn = False

    @classmethod
    def pair(cls) -> tuple[Channel, socket.socket]:
        """A channel, and the other end for the process that will be started."""
        ours, theirs = socket.socketpair()
        return cls(ours), theirs

    # --- for threads ------------------------------------------------------------------------------------

    def send(self, message: Message) -> bool:
        """Send, waiting as long as the other side has no room."""
        rest = memoryview(_line(message))
        with self._sending:
            while rest:
                sent = self._send_some(rest)
                if sent is None:
                    return False
                if not sent:
                    _wait(self._socket, select.POLLOUT)
                rest = rest[sent:]
        return True

    def receive(self) -> Message | None:
        """The next message, once there is one."""
        while (message := self._next()) is None and not self._gone:
            _wait(self._socket, select.POLLIN)
            self._read_some()
        return message

    # --- for loops --------------------------------------------------------------------------------------

    async def asend(self, message: Message) -> bool:
        """Like `send`. For one sender at a time: a line must not be torn."""
        rest = memoryview(_line(message))
        while rest:
            sent = self._send_some(rest)
            if sent is None:
                return False
            if not sent:
                await anyio.wait_writable(self._socket)
            rest = rest[sent:]
        return True

    async def areceive(self) -> Message | None:
        """Like `receive`."""
        while (message := self._next()) is None and not self._gone:
            await anyio.wait_readable(self._socket)
            self._read_some()
        return message

    # --- both -------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Let go. More than once is fine."""
        self._gone = True
        self._socket.close()

    def _send_some(self, rest: memoryview) -> int | None:
        """How many bytes have gone; None where nobody reads them any more."""
        try:
            return self._socket.send(rest)
        except BlockingIOError:
            return 0
        except OSError:
            return None

    def _read_some(self) -> None:
        try:
            some = self._socket.recv(READ_AT_ONCE)
        except BlockingIOError:
            return
        except OSError:
            some = b""
        self._gone = self._gone or not some
        self._read += some

    def _next(self) -> Message | None:
        end = self._read.find(b"\n")
        if end < 0:
            return None
        line = bytes(self._read[:end])
        del self._read[: end + 1]
        message = _message(line)
        if message is None:
            # Users' code may write anywhere. Where one of ours did not say this, what follows is not ours either.
            self._read.clear()
            self._gone = self.torn = True
        return message


def _line(message: Message) -> bytes:
    # No newline is inside: JSON writes it as an escape.
    return encode(message) + b"\n"


def _message(line: bytes) -> Message | None:
    try:
        message = decode(line)
    except ValueError:
        return None
    return message if isinstance(message, dict) else None


def _wait(end: socket.socket, event: int) -> None:
    descriptor = end.fileno()
    if descriptor < 0:
        return  # it was closed meanwhile, which the next look tells
    poll = select.poll()
    poll.register(descriptor, event)
    poll.poll()
