"""Statements that every database understands, once `direct` has put them into its style.

States are literals, as in the dialects, so that the partial indexes match. A column that is changed is not read
again further down its SET: not every database means its old value there.
"""

from __future__ import annotations

from functools import cache

SCHEMA = "SELECT value FROM yaotask_meta WHERE name = 'schema' FOR UPDATE"

STATE_OF = "SELECT state, fence FROM yaotask_jobs WHERE key = :key"

WAITING_OF = "SELECT waiting FROM yaotask_sizes WHERE task = :task"

BY_IDEMPOTENCY_KEY = "SELECT id FROM yaotask_jobs WHERE task = :task AND idempotency_key = :key"

# The newest of all, also in a transaction that otherwise reads of an earlier moment.
NEWEST_BY_IDEMPOTENCY_KEY = BY_IDEMPOTENCY_KEY + " FOR UPDATE"

INSERT_SIZE_DEBT = "INSERT INTO yaotask_size_debts (task, added) VALUES (:task, :added)"

WAITING_WITH_DEBTS = """
SELECT coalesce((SELECT waiting FROM yaotask_sizes WHERE task = :task), 0)
    + coalesce((SELECT sum(added) FROM yaotask_size_debts WHERE task = :task), 0)
"""

WORKER_OF = "SELECT worker FROM yaotask_jobs WHERE key = :key"

# Whether a commit in doubt was stored.
# Its time tells it from one of another add, whose caller has chosen just this id.
IS_STORED = "SELECT 1 FROM yaotask_jobs WHERE task = :task AND id = :id AND created_at = :at"

# Of all ends but successes and what is handed back.
IS_RECORDED = """
SELECT 1 FROM yaotask_attempts WHERE job = :key AND fence = :fence AND outcome = :word AND finished_at = :at
"""

IS_CLAIMED = "SELECT 1 FROM yaotask_jobs WHERE key = :key AND state = 1 AND fence = :fence AND worker = :worker"

# What a claim must be told before it looks: is there anything at all?
ANY_READY = """
SELECT 1 FROM yaotask_jobs
WHERE queue = :task AND task = :task AND state IN (0, 5) AND ready_at IS NOT NULL LIMIT 1
"""

# What `--drain` waits for, one probe of an index each.
UNSETTLED = (
    ANY_READY,
    "SELECT 1 FROM yaotask_jobs WHERE task = :task AND state IN (3, 5, 6, 7) AND state = 5 LIMIT 1",
    "SELECT 1 FROM yaotask_jobs WHERE state = 1 AND worker IS NOT NULL AND coalesce(task, '') = :task LIMIT 1",
    "SELECT 1 FROM yaotask_events WHERE task = :task AND state = 0 AND worker IS NULL LIMIT 1",
    "SELECT 1 FROM yaotask_events WHERE worker IS NOT NULL AND coalesce(task, '') = :task LIMIT 1",
)

# Not min(): without partial indexes that would read all that is due.
NEXT_DUE = "SELECT due_at FROM yaotask_jobs WHERE state IN (0, 5) AND due_at IS NOT NULL ORDER BY due_at LIMIT 1"

# The next that can be delivered, not one that waits for an earlier event of its job.
NEXT_EVENT = """
SELECT next_at FROM yaotask_events AS event
WHERE task = :task AND state = 0 AND worker IS NULL
    AND NOT EXISTS (
        SELECT 1 FROM yaotask_events AS earlier
        WHERE earlier.job = event.job AND earlier.state = 0 AND earlier.seq < event.seq)
ORDER BY next_at LIMIT 1
"""

FOR_CHANGE = """
SELECT key, state, fence, generation, started_at, cancel_at, counted, events
FROM yaotask_jobs WHERE task = :task AND id = :id FOR UPDATE
"""

# T8, and the unstarted claim, whose fence moves so that its worker can change nothing any more.
CANCEL = """
UPDATE yaotask_jobs
SET attempt = attempt - CASE WHEN state = 1 THEN 1 ELSE 0 END, state = 6, fence = fence + 1, worker = NULL,
    counted = 0, ready_at = NULL, due_at = NULL, finished_at = :now, updated_at = :now
WHERE key = :key AND fence = :fence AND (state IN (0, 5) OR (state = 1 AND started_at IS NULL))
"""

# T9: the attempt that runs is to end, as what its handler returns or as CANCELLED.
ASK_TO_STOP = """
UPDATE yaotask_jobs SET cancel_at = :now, updated_at = :now
WHERE key = :key AND fence = :fence AND state = 1 AND cancel_at IS NULL
"""

# What a worker should end.
CANCELS_OF = """
SELECT task, key, fence FROM yaotask_jobs WHERE worker = :worker AND state = 1 AND cancel_at IS NOT NULL
ORDER BY cancel_at
"""

HELD_BY = """
SELECT cancel_at FROM yaotask_jobs
WHERE key = :key AND fence = :fence AND state = 1 AND worker = :worker FOR UPDATE
"""

IS_ASKED_TO_STOP = """
SELECT 1 FROM yaotask_jobs WHERE key = :key AND fence = :fence AND state = 1 AND cancel_at IS NOT NULL FOR UPDATE
"""

# T11: a failure is given up, or sent round once more.
GIVE_UP = """
UPDATE yaotask_jobs SET state = 6, generation = generation + 1, finished_at = :now, updated_at = :now
WHERE key = :key AND state = 3 AND generation = :generation
"""

RETRY = """
UPDATE yaotask_jobs
SET state = 0, generation = generation + 1, attempt = 0, losses = 0, deaths = 0,
    current = NULL, total = NULL, message = NULL, step = NULL, completed_steps = NULL, total_steps = NULL,
    success_count = 0, fail_count = 0, ignored_count = 0, result = NULL,
    error_type = NULL, error = NULL, traceback = NULL, claimed_at = NULL, started_at = NULL, finished_at = NULL,
    cancel_at = NULL, run_at = :now, ready_at = :ready_at, due_at = NULL, updated_at = :now
WHERE key = :key AND +state IN (3, 6) AND generation = :generation
"""

# What a job waits for: an event that was not tried, and is not behind one whose hook fails.
HAS_UNTRIED_EVENTS = """
SELECT 1 FROM yaotask_events AS event
WHERE event.job = :key AND event.state = 0 AND event.tries = 0 AND NOT EXISTS (
    SELECT 1 FROM yaotask_events AS earlier
    WHERE earlier.job = event.job AND earlier.seq < event.seq AND earlier.state = 0 AND earlier.tries > 0)
LIMIT 1
"""

FAIL_EVENT = """
UPDATE yaotask_events
SET tries = tries + 1, state = :state, next_at = :next_at, error = :error, deaths = :deaths, worker = NULL
WHERE seq = :seq AND worker = :worker
"""

REGISTER_WORKER = """
INSERT INTO yaotask_workers (
    key, incarnation, host, pid, started_at, renewed_at, expires_at, lock_path, lock_device, lock_inode, boot_id,
    kind, node, number)
VALUES (:key, :incarnation, :host, :pid, :now, :now, :expires_at, :lock_path, :lock_device, :lock_inode, :boot_id,
    :kind, :node, :number)
"""

# Those that may be dead: all but one's own, and those of one's own node.
OTHER_WORKERS = """
SELECT key, incarnation, host, pid, kind, coalesce(renewed_at, started_at) AS renewed_at, expires_at, lock_path,
    lock_device, lock_inode, boot_id
FROM yaotask_workers WHERE key <> :worker AND coalesce(node, 0) <> :worker
"""

RENEW_WORKER = """
UPDATE yaotask_workers SET renewed_at = :now, expires_at = :expires_at, info = :info WHERE key = :worker
"""

# With what a cycle that claims begins: one question, because each is a way to a server.
BEFORE_CLAIMS = """
SELECT (
    SELECT due_at FROM yaotask_jobs WHERE state IN (0, 5) AND due_at IS NOT NULL ORDER BY due_at LIMIT 1) AS due,
    (SELECT 1 FROM yaotask_workers WHERE key = :worker) IS NOT NULL AS entered
"""

DELETE_WORKER = "DELETE FROM yaotask_workers WHERE key = :worker"

# Workers that have claims or events, but no row: they are as lost as dead ones. What runs has a worker, which is
# said again for databases whose indexes know no states.
ORPHANS = """
SELECT worker FROM yaotask_jobs
WHERE state = 1 AND worker > 0 AND worker NOT IN (SELECT key FROM yaotask_workers)
UNION
SELECT worker FROM yaotask_events WHERE worker IS NOT NULL AND worker NOT IN (SELECT key FROM yaotask_workers)
"""

DISOWN_WORKER = "UPDATE yaotask_workers SET node = NULL, expires_at = 0 WHERE key = :worker"

IS_LOCK_USED = "SELECT 1 FROM yaotask_workers WHERE lock_path = :path LIMIT 1"

HAS_CLAIMS = "SELECT 1 FROM yaotask_jobs WHERE state = 1 AND worker = :worker LIMIT 1"

# T10: what a worker claimed and did not finish; its place in the queue is kept.
HAND_BACK = """
UPDATE yaotask_jobs
SET state = CASE WHEN attempt = 1 AND losses = 0 AND deaths = 0 THEN 0 ELSE 5 END,
    attempt = attempt - 1, worker = NULL, started_at = NULL, updated_at = :now
WHERE state = 1 AND worker = :worker AND cancel_at IS NULL
"""

# The claims of a worker that died; not by walking all keys in order, whatever statistics say of how many run.
CLAIMS_OF = """
SELECT key, task, id, fence, generation, attempt, attempts, timeout, losses, deaths, events, ready_at, started_at,
    claimed_at, cancel_at
FROM yaotask_jobs WHERE state = 1 AND worker = :worker ORDER BY key + 0 LIMIT :most
"""
# What somebody else is just taking back is left to them.
CLAIMS_TO_LOSE = CLAIMS_OF + "FOR UPDATE SKIP LOCKED"

ASKED_CLAIMS_OF = """
SELECT key, task, id, fence, ready_at, started_at, claimed_at, events
FROM yaotask_jobs WHERE state = 1 AND worker = :worker AND cancel_at IS NOT NULL ORDER BY cancel_at
FOR UPDATE
"""

# The end of T9, where its worker did not come to it.
END_CANCELLED = """
UPDATE yaotask_jobs SET state = 6, fence = fence + 1, worker = NULL, finished_at = :now, updated_at = :now
WHERE key = :key AND state = 1 AND fence = :fence
"""

# T7: the try does not count, the death does.
LOSE = """
UPDATE yaotask_jobs
SET state = 5, fence = fence + 1, attempt = attempt - 1, losses = :losses,
    deaths = deaths + 1, worker = NULL, run_at = :now, ready_at = :ready_at, due_at = NULL,
    error_type = 'WorkerLost', error = :error, traceback = NULL, updated_at = :now
WHERE key = :key AND state = 1 AND fence = :fence
"""

# The try in which the job has ended stays its last one.
POISON = """
UPDATE yaotask_jobs
SET state = 3, fence = fence + 1, losses = :losses, deaths = deaths + 1, worker = NULL,
    finished_at = :now, updated_at = :now,
    error_type = 'PoisonedJob', error = :error, traceback = NULL
WHERE key = :key AND state = 1 AND fence = :fence
"""

# A walk through the whole table, which is done by the hour and without the write lock.
MINUTES_TO_FOLD = """
SELECT task, minute, outcome, bucket, shard, jobs, run_us, wait_us FROM yaotask_rollups
WHERE minute < :before AND minute % :hour <> 0 LIMIT :most
"""

# Not where something was added to it since it was read: with the clock set back, that can be.
DELETE_ROLLUP = """
DELETE FROM yaotask_rollups
WHERE task = :task AND minute = :minute AND outcome = :outcome AND bucket = :bucket AND shard = :shard
    AND jobs = :jobs
"""

STALE_EVENT = """
SELECT 1 FROM yaotask_events WHERE worker IS NOT NULL AND worker NOT IN (SELECT key FROM yaotask_workers) LIMIT 1
"""

RELEASE_STALE_EVENTS = """
UPDATE yaotask_events SET worker = NULL
WHERE worker IS NOT NULL AND worker NOT IN (SELECT key FROM yaotask_workers)
"""

IS_EVENT = "SELECT 1 FROM yaotask_events WHERE seq = :key"

RELEASE_EVENT = "UPDATE yaotask_events SET worker = NULL WHERE seq = :seq AND worker = :worker AND state = 0"

# Of what a dead process had, the events that as many processes as may be have died with, and this one too.
DEADLY_EVENTS_OF = "SELECT seq, job, task, id FROM yaotask_events WHERE worker = :worker AND deaths >= :most"

END_EVENT = """
UPDATE yaotask_events SET state = 1, error = :died, deaths = deaths + 1, worker = NULL
WHERE seq = :seq AND worker = :worker
"""

SUSPECT_EVENTS_OF = "UPDATE yaotask_events SET deaths = deaths + 1, worker = NULL WHERE worker = :worker"

SUSPECT_EVENT = "UPDATE yaotask_events SET deaths = deaths + 1 WHERE seq = :seq AND worker = :worker"

RELEASE_EVENTS_OF = "UPDATE yaotask_events SET worker = NULL WHERE worker = :worker"


@cache
def progress(columns: tuple[str, ...], *, fenced: bool) -> str:
    """The update that stores these columns of a running job (T3), and shows it as running.

    Only names of the table reach the text.
    """
    settings = [f"{_known(name)} = :new_{name}" for name in columns]
    settings += ["started_at = coalesce(started_at, :started)", "updated_at = :now"]
    guard = " AND fence = :fence" if fenced else ""
    changes = ", ".join(settings)
    return f"UPDATE yaotask_jobs SET {changes} WHERE key = :key AND state = 1{guard}"  # noqa: S608 - names from below


PROGRESS_COLUMNS = frozenset(
    {
        "current",
        "total",
        "message",
        "step",
        "completed_steps",
        "total_steps",
        "success_count",
        "fail_count",
        "ignored_count",
        "extra",
        "result",
    }
)


def _known(column: str) -> str:
    if column not in PROGRESS_COLUMNS:
        raise ValueError(f"{column} is no column that a running job may set")
    return column
