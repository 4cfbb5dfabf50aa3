"""The ledger, turn by turn: many requests to a transaction, and nothing lost where one fails."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from broken_lines import Fate, Line
from store_support import (
    DONE,
    EVERY_EVENT,
    FAILED,
    Bench,
    EvenChance,
    ManualClock,
    Postman,
    an_add,
    answer,
    until_the_next_look,
)

from yaotask.errors import (
    OutcomeUnknown,
    StorageBusy,
    StorageError,
    StorageFull,
    StorageUnavailable,
)
from yaotask.jobs import Claim, JobState, Outcome, Succeeded
from yaotask.store import direct, inbox, ledger_thread, presence
from yaotask.store import ledger as ledger_module
from yaotask.store.access import Access
from yaotask.store.ledger import FIRST_PAUSE, LONGEST_PAUSE, Ledger
from yaotask.store.ledger_thread import LedgerThread
from yaotask.store.lookout import EAGER_LOOK, SHORTEST_REST
from yaotask.store.protocol import Add, Harvest, Mailbox, Progress, Started, Ticket
from yaotask.store.sql import SqlStore

pytest_plugins = ["store_fixtures"]

PATIENCE = 10
TROUBLES = pytest.mark.parametrize("error", [StorageBusy("busy"), StorageFull("full"), OutcomeUnknown("who knows")])


class Taker:
    """Takes so many claims, and notes them, what is lost, and what is to end."""

    def __init__(self, most: int = 10) -> None:
        self.most = most
        self.claims: list[Claim] = []
        self.lost_claims: list[tuple[int, int]] = []
        self.cancelled_claims: list[tuple[int, int]] = []

    def demand(self) -> int:
        return self.most - len(self.claims)

    def deliver(self, claims: Sequence[Claim]) -> None:
        self.claims += claims

    def lost(self, key: int, fence: int) -> None:
        self.lost_claims.append((key, fence))

    def cancelled(self, key: int, fence: int) -> bool:
        self.cancelled_claims.append((key, fence))
        return True

    @property
    def ids(self) -> list[int]:
        return [claim.id for claim in self.claims]


class Store:
    """Wraps the cycles of a store: counts them, and makes some fail before or after the commit."""

    def __init__(self, store: SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
        self.cycles: list[Mailbox] = []
        self.before: list[BaseException] = []
        self.after: list[BaseException] = []
        self._run = store.run_cycle
        monkeypatch.setattr(store, "run_cycle", self.run_cycle)

    def run_cycle(self, mailbox: Mailbox) -> Harvest:
        if self.before:
            raise self.before.pop(0)
        self.cycles.append(mailbox)
        if not self.after:
            return self._run(mailbox)
        # Nobody is answered where the commit is in doubt.
        self._run(replace(mailbox, errands=[], demands={}, deliveries=0))
        raise self.after.pop(0)


@pytest.fixture
def store(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Store:
    return Store(bench.store, monkeypatch)


@pytest.fixture
def ledger(bench: Bench, clock: ManualClock) -> Ledger:
    bench.write(
        "INSERT INTO yaotask_workers (key, incarnation, host, pid, started_at)"
        " VALUES (1, 'one', '', 1, 0), (2, 'two', '', 2, 0)"
    )
    return Ledger(bench.store, clock, EvenChance())


@pytest.fixture
def taker(ledger: Ledger) -> Taker:
    taker = Taker()
    ledger.employ(1, {"mail": taker}, Postman("mail"))
    return taker


def ask(ledger: Ledger, count: int = 1, **job: Any) -> Ticket:
    add = an_add(count, **job)
    ledger.add(add)
    return add.ticket


# --- turns ----------------------------------------------------------------------------------------------------


def test_with_nothing_to_do_it_waits_to_be_poked_and_writes_nothing(ledger: Ledger, store: Store) -> None:
    assert ledger.turn() is None
    assert store.cycles == []


def test_what_came_in_together_is_one_transaction(ledger: Ledger, store: Store) -> None:
    tickets = [ask(ledger) for _ in range(3)]
    ledger.turn()

    assert len(store.cycles) == 1
    assert [answer(ticket) for ticket in tickets] == [[1], [2], [3]]


def test_a_job_is_claimed_in_the_transaction_that_stores_it(ledger: Ledger, store: Store, taker: Taker) -> None:
    ask(ledger, 2)
    ledger.turn()

    assert len(store.cycles) == 1
    assert taker.ids == [1, 2]


def test_no_more_is_claimed_than_is_wanted(ledger: Ledger, taker: Taker) -> None:
    taker.most = 1
    ask(ledger, 3)
    ledger.turn()
    first = list(taker.ids)
    taker.most = 3
    ledger.turn()

    assert (first, taker.ids) == ([1], [1, 2, 3])


def test_the_last_progress_of_a_job_that_ends_in_the_same_turn_is_kept(
    bench: Bench, ledger: Ledger, taker: Taker
) -> None:
    ask(ledger)
    ledger.turn()
    (claim,) = taker.claims
    ledger.finish(bench.end(claim))
    ledger.progress(Progress(claim.key, claim.fence, None, {"current": 7}))
    ledger.turn()

    assert (bench.state(), bench.row()["current"]) == (JobState.SUCCESS, 7)


def test_ends_beyond_one_turn_come_in_the_next_with_their_progress(
    bench: Bench, ledger: Ledger, taker: Taker, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(ledger, 5)
    ledger.turn()
    monkeypatch.setattr(inbox, "MOST_ROWS", 2)
    for claim in taker.claims:
        ledger.progress(Progress(claim.key, claim.fence, None, {"current": claim.id}))
        ledger.finish(bench.end(claim))
    waits = [ledger.turn() for _ in range(3)]

    assert waits[:2] == [0.0, 0.0]
    assert bench.query("SELECT id, state, current FROM yaotask_jobs") == [
        {"id": id, "state": 2, "current": id} for id in range(1, 6)
    ]


def test_how_attempts_ended_is_counted_and_ill_ends_are_told(bench: Bench, ledger: Ledger, taker: Taker) -> None:
    told: list[tuple[str, object]] = []
    ledger.tell = lambda claim, outcome: told.append((claim.name, outcome))
    ask(ledger, 2)
    ledger.turn()
    good, bad = taker.claims
    ledger.finish(bench.end(good, DONE))
    ledger.finish(bench.end(bad, FAILED))
    ledger.turn()

    assert ledger.ended == {Succeeded: 1, type(FAILED): 1}
    assert told == [("mail.2", FAILED)]


def test_a_lost_claim_is_told_to_whoever_has_it(
    bench: Bench, ledger: Ledger, taker: Taker, caplog: pytest.LogCaptureFixture
) -> None:
    ask(ledger)
    ledger.turn()
    (claim,) = taker.claims
    bench.write(
        "UPDATE yaotask_jobs SET state = 5, fence = fence + 1, worker = NULL, attempt = 0, deaths = 1, losses = 1"
    )
    ledger.finish(bench.end(claim))
    ledger.turn()

    assert taker.lost_claims == [(claim.key, claim.fence)]
    assert "mail.1" in caplog.text
    assert bench.state() is JobState.RETRYING


# --- who it works for -----------------------------------------------------------------------------------------


def test_it_works_for_one_worker_at_a_time(ledger: Ledger, taker: Taker) -> None:
    with pytest.raises(RuntimeError, match="already"):
        ledger.employ(2, {}, Postman("mail"))
    ledger.dismiss(2)
    ask(ledger)
    ledger.turn()

    assert taker.ids == [1]


def test_after_a_dismissal_nothing_is_claimed(ledger: Ledger, taker: Taker) -> None:
    ledger.dismiss(1)
    ask(ledger)
    ledger.turn()

    assert taker.ids == []


def test_it_is_quiet_once_all_is_written_and_no_event_waits(ledger: Ledger, taker: Taker) -> None:
    ask(ledger)
    busy = ledger.is_quiet
    ledger.turn()
    ledger.turn()

    assert (busy, ledger.is_quiet) == (False, True)


# --- a store that fails ---------------------------------------------------------------------------------------


@TROUBLES
def test_adders_get_the_error_and_ends_and_progress_are_written_later(
    bench: Bench, ledger: Ledger, store: Store, taker: Taker, error: StorageError
) -> None:
    ask(ledger, 2)
    ledger.turn()
    ended, running = taker.claims
    store.before = [error]
    ledger.finish(bench.end(ended))
    ledger.progress(Progress(ended.key, ended.fence, None, {"current": 7}))
    ledger.started(Started(running.key, running.fence, 5))
    late = ask(ledger)
    pause = ledger.turn()
    before = bench.state(1)
    ledger.turn()

    assert (late.error, pause) == (error, FIRST_PAUSE)
    assert before is JobState.RUNNING
    assert (bench.state(1), bench.row(1)["current"], bench.row(2)["started_at"]) == (JobState.SUCCESS, 7, 5)
    assert bench.value("SELECT count(*) FROM yaotask_jobs") == 2


def test_an_end_whose_commit_was_in_doubt_counts_once(
    bench: Bench, ledger: Ledger, store: Store, taker: Taker, clock: ManualClock
) -> None:
    ask(ledger, 3)
    ledger.turn()
    store.after = [OutcomeUnknown("who knows")]
    outcomes: list[Outcome] = [DONE, FAILED, DONE]
    for claim, outcome in zip(taker.claims, outcomes, strict=True):
        ledger.finish(bench.end(claim, outcome))
    ledger.turn()
    clock.advance(1)
    ledger.turn()

    assert [bench.state(id).name for id in (1, 2, 3)] == ["SUCCESS", "FAILURE", "SUCCESS"]
    assert bench.value("SELECT sum(jobs) FROM yaotask_rollups") == 3
    assert bench.value("SELECT count(*) FROM yaotask_attempts") == 1
    assert taker.lost_claims == []


def test_pauses_grow_while_the_store_fails_and_end_with_the_trouble(ledger: Ledger, store: Store, bench: Bench) -> None:
    claim_of_nobody = Progress(99, None, None, {"current": 1})
    store.before = [StorageBusy("busy")] * 9
    ledger.progress(claim_of_nobody)
    pauses = [ledger.turn() for _ in range(9)]
    hopeless = ledger.is_behind
    ledger.turn()
    store.before = [StorageBusy("busy")]
    ask(ledger)

    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, LONGEST_PAUSE, LONGEST_PAUSE, LONGEST_PAUSE]
    assert not hopeless
    assert ledger.turn() == FIRST_PAUSE


def test_a_look_that_fails_after_a_cycle_is_made_again(
    bench: Bench, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    taker, postman, next_event = Taker(), Postman("mail"), bench.store.next_event

    def fail(*_: Any) -> None:
        monkeypatch.setattr(bench.store, "next_event", next_event)
        raise StorageUnavailable("away")

    ledger.employ(1, {"mail": taker}, postman)
    told = ask(ledger, events=EVERY_EVENT)
    ledger.turn()
    monkeypatch.setattr(bench.store, "next_event", fail)
    ledger.errand(lambda cycle: None, Ticket())
    pauses = [ledger.turn() for _ in range(4)]
    untold = ask(ledger)
    ledger.turn()

    assert pauses.count(FIRST_PAUSE) == 1
    assert [delivery.id for delivery in postman.taken] == answer(told)
    assert taker.ids == answer(untold)


def test_an_event_that_is_in_the_hands_of_others_is_looked_for_now_and_then(
    bench: Bench, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger.employ(1, {}, Postman("mail"))
    ledger.turn()
    monkeypatch.setattr(bench.store, "next_event", lambda tasks: bench.clock.now())
    ledger.errand(lambda cycle: None, Ticket())
    ledger._lookout.events_wet = True
    pauses = [ledger.turn() for _ in range(2)]

    assert pauses == [SHORTEST_REST, pytest.approx(EAGER_LOOK)]


def test_what_was_delivered_is_settled_before_the_worker_leaves(bench: Bench, ledger: Ledger) -> None:
    postman = Postman("mail")
    ledger.employ(1, {"mail": Taker()}, postman)
    ledger.add(an_add(events=EVERY_EVENT))
    while not postman.taken:
        ledger.turn()

    postman.delivered = list(postman.taken)
    ledger.errand(lambda cycle: presence.leave(cycle, 1), Ticket())
    ledger.turn()

    assert bench.value("SELECT count(*) FROM yaotask_events") == 0


def test_progress_that_no_store_can_hold_keeps_nothing_else_from_being_stored(
    bench: Bench, ledger: Ledger, taker: Taker
) -> None:
    ask(ledger, 2)
    ledger.turn()
    for claim, steps in zip(taker.claims, (5, 2**62), strict=True):
        ledger.progress(Progress(claim.key, claim.fence, 1, {"total_steps": steps}))
        ledger.finish(bench.end(claim))
    pauses = [ledger.turn() for _ in range(2)]

    jobs = bench.query("SELECT state, total_steps FROM yaotask_jobs ORDER BY id")
    assert [job["state"] for job in jobs] == [JobState.SUCCESS, JobState.SUCCESS]
    assert jobs[0]["total_steps"] == 5
    assert FIRST_PAUSE not in pauses


@pytest.mark.only_on("postgresql", "mariadb")
def test_a_claim_that_was_lost_is_told_once_beside_progress_that_no_store_can_hold(
    ledger: Ledger, taker: Taker, caplog: pytest.LogCaptureFixture
) -> None:
    ask(ledger, 2)
    ledger.turn()
    again, bad = taker.claims
    lost = again._replace(fence=again.fence - 1)
    for current in (1, 2):
        ledger.progress(Progress(lost.key, lost.fence, 1, {"current": current}))
    ledger.progress(Progress(bad.key, bad.fence, 1, {"total_steps": 2**62}))
    ledger.turn()

    assert taker.lost_claims == [(lost.key, lost.fence)]
    assert caplog.text.count("was given to another worker") == 1


def test_what_became_of_events_is_kept_until_it_is_written(
    bench: Bench, ledger: Ledger, store: Store, clock: ManualClock
) -> None:
    taker, postman = Taker(), Postman("mail")
    ledger.employ(1, {"mail": taker}, postman)
    ask(ledger, events=EVERY_EVENT)
    while not postman.taken:
        ledger.turn()
        clock.advance(1)
    store.before = [StorageBusy("busy")]
    postman.delivered = list(postman.taken)
    ledger.turn()
    ledger.turn()

    assert bench.value("SELECT count(*) FROM yaotask_events") == 0


def test_how_long_something_is_held_is_counted_anew_once_what_was_held_before_is_written(
    ledger: Ledger, store: Store, clock: ManualClock, taker: Taker
) -> None:
    def hold(claim: Claim) -> None:
        ledger._shelf.keep(Mailbox(progress=[Progress(claim.key, claim.fence, 1, {"current": 1})], hurried=True))

    ask(ledger)
    ledger.turn()
    (claim,) = taker.claims
    hold(claim)
    clock.advance(1)
    store.before = [StorageBusy("busy")]
    ledger.turn()
    clock.advance(600)
    ledger.turn()
    hold(claim)

    assert ledger.is_behind


# --- what once hung in silence --------------------------------------------------------------------------------


def test_adds_of_many_threads_are_all_answered_while_turns_go_on(ledger: Ledger, bench: Bench) -> None:
    def add_all(mine: list[Add]) -> None:
        for add in mine:
            ledger.add(add)

    adds = [[an_add() for _ in range(250)] for _ in range(8)]
    threads = [threading.Thread(target=add_all, args=(mine,)) for mine in adds]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        ledger.turn()
    ledger.turn()
    ids = sorted(answer(add.ticket)[0] for mine in adds for add in mine)

    assert ids == list(range(1, 2_001))


def test_an_add_is_claimed_also_when_the_queue_was_found_empty_before(
    ledger: Ledger, taker: Taker, open_bench: Callable[[], Bench]
) -> None:
    ledger.turn()
    ledger.turn()
    ask(ledger)
    ledger.turn()
    mine = list(taker.ids)
    open_bench().add()
    until_the_next_look(ledger.store)
    ledger.turn()

    assert (mine, taker.ids) == ([1], [1, 2])


def test_an_add_of_another_process_is_claimed_also_when_it_came_with_a_short_claim(
    ledger: Ledger, store: Store, taker: Taker, open_bench: Callable[[], Bench]
) -> None:
    other, run = open_bench(), store._run

    def run_and_be_late(mailbox: Mailbox) -> Harvest:
        harvest = run(mailbox)
        store._run = run
        # After our transaction, which found too little, and before we conclude from it.
        other.add()
        return harvest

    store._run = run_and_be_late
    ask(ledger)
    ledger.turn()
    first = list(taker.ids)
    until_the_next_look(ledger.store)
    ledger.turn()

    assert (first, taker.ids) == ([1], [1, 2])


def test_an_add_of_many_is_answered_when_all_of_it_is_stored(
    bench: Bench, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox, "MOST_ROWS", 10)
    seen: list[int] = []
    add = an_add(25)
    add.ticket.settle = lambda: seen.append(bench.value("SELECT count(*) FROM yaotask_jobs"))
    ledger.add(add)
    others = [ask(ledger) for _ in range(3)]
    while others[-1].value is None:
        ledger.turn()

    assert seen == [25]
    assert answer(add.ticket) == list(range(1, 26))


# --- the thread -----------------------------------------------------------------------------------------------


def test_a_worker_that_was_taken_for_dead_is_told_once_and_claims_no_more(
    bench: Bench, ledger: Ledger, taker: Taker
) -> None:
    told: list[str] = []
    ledger.dismissed = lambda: told.append("dismissed")
    bench.write("DELETE FROM yaotask_workers WHERE key = 1")
    ask(ledger)
    for _ in range(3):
        ledger.turn()

    assert (taker.claims, told) == ([], ["dismissed"])
    assert bench.value("SELECT state FROM yaotask_jobs") == JobState.WAITING


@pytest.fixture
def thread(ledger: Ledger) -> Iterator[LedgerThread]:
    thread = LedgerThread(ledger)
    yield thread
    thread.close()


def test_close_writes_what_has_come_in(bench: Bench, ledger: Ledger, store: Store, thread: LedgerThread) -> None:
    entered, gate, run = threading.Event(), threading.Event(), store._run

    def run_behind_the_gate(mailbox: Mailbox) -> Harvest:
        entered.set()
        assert gate.wait(PATIENCE)
        return run(mailbox)

    store._run = run_behind_the_gate
    first = ask(ledger)
    assert entered.wait(PATIENCE)
    others = [ask(ledger) for _ in range(3)]
    closing = threading.Thread(target=thread.close)
    closing.start()
    gate.set()
    closing.join()

    assert [answer(ticket) for ticket in (first, *others)] == [[1], [2], [3], [4]]


def test_a_ledger_that_was_never_asked_closes_too_and_twice_is_fine(ledger: Ledger, thread: LedgerThread) -> None:
    thread.close()
    thread.close()
    late = ask(ledger)
    thread.refuse_if_over()

    assert isinstance(late.error, StorageUnavailable)
    assert "was closed" in str(late.error)


def test_the_death_of_the_thread_answers_everything(
    ledger: Ledger, store: Store, thread: LedgerThread, caplog: pytest.LogCaptureFixture
) -> None:
    entered, gate, dead = threading.Event(), threading.Event(), threading.Event()

    def break_down(mailbox: Mailbox) -> Harvest:
        entered.set()
        assert gate.wait(PATIENCE)
        raise MemoryError("no room for a page")

    thread.on_death = dead.set
    store._run = break_down
    under_way = ask(ledger)
    assert entered.wait(PATIENCE)
    waiting, errand = ask(ledger), Ticket()
    ledger.errand(lambda cycle: None, errand)
    gate.set()
    assert dead.wait(PATIENCE)
    thread.close()
    late = ask(ledger)
    thread.refuse_if_over()

    assert isinstance(under_way.error, MemoryError)
    assert [type(ticket.error) for ticket in (waiting, errand, late)] == [StorageUnavailable] * 3
    assert "no room for a page" in str(late.error)
    assert "the ledger has died" in caplog.text


def test_a_death_is_told_although_the_log_is_broken(
    ledger: Ledger, store: Store, thread: LedgerThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise LookupError("no context")

    dead = threading.Event()
    thread.on_death = dead.set
    store.before.append(MemoryError("no room for a page"))
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    monkeypatch.setattr(ledger_thread.log, "critical", fail)
    asked = ask(ledger)
    thread.close()

    assert dead.is_set()
    assert isinstance(asked.error, MemoryError)


@pytest.mark.usefixtures("taker")
def test_a_store_that_is_away_is_told_although_the_log_is_broken(
    ledger: Ledger, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise LookupError("no context")

    monkeypatch.setattr(ledger_module.log, "error", fail)
    store.before = [StorageBusy("busy")]
    refused = ask(ledger)
    ledger.turn()
    stored = ask(ledger)
    ledger.turn()

    assert isinstance(refused.error, StorageBusy)
    assert answer(stored) == [1]


def test_a_log_that_users_code_has_broken_ends_no_ledger(bench: Bench, ledger: Ledger, taker: Taker) -> None:
    def fail(claim: Claim, outcome: Outcome) -> None:
        raise LookupError("no context")

    ledger.tell = fail
    ask(ledger)
    ledger.turn()
    (claim,) = taker.claims
    ledger.finish(bench.end(claim, FAILED))
    ledger.turn()

    assert bench.value("SELECT state FROM yaotask_jobs") == JobState.FAILURE


def test_who_uses_a_store_hears_of_a_death_as_said_last_even_before_it_was_opened(
    bench: Bench, ledger: Ledger, store: Store
) -> None:
    first, last = threading.Event(), threading.Event()
    access = Access(lambda: bench.store, lambda _: ledger)
    access.on_death = first.set
    assert access.opened.ledger is ledger
    access.on_death = last.set
    store.before.append(MemoryError("no room for a page"))
    with pytest.raises(MemoryError):
        access.ask(lambda ledger, ticket: ledger.errand(lambda cycle: None, ticket))
    assert last.wait(PATIENCE)
    access.close()

    assert not first.is_set()


def test_who_reads_while_the_thread_dies_is_let_finish(
    bench: Bench, ledger: Ledger, store: Store, thread: LedgerThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_down(mailbox: Mailbox) -> Harvest:
        raise MemoryError("no room for a page")

    closed, dead = list[str](), threading.Event()

    def disconnect() -> None:
        disconnect_writer()
        # The last that the thread does.
        dead.set()

    disconnect_writer = bench.store.writer.disconnect
    store._run = break_down
    with monkeypatch.context() as patched, bench.store.reading() as connection:
        patched.setattr(bench.store.writer, "disconnect", disconnect)
        patched.setattr(bench.store, "close", lambda: closed.append("closed"))
        ask(ledger)
        assert dead.wait(PATIENCE)
        before = list(closed)
        connection.exec_driver_sql("SELECT 1")
        thread.close()

    assert (before, closed) == ([], ["closed"])


def test_claims_that_nobody_was_given_go_back_although_nothing_else_is_to_be_done(
    bench: Bench, clock: ManualClock, ledger: Ledger, taker: Taker, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = Line()
    monkeypatch.setattr(direct, "run", line.say)
    # As after an outage that is longer than anybody looks.
    monkeypatch.setattr(SqlStore, "_was_stored", lambda *_: False)
    bench.add()
    line.fates = [Fate.AFTER_COMMIT]
    ledger.turn()
    doubtful = bench.state()
    for _ in range(3):
        clock.advance(1)
        ledger.turn()

    assert (doubtful, line.broken) == (JobState.RUNNING, {Fate.AFTER_COMMIT: 1})
    assert taker.ids == [1]
