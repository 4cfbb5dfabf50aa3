"""Storing jobs (T1)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from sqlalchemy.exc import IntegrityError

from yaotask.errors import DuplicateJobId, QueueFull, StorageBusy
from yaotask.events import ADD_BIT
from yaotask.store import doubt, rows, statements
from yaotask.store.protocol import Add, Commit, Doubt, NewJob
from yaotask.store.work import Work
from yaotask.values import dumps


class Undecided(Exception):
    """An add may be stored already, or later, and cannot be stored now."""


def add(work: Work, add: Add) -> list[int]:
    """Store the jobs of one add, whatever becomes of others; the answer is their ids.

    Raises QueueFull when not all fit: those that did are stored. Raises DuplicateJobId, and stores
    none of them, when one has an id that is taken. Raises Undecided for one with a doubt
    that can be neither found nor stored.
    """
    try:
        if add.doubt is None or not _add_again(work, add, add.doubt):
            _store_all_or_one_by_one(work, add)
    except BaseException:
        # What was stored of it is undone.
        add.stored = []
        raise
    if len(add.stored) < len(add.jobs):
        raise full(add)
    return add.stored


def _store_all_or_one_by_one(work: Work, add: Add) -> None:
    with work.savepoint():
        try:
            with work.savepoint():
                store(work, add)
        except IntegrityError as error:
            if not _is_taken(work, error):
                raise
            _store_one_by_one(work, add)


def _add_again(work: Work, add: Add, in_doubt: Doubt) -> bool:
    """Store what may be stored already, or find it. False where it never was, nor will be: others have its ids or keys.

    Raises Undecided where it is not to be seen, and does not fit: nothing would keep it from being stored later.
    """
    stored = doubt.found(work.connection, add, in_doubt.tries)
    if stored is None:
        try:
            with work.savepoint():
                store(work, add)
            if in_doubt.tries and len(add.stored) < len(add.jobs):
                _must_be_there(work, add)
            tell(work, add)
            return True
        except IntegrityError as error:
            if not _is_taken(work, error):
                raise
        stored = doubt.found(work.connection, add, in_doubt.tries)
    if stored is None:
        add.jobs, add.doubt = in_doubt.jobs, None
        return False
    add.stored = stored
    tell(work, add)
    return True


def _must_be_there(work: Work, add: Add) -> None:
    if doubt.found(work.connection, add, [(Commit(work.now), add.stored)]) is None:
        raise Undecided


def tell(work: Work, add: Add) -> None:
    """If it was stored before, nobody has been told."""
    work.harvest.woken.add(add.task)
    work.harvest.wrote_events |= bool(add.events & ADD_BIT)


def _is_taken(work: Work, error: IntegrityError) -> bool:
    return work.dialect.errors.is_taken_id(error) or work.dialect.errors.is_taken_key(error)


def _store_one_by_one(work: Work, add: Add) -> None:
    stored: list[int] = []
    for job in add.jobs:
        one = Add(add.task, [job], add.size, add.events, add.ticket)
        _store_one(work, one, job)
        if not one.stored:
            break
        stored += one.stored
    add.stored = stored


def _store_one(work: Work, one: Add, job: NewJob) -> None:
    while True:
        # Drawn outside the savepoint, so that an id which was taken is not drawn once more.
        id = next(work.ids.draw(one.task, 1)) if job.id is None else job.id
        one.jobs = [job._replace(id=id)]
        try:
            with work.savepoint():
                store(work, one)
            return
        except IntegrityError as error:
            if work.dialect.errors.is_taken_key(error):
                one.stored[:] = [_used_meanwhile(work, one.task, job.terms.key)]
                return
            if not work.dialect.errors.is_taken_id(error):
                raise
            if job.id is not None:
                raise DuplicateJobId(one.task, job.id) from error
            # A generated id that `event.next` had given out before: the next one may be free.


def _used_meanwhile(work: Work, task: str, key: str | None) -> int:
    """The job that somebody stored with this key since we looked. Raises StorageBusy where it cannot be seen."""
    # A transaction that reads of one moment finds it only so, or not at all: PostgreSQL keeps to that moment.
    used: int | None = work.execute(statements.NEWEST_BY_IDEMPOTENCY_KEY, task=task, key=key).scalar()
    if used is None:
        raise StorageBusy(
            f"{work.dialect.label}: the key {key!r} was used since this transaction began: roll it back and do all of"
            " it again"
        )
    return used


def full(add: Add) -> QueueFull:
    """The error for an add of which not all jobs were stored."""
    return QueueFull(add.task, add.size or 0, add.stored)


def store(work: Work, add: Add) -> None:
    """Store jobs in order until one does not fit into the size; `add.stored` has their ids.

    Raises IntegrityError for an id that is taken, OutOfIds where ids must be reserved first.
    """
    add.stored.clear()
    run: list[NewJob] = []
    for job in add.jobs:
        # Jobs without a key go as one batch, in runs, so that ids keep the order of the jobs.
        if job.terms.key is None:
            run.append(job)
        elif not (_insert(work, add, run) and _store_keyed(work, add, job)):
            return
        else:
            run = []
    _insert(work, add, run)


def _store_keyed(work: Work, add: Add, job: NewJob) -> bool:
    """Store a job, or answer the one that used its key before; False where it does not fit."""
    used = work.execute(statements.BY_IDEMPOTENCY_KEY, task=add.task, key=job.terms.key).scalar()
    if used is None:
        return _insert(work, add, [job])
    add.stored.append(used)
    return True


def _insert(work: Work, add: Add, jobs: Sequence[NewJob]) -> bool:
    """Store as many as fit; whether that was all."""
    fitting = jobs if add.size is None else jobs[: work.sizes.room(add.task, add.size, len(jobs))]
    if fitting:
        _insert_all(work, add, fitting)
    return len(fitting) == len(jobs)


def _insert_all(work: Work, add: Add, jobs: Sequence[NewJob]) -> None:
    drawn = work.ids.draw(add.task, sum(job.id is None for job in jobs))
    stored = [next(drawn) if job.id is None else job.id for job in jobs]
    held = bool(add.events & ADD_BIT)
    counted = int(add.size is not None)
    shared = {"task": add.task, "events": add.events, "counted": counted, "now": work.now}
    for terms, run in groupby(zip(jobs, stored, strict=True), key=lambda pair: pair[0].terms):
        new = rows.texts([rows.new_job(job, id, work.own.nest) for job, id in run])
        own = {**terms._asdict(), **rows.when(terms.run_at, work.now, held)}
        work.post(work.own.INSERT_JOBS, rows=new, **shared, **own)
    add.stored += stored
    work.harvest.first_stored = work.harvest.first_stored or (add.task, stored[0])
    if counted:
        work.sizes.change(add.task, len(stored))
    work.harvest.woken.add(add.task)
    if held:
        work.post(work.own.INSERT_ADD_EVENTS, task=add.task, ids=dumps(stored), now=work.now)
        work.harvest.wrote_events = True


def pay_debts(work: Work) -> None:
    """Count the jobs that were added in callers' own transactions."""
    for debt in work.own.take_debts(work.connection):
        work.sizes.change(debt.task, int(debt.added))
        work.harvest.woken.add(debt.task)
        work.harvest.paid_debts = True
