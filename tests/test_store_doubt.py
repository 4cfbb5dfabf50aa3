"""Adds of which nobody has learned whether they were stored: done once more, they are stored once."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from broken_lines import commits_and_then_fails, fails_instead_of_committing
from sqlalchemy.engine import Connection
from store_support import END, SESSION, WAITS, Bench, EvenChance, an_add, answer, connected

from yaotask.errors import DuplicateJobId, OutcomeUnknown, QueueFull, StorageError
from yaotask.events import ADD_BIT
from yaotask.store import doubt
from yaotask.store.dialects import mysql_line, postgresql_line
from yaotask.store.direct import execute
from yaotask.store.ledger import Ledger
from yaotask.store.opening import Place
from yaotask.store.protocol import Add, Harvest, Mailbox, NewJob, Terms, Ticket
from yaotask.store.sql import PERSISTENCE

pytest_plugins = ["store_fixtures"]
on_servers = pytest.mark.only_on("postgresql", "mariadb")
pytestmark = on_servers


@pytest.fixture
def bench(bench: Bench) -> Bench:
    # From here on there are ids that need no transaction of their own.
    for task in ("mail", "other"):
        bench.store._ids.refill(task, 100, bench.store._reserve_ids)
    for _ in range(4):
        bench.add()
    bench.clock.advance(1)
    return bench


def left_in_doubt(bench: Bench, *adds: Add, stored: bool) -> None:
    fate = commits_and_then_fails if stored else fails_instead_of_committing
    with fate(bench), pytest.raises(OutcomeUnknown):
        bench.cycle(adds=list(adds))
    bench.clock.advance(1)


def count(bench: Bench) -> int:
    """How many jobs there are besides the first four."""
    return int(bench.value("SELECT count(*) FROM yaotask_jobs")) - 4


EACH_FATE = pytest.mark.parametrize("stored", [True, False], ids=["stored", "not stored"])


@EACH_FATE
def test_each_add_of_a_commit_in_doubt_is_stored_once(bench: Bench, stored: bool) -> None:
    kinds = [an_add(2), an_add(id=70), an_add(key="k"), an_add(size=9), an_add(task="other", events=ADD_BIT)]
    left_in_doubt(bench, *kinds, stored=stored)
    harvest = bench.cycle(adds=kinds)
    ids = [answer(add.ticket) for add in kinds]

    assert count(bench) == 6
    assert ids[1] == [70]
    assert {row["id"] for row in bench.query("SELECT id FROM yaotask_jobs WHERE task = 'mail'")} >= {*ids[0], *ids[3]}
    assert len({*ids[0], *ids[1], *ids[2], *ids[3]}) == 5
    assert harvest.woken == {"mail", "other"}
    assert harvest.wrote_events
    assert bench.value("SELECT count(*) FROM yaotask_events") == 1
    assert bench.waiting() == 1


@EACH_FATE
@pytest.mark.parametrize("terms", [{}, {"key": "k"}, {"id": 70}], ids=["plain", "with a key", "with an id"])
@pytest.mark.parametrize("hurried", [True, False])
def test_whoever_stored_it_has_told_nobody(bench: Bench, terms: dict[str, Any], stored: bool, hurried: bool) -> None:
    add = an_add(events=ADD_BIT, **terms)
    left_in_doubt(bench, add, stored=stored)
    harvest = bench.cycle(adds=[add], hurried=hurried)

    assert (harvest.woken, harvest.wrote_events, count(bench)) == ({"mail"}, True, 1)


def test_many_that_were_stored_cost_one_look(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    many, looks = [an_add() for _ in range(50)], list[int]()
    left_in_doubt(bench, *many, stored=True)
    look = doubt.is_stored

    def is_stored(connection: Connection, task: str, id: int, at: int) -> bool:
        looks.append(id)
        return look(connection, task, id, at)

    monkeypatch.setattr(doubt, "is_stored", is_stored)
    bench.cycle(adds=many)

    assert len(looks) == 1
    assert len({answer(add.ticket)[0] for add in many}) == count(bench) == 50


@EACH_FATE
def test_what_was_said_of_a_full_queue_is_said_again(bench: Bench, stored: bool) -> None:
    add = an_add(3, size=2)
    left_in_doubt(bench, add, stored=stored)
    bench.cycle(adds=[add])

    with pytest.raises(QueueFull) as full:
        answer(add.ticket)
    assert (len(full.value.ids), count(bench), bench.waiting()) == (2, 2, 2)


@EACH_FATE
def test_what_was_said_of_a_taken_id_is_said_again(bench: Bench, stored: bool) -> None:
    taken, free = an_add(id=1), an_add()
    left_in_doubt(bench, taken, free, stored=stored)
    bench.cycle(adds=[taken, free])

    with pytest.raises(DuplicateJobId):
        answer(taken.ticket)
    assert len(answer(free.ticket)) == 1
    assert count(bench) == 1


@EACH_FATE
def test_one_add_with_and_without_keys_is_stored_once(bench: Bench, stored: bool) -> None:
    bench.add(key="used")
    mixed = [NewJob("[]", "{}", Terms(key=key)) for key in ("used", None, "new", None)]
    add = Add("mail", mixed, None, 0, Ticket())
    left_in_doubt(bench, add, stored=stored)
    bench.cycle(adds=[add])

    assert answer(add.ticket)[0] == 5
    assert len(set(answer(add.ticket))) == 4
    assert count(bench) == 4


def test_in_doubt_again_and_again_it_is_stored_once(bench: Bench) -> None:
    add = an_add(2)
    for stored in (False, False, True, True):
        left_in_doubt(bench, add, stored=stored)
    bench.cycle(adds=[add])

    assert (len(answer(add.ticket)), count(bench)) == (2, 2)


def test_what_does_not_fit_any_more_may_be_stored_still(bench: Bench) -> None:
    add, other = an_add(size=1), an_add(size=1)
    left_in_doubt(bench, add, stored=False)
    bench.cycle(adds=[other])
    harvest = bench.cycle(adds=[add])
    full, refused = count(bench), add.ticket.error
    bench.claim(10)
    bench.cycle(adds=[add])

    # It is not refused: its commit may be on its way, and nothing would keep that from finding room later.
    assert (full, refused) == (1, None)
    assert harvest.held.requests == {add}
    assert len({*answer(add.ticket), *answer(other.ticket)}) == count(bench) == 2


@pytest.mark.only_on("postgresql")
def test_what_was_refused_is_refused_again_though_the_rest_was_stored(bench: Bench) -> None:
    bench.write("ALTER TABLE yaotask_jobs ADD CONSTRAINT ours CHECK (priority < 9)")
    good, bad = an_add(), an_add(priority=9)
    left_in_doubt(bench, good, bad, stored=True)
    bench.cycle(adds=[good, bad])

    assert isinstance(bad.ticket.error, StorageError)
    assert len(answer(good.ticket)) == count(bench) == 1


def test_what_fits_in_part_cannot_be_stored_later(bench: Bench) -> None:
    add = an_add(2, size=2)
    left_in_doubt(bench, add, stored=False)
    bench.add(size=2)
    bench.cycle(adds=[add])

    assert isinstance(add.ticket.error, QueueFull)
    assert len(add.ticket.error.ids) == 1
    assert count(bench) == 2


def test_a_job_for_which_somebody_has_chosen_the_same_id_is_not_taken_for_ours(bench: Bench) -> None:
    add = an_add(args='["ours"]')
    left_in_doubt(bench, add, stored=False)
    ((_, (id,)),) = add.doubt.tries  # type: ignore[union-attr]
    bench.add(id=id, args='["theirs"]')
    bench.cycle(adds=[add])
    (ours,) = answer(add.ticket)

    assert ours != id
    assert [bench.row(each)["args"] for each in (id, ours)] == ['["theirs"]', '["ours"]']


def test_what_was_found_not_to_be_stored_is_as_safe_as_before_afterwards(bench: Bench) -> None:
    add = an_add()
    left_in_doubt(bench, add, stored=False)
    ((_, (id,)),) = add.doubt.tries  # type: ignore[union-attr]
    bench.add(id=id)
    for stored in (False, True):
        left_in_doubt(bench, add, stored=stored)
    bench.cycle(adds=[add])

    assert answer(add.ticket) != [id]
    assert count(bench) == 2


def run_in(other: Connection, bench: Bench, add: Add, monkeypatch: pytest.MonkeyPatch) -> None:
    """Store an add in somebody's transaction that stays open, and do not learn of its end."""

    def doubtful(work: Callable[[Connection], Any]) -> None:
        work(other)
        raise OutcomeUnknown("who knows")

    with monkeypatch.context() as patch, pytest.raises(OutcomeUnknown):
        patch.setattr(bench.store, "write", doubtful)
        bench.cycle(adds=[add])


@pytest.mark.parametrize("ends", ["COMMIT", "ROLLBACK"])
def test_a_commit_that_is_on_its_way_still_is_waited_for(
    bench: Bench, here: Place, monkeypatch: pytest.MonkeyPatch, ends: str
) -> None:
    add, free = an_add(2), an_add()
    with ThreadPoolExecutor(1) as thread, connected(here) as other:
        execute(other, "BEGIN")
        run_in(other, bench, add, monkeypatch)
        harvest = thread.submit(bench.cycle, adds=[add, free]).result(10)
        early = count(bench)
        execute(other, ends)
    bench.cycle(adds=[add], hurried=True)

    assert harvest.held.requests == {add}
    assert (early, count(bench)) == (1, 3)
    assert len({*answer(add.ticket), *answer(free.ticket)}) == 3


def test_a_commit_that_arrives_between_a_look_and_the_next_try_is_seen(
    bench: Bench, here: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    add, find, looks = an_add(2), doubt.found, list[object]()
    with connected(here) as other:
        execute(other, "BEGIN")
        run_in(other, bench, add, monkeypatch)

        def found(*asked: Any) -> object:
            looks.append(find(*asked))
            if len(looks) == 1:
                execute(other, "COMMIT")
            return looks[-1]

        monkeypatch.setattr(doubt, "found", found)
        bench.cycle(adds=[add], hurried=True)

    assert looks == [None, answer(add.ticket)]
    assert count(bench) == 2


def test_what_was_not_even_tried_is_refused_where_it_does_not_fit(bench: Bench, here: Place) -> None:
    add = Add("mail", [NewJob("[]", "{}"), NewJob("[]", "{}", Terms(key="k"))], 2, 0, Ticket())
    with connected(here) as stranger:
        execute(stranger, "BEGIN")
        with bench.store.borrow(stranger) as cycle:
            cycle.add(an_add(key="k"))
        with fails_instead_of_committing(bench), pytest.raises(OutcomeUnknown):
            bench.cycle(adds=[an_add(), add], hurried=True)
        execute(stranger, "ROLLBACK")
    bench.add(2, size=2)
    bench.cycle(adds=[add])

    with pytest.raises(QueueFull):
        answer(add.ticket)


def test_a_commit_that_keeps_its_counter_holds_up_no_other_task(
    bench: Bench, here: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.add(size=9)
    add, other_task = an_add(size=9), an_add(task="other")
    # However patient it is.
    execute(bench.store.writer.connected(), WAITS[bench.store.dialect.name][0].format(60))
    with ThreadPoolExecutor(1) as thread, connected(here) as other:
        execute(other, "BEGIN")
        run_in(other, bench, add, monkeypatch)
        harvest = thread.submit(bench.cycle, adds=[add, other_task]).result(20)
        execute(other, "COMMIT")
    bench.cycle(adds=[add], hurried=True)

    assert harvest.held.requests == {add}
    assert len(answer(other_task.ticket)) == len(answer(add.ticket)) == 1
    assert count(bench) == 3


def test_what_was_put_off_was_not_stored_though_the_rest_was(bench: Bench, here: Place) -> None:
    bench.add(size=9)
    put_off, rest = an_add(size=9), an_add(task="other")
    with connected(here) as stranger:
        execute(stranger, "BEGIN")
        execute(stranger, "SELECT * FROM yaotask_sizes FOR UPDATE")
        left_in_doubt(bench, put_off, rest, stored=True)
        execute(stranger, "ROLLBACK")
    bench.cycle(adds=[rest, put_off])

    assert len(answer(put_off.ticket)) == len(answer(rest.ticket)) == 1
    assert (count(bench), bench.waiting()) == (3, 2)


def test_a_session_is_as_patient_afterwards_as_before(bench: Bench) -> None:
    _, ask, answered = WAITS[bench.store.dialect.name]
    add = an_add()
    left_in_doubt(bench, add, stored=True)
    bench.cycle(adds=[add])

    assert bench.store.write(lambda connection: execute(connection, ask).scalar()) == answered


@pytest.mark.parametrize("key", [None, "k"])
def test_of_a_commit_that_arrives_between_a_look_and_the_next_try_workers_are_told(
    bench: Bench, here: Place, monkeypatch: pytest.MonkeyPatch, key: str | None
) -> None:
    add, find = an_add(events=ADD_BIT, key=key), doubt.found
    with connected(here) as other:
        execute(other, "BEGIN")
        run_in(other, bench, add, monkeypatch)
        late = [lambda: execute(other, "COMMIT")]

        def found(*asked: Any) -> object:
            seen = find(*asked)
            while late:
                late.pop()()
            return seen

        monkeypatch.setattr(doubt, "found", found)
        harvest = bench.cycle(adds=[add], hurried=True)

    assert (harvest.woken, harvest.wrote_events, count(bench)) == ({"mail"}, True, 1)


def test_ids_are_those_of_the_try_that_had_some(bench: Bench, here: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """An add that waits for somebody's key is not even tried; its second try is not over when the third begins."""
    first, second = (
        Add("mail", [NewJob("[]", "{}", Terms(key="k")), NewJob('["mine"]', "{}")], None, 0, Ticket()) for _ in "12"
    )
    with connected(here) as stranger:
        execute(stranger, "BEGIN")
        with bench.store.borrow(stranger) as cycle:
            cycle.add(an_add(key="k"))
        with fails_instead_of_committing(bench), pytest.raises(OutcomeUnknown):
            bench.cycle(adds=[first, second], hurried=True)
        execute(stranger, "COMMIT")
    bench.clock.advance(1)
    with ThreadPoolExecutor(1) as thread, connected(here) as other:
        execute(other, "BEGIN")
        run_in(other, bench, second, monkeypatch)
        harvest = thread.submit(bench.cycle, adds=[second], hurried=True).result(10)
        execute(other, "COMMIT")
    bench.cycle(adds=[second], hurried=True)

    assert harvest.held.requests == {second}
    assert [row["id"] for row in bench.query("SELECT id FROM yaotask_jobs WHERE args LIKE '%mine%'")] == answer(
        second.ticket
    )[1:]


# --- for whoever waits --------------------------------------------------------------------------------


@pytest.fixture
def ledger(bench: Bench) -> Ledger:
    return Ledger(bench.store, bench.clock, EvenChance())


@EACH_FATE
def test_who_asked_hears_of_the_next_try(bench: Bench, ledger: Ledger, stored: bool) -> None:
    add, told = an_add(), list[bool]()
    add.ticket.settle = lambda: told.append(True)
    ledger.add(add)
    with (commits_and_then_fails if stored else fails_instead_of_committing)(bench):
        ledger.turn()
    early, hopeful = list(told), ledger.is_behind
    ledger.turn()

    assert (early, hopeful, told) == ([], True, [True])
    assert (len(answer(add.ticket)), count(bench)) == (1, 1)


@EACH_FATE
def test_who_asked_hears_of_the_doubt_where_the_store_does_not_come_back(
    bench: Bench, ledger: Ledger, stored: bool
) -> None:
    add, later, began = an_add(), an_add(), bench.clock.monotonic()
    ledger.add(add)
    with (commits_and_then_fails if stored else fails_instead_of_committing)(bench):
        while add.ticket.error is None:
            bench.clock.advance(ledger.turn() or 0)
    took = bench.clock.monotonic() - began
    ledger.add(later)
    ledger.turn()

    assert isinstance(add.ticket.error, OutcomeUnknown)
    assert PERSISTENCE <= took < 3 * PERSISTENCE
    assert len(answer(later.ticket)) == 1
    assert count(bench) == 1 + stored


def test_what_is_tried_again_comes_before_what_was_asked_meanwhile(
    bench: Bench, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, run = an_add(), an_add(), bench.store.run_cycle

    def run_cycle(mailbox: Mailbox) -> Harvest:
        ledger.add(second)
        return run(mailbox)

    ledger.add(first)
    with fails_instead_of_committing(bench), monkeypatch.context() as patch:
        patch.setattr(bench.store, "run_cycle", run_cycle)
        ledger.turn()
    ledger.turn()

    assert bench.row(answer(first.ticket)[0])["key"] < bench.row(answer(second.ticket)[0])["key"]


@pytest.mark.only_on("sqlite")
def test_what_a_disk_has_failed_to_keep_is_not_tried_again(bench: Bench, ledger: Ledger) -> None:
    add = an_add()
    ledger.add(add)
    with commits_and_then_fails(bench):
        ledger.turn()

    assert isinstance(add.ticket.error, OutcomeUnknown)


def test_who_asked_hears_of_the_doubt_where_the_ledger_is_closed(bench: Bench, ledger: Ledger) -> None:
    add = an_add()
    ledger.add(add)
    with fails_instead_of_committing(bench):
        ledger.turn()
    ledger.refuse(RuntimeError("closed"))

    assert isinstance(add.ticket.error, OutcomeUnknown)


def test_an_idle_connection_that_is_ended_just_when_something_is_sent_on_it_is_no_matter(
    bench: Bench, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    add, before, name = an_add(), bench.add_one(), bench.store.dialect.name
    idle = bench.store.writer.connected()
    # The news of its end has not come yet.
    for module in (mysql_line, postgresql_line):
        monkeypatch.setattr(module, "has_something_to_read", lambda socket: False)
    session = execute(idle, SESSION[name]).scalar_one()
    with bench.store.reading() as other:
        execute(other, END[name], {"session": session})
    ledger.add(add)
    while add.ticket.error is None and not add.ticket.value:
        bench.clock.advance(ledger.turn() or 0)

    assert answer(add.ticket)[0] > before
    assert count(bench) == 2
    # The commit has gone along, so that it was in doubt.
    assert add.doubt is not None
