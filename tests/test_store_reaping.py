"""Claims of the dead go to the living (T7), and who leaves in order gives back (T10)."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from reach_support import Reach
from store_support import DONE, EVERY_EVENT, FAILED, Bench, ManualClock

from yaotask.clock import SECOND
from yaotask.events import ADD_BIT, CANCEL_BIT, ERROR_BIT, RETRY_BIT, EventKind
from yaotask.jobs import Claim, JobState
from yaotask.jsoncheck import MAX_INTEGER
from yaotask.runtime.reaper import Reaper
from yaotask.store import presence
from yaotask.store.cycle import SqlCycle
from yaotask.store.presence import Lock, Lost
from yaotask.store.protocol import Started

pytest_plugins = ["store_fixtures"]


@pytest.fixture
def us(bench: Bench, tmp_path: Path) -> Iterator[int]:
    """This process as a worker."""
    lock = Lock.take(tmp_path / "workers", "ours")
    yield bench.errand(lambda cycle: presence.register(cycle, "ours", lock))
    lock.release()


def die(bench: Bench, folder: Path, name: str, most: int = 10) -> tuple[int, list[Claim]]:
    """A worker comes, claims, and is gone with its lock free; its key, and what it had."""
    lock = Lock.take(folder / "workers", name)
    worker = bench.errand(lambda cycle: presence.register(cycle, name, lock))
    claims = bench.claim(most, worker=worker)
    os.close(lock.handle)
    return worker, claims


def test_the_key_of_a_process_is_of_its_hour_and_its_name_and_any_reader_can_keep_it(
    bench: Bench, tmp_path: Path
) -> None:
    """The database, which may have lost the last ones that it entered, does not number it."""
    lock = Lock.take(tmp_path / "workers", "lock")

    def register(cycle: SqlCycle) -> tuple[int, ...]:
        now = cycle.now
        keys = [presence.register(cycle, name, lock) for name in ("one", "other")]
        cycle.now += HOUR
        cycle.execute("DELETE FROM yaotask_workers")
        again = presence.register(cycle, "one", lock)
        hour = now // HOUR
        assert [key >> presence.BITS for key in (*keys, again)] == [hour, hour, hour + 1]
        assert max(*keys, again) <= MAX_INTEGER
        return (*keys, again)

    assert len(set(bench.errand(register))) == 3
    lock.release()


def reap(bench: Bench, us: int, lapsed_before: int = 0) -> list[Lost]:
    found: list[Lost] = bench.errand(lambda cycle: presence.reap(cycle, us, lambda: lapsed_before))
    return found


def any_dead(bench: Bench, us: int) -> bool:
    with bench.store.reading() as connection:
        return presence.any_dead(connection, us)


def test_claims_of_the_dead_go_to_the_living(bench: Bench, us: int, tmp_path: Path) -> None:
    bench.add(2)
    worker, (stale, _) = die(bench, tmp_path, "theirs")
    lost = reap(bench, us)
    row = bench.row()

    assert lost == [Lost("mail.1"), Lost("mail.2")]
    assert (row["state"], row["attempt"], row["error_type"]) == (JobState.RETRYING, 0, "WorkerLost")
    assert row["fence"] == stale.fence + 1
    assert not bench.finish(stale)
    assert [claim.attempt for claim in bench.claim(worker=us)] == [1, 1]
    assert bench.query("SELECT DISTINCT outcome, worker FROM yaotask_attempts") == [
        {"outcome": "lost", "worker": worker}
    ]


def test_the_row_and_the_lock_of_the_dead_leave(bench: Bench, us: int, tmp_path: Path) -> None:
    bench.add()
    die(bench, tmp_path, "theirs")
    before = any_dead(bench, us)
    reap(bench, us)

    assert before
    assert not any_dead(bench, us)
    assert [row["key"] for row in bench.query("SELECT key FROM yaotask_workers")] == [us]
    assert [path.name for path in (tmp_path / "workers").iterdir()] == ["ours.lock"]


async def test_locks_of_the_dead_that_no_row_tells_of_are_removed(bench: Bench, us: int, tmp_path: Path) -> None:
    """Whoever took out their rows died before he had removed them, or was on another machine."""
    workers = tmp_path / "workers"
    for name in ("gone", "living"):
        lock = Lock.take(workers, name)
        (workers / f"{name}-worker1.hint").touch()
        if name == "gone":
            os.close(lock.handle)
    os.close(Lock.take(tmp_path / "elsewhere", "gone").handle)
    await Reaper(Reach(bench).access, us, folder=workers).reap()

    assert sorted(path.name for path in workers.iterdir()) == ["living-worker1.hint", "living.lock", "ours.lock"]
    assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == ["gone.lock"]
    lock.release()


def test_a_living_node_keeps_its_lock_though_its_lease_ran_out(
    bench: Bench, us: int, leased: tuple[int, Claim], store_clock: ManualClock, tmp_path: Path
) -> None:
    """It enters anew once it goes on, and only by its lock others see that it lives, or does not."""
    # Taken for dead by its lease.
    store_clock.advance(2 * LEASE / SECOND)
    for _ in range(2):
        bench.errand(lambda cycle: presence.reap(cycle, us, store_clock.now))

    assert [row["key"] for row in bench.query("SELECT key FROM yaotask_workers")] == [us]
    assert (tmp_path / "workers" / "leased.lock").exists()


async def test_what_is_left_behind_is_looked_for_again_where_that_could_not_be_done(
    bench: Bench, us: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    os.close(Lock.take(tmp_path / "workers", "gone").handle)
    reaper = Reaper(Reach(bench).access, us, folder=tmp_path / "workers")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "glob", refuse)
        await reaper.reap()
    assert (tmp_path / "workers" / "gone.lock").exists()
    await reaper.reap()
    assert not (tmp_path / "workers" / "gone.lock").exists()


def test_the_lock_of_one_that_is_still_to_be_judged_stays(bench: Bench, tmp_path: Path) -> None:
    die(bench, tmp_path, "theirs")
    with bench.store.reading() as connection:
        assert presence.strays(connection, presence.unheld(tmp_path / "workers")) == []


async def test_a_lock_that_cannot_be_removed_is_told_of_once(
    bench: Bench, us: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    os.close(Lock.take(tmp_path / "workers", "gone").handle)
    (tmp_path / "workers" / "gone-worker1.hint").mkdir()
    reaper = Reaper(Reach(bench).access, us, folder=tmp_path / "workers")
    for _ in range(2):
        await reaper.reap()

    assert [record.message for record in caplog.records if "stay behind" in record.message] == [caplog.messages[0]]


def test_the_living_keep_their_claims(bench: Bench, us: int, tmp_path: Path) -> None:
    bench.add()
    lock = Lock.take(tmp_path / "workers", "theirs")
    worker = bench.errand(lambda cycle: presence.register(cycle, "theirs", lock))
    claim = bench.claim_one(worker=worker)

    assert not any_dead(bench, us)
    assert reap(bench, us) == []
    assert bench.finish(claim)
    lock.release()


def test_a_worker_without_a_row_is_lost(bench: Bench, us: int) -> None:
    bench.add()
    bench.claim_one(worker=99)
    before = any_dead(bench, us)

    assert before
    assert [lost.name for lost in reap(bench, us)] == ["mail.1"]
    assert not any_dead(bench, us)


def test_a_shared_death_marks_a_job_once_and_adds_no_more(bench: Bench, us: int, tmp_path: Path) -> None:
    bench.add(2)
    for number in range(5):
        die(bench, tmp_path, f"theirs{number}")
        reap(bench, us)

    assert [(bench.row(id)["losses"], bench.row(id)["deaths"]) for id in (1, 2)] == [(1, 5), (1, 5)]


def test_twenty_deaths_end_a_job_that_was_always_there(bench: Bench, us: int, tmp_path: Path) -> None:
    bench.add(2, events=ERROR_BIT)
    for number in range(20):
        die(bench, tmp_path, f"theirs{number}")
        lost = reap(bench, us)

    row = bench.row()

    assert [one.poisoned for one in lost] == [True, True]
    assert (row["error_type"], row["attempt"], row["finished_at"]) == ("PoisonedJob", 1, bench.clock.now())
    assert "20 processes died" in row["error"]
    assert bench.query("SELECT id, kind FROM yaotask_events ORDER BY id") == [
        {"id": 1, "kind": EventKind.ERROR},
        {"id": 2, "kind": EventKind.ERROR},
    ]
    assert bench.value("SELECT sum(jobs) FROM yaotask_rollups WHERE outcome = 3") == 2


def test_a_manual_retry_forgets_the_losses(bench: Bench, us: int, tmp_path: Path) -> None:
    bench.add()
    die(bench, tmp_path, "theirs")
    reap(bench, us)
    bench.finish(bench.claim_one(worker=us), FAILED)
    bench.errand(lambda cycle: cycle.retry("mail", 1))

    assert (bench.row()["losses"], bench.row()["deaths"]) == (0, 0)
    assert bench.finish(bench.claim_one(worker=us))


def test_a_lost_job_waits_for_its_retry_event(bench: Bench, us: int, tmp_path: Path) -> None:
    bench.add(events=RETRY_BIT)
    die(bench, tmp_path, "theirs")
    reap(bench, us)

    assert bench.claim(worker=us) == []
    assert bench.value("SELECT data FROM yaotask_events").endswith(",1,0]")


def test_deliveries_of_the_dead_are_given_out_again(bench: Bench, us: int, tmp_path: Path) -> None:
    bench.add(events=ADD_BIT)
    worker, _ = die(bench, tmp_path, "theirs")
    bench.cycle(worker=worker, deliveries=5, delivery_tasks=("mail",))
    reap(bench, us)

    assert len(bench.cycle(worker=us, deliveries=5, delivery_tasks=("mail",)).deliveries) == 1


def test_one_bad_row_holds_up_no_other(bench: Bench, us: int, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bench.add(3)
    die(bench, tmp_path, "theirs")
    bench.refuse("bad", "UPDATE", "OLD.id = 2", "bad row")
    with caplog.at_level(logging.ERROR):
        lost = reap(bench, us)
    bench.release("bad")

    assert [one.name for one in lost] == ["mail.1", "mail.3"]
    assert "mail.2 could not be taken back" in caplog.text
    assert [one.name for one in reap(bench, us)] == ["mail.2"]


def test_a_bad_row_is_told_once(bench: Bench, us: int, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bench.add(1)
    die(bench, tmp_path, "theirs")
    bench.refuse("bad", "UPDATE", "OLD.id = OLD.id", "bad row")
    told: set[int] = set()
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            bench.errand(lambda cycle: presence.reap(cycle, us, told=told))

    assert len(caplog.messages) == 1


def test_claims_are_taken_back_some_at_a_time(bench: Bench, us: int, tmp_path: Path) -> None:
    bench.add(501)
    die(bench, tmp_path, "theirs", most=501)
    first = reap(bench, us)
    between = any_dead(bench, us)
    second = reap(bench, us)

    assert (len(first), between, len(second)) == (500, True, 1)
    assert not any_dead(bench, us)


def test_one_of_very_many_claims_is_found_and_lost(bench: Bench, us: int) -> None:
    bench.add(501)
    *_, last = bench.claim(501, worker=us)
    with bench.store.reading() as connection:
        held = presence.claims_of(connection, us)
    lost = bench.errand(lambda cycle: presence.lose(cycle, us, "it may have hung its worker", {last.key}))

    assert [claim.name for claim, _ in held][-1] == last.name
    assert lost == [Lost(last.name)]


def test_what_was_asked_to_end_is_cancelled_when_its_worker_dies(bench: Bench, us: int, tmp_path: Path) -> None:
    bench.add(2, events=CANCEL_BIT)
    die(bench, tmp_path, "theirs")
    bench.write("UPDATE yaotask_jobs SET cancel_at = 1, started_at = 1 WHERE id = 1")
    lost = reap(bench, us)

    assert lost == [Lost("mail.1", cancelled=True), Lost("mail.2")]
    assert (bench.state(1).name, bench.state(2).name) == ("CANCELLED", "RETRYING")
    assert bench.value("SELECT count(*) FROM yaotask_events WHERE id = 1 AND kind = :k", k=EventKind.CANCEL) == 1
    assert bench.value("SELECT sum(jobs) FROM yaotask_rollups WHERE outcome = 6") == 1


# --- leases ---------------------------------------------------------------------------------------------

LEASE, HOUR = 10 * SECOND, 3_600 * SECOND


@pytest.fixture
def leased(bench: Bench, tmp_path: Path) -> Iterator[tuple[int, Claim]]:
    """A worker of another node, alive by its lock, with a lease of ten seconds and a claim."""
    lock = Lock.take(tmp_path / "workers", "leased")
    worker = bench.errand(lambda cycle: presence.register(cycle, "leased", lock, kind="worker", node=77, lease=LEASE))
    bench.add()
    yield worker, bench.claim_one(worker=worker)
    lock.release()


def renew(bench: Bench, *workers: int) -> set[int]:
    return bench.store.write_aside(partial(presence.renew, infos=dict.fromkeys(workers, "{}"), lease=LEASE))


def test_a_lease_that_has_run_out_loses_its_claims_although_its_holder_lives(
    bench: Bench, us: int, leased: tuple[int, Claim]
) -> None:
    bench.clock.advance(11)
    unasked = reap(bench, us)
    lost = reap(bench, us, lapsed_before=bench.clock.now())

    assert (unasked, lost) == ([], [Lost("mail.1")])
    assert not bench.finish(leased[1])
    assert bench.value("SELECT count(*) FROM yaotask_workers WHERE key = :key", key=leased[0]) == 0


def test_a_renewed_lease_keeps_its_claims(bench: Bench, us: int, leased: tuple[int, Claim]) -> None:
    bench.clock.advance(9)
    missing = renew(bench, leased[0], 4711)
    bench.clock.advance(9)

    assert missing == {4711}
    assert reap(bench, us, lapsed_before=bench.clock.now()) == []
    assert bench.finish(leased[1])


@pytest.fixture
def store_clock(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> ManualClock:
    """The clock of the store, which was looked at a moment ago, when it was an hour ahead of ours."""
    clock = ManualClock()
    clock.wall += HOUR
    monkeypatch.setattr(bench.store.dialect, "now", lambda *_: clock.now())
    bench.errand(lambda cycle: cycle.now)
    return clock


def test_a_lease_is_renewed_by_the_clock_as_it_is_now(
    bench: Bench, leased: tuple[int, Claim], store_clock: ManualClock
) -> None:
    store_clock.wall += HOUR
    renew(bench, leased[0])

    assert bench.value("SELECT expires_at FROM yaotask_workers WHERE kind = 'worker'") == store_clock.now() + LEASE


async def test_leases_are_judged_by_the_clock_as_it_is_now(
    bench: Bench, us: int, leased: tuple[int, Claim], store_clock: ManualClock
) -> None:
    # Set back, which others have seen, and renewed their leases.
    store_clock.wall -= HOUR
    bench.write("UPDATE yaotask_workers SET expires_at = :at WHERE kind = 'worker'", at=store_clock.now() + LEASE)
    await Reaper(Reach(bench).access, us, lambda ask: ask()).reap()

    assert bench.finish(leased[1])


def test_leases_are_judged_by_a_time_after_they_were_looked_at(
    bench: Bench, us: int, leased: tuple[int, Claim], store_clock: ManualClock
) -> None:
    renew(bench, leased[0])

    def set_back_just_after() -> int:
        moment = store_clock.now()
        store_clock.wall -= HOUR
        renew(bench, leased[0])
        return moment

    with bench.store.reading() as connection:
        assert not presence.any_dead(connection, us, set_back_just_after)


def test_a_lease_that_is_renewed_after_it_was_looked_at_has_not_run_out(
    bench: Bench, us: int, leased: tuple[int, Claim]
) -> None:
    """Whoever judges may stand still for long in between."""
    bench.clock.advance(9)
    pauses = iter([0, 2])

    def now() -> int:
        bench.clock.advance(next(pauses))
        return bench.clock.now()

    assert bench.errand(lambda cycle: presence.reap(cycle, us, now)) == []


def test_processes_of_ones_own_node_are_not_judged(bench: Bench, leased: tuple[int, Claim]) -> None:
    bench.clock.advance(11)

    assert reap(bench, 77, lapsed_before=bench.clock.now()) == []


def test_a_worker_that_was_taken_for_dead_claims_no_more(bench: Bench, us: int, leased: tuple[int, Claim]) -> None:
    bench.add()
    before = bench.cycle(worker=leased[0], entered=True, demands={"mail": 1})
    bench.finish(before.claims["mail"][0])
    bench.add()
    bench.clock.advance(11)
    reap(bench, us, lapsed_before=bench.clock.now())
    after = bench.cycle(worker=leased[0], entered=True, demands={"mail": 1})

    assert (before.dismissed, len(before.claims["mail"])) == (False, 1)
    assert (after.dismissed, after.claims) == (True, {})


# --- leaving in order (T10) ---------------------------------------------------------------------------


def test_who_leaves_gives_back_what_was_not_finished(bench: Bench, us: int) -> None:
    bench.add(3)
    bench.finish(bench.claim_one(worker=us), FAILED, worker=us)
    bench.errand(lambda cycle: cycle.retry("mail", 1))
    started, fresh, _ = bench.claim(worker=us)
    bench.cycle(started=[Started(started.key, started.fence, bench.clock.now())])
    given_back = bench.errand(lambda cycle: presence.leave(cycle, us))

    assert given_back == 3
    assert [(bench.state(id).name, bench.row(id)["attempt"]) for id in (1, 2, 3)] == [("WAITING", 0)] * 3
    assert not bench.finish(fresh)
    assert bench.query("SELECT * FROM yaotask_workers") == []


def test_what_was_tried_before_is_given_back_as_retrying(bench: Bench, us: int, tmp_path: Path) -> None:
    bench.add(events=EVERY_EVENT & ~RETRY_BIT & ~ADD_BIT)
    die(bench, tmp_path, "theirs")
    reap(bench, us)
    bench.claim_one(worker=us)
    bench.errand(lambda cycle: presence.leave(cycle, us))

    assert bench.state() is JobState.RETRYING
    assert bench.finish(bench.claim_one(worker=us), DONE)
