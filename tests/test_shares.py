"""The workers of a node divide what may run at once, without speaking to each other."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from yaotask.runtime.shares import WHOLE, Share

NUMBERS = st.integers(1, 200)
PLACES = st.integers(0, 50)


def parts(worker_nums: int, workers: int, task: int) -> list[int]:
    return [Share(number, workers).part(worker_nums, task) for number in range(workers)]


@given(NUMBERS, NUMBERS, PLACES)
def test_the_parts_of_all_workers_make_up_the_whole(worker_nums: int, workers: int, task: int) -> None:
    assert sum(parts(worker_nums, workers, task)) == worker_nums


@given(NUMBERS, NUMBERS, PLACES)
def test_no_worker_has_more_than_one_job_above_another(worker_nums: int, workers: int, task: int) -> None:
    shared = parts(worker_nums, workers, task)

    assert max(shared) - min(shared) <= 1


@given(st.integers(1, 20), st.integers(1, 5))
def test_tasks_of_one_job_at_a_time_spread_over_all_workers(workers: int, rounds: int) -> None:
    alone = [parts(1, workers, task) for task in range(workers * rounds)]

    assert [sum(of_worker) for of_worker in zip(*alone, strict=True)] == [rounds] * workers


@given(NUMBERS, PLACES)
def test_one_worker_has_all(worker_nums: int, task: int) -> None:
    assert WHOLE.part(worker_nums, task) == worker_nums


def test_what_does_not_divide_begins_at_another_worker_for_each_task() -> None:
    assert [parts(5, 3, task) for task in range(3)] == [[2, 2, 1], [1, 2, 2], [2, 1, 2]]
