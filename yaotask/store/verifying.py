"""What must hold between the rows of a store, whoever writes: looked at in one moment.

Each fault comes with what to do; where that is a statement, it is written as this database wants it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Table, exists, func, inspect, not_, null, select
from sqlalchemy.engine import Connection

from yaotask.jobs import TERMINAL, JobState
from yaotask.phrases import counted
from yaotask.store.checkup import looking
from yaotask.store.opening import Place
from yaotask.store.scripting import creation, indexes
from yaotask.store.tables import attempts, events, ids, jobs, metadata, size_debts, sizes, workers

_SHOWN = 3
_STOPPED = "stop all that use the store, then"


class Fault(NamedTuple):
    """Something that does not hold: what it is about, how it is, and what to do."""

    about: str
    what: str
    advice: str


Faults = Iterator[Fault]


def verify(place: Place, generated: Collection[str]) -> list[Fault] | None:
    """All that does not hold; None where there is no store yet. Nodes may run meanwhile.

    The ids of the `generated` tasks are all given by the store. Raises StorageError where the store cannot be used.
    """
    with looking(place) as connection:
        if connection is None:
            return None
        dialect = place.dialect()
        unsound = dialect.database.fault(connection, None)
        if unsound:
            return [Fault("database", unsound.what, unsound.advice)]
        with dialect.snapshot(connection):
            made = indexes(creation(dialect, connection.dialect, ""))
            faults = [*_schema(connection, made), *_ids(connection, generated)]
            return [*faults, *(fault for look in _LOOKS for fault in look(connection))]


# --- the schema ---------------------------------------------------------------------------------------


def _schema(connection: Connection, made: Mapping[str, str]) -> Faults:
    inspector = inspect(connection)
    there = set(inspector.get_table_names())
    for table in metadata.sorted_tables:
        if table.name not in there:
            yield Fault("schema", f"the table {table.name} is missing", "restore the database from a backup")
            continue
        columns = {column["name"] for column in inspector.get_columns(table.name)}
        missing = [column.name for column in table.c if column.name not in columns]
        if missing:
            yield Fault("schema", f"{table.name} lacks {', '.join(missing)}", "restore the database from a backup")
        found = {index["name"] for index in inspector.get_indexes(table.name)}
        for index in sorted(table.indexes, key=lambda index: str(index.name)):
            name = str(index.name)
            if name in made and name not in found:
                yield Fault("schema", f"the index {name} of {table.name} is missing", f"{made[name]};")
                if index.unique:
                    yield from _doubles(connection, table, list(index.columns))


def _doubles(connection: Connection, table: Table, columns: Sequence[Any]) -> Faults:
    """Rows that an index would have kept out."""
    known = [column.is_not(None) for column in columns]
    query = select(*columns, func.count()).where(*known).group_by(*columns).having(func.count() > 1)
    found = connection.execute(query.limit(_SHOWN)).all()
    if found:
        names = "; ".join(", ".join(map(str, row[:-1])) for row in found)
        what = f"{table.name} has more than one row with the same {', '.join(c.name for c in columns)}: {names}"
        yield Fault("schema", what, "delete all but one of each, then make the index")


# --- jobs ---------------------------------------------------------------------------------------------


def _states(connection: Connection) -> Faults:
    known = [int(state) for state in JobState]
    if found := _jobs(connection, jobs.c.state.not_in(known)):
        advice = f"{_STOPPED} give them one that is: {', '.join(f'{int(state)} {state.name}' for state in JobState)}"
        yield Fault("states", f"{found} in no known state", advice)
    ended = jobs.c.state.in_([int(state) for state in sorted(TERMINAL)]) & jobs.c.finished_at.is_(None)
    if found := _jobs(connection, ended):
        mend = jobs.update().where(ended).values(finished_at=jobs.c.updated_at)
        yield Fault("states", f"{found} ended, but not when", _sql(connection, mend))


def _claims(connection: Connection) -> Faults:
    running = jobs.c.state == int(JobState.RUNNING)
    entered = exists().where(workers.c.key == jobs.c.worker)
    if found := _jobs(connection, running & jobs.c.worker.is_not(None) & not_(entered)):
        yield Fault("claims", f"{found} run by a worker that is not there", "start a node: it takes them back")
    lost = running & jobs.c.worker.is_(None)
    if found := _jobs(connection, lost):
        again = {"state": int(JobState.RETRYING), "fence": jobs.c.fence + 1, "ready_at": None}
        mend = jobs.update().where(lost).values(due_at=jobs.c.run_at, **again)
        yield Fault("claims", f"{found} run by no worker", _sql(connection, mend))
    kept = not_(running) & jobs.c.worker.is_not(None)
    if found := _jobs(connection, kept):
        mend = jobs.update().where(kept).values(worker=null())
        yield Fault("claims", f"{found} not running, but with a worker", _sql(connection, mend))


def _held(connection: Connection) -> Faults:
    """What waits for an event of its own must have one; else nothing ever lets it go on."""
    waits = jobs.c.state.in_([int(JobState.WAITING), int(JobState.RETRYING)])
    event = exists().where(events.c.job == jobs.c.key, events.c.state == 0)
    held = waits & jobs.c.ready_at.is_(None) & jobs.c.due_at.is_(None) & not_(event)
    if found := _jobs(connection, held):
        mend = jobs.update().where(held).values(due_at=jobs.c.run_at)
        yield Fault("claims", f"{found} waiting for nothing, so that nobody will run them", _sql(connection, mend))


def _jobs(connection: Connection, condition: ColumnElement[bool]) -> str:
    """`2 jobs (mail.1, mail.7)` for which this is so; nothing where there are none."""
    total = connection.execute(select(func.count()).select_from(jobs).where(condition)).scalar_one()
    if not total:
        return ""
    shown = connection.execute(select(jobs.c.task, jobs.c.id).where(condition).order_by(jobs.c.key).limit(_SHOWN))
    names = ", ".join(f"{task}.{id}" for task, id in shown)
    return f"{counted(total, 'job')} ({names}{', …' if total > _SHOWN else ''})"


# --- what belongs to jobs -----------------------------------------------------------------------------


def _orphans(connection: Connection) -> Faults:
    for table, noun in ((events, "event"), (attempts, "try")):
        lonely = not_(exists().where(jobs.c.key == table.c.job))
        if total := _count(connection, table, lonely):
            what = f"{counted(total, noun, 'tries' if noun == 'try' else None)} of jobs that are not there"
            yield Fault(
                f"{noun}s" if noun == "event" else "tries", what, _sql(connection, table.delete().where(lonely))
            )


def _events(connection: Connection) -> Faults:
    if total := _count(connection, events, events.c.state.not_in([0, 1])):
        mend = events.update().where(events.c.state.not_in([0, 1])).values(state=1)
        yield Fault("events", f"{counted(total, 'event')} in no known state", _sql(connection, mend))
    entered = exists().where(workers.c.key == events.c.worker)
    if total := _count(connection, events, events.c.worker.is_not(None) & not_(entered)):
        what = f"{counted(total, 'event')} with a worker that is not there"
        yield Fault("events", what, "start a node: it delivers them")


def _sizes(connection: Connection) -> Faults:
    """Each change of what waits is counted in the transaction that makes it, or owed by it."""
    waits = _sums(connection, jobs, jobs.c.counted)
    counts, debts = _sums(connection, sizes, sizes.c.waiting), _sums(connection, size_debts, size_debts.c.added)
    for task in sorted({*waits, *counts, *debts}):
        told, right = counts.get(task, 0) + debts.get(task, 0), waits.get(task, 0)
        if told == right:
            continue
        stored = right - debts.get(task, 0)
        mend: Any = sizes.update().where(sizes.c.task == task).values(waiting=stored)
        if task not in counts:
            mend = sizes.insert().values(task=task, waiting=stored)
        what = f"{counted(told, 'job')} of {task} {'is' if told == 1 else 'are'} counted, {right:,} wait"
        yield Fault("sizes", what, f"{_STOPPED} {_sql(connection, mend)}")


def _sums(connection: Connection, table: Table, column: Any) -> dict[str, int]:
    query = select(table.c.task, func.sum(column)).where(column != 0).group_by(table.c.task)
    return {task: int(total) for task, total in connection.execute(query)}


def _ids(connection: Connection, generated: Collection[str]) -> Faults:
    """The next id of a task is behind all that it has, where no others are given to its jobs."""
    nexts = {row.task: row.next for row in connection.execute(select(ids))}
    for task, largest in connection.execute(select(jobs.c.task, func.max(jobs.c.id)).group_by(jobs.c.task)).all():
        found = nexts.get(task, 1)
        if task not in generated or found > largest:
            continue
        mend: Any = ids.update().where(ids.c.task == task).values(next=largest + 1)
        if task not in nexts:
            mend = ids.insert().values(task=task, next=largest + 1)
        what = f"the next id of {task} is {found}, but there is {task}.{largest}: an add tries one after the other"
        yield Fault("ids", what, _sql(connection, mend))


def _count(connection: Connection, table: Table, condition: ColumnElement[bool]) -> int:
    return int(connection.execute(select(func.count()).select_from(table).where(condition)).scalar_one())


def _sql(connection: Connection, statement: Any) -> str:
    """A statement as it can be given to the database's own client."""
    compiled = statement.compile(dialect=connection.dialect, compile_kwargs={"literal_binds": True})
    return f"{' '.join(str(compiled).split())};"


_LOOKS: Sequence[Callable[[Connection], Faults]] = (_states, _claims, _held, _orphans, _events, _sizes)
