"""Servers, where many write at once: somebody else's open transaction has what a cycle comes across."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine
from sqlalchemy.engine import Connection
from store_support import WAITS, Bench, EvenChance, ManualClock, Postman, an_add, answer, connected

from yaotask.clock import SECOND
from yaotask.errors import DuplicateJobId, QueueFull, StorageBusy, StorageError, StorageUnavailable
from yaotask.jobs import Claim, Failed, Failure, JobState
from yaotask.store import adds, presence, reaping, sql
from yaotask.store.cycle import SqlCycle
from yaotask.store.direct import execute
from yaotask.store.ledger import Ledger
from yaotask.store.opening import Place
from yaotask.store.presence import Lock, Lost
from yaotask.store.protocol import Add, Harvest, Mailbox
from yaotask.store.work import Work
from yaotask.values import dumps

pytest_plugins = ["store_fixtures"]
pytestmark = pytest.mark.only_on("postgresql", "mariadb")

# Shorter than a server waits for a lock.
PATIENCE = 4

# How a session ends itself.
CUTS = {"postgresql": "SELECT pg_terminate_backend(pg_backend_pid())", "mysql": "KILL CONNECTION_ID()"}


@contextmanager
def somebody(place: Place) -> Iterator[Connection]:
    """Somebody else's transaction."""
    with connected(place) as other:
        execute(other, "BEGIN")
        yield other
        execute(other, "ROLLBACK")


@contextmanager
def held_jobs(place: Place) -> Iterator[None]:
    """All jobs are locked meanwhile."""
    with somebody(place) as other:
        execute(other, "SELECT * FROM yaotask_jobs FOR UPDATE")
        yield


@pytest.fixture
def caller(here: Place) -> Iterator[Connection]:
    """A caller's own connection, as its owner has it by default, but for how long it waits for locks."""
    dialect = here.dialect()
    address = dialect.engine(writer=False).url
    engine = create_engine(address, connect_args={"ssl_disabled": True} if dialect.name == "mysql" else {})
    with engine.connect() as connection:
        connection.exec_driver_sql(WAITS[dialect.name][0].format(1))
        connection.commit()
        yield connection
        connection.rollback()
    engine.dispose()


def test_the_ledger_waits_for_no_lock_for_long(bench: Bench) -> None:
    _, ask, answered = WAITS[bench.store.dialect.name]
    within = bench.store.write(lambda connection: execute(connection, ask).scalar())

    assert within == answered


def test_a_job_that_is_due_but_held_has_nothing_done_twice(
    bench: Bench, here: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.add(run_at=bench.clock.now() + SECOND)
    bench.clock.advance(2)
    free = an_add(priority=1)
    monkeypatch.setattr(sql, "replay", None)
    with ThreadPoolExecutor(1) as thread, held_jobs(here):
        harvest = thread.submit(bench.cycle, worker=1, adds=[free], demands={"mail": 5}).result(PATIENCE)

    assert [claim.id for claim in harvest.claims["mail"].read()] == answer(free.ticket)
    assert harvest.next_due is not None


def test_what_is_due_but_held_is_looked_for_again_after_a_pause(bench: Bench, here: Place) -> None:
    bench.add(run_at=bench.clock.now() + SECOND)
    bench.clock.advance(2)
    with ThreadPoolExecutor(1) as thread, held_jobs(here):
        harvest = thread.submit(bench.cycle, worker=1, due=True).result(PATIENCE)
        soon = harvest.next_due
    bench.clock.advance(1)

    assert soon is not None
    assert soon > bench.clock.now() - SECOND
    assert len(bench.claim()) == 1


def test_claims_of_the_dead_that_are_held_keep_no_reaper_waiting(bench: Bench, here: Place, tmp_path: Path) -> None:
    ours, theirs = (Lock.take(tmp_path / "workers", name) for name in ("ours", "theirs"))
    us = bench.errand(lambda cycle: presence.register(cycle, "ours", ours))
    worker = bench.errand(lambda cycle: presence.register(cycle, "theirs", theirs))
    bench.add()
    bench.claim(worker=worker)
    os.close(theirs.handle)
    with ThreadPoolExecutor(1) as thread, held_jobs(here):
        early = thread.submit(bench.errand, lambda cycle: presence.reap(cycle, us)).result(PATIENCE)
    known = [row["key"] for row in bench.query("SELECT key FROM yaotask_workers ORDER BY key")]
    late = bench.errand(lambda cycle: presence.reap(cycle, us))
    ours.release()

    assert (early, late) == ([], [Lost("mail.1")])
    assert known == sorted([us, worker])
    assert bench.state() is JobState.RETRYING


def test_a_connection_that_is_cut_is_no_fault_of_a_row(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    theirs = Lock.take(tmp_path / "workers", "theirs")
    worker = bench.errand(lambda cycle: presence.register(cycle, "theirs", theirs))
    bench.add()
    bench.claim(worker=worker)
    theirs.abandon()
    told: set[int] = set()

    def cut(cycle: SqlCycle, *_: Any) -> None:
        cycle.execute(CUTS[bench.store.dialect.name])

    with monkeypatch.context() as patch:
        patch.setattr(reaping, "_lose", cut)
        with pytest.raises(StorageUnavailable):
            bench.errand(lambda cycle: presence.reap(cycle, worker + 1, told=told))
    taken_back = bench.errand(lambda cycle: presence.reap(cycle, worker + 1, told=told))

    assert (told, caplog.text, taken_back) == (set(), "", [Lost("mail.1")])


def test_nothing_of_an_add_that_waited_in_vain_is_stored(bench: Bench, here: Place, caller: Connection) -> None:
    both = an_add(key="free")
    both.jobs += an_add(key="used").jobs
    with somebody(here) as other:
        with bench.store.borrow(other) as cycle:
            cycle.add(an_add(key="used"))
        with pytest.raises(StorageBusy), bench.store.borrow(caller) as cycle:
            cycle.add(both)
        with bench.store.borrow(caller) as cycle:
            later = cycle.add(an_add(key="another"))
        caller.commit()

    assert [row["id"] for row in bench.query("SELECT id FROM yaotask_jobs")] == later


def test_an_add_whose_key_is_in_an_open_transaction_keeps_no_other_waiting(bench: Bench, here: Place) -> None:
    bench.add()
    own = bench.end(bench.claim_one())
    blocked, free = an_add(key="used"), an_add(key="free")
    wait = WAITS[bench.store.dialect.name][0].format(1)
    execute(bench.store.writer.connected(), wait)
    with ThreadPoolExecutor(1) as thread, somebody(here) as other:
        with bench.store.borrow(other) as cycle:
            cycle.add(an_add(key="used"))
        harvest = thread.submit(bench.cycle, finishes=[own], adds=[blocked, free]).result(PATIENCE)

    assert bench.state() is JobState.SUCCESS
    assert bench.row(answer(free.ticket)[0])["state"] == JobState.WAITING
    assert harvest.held.requests == {blocked}
    assert len(bench.add(key="used")) == 1


def test_no_more_wait_than_may_though_an_add_before_was_refused(
    bench: Bench, open_bench: Callable[[], Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    other, plain, seen = open_bench(), adds.add, Counter[bool]()
    other.store.writer.patience = 0
    execute(other.store.writer.connected(), WAITS[bench.store.dialect.name][0].format(1))
    bench.add(id=7, size=3)

    def while_others_add(work: Work, add: Add) -> list[int]:
        seen[work.connection is bench.store.writer.connected()] += 1
        if seen == {True: 2}:
            # The one before was refused, and undone.
            with suppress(StorageBusy):
                other.add(2, size=3)
        return plain(work, add)

    monkeypatch.setattr(adds, "add", while_others_add)
    bench.adds(an_add(id=7, size=3), an_add(2, size=3))

    assert seen[True] == 2
    assert bench.waiting() == bench.value("SELECT count(*) FROM yaotask_jobs") == 3


def test_full_queues_are_looked_at_in_one_order(
    bench: Bench, open_bench: Callable[[], Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    benches, tasks, asked = [bench, open_bench()], ["one", "two"], []
    bench.adds(*(an_add(task=task, size=1) for task in tasks))

    def noting(plain: Callable[[Connection, str], int]) -> Callable[[Connection, str], int]:
        def waiting(connection: Connection, task: str) -> int:
            asked.append(task)
            return plain(connection, task)

        return waiting

    said = bench.store.dialect.statements
    monkeypatch.setattr(said, "waiting", noting(said.waiting))
    benches[0].adds(*(an_add(task=task, size=1) for task in tasks))
    benches[1].adds(*(an_add(task=task, size=1) for task in reversed(tasks)))

    assert asked == tasks * 2


def test_debts_that_are_just_being_paid_in_keep_nobody_waiting_and_count(
    bench: Bench, here: Place, caller: Connection
) -> None:
    with bench.store.borrow(caller) as cycle:
        cycle.add(an_add(size=2))
    caller.commit()
    with ThreadPoolExecutor(1) as thread, somebody(here) as other:
        execute(other, "DELETE FROM yaotask_size_debts")
        (ticket,) = thread.submit(bench.adds, an_add(2, size=2)).result(PATIENCE)
        early = bench.waiting()
    bench.cycle(worker=1, others=True)

    assert isinstance(ticket.error, QueueFull)
    assert (early, bench.waiting()) == (1, 2)


def test_what_was_undone_is_no_trace_of_a_cycle(bench: Bench) -> None:
    bench.add(id=7)
    new_and_taken = an_add(key="new")
    new_and_taken.jobs += an_add(id=7).jobs
    harvest = bench.cycle(adds=[new_and_taken])

    assert isinstance(new_and_taken.ticket.error, DuplicateJobId)
    assert harvest.first_stored is None


class Taker:
    """Takes ten claims."""

    def __init__(self) -> None:
        self.claims: list[Claim] = []

    def demand(self) -> int:
        return 10 - len(self.claims)

    def deliver(self, claims: Sequence[Claim]) -> None:
        self.claims += claims

    def lost(self, key: int, fence: int) -> None:
        """Nothing is lost here."""

    def cancelled(self, key: int, fence: int) -> bool:
        return False


def test_what_was_too_long_for_one_claim_comes_with_the_next(bench: Bench, clock: ManualClock) -> None:
    args = dumps(["x" * 1_500_000])
    for _ in range(5):
        bench.add(args=args)
    bench.write("INSERT INTO yaotask_workers (key, incarnation, host, pid, started_at) VALUES (1, 'one', '', 1, 0)")
    ledger, taker = Ledger(bench.store, clock, EvenChance()), Taker()
    ledger.employ(1, {"mail": taker}, Postman())
    while ledger.turn() == 0:
        pass

    assert len(taker.claims) == 5


def test_many_long_failures_are_written_in_parts(
    bench: Bench, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.add(1_500)
    failed = Failed(Failure("ValueError", "bad", "'" * 16_000))
    ledger = Ledger(bench.store, clock, EvenChance())
    for claim in bench.claim(1_500):
        ledger.finish(bench.end(claim, failed))
    refused: list[Exception] = []
    run = bench.store.run_cycle

    def run_cycle(mailbox: Mailbox) -> Harvest:
        try:
            return run(mailbox)
        except StorageError as error:
            refused.append(error)
            raise

    monkeypatch.setattr(bench.store, "run_cycle", run_cycle)
    while ledger.turn() == 0:
        pass

    assert not refused
    assert bench.value("SELECT count(*) FROM yaotask_jobs WHERE state = 3") == 1_500


def test_a_savepoint_of_the_caller_is_left_alone(bench: Bench, caller: Connection) -> None:
    caller.exec_driver_sql("SAVEPOINT first")
    with bench.store.borrow(caller) as cycle:
        cycle.add(an_add())
    caller.exec_driver_sql("ROLLBACK TO SAVEPOINT first")
    caller.commit()

    assert bench.query("SELECT id FROM yaotask_jobs") == []
