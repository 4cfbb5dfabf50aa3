"""What a worker may have taken without learning of it: it goes back where it was stored, and nothing else does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy.engine import Connection
from store_support import START, Bench, an_add, connected

from yaotask.clock import MILLISECOND
from yaotask.errors import OutcomeUnknown
from yaotask.events import ADD_BIT
from yaotask.jobs import JobState
from yaotask.store.cycle import FENCES
from yaotask.store.direct import execute
from yaotask.store.opening import Place
from yaotask.store.protocol import Harvest
from yaotask.store.work import Work

pytest_plugins = ["store_fixtures"]

CLAIM: dict[str, Any] = {"demands": {"mail": 1}}
TAKE: dict[str, Any] = {"deliveries": 1, "delivery_tasks": ("mail",)}

BOTH = pytest.mark.parametrize("wanted", [CLAIM, TAKE], ids=["a job", "an event"])
# What such a transaction does to the one row of a store, as worker 1.
CLAIMS = f"""
UPDATE yaotask_jobs
SET state = 1, fence = {START // MILLISECOND % FENCES}, attempt = 1, worker = 1, counted = 0, ready_at = NULL,
    claimed_at = 1
"""  # noqa: S608 - a number
TAKES = "UPDATE yaotask_events SET worker = 1"
LOCK_JOBS = "SELECT 1 FROM yaotask_jobs FOR UPDATE"
LOCK_EVENTS = "SELECT 1 FROM yaotask_events FOR UPDATE"
on_servers = pytest.mark.only_on("postgresql", "mariadb")


class Undone(Exception):
    """Raised to roll back."""


def take_in_doubt(bench: Bench, monkeypatch: pytest.MonkeyPatch, wanted: dict[str, Any], *, stored: bool) -> None:
    """Take what is there as worker 1, in a cycle that cannot know whether it was stored."""
    write = bench.store.write

    def doubtful(work: Callable[[Connection], Any]) -> Any:
        def work_in_vain(connection: Connection) -> None:
            work(connection)
            if not stored:
                raise Undone

        try:
            write(work_in_vain)
        except Undone:
            bench.store.writer.disconnect()
        raise OutcomeUnknown("who knows")

    with monkeypatch.context() as patch, pytest.raises(OutcomeUnknown):
        patch.setattr(bench.store, "write", doubtful)
        patch.setattr(bench.store, "_was_stored", lambda *cycle: False)
        bench.cycle(worker=1, **wanted)
    assert bench.store.owes


def fill(bench: Bench, wanted: dict[str, Any]) -> None:
    bench.adds(an_add(events=ADD_BIT if wanted is TAKE else 0))


def is_taken(bench: Bench, wanted: dict[str, Any]) -> bool:
    if wanted is TAKE:
        return bench.value("SELECT worker FROM yaotask_events") is not None
    return bench.state() is JobState.RUNNING


def took(harvest: Harvest) -> int:
    return len(harvest.deliveries) + sum(map(len, harvest.claims.values()))


@BOTH
def test_what_was_stored_goes_back(bench: Bench, monkeypatch: pytest.MonkeyPatch, wanted: dict[str, Any]) -> None:
    fill(bench, wanted)
    take_in_doubt(bench, monkeypatch, wanted, stored=True)
    before = is_taken(bench, wanted)
    bench.cycle(worker=1)

    assert before
    assert not is_taken(bench, wanted)
    assert not bench.store.owes


@BOTH
def test_what_was_not_stored_is_owed_no_more_and_others_may_have_it(
    bench: Bench,
    open_bench: Callable[[], Bench],
    monkeypatch: pytest.MonkeyPatch,
    wanted: dict[str, Any],
) -> None:
    fill(bench, wanted)
    take_in_doubt(bench, monkeypatch, wanted, stored=False)
    theirs = open_bench().cycle(worker=2, **wanted)
    bench.cycle(worker=1)

    assert took(theirs) == 1
    assert is_taken(bench, wanted)
    assert not bench.store.owes


@BOTH
@on_servers
def test_a_commit_that_lands_after_all_is_waited_for(
    bench: Bench, here: Place, monkeypatch: pytest.MonkeyPatch, wanted: dict[str, Any]
) -> None:
    fill(bench, wanted)
    take_in_doubt(bench, monkeypatch, wanted, stored=False)
    with connected(here) as late:
        execute(late, "BEGIN")
        execute(late, TAKES if wanted is TAKE else CLAIMS)
        bench.cycle(worker=1)
        owes_meanwhile = bench.store.owes
        execute(late, "COMMIT")
    landed = is_taken(bench, wanted)
    bench.cycle(worker=1)

    assert owes_meanwhile
    assert landed
    assert not is_taken(bench, wanted)
    assert not bench.store.owes


@BOTH
@on_servers
def test_a_row_that_others_have_holds_up_nothing(
    bench: Bench, here: Place, monkeypatch: pytest.MonkeyPatch, wanted: dict[str, Any]
) -> None:
    fill(bench, wanted)
    take_in_doubt(bench, monkeypatch, wanted, stored=True)
    with connected(here) as other:
        execute(other, "BEGIN")
        execute(other, LOCK_EVENTS if wanted is TAKE else LOCK_JOBS)
        # Where it waited for the row, this would be refused.
        bench.cycle(worker=1)
        execute(other, "ROLLBACK")
    taken_meanwhile = is_taken(bench, wanted)
    bench.cycle(worker=1)

    assert taken_meanwhile
    assert not is_taken(bench, wanted)


@BOTH
@on_servers
def test_what_is_taken_once_more_is_not_given_back(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, wanted: dict[str, Any]
) -> None:
    fill(bench, wanted)
    take_in_doubt(bench, monkeypatch, wanted, stored=False)
    with monkeypatch.context() as patch:
        # As where somebody lets go of the row between the look at it and the claim.
        patch.setattr(Work, "held_of", lambda _, keys: frozenset(keys))
        patch.setattr(Work, "held_events_of", lambda _, seqs: frozenset(seqs))
        again = bench.cycle(worker=1, **wanted)
    bench.cycle(worker=1)

    assert took(again) == 1
    assert is_taken(bench, wanted)
    assert not bench.store.owes
