"""The table of transitions, row by row: what each changes, and what it refuses to change."""

from __future__ import annotations

from typing import Any

import pytest
from store_support import DONE, FAILED, Bench, an_add, answer, retry_after

from yaotask.clock import SECOND
from yaotask.errors import DuplicateJobId, QueueFull
from yaotask.jobs import Cancelled, Failed, Failure, Ignored, Interrupted, JobState, Outcome
from yaotask.store.protocol import Progress, Started

pytest_plugins = ["store_fixtures"]

OUTCOMES: dict[str, tuple[Outcome, JobState]] = {
    "T4 success": (DONE, JobState.SUCCESS),
    "T4 ignored": (Ignored("no need"), JobState.IGNORED),
    "T5 retry": (retry_after(5), JobState.RETRYING),
    "T6 failure": (FAILED, JobState.FAILURE),
    "T9 cancelled": (Cancelled(), JobState.CANCELLED),
    "T10 handed back": (Interrupted(), JobState.WAITING),
}


# --- T1 --------------------------------------------------------------------------------------------


def test_an_added_job_waits(bench: Bench) -> None:
    bench.add(args="[1]", priority=3, attempts=2, timeout=500, created_by="me")
    row = bench.row()

    assert bench.state() is JobState.WAITING
    assert (row["args"], row["priority"], row["attempts"], row["timeout"], row["created_by"]) == (
        "[1]",
        3,
        2,
        500,
        "me",
    )
    assert (row["created_at"], row["run_at"], row["attempt"], row["fence"]) == (
        bench.clock.now(),
        bench.clock.now(),
        0,
        0,
    )


def test_an_id_that_is_taken_is_refused_and_never_overwrites(bench: Bench) -> None:
    bench.add(id=7, args="[1]")

    with pytest.raises(DuplicateJobId, match=r"mail\.7"):
        bench.add(id=7, args="[2]")
    assert bench.row(7)["args"] == "[1]"


def test_two_tasks_may_use_one_id(bench: Bench) -> None:
    tickets = bench.adds(an_add(task="mail", id=7), an_add(task="video", id=7))

    assert [answer(ticket) for ticket in tickets] == [[7], [7]]


def test_a_bulk_add_with_a_taken_id_stores_nothing(bench: Bench) -> None:
    bench.add(id=7)
    add = an_add(3, size=10)
    add.jobs[1] = add.jobs[1]._replace(id=7)
    (ticket,) = bench.adds(add)

    with pytest.raises(DuplicateJobId):
        answer(ticket)
    assert bench.value("SELECT count(*) FROM yaotask_jobs") == 1
    assert bench.waiting() == 0


def test_a_full_queue_refuses_and_says_which_jobs_fitted(bench: Bench) -> None:
    with pytest.raises(QueueFull) as refused:
        bench.add(3, size=2)

    assert refused.value.ids == [1, 2]
    assert bench.waiting() == 2


# --- T2 --------------------------------------------------------------------------------------------


def test_a_claim_is_an_attempt_with_a_fence_of_its_own(bench: Bench) -> None:
    bench.add()
    claim = bench.claim_one(worker=5)
    row = bench.row()

    assert (claim.attempt, claim.claimed_at) == (1, bench.clock.now())
    assert (row["state"], row["attempt"], row["worker"], row["started_at"]) == (1, 1, 5, None)
    assert row["fence"] == claim.fence > 0


@pytest.mark.parametrize("moved", [0.01, -0.01], ids=["later", "by a clock that is behind"])
@pytest.mark.parametrize("job", ["kept", "lost"])
def test_a_claim_that_a_server_has_lost_ends_nothing_that_others_have(bench: Bench, job: str, moved: float) -> None:
    """As after a change to a replica that lacked the claim, or the job as well, whose key another one gets then."""
    bench.add()
    for rule in ("only_ended_jobs", "only_known_changes"):
        bench.release(rule)
    lost = bench.claim_one(worker=5)
    if job == "lost":
        bench.write("DELETE FROM yaotask_jobs")
        bench.add()
    before = "state = 0, fence = 0, attempt = 0, worker = NULL, ready_at = 1"
    bench.write(f"UPDATE yaotask_jobs SET {before}, key = :key", key=lost.key)  # noqa: S608
    bench.clock.wall += round(moved * SECOND)
    (found,) = bench.claim(worker=5)

    assert found.key == lost.key
    assert not bench.finish(lost)
    assert bench.state(found.id) is JobState.RUNNING


def test_each_claim_has_a_higher_fence_although_the_clock_goes_back(bench: Bench) -> None:
    bench.add()
    fences = []
    for _ in range(3):
        claim = bench.claim_one()
        fences.append(claim.fence)
        bench.finish(claim, retry_after())
        bench.clock.wall -= 60 * SECOND
        bench.write("UPDATE yaotask_jobs SET ready_at = 1, due_at = NULL")

    assert fences == [fences[0], fences[0] + 1, fences[0] + 2]


def test_each_try_counts_anew(bench: Bench) -> None:
    bench.add()
    claim = bench.claim_one()
    counts = {"success_count": 1, "fail_count": 2, "ignored_count": 3}
    bench.cycle(progress=[Progress(claim.key, claim.fence, 42, counts)], finishes=[bench.end(claim, Interrupted())])
    counted = bench.row()
    bench.claim_one()
    row = bench.row()

    assert {name: counted[name] for name in counts} == counts
    assert [row[name] for name in counts] == [0, 0, 0]


def test_a_job_is_claimed_once(bench: Bench) -> None:
    bench.add()
    bench.claim_one(worker=1)

    assert bench.claim(worker=2) == []


def test_a_future_job_is_not_claimed_before_its_time(bench: Bench) -> None:
    bench.add(run_at=bench.clock.now() + 10 * SECOND)
    early = bench.claim()
    bench.clock.advance(10)

    assert early == []
    assert bench.claim_one().id == 1


# --- T3 --------------------------------------------------------------------------------------------


def test_progress_of_the_owner_is_stored_and_shows_the_job_as_started(bench: Bench) -> None:
    bench.add()
    claim = bench.claim_one()
    bench.cycle(progress=[Progress(claim.key, claim.fence, 42, {"current": 1, "total": 2, "message": "half"})])
    row = bench.row()

    assert (row["current"], row["total"], row["message"], row["started_at"]) == (1, 2, "half", 42)


def test_the_latest_progress_counts_and_what_it_leaves_out_stays(bench: Bench) -> None:
    bench.add()
    claim = bench.claim_one()
    notes: list[dict[str, Any]] = [{"current": 1, "message": "one"}, {"current": 2}]
    bench.cycle(progress=[Progress(claim.key, claim.fence, 42, note) for note in notes])

    assert (bench.row()["current"], bench.row()["message"]) == (2, "one")


def test_progress_with_a_stale_fence_is_reported_as_lost(bench: Bench) -> None:
    bench.add()
    claim = bench.claim_one()
    harvest = bench.cycle(progress=[Progress(claim.key, claim.fence - 1, 42, {"current": 1})])

    assert harvest.lost == [(claim.key, claim.fence - 1)]
    assert bench.row()["current"] is None


def test_progress_from_outside_needs_no_fence_but_a_running_job(bench: Bench) -> None:
    bench.add()
    claim = bench.claim_one()
    outside = Progress(claim.key, None, bench.clock.now(), {"current": 1})
    bench.cycle(progress=[outside])
    bench.finish(claim)
    bench.cycle(progress=[outside._replace(changes={"current": 9})])

    assert bench.row()["current"] == 1


def test_a_start_is_stored_once_and_for_the_current_fence_only(bench: Bench) -> None:
    bench.add()
    claim = bench.claim_one()
    bench.cycle(started=[Started(claim.key, claim.fence - 1, 41)])
    unfenced = bench.row()["started_at"]
    bench.cycle(started=[Started(claim.key, claim.fence, 42)])
    bench.cycle(started=[Started(claim.key, claim.fence, 43)])

    assert unfenced is None
    assert bench.row()["started_at"] == 42


# --- T4, T5, T6, T9, T10: the ends of an attempt ----------------------------------------------------


@pytest.mark.parametrize("name", OUTCOMES)
def test_an_attempt_ends_as_its_outcome_says(bench: Bench, name: str) -> None:
    outcome, state = OUTCOMES[name]
    bench.add()

    assert bench.finish(bench.claim_one(), outcome)
    assert bench.state() is state


@pytest.mark.parametrize("name", OUTCOMES)
def test_a_stale_fence_ends_nothing(bench: Bench, name: str) -> None:
    bench.add()
    claim = bench.claim_one()
    before = bench.row()
    harvest = bench.cycle(finishes=[bench.end(claim._replace(fence=9), OUTCOMES[name][0])])

    assert harvest.lost == [(claim.key, 9)]
    assert bench.row() == before


@pytest.mark.parametrize("name", OUTCOMES)
@pytest.mark.parametrize("first", OUTCOMES)
def test_an_attempt_ends_only_once(bench: Bench, first: str, name: str) -> None:
    bench.add()
    claim = bench.claim_one()
    bench.finish(claim, OUTCOMES[first][0])
    before = bench.row()
    bench.clock.advance(1)
    bench.finish(claim, OUTCOMES[name][0])

    assert bench.row() == before


def test_a_success_keeps_its_result_and_its_times(bench: Bench) -> None:
    bench.add()
    claim = bench.claim_one()
    bench.cycle(finishes=[bench.end(claim)._replace(started=40, ended=42)])
    row = bench.row()

    assert (row["result"], row["started_at"], row["finished_at"], row["worker"]) == ('"done"', 40, 42, None)


def test_a_retry_waits_for_its_time_and_is_the_next_attempt(bench: Bench) -> None:
    bench.add()
    first = bench.claim_one()
    bench.finish(first, retry_after(5))
    early = bench.claim()
    bench.clock.advance(5)
    claim = bench.claim_one()

    assert early == []
    assert claim.attempt == 2
    assert claim.fence > first.fence


def test_a_success_leaves_no_error_of_the_tries_before(bench: Bench) -> None:
    bench.add()
    bench.finish(bench.claim_one(), retry_after())
    failed = bench.row()["error"]
    bench.finish(bench.claim_one())

    assert (failed, bench.row()["error"]) == ("bad", None)


def test_a_failure_keeps_its_error_and_the_result_given_along(bench: Bench) -> None:
    bench.add()
    bench.finish(bench.claim_one(), Failed(Failure("ValueError", "bad", "line 1"), '{"a": 1}'))
    row = bench.row()

    assert (row["error_type"], row["error"], row["traceback"], row["result"]) == (
        "ValueError",
        "bad",
        "line 1",
        '{"a": 1}',
    )


def test_a_claim_given_back_does_not_count_and_keeps_its_place(bench: Bench) -> None:
    bench.add(2)
    first, _ = bench.claim(2)
    bench.clock.advance(1)
    bench.add()
    bench.finish(first, Interrupted())
    again = bench.claim_one()

    assert (again.id, again.attempt) == (1, 1)
    assert again.fence > first.fence


def test_a_retry_given_back_is_retrying_again(bench: Bench) -> None:
    bench.add()
    bench.finish(bench.claim_one(), retry_after())
    bench.finish(bench.claim_one(), Interrupted())

    assert bench.state() is JobState.RETRYING
    assert bench.row()["attempt"] == 1
