"""The life of every background loop: no single failure ends it."""

from __future__ import annotations

import anyio
import pytest
from store_support import EvenChance

from yaotask.clock import SystemClock
from yaotask.lifecycle import every

WORDS = "look for dead workers"


class Naps(SystemClock):
    """Notes how long it was to sleep, and sleeps for one turn of the loop."""

    def __init__(self) -> None:
        self.naps: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)
        await anyio.lowlevel.checkpoint()


class Chance(EvenChance):
    def uniform(self, low: float, high: float) -> float:
        return high


async def live(results: list[Exception | None], clock: Naps) -> int:
    """Let a loop live until it has brought all these results; how often it was asked."""
    asked = 0

    async def work() -> None:
        nonlocal asked
        asked += 1
        result = results.pop(0)
        if not results:
            scope.cancel()
        if result is not None:
            raise result

    with anyio.CancelScope() as scope:
        await every(2.0, work, clock=clock, chance=Chance(), what=WORDS)
    return asked


async def test_it_works_at_once_and_then_again_and_again() -> None:
    clock = Naps()

    assert await live([None, None, None], clock) == 3
    assert clock.naps[:2] == [2.2, 2.2]


async def test_a_failure_ends_nothing_and_is_told_once_until_it_is_over(caplog: pytest.LogCaptureFixture) -> None:
    results: list[Exception | None] = [OSError("first"), OSError("second"), None, OSError("third"), None]

    assert await live(results, Naps()) == 5
    assert [record.getMessage() for record in caplog.records] == [
        f"could not {WORDS}, will go on trying: first",
        f"could not {WORDS}, will go on trying: third",
    ]
