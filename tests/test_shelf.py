"""What is put off: when it is tried again, and when whoever asked is told that it was in vain."""

from __future__ import annotations

import pytest
from store_support import DONE, ManualClock, an_add

from yaotask.errors import OutcomeUnknown, StorageBusy
from yaotask.jobs import Claim
from yaotask.store.protocol import Doubt, Errand, Finish, Held, Mailbox, Progress, Ticket
from yaotask.store.shelf import FIRST_PAUSE, HOPE, LONGEST_PAUSE, PATIENCE, Shelf


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def shelf(clock: ManualClock) -> Shelf:
    return Shelf(clock)


def note(job: int) -> Progress:
    return Progress(job, 1, None, {"current": 1})


def finish(job: int) -> Finish:
    return Finish(Claim(job, 1, job, "mail", 1, 1, None, 0, None, 0, 0, 0, [], {}, None, None), DONE, 0, 0)


def tries(shelf: Shelf, clock: ManualClock, times: int) -> list[float]:
    """Let so many tries be in vain; how long each was waited for."""
    waits = []
    for _ in range(times):
        waits.append(shelf.rest() or 0.0)
        clock.advance(waits[-1])
        shelf.keep(shelf.take_due(1))
    return waits


def test_where_nothing_is_put_off_nothing_is_due(shelf: Shelf) -> None:
    shelf.keep(Mailbox())

    assert not shelf
    assert not shelf.is_hopeful
    assert (shelf.rest(), bool(shelf.take_due(1))) == (None, False)


def test_what_is_put_off_is_due_after_a_pause_for_whoever_works_then(shelf: Shelf, clock: ManualClock) -> None:
    shelf.keep(Mailbox(1, finishes=[finish(7)]))
    early = shelf.take_due(2)
    clock.advance(FIRST_PAUSE)
    due = shelf.take_due(2)

    assert not early
    assert (due.worker, due.entered, due.hurried) == (2, True, True)
    assert [one.claim.key for one in due.finishes] == [7]
    assert not shelf


def test_pauses_grow_up_to_a_bound_while_all_is_in_vain(shelf: Shelf, clock: ManualClock) -> None:
    shelf.keep(Mailbox(1, finishes=[finish(7)]))

    assert tries(shelf, clock, 6) == pytest.approx([0.1, 0.2, 0.4, 0.8, LONGEST_PAUSE, LONGEST_PAUSE])


def test_pauses_begin_anew_once_all_was_written(shelf: Shelf, clock: ManualClock) -> None:
    shelf.keep(Mailbox(1, finishes=[finish(7)]))
    tries(shelf, clock, 4)
    shelf.take(1)
    shelf.keep(Mailbox())
    shelf.keep(Mailbox(1, finishes=[finish(8)]))

    assert shelf.rest() == pytest.approx(FIRST_PAUSE)


def test_what_comes_of_a_job_that_is_held_waits_behind_what_is_there(shelf: Shelf) -> None:
    shelf.keep(Mailbox(1, progress=[note(7)]))
    mailbox = Mailbox(1, progress=[note(8)], finishes=[finish(7), finish(8)])
    shelf.divert(mailbox)
    kept = shelf.take(1)

    assert [one.claim.key for one in mailbox.finishes] == [one.key for one in mailbox.progress] == [8]
    assert [one.claim.key for one in kept.finishes] == [one.key for one in kept.progress] == [7]


def test_only_who_asked_is_told_when_it_took_too_long(shelf: Shelf, clock: ManualClock) -> None:
    add, errand = an_add(), Errand(lambda cycle: None, Ticket())
    shelf.keep(Mailbox(1, finishes=[finish(7)], adds=[add], errands=[errand]))
    tries(shelf, clock, 5)
    clock.advance(PATIENCE)
    before = (add.ticket.error, errand.ticket.error)
    shelf.keep(shelf.take_due(1))
    rest = shelf.take(1)

    assert before == (None, None)
    assert isinstance(add.ticket.error, StorageBusy)
    assert isinstance(errand.ticket.error, StorageBusy)
    assert (len(rest.finishes), rest.adds, rest.errands) == (1, [], [])


def test_who_added_what_may_be_stored_is_not_told_that_it_is_not(shelf: Shelf, clock: ManualClock) -> None:
    add, unknown = an_add(), OutcomeUnknown("who knows")
    add.doubt = Doubt(unknown, clock.monotonic(), add.jobs, ())
    shelf.keep(Mailbox(adds=[add]))
    clock.advance(PATIENCE)
    shelf.keep(shelf.take_due(1))

    assert add.ticket.error is unknown


def test_who_asked_later_waits_as_long(shelf: Shelf, clock: ManualClock) -> None:
    first, second = an_add(), an_add()
    shelf.keep(Mailbox(adds=[first]))
    clock.advance(PATIENCE / 2)
    shelf.keep(Mailbox(adds=[second]))
    clock.advance(PATIENCE / 2)
    shelf.keep(shelf.take_due(1))

    assert isinstance(first.ticket.error, StorageBusy)
    assert second.ticket.error is None
    assert shelf.take(1).adds == [second]


def test_the_end_of_a_process_is_put_off_for_a_while_only(shelf: Shelf, clock: ManualClock) -> None:
    shelf.keep(Mailbox(1, finishes=[finish(7)]))
    before = shelf.is_hopeful
    clock.advance(HOPE)

    assert (before, shelf.is_hopeful) == (True, False)


def test_all_that_became_of_events_can_be_taken_out_of_a_mailbox_and_nothing_else() -> None:
    mailbox = Mailbox(1, progress=[note(7)], finishes=[finish(7)], failed=[(object(), "bad", None)])  # type: ignore[list-item]
    out = mailbox.take_out(Held(settling=True))

    assert (len(out.failed), out.finishes, mailbox.failed) == (1, [], [])
    assert len(mailbox.finishes) == len(mailbox.progress) == 1
