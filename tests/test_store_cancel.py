"""Cancelling a claim that runs (T9): what is stored of the request, and every race with its end, by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from store_support import DONE, EVERY_EVENT, FAILED, Bench, retry_after

from yaotask.errors import AlreadyFinished, OutcomeUnknown
from yaotask.events import ADD_BIT, CANCEL_BIT, EventKind
from yaotask.jobs import Cancelled, Claim, Failure, Ignored, Interrupted, JobState, Lost, Outcome
from yaotask.store import presence
from yaotask.store.protocol import Finish, Mailbox, Progress, Started
from yaotask.store.transactions import Transaction

pytest_plugins = ["store_fixtures"]

OTHER_ENDS: dict[str, Outcome] = {
    "retry": retry_after(),
    "retry later": retry_after(5),
    "failure": FAILED,
    "ignored": Ignored("no need"),
    "handed back": Interrupted(),
    "lost": Lost(Failure("WorkerLost", "died")),
    "poisoned": Lost(Failure("PoisonedJob", "died"), poisoned=True),
    "cancelled": Cancelled(),
}


def start(bench: Bench, claim: Claim) -> None:
    bench.cycle(started=[Started(claim.key, claim.fence, bench.clock.now())])


def cancel(bench: Bench, id: int = 1) -> JobState:
    state: JobState = bench.errand(lambda cycle: cycle.cancel("mail", id))
    return state


def events(bench: Bench) -> list[EventKind]:
    return [EventKind(row["kind"]) for row in bench.query("SELECT kind FROM yaotask_events ORDER BY seq")]


@pytest.fixture
def running(bench: Bench) -> Claim:
    """The claim of a job that has started, and listens to what ends a try."""
    bench.add(events=EVERY_EVENT & ~ADD_BIT)
    claim = bench.claim_one()
    start(bench, claim)
    return claim


# --- the request ------------------------------------------------------------------------------------------


def test_a_running_job_is_asked_to_stop_and_runs_on(bench: Bench, running: Claim) -> None:
    state = cancel(bench)
    row = bench.row()

    assert state is JobState.RUNNING
    assert (row["state"], row["fence"], row["worker"]) == (1, running.fence, 1)
    assert row["cancel_at"] == bench.clock.now()
    assert events(bench) == []


def test_asking_twice_changes_nothing(bench: Bench, running: Claim) -> None:
    cancel(bench)
    before = bench.row()
    bench.clock.advance(1)

    assert cancel(bench) is JobState.RUNNING
    assert bench.row() == before


def test_the_worker_of_the_claim_finds_the_request_until_it_has_ended(bench: Bench, running: Claim) -> None:
    assert bench.store.cancels_of(1) == []
    cancel(bench)

    assert bench.store.cancels_of(1) == [("mail", running.key, running.fence)]
    assert bench.store.cancels_of(2) == []

    bench.finish(running, Cancelled())

    assert bench.store.cancels_of(1) == []


def test_a_cycle_says_that_it_asked_somebody_to_stop(bench: Bench, running: Claim) -> None:
    asked: list[bool] = []

    def ask(cycle: Any) -> None:
        cycle.cancel("mail", 1)
        asked.append(cycle.harvest.asked_to_stop)

    bench.errand(ask)
    bench.errand(ask)

    assert asked == [True, False]


def test_a_claim_that_was_not_shown_as_running_is_cancelled_at_once_and_its_worker_hears_of_it(bench: Bench) -> None:
    bench.add()
    claim = bench.claim_one()

    assert cancel(bench) is JobState.CANCELLED
    harvest = bench.cycle(worker=1, started=[Started(claim.key, claim.fence, bench.clock.now())])
    assert (harvest.outrun, harvest.lost) == ([(claim.key, claim.fence)], [])


def test_a_claim_that_ended_before_it_was_to_be_shown_is_not_outrun(bench: Bench) -> None:
    bench.add(2)
    ended, talkative = bench.claim()
    bench.finish(ended, retry_after(5))
    bench.cycle(progress=[Progress(talkative.key, talkative.fence, bench.clock.now(), {"current": 1})])
    harvest = bench.cycle(started=[Started(claim.key, claim.fence, bench.clock.now()) for claim in (ended, talkative)])

    assert harvest.outrun == []


# --- the end ----------------------------------------------------------------------------------------------


def test_success_wins(bench: Bench, running: Claim) -> None:
    cancel(bench)

    assert bench.finish(running, DONE)
    assert bench.state() is JobState.SUCCESS
    assert events(bench) == [EventKind.SUCCESS]
    with pytest.raises(AlreadyFinished):
        cancel(bench)


@pytest.mark.parametrize("outcome", OTHER_ENDS.values(), ids=OTHER_ENDS)
def test_every_other_end_becomes_a_cancellation_though_its_worker_had_not_heard(
    bench: Bench, running: Claim, outcome: Outcome
) -> None:
    cancel(bench)
    mailbox = Mailbox(worker=1, finishes=[bench.end(running, outcome)])
    harvest = bench.store.run_cycle(mailbox)
    row = bench.row()
    (attempt,) = bench.query("SELECT outcome, fence, error FROM yaotask_attempts")

    assert (row["state"], row["fence"], row["attempt"], row["error"]) == (6, running.fence, 1, None)
    assert (row["losses"], row["deaths"], row["due_at"]) == (0, 0, None)
    assert attempt == {"outcome": "cancelled", "fence": running.fence, "error": None}
    assert events(bench) == [EventKind.CANCEL]
    assert bench.query("SELECT outcome, jobs FROM yaotask_rollups") == [{"outcome": 6, "jobs": 1}]
    # So that the ledger counts, and tells, what was stored.
    assert (mailbox.finishes[0].outcome, harvest.lost) == (Cancelled(), [])


def test_the_others_of_its_mailbox_end_as_they_would(bench: Bench) -> None:
    bench.add(4)
    claims = bench.claim()
    for claim in claims:
        start(bench, claim)
    cancel(bench, claims[1].id)
    outcomes: list[Outcome] = [DONE, FAILED, FAILED, retry_after()]
    bench.cycle(worker=1, finishes=[bench.end(claim, outcome) for claim, outcome in zip(claims, outcomes, strict=True)])

    assert [bench.state(id).name for id in range(1, 5)] == ["SUCCESS", "CANCELLED", "FAILURE", "RETRYING"]


def test_an_end_that_came_before_the_cancel_stands(bench: Bench, running: Claim) -> None:
    bench.finish(running, FAILED)

    assert cancel(bench) is JobState.CANCELLED
    assert bench.row()["generation"] == 1


def test_the_cancel_of_a_claim_that_was_lost_goes_to_its_new_owner(bench: Bench) -> None:
    bench.add()
    stale = bench.claim_one()
    bench.errand(lambda cycle: presence.reap(cycle, 99))
    (fresh,) = bench.claim(worker=2)
    start(bench, fresh)
    cancel(bench)

    assert not bench.finish(stale, Cancelled())
    assert bench.store.cancels_of(1) == []
    assert bench.store.cancels_of(2) == [("mail", fresh.key, fresh.fence)]
    assert bench.finish(fresh, Cancelled(), worker=2)


def test_an_end_whose_commit_was_in_doubt_is_known_again(bench: Bench, running: Claim) -> None:
    cancel(bench)
    mailbox = Mailbox(worker=1, finishes=[bench.end(running, FAILED)])
    bench.store.run_cycle(mailbox)
    again = bench.store.run_cycle(Mailbox(worker=1, finishes=list(mailbox.finishes)))

    assert again.lost == []
    assert events(bench) == [EventKind.CANCEL]


def test_a_job_that_is_retried_after_its_cancellation_is_not_asked_to_stop(bench: Bench, running: Claim) -> None:
    cancel(bench)
    bench.finish(running, Cancelled())
    bench.write("DELETE FROM yaotask_events")
    bench.errand(lambda cycle: cycle.retry("mail", 1))
    claim = bench.claim_one()

    assert bench.row()["cancel_at"] is None
    assert bench.finish(claim, FAILED)
    assert bench.state() is JobState.FAILURE


def test_what_a_cycle_in_doubt_had_claimed_is_ended_where_it_was_asked_to_stop(
    bench: Bench, open_bench: Callable[[], Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.add(2, events=CANCEL_BIT)
    claim_in_doubt(bench, monkeypatch)
    other = open_bench()
    # From outside, which shows the claim as running although nobody runs it.
    other.errand(lambda cycle: cycle.report("mail", 1, {"current": 1}))
    cancel(other)
    bench.cycle(worker=1)

    assert (bench.state(1), bench.state(2)) == (JobState.CANCELLED, JobState.WAITING)
    assert events(bench) == [EventKind.CANCEL]


def claim_in_doubt(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A claim that is stored, but whose cycle could not be sure of that."""
    write = bench.store.write

    def doubtful(work: Callable[[Any], Any]) -> Any:
        write(work)
        raise OutcomeUnknown("who knows")

    with monkeypatch.context() as patch, pytest.raises(OutcomeUnknown):
        patch.setattr(bench.store, "write", doubtful)
        patch.setattr(bench.store, "_was_stored", lambda *cycle: False)
        bench.claim()


# --- in the transaction of the job -------------------------------------------------------------------------


def test_the_transaction_of_a_job_that_succeeds_wins(bench: Bench, transaction: Transaction, claim: Claim) -> None:
    transaction.rollback()
    start(bench, claim)
    cancel(bench)
    again = bench.store.transaction()
    now = bench.clock.now()

    assert again.finish(Finish(claim, DONE, now, now))
    assert bench.state() is JobState.SUCCESS
