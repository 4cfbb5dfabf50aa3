"""How a worker hears of jobs that other nodes have added, where its connection does not last."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any, cast

import pytest
from store_support import EvenChance, ManualClock

from yaotask.errors import StorageUnavailable
from yaotask.runtime.listening import LASTING, Listener
from yaotask.store.hints import EVERYWHERE


class Broken:
    """A connection that listens for so many seconds."""

    def __init__(self, clock: ManualClock, seconds: float) -> None:
        self._clock = clock
        self._seconds = seconds

    def fileno(self) -> int:
        self._clock.advance(self._seconds)
        raise StorageUnavailable("the server has hung up")

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("lasts", "told"),
    [([None, None], 1), ([1.0, 1.0, 1.0], 1), ([None, LASTING + 1, None, LASTING + 1], 3), ([LASTING + 1] * 3, 3)],
)
async def test_that_listening_ends_again_and_again_is_told_once_unless_it_had_lasted(
    lasts: list[float | None], told: int, caplog: pytest.LogCaptureFixture
) -> None:
    """A server that ends idle connections does so every few seconds; None is a server that is away."""
    clock, heard, left = ManualClock(), list[frozenset[str]](), list(lasts)

    def listen() -> Broken | None:
        if not left:
            return None
        seconds = left.pop(0)
        if seconds is None:
            raise StorageUnavailable("nobody answers")
        return Broken(clock, seconds)

    ledger = SimpleNamespace(hinted=lambda tasks=EVERYWHERE: heard.append(tasks))
    access = cast("Any", SimpleNamespace(opened=SimpleNamespace(store=SimpleNamespace(listen=listen), ledger=ledger)))
    caplog.set_level(logging.INFO)
    await Listener(access, clock, EvenChance(), deaf=False).far()

    assert caplog.text.count("found by polling alone for now") == told
    # Something may have been said before each began.
    assert len(heard) == len([seconds for seconds in lasts if seconds is not None])
