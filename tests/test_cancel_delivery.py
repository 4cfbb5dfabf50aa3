"""How the worker of a claim hears that it should end: from the store alone, soon, and once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import pytest
from store_support import DONE, FAILED, Bench, EvenChance, ManualClock, Postman, an_add, until_the_next_look

from yaotask.errors import StorageBusy
from yaotask.jobs import Cancelled, Claim, Outcome
from yaotask.store.hints import EVERYWHERE
from yaotask.store.ledger import Ledger
from yaotask.store.lookout import LAZY_LOOK
from yaotask.store.protocol import Started, Ticket

pytest_plugins = ["store_fixtures"]


class Worker:
    """Takes all claims of a task; whether what it is told to end is to be found, the test says."""

    def __init__(self) -> None:
        self.claims: list[Claim] = []
        self.told: list[int] = []
        self.lost_ids: list[int] = []
        self.finds = True

    def demand(self) -> int:
        return 10 - len(self.claims)

    def deliver(self, claims: Sequence[Claim]) -> None:
        self.claims += claims

    def lost(self, key: int, fence: int) -> None:
        self.lost_ids += [claim.id for claim in self.claims if (claim.key, claim.fence) == (key, fence)]

    def cancelled(self, key: int, fence: int) -> bool:
        self.told += [claim.id for claim in self.claims if (claim.key, claim.fence) == (key, fence)]
        return self.finds


@pytest.fixture
def ledger(bench: Bench, clock: ManualClock) -> Ledger:
    """Works as worker 1, which has a row as every worker does."""
    bench.write("INSERT INTO yaotask_workers (key, incarnation, host, pid, started_at) VALUES (1, 'one', '', 1, 0)")
    return Ledger(bench.store, clock, EvenChance())


@pytest.fixture
def worker(ledger: Ledger) -> Worker:
    """Two jobs run in it."""
    worker = Worker()
    ledger.employ(1, {"mail": worker, "video": Worker()}, Postman())
    ledger.add(an_add(2))
    ledger.turn()
    started = ledger.store.clock.now()
    for claim in worker.claims:
        ledger.started(Started(claim.key, claim.fence, started))
    turns(ledger)
    return worker


@pytest.fixture
def other(open_bench: Callable[[], Bench]) -> Bench:
    """Another process at the same store."""
    return open_bench()


def turns(ledger: Ledger) -> None:
    """Until it would rest."""
    while ledger.turn() == 0.0:
        continue


def cancel(bench: Bench, id: int) -> None:
    bench.errand(lambda cycle: cycle.cancel("mail", id))
    until_the_next_look(bench.store)


def test_a_cancel_of_another_process_is_passed_on_at_the_next_look_and_once(
    ledger: Ledger, worker: Worker, other: Bench
) -> None:
    cancel(other, 2)
    ledger.turn()
    first = list(worker.told)
    other.add()
    turns(ledger)

    assert (first, worker.told) == ([2], [2])
    assert LAZY_LOOK < 1.0


def test_each_request_is_passed_on_whatever_was_before_it(ledger: Ledger, worker: Worker, other: Bench) -> None:
    cancel(other, 1)
    turns(ledger)
    cancel(other, 2)
    turns(ledger)

    assert worker.told == [1, 2]


def test_a_cancel_of_our_own_process_is_passed_on_at_once(ledger: Ledger, worker: Worker) -> None:
    ledger.errand(lambda cycle: cycle.cancel("mail", 1), Ticket())
    turns(ledger)

    assert worker.told == [1]


def test_one_that_was_not_to_be_found_is_told_again_at_the_next_look(
    ledger: Ledger, worker: Worker, other: Bench
) -> None:
    worker.finds = False
    cancel(other, 1)
    turns(ledger)
    worker.finds = True
    ledger.store.clock.pause(2)
    turns(ledger)

    assert worker.told == [1, 1]


def test_it_is_told_again_after_a_look_that_failed(
    ledger: Ledger, worker: Worker, other: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    cancel(other, 1)
    with monkeypatch.context() as broken:
        broken.setattr(ledger.store, "cancels_of", refuse)
        ledger.turn()
    turns(ledger)

    assert worker.told == [1]


def refuse(worker: int) -> list[tuple[str, int, int]]:
    raise StorageBusy("busy")


def test_a_worker_that_is_employed_anew_hears_of_what_is_its_own_alone(
    ledger: Ledger, worker: Worker, other: Bench
) -> None:
    ledger.dismiss(1)
    cancel(other, 1)
    turns(ledger)
    ledger.employ(2, {"mail": worker}, Postman())
    turns(ledger)

    assert worker.told == []


def test_a_job_that_was_cancelled_before_it_was_shown_as_running_is_stopped(ledger: Ledger, other: Bench) -> None:
    worker = Worker()
    ledger.employ(1, {"mail": worker}, Postman())
    ledger.add(an_add())
    ledger.turn()
    (claim,) = worker.claims
    cancel(other, claim.id)
    ledger.started(Started(claim.key, claim.fence, other.clock.now()))
    turns(ledger)

    assert (worker.lost_ids, worker.told) == ([1], [])


@pytest.mark.parametrize("works", [True, False])
def test_a_cancel_sends_a_hint_to_the_workers_of_this_machine(
    ledger: Ledger, bench: Bench, worker: Worker, works: bool
) -> None:
    if not works:
        ledger.dismiss(1)
    hints: list[Collection[str]] = []
    ledger.hint = hints.append
    ledger.errand(lambda cycle: cycle.cancel("mail", 1), Ticket())
    turns(ledger)

    assert hints == [EVERYWHERE]


def test_what_is_counted_and_told_is_the_end_that_was_stored(ledger: Ledger, worker: Worker, other: Bench) -> None:
    told: list[tuple[str, Outcome]] = []
    ledger.tell = lambda claim, outcome: told.append((claim.name, outcome))
    first, second = worker.claims
    cancel(other, 1)
    cancel(other, 2)
    ledger.finish(other.end(first, FAILED))
    ledger.finish(other.end(second, DONE))
    turns(ledger)

    assert told == [("mail.1", Cancelled())]
    assert ledger.ended == {Cancelled: 1, type(DONE): 1}
