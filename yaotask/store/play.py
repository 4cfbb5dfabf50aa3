"""Doing a mailbox: all at once where it fits, and request by request where one of it does not."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy.exc import DataError, DBAPIError, IntegrityError

from yaotask.errors import YaotaskError
from yaotask.jobs import Cancelled, Succeeded
from yaotask.store import adds
from yaotask.store.cycle import SqlCycle
from yaotask.store.direct import Posted
from yaotask.store.ids import OutOfIds
from yaotask.store.protocol import Add, Errand, Finish, Held, Mailbox, Ticket
from yaotask.store.work import Misfit

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Answers:
    """What each ticket will be told once the transaction is committed."""

    _given: list[tuple[Ticket, Any, BaseException | None]] = field(default_factory=list)

    def give(self, ticket: Ticket, value: Any = None, error: BaseException | None = None) -> None:
        self._given.append((ticket, value, error))

    def settle(self) -> None:
        for ticket, value, error in self._given:
            if error is None:
                ticket.resolve(value)
            else:
                ticket.reject(error)


def play(cycle: SqlCycle, mailbox: Mailbox) -> Answers:
    """The whole mailbox in batches. Raises Misfit or IntegrityError where one row does not fit, or is not to be had."""
    answers = Answers()
    with _what_fails_is_misfit(cycle):
        _tell(cycle, mailbox)
        if mailbox.finishes:
            cycle.finish(mailbox.finishes)
        _settle(cycle, mailbox)
        for errand in mailbox.errands:
            _run(cycle, errand, answers)
        if mailbox.adds and not cycle.dialect.shared:
            adds.pay_debts(cycle)
        with cycle.briefly() if mailbox.is_in_doubt else nullcontext():
            for group in _together(mailbox.adds):
                _add_together(cycle, group, answers)
        _take(cycle, mailbox, look_first=mailbox.due)
        cycle.close()
    return answers


def replay(cycle: SqlCycle, mailbox: Mailbox) -> Answers:
    """The same, each request behind a savepoint of its own: it alone gets its error.

    What somebody else's open transaction has is not waited for; the harvest says what was `held`.
    """
    answers = Answers()
    free = replace(mailbox)
    put_off = free.take_out(Held(cycle.held_of(mailbox.jobs)))
    _tell_safely(cycle, free)
    mailbox.finishes[:] = [*_finish_all(cycle, free.finishes), *put_off.finishes]
    settled, later = True, set[Add | Errand]()
    if free.errands or free.settles:
        with cycle.briefly():
            settled = _settle_safely(cycle, free)
            later |= {errand for errand in free.errands if not _run_alone(cycle, errand, answers)}
    if free.adds:
        later |= _add_each(cycle, free.adds, answers)
    cycle.harvest.held = Held(put_off.jobs, frozenset(later), settling=not settled)
    _take(cycle, mailbox, look_first=True)
    cycle.close()
    cycle.see_done()
    return answers


def _tell(cycle: SqlCycle, mailbox: Mailbox) -> None:
    if mailbox.progress:
        cycle.progress(mailbox.progress)
    if mailbox.started:
        cycle.store_started(mailbox.started)


def _tell_safely(cycle: SqlCycle, mailbox: Mailbox) -> None:
    """What the database refuses of a report is given up: it would keep from being stored all that comes after it."""
    lost, known = cycle.harvest.lost, len(cycle.harvest.lost)
    try:
        with cycle.savepoint():
            _tell(cycle, mailbox)
    except DataError:
        del lost[known:]
        for note in mailbox.progress:
            try:
                with cycle.savepoint():
                    cycle.progress([note])
                lost[known:] = dict.fromkeys(lost[known:])
            except DataError as error:
                log.error("progress is given up, the database does not take %s: %s", note.changes, error.orig)
        if mailbox.started:
            cycle.store_started(mailbox.started)


def _take(cycle: SqlCycle, mailbox: Mailbox, *, look_first: bool) -> None:
    """Claim; unless it is to be looked first, the look may go along with that. Raises Misfit where that was wrong."""
    if mailbox.worker is None:
        return
    if mailbox.others:
        adds.pay_debts(cycle)
    look = cycle.look_around(mailbox.worker)
    if look_first:
        cycle.see_done()
    seen = look.answer
    if seen is None:
        _claim_with_the_look(cycle, mailbox, mailbox.worker, look)
        return
    around = seen.one()
    cycle.harvest.next_due = cycle.promote(around.due)
    if mailbox.entered and mailbox.wants and not around.entered:
        cycle.harvest.dismissed = True
    else:
        _claim(cycle, mailbox, mailbox.worker)


def _claim_with_the_look(cycle: SqlCycle, mailbox: Mailbox, worker: int, look: Posted) -> None:
    """What is due, or may be, is promoted in the next cycle, which looks first."""
    _claim(cycle, mailbox, worker)
    if mailbox.entered and mailbox.wants:
        cycle.see_done()
        if look.answer is None or not look.answer.one().entered:
            raise Misfit

    def note() -> None:
        cycle.harvest.next_due = cycle.now if look.answer is None else look.answer.one().due

    cycle.harvest.afterwards.append(note)


def _claim(cycle: SqlCycle, mailbox: Mailbox, worker: int) -> None:
    if mailbox.demands:
        cycle.claim(mailbox.demands, worker)
    if mailbox.deliveries:
        cycle.claim_deliveries(mailbox.delivery_tasks, mailbox.deliveries, worker)


def _run(cycle: SqlCycle, errand: Errand, answers: Answers) -> None:
    """An errand refuses before it changes anything, so that its refusal needs no rollback."""
    try:
        answers.give(errand.ticket, errand.run(cycle))
    except YaotaskError as error:
        answers.give(errand.ticket, error=error)


def _settle(cycle: SqlCycle, mailbox: Mailbox) -> None:
    # Before the errands: one may take our worker out, and with it its right to settle anything.
    if mailbox.settles and mailbox.worker is not None:
        cycle.settle(mailbox.worker, mailbox.delivered, mailbox.failed)


def _settle_safely(cycle: SqlCycle, mailbox: Mailbox) -> bool:
    """Whether that is over; not where somebody else has one of the events."""
    try:
        with cycle.savepoint():
            _settle(cycle, mailbox)
    except IntegrityError as error:
        log.error("what became of some events cannot be stored: %s", cycle.dialect.errors.explain(error.orig))
    except DBAPIError as error:
        if not cycle.dialect.errors.is_held(error):
            raise
        return False
    return True


def _run_alone(cycle: SqlCycle, errand: Errand, answers: Answers) -> bool:
    """Whether it has an answer; not where somebody else has what it needs."""
    try:
        with cycle.savepoint():
            _run(cycle, errand, answers)
    except (Misfit, IntegrityError) as error:
        answers.give(errand.ticket, error=error)
    except DBAPIError as error:
        if not cycle.dialect.errors.is_held(error):
            raise
        return False
    return True


def _finish_all(cycle: SqlCycle, finishes: list[Finish]) -> list[Finish]:
    """The ends as they were stored, where they were."""
    try:
        with cycle.savepoint():
            cycle.finish(finishes)
    except Misfit:
        return [_finish_alone(cycle, finish) for finish in finishes]
    return finishes


def _finish_alone(cycle: SqlCycle, finish: Finish) -> Finish:
    """The end as it was stored, where it was."""
    if type(finish.outcome) is not Succeeded and cycle.is_asked_to_stop(finish.claim):
        # Its worker may not have heard of it in time (T9).
        finish = finish._replace(outcome=Cancelled())
    try:
        with cycle.savepoint():
            cycle.finish([finish])
    except Misfit:
        _note_misfit(cycle, finish)
    return finish


def _note_misfit(cycle: SqlCycle, finish: Finish) -> None:
    name, lost = (finish.claim.key, finish.claim.fence), cycle.harvest.lost
    known = name in lost  # by progress that came along
    if not cycle.already_finished(finish):
        lost += [] if known else [name]
        return
    cycle.harvest.known.add(name)
    if known:
        lost.remove(name)


def _together(requests: list[Add]) -> Iterator[list[Add]]:
    """Adds that one insert can store. Those of a task keep their order."""
    latest: dict[str, list[Add]] = {}
    groups: list[list[Add]] = []
    for add in requests:
        group = latest.get(add.task)
        if group is None or not _alike(group[-1], add):
            group = latest[add.task] = []
            groups.append(group)
        group.append(add)
    yield from groups


def _alike(one: Add, other: Add) -> bool:
    # A used key is answered even when the queue is full, so that an add with one goes by itself.
    keyed = any(job.terms.key is not None for add in (one, other) for job in add.jobs)
    return not keyed and (one.size, one.events) == (other.size, other.events)


def _add_together(cycle: SqlCycle, group: list[Add], answers: Answers) -> None:
    """One insert for all adds of a group, then to each its own ids."""
    whole = Add(group[0].task, [job for add in group for job in add.jobs], group[0].size, group[0].events, Ticket())
    adds.store(cycle, whole)
    done = 0
    for add in group:
        add.stored = whole.stored[done : done + len(add.jobs)]
        done += len(add.jobs)
        if add.doubt is not None:
            adds.tell(cycle, add)
        answers.give(add.ticket, add.stored, adds.full(add) if len(add.stored) < len(add.jobs) else None)


@contextmanager
def _what_fails_is_misfit(cycle: SqlCycle) -> Iterator[None]:
    """Where a row is not to be had, or a value is out of bounds, that of `size` among them."""
    try:
        yield
    except DBAPIError as error:
        if isinstance(error, DataError) or cycle.dialect.errors.is_held(error):
            raise Misfit from error
        raise


def _add_each(cycle: SqlCycle, requests: list[Add], answers: Answers) -> set[Add]:
    """Those that have no answer, because somebody else is just using a key or an id of theirs."""
    adds.pay_debts(cycle)
    uncounted = _lock_counters(cycle, requests)
    held: set[Add] = set()
    names: set[tuple[str, str | int]] = set()
    with cycle.briefly():
        for add in requests:
            add.stored = []
            own = _names(add)
            # What one has met the next one need not wait for.
            met = not names.isdisjoint(own) or (add.size is not None and add.task in uncounted)
            if met or not _add_alone(cycle, add, answers):
                held.add(add)
                names |= own
    return held


def _lock_counters(cycle: SqlCycle, requests: list[Add]) -> set[str]:
    """The tasks of bounded adds whose counters somebody else keeps; the others are ours to the end.

    In one order everywhere, and outside the savepoints of adds: to undo one may give up the lock.
    """
    tasks = sorted({add.task for add in requests if add.size is not None})
    # A commit that is not over has its counter, and may be in no hurry.
    with cycle.briefly() if any(add.doubt for add in requests) else nullcontext():
        return {task for task in tasks if not _lock_counter(cycle, task)}


def _lock_counter(cycle: SqlCycle, task: str) -> bool:
    """Whether it is ours."""
    try:
        with cycle.savepoint():
            cycle.sizes.room(task, 0, 0)
    except DBAPIError as error:
        if not cycle.dialect.errors.is_held(error):
            raise
        return False
    return True


def _names(add: Add) -> set[tuple[str, str | int]]:
    """The keys and ids that no two jobs of a task may have."""
    given = (name for job in add.jobs for name in (job.terms.key, job.id))
    return {(add.task, name) for name in given if name is not None}


def _add_alone(cycle: SqlCycle, add: Add, answers: Answers) -> bool:
    """Whether it has an answer."""
    try:
        answers.give(add.ticket, adds.add(cycle, add))
    except OutOfIds:
        raise
    except adds.Undecided:
        return False
    except YaotaskError as error:
        answers.give(add.ticket, error=error)
    except DBAPIError as error:
        # A caller's transaction that is still open has the same key, say: nobody else shall wait for its end.
        if cycle.dialect.errors.is_held(error):
            return False
        if not isinstance(error, IntegrityError):
            raise
        answers.give(add.ticket, error=cycle.dialect.errors.explain(error.orig))
    return True
