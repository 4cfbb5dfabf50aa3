"""A key is used once in its task, and an id is given out once."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from store_support import Bench, an_add, answer

from yaotask.errors import QueueFull
from yaotask.store.cycle import SqlCycle
from yaotask.store.protocol import Terms

pytest_plugins = ["store_fixtures"]


def test_a_used_key_answers_the_first_job(bench: Bench) -> None:
    first = bench.add(key="k", args="[1]")

    assert bench.add(key="k", args="[2]") == first
    assert bench.row()["args"] == "[1]"


def test_a_key_is_used_once_within_one_cycle(bench: Bench) -> None:
    tickets = bench.adds(an_add(key="k"), an_add(key="k"), an_add())

    assert [answer(ticket) for ticket in tickets] == [[1], [1], [2]]


def test_a_key_belongs_to_its_task(bench: Bench) -> None:
    tickets = bench.adds(an_add(task="mail", key="k"), an_add(task="video", key="k"))

    assert [answer(ticket) for ticket in tickets] == [[1], [1]]
    assert bench.value("SELECT count(*) FROM yaotask_jobs") == 2


def test_a_used_key_is_answered_when_the_queue_is_full(bench: Bench) -> None:
    first = bench.add(key="k", size=1)
    plain, keyed = bench.adds(an_add(size=1), an_add(key="k", size=1))

    assert isinstance(plain.error, QueueFull)
    assert answer(keyed) == first


def test_a_bulk_add_with_keys_keeps_its_order(bench: Bench) -> None:
    bench.add(key="k")
    add = an_add(3)
    add.jobs[1] = add.jobs[1]._replace(terms=Terms(key="k"))
    (ticket,) = bench.adds(add)

    first, used, last = answer(ticket)
    assert (used, last) == (1, first + 1)


# --- ids -------------------------------------------------------------------------------------------


def reserved(bench: Bench) -> int:
    return int(bench.value("SELECT next FROM yaotask_ids WHERE task = 'mail'")) - 1


def test_blocks_grow_while_a_process_keeps_adding(bench: Bench) -> None:
    seen = []
    for _ in range(16):
        bench.add()
        seen.append(reserved(bench))

    assert seen == [1, 3, 3, 7, 7, 7, 7, *[15] * 8, 31]


def test_a_block_is_at_most_1024_unless_more_are_needed_at_once(bench: Bench) -> None:
    for _ in range(5):
        bench.add(1_000)
    before = reserved(bench)
    bench.add(3_000)

    assert before <= 5_000 + 1_024
    assert bench.value("SELECT count(DISTINCT id) FROM yaotask_jobs") == 8_000


def test_ids_of_two_processes_never_meet(open_bench: Callable[[], Bench]) -> None:
    ours, theirs = open_bench(), open_bench()
    ids = [id for _ in range(20) for bench in (ours, theirs) for id in bench.add(2)]

    assert len(set(ids)) == 80


def test_ids_are_not_used_again_after_a_restart(open_bench: Callable[[], Bench]) -> None:
    bench = open_bench()
    first = bench.add(5)
    bench.store.close()

    assert min(open_bench().add(5)) > max(first)


def test_ids_are_not_used_again_after_a_cycle_that_failed(bench: Bench) -> None:
    def add_and_fail(cycle: SqlCycle) -> None:
        cycle.add(an_add(2))
        raise ZeroDivisionError

    first = bench.add(3)
    with pytest.raises(ZeroDivisionError):
        bench.errand(add_and_fail)

    assert min(bench.add(2)) > max(first)
    assert bench.value("SELECT count(*) FROM yaotask_jobs") == 5


def test_generated_ids_step_over_those_that_next_gave(bench: Bench) -> None:
    given = list(range(2, 1_000, 2))
    bench.adds(*[an_add(id=id) for id in given])
    one_by_one = [bench.add_one() for _ in range(10)]
    at_once = bench.add(600)

    assert len({*given, *one_by_one, *at_once}) == len(given) + 610


def test_ids_of_next_go_up_to_the_largest_that_json_keeps(bench: Bench) -> None:
    assert bench.add(id=2**53 - 1) == [2**53 - 1]
    assert bench.claim_one().id == 2**53 - 1
