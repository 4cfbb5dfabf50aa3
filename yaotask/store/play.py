"""Doing a mailbox: all at once where it fits, and request by request where one of it does not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.exc import DBAPIError, IntegrityError

from yaotask.errors import DuplicateJobId, YaotaskError
from yaotask.store.cycle import Misfit, SqlCycle
from yaotask.store.ids import OutOfIds
from yaotask.store.protocol import Add, Errand, Finish, Mailbox, NewJob, Ticket


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
    for task_adds in _by_task(mailbox.adds):
        _add_together(cycle, task_adds, answers)
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
            with _savepoint(cycle):
                _run(cycle, errand, answers)
        except (Misfit, IntegrityError) as error:
            answers.give(errand.ticket, error=error)
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
        cycle.pay_debts()
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
        with _savepoint(cycle):
            cycle.finish([finish])
    except Misfit:
        if not cycle.already_finished(finish):
            cycle.harvest.lost.append((finish.claim.key, finish.claim.fence))


def _by_task(adds: list[Add]) -> Iterator[list[Add]]:
    groups: dict[tuple[str, int | None, int], list[Add]] = {}
    for add in adds:
        groups.setdefault((add.task, add.size, add.events), []).append(add)
    yield from groups.values()


def _add_together(cycle: SqlCycle, adds: list[Add], answers: Answers) -> None:
    """One insert for all adds of a task, then to each its own ids."""
    if len(adds) == 1:
        _add(cycle, adds[0], answers)
        return
    whole = Add(adds[0].task, [job for add in adds for job in add.jobs], adds[0].size, adds[0].events, Ticket())
    cycle.add(whole)
    done = 0
    for add in adds:
        add.stored = whole.stored[done : done + len(add.jobs)]
        done += len(add.jobs)
        answers.give(add.ticket, add.stored, cycle.full(add) if len(add.stored) < len(add.jobs) else None)


def _add(cycle: SqlCycle, add: Add, answers: Answers) -> None:
    cycle.add(add)
    answers.give(add.ticket, add.stored, cycle.full(add) if len(add.stored) < len(add.jobs) else None)


def _add_alone(cycle: SqlCycle, add: Add, answers: Answers) -> None:
    stored: list[int] = []
    error: BaseException | None = None
    for job in add.jobs:
        one = Add(add.task, [job], add.size, add.events, add.ticket)
        error = _add_job(cycle, one, job)
        if error is not None:
            break
        stored += one.stored
    add.stored = stored
    answers.give(add.ticket, stored, error)


def _add_job(cycle: SqlCycle, one: Add, job: NewJob) -> BaseException | None:
    while True:
        try:
            with _savepoint(cycle):
                cycle.add(one)
            return None if one.stored else cycle.full(one)
        except OutOfIds:
            raise
        except IntegrityError:
            if job.id is not None:
                return DuplicateJobId(one.task, job.id)
            # A generated id that `event.next` had given out before: the next one may be free.
        except DBAPIError as error:
            return cycle.dialect.translate(error)


@contextmanager
def _savepoint(cycle: SqlCycle) -> Iterator[None]:
    cycle.connection.exec_driver_sql("SAVEPOINT request")
    try:
        yield
    except BaseException:
        cycle.connection.exec_driver_sql("ROLLBACK TO SAVEPOINT request")
        raise
    finally:
        cycle.connection.exec_driver_sql("RELEASE SAVEPOINT request")
