"""The tables as they are now, and each index with the statement it serves.

Times are microseconds since 1970, durations milliseconds unless a name says otherwise; JSON is kept
as text. A new store is created from here; an older one is brought here by `migrations`.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, Column, Index, Integer, MetaData, SmallInteger, Table, text
from sqlalchemy import Text as AnyText
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.schema import CreateIndex, CreateTable

metadata = MetaData()


class LongText(AnyText):
    """As long as need be."""

    inherit_cache = True


class ShortText(AnyText):
    """A name: of at most 255 characters where the database wants a bound for what is in an index."""

    inherit_cache = True


@compiles(LongText, "mysql", "mariadb")
def _long_text(_: LongText, compiler: Any, **__: Any) -> str:
    # MySQL's own TEXT ends after 64 KiB.
    return f"LONGTEXT {mysql_collation(compiler.dialect)}"


@compiles(ShortText, "mysql", "mariadb")
def _short_text(_: ShortText, compiler: Any, **__: Any) -> str:
    return f"VARCHAR(255) {mysql_collation(compiler.dialect)}"


def mysql_collation(dialect: Any) -> str:
    """How texts are compared on MySQL and MariaDB: by their bytes, as elsewhere, trailing blanks included."""
    collation = "utf8mb4_nopad_bin" if dialect.is_mariadb else "utf8mb4_0900_bin"
    return f"CHARACTER SET utf8mb4 COLLATE {collation}"


# SQLite counts rows itself only in a column that is called exactly INTEGER.
Key = BigInteger().with_variant(Integer, "sqlite")
Text = LongText()
Name = ShortText()


def _where(condition: str) -> dict[str, Any]:
    """Only these rows are in the index, where the database has such indexes."""
    return {"info": {"where": condition}}


# With `postgresql_where` each process would load PostgreSQL's dialect, whatever its database is.
@compiles(CreateIndex, "sqlite")
@compiles(CreateIndex, "postgresql")
def _create_index(create: CreateIndex, compiler: Any, **options: Any) -> str:
    created: str = compiler.visit_create_index(create, **options)
    condition = create.element.info.get("where")
    return created if condition is None else f"{created} WHERE {condition}"


class NewTable(CreateTable):
    """Makes a table of ours; what a program makes of its own stays as SQLAlchemy has it."""

    inherit_cache = False


# A server may make tables without transactions where it is not told, and with rows that hold no long index. With
# `mysql_engine` each process would load MySQL's dialect.
@compiles(NewTable, "mysql", "mariadb")
def _create_table(create: NewTable, compiler: Any, **options: Any) -> str:
    created: str = compiler.visit_create_table(create, **options)
    return f"{created.rstrip()} ENGINE=InnoDB ROW_FORMAT=DYNAMIC"


meta = Table(
    "yaotask_meta",
    metadata,
    Column("name", Name, primary_key=True),
    Column("value", Text, nullable=False),
)

jobs = Table(
    "yaotask_jobs",
    metadata,
    # Not reused, so that a claim which outlived its job's row matches no other; for a server that has lost its last
    # commits, and gives keys out twice, fences are of their time.
    Column("key", Key, primary_key=True, autoincrement=True),
    Column("task", Name, nullable=False),
    Column("id", BigInteger, nullable=False),
    Column("queue", Name, nullable=False),
    Column("state", SmallInteger, nullable=False),
    Column("priority", Integer, nullable=False),
    # A job can be claimed when it has a ready time; it has a due time when it will be ready then, and
    # neither while an event of its own must be delivered first.
    Column("ready_at", BigInteger),
    Column("due_at", BigInteger),
    Column("generation", Integer, nullable=False, server_default=text("0")),
    Column("attempt", Integer, nullable=False, server_default=text("0")),
    Column("losses", Integer, nullable=False, server_default=text("0")),
    Column("deaths", Integer, nullable=False, server_default=text("0")),
    Column("fence", Integer, nullable=False, server_default=text("0")),
    Column("worker", BigInteger),
    # Retries and timeout that the adder gave; without them the definition's count.
    Column("attempts", Integer),
    Column("timeout", BigInteger),
    # Which events the task listened to when the job was added, so that whoever ends it needs no definition.
    Column("events", Integer, nullable=False),
    # 1 while the job counts against the size of its task: a caller's job that was never claimed.
    Column("counted", SmallInteger, nullable=False),
    Column("created_by", Text),
    Column("idempotency_key", Name),
    Column("args", Text, nullable=False),
    Column("payload", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Column("run_at", BigInteger, nullable=False),
    Column("claimed_at", BigInteger),
    Column("started_at", BigInteger),
    Column("finished_at", BigInteger),
    # When somebody asked for the end of the attempt that runs.
    Column("cancel_at", BigInteger),
    Column("current", BigInteger),
    Column("total", BigInteger),
    Column("message", Text),
    Column("step", Text),
    Column("completed_steps", Integer),
    Column("total_steps", Integer),
    Column("success_count", BigInteger, nullable=False, server_default=text("0")),
    Column("fail_count", BigInteger, nullable=False, server_default=text("0")),
    Column("ignored_count", BigInteger, nullable=False, server_default=text("0")),
    Column("extra", Text),
    Column("result", Text),
    Column("error_type", Text),
    Column("error", Text),
    Column("traceback", Text),
    sqlite_autoincrement=True,
)

# add, get: everyone but the hot path names a job so. It also pages through a task, newest id first.
Index("yaotask_jobs_id", jobs.c.task, jobs.c.id, unique=True)
# claim, unsettled: the next jobs of a task, in order.
Index(
    "yaotask_jobs_ready",
    jobs.c.queue,
    jobs.c.task,
    jobs.c.priority.desc(),
    jobs.c.ready_at,
    **_where("state IN (0, 5) AND ready_at IS NOT NULL"),
)
# promote: jobs whose time has come.
Index("yaotask_jobs_due", jobs.c.due_at, **_where("state IN (0, 5) AND due_at IS NOT NULL"))
# reap, hand_back: the claims of one worker; unsettled, list: what runs.
Index("yaotask_jobs_running", jobs.c.worker, **_where("state = 1"))
# cancels_of: what a worker should end, looked for whenever another process has written; their order makes the
# planner take this index and not the one above.
Index(
    "yaotask_jobs_cancelling",
    jobs.c.worker,
    jobs.c.cancel_at,
    **_where("state = 1 AND cancel_at IS NOT NULL"),
)
# list of what was added in a span of time.
Index("yaotask_jobs_created", jobs.c.created_at)
# list, unsettled: the few that did not simply succeed.
Index("yaotask_jobs_unsuccessful", jobs.c.task, jobs.c.state, jobs.c.id, **_where("state IN (3, 5, 6, 7)"))
# what retention will walk.
Index(
    "yaotask_jobs_finished",
    jobs.c.task,
    jobs.c.finished_at,
    **_where("state IN (2, 3, 6, 7)"),
)
# add with a key: the job that used it first.
Index(
    "yaotask_jobs_key",
    jobs.c.task,
    jobs.c.idempotency_key,
    unique=True,
    **_where("idempotency_key IS NOT NULL"),
)

attempts = Table(
    "yaotask_attempts",
    metadata,
    Column("job", BigInteger, primary_key=True, autoincrement=False),
    Column("fence", Integer, primary_key=True, autoincrement=False),
    Column("generation", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("outcome", Name, nullable=False),
    Column("worker", BigInteger),
    Column("started_at", BigInteger),
    Column("finished_at", BigInteger, nullable=False),
    Column("error_type", Text),
    Column("error", Text),
    Column("traceback", Text),
    sqlite_with_rowid=False,
)

# The outbox: what hooks are still to be told. A delivered event leaves; a failed one stays to be seen.
events = Table(
    "yaotask_events",
    metadata,
    Column("seq", Key, primary_key=True, autoincrement=True),
    Column("job", BigInteger, nullable=False),
    Column("task", Name, nullable=False),
    Column("id", BigInteger, nullable=False),
    Column("kind", SmallInteger, nullable=False),
    Column("data", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("state", SmallInteger, nullable=False, server_default=text("0")),
    Column("tries", Integer, nullable=False, server_default=text("0")),
    Column("next_at", BigInteger, nullable=False),
    Column("worker", BigInteger),
    Column("error", Text),
    # Processes that died while they had it, since a call of its hook last did no harm.
    Column("deaths", Integer, nullable=False, server_default=text("0")),
    sqlite_autoincrement=True,
)
# claim_deliveries, next_event: what can be delivered, oldest first.
Index("yaotask_events_pending", events.c.task, events.c.next_at, **_where("state = 0 AND worker IS NULL"))
# claim_deliveries, next_event, release_held: earlier events of the same job.
Index("yaotask_events_job", events.c.job, events.c.seq)
# reap: deliveries of a worker that is gone.
Index("yaotask_events_worker", events.c.worker, **_where("worker IS NOT NULL"))

# Every process of every node, and what runs jobs inside other programs. `node` is the key of its supervisor.
workers = Table(
    "yaotask_workers",
    metadata,
    Column("key", Key, primary_key=True, autoincrement=True),
    Column("incarnation", Name, nullable=False, unique=True),
    Column("host", Name, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("started_at", BigInteger, nullable=False),
    # The end of its lease, where somebody renews one for it.
    Column("expires_at", BigInteger),
    Column("lock_path", Text),
    Column("lock_device", BigInteger),
    Column("lock_inode", BigInteger),
    Column("boot_id", Name),
    Column("kind", Name, nullable=False, server_default=text("'worker'")),
    Column("node", BigInteger),
    Column("number", Integer),
    Column("renewed_at", BigInteger),
    # What its supervisor last heard of it, as JSON: for people.
    Column("info", Text),
    sqlite_autoincrement=True,
)

# Callers' jobs of each task that were never claimed: what `size` bounds.
sizes = Table(
    "yaotask_sizes",
    metadata,
    Column("task", Name, primary_key=True),
    Column("waiting", BigInteger, nullable=False),
)

# What adds inside a caller's own transaction still owe to `sizes`; the next cycle pays it in.
size_debts = Table(
    "yaotask_size_debts",
    metadata,
    Column("seq", Key, primary_key=True, autoincrement=True),
    Column("task", Name, nullable=False),
    Column("added", BigInteger, nullable=False),
)

# The first id of each task that no process has reserved.
ids = Table(
    "yaotask_ids",
    metadata,
    Column("task", Name, primary_key=True),
    Column("next", BigInteger, nullable=False),
)

# How jobs ended, by minute: `bucket` is the bit length of the milliseconds they ran. Where many write at once each
# process has a `shard`, so that they need not wait for each other; the sum over all of them counts.
rollups = Table(
    "yaotask_rollups",
    metadata,
    Column("task", Name, primary_key=True),
    Column("minute", BigInteger, primary_key=True, autoincrement=False),
    Column("outcome", SmallInteger, primary_key=True, autoincrement=False),
    Column("bucket", SmallInteger, primary_key=True, autoincrement=False),
    Column("shard", SmallInteger, primary_key=True, autoincrement=False, server_default=text("0")),
    Column("jobs", BigInteger, nullable=False),
    Column("run_us", BigInteger, nullable=False),
    Column("wait_us", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

# By this MySQL and MariaDB, where a table stays that was made, know what a dead process of ours has left half-made.
MARK = "of a yaotask store"
for _table in metadata.tables.values():
    _table.comment = MARK
