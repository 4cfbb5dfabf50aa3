"""Lists of the jobs of one state, which not every database finds in the same way."""

from __future__ import annotations

import pytest
from store_support import FAILED, START, Bench, retry_after

from yaotask.jobs import Outcome
from yaotask.store import reads

pytest_plugins = ["store_fixtures"]

TASKS = ("mail", "video", "mail")


def end_all(bench: Bench, outcome: Outcome) -> None:
    """Each task has jobs with this end, and one that waits; the video came between the mails."""
    for task in TASKS:
        bench.add(task=task)
        bench.finish(bench.claim_one(task=task), outcome)
    for task in set(TASKS):
        bench.add(task=task, run_at=START * 2)


@pytest.mark.parametrize(("outcome", "status"), [(FAILED, "FAILURE"), (retry_after(60), "RETRYING")])
@pytest.mark.parametrize("since", [None, START])
def test_the_jobs_of_a_state_are_found_in_every_task(
    bench: Bench, outcome: Outcome, status: str, since: int | None
) -> None:
    end_all(bench, outcome)
    of_all = reads.Filter(statuses=(status,), since=since)
    of_one = reads.Filter(statuses=(status,), since=since, task="mail")

    with bench.store.reading() as connection:
        assert [row["task"] for row in reads.page(connection, of_all, 10)] == ["mail", "video", "mail"]
        assert [row["id"] for row in reads.page(connection, of_one, 10)] == [2, 1]
        assert [row["id"] for row in reads.page(connection, of_one, 1, offset=1)] == [1]
        assert reads.count(connection, of_all) == 3
        assert reads.count(connection, of_one) == 2


def test_an_empty_store_has_jobs_of_no_state(bench: Bench) -> None:
    wanted = reads.Filter(statuses=("FAILURE",))

    with bench.store.reading() as connection:
        assert reads.page(connection, wanted, 10) == []
        assert reads.count(connection, wanted) == 0
