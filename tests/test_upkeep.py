"""Statistics grow coarser with age and lose nothing; no event stays with a worker that is gone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_support import EVERY_EVENT, START, Bench

from yaotask.clock import SECOND
from yaotask.store import presence, upkeep
from yaotask.store.presence import Lock
from yaotask.store.upkeep import DAY, HOUR, MOST_FOLDED

pytest_plugins = ["store_fixtures"]

MINUTE = 60 * SECOND
# The first minute of an hour, and long ago.
OLD = START - START % HOUR - 5 * DAY

ADD = """
INSERT INTO yaotask_rollups (task, minute, outcome, bucket, jobs, run_us, wait_us)
VALUES (:task, :minute, :outcome, :bucket, :jobs, :run_us, :wait_us)
"""


def put(bench: Bench, minute: int, *, task: str = "mail", outcome: int = 2, bucket: int = 3, jobs: int = 1) -> None:
    place = {"task": task, "minute": minute, "outcome": outcome, "bucket": bucket}
    bench.write(ADD, jobs=jobs, run_us=jobs * 10, wait_us=jobs * 100, **place)


SUMS = ("minute", "jobs", "run_us", "wait_us")


def rollups(bench: Bench, *columns: str) -> list[tuple[Any, ...]]:
    rows = bench.query("SELECT * FROM yaotask_rollups ORDER BY minute")
    return [tuple(row[column] for column in columns or SUMS) for row in rows]


def look(bench: Bench) -> list[Any]:
    with bench.store.reading() as connection:
        return upkeep.minutes_to_fold(connection, bench.clock.now())


def fold(bench: Bench, minutes: Sequence[Any] | None = None) -> int:
    found = look(bench) if minutes is None else minutes
    return int(bench.errand(lambda cycle: upkeep.fold_rollups(cycle, found)))


# --- statistics ------------------------------------------------------------------------------------


def test_the_minutes_of_an_hour_become_the_hour_and_their_sums(bench: Bench) -> None:
    put(bench, OLD + MINUTE, jobs=1)
    put(bench, OLD + 59 * MINUTE, jobs=2)

    assert fold(bench) == 2
    assert rollups(bench) == [(OLD, 3, 30, 300)]


def test_an_hour_that_was_there_takes_the_rest(bench: Bench) -> None:
    put(bench, OLD, jobs=5)
    put(bench, OLD + MINUTE, jobs=2)
    fold(bench)

    assert rollups(bench) == [(OLD, 7, 70, 700)]


def test_what_is_counted_apart_stays_apart(bench: Bench) -> None:
    for kind in ({"task": "video"}, {"outcome": 3}, {"bucket": 4}, {}):
        for minute in (1, 2):
            put(bench, OLD + minute * MINUTE, **kind)
    fold(bench)

    assert sorted(rollups(bench, "task", "outcome", "bucket", "jobs")) == [
        ("mail", 2, 3, 2),
        ("mail", 2, 4, 2),
        ("mail", 3, 3, 2),
        ("video", 2, 3, 2),
    ]


def test_two_days_are_kept_by_the_minute(bench: Bench) -> None:
    put(bench, START - 2 * DAY + MINUTE)
    put(bench, START)

    assert look(bench) == []


def test_an_hour_is_folded_whole(bench: Bench) -> None:
    hour = START - START % HOUR - 2 * DAY
    put(bench, hour + MINUTE)
    bench.clock.wall = hour + 2 * DAY + HOUR - SECOND
    before = look(bench)
    bench.clock.advance(1)

    assert before == []
    assert len(look(bench)) == 1


def test_what_was_folded_is_not_looked_at_again(bench: Bench) -> None:
    put(bench, OLD + MINUTE)
    fold(bench)

    assert look(bench) == []


def test_two_nodes_that_fold_at_once_count_nothing_twice(open_bench: Callable[[], Bench]) -> None:
    one, other = open_bench(), open_bench()
    for minute in range(1, 4):
        put(one, OLD + minute * MINUTE)
    seen = look(one), look(other)
    folded = fold(one, seen[0]), fold(other, seen[1])

    assert folded == (3, 0)
    assert rollups(one) == [(OLD, 3, 30, 300)]


def test_what_was_counted_after_the_look_is_not_lost(bench: Bench) -> None:
    put(bench, OLD + MINUTE, jobs=1)
    seen = look(bench)
    bench.write("UPDATE yaotask_rollups SET jobs = 2, run_us = 20, wait_us = 200")
    folded = fold(bench, seen)
    fold(bench)

    assert folded == 0
    assert rollups(bench) == [(OLD, 2, 20, 200)]


def test_one_transaction_folds_some(bench: Bench) -> None:
    bench.count_many(MOST_FOLDED + 1, minute=OLD + MINUTE)

    assert (fold(bench), fold(bench), fold(bench)) == (MOST_FOLDED, 1, 0)


COUNTS = st.dictionaries(
    st.tuples(st.sampled_from(["mail", "video"]), st.integers(0, 400), st.integers(2, 3), st.integers(0, 2)),
    st.integers(1, 10**9),
    max_size=20,
)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(COUNTS)
def test_no_sum_changes_by_folding(bench: Bench, counts: dict[tuple[str, int, int, int], int]) -> None:
    bench.write("DELETE FROM yaotask_rollups")
    for (task, minute, outcome, bucket), jobs in counts.items():
        put(bench, OLD + minute * MINUTE, task=task, outcome=outcome, bucket=bucket, jobs=jobs)
    sums = """
        SELECT task, minute - minute % :hour AS hour, outcome, bucket, sum(jobs), sum(run_us), sum(wait_us)
        FROM yaotask_rollups GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4
    """
    before = bench.query(sums, hour=HOUR)
    fold(bench)

    assert bench.query(sums, hour=HOUR) == before
    assert all(minute % HOUR == 0 for (minute,) in rollups(bench, "minute"))


# --- events ----------------------------------------------------------------------------------------


def takers(bench: Bench) -> list[int | None]:
    return [row["worker"] for row in bench.query("SELECT worker FROM yaotask_events ORDER BY seq")]


def any_stale(bench: Bench) -> bool:
    with bench.store.reading() as connection:
        return upkeep.any_stale_event(connection)


@pytest.fixture
def taken(bench: Bench, tmp_path: Path) -> Bench:
    """A store with an event that a worker which lives is delivering."""
    lock = Lock.take(tmp_path / "workers", "ours")
    worker = bench.errand(lambda cycle: presence.register(cycle, "ours", lock))
    bench.add(2, events=EVERY_EVENT)
    bench.cycle(worker=worker, deliveries=1, delivery_tasks=("mail",))
    lock.release()
    return bench


def test_events_of_the_living_are_left_to_them(taken: Bench) -> None:
    worker = taken.value("SELECT key FROM yaotask_workers")

    assert takers(taken) == [worker, None]
    assert not any_stale(taken)
    assert taken.errand(upkeep.release_events) == 0
    assert takers(taken) == [worker, None]


def test_events_of_the_gone_are_given_out_again(taken: Bench) -> None:
    taken.write("DELETE FROM yaotask_workers")
    stale = any_stale(taken)

    assert stale
    assert taken.errand(upkeep.release_events) == 1
    assert takers(taken) == [None, None]
    assert not any_stale(taken)


def test_who_delivers_is_woken_for_events_that_are_given_out_again(taken: Bench) -> None:
    taken.write("DELETE FROM yaotask_workers")
    woken = []

    def release(cycle: Any) -> None:
        upkeep.release_events(cycle)
        woken.append(cycle.harvest.wrote_events)

    taken.errand(release)

    assert woken == [True]
