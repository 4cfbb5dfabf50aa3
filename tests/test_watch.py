"""When a process of a node is said to hang, and what is done about it: by what it says, and by what it does not."""

from __future__ import annotations

import logging
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from runtime_support import PATIENCE
from store_support import Bench
from watch_support import CANCEL_GRACE, DUMP, GRACE, TIMEOUT, Guard, blocked, out_of_reach

from yaotask.jobs import RetryAfter
from yaotask.runtime import watch
from yaotask.runtime.estate import Legacy
from yaotask.runtime.watch import ANSWER, EVERY, IDLE_SILENCE, SILENT_AFTER, SLOW_START
from yaotask.store import presence
from yaotask.store.presence import Lock

pytest_plugins = ["store_fixtures"]


@pytest.fixture
async def guard(bench: Bench, tmp_path: Path) -> AsyncIterator[Guard]:
    lock = Lock.take(tmp_path / "workers", "ours")
    yield Guard(bench, bench.errand(lambda cycle: presence.register(cycle, "ours", lock)))
    lock.release()


# --- ends and starts -------------------------------------------------------------------------------


async def test_a_worker_that_is_well_is_left_alone(guard: Guard) -> None:
    guard.claim()
    guard.beat(blocked=None, stuck={})
    await guard.look(5)

    assert (guard.ward.ends, guard.ward.replaced) == ([], [])


async def test_a_process_that_has_ended_is_listened_to_no_longer(guard: Guard) -> None:
    guard.ward.process.is_over = True
    await guard.look()

    assert guard.ward.living.scope.cancel_called
    assert guard.ward.ends == []


async def test_a_process_that_does_not_end_in_time_is_killed(guard: Guard) -> None:
    guard.ward.living.due = guard.clock.monotonic() + EVERY
    await guard.look(2)
    before = list(guard.ward.ends)
    await guard.look()

    assert (before, guard.ward.ends) == ([], [None])


async def test_one_that_was_killed_is_not_judged_again(guard: Guard) -> None:
    guard.ward.living.legacy = Legacy(guard.worker)
    guard.ward.living.due = guard.clock.monotonic() - 1
    guard.beat(blocked=blocked(*guard.claim()))
    await guard.look(3)

    assert guard.ward.ends == []


async def test_a_slow_start_is_told_once(guard: Guard, caplog: pytest.LogCaptureFixture) -> None:
    guard.ward.living.worker = None
    guard.clock.advance(SLOW_START + 1)
    with caplog.at_level(logging.WARNING):
        await guard.look(3, silent=True)

    assert len(caplog.messages) == 1
    assert "worker 1 has been loading" in caplog.text
    assert guard.ward.ends == []


# --- what it says ----------------------------------------------------------------------------------


async def test_a_job_that_blocks_its_loop_past_its_time_fails_and_the_rest_is_handed_back(guard: Guard) -> None:
    culprit, _ = guard.claim(2)
    guard.beat(blocked=blocked(culprit))
    await guard.look()
    (legacy,) = guard.ward.ends

    assert legacy is not None
    assert [finish.claim.name for finish in legacy.overdue] == [culprit.name]
    assert isinstance(legacy.overdue[0].outcome, RetryAfter)
    assert (legacy.death, legacy.suspects) == (None, frozenset())


async def test_a_job_that_blocks_its_loop_has_its_time(guard: Guard) -> None:
    guard.beat(blocked=blocked(*guard.claim(), overdue=False))
    await guard.look(3)

    assert guard.ward.ends == []


async def test_what_is_no_job_and_blocks_the_loop_is_nobodys_loss(guard: Guard) -> None:
    guard.claim()
    guard.beat(blocked=blocked(None))
    await guard.look()

    assert guard.ward.ends == [None]


async def test_a_job_that_was_taken_from_its_worker_cannot_block_it_for_ever(guard: Guard) -> None:
    (gone,) = guard.claim(started=False)
    guard.bench.errand(lambda cycle: cycle.cancel("mail", gone.id))
    guard.beat(blocked=blocked(gone))
    await guard.look(2)
    before = list(guard.ward.ends)
    guard.beat(blocked=blocked(gone))
    await guard.look()

    assert (before, guard.ward.ends) == ([], [None])


async def test_a_job_that_has_ended_since_the_last_beat_ends_nothing(guard: Guard) -> None:
    (done,) = guard.claim()
    guard.beat(blocked=blocked(done))
    guard.bench.finish(done)
    await guard.look(2)
    guard.beat(blocked=None)
    await guard.look(2)

    assert guard.ward.ends == []


async def test_a_worker_that_only_another_can_help_is_replaced_once(
    guard: Guard, caplog: pytest.LogCaptureFixture
) -> None:
    guard.beat(stuck={"mail": "handlers that do not end hold all its places"})
    with caplog.at_level(logging.ERROR):
        await guard.look(3)

    assert guard.ward.replaced == [GRACE]
    assert caplog.messages == ["worker 1 is replaced: mail: handlers that do not end hold all its places"]


# --- what it does not say --------------------------------------------------------------------------


async def test_silence_is_told_once_with_the_jobs_and_what_the_threads_do(
    guard: Guard, caplog: pytest.LogCaptureFixture
) -> None:
    guard.claim(7)
    guard.silence(SILENT_AFTER + 0.1)
    with caplog.at_level(logging.ERROR):
        await guard.look(3, silent=True)
    (record,) = caplog.records

    assert "worker 1 (process 4711) has not answered for 1.6 s; it has mail.1, mail.2" in record.message
    assert "mail.5 and 2 more" in record.message
    assert record.__dict__["yaotask_stack"] == DUMP
    assert guard.ward.process.asked == 1
    assert guard.ward.ends == []


async def test_one_that_is_heard_of_again_answers_again(guard: Guard, caplog: pytest.LogCaptureFixture) -> None:
    guard.silence(SILENT_AFTER + 0.1)
    with caplog.at_level(logging.INFO):
        await guard.look(silent=True)
        await guard.look(2)

    assert caplog.messages[1:] == ["worker 1 answers again"]
    assert not guard.ward.living.silent


async def test_a_silent_worker_is_ended_once_a_job_of_its_is_overdue(guard: Guard) -> None:
    (claim,) = guard.claim()
    guard.clock.advance(TIMEOUT + CANCEL_GRACE - 2 * EVERY - ANSWER)
    guard.silence(SILENT_AFTER + 1)
    await guard.look(2, silent=True)
    before = list(guard.ward.ends)
    await guard.look(2, silent=True)
    (legacy,) = guard.ward.ends

    assert before == []
    assert legacy is not None
    assert [finish.claim.name for finish in legacy.overdue] == [claim.name]


@pytest.mark.parametrize("jump", [3_600, -3_600])
@pytest.mark.parametrize(("seconds", "ends"), [(TIMEOUT, 0), (TIMEOUT + CANCEL_GRACE + 1, 1)])
async def test_a_job_that_hangs_has_its_time_however_the_clock_jumps(
    guard: Guard, jump: int, seconds: float, ends: int
) -> None:
    guard.claim()
    guard.silence(SILENT_AFTER + 1)
    await guard.look(int(seconds / EVERY), silent=True, jump=jump)

    assert len(guard.ward.ends) == ends


async def test_of_several_that_may_hang_a_worker_none_fails(guard: Guard) -> None:
    claims = guard.claim(2, started=False)
    guard.clock.advance(TIMEOUT + CANCEL_GRACE + 1)
    guard.silence(SILENT_AFTER + 1)
    await guard.look(silent=True)

    assert guard.ward.ends == [Legacy(guard.worker, overdue=[], suspects=frozenset(claim.key for claim in claims))]


async def test_a_job_of_a_task_that_is_not_known_here_has_the_usual_time_and_runs_alone_then(guard: Guard) -> None:
    (claim,) = guard.claim(task="new")
    guard.clock.advance(299)
    guard.silence(SILENT_AFTER + 1)
    await guard.look(2, silent=True)
    before = list(guard.ward.ends)
    guard.clock.advance(2 * CANCEL_GRACE)
    guard.silence(SILENT_AFTER + 1)
    await guard.look(silent=True)

    assert before == []
    assert guard.ward.ends == [Legacy(guard.worker, overdue=[], suspects=frozenset({claim.key}))]


async def test_a_silent_worker_without_jobs_is_ended_after_a_while(guard: Guard) -> None:
    guard.silence(IDLE_SILENCE - 1)
    await guard.look(silent=True)
    before = list(guard.ward.ends)
    guard.clock.advance(1)
    await guard.look(silent=True)

    assert (before, guard.ward.ends) == ([], [None])


async def test_nobody_is_ended_for_silence_while_the_store_cannot_be_read(guard: Guard) -> None:
    guard.reach.opened.store = SimpleNamespace(reading=out_of_reach)
    guard.silence(IDLE_SILENCE + 1)
    await guard.look(3, silent=True)

    assert guard.ward.ends == []


async def test_what_does_not_end_in_time_is_killed_though_the_store_does_not_answer(
    guard: Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers, asked = threading.Event(), list[str]()

    def late() -> Any:
        asked.append("asked")
        answers.wait(PATIENCE)
        return out_of_reach()

    monkeypatch.setattr(watch, "LONGEST_LOOK", 0.05)
    guard.reach.opened.store = SimpleNamespace(reading=late)
    guard.ward.living.due = guard.clock.monotonic() + 4 * EVERY
    guard.silence(SILENT_AFTER + 1)
    try:
        await guard.look(8, silent=True)
        assert guard.ward.ends == [None]
        # Once, and not again before that was answered.
        assert asked == ["asked"]
    finally:
        answers.set()


async def test_who_stood_still_itself_judges_nobody(guard: Guard) -> None:
    guard.claim()
    await guard.look(silent=True, pause=TIMEOUT * 2)

    assert (guard.ward.ends, guard.ward.living.silent) == ([], False)
