"""The gate that a fork shuts: who waits for whom."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from yaotask.store.forks import Gate

LONG = 20.0


class Told(threading.Condition):
    """Tells each time that a thread begins to wait."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = threading.Semaphore(0)

    def wait(self, timeout: float | None = None) -> bool:
        if timeout != 0.0:
            self.begun.release()
        return super().wait(timeout)


class Stage:
    """A gate, and threads that wait at it."""

    def __init__(self, gate: Gate, told: Told, pool: ThreadPoolExecutor) -> None:
        self.gate = gate
        self._told = told
        self._pool = pool

    def waiting(self, work: Callable[[], bool | None]) -> Future[bool | None]:
        """Have it done by a thread; from now on that waits."""
        future = self._pool.submit(work)
        assert self._told.begun.acquire(timeout=LONG)
        return future

    def fork(self) -> bool:
        """Whether it was a clean one."""
        try:
            return self.gate.shut(LONG)
        finally:
            self.gate.open()


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    told = Told()
    with monkeypatch.context() as patch:
        patch.setattr(threading, "Condition", lambda: told)
        gate = Gate()
    with ThreadPoolExecutor() as pool:
        yield Stage(gate, told, pool)


def test_a_fork_waits_for_all_who_are_inside_and_keeps_others_out(stage: Stage) -> None:
    stage.gate.enter()
    fork = stage.waiting(stage.fork)
    other = stage.waiting(stage.gate.enter)
    stage.gate.leave()

    assert (fork.result(LONG), other.result(LONG)) == (True, None)


def test_while_a_fork_waits_for_the_end_of_a_transaction_no_other_begins_and_all_else_goes_on(stage: Stage) -> None:
    stage.gate.begin()
    fork = stage.waiting(stage.fork)
    other = stage.waiting(stage.gate.begin)
    stage.gate.enter()
    stage.gate.leave()
    is_on = not other.done()
    stage.gate.end()

    assert (is_on, fork.result(LONG), other.result(LONG)) == (True, True, None)


def test_a_fork_inside_a_transaction_waits_for_no_other_and_spoils_none(stage: Stage) -> None:
    stage.gate.begin()
    forks = [stage.waiting(stage.fork) for _ in range(2)]
    is_clean = stage.gate.shut(0.0)
    stage.gate.open()
    stage.gate.end()

    assert (is_clean, [fork.result(LONG) for fork in forks]) == (False, [True, True])


def test_after_a_fork_that_has_waited_in_vain_all_goes_on(stage: Stage) -> None:
    stage.gate.begin()
    is_clean = stage.gate.shut(0.0)
    other = stage.waiting(stage.gate.begin)
    stage.gate.open()

    assert (is_clean, other.result(LONG)) == (False, None)
