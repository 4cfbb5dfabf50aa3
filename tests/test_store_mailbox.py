"""One mailbox is one transaction, and a request that does not fit holds up no other."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from store_support import DONE, FAILED, Bench, an_add, answer, retry_after

from yaotask.errors import DuplicateJobId, QueueFull, WrongState
from yaotask.jobs import JobState, Outcome, Succeeded
from yaotask.store.protocol import Errand, Progress, Ticket

pytest_plugins = ["store_fixtures"]


def test_a_lost_finish_holds_up_none_of_the_others(bench: Bench) -> None:
    bench.add(5)
    claims = bench.claim()
    outcomes: list[Outcome] = [DONE, DONE, FAILED, retry_after(1), DONE]
    finishes = [bench.end(claim, outcome) for claim, outcome in zip(claims, outcomes, strict=True)]
    finishes[1] = finishes[1]._replace(claim=claims[1]._replace(fence=9))
    harvest = bench.cycle(finishes=finishes, adds=[an_add()])

    assert harvest.lost == [(claims[1].key, 9)]
    assert [bench.state(id).name for id in range(1, 7)] == [
        "SUCCESS",
        "RUNNING",
        "FAILURE",
        "RETRYING",
        "SUCCESS",
        "WAITING",
    ]


def test_a_lost_failure_holds_up_none_of_the_others(bench: Bench) -> None:
    bench.add(2)
    lost, kept = bench.claim()
    harvest = bench.cycle(finishes=[bench.end(lost._replace(fence=9), FAILED), bench.end(kept)])

    assert harvest.lost == [(lost.key, 9)]
    assert bench.state(2) is JobState.SUCCESS


def test_one_poisoned_add_among_a_hundred_gets_its_error_alone(bench: Bench) -> None:
    bench.add(id=5_000)
    adds = [an_add(size=1_000) for _ in range(100)]
    adds[40] = an_add(size=1_000, id=5_000)
    tickets = bench.adds(*adds)

    assert isinstance(tickets.pop(40).error, DuplicateJobId)
    assert len({answer(ticket)[0] for ticket in tickets}) == 99
    assert bench.waiting() == 99


def test_a_poisoned_add_holds_up_no_finish(bench: Bench) -> None:
    bench.add(id=7)
    claim = bench.claim_one()
    poisoned = an_add(id=7)
    harvest = bench.cycle(worker=1, finishes=[bench.end(claim)], adds=[poisoned, an_add()], demands={"mail": 1})

    assert isinstance(poisoned.ticket.error, DuplicateJobId)
    assert bench.state(7) is JobState.SUCCESS
    assert len(harvest.claims["mail"]) == 1


def test_adds_of_one_task_share_the_room_in_order(bench: Bench) -> None:
    first, second, third = bench.adds(an_add(2, size=3), an_add(2, size=3), an_add(1, size=3))

    assert answer(first) == [1, 2]
    assert isinstance(second.error, QueueFull)
    assert second.error.ids == [3]
    assert isinstance(third.error, QueueFull)


def test_a_finish_whose_commit_was_in_doubt_is_recognised(bench: Bench) -> None:
    bench.add(2)
    done, failed = bench.claim()
    finishes = [bench.end(done), bench.end(failed, FAILED)]
    bench.cycle(finishes=finishes)
    harvest = bench.cycle(finishes=finishes)

    assert harvest.lost == []
    assert bench.value("SELECT sum(jobs) FROM yaotask_rollups") == 2


@pytest.mark.parametrize("outcome", [FAILED, retry_after()])
def test_a_finish_in_doubt_is_recognised_when_the_job_has_gone_on(bench: Bench, outcome: Outcome) -> None:
    bench.add()
    end = bench.end(bench.claim_one(), outcome)
    bench.cycle(finishes=[end])
    if outcome is FAILED:
        bench.errand(lambda cycle: cycle.retry("mail", 1))
    bench.claim_one(worker=2)
    harvest = bench.cycle(finishes=[end])

    assert harvest.lost == []
    assert bench.row()["worker"] == 2


def test_the_same_end_at_another_time_is_another_end(bench: Bench) -> None:
    bench.add()
    claim = bench.claim_one()
    bench.finish(claim, FAILED)
    bench.clock.advance(1)

    assert not bench.finish(claim, FAILED)


def test_another_end_of_the_same_attempt_is_not_taken_for_it(bench: Bench) -> None:
    bench.add()
    claim = bench.claim_one()
    bench.finish(claim, FAILED)

    assert not bench.finish(claim, DONE)


def test_the_last_progress_of_a_job_that_ends_in_the_same_cycle_is_kept(bench: Bench) -> None:
    bench.add()
    claim = bench.claim_one()
    note = Progress(claim.key, claim.fence, bench.clock.now(), {"current": 9})
    bench.cycle(progress=[note], finishes=[bench.end(claim)])

    assert (bench.state(), bench.row()["current"]) == (JobState.SUCCESS, 9)


def test_a_job_is_claimed_in_the_transaction_that_stores_it(bench: Bench) -> None:
    add = an_add(2, size=5)
    harvest = bench.cycle(worker=1, adds=[add], demands={"mail": 10})

    assert [claim.id for claim in harvest.claims["mail"]] == answer(add.ticket) == [1, 2]
    assert bench.waiting() == 0


def test_a_slot_is_filled_again_in_the_transaction_that_frees_it(bench: Bench) -> None:
    bench.add(2)
    claim = bench.claim_one()
    harvest = bench.cycle(worker=1, finishes=[bench.end(claim)], demands={"mail": 1})

    assert [claim.id for claim in harvest.claims["mail"]] == [2]


def test_no_ticket_is_answered_before_the_commit(bench: Bench) -> None:
    seen: list[int] = []
    add = an_add()
    add.ticket.settle = lambda: seen.append(bench.value("SELECT count(*) FROM yaotask_jobs"))
    bench.cycle(adds=[add])

    assert seen == [1]


def test_an_errand_that_is_refused_gets_its_error_and_the_rest_lands(bench: Bench) -> None:
    bench.add()
    refused = Ticket()
    add = an_add()
    bench.cycle(errands=[Errand(lambda cycle: cycle.retry("mail", 1), refused)], adds=[add])

    assert isinstance(refused.error, WrongState)
    assert answer(add.ticket) == [2]


def test_an_errand_can_add(bench: Bench) -> None:
    bench.add(2)

    assert bench.errand(lambda cycle: cycle.add(an_add(2, size=9))) == [3, 4]
    assert bench.waiting() == 2


def test_an_errand_that_adds_too_much_is_told(bench: Bench) -> None:
    with pytest.raises(QueueFull) as refused:
        bench.errand(lambda cycle: cycle.add(an_add(3, size=2)))

    assert refused.value.ids == [1, 2]
    assert bench.waiting() == 2


def test_finishes_of_any_order_land_on_their_own_jobs(bench: Bench) -> None:
    bench.add(50)
    claims = bench.claim(50)
    results = [bench.end(claim, Succeeded(str(claim.id))) for claim in reversed(claims)]
    bench.cycle(finishes=results)

    rows = bench.query("SELECT id, result FROM yaotask_jobs WHERE state = 2 ORDER BY id")
    assert [(row["id"], row["result"]) for row in rows] == [(id, str(id)) for id in range(1, 51)]


# --- order -----------------------------------------------------------------------------------------


def test_the_first_added_is_the_first_claimed(bench: Bench) -> None:
    for id in (3, 1, 2):
        bench.add(id=id)
        bench.clock.advance(0.001)

    assert [claim.id for claim in bench.claim()] == [3, 1, 2]


def test_jobs_of_one_cycle_keep_their_order(bench: Bench) -> None:
    bench.adds(an_add(id=3), an_add(id=1), an_add(id=2, key="k"), an_add(id=9))

    assert [claim.id for claim in bench.claim()] == [3, 1, 2, 9]


def test_a_larger_priority_goes_first(bench: Bench) -> None:
    for priority in (0, -10, 10, 0):
        bench.add(priority=priority)

    assert [claim.id for claim in bench.claim()] == [3, 1, 4, 2]


def test_a_future_job_queues_up_when_it_is_due(bench: Bench) -> None:
    bench.add(run_at=bench.clock.now() + 5_000_000)
    bench.clock.advance(4)
    bench.add()
    bench.clock.advance(2)

    assert [claim.id for claim in bench.claim()] == [2, 1]


def test_the_next_due_time_is_told(bench: Bench) -> None:
    soon, later = bench.clock.now() + 5, bench.clock.now() + 9
    bench.add(run_at=later)
    bench.add(run_at=soon)
    harvest = bench.cycle(worker=1, demands={"mail": 1})

    assert harvest.next_due == bench.store.next_due() == soon


def test_a_claim_takes_no_more_than_was_asked_for(bench: Bench) -> None:
    bench.add(5)

    assert len(bench.claim(2)) == 2
    assert bench.store.any_ready("mail")
    assert len(bench.claim(9)) == 3
    assert not bench.store.any_ready("mail")


@pytest.mark.only_on("sqlite")
def test_one_process_sees_that_another_has_written(open_bench: Callable[[], Bench]) -> None:
    ours, theirs = open_bench(), open_bench()
    ours.store.changed()
    quiet = ours.store.changed()
    theirs.add()

    assert not quiet
    assert ours.store.changed()
    assert not ours.store.changed()


def test_two_processes_never_claim_one_job(open_bench: Callable[[], Bench]) -> None:
    ours, theirs = open_bench(), open_bench()
    ours.add(10)

    mine, others = ours.claim(6, worker=1), theirs.claim(6, worker=2)
    assert sorted(claim.id for claim in (*mine, *others)) == list(range(1, 11))
