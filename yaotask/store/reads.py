"""Questions about jobs: one, some, a page of them. Read in committed state, without the ledger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, and_, func, or_, select
from sqlalchemy.engine import Connection

from yaotask.jobs import JobState
from yaotask.store.tables import attempts, events, jobs, sizes

Row = Mapping[str, Any]

LARGEST_PAGE = 200

# A claim whose handler did not start yet shows as what it was before the claim.
_UNSTARTED = and_(jobs.c.state == JobState.RUNNING, jobs.c.started_at.is_(None))
_TRIED_BEFORE = or_(jobs.c.attempt > 1, jobs.c.losses > 0, jobs.c.deaths > 0)


@dataclass(frozen=True, slots=True)
class Filter:
    """Which jobs to list. `since`, `until` bound the time of the add, in microseconds; `text` is looked
    for in arguments, payload, result and error; `before` is the job that the last page ended with.
    """

    task: str | None = None
    status: str | None = None
    since: int | None = None
    until: int | None = None
    text: str | None = None
    before: int | None = None


def get(connection: Connection, task: str, id: int) -> Row | None:
    """The job, or None."""
    found = connection.execute(select(jobs).where(jobs.c.task == task, jobs.c.id == id)).mappings().one_or_none()
    return found


def status(connection: Connection, task: str, ids: Sequence[int]) -> list[Row]:
    """What is needed to tell the status of each of these jobs that exists."""
    columns = [jobs.c[name] for name in ("id", "state", "started_at", "attempt", "losses", "deaths", "fail_count")]
    return list(connection.execute(select(*columns).where(jobs.c.task == task, jobs.c.id.in_(ids))).mappings())


def page(connection: Connection, wanted: Filter, size: int, offset: int = 0) -> list[Row]:
    """Jobs that pass the filter, the newest first: of one task by id, of all by when they were added."""
    order = jobs.c.id if wanted.task is not None else jobs.c.key
    query = select(jobs).where(*_conditions(wanted)).order_by(order.desc()).limit(size)
    return list(connection.execute(query.offset(offset) if offset else query).mappings())


def count(connection: Connection, wanted: Filter) -> int:
    """How many jobs pass the filter, counted one by one."""
    return int(connection.execute(select(func.count()).select_from(jobs).where(*_conditions(wanted))).scalar_one())


def waiting(connection: Connection, task: str) -> int:
    """How many callers' jobs of the task were never claimed."""
    return int(connection.execute(select(sizes.c.waiting).where(sizes.c.task == task)).scalar() or 0)


def attempts_of(connection: Connection, key: int) -> list[Row]:
    """The recorded tries of a job, oldest first. A success at the first try leaves none."""
    return list(connection.execute(select(attempts).where(attempts.c.job == key).order_by(attempts.c.fence)).mappings())


def events_of(connection: Connection, key: int) -> list[Row]:
    """The events of a job that are still to be delivered, or failed for good."""
    return list(connection.execute(select(events).where(events.c.job == key).order_by(events.c.seq)).mappings())


def by_state(connection: Connection, tasks: Sequence[str] | None = None) -> dict[str, int]:
    """How many jobs are in each state, counted one by one."""
    query = select(jobs.c.state, func.count()).group_by(jobs.c.state)
    if tasks is not None:
        query = query.where(jobs.c.task.in_(tasks))
    return {JobState(state).name: total for state, total in connection.execute(query)}


def unsettled(connection: Connection, tasks: Sequence[str]) -> bool:
    """Whether any job of these tasks is ready, running or retrying, or any event of theirs is undelivered.

    A job that waits for a future time of its adder's choosing does not count.
    """
    live = or_(
        and_(jobs.c.state == JobState.WAITING, jobs.c.due_at.is_(None)),
        jobs.c.state.in_([JobState.RUNNING, JobState.RETRYING]),
    )
    work = select(jobs.c.key).where(jobs.c.task.in_(tasks), jobs.c.state.in_([0, 1, 5]), live).limit(1)
    told = select(events.c.seq).where(events.c.task.in_(tasks), events.c.state == 0).limit(1)
    return connection.execute(work).first() is not None or connection.execute(told).first() is not None


def _conditions(wanted: Filter) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if wanted.task is not None:
        conditions.append(jobs.c.task == wanted.task)
    if wanted.status is not None:
        conditions.append(_has_status(wanted.status))
    if wanted.since is not None:
        conditions.append(jobs.c.created_at >= wanted.since)
    if wanted.until is not None:
        conditions.append(jobs.c.created_at < wanted.until)
    if wanted.before is not None:
        conditions.append((jobs.c.id if wanted.task is not None else jobs.c.key) < wanted.before)
    if wanted.text is not None:
        searched = (jobs.c.args, jobs.c.payload, jobs.c.result, jobs.c.error, jobs.c.message)
        conditions.append(or_(*(column.contains(wanted.text, autoescape=True) for column in searched)))
    return conditions


def _has_status(status: str) -> ColumnElement[bool]:
    match status:
        case "PARTIAL":
            return and_(jobs.c.state == JobState.SUCCESS, jobs.c.fail_count > 0)
        case "WAITING":
            return or_(jobs.c.state == JobState.WAITING, and_(_UNSTARTED, ~_TRIED_BEFORE))
        case "RETRYING":
            return or_(jobs.c.state == JobState.RETRYING, and_(_UNSTARTED, _TRIED_BEFORE))
        case "RUNNING":
            return and_(jobs.c.state == JobState.RUNNING, jobs.c.started_at.is_not(None))
        case _:
            return jobs.c.state == JobState[status]
