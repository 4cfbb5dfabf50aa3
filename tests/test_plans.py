"""Each statement of the hot path goes by its index, with and without statistics, however full the store is."""

from __future__ import annotations

from typing import Any

import pytest
from plans_support import WORK, Statement, recorded
from sqlalchemy.engine import Connection
from store_support import START, Bench

from yaotask.jobs import JobState
from yaotask.store import reads, statements

pytest_plugins = ["store_fixtures"]
pytestmark = pytest.mark.only_on("sqlite")

# One statement each: so many jobs of every kind, written past the transitions that lead there.
FILL = """
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT :count)
INSERT INTO yaotask_jobs (task, id, queue, state, priority, events, counted, args, payload, created_at, updated_at,
    run_at, ready_at, due_at, finished_at, result, worker, attempt, fence, started_at)
SELECT 'mail', :first + i, 'mail', :state, i % 3, 0, 0, '[]', '{}', :now + i, :now, :now,
    CASE WHEN :ready THEN :now + i END, CASE WHEN :due THEN :now + 1000000000 + i END,
    CASE WHEN :state IN (2, 3, 6, 7) THEN :now + i END, CASE WHEN :state = 2 THEN '1' END,
    CASE WHEN :state = 1 THEN 2 END, :state <> 0, :state <> 0, CASE WHEN :state <> 0 THEN :now END
FROM n
"""
FILL_EVENTS = """
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 3000)
INSERT INTO yaotask_events (job, task, id, kind, data, created_at, next_at, state, worker)
SELECT i, CASE WHEN i % 2 THEN 'mail' ELSE 'video' END, i, 2, '[]', :now, :now + 1000000000 + i, i % 3 = 0,
    CASE WHEN i % 50 = 1 THEN 2 END FROM n
"""
KINDS = [
    (JobState.WAITING, True, False, 3_000),
    (JobState.WAITING, False, True, 3_000),
    (JobState.SUCCESS, True, False, 3_000),
    (JobState.FAILURE, True, False, 300),
    (JobState.RETRYING, False, True, 300),
    (JobState.CANCELLED, False, False, 300),
    (JobState.RUNNING, True, False, 300),
]


@pytest.fixture(params=["without statistics", "with statistics"])
def full(bench: Bench, request: pytest.FixtureRequest) -> Bench:
    """A store with thousands of jobs in each state."""
    bench.write("DROP TRIGGER only_waiting_jobs")
    for number, (state, ready, due, count) in enumerate(KINDS):
        values = {"state": int(state), "ready": ready, "due": due, "count": count}
        bench.write(FILL, first=number * 100_000, now=START, **values)
    bench.write(FILL_EVENTS, now=START)
    if request.param == "with statistics":
        bench.write("ANALYZE")
        # Statistics are read when a connection begins.
        bench.store.writer.disconnect()
        bench.store.readers.dispose()
    bench.clock.advance(10)
    return bench


def plan(bench: Bench, statement: str, parameters: Any) -> list[str]:
    with bench.store.reading() as connection:
        rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all()
    return [str(row[3]) for row in rows]


def scans(bench: Bench, seen: list[Statement]) -> list[tuple[str, str]]:
    """The steps of these statements that read a whole table, or a large index from one end to the other."""
    found = []
    for statement, parameters in seen:
        for step in plan(bench, statement, parameters):
            if step.startswith("SCAN") and not step.startswith(HARMLESS):
                found.append((statement.strip(), step))
    return found


# Walks over rows that came along with the statement, and over what is small by nature.
HARMLESS = (
    "SCAN json_each",
    "SCAN won",
    "SCAN ended",
    "SCAN begun",
    "SCAN CONSTANT",
    "SCAN (subquery",
    "SCAN yaotask_workers",
    "SCAN yaotask_size_debts",
    "SCAN yaotask_jobs USING INDEX yaotask_jobs_running",
    "SCAN yaotask_jobs USING COVERING INDEX yaotask_jobs_running",
    "SCAN yaotask_events USING INDEX yaotask_events_worker",
    "SCAN yaotask_events USING COVERING INDEX yaotask_events_worker",
)


@pytest.mark.parametrize("name", WORK)
def test_no_statement_walks_through_the_store(full: Bench, name: str) -> None:
    with recorded(full) as seen:
        WORK[name](full)

    assert seen
    assert scans(full, seen) == []


@pytest.mark.parametrize("name", ["FINISH_SUCCESS", "FINISH_OTHER", "STORE_STARTED"])
def test_an_end_goes_from_its_rows_to_the_key(full: Bench, name: str) -> None:
    steps = plan(full, getattr(full.store.dialect.statements, name), {"rows": "[]"})

    assert steps == ["SCAN json_each VIRTUAL TABLE INDEX 1:", "SEARCH yaotask_jobs USING INTEGER PRIMARY KEY (rowid=?)"]


def test_a_claim_reads_the_ready_index_in_its_order(full: Bench) -> None:
    steps = plan(full, full.store.dialect.statements.SELECT_CLAIMS, {"task": "mail", "most": 5, "now": 0, "fence": 1})

    assert any("SEARCH yaotask_jobs USING INDEX yaotask_jobs_ready (queue=? AND task=?" in step for step in steps)
    assert not any("TEMP B-TREE" in step for step in steps)


def test_what_is_to_be_cancelled_is_found_by_its_own_index(full: Bench) -> None:
    steps = plan(full, statements.CANCELS_OF, {"worker": 1})

    assert steps == ["SEARCH yaotask_jobs USING INDEX yaotask_jobs_cancelling (worker=? AND cancel_at>?)"]


def test_promotion_reads_no_more_than_what_is_due(full: Bench) -> None:
    steps = plan(full, full.store.dialect.statements.PROMOTE, {"now": START, "most": 5})

    assert any("INDEX yaotask_jobs_due (due_at>? AND due_at<?)" in step for step in steps)
    assert not any("TEMP B-TREE" in step for step in steps)


# --- lists -----------------------------------------------------------------------------------------

STATUSES = ("WAITING", "RUNNING", "SUCCESS", "PARTIAL", "FAILURE", "RETRYING", "CANCELLED", "IGNORED")
SOME = ("FAILURE", "WAITING", "SUCCESS")


@pytest.mark.parametrize("statuses", [(), *((status,) for status in STATUSES), SOME], ids=lambda names: "+".join(names))
@pytest.mark.parametrize("task", ["mail", None])
@pytest.mark.parametrize("since", [None, START])
def test_a_page_is_never_sorted_out_of_the_whole_table(
    full: Bench, task: str | None, statuses: tuple[str, ...], since: int | None
) -> None:
    wanted = reads.Filter(task=task, statuses=statuses, since=since)
    with recorded(full) as seen, full.store.reading() as connection:
        page(connection, wanted)

    for statement, parameters in seen:
        steps = " / ".join(plan(full, statement, parameters))
        few = any(index in steps for index in ("yaotask_jobs_running", "yaotask_jobs_unsuccessful"))
        assert few or "TEMP B-TREE" not in steps
        assert "USING" in steps or steps == "SCAN yaotask_jobs"  # by key, from its end


def page(connection: Connection, wanted: reads.Filter) -> list[int]:
    return [row["id"] for row in reads.page(connection, wanted, 20)]


def test_a_page_by_time_reads_only_that_time(full: Bench) -> None:
    wanted = reads.Filter(task="mail", since=START + 100, until=START + 200, before=300_150)
    with recorded(full) as seen, full.store.reading() as connection:
        page(connection, wanted)

    (found,) = [plan(full, statement, parameters) for statement, parameters in seen]
    assert any("yaotask_jobs_created (created_at>? AND created_at<?)" in step for step in found)


def test_the_few_that_did_not_succeed_are_found_by_their_own_index(full: Bench) -> None:
    with recorded(full) as seen, full.store.reading() as connection:
        found = page(connection, reads.Filter(task="mail", statuses=("FAILURE",)))

    assert len(found) == 20
    assert "yaotask_jobs_unsuccessful (task=? AND state=?)" in plan(full, *seen[0])[0]


def test_deliveries_read_the_pending_index_in_its_order(full: Bench) -> None:
    values = {"task": "mail", "now": START, "most": 5}
    steps = plan(full, full.store.dialect.statements.SELECT_DELIVERIES, values)

    assert any("yaotask_events_pending (task=? AND next_at<?)" in step for step in steps)
    assert any("SEARCH earlier USING INDEX yaotask_events_job" in step for step in steps)
    assert not any("TEMP B-TREE" in step for step in steps)
