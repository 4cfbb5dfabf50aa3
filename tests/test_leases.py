"""When the leases of other nodes may be judged: never by one that was itself out of time."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
from reach_support import Reach
from store_support import Bench, ManualClock

from yaotask.clock import SECOND
from yaotask.errors import StorageBusy
from yaotask.runtime.leases import Leases
from yaotask.runtime.reaper import EVERY, Reaper
from yaotask.store import presence
from yaotask.store.presence import Lock

pytest_plugins = ["store_fixtures"]

LEASE = 30
HEARTBEAT = 10


class Node:
    """A supervisor that renews its lease, and nothing else."""

    def __init__(self, bench: Bench, worker: int) -> None:
        self.clock = bench.clock
        self.store = bench.store
        self.worker = worker
        self.leases = Leases(Reach(bench).access, bench.clock, timedelta(seconds=LEASE))

    async def renew(self) -> set[int]:
        return await self.leases.renew({self.worker: "{}"})

    async def live(self, seconds: int) -> None:
        """Renew as supervisors do, at the end of each heartbeat."""
        for _ in range(seconds // HEARTBEAT):
            self.clock.advance(HEARTBEAT)
            await self.renew()

    @contextmanager
    def outage(self) -> Iterator[None]:
        def refuse(work: object) -> None:
            raise StorageBusy("database is locked")

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(self.store, "write_aside", refuse)
            yield

    @property
    def may_judge(self) -> bool:
        return self.leases.lapsed_before(self.clock.now) > 0


@pytest.fixture
def worker(bench: Bench, tmp_path: Path) -> Iterator[int]:
    lock = Lock.take(tmp_path / "workers", "ours")
    yield bench.errand(lambda cycle: presence.register(cycle, "ours", lock, lease=LEASE * SECOND))
    lock.release()


@pytest.fixture
def node(bench: Bench, worker: int) -> Node:
    return Node(bench, worker)


@pytest.fixture
async def settled(node: Node) -> Node:
    """One that has kept its lease for long."""
    await node.renew()
    await node.live(2 * LEASE)
    assert node.may_judge
    return node


def expiry(bench: Bench) -> int:
    return int(bench.value("SELECT expires_at FROM yaotask_workers"))


# --- renewing --------------------------------------------------------------------------------------


async def test_a_renewed_lease_ends_one_lease_from_now(node: Node, bench: Bench, clock: ManualClock) -> None:
    clock.advance(HEARTBEAT)

    assert await node.renew() == set()
    assert expiry(bench) == clock.now() + LEASE * SECOND


async def test_what_is_known_of_a_process_is_stored_with_its_lease(node: Node, bench: Bench) -> None:
    await node.leases.renew({node.worker: '{"state": "working"}'})

    assert bench.value("SELECT info FROM yaotask_workers") == '{"state": "working"}'


async def test_those_that_others_took_for_dead_are_told(node: Node, bench: Bench) -> None:
    bench.write("DELETE FROM yaotask_workers")

    assert await node.leases.renew({node.worker: "{}", 99: "{}"}) == {node.worker, 99}


# --- judging ---------------------------------------------------------------------------------------


async def test_nobody_judges_who_has_not_kept_a_lease_of_its_own_for_as_long(node: Node) -> None:
    assert not node.may_judge
    await node.renew()
    await node.live(LEASE - HEARTBEAT)

    assert not node.may_judge


async def test_who_has_kept_its_lease_judges_by_the_time_of_now(node: Node, clock: ManualClock) -> None:
    await node.renew()
    await node.live(LEASE)

    assert node.leases.lapsed_before(clock.now) == clock.now()


async def test_who_paused_for_longer_than_its_lease_judges_nobody(settled: Node, clock: ManualClock) -> None:
    clock.advance(LEASE + 1)

    assert not settled.may_judge


async def test_after_a_pause_others_get_the_time_of_a_lease_to_renew_first(settled: Node, clock: ManualClock) -> None:
    clock.advance(LEASE + 1)
    await settled.renew()
    await settled.live(LEASE - HEARTBEAT)
    before = settled.may_judge
    await settled.live(HEARTBEAT)

    assert not before
    assert settled.may_judge


async def test_a_pause_shorter_than_the_lease_changes_nothing(settled: Node, clock: ManualClock) -> None:
    clock.advance(LEASE - 1)

    assert settled.may_judge


async def test_after_an_outage_of_the_store_others_get_the_time_to_renew_first(settled: Node) -> None:
    with settled.outage(), pytest.raises(StorageBusy):
        await settled.renew()
    await settled.renew()
    before = settled.may_judge
    await settled.live(LEASE)

    assert not before
    assert settled.may_judge


# --- jumps of the clock ----------------------------------------------------------------------------


@pytest.mark.parametrize(("seconds", "words"), [(3600, "forward by 1h"), (-3600, "back by 1h")])
async def test_after_a_jump_of_the_clock_nobody_is_judged_for_a_lease(
    settled: Node, clock: ManualClock, caplog: pytest.LogCaptureFixture, seconds: int, words: str
) -> None:
    clock.wall += seconds * SECOND
    with caplog.at_level(logging.WARNING):
        jumped = settled.may_judge
    await settled.live(LEASE - HEARTBEAT)
    before = settled.may_judge
    await settled.live(HEARTBEAT)

    assert (jumped, before, settled.may_judge) == (False, False, True)
    assert words in caplog.text


async def test_a_machine_that_slept_has_jumped(settled: Node, clock: ManualClock) -> None:
    # What the monotonic clock counts stands still meanwhile.
    clock.wall += 8 * 3600 * SECOND

    assert not settled.may_judge


async def test_a_jump_is_told_once(settled: Node, clock: ManualClock) -> None:
    clock.wall += 3600 * SECOND
    assert not settled.may_judge

    assert settled.leases.take_jump()
    assert not settled.leases.take_jump()


async def test_a_clock_that_is_set_right_by_a_little_has_not_jumped(settled: Node, clock: ManualClock) -> None:
    clock.wall += LEASE // 2 * SECOND

    assert settled.may_judge
    assert not settled.leases.take_jump()


async def test_an_answer_that_comes_late_is_no_jump(settled: Node, clock: ManualClock) -> None:
    def answer_late() -> int:
        seen = clock.now()
        clock.advance(0.9 * LEASE)
        return seen

    settled.leases.lapsed_before(answer_late)
    settled.leases.lapsed_before(clock.now)

    assert not settled.leases.take_jump()


# --- leases of others ------------------------------------------------------------------------------


class Judge(Node):
    """A node that looks for the dead too; `others` renew theirs meanwhile, as often as their leases want it."""

    def __init__(self, bench: Bench, worker: int) -> None:
        super().__init__(bench, worker)
        self.others: dict[int, int] = {}
        self._bench = bench
        self._reaper = Reaper(Reach(bench).access, worker, self.leases.lapsed_before, self.leases.see)

    async def live(self, seconds: int) -> None:
        for second in range(1, seconds + 1):
            self.clock.advance(EVERY)
            for other, lease in self.others.items():
                if second % (lease // 3) == 0:
                    self.store.write_aside(partial(presence.renew, infos={other: "{}"}, lease=lease * SECOND))
            if second % HEARTBEAT == 0:
                await self.renew()
            await self._reaper.reap()
            if self.leases.take_jump():
                await self.renew()

    @property
    def entered(self) -> set[int]:
        return {row["key"] for row in self._bench.query("SELECT key FROM yaotask_workers")} - {self.worker}


@pytest.fixture
async def judge(bench: Bench, worker: int) -> Judge:
    judge = Judge(bench, worker)
    await judge.renew()
    await judge.live(2 * LEASE)
    assert judge.may_judge
    return judge


@pytest.fixture
def enter(bench: Bench, tmp_path: Path) -> Iterator[Callable[[str, int], int]]:
    """Enters a process of another node, which its lock does not prove to be dead."""
    locks: list[Lock] = []

    def enter(name: str, lease: int = LEASE) -> int:
        locks.append(Lock.take(tmp_path / "workers", name))
        register = partial(presence.register, incarnation=name, lock=locks[-1], node=77, lease=lease * SECOND)
        return int(bench.errand(register))

    yield enter
    for lock in locks:
        lock.release()


async def test_who_renews_no_more_is_found_when_its_lease_and_a_look_are_over(
    judge: Judge, enter: Callable[..., int]
) -> None:
    other = enter("other")
    await judge.live(LEASE)
    before = judge.entered
    await judge.live(2)

    assert before == {other}
    assert judge.entered == set()


async def test_renewals_that_a_server_has_lost_are_held_against_nobody(
    judge: Judge, bench: Bench, enter: Callable[..., int]
) -> None:
    """As a replica loses them that takes over between two renewals."""
    living, dead = enter("living"), enter("dead")
    judge.others = {living: LEASE}
    await judge.live(HEARTBEAT)
    bench.write(
        "UPDATE yaotask_workers SET renewed_at = renewed_at - :lost, expires_at = expires_at - :lost",
        lost=45 * SECOND,
    )
    await judge.live(LEASE - 1)
    before = judge.entered
    await judge.live(3)

    assert before == {living, dead}
    assert judge.entered == {living}


@pytest.mark.parametrize("back", [35, 55, 3600])
async def test_who_died_before_the_clock_was_set_back_is_found_and_nobody_else(
    judge: Judge, clock: ManualClock, enter: Callable[..., int], back: int
) -> None:
    """A long lease is renewed less often than others are judged."""
    living, patient, dead = enter("living"), enter("patient", 9 * LEASE), enter("dead")
    judge.others = {living: LEASE, patient: 9 * LEASE}
    await judge.live(HEARTBEAT)
    clock.wall -= back * SECOND
    await judge.live(LEASE)
    before = judge.entered
    await judge.live(2)

    assert before == {living, patient, dead}
    assert judge.entered == {living, patient}
