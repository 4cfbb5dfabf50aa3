"""Lists of jobs, the newest first, each by the index that suits what is asked for."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, cast

from sqlalchemy import Column, ColumnElement, Select, Text, func, or_, select, text, tuple_
from sqlalchemy.engine import Connection

from yaotask.jobs import JobState
from yaotask.store.tables import jobs

Row = Mapping[str, Any]

LARGEST_PAGE = 200


@dataclass(frozen=True, slots=True)
class Filter:
    """Which jobs to list. `since`, `until` bound the time of the add, in microseconds; `text` is looked
    for in arguments, payload, result and error; `before` is the job that the last page ended with: its
    id where `task` is given, else its key.
    """

    task: str | None = None
    # Each of other jobs than the rest; none of them lets through all jobs.
    statuses: tuple[str, ...] = ()
    since: int | None = None
    until: int | None = None
    text: str | None = None
    before: int | None = None

    @property
    def by_time(self) -> bool:
        return self.since is not None or self.until is not None


class Way(Enum):
    """How to come to the rows: in their order, or through an index that holds just the few."""

    WALK = 0
    RUNNING = 1
    UNSUCCESSFUL = 2


@dataclass(frozen=True, slots=True)
class Part:
    """Some of the jobs of a status: their states as the index has them, and the way to them."""

    condition: str
    way: Way = Way.WALK


# A claim whose handler did not start yet shows as what it was before the claim.
_TRIED = "(attempt > 1 OR losses > 0 OR deaths > 0)"
_UNSTARTED = "state = 1 AND worker IS NOT NULL AND started_at IS NULL"


def _parts(statuses: Collection[str]) -> list[Part]:
    return [part for status in statuses for part in _parts_of(status)] or [Part("true")]


def _parts_of(status: str) -> list[Part]:
    match status:
        case "PARTIAL":
            return [Part("state = 2 AND fail_count > 0")]
        case "SUCCESS":
            return [Part("state = 2")]
        case "RUNNING":
            return [Part("state = 1 AND worker IS NOT NULL AND started_at IS NOT NULL", Way.RUNNING)]
        case "WAITING":
            return [Part("state = 0"), Part(f"{_UNSTARTED} AND NOT {_TRIED}", Way.RUNNING)]
        case "RETRYING":
            return [_unsuccessful("RETRYING"), Part(f"{_UNSTARTED} AND {_TRIED}", Way.RUNNING)]
        case name:
            return [_unsuccessful(name)]


def _unsuccessful(name: str) -> Part:
    return Part(f"state IN (3, 5, 6, 7) AND state = {int(JobState[name])}", Way.UNSUCCESSFUL)


def page(connection: Connection, wanted: Filter, size: int, offset: int = 0) -> list[Row]:
    """Jobs that pass the filter, the newest first: by when they were added where that is bounded or
    the jobs are of many tasks, else by id.
    """
    queries = [_suited(connection, _query(wanted, part), wanted, part) for part in _parts(wanted.statuses)]
    if len(queries) == 1:
        return read_rows(connection, queries[0].limit(size).offset(offset))
    # By key: a job that went on between two of them is found by both, and is what the later one says.
    found = {row["key"]: row for query in queries for row in read_rows(connection, query.limit(size + offset))}
    rows = list(found.values())
    names = [column.name for column in _order(wanted)]
    rows.sort(key=lambda row: [row[name] for name in names], reverse=True)
    return rows[offset : offset + size]


def read_rows(connection: Connection, query: Select[Any]) -> list[Row]:
    """What a query finds, each row by column."""
    return cast(list[Row], connection.execute(query).mappings().all())


def count(connection: Connection, wanted: Filter) -> int:
    """How many jobs pass the filter, counted one by one."""
    total = select(func.count()).select_from(jobs)
    queries = [
        _suited(connection, total.where(*_conditions(wanted, part)), wanted, part) for part in _parts(wanted.statuses)
    ]
    return sum(connection.execute(query).scalar_one() for query in queries)


def _order(wanted: Filter) -> list[Column[Any]]:
    if wanted.by_time:
        return [jobs.c.created_at, jobs.c.key]
    return [jobs.c.id if wanted.task is not None else jobs.c.key]


def _query(wanted: Filter, part: Part) -> Select[Any]:
    in_index = part.way is Way.WALK or (part.way is Way.UNSUCCESSFUL and wanted.task is not None and not wanted.by_time)
    order: list[ColumnElement[Any]] = [column if in_index else _aside(column) for column in _order(wanted)]
    return select(jobs).where(*_conditions(wanted, part)).order_by(*(column.desc() for column in order))


def _suited(connection: Connection, query: Select[Any], wanted: Filter, part: Part) -> Select[Any]:
    """The query as MySQL must be told it: without partial indexes the one of the few has all states there, by task."""
    if connection.dialect.name not in ("mysql", "mariadb") or not _is_by_state(wanted, part):
        return query
    named = query.with_hint(jobs, "FORCE INDEX (yaotask_jobs_unsuccessful)")
    if wanted.task is not None:
        return named
    # It goes from one task to the next in an index.
    tasks = connection.execute(select(jobs.c.task).distinct()).scalars().all()
    return named.where(jobs.c.task.in_(tasks))


def _is_by_state(wanted: Filter, part: Part) -> bool:
    """Whether the rows of a state, which that index has in the order of their ids, are what should be read."""
    if part.way is Way.WALK:
        return bool(wanted.statuses) and wanted.task is not None and not wanted.by_time
    return part.way is Way.UNSUCCESSFUL


def _aside(column: Column[Any]) -> ColumnElement[Any]:
    """The column's value, written so that the planner takes no index for it."""
    return column.concat("") if isinstance(column.type, Text) else column + 0


def _conditions(wanted: Filter, part: Part) -> list[ColumnElement[bool]]:
    walks = part.way is Way.WALK
    task = _aside(jobs.c.task) if part.way is Way.RUNNING or (walks and wanted.by_time) else jobs.c.task
    created = jobs.c.created_at if walks else _aside(jobs.c.created_at)
    conditions: list[Any] = [text(part.condition)]
    if wanted.task is not None:
        conditions.append(task == wanted.task)
    if wanted.since is not None:
        conditions.append(created >= wanted.since)
    if wanted.until is not None:
        conditions.append(created < wanted.until)
    if wanted.before is not None:
        conditions.append(_before(wanted))
    if wanted.text is not None:
        searched = (jobs.c.args, jobs.c.payload, jobs.c.result, jobs.c.error, jobs.c.message)
        conditions.append(or_(*(column.contains(wanted.text, autoescape=True) for column in searched)))
    return conditions


def _before(wanted: Filter) -> ColumnElement[bool]:
    name = jobs.c.key if wanted.task is None else jobs.c.id
    if not wanted.by_time:
        return name < wanted.before
    last = jobs.alias("last")
    query = select(last.c.created_at, last.c.key).where(last.c[name.name] == wanted.before)
    if wanted.task is not None:
        query = query.where(last.c.task == wanted.task)
    return tuple_(jobs.c.created_at, jobs.c.key) < query.scalar_subquery()
