"""The outbox: rows for what a job's task listens to, in order, each job one at a time; and the statistics."""

from __future__ import annotations

import json
from typing import Any

import pytest
from store_support import DONE, EVERY_EVENT, FAILED, Bench, an_add, retry_after

from yaotask.clock import SECOND
from yaotask.events import ADD_BIT, ERROR_BIT, RETRY_BIT, SUCCESS_BIT, Delivery, EventKind
from yaotask.jobs import Cancelled, Ignored, Interrupted, JobState, Outcome, Succeeded
from yaotask.store import presence, reaping

pytest_plugins = ["store_fixtures"]


def kinds(bench: Bench, id: int = 1) -> list[EventKind]:
    rows = bench.query("SELECT kind FROM yaotask_events WHERE id = :id ORDER BY seq", id=id)
    return [EventKind(row["kind"]) for row in rows]


def deliveries(bench: Bench, most: int = 10, *, tasks: tuple[str, ...] = ("mail",), worker: int = 1) -> list[Delivery]:
    return bench.cycle(worker=worker, deliveries=most, delivery_tasks=tasks).deliveries


def die(bench: Bench, worker: int = 1) -> None:
    bench.errand(lambda cycle: reaping.lose(cycle, worker, "its worker died"))


def settle(bench: Bench, delivered: list[Delivery], failed: Any = (), worker: int = 1) -> None:
    bench.errand(lambda cycle: cycle.settle(worker, delivered, failed))


def deliver_all(bench: Bench) -> list[EventKind]:
    """Deliver until nothing is left; what came, in its order."""
    seen: list[EventKind] = []
    while found := deliveries(bench):
        seen += [EventKind(delivery.kind) for delivery in found]
        settle(bench, found)
    return seen


# --- which rows there are --------------------------------------------------------------------------

ENDS: dict[EventKind, Outcome] = {
    EventKind.SUCCESS: DONE,
    EventKind.ERROR: FAILED,
    EventKind.RETRY: retry_after(2),
    EventKind.IGNORE: Ignored("no need"),
    EventKind.CANCEL: Cancelled(),
}
TOLD: dict[EventKind, Any] = {
    EventKind.SUCCESS: ["done"],
    EventKind.ERROR: [{"type": "ValueError", "message": "bad", "traceback": None}],
    EventKind.RETRY: [{"type": "ValueError", "message": "bad", "traceback": None}, 1, 2_000],
    EventKind.IGNORE: ["no need"],
    EventKind.CANCEL: [],
}


@pytest.mark.parametrize("kind", ENDS)
def test_an_end_is_told_where_the_job_listens_to_it(bench: Bench, kind: EventKind) -> None:
    bench.add(events=kind.bit)
    bench.finish(bench.claim_one(), ENDS[kind])

    assert kinds(bench) == [kind]
    assert json.loads(bench.value("SELECT data FROM yaotask_events")) == TOLD[kind]


@pytest.mark.parametrize("kind", ENDS)
def test_nothing_is_written_where_nobody_listens(bench: Bench, kind: EventKind) -> None:
    bench.add(events=EVERY_EVENT & ~kind.bit & ~ADD_BIT)
    bench.finish(bench.claim_one(), ENDS[kind])

    assert kinds(bench) == []


def test_an_event_that_is_put_off_is_charged_with_nothing_and_waits(bench: Bench) -> None:
    bench.add(2, events=ADD_BIT)
    one, other = deliveries(bench)
    later = bench.clock.now() + SECOND
    settle(bench, [], [(one, None, later), (other, None, later)])
    before = deliveries(bench, worker=2)
    bench.clock.advance(1)

    assert before == []
    assert deliveries(bench, worker=2) == [one, other]


def test_adds_and_cancels_are_told(bench: Bench) -> None:
    bench.add(events=EVERY_EVENT)
    bench.errand(lambda cycle: cycle.cancel("mail", 1))

    assert kinds(bench) == [EventKind.ADD, EventKind.CANCEL]


def test_giving_a_job_back_is_no_event(bench: Bench) -> None:
    bench.add(events=EVERY_EVENT & ~ADD_BIT)
    bench.finish(bench.claim_one(), Interrupted())

    assert kinds(bench) == []


def test_a_lost_claim_tells_nothing(bench: Bench) -> None:
    bench.add(events=SUCCESS_BIT)
    bench.finish(bench.claim_one()._replace(fence=9))

    assert kinds(bench) == []


# --- delivery --------------------------------------------------------------------------------------


def test_a_job_waits_for_its_own_add_event(bench: Bench) -> None:
    bench.add(events=ADD_BIT)
    early = bench.claim()
    settle(bench, deliveries(bench))

    assert early == []
    assert bench.claim_one().id == 1


def test_a_future_job_with_an_add_event_becomes_due_at_its_time(bench: Bench) -> None:
    bench.add(events=ADD_BIT, run_at=bench.clock.now() + 5 * SECOND)
    settle(bench, deliveries(bench))
    early = bench.claim()
    bench.clock.advance(5)

    assert early == []
    assert bench.claim_one().id == 1


def test_a_retry_waits_for_its_event(bench: Bench) -> None:
    bench.add(events=RETRY_BIT)
    bench.finish(bench.claim_one(), retry_after())
    early = bench.claim()
    settle(bench, deliveries(bench))

    assert early == []
    assert bench.claim_one().attempt == 2


def test_a_manual_retry_waits_for_the_events_of_the_last_round(bench: Bench) -> None:
    bench.add(events=ERROR_BIT)
    bench.finish(bench.claim_one(), FAILED)
    bench.errand(lambda cycle: cycle.retry("mail", 1))
    early = bench.claim()
    settle(bench, deliveries(bench))

    assert early == []
    assert bench.claim_one().generation == 1


def test_one_event_of_a_job_is_delivered_at_a_time_the_earliest_first(bench: Bench) -> None:
    bench.add(events=EVERY_EVENT)
    bench.errand(lambda cycle: cycle.cancel("mail", 1))
    first = deliveries(bench)
    meanwhile = deliveries(bench)
    settle(bench, first)
    second = deliveries(bench)

    assert [delivery.kind for delivery in (*first, *second)] == [EventKind.ADD, EventKind.CANCEL]
    assert meanwhile == []


def test_the_next_event_is_one_that_can_be_delivered(bench: Bench) -> None:
    bench.add(events=EVERY_EVENT)
    bench.errand(lambda cycle: cycle.cancel("mail", 1))
    first = bench.store.next_event(("mail",))
    given = deliveries(bench)
    meanwhile = bench.store.next_event(("mail",))
    settle(bench, given)

    assert first == bench.store.next_event(("mail",)) == bench.clock.now()
    assert meanwhile is None  # the second waits for the first, which is being delivered


def test_an_event_is_given_to_one_worker(bench: Bench) -> None:
    bench.adds(*[an_add(events=ADD_BIT) for _ in range(5)])
    ours, theirs = deliveries(bench, 3, worker=1), deliveries(bench, 3, worker=2)

    assert sorted(delivery.id for delivery in (*ours, *theirs)) == [1, 2, 3, 4, 5]


def test_only_events_of_the_named_tasks_are_given(bench: Bench) -> None:
    bench.adds(an_add(task="mail", events=ADD_BIT), an_add(task="video", events=ADD_BIT))

    assert [delivery.task for delivery in deliveries(bench, tasks=("video", "none"))] == ["video"]


def test_a_task_with_many_events_holds_up_no_other(bench: Bench) -> None:
    bench.adds(an_add(50, task="mail", events=ADD_BIT))
    bench.clock.advance(1)
    bench.adds(an_add(2, task="video", events=ADD_BIT))

    found = [delivery.task for delivery in deliveries(bench, 4, tasks=("mail", "video"))]
    assert sorted(found) == ["mail", "mail", "video", "video"]


def test_what_a_process_had_when_it_died_is_suspected_and_no_call_of_it_has_failed(bench: Bench) -> None:
    bench.adds(an_add(2, events=ADD_BIT))
    deliveries(bench)
    die(bench)
    bench.adds(an_add(events=ADD_BIT))

    assert [(one.id, one.deaths, one.tries) for one in deliveries(bench)] == [
        (1, True, 0),
        (2, True, 0),
        (3, False, 0),
    ]


@pytest.mark.parametrize("deaths", [0, 1])
def test_a_failed_call_says_whether_the_hook_is_still_suspected(bench: Bench, deaths: int) -> None:
    bench.adds(an_add(events=ADD_BIT))
    deliveries(bench)
    die(bench)
    (delivery,) = deliveries(bench)
    settle(bench, [], [(delivery._replace(deaths=deaths), "ValueError: bad", bench.clock.now())])

    assert [(one.deaths, one.tries) for one in deliveries(bench)] == [(deaths, 1)]


def test_an_event_that_too_many_processes_had_when_they_died_is_kept_and_its_job_goes_on(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.add(events=ADD_BIT)
    for _ in range(reaping.MOST_DEATHS - 1):
        assert deliveries(bench)
        die(bench)
    assert deliveries(bench)
    held = bench.claim()
    die(bench)

    assert held == []
    assert deliveries(bench) == []
    assert bench.query("SELECT state, tries, error FROM yaotask_events") == [
        {"state": 1, "tries": 0, "error": "WorkerLost: 20 processes died while they had the event"}
    ]
    assert bench.claim_one().id == 1
    assert "an event of mail.1 is kept" in caplog.text


def test_who_leaves_in_order_leaves_no_suspicion(bench: Bench) -> None:
    bench.adds(an_add(events=ADD_BIT))
    deliveries(bench)
    bench.errand(lambda cycle: presence.leave(cycle, 1))

    assert [one.deaths for one in deliveries(bench)] == [0]


def test_what_is_being_called_when_a_worker_leaves_is_suspected(bench: Bench) -> None:
    bench.adds(an_add(2, events=ADD_BIT))
    first, _ = deliveries(bench)
    bench.errand(lambda cycle: presence.leave(cycle, 1, [first.seq]))

    assert [one.deaths for one in deliveries(bench)] == [1, 0]


def test_events_of_a_worker_that_was_ended_are_suspected(bench: Bench) -> None:
    bench.adds(an_add(events=ADD_BIT))
    deliveries(bench)
    bench.errand(lambda cycle: presence.leave_or_bury(cycle, 1))

    assert [one.deaths for one in deliveries(bench)] == [1]


def test_a_failed_delivery_comes_again_at_its_time_and_holds_back_the_later_ones(bench: Bench) -> None:
    bench.add(events=EVERY_EVENT)
    bench.errand(lambda cycle: cycle.cancel("mail", 1))
    (first,) = deliveries(bench)
    settle(bench, [], [(first, "no answer", bench.clock.now() + SECOND)])
    early = deliveries(bench)
    bench.clock.advance(1)
    (again,) = deliveries(bench)

    assert early == []
    assert (again.seq, again.tries) == (first.seq, 1)


def test_a_job_goes_on_once_its_event_was_tried(bench: Bench) -> None:
    bench.add(events=ADD_BIT)
    (first,) = deliveries(bench)
    settle(bench, [], [(first, "no answer", bench.clock.now() + SECOND)])

    assert bench.claim_one().id == 1


def test_a_job_does_not_wait_for_an_event_that_is_stuck_behind_a_failing_one(bench: Bench) -> None:
    bench.add(events=ADD_BIT | RETRY_BIT)
    settle(bench, [], [(event, "no answer", bench.clock.now() + 60 * SECOND) for event in deliveries(bench)])
    bench.finish(bench.claim_one(), retry_after(0))

    assert kinds(bench) == [EventKind.ADD, EventKind.RETRY]
    assert bench.claim_one().attempt == 2


def test_a_manual_retry_does_not_wait_for_an_event_that_is_stuck_either(bench: Bench) -> None:
    bench.add(events=ADD_BIT | ERROR_BIT)
    settle(bench, [], [(event, "no answer", bench.clock.now() + 60 * SECOND) for event in deliveries(bench)])
    bench.finish(bench.claim_one(), FAILED)
    bench.errand(lambda cycle: cycle.retry("mail", 1))

    assert bench.claim_one().generation == 1


def test_an_event_that_failed_for_good_is_kept_to_be_seen_and_holds_back_nothing(bench: Bench) -> None:
    bench.add(events=ADD_BIT | SUCCESS_BIT)
    (first,) = deliveries(bench)
    settle(bench, [], [(first, "no answer", None)])
    bench.finish(bench.claim_one())

    assert [delivery.kind for delivery in deliveries(bench)] == [EventKind.SUCCESS]
    assert bench.query("SELECT state, tries, error FROM yaotask_events WHERE kind = 1") == [
        {"state": 1, "tries": 1, "error": "no answer"}
    ]


def test_a_delivery_that_was_taken_away_settles_nothing(bench: Bench) -> None:
    bench.add(events=ADD_BIT)
    given = deliveries(bench, worker=2)
    settle(bench, given, worker=1)

    assert kinds(bench) == [EventKind.ADD]


def test_events_of_a_whole_life_come_in_their_order(bench: Bench) -> None:
    bench.add(events=EVERY_EVENT)
    seen = deliver_all(bench)
    for outcome in (retry_after(), FAILED):
        bench.finish(bench.claim_one(), outcome)
        seen += deliver_all(bench)
    bench.errand(lambda cycle: cycle.retry("mail", 1))
    bench.finish(bench.claim_one())
    seen += deliver_all(bench)

    assert [kind.name for kind in seen] == ["ADD", "RETRY", "ERROR", "SUCCESS"]
    assert bench.state() is JobState.SUCCESS


# --- attempts and statistics ------------------------------------------------------------------------


def attempts(bench: Bench) -> list[tuple[int, str, int]]:
    rows = bench.query("SELECT attempt, outcome, worker FROM yaotask_attempts ORDER BY fence")
    return [(row["attempt"], row["outcome"], row["worker"]) for row in rows]


def test_a_first_success_leaves_no_row_of_its_try(bench: Bench) -> None:
    bench.add()
    bench.finish(bench.claim_one())

    assert attempts(bench) == []


def test_tries_are_recorded_with_their_worker(bench: Bench) -> None:
    bench.add()
    outcomes: list[Outcome] = [retry_after(), Interrupted(), FAILED]
    for worker, outcome in enumerate(outcomes, start=1):
        bench.finish(bench.claim_one(worker=worker), outcome, worker=worker)
    bench.errand(lambda cycle: cycle.retry("mail", 1))
    bench.finish(bench.claim_one(worker=4), retry_after(), worker=4)
    bench.finish(bench.claim_one(worker=5), worker=5)

    assert attempts(bench) == [(1, "retry", 1), (2, "failure", 3), (1, "retry", 4), (2, "success", 5)]


def test_ends_are_counted_by_minute_outcome_and_length(bench: Bench) -> None:
    bench.add(3)
    claims = bench.claim()
    now = bench.clock.now()
    ends: list[tuple[Outcome, int]] = [(Succeeded("1"), 5_000), (Succeeded("2"), 5_000), (FAILED, 0)]
    bench.cycle(
        finishes=[
            bench.end(claim, outcome)._replace(started=now + 100, ended=now + 100 + run)
            for claim, (outcome, run) in zip(claims, ends, strict=True)
        ]
    )

    assert bench.query("SELECT outcome, bucket, jobs, run_us, wait_us FROM yaotask_rollups ORDER BY outcome") == [
        {"outcome": 2, "bucket": 3, "jobs": 2, "run_us": 10_000, "wait_us": 200},
        {"outcome": 3, "bucket": 0, "jobs": 1, "run_us": 0, "wait_us": 100},
    ]


def test_neither_retries_nor_lost_claims_are_counted(bench: Bench) -> None:
    bench.add(2)
    retried, lost = bench.claim()
    bench.cycle(finishes=[bench.end(retried, retry_after()), bench.end(lost._replace(fence=9))])

    assert bench.query("SELECT * FROM yaotask_rollups") == []


def test_a_cancelled_job_is_counted_once(bench: Bench) -> None:
    bench.add()
    bench.errand(lambda cycle: cycle.cancel("mail", 1))

    assert bench.query("SELECT outcome, jobs, run_us FROM yaotask_rollups") == [{"outcome": 6, "jobs": 1, "run_us": 0}]
