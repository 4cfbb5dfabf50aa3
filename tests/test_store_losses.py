"""What is stored when the process that an attempt had to itself has died (T7, by the owner)."""

from __future__ import annotations

import pytest
from store_support import Bench

from yaotask.events import ERROR_BIT, RETRY_BIT, EventKind
from yaotask.jobs import Failure, JobState, Lost

pytest_plugins = ["store_fixtures"]

DEATH = Failure("WorkerLost", "its process ended by SIGSEGV while it ran the job")
LOST = Lost(DEATH)
POISONED = Lost(Failure("PoisonedJob", "3 processes died while they had the job"), poisoned=True)


def test_a_loss_is_no_try_and_the_job_is_ready_at_once(bench: Bench) -> None:
    bench.add_one()

    assert bench.finish(bench.claim_one(), LOST)
    row = bench.row()
    assert (row["state"], row["attempt"], row["losses"], row["deaths"]) == (JobState.RETRYING, 0, 1, 1)
    assert (row["error_type"], row["error"]) == (DEATH.type, DEATH.message)
    again = bench.claim_one()
    assert (again.attempt, again.losses) == (1, 1)


def test_a_poisoned_job_has_failed_in_the_try_that_it_had(bench: Bench) -> None:
    bench.add_one()

    assert bench.finish(bench.claim_one(), POISONED)
    row = bench.row()
    assert (row["state"], row["attempt"], row["losses"]) == (JobState.FAILURE, 1, 1)
    assert row["finished_at"] == bench.clock.now()
    assert bench.claim() == []


def test_a_loss_moves_the_fence_so_that_nothing_late_is_stored(bench: Bench) -> None:
    bench.add_one()
    claim = bench.claim_one()
    bench.finish(claim, LOST)

    assert not bench.finish(claim)
    assert bench.state() is JobState.RETRYING


def test_a_loss_whose_commit_was_in_doubt_is_known_again(bench: Bench) -> None:
    bench.add_one()
    claim = bench.claim_one()
    bench.finish(claim, LOST)

    assert bench.finish(claim, LOST)
    assert bench.row()["losses"] == 1


@pytest.mark.parametrize(("outcome", "word"), [(LOST, "lost"), (POISONED, "failure")])
def test_a_loss_is_recorded_among_the_tries(bench: Bench, outcome: Lost, word: str) -> None:
    bench.add_one()
    bench.finish(bench.claim_one(), outcome)
    (row,) = bench.query("SELECT * FROM yaotask_attempts")

    assert (row["attempt"], row["outcome"], row["worker"]) == (1, word, 1)
    assert (row["error_type"], row["error"]) == (outcome.failure.type, outcome.failure.message)


def test_a_job_whose_loss_is_told_waits_until_its_hook_was_tried(bench: Bench) -> None:
    bench.add_one(events=RETRY_BIT)
    bench.finish(bench.claim_one(), LOST)
    (event,) = bench.query("SELECT kind, data FROM yaotask_events")

    assert event["kind"] == EventKind.RETRY
    assert DEATH.message in event["data"]
    assert bench.claim() == []


def test_the_error_hook_is_told_of_a_poisoned_job(bench: Bench) -> None:
    bench.add_one(events=ERROR_BIT)
    bench.finish(bench.claim_one(), POISONED)

    assert bench.value("SELECT kind FROM yaotask_events") == EventKind.ERROR
