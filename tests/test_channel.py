"""Messages between two processes: whole, in order, and an end that both sides see."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from itertools import pairwise

import anyio
import anyio.to_thread
import pytest
from hypothesis import given
from hypothesis import strategies as st
from runtime_support import PATIENCE

from yaotask.channel import Channel, Message
from yaotask.codec import encode

# More than any socket takes at once.
LONG = "x" * 3_000_000

MESSAGES = st.lists(st.dictionaries(st.text(max_size=5), st.text() | st.integers(-(2**53), 2**53) | st.none()))


@contextmanager
def two_ends() -> Iterator[tuple[Channel, socket.socket]]:
    channel, other = Channel.pair()
    with closing(channel), other:
        yield channel, other


@contextmanager
def conversation() -> Iterator[tuple[Channel, Channel]]:
    channel, other = Channel.pair()
    with closing(channel), closing(Channel(other)) as far:
        yield channel, far


@contextmanager
def written(pieces: list[bytes]) -> Iterator[Channel]:
    """What reads these pieces, written one after the other, and then the end."""
    with two_ends() as (channel, other):

        def write() -> None:
            with suppress(BrokenPipeError):
                for piece in pieces:
                    other.sendall(piece)
                other.shutdown(socket.SHUT_WR)

        writer = threading.Thread(target=write)
        writer.start()
        try:
            yield channel
        finally:
            channel.close()
            writer.join()


def chunks(text: bytes, cuts: list[int]) -> list[bytes]:
    places = [0, *sorted({cut % (len(text) + 1) for cut in cuts}), len(text)]
    return [text[start:end] for start, end in pairwise(places)]


def lines(messages: list[Message]) -> bytes:
    return b"".join(encode(message) + b"\n" for message in messages)


@given(MESSAGES, st.lists(st.integers(0, 10_000)))
def test_a_thread_reads_what_was_said_however_it_is_cut(messages: list[Message], cuts: list[int]) -> None:
    with written(chunks(lines(messages), cuts)) as channel:
        read = list(iter(channel.receive, None))

    assert read == messages


@given(MESSAGES, st.lists(st.integers(0, 10_000)))
def test_a_loop_reads_what_was_said_however_it_is_cut(messages: list[Message], cuts: list[int]) -> None:
    async def read() -> list[Message]:
        found = []
        while (message := await channel.areceive()) is not None:
            found.append(message)
        return found

    with written(chunks(lines(messages), cuts)) as channel:
        assert anyio.run(read) == messages


def test_a_thread_sends_more_than_there_is_room_for() -> None:
    with conversation() as (near, far):
        sender = threading.Thread(target=near.send, args=[{"text": LONG}])
        sender.start()

        assert far.receive() == {"text": LONG}
        sender.join()


async def test_a_loop_sends_more_than_there_is_room_for() -> None:
    with conversation() as (near, far), anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as group:
            group.start_soon(near.asend, {"text": LONG})

            assert await far.areceive() == {"text": LONG}


async def test_a_loop_and_a_thread_share_a_channel() -> None:
    with conversation() as (near, far), anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.to_thread.run_sync, near.send, {"from": "a thread"})
            first = await far.areceive()
        await far.asend({"from": "a loop"})

        assert first == {"from": "a thread"}
        assert await anyio.to_thread.run_sync(near.receive) == {"from": "a loop"}


def test_lines_of_many_threads_are_not_torn() -> None:
    with conversation() as (near, far):
        senders = [threading.Thread(target=near.send, args=[{letter: letter * 300_000}]) for letter in "abcd"]
        for sender in senders:
            sender.start()
        read = [far.receive() for _ in senders]
        for sender in senders:
            sender.join()

        assert sorted(map(str, read)) == [str({letter: letter * 300_000}) for letter in "abcd"]


async def test_nobody_hears_what_is_said_to_one_that_has_ended() -> None:
    with two_ends() as (channel, other):
        other.close()

        assert not channel.send({"a": 1})
        assert not await channel.asend({"a": 1})


def test_what_was_said_before_the_end_is_heard() -> None:
    with two_ends() as (channel, other):
        other.sendall(lines([{"last": "words"}]) + b'{"torn": ')
        other.close()

        assert channel.receive() == {"last": "words"}
        assert channel.receive() is None
        assert channel.receive() is None


@pytest.mark.parametrize("noise", [b"Segmentation fault\n", b"[1]\n", b"7\n", b"\xff\xfe\n", b"\n"])
async def test_what_is_no_message_ends_the_conversation(noise: bytes) -> None:
    with two_ends() as (channel, other):
        other.sendall(lines([{"a": 1}]) + noise + lines([{"b": 2}]))

        assert channel.receive() == {"a": 1}
        assert channel.receive() is None
        assert await channel.areceive() is None
        assert channel.torn


def test_a_channel_may_be_closed_twice_and_says_and_hears_nothing_then() -> None:
    with two_ends() as (channel, _):
        channel.close()
        channel.close()

        assert not channel.send({"a": 1})
        assert channel.receive() is None


class ClosedMeanwhile(socket.socket):
    """Has no room, and is closed by another thread before that is waited for."""

    def send(self, *_: object) -> int:
        if self.fileno() < 0:
            raise OSError
        self.close()
        raise BlockingIOError


def test_a_sender_without_room_notices_that_its_channel_was_closed() -> None:
    near, far = socket.socketpair()
    with far:
        channel = Channel(ClosedMeanwhile(fileno=near.detach()))

        assert not channel.send({"a": 1})
