"""What a ledger calls out to other nodes, and never more often than is due."""

from __future__ import annotations

import select
from collections.abc import Collection, Iterator

import broken_lines
import pytest
from store_support import Bench, EvenChance, an_add, answer

from yaotask.events import ADD_BIT
from yaotask.jobs import JobState
from yaotask.store import hints
from yaotask.store.dialects import postgresql_notices
from yaotask.store.dialects.base import Notices
from yaotask.store.ledger import Ledger
from yaotask.store.protocol import Started, Ticket
from yaotask.store.shouts import EVERY, Shout

pytest_plugins = ["store_fixtures"]
pytestmark = pytest.mark.only_on("postgresql")

PATIENCE = 20


@pytest.fixture
def ledger(bench: Bench) -> Ledger:
    ledger = Ledger(bench.store, bench.clock, EvenChance())
    ledger.shout = Shout(bench.store, bench.clock)
    return ledger


@pytest.fixture
def notices(bench: Bench) -> Iterator[Notices]:
    notices = bench.store.listen()
    assert notices is not None
    yield notices
    notices.close()


@pytest.fixture
def called(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> list[Collection[str]]:
    """What is called out."""
    calls: list[Collection[str]] = []
    announce = bench.store.announce

    def call(tasks: Collection[str]) -> None:
        calls.append(tasks)
        announce(tasks)

    monkeypatch.setattr(bench.store, "announce", call)
    return calls


def heard(notices: Notices) -> Collection[str] | None:
    """What comes next."""
    assert select.select([notices], [], [], PATIENCE)[0]
    return notices.heard()


def add(ledger: Ledger) -> float | None:
    """Store a job; how long the ledger waits then."""
    one = an_add()
    ledger.add(one)
    rest = ledger.turn()
    assert len(answer(one.ticket)) == 1
    return rest


def test_a_job_is_told_of_once_it_is_stored(
    bench: Bench, ledger: Ledger, notices: Notices, called: list[Collection[str]]
) -> None:
    for _ in range(8):
        add(ledger)
        assert heard(notices) == {"mail"}
        bench.clock.advance(1)

    # Once it is known that the server does so, it is told with the commit.
    assert called == [{"mail"}]


def test_what_is_told_with_a_commit_that_fails_is_not_said(bench: Bench, ledger: Ledger, notices: Notices) -> None:
    add(ledger)
    heard(notices)
    bench.clock.advance(1)
    with broken_lines.fails_instead_of_committing(bench):
        one = an_add()
        ledger.add(one)
        ledger.turn()

    assert notices.heard() is None


def test_what_is_refused_on_the_way_of_a_commit_costs_no_job_and_is_said_by_itself_from_then_on(
    bench: Bench, ledger: Ledger, notices: Notices, called: list[Collection[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    add(ledger)
    heard(notices)
    with monkeypatch.context() as patch:
        patch.setattr(postgresql_notices, "_NOTIFY", "SELECT 1 / (length(CAST(:words AS text)) - 4)")
        bench.clock.advance(1)
        add(ledger)
    bench.clock.advance(1)
    add(ledger)

    assert heard(notices) == {"mail"}
    assert called == [{"mail"}] * 2


def test_of_what_is_refused_nobody_is_told(bench: Bench, ledger: Ledger, notices: Notices) -> None:
    for _ in range(2):
        add(ledger)
        assert heard(notices) == {"mail"}
        bench.clock.advance(1)
    ledger.add(an_add(size=0))
    ledger.turn()
    bench.clock.advance(1)
    ledger.add(an_add(task="video"))
    ledger.turn()

    # Hints come in the order in which they were given.
    assert heard(notices) == {"video"}


def test_that_hooks_wait_too_is_told_with_the_commit_of_what_was_added(
    bench: Bench, ledger: Ledger, notices: Notices, called: list[Collection[str]]
) -> None:
    add(ledger)
    heard(notices)
    bench.clock.advance(1)
    ledger.add(an_add(events=ADD_BIT))
    ledger.turn()

    assert heard(notices) == hints.EVERYWHERE
    assert called == [{"mail"}]


def test_one_behind_another_is_told_of_when_it_is_due(
    bench: Bench, ledger: Ledger, notices: Notices, called: list[Collection[str]]
) -> None:
    add(ledger)
    rest = add(ledger)
    assert heard(notices) == {"mail"}
    assert rest is not None
    assert 0 < rest <= EVERY
    # With all that has come in until then.
    add(ledger)
    assert notices.heard() is None
    bench.clock.advance(EVERY)
    ledger.turn()

    assert heard(notices) == {"mail"}
    assert called == [{"mail"}] * 2


def test_a_server_without_such_a_thing_is_asked_for_it_once(
    bench: Bench, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def say(tasks: Collection[str]) -> str:
        asked.append("asked")
        return hints.said(tasks)

    monkeypatch.setattr(postgresql_notices, "said", say)
    monkeypatch.setattr(postgresql_notices, "_NOTIFY", "SELECT no_such_thing(:words)")
    for _ in range(4):
        add(ledger)
        bench.clock.advance(1)

    assert len(asked) == 1
    assert {bench.state(id) for id in range(1, 5)} == {JobState.WAITING}


def test_that_a_job_is_to_stop_is_told_everywhere(
    bench: Bench, ledger: Ledger, notices: Notices, called: list[Collection[str]]
) -> None:
    add(ledger)
    heard(notices)
    (claim,) = bench.claim()
    bench.cycle(started=[Started(claim.key, claim.fence, bench.clock.now())])
    bench.clock.advance(1)
    ticket = Ticket()
    ledger.errand(lambda cycle: cycle.cancel("mail", 1), ticket)
    ledger.turn()

    assert answer(ticket) == JobState.RUNNING
    assert heard(notices) == hints.EVERYWHERE
