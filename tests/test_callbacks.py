"""The callbacks of a job: each is called once and in order, however many ask for it at the same time."""

from __future__ import annotations

import threading

import anyio
import pytest
from runtime_support import PATIENCE, a_job

from yaotask.callbacks import Callback, Callbacks


def test_one_at_a_time_calls_them_until_there_are_no_more() -> None:
    callbacks = Callbacks()
    assert not callbacks.begin()
    callbacks.add(Callback(print, None, None))

    assert callbacks.begin()
    assert not callbacks.begin()
    assert callbacks.next() is not None
    assert callbacks.next() is None
    assert not callbacks.begin()


def test_one_that_comes_while_they_are_called_follows_them() -> None:
    job = a_job()
    calls: list[str] = []
    over = threading.Event()

    def first() -> None:
        job.on_cancel(third)
        calls.append("first")

    def third() -> None:
        calls.append("third")
        over.set()

    job.on_cancel(first)
    job.on_cancel(lambda: calls.append("second"))
    job.ask_to_stop()

    assert over.wait(PATIENCE)
    assert calls == ["first", "second", "third"]


def test_each_is_called_once_whoever_asks_at_the_same_time() -> None:
    job = a_job()
    calls: list[int] = []
    over, together = threading.Event(), threading.Barrier(8)

    def ask(number: int) -> None:
        together.wait(PATIENCE)
        job.on_cancel(lambda: calls.append(number))
        job.ask_to_stop()

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    job.on_cancel(over.set)

    assert over.wait(PATIENCE)
    assert sorted(calls) == list(range(8))


def test_where_no_thread_can_be_started_that_is_said_and_nothing_raised(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    job = a_job()
    job.on_cancel(print)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    job.ask_to_stop()
    job.on_cancel(print)

    assert job.cancelled
    told = "what mail.12 gave to on_cancel cannot be called: can't start new thread"
    assert [record.getMessage() for record in caplog.records] == [told] * 2


def test_one_whose_loop_has_ended_is_called_on_another() -> None:
    job = a_job()
    over, called = threading.Event(), threading.Event()

    async def late() -> None:
        await anyio.lowlevel.checkpoint()
        called.set()

    async def register() -> None:
        job.on_cancel(late)

    anyio.run(register)
    job.on_cancel(over.set)
    job.ask_to_stop()

    assert over.wait(PATIENCE)
    assert called.is_set()
