"""What users ask of a job that waits or has ended (T8, T11), and the trigger that watches over these tests."""

from __future__ import annotations

import pytest
from sqlalchemy.exc import IntegrityError
from store_support import DONE, EVERY_EVENT, FAILED, Bench, retry_after

from yaotask.clock import SECOND
from yaotask.errors import AlreadyFinished, JobNotFound, WrongState
from yaotask.jobs import Ignored, JobState, Outcome
from yaotask.store.protocol import Progress

pytest_plugins = ["store_fixtures"]


def test_a_waiting_job_can_be_cancelled(bench: Bench) -> None:
    bench.add(size=5)
    bench.errand(lambda cycle: cycle.cancel("mail", 1))

    assert bench.state() is JobState.CANCELLED
    assert bench.claim() == []
    assert bench.waiting() == 0


def test_a_future_job_can_be_cancelled(bench: Bench) -> None:
    bench.add(run_at=bench.clock.now() + SECOND)
    bench.errand(lambda cycle: cycle.cancel("mail", 1))
    bench.clock.advance(2)

    assert bench.claim() == []


def test_a_retrying_job_can_be_cancelled(bench: Bench) -> None:
    bench.add()
    bench.finish(bench.claim_one(), retry_after(5))
    bench.errand(lambda cycle: cycle.cancel("mail", 1))

    assert bench.state() is JobState.CANCELLED
    assert bench.row()["attempt"] == 1


def test_a_claim_that_was_not_started_can_be_cancelled_and_is_then_lost(bench: Bench) -> None:
    bench.add(size=5)
    claim = bench.claim_one()
    bench.errand(lambda cycle: cycle.cancel("mail", 1))

    assert bench.state() is JobState.CANCELLED
    assert bench.row()["attempt"] == 0
    assert not bench.finish(claim)


def test_what_has_ended_cannot_be_cancelled(bench: Bench) -> None:
    bench.add()
    bench.finish(bench.claim_one())

    with pytest.raises(AlreadyFinished, match="SUCCESS"):
        bench.errand(lambda cycle: cycle.cancel("mail", 1))


def test_a_job_that_is_not_there_can_be_neither_cancelled_nor_retried(bench: Bench) -> None:
    with pytest.raises(JobNotFound, match=r"mail\.9"):
        bench.errand(lambda cycle: cycle.cancel("mail", 9))
    with pytest.raises(JobNotFound, match=r"mail\.9"):
        bench.errand(lambda cycle: cycle.retry("mail", 9))


# --- T11 -------------------------------------------------------------------------------------------


def test_a_failure_goes_round_again_as_a_new_generation(bench: Bench) -> None:
    bench.add()
    claim = bench.claim_one()
    bench.cycle(progress=[Progress(claim.key, claim.fence, 42, {"current": 1, "message": "half"})])
    bench.finish(claim, FAILED)
    bench.errand(lambda cycle: cycle.retry("mail", 1))
    row = bench.row()
    again = bench.claim_one()

    assert (row["state"], row["generation"], row["attempt"], row["current"], row["error"]) == (0, 1, 0, None, None)
    assert (again.generation, again.attempt) == (1, 1)
    assert again.fence > claim.fence


def test_a_cancelled_job_can_be_retried(bench: Bench) -> None:
    bench.add(size=1)
    bench.errand(lambda cycle: cycle.cancel("mail", 1))
    bench.errand(lambda cycle: cycle.retry("mail", 1))

    assert bench.claim_one().generation == 1
    assert bench.waiting() == 0


def test_a_failure_can_be_given_up(bench: Bench) -> None:
    bench.add()
    bench.finish(bench.claim_one(), FAILED)
    bench.errand(lambda cycle: cycle.cancel("mail", 1))

    assert bench.state() is JobState.CANCELLED
    assert bench.row()["generation"] == 1


@pytest.mark.parametrize("outcome", [DONE, Ignored("no need")])
def test_neither_success_nor_ignored_goes_round_again(bench: Bench, outcome: Outcome) -> None:
    bench.add()
    bench.finish(bench.claim_one(), outcome)

    with pytest.raises(WrongState):
        bench.errand(lambda cycle: cycle.retry("mail", 1))


def test_a_job_that_has_not_ended_cannot_be_retried(bench: Bench) -> None:
    bench.add()

    with pytest.raises(WrongState, match="WAITING"):
        bench.errand(lambda cycle: cycle.retry("mail", 1))


def test_an_attempt_of_an_earlier_generation_ends_nothing(bench: Bench) -> None:
    bench.add()
    stale = bench.claim_one()
    bench.finish(stale, FAILED)
    bench.errand(lambda cycle: cycle.retry("mail", 1))
    bench.claim_one()

    assert not bench.finish(stale)
    assert bench.state() is JobState.RUNNING


# --- the trigger of the tests itself -----------------------------------------------------------------

FORBIDDEN = {
    "success without a claim": "UPDATE yaotask_jobs SET state = 2",
    "a fence that goes back": "UPDATE yaotask_jobs SET fence = -1",
    "another generation": "UPDATE yaotask_jobs SET generation = 1",
    "an attempt without a claim": "UPDATE yaotask_jobs SET attempt = 1",
    "a claim without a new fence": "UPDATE yaotask_jobs SET state = 1, attempt = 1, worker = 1",
    "a job that vanishes": "DELETE FROM yaotask_jobs",
}


@pytest.mark.parametrize("name", FORBIDDEN)
def test_every_other_change_is_refused(bench: Bench, name: str) -> None:
    bench.add()

    with pytest.raises(IntegrityError):
        bench.write(FORBIDDEN[name])


ENDED_ANEW = [
    "UPDATE yaotask_jobs SET result = '1'",
    "UPDATE yaotask_jobs SET finished_at = 1",
    "UPDATE yaotask_jobs SET state = 3",
    "UPDATE yaotask_jobs SET state = 0, attempt = 0",
]


@pytest.mark.parametrize("change", ENDED_ANEW)
def test_what_has_ended_never_changes(bench: Bench, change: str) -> None:
    bench.add()
    bench.finish(bench.claim_one())

    with pytest.raises(IntegrityError):
        bench.write(change)


def test_an_event_mask_changes_no_transition(bench: Bench) -> None:
    bench.add(events=EVERY_EVENT & ~2)

    assert bench.finish(bench.claim_one())
