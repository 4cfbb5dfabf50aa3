"""The wait before the n-th retry."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yaotask.backoff import Backoff, Strategy
from yaotask.chance import SystemChance
from yaotask.durations import LONGEST

SECOND = timedelta(seconds=1)
STRATEGIES: tuple[Strategy, ...] = ("fixed", "linear", "quadratic", "exponential")


class Most:
    """Chance that always draws the largest number."""

    def uniform(self, low: float, high: float) -> float:
        return high

    def uuid(self) -> str:
        return "0" * 32


def seconds(backoff: Backoff, base: timedelta, retries: int = 5) -> list[float]:
    return [backoff.delay(base, retry, Most()).total_seconds() for retry in range(1, retries + 1)]


@pytest.mark.parametrize(
    ("strategy", "base", "waits"),
    [
        ("fixed", 0.2, [0.2, 0.2, 0.2, 0.2, 0.2]),
        ("linear", 2, [2, 4, 6, 8, 10]),
        ("quadratic", 1, [1, 4, 9, 16, 25]),
        ("exponential", 60, [60, 120, 240, 480, 960]),
        ("exponential", 0, [0, 0, 0, 0, 0]),
    ],
)
def test_each_strategy_has_its_waits(strategy: Strategy, base: float, waits: list[float]) -> None:
    assert seconds(Backoff(strategy), timedelta(seconds=base)) == waits


def test_no_wait_is_longer_than_the_most_allowed() -> None:
    assert seconds(Backoff("quadratic", max=timedelta(seconds=10)), SECOND) == [1, 4, 9, 10, 10]


def test_jitter_adds_to_each_wait_and_to_the_longest_too() -> None:
    assert seconds(Backoff("linear", max=3 * SECOND, jitter=0.5), SECOND) == [1.5, 3, 4.5, 4.5, 4.5]


@pytest.mark.parametrize("jitter", [0, 1])
@pytest.mark.parametrize("strategy", STRATEGIES[1:])
def test_nothing_waits_longer_than_thirty_days(strategy: Strategy, jitter: float) -> None:
    assert Backoff(strategy, jitter=jitter).delay(LONGEST, 1_000_000, Most()) == LONGEST


@given(
    st.sampled_from(STRATEGIES),
    st.timedeltas(timedelta(0), LONGEST),
    st.integers(1, 10_000),
    st.floats(0, 10),
)
def test_jitter_only_adds(strategy: Strategy, base: timedelta, retry: int, jitter: float) -> None:
    least = Backoff(strategy).delay(base, retry, SystemChance())

    assert base <= least <= Backoff(strategy, jitter=jitter).delay(base, retry, SystemChance()) <= LONGEST
