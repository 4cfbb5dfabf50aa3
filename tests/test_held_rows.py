"""Somebody's SQL session keeps rows of jobs locked: they wait, and nothing else does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from fleet_folders import folder
from run_support import add, job, notes, running, until
from server_fixtures import Database
from sqlalchemy import create_engine
from store_support import (
    EVERY_EVENT,
    FAILED,
    Bench,
    EvenChance,
    ManualClock,
    Postman,
    an_add,
    answer,
    behind,
    connected,
)

from yaotask.errors import StorageBusy
from yaotask.jobs import Claim, JobState
from yaotask.store.direct import execute
from yaotask.store.ledger import Ledger
from yaotask.store.opening import Place, place
from yaotask.store.protocol import Mailbox, Progress, Ticket
from yaotask.store.shelf import LONGEST_PAUSE, PATIENCE

pytest_plugins = ["store_fixtures"]
pytestmark = pytest.mark.only_on("postgresql", "mariadb")

# More than one wait for a lock, and less than one for each of several.
ONE_WAIT = 8
SHORT = {"postgresql": "SET lock_timeout = 300", "mysql": "SET SESSION innodb_lock_wait_timeout = 1"}


@contextmanager
def locked(place: Place, id: int, task: str = "mail") -> Iterator[None]:
    """Somebody else's session has the row of this job, and keeps it as long as it likes."""
    dialect = place.dialect()
    ours = {"ssl_disabled": True} if dialect.name == "mysql" else {}
    engine = create_engine(dialect.engine(writer=False).url, connect_args=ours)
    with engine.connect() as other:
        execute(
            other, "SELECT * FROM yaotask_jobs WHERE task = :task AND id = :id FOR UPDATE", {"task": task, "id": id}
        )
        yield
        other.rollback()
    engine.dispose()


class Taker:
    """Takes claims, and notes those that are lost."""

    def __init__(self) -> None:
        self.claims: list[Claim] = []
        self.lost_claims: list[tuple[int, int]] = []

    def demand(self) -> int:
        return 10

    def deliver(self, claims: Sequence[Claim]) -> None:
        self.claims += claims

    def lost(self, key: int, fence: int) -> None:
        self.lost_claims.append((key, fence))

    def cancelled(self, key: int, fence: int) -> bool:
        return True


@pytest.fixture
def taker() -> Taker:
    return Taker()


@pytest.fixture
def postman() -> Postman:
    return Postman("mail")


@pytest.fixture
def ledger(bench: Bench, clock: ManualClock, taker: Taker, postman: Postman) -> Ledger:
    bench.write("INSERT INTO yaotask_workers (key, incarnation, host, pid, started_at) VALUES (1, 'one', '', 1, 0)")
    execute(bench.store.writer.connected(), SHORT[bench.store.dialect.name])
    ledger = Ledger(bench.store, clock, EvenChance())
    ledger.employ(1, {"mail": taker}, postman)
    return ledger


def turn(ledger: Ledger) -> None:
    """One turn, which must not last."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(ledger.turn).result(ONE_WAIT)


def later(ledger: Ledger, clock: ManualClock) -> None:
    """The turn in which all is tried again that was put off."""
    clock.advance(LONGEST_PAUSE)
    turn(ledger)


def started(ledger: Ledger, taker: Taker, count: int) -> list[Claim]:
    """So many jobs that run."""
    ledger.add(an_add(count))
    turn(ledger)
    return taker.claims


# --- one cycle -------------------------------------------------------------------------------------


def test_ends_of_held_jobs_are_told_and_all_others_stored(bench: Bench, here: Place) -> None:
    bench.add(3)
    claims = bench.claim()
    mailbox = Mailbox(1, finishes=[bench.end(claim) for claim in claims], adds=[an_add()])
    with locked(here, 2):
        harvest = bench.store.run_cycle(mailbox)
        states = [bench.state(id) for id in (1, 2, 3)]
    put_off = mailbox.take_out(harvest.held)
    again = bench.store.run_cycle(put_off)

    assert states == [JobState.SUCCESS, JobState.RUNNING, JobState.SUCCESS]
    assert harvest.held.jobs == {claims[1].key}
    assert ([finish.claim.id for finish in put_off.finishes], len(mailbox.finishes)) == ([2], 2)
    assert (again.held, again.lost, harvest.lost) == (type(again.held)(), [], [])
    assert bench.state(2) is JobState.SUCCESS
    assert bench.value("SELECT sum(jobs) FROM yaotask_rollups") == 3


def test_a_job_that_is_not_there_is_not_held(bench: Bench, here: Place) -> None:
    bench.add(2)
    gone, held = bench.claim()
    finishes = [bench.end(gone._replace(key=4711)), bench.end(held)]
    with locked(here, 2):
        harvest = bench.cycle(finishes=finishes)

    assert harvest.held.jobs == {held.key}
    assert harvest.lost == [(4711, gone.fence)]


def test_many_adds_of_held_keys_wait_together(bench: Bench, here: Place) -> None:
    blocked = [an_add(key=key) for key in ("one", "two", "three") * 4]
    free = [an_add(), an_add(key="free")]
    with connected(here) as other:
        execute(other, "BEGIN")
        with bench.store.borrow(other) as cycle:
            for key in ("one", "two", "three"):
                cycle.add(an_add(key=key))
        with ThreadPoolExecutor(1) as thread:
            harvest = thread.submit(bench.cycle, adds=[*blocked, *free]).result(ONE_WAIT)
        execute(other, "COMMIT")
    bench.store.run_cycle(Mailbox(adds=blocked, hurried=True))

    assert harvest.held.requests == set(blocked)
    assert all(answer(one.ticket) for one in free)
    assert len({answer(one.ticket)[0] for one in blocked}) == 3
    assert bench.value("SELECT count(*) FROM yaotask_jobs") == 5


@pytest.mark.parametrize("worker", [None, 1])
def test_an_add_of_a_held_key_is_put_aside_though_nothing_comes_after_it(
    bench: Bench, here: Place, worker: int | None
) -> None:
    free, blocked = an_add(), an_add(key="used")
    with connected(here) as other:
        execute(other, "BEGIN")
        with bench.store.borrow(other) as cycle:
            cycle.add(an_add(key="used"))
        with ThreadPoolExecutor(1) as thread:
            harvest = thread.submit(bench.cycle, worker=worker, adds=[free, blocked]).result(ONE_WAIT)
        execute(other, "COMMIT")

    assert harvest.held.requests == {blocked}
    assert answer(free.ticket)


def test_a_counter_is_waited_for_as_before_after_a_hurried_part(bench: Bench) -> None:
    bench.add(id=7)
    bench.adds(an_add(id=7), an_add())
    with bench.store.writer.translated():
        ask = {"postgresql": "SHOW lock_timeout", "mysql": "SELECT @@innodb_lock_wait_timeout"}
        waits = execute(bench.store.writer.connected(), ask[bench.store.dialect.name]).scalar()

    assert waits in ("2s", 2)


# --- turn by turn ----------------------------------------------------------------------------------


def test_the_end_of_a_held_job_is_stored_once_it_is_let_go(
    bench: Bench, here: Place, ledger: Ledger, taker: Taker, clock: ManualClock
) -> None:
    claims = started(ledger, taker, 2)
    with locked(here, 1):
        for claim in claims:
            ledger.finish(bench.end(claim))
        turn(ledger)
        while_held = (bench.state(1), bench.state(2), ledger.is_quiet)
        later(ledger, clock)
    later(ledger, clock)

    assert while_held == (JobState.RUNNING, JobState.SUCCESS, False)
    assert bench.state(1) is JobState.SUCCESS
    assert (sum(ledger.ended.values()), taker.lost_claims) == (2, [])
    assert bench.value("SELECT sum(jobs) FROM yaotask_rollups") == 2


def test_jobs_are_claimed_and_end_while_another_is_held(
    bench: Bench, here: Place, ledger: Ledger, taker: Taker, monkeypatch: pytest.MonkeyPatch
) -> None:
    (held,) = started(ledger, taker, 1)
    with locked(here, 1):
        ledger.finish(bench.end(held))
        turn(ledger)
        with monkeypatch.context() as patched:
            # Nothing is played twice any more: what is known to be held is not tried among the others.
            patched.setattr("yaotask.store.sql.replay", None)
            ledger.progress(Progress(held.key, held.fence, None, {"current": 5}))
            for claim in started(ledger, taker, 3)[1:]:
                ledger.finish(bench.end(claim))
            turn(ledger)
        states = [bench.state(id) for id in (1, 2, 3, 4)]

    assert states == [JobState.RUNNING] + [JobState.SUCCESS] * 3


def test_what_a_held_job_said_last_is_kept_with_its_end(
    bench: Bench, here: Place, ledger: Ledger, taker: Taker, clock: ManualClock
) -> None:
    (claim,) = started(ledger, taker, 1)
    with locked(here, 1):
        ledger.progress(Progress(claim.key, claim.fence, None, {"current": 3}))
        turn(ledger)
        ledger.finish(bench.end(claim, FAILED))
        turn(ledger)
    later(ledger, clock)

    assert (bench.state(), bench.row()["current"], taker.lost_claims) == (JobState.FAILURE, 3, [])


def test_a_cancellation_of_a_held_job_waits_alone(
    bench: Bench, here: Place, ledger: Ledger, taker: Taker, clock: ManualClock
) -> None:
    started(ledger, taker, 1)
    bench.add(run_at=clock.now() + 10**9)
    held, free = Ticket(), Ticket()
    with locked(here, 1):
        ledger.errand(lambda cycle: cycle.cancel("mail", 1), held)
        ledger.errand(lambda cycle: cycle.cancel("mail", 2), free)
        turn(ledger)
        while_held = (held.settle, held.value, held.error, answer(free))
    later(ledger, clock)

    assert while_held == (None, None, None, JobState.CANCELLED)
    assert answer(held) is JobState.CANCELLED
    assert bench.value("SELECT sum(jobs) FROM yaotask_rollups") == 2


def test_what_became_of_an_event_of_a_held_job_waits_alone(
    bench: Bench, here: Place, ledger: Ledger, postman: Postman, clock: ManualClock
) -> None:
    for _ in range(2):
        ledger.add(an_add(events=EVERY_EVENT))
    turn(ledger)
    turn(ledger)
    postman.delivered = list(postman.taken)
    with locked(here, 1):
        turn(ledger)
        left = bench.query("SELECT id FROM yaotask_events WHERE kind = 1")
    later(ledger, clock)

    assert [event.id for event in postman.taken] == [1, 2]
    assert left == [{"id": 1}]
    assert bench.query("SELECT id FROM yaotask_events WHERE kind = 1") == []


def test_a_held_event_keeps_only_events_waiting(
    bench: Bench, here: Place, ledger: Ledger, postman: Postman, clock: ManualClock
) -> None:
    ledger.add(an_add(events=EVERY_EVENT))
    turn(ledger)
    turn(ledger)
    postman.delivered = list(postman.taken)
    with connected(here) as other:
        execute(other, "BEGIN")
        execute(other, "SELECT * FROM yaotask_events FOR UPDATE")
        added = an_add(key="free")
        ledger.add(added)
        turn(ledger)
        held = bench.value("SELECT count(*) FROM yaotask_events")
        execute(other, "ROLLBACK")
    later(ledger, clock)

    assert (held, answer(added.ticket)) == (1, [2])
    assert bench.value("SELECT count(*) FROM yaotask_events") == 0


def test_who_waits_for_a_held_key_is_told_after_a_while(
    bench: Bench, here: Place, ledger: Ledger, clock: ManualClock
) -> None:
    both = [an_add(key="used"), an_add(key="used")]
    with connected(here) as other:
        execute(other, "BEGIN")
        with bench.store.borrow(other) as cycle:
            cycle.add(an_add(key="used"))
        for one in both:
            ledger.add(one)
        turn(ledger)
        early = [one.ticket.error for one in both]
        clock.advance(PATIENCE)
        later(ledger, clock)
        execute(other, "ROLLBACK")

    assert early == [None, None]
    assert all(isinstance(one.ticket.error, StorageBusy) for one in both)
    assert ledger.is_quiet


def test_what_is_left_at_the_end_is_refused(bench: Bench, here: Place, ledger: Ledger, taker: Taker) -> None:
    started(ledger, taker, 1)
    ticket = Ticket()
    with locked(here, 1):
        ledger.errand(lambda cycle: cycle.cancel("mail", 1), ticket)
        turn(ledger)
        hopeful = ledger.is_behind
        ledger.refuse(StorageBusy("it is over"))

    assert hopeful
    assert str(ticket.error) == "it is over"


# --- a node ----------------------------------------------------------------------------------------

TASKS = {"hold": "name: H\nprocess: scripts.hold.Hold\nworker_nums: 4\n"}
SCRIPTS = {
    "hold": """
    import time
    from pathlib import Path

    from scripts.witness import note

    def Hold(task_id):
        note("start", task_id)
        while not Path(f"gate-{task_id}").exists():
            time.sleep(0.01)
        note("end", task_id)
"""
}
SETTINGS = "lease: 3s\nheartbeat: 1s\npoll: 100ms\n"


def renewals(there: Place) -> dict[str, int]:
    return dict(behind(there, "SELECT key, renewed_at FROM yaotask_workers"))


def renewed_since(there: Place, before: dict[str, int]) -> bool:
    """Whether each process that was there before is there still, and has shown since that it lives."""
    now = renewals(there)
    return all(now[key] > then for key, then in before.items())


def open_gates(root: Path, *ids: int) -> None:
    for id in ids:
        (root / f"gate-{id}").touch()


def test_a_node_goes_on_while_somebody_has_the_row_of_a_running_job(tmp_path: Path, database: Database) -> None:
    root = folder(tmp_path, "node", database, tasks=TASKS, scripts=SCRIPTS, settings=SETTINGS)
    there = place(root, database.url)
    add(root)
    with running(root) as node:
        until(lambda: job(root)["status"] == "RUNNING")
        with locked(there, 1, "hold"):
            open_gates(root, *range(1, 9))
            until(lambda: notes(root, "end") == ["1"])
            for _ in range(7):
                add(root)
            until(lambda: all(job(root, id)["status"] == "SUCCESS" for id in range(2, 9)))
            # Longer than a lease.
            for _ in range(5):
                before = renewals(there)
                until(lambda before=before: renewed_since(there, before))  # type: ignore[misc]
            held = job(root)["status"]
        until(lambda: job(root)["status"] == "SUCCESS")
        node.signal()
        assert node.status() == 0

    assert held == "RUNNING"
    assert sorted(notes(root, "start")) == sorted(notes(root, "end")) == [str(id) for id in range(1, 9)]
    assert "8 succeeded" in node.errors
    assert not any(words in node.errors for words in ("lease", "cannot be written", "given to another"))
