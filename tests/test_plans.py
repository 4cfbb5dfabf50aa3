"""Each statement of the hot path goes by its index, with and without statistics, however full the store is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.engine import Connection
from store_support import EVERY_EVENT, FAILED, START, Bench, an_add, retry_after

from yaotask.clock import SECOND
from yaotask.jobs import JobState
from yaotask.store import direct, presence, reads
from yaotask.store.protocol import Progress, Started

pytest_plugins = ["store_fixtures"]

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


Statement = tuple[str, Any]


@contextmanager
def recorded(bench: Bench) -> Iterator[list[Statement]]:
    """What is executed meanwhile, by the ledger and by readers."""
    seen: list[Statement] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.split()[0] in ("SELECT", "UPDATE", "INSERT", "DELETE", "WITH"):
            seen.append((statement, parameters))

    def run(cursor: Any, statement: str, values: Any) -> None:
        note(None, cursor, statement, values)
        cursor.execute(statement, values)

    event.listen(bench.store.readers, "before_cursor_execute", note)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(direct, "run", run)
        yield seen
    event.remove(bench.store.readers, "before_cursor_execute", note)


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


def add_all_kinds(bench: Bench) -> None:
    bench.adds(an_add(3, size=100_000, events=EVERY_EVENT), an_add(key="k"), an_add(run_at=START + 3600 * SECOND))


def run_through(bench: Bench) -> None:
    claims = bench.cycle(worker=1, demands={"mail": 8}, others=True).claims["mail"]
    done, failed, retried, *rest = claims
    bench.cycle(
        worker=1,
        progress=[Progress(rest[0].key, rest[0].fence, START, {"current": 1})],
        started=[Started(claim.key, claim.fence, START) for claim in rest],
        finishes=[bench.end(done), bench.end(failed, FAILED), bench.end(retried, retry_after(1))],
    )


def deliver(bench: Bench) -> None:
    bench.clock.advance(3_600)
    deliveries = bench.cycle(worker=1, deliveries=10, delivery_tasks=("mail", "video")).deliveries
    first, *rest = deliveries
    bench.errand(lambda cycle: cycle.settle(1, rest, [(first, "bad", None)]))


def reap(bench: Bench) -> None:
    bench.errand(lambda cycle: presence.reap(cycle, 1, 3))
    bench.errand(lambda cycle: presence.leave(cycle, 1))


def look(bench: Bench) -> None:
    bench.store.any_ready("mail")
    bench.store.next_due()
    bench.store.next_event(("mail", "video"))
    with bench.store.reading() as connection:
        presence.any_dead(connection, 1)
        reads.get(connection, "mail", 7)
        reads.status(connection, "mail", [1, 2, 3])
        reads.attempts_of(connection, 7)
        reads.events_of(connection, 7)
        reads.unsettled(connection, ["none"])


def ask_of_one(bench: Bench) -> None:
    bench.errand(lambda cycle: cycle.cancel("mail", 1))
    bench.errand(lambda cycle: cycle.retry("mail", 1))


WORK: dict[str, Callable[[Bench], None]] = {
    "add": add_all_kinds,
    "claim, progress, finish": run_through,
    "deliveries": deliver,
    "reap and hand back": reap,
    "looks": look,
    "cancel and retry": ask_of_one,
}


@pytest.mark.parametrize("name", WORK)
def test_no_statement_walks_through_the_store(full: Bench, name: str) -> None:
    with recorded(full) as seen:
        WORK[name](full)

    assert seen
    assert scans(full, seen) == []


@pytest.mark.parametrize("name", ["finish_success", "finish_other", "store_started"])
def test_an_end_goes_from_its_rows_to_the_key(full: Bench, name: str) -> None:
    steps = plan(full, getattr(full.store.dialect, name), {"rows": "[]"})

    assert steps == ["SCAN json_each VIRTUAL TABLE INDEX 1:", "SEARCH yaotask_jobs USING INTEGER PRIMARY KEY (rowid=?)"]


def test_a_claim_reads_the_ready_index_in_its_order(full: Bench) -> None:
    steps = plan(full, full.store.dialect.select_claims, {"task": "mail", "most": 5, "now": 0})

    assert any("SEARCH yaotask_jobs USING INDEX yaotask_jobs_ready (queue=? AND task=?" in step for step in steps)
    assert not any("TEMP B-TREE" in step for step in steps)


def test_promotion_reads_no_more_than_what_is_due(full: Bench) -> None:
    steps = plan(full, full.store.dialect.promote, {"now": START, "most": 5})

    assert any("INDEX yaotask_jobs_due (due_at>? AND due_at<?)" in step for step in steps)
    assert not any("TEMP B-TREE" in step for step in steps)


# --- lists -----------------------------------------------------------------------------------------

STATUSES = [None, "WAITING", "RUNNING", "SUCCESS", "PARTIAL", "FAILURE", "RETRYING", "CANCELLED", "IGNORED"]


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("task", ["mail", None])
@pytest.mark.parametrize("since", [None, START])
def test_a_page_is_never_sorted_out_of_the_whole_table(
    full: Bench, task: str | None, status: str | None, since: int | None
) -> None:
    wanted = reads.Filter(task=task, status=status, since=since)
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
        found = page(connection, reads.Filter(task="mail", status="FAILURE"))

    assert len(found) == 20
    assert "yaotask_jobs_unsuccessful (task=? AND state=?)" in plan(full, *seen[0])[0]


def test_deliveries_read_the_pending_index_in_its_order(full: Bench) -> None:
    steps = plan(full, full.store.dialect.select_deliveries, {"task": "mail", "now": START, "most": 5})

    assert any("yaotask_events_pending (task=? AND next_at<?)" in step for step in steps)
    assert any("SEARCH earlier USING INDEX yaotask_events_job" in step for step in steps)
    assert not any("TEMP B-TREE" in step for step in steps)
