"""Looking at a store: what is asked is answered right, cheaply, and leaves no trace."""

from __future__ import annotations

import pytest
from sqlalchemy import event
from store_support import START, Bench, an_add

from yaotask.clock import SECOND
from yaotask.errors import StorageUnavailable
from yaotask.store import checkup, fleet
from yaotask.store.opening import Place

pytest_plugins = ["store_fixtures"]


def test_where_there_is_no_store_none_is_made(here: Place) -> None:
    with checkup.looking(here) as connection:
        assert connection is None

    assert not here.state.exists()


def test_a_store_whose_marker_is_missing_is_looked_at_and_not_adopted(used: Place) -> None:
    used.marker.unlink()
    with checkup.looking(used) as connection:
        assert connection is not None

    assert not used.marker.exists()


def test_a_store_that_is_used_meanwhile_is_looked_at(bench: Bench, here: Place) -> None:
    bench.add()
    with checkup.looking(here) as connection:
        assert connection is not None
        bench.add()
        assert checkup.waiting(connection, START)[0]["ready"] == 2


def test_what_fails_while_it_is_looked_at_is_told_in_our_words(used: Place) -> None:
    with pytest.raises(StorageUnavailable, match="gone"), checkup.looking(used) as connection:
        assert connection is not None
        connection.exec_driver_sql("SELECT 1 FROM gone")


def test_what_waits_is_counted_by_task_now_and_later(bench: Bench) -> None:
    bench.add(2)
    bench.adds(an_add(3, run_at=START + 60 * SECOND), an_add(task="video"))
    with bench.store.reading() as connection:
        now = checkup.waiting(connection, START + SECOND)
        then = checkup.waiting(connection, START + 61 * SECOND)

    assert now == [
        {"task": "mail", "ready": 2, "later": 3, "since": START},
        {"task": "video", "ready": 1, "later": 0, "since": START},
    ]
    assert then[0] == {"task": "mail", "ready": 5, "later": 0, "since": START}


def test_the_latest_time_is_that_of_the_newest_job_or_process(bench: Bench) -> None:
    with bench.store.reading() as connection:
        assert checkup.latest(connection) == 0
    bench.add()
    with bench.store.reading() as connection:
        assert checkup.latest(connection) == START


@pytest.mark.parametrize("statistics", [False, True])
@pytest.mark.only_on("sqlite")
def test_no_job_that_has_ended_is_read(bench: Bench, statistics: bool) -> None:
    bench.add(500)
    for claim in bench.claim(400):
        bench.finish(claim)
    if statistics:
        bench.write("ANALYZE")
        bench.store.readers.dispose()
    asked: list[tuple[str, object]] = []
    event.listen(bench.store.readers, "before_cursor_execute", lambda *call: asked.append((call[2], call[3])))
    with bench.store.reading() as connection:
        checkup.waiting(connection, START)
        checkup.latest(connection)
        fleet.claims(connection)
        steps = [
            step[3]
            for statement, values in list(asked)
            for step in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)  # type: ignore[arg-type]
            if "yaotask_jobs" in step[3]
        ]

    assert len(steps) == 6
    assert all(any(index in step for index in PARTIAL) or step.startswith("SEARCH") for step in steps), steps


PARTIAL = ("yaotask_jobs_ready", "yaotask_jobs_due", "yaotask_jobs_running")
