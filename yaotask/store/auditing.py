"""Evidence that the database itself gathers, for whoever wants to judge yaotask: every change of a job's row, every
event, every process that was entered. Triggers write it, in the transaction of what it tells of.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from sqlalchemy import BigInteger, Column, Integer, MetaData, Table, func, inspect, select, text
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from yaotask.errors import StorageUnavailable
from yaotask.phrases import listed
from yaotask.store import reads, tables
from yaotask.store.opening import Place
from yaotask.store.tables import Key, LongText, ShortText

metadata = MetaData()

# The columns of a job that are kept, as they were and as they are.
KEPT = (
    "state",
    "generation",
    "attempt",
    "fence",
    "losses",
    "deaths",
    "worker",
    "counted",
    "cancel_at",
    "started_at",
    "finished_at",
    "result",
    "message",
)
_TEXTS = ("result", "message")

changes = Table(
    "yaotask_chaos_changes",
    metadata,
    Column("seq", Key, primary_key=True, autoincrement=True),
    Column("at", BigInteger, nullable=False),
    Column("job", BigInteger, nullable=False),
    Column("is_new", Integer, nullable=False),
    *(Column(f"old_{name}", LongText() if name in _TEXTS else BigInteger) for name in KEPT),
    *(Column(f"new_{name}", LongText() if name in _TEXTS else BigInteger) for name in KEPT),
    sqlite_autoincrement=True,
)
events = Table(
    "yaotask_chaos_events",
    metadata,
    # As in the outbox.
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("task", ShortText(), nullable=False),
    Column("id", BigInteger, nullable=False),
    Column("kind", Integer, nullable=False),
)
workers = Table(
    "yaotask_chaos_workers",
    metadata,
    Column("worker", BigInteger, primary_key=True, autoincrement=False),
    Column("pid", Integer, nullable=False),
    Column("kind", ShortText(), nullable=False),
    Column("node", BigInteger),
    Column("at", BigInteger, nullable=False),
    Column("has_lock", Integer, nullable=False),
)
leases = Table(
    "yaotask_chaos_leases",
    metadata,
    Column("seq", Key, primary_key=True, autoincrement=True),
    Column("worker", BigInteger, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("ends_at", BigInteger, nullable=False),
    sqlite_autoincrement=True,
)
# What handlers write in `job.transaction()`: nothing keeps a job from having two rows but what yaotask promises.
ledger = Table(
    "yaotask_chaos_ledger",
    metadata,
    Column("seq", Key, primary_key=True, autoincrement=True),
    Column("task", ShortText(), nullable=False),
    Column("id", BigInteger, nullable=False),
    Column("fence", BigInteger, nullable=False),
)

# Microseconds since 1970, by the clock of the machine, as it goes on within a transaction.
_NOW: Mapping[str, str] = {
    "sqlite": "CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER)",
    "postgresql": "CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT)",
    "mysql": "CAST(UNIX_TIMESTAMP(SYSDATE(6)) * 1000000 AS SIGNED)",
}
_DIFFERS: Mapping[str, str] = {
    "sqlite": "OLD.{name} IS NOT NEW.{name}",
    "postgresql": "OLD.{name} IS DISTINCT FROM NEW.{name}",
    "mysql": "NOT (OLD.{name} <=> NEW.{name})",
}


def must_be_empty(place: Place) -> None:
    """Raises StorageUnavailable for a database in which there is anything, which nobody may want broken."""
    dialect = place.dialect()
    if dialect.database.is_missing():
        return
    engine = dialect.engine(writer=False)
    try:
        with engine.connect() as connection:
            found = inspect(connection).get_table_names()
    except DBAPIError as error:
        raise dialect.errors.explain(error.orig) from error
    finally:
        engine.dispose()
    if found:
        raise StorageUnavailable(
            f"{dialect.label} is not empty, it has {listed(sorted(found))}: give a database that has nothing in it,"
            " because what is there will be broken on purpose"
        )


def install(connection: Connection) -> None:
    """Let the database gather evidence from now on. For a store that was just created."""
    metadata.create_all(connection)
    for statement in _statements("mysql" if connection.dialect.name == "mariadb" else connection.dialect.name):
        connection.exec_driver_sql(statement)


def changes_of(connection: Connection) -> Iterable[Any]:
    """Every change of a job's row."""
    return connection.execute(select(changes))


def events_of(connection: Connection) -> Iterator[Any]:
    """Every event that was ever in the outbox; with `state, tries, deaths, error` of those still there, else None."""
    of = tables.events.c
    left = {row.seq: row for row in connection.execute(select(of.seq, of.state, of.tries, of.deaths, of.error))}
    for row in connection.execute(select(events)):
        yield row, left.get(row.seq)


def workers_of(connection: Connection) -> Iterable[Any]:
    """Every process that was ever entered."""
    return connection.execute(select(workers))


def leases_of(connection: Connection) -> Iterable[Any]:
    """Every lease that was given or renewed."""
    return connection.execute(select(leases))


def ledger_of(connection: Connection) -> Iterable[Any]:
    """Every row of the ledger."""
    return connection.execute(select(ledger))


def states_of(connection: Connection) -> dict[str, int]:
    """How many jobs are in each state."""
    return reads.by_state(connection)


def is_settled(connection: Connection) -> bool:
    """Whether every job has ended, and every hook was told or given up. To be asked in a snapshot."""
    waits = select(tables.jobs.c.key).where(text("state IN (0, 1, 5)")).limit(1)
    untold = select(tables.events.c.seq).where(text("state = 0")).limit(1)
    return connection.execute(waits).first() is None and connection.execute(untold).first() is None


def ended(connection: Connection) -> int:
    """How many jobs have ended and how many events are settled, in one number that grows with both."""
    jobs = connection.execute(select(func.count()).where(text("state IN (2, 3, 6, 7)")).select_from(tables.jobs))
    untold = connection.execute(select(func.count()).where(text("state = 0")).select_from(tables.events))
    told = connection.execute(select(func.count()).select_from(events))
    return int(jobs.scalar_one() + told.scalar_one() - untold.scalar_one())


def waiting_of(connection: Connection) -> dict[str, int]:
    """What `size` goes by: of each task the jobs that wait, with those of callers' transactions."""
    found = {row.task: row.waiting for row in connection.execute(select(tables.sizes))}
    for row in connection.execute(select(tables.size_debts)):
        found[row.task] = found.get(row.task, 0) + row.added
    return found


def jobs_of(connection: Connection) -> Iterable[Any]:
    """Every job."""
    return connection.execute(select(tables.jobs))


# --- the triggers -------------------------------------------------------------------------------------


# What each trigger does, and when: its name, the moment, the table, on which condition, and the statement.
_TRIGGERS = (
    (
        "yaotask_chaos_added",
        "INSERT",
        "yaotask_jobs",
        "",
        "INSERT INTO yaotask_chaos_changes (at, job, is_new, {new}) VALUES ({now}, NEW.key, 1, {news})",
    ),
    (
        "yaotask_chaos_changed",
        "UPDATE",
        "yaotask_jobs",
        "{differs}",
        "INSERT INTO yaotask_chaos_changes (at, job, is_new, {old}, {new}) VALUES ({now}, NEW.key, 0, {olds}, {news})",
    ),
    (
        "yaotask_chaos_told",
        "INSERT",
        "yaotask_events",
        "",
        "INSERT INTO yaotask_chaos_events (seq, task, id, kind) VALUES (NEW.seq, NEW.task, NEW.id, NEW.kind)",
    ),
    (
        "yaotask_chaos_entered",
        "INSERT",
        "yaotask_workers",
        "",
        "INSERT INTO yaotask_chaos_workers (worker, pid, kind, node, at, has_lock)"
        " VALUES (NEW.key, NEW.pid, NEW.kind, NEW.node, {now},"
        " CASE WHEN NEW.lock_path IS NULL THEN 0 ELSE 1 END)",
    ),
    (
        "yaotask_chaos_renewed",
        "UPDATE",
        "yaotask_workers",
        "NEW.expires_at IS NOT NULL",
        "INSERT INTO yaotask_chaos_leases (worker, at, ends_at) VALUES (NEW.key, {now}, NEW.expires_at)",
    ),
)


def _statements(kind: str) -> Iterator[str]:
    words = {
        "now": _NOW[kind],
        "old": ", ".join(f"old_{name}" for name in KEPT),
        "new": ", ".join(f"new_{name}" for name in KEPT),
        "olds": ", ".join(f"OLD.{name}" for name in KEPT),
        "news": ", ".join(f"NEW.{name}" for name in KEPT),
        "differs": " OR ".join(_DIFFERS[kind].format(name=name) for name in KEPT),
    }
    write = {"sqlite": _sqlite, "postgresql": _postgresql, "mysql": _mysql}[kind]
    for name, moment, table, when, what in _TRIGGERS:
        yield from write(name, moment, table, when.format(**words), what.format(**words))


def _sqlite(name: str, moment: str, table: str, when: str, what: str) -> Iterator[str]:
    condition = f" WHEN {when}" if when else ""
    yield f"CREATE TRIGGER {name} AFTER {moment} ON {table}{condition} BEGIN {what}; END"


def _postgresql(name: str, moment: str, table: str, when: str, what: str) -> Iterator[str]:
    condition = f" WHEN ({when})" if when else ""
    yield f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {what}; RETURN NULL; END $$"
    yield f"CREATE TRIGGER {name} AFTER {moment} ON {table} FOR EACH ROW{condition} EXECUTE FUNCTION {name}()"


def _mysql(name: str, moment: str, table: str, when: str, what: str) -> Iterator[str]:
    body = f"IF {when} THEN {what}; END IF;" if when else f"{what};"
    yield f"CREATE TRIGGER {name} AFTER {moment} ON {table} FOR EACH ROW BEGIN {body} END"
