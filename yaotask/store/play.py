"""Doing a mailbox: all at once where it fits, and request by request where one of it does not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.exc import IntegrityError

from yaotask.errors import YaotaskError
from yaotask.store import adds
from yaotask.store.cycle import SqlCycle
from yaotask.store.ids import OutOfIds
from yaotask.store.protocol import Add, Errand, Finish, Mailbox, Ticket
from yaotask.store.work import Misfit


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
    """The whole mailbox in batches. Raises Misfit or IntegrityError where one row does not fit."""
    answers = Answers()
    _tell(cycle, mailbox)
    if mailbox.finishes:
        cycle.finish(mailbox.finishes)
    for errand in mailbox.errands:
        _run(cycle, errand, answers)
    if mailbox.adds:
        adds.pay_debts(cycle)
    for group in _together(mailbox.adds):
        _add_together(cycle, group, answers)
    _take(cycle, mailbox)
    return answers


def replay(cycle: SqlCycle, mailbox: Mailbox) -> Answers:
    """The same, each request behind a savepoint of its own: it alone gets its error."""
    answers = Answers()
    _tell(cycle, mailbox)
    for finish in mailbox.finishes:
        _finish_alone(cycle, finish)
    for errand in mailbox.errands:
        try:
            with cycle.savepoint():
                _run(cycle, errand, answers)
        except (Misfit, IntegrityError) as error:
            answers.give(errand.ticket, error=error)
    if mailbox.adds:
        adds.pay_debts(cycle)
    for add in mailbox.adds:
        _add_alone(cycle, add, answers)
    _take(cycle, mailbox)
    return answers


def _tell(cycle: SqlCycle, mailbox: Mailbox) -> None:
    if mailbox.progress:
        cycle.progress(mailbox.progress)
    if mailbox.started:
        cycle.store_started(mailbox.started)


def _take(cycle: SqlCycle, mailbox: Mailbox) -> None:
    if mailbox.worker is None:
        return
    if mailbox.others:
        adds.pay_debts(cycle)
    cycle.harvest.next_due = cycle.promote()
    if mailbox.demands:
        cycle.claim(mailbox.demands, mailbox.worker)
    if mailbox.deliveries:
        cycle.claim_deliveries(mailbox.delivery_tasks, mailbox.deliveries, mailbox.worker)


def _run(cycle: SqlCycle, errand: Errand, answers: Answers) -> None:
    """An errand refuses before it changes anything, so that its refusal needs no rollback."""
    try:
        answers.give(errand.ticket, errand.run(cycle))
    except YaotaskError as error:
        answers.give(errand.ticket, error=error)


def _finish_alone(cycle: SqlCycle, finish: Finish) -> None:
    try:
        with cycle.savepoint():
            cycle.finish([finish])
    except Misfit:
        _note_misfit(cycle, finish)


def _note_misfit(cycle: SqlCycle, finish: Finish) -> None:
    name, lost = (finish.claim.key, finish.claim.fence), cycle.harvest.lost
    known = name in lost  # by progress that came along
    if not cycle.already_finished(finish):
        lost += [] if known else [name]
    elif known:
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
        answers.give(add.ticket, add.stored, adds.full(add) if len(add.stored) < len(add.jobs) else None)


def _add_alone(cycle: SqlCycle, add: Add, answers: Answers) -> None:
    try:
        answers.give(add.ticket, adds.add(cycle, add))
    except OutOfIds:
        raise
    except YaotaskError as error:
        answers.give(add.ticket, error=error)
    except IntegrityError as error:
        answers.give(add.ticket, error=cycle.dialect.translate(error))
