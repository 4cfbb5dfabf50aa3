"""Statements that every database understands as they stand.

States are literals, as in the dialects, so that the partial indexes match.
"""

from __future__ import annotations

from functools import cache

STATE_OF = "SELECT state, fence FROM yaotask_jobs WHERE key = :key"

WAITING_OF = "SELECT waiting FROM yaotask_sizes WHERE task = :task"

BY_IDEMPOTENCY_KEY = "SELECT id FROM yaotask_jobs WHERE task = :task AND idempotency_key = :key"

SIZE_DEBTS = "SELECT task, sum(added) AS added, max(seq) AS last FROM yaotask_size_debts GROUP BY task"

DELETE_SIZE_DEBTS = "DELETE FROM yaotask_size_debts WHERE task = :task AND seq <= :last"

INSERT_SIZE_DEBT = "INSERT INTO yaotask_size_debts (task, added) VALUES (:task, :added)"

WAITING_WITH_DEBTS = """
SELECT coalesce((SELECT waiting FROM yaotask_sizes WHERE task = :task), 0)
    + coalesce((SELECT sum(added) FROM yaotask_size_debts WHERE task = :task), 0)
"""

WORKER_OF = "SELECT worker FROM yaotask_jobs WHERE key = :key"

RESERVE_IDS = """
INSERT INTO yaotask_ids (task, next) VALUES (:task, 1 + :count)
ON CONFLICT (task) DO UPDATE SET next = yaotask_ids.next + :count
RETURNING next
"""

# What a claim must be told before it looks: is there anything at all?
ANY_READY = """
SELECT 1 FROM yaotask_jobs
WHERE queue = :task AND task = :task AND state IN (0, 5) AND ready_at IS NOT NULL LIMIT 1
"""

# What `--drain` waits for, one probe of an index each.
UNSETTLED = (
    ANY_READY,
    "SELECT 1 FROM yaotask_jobs WHERE task = :task AND state IN (3, 5, 6, 7) AND state = 5 LIMIT 1",
    "SELECT 1 FROM yaotask_jobs WHERE state = 1 AND +task = :task LIMIT 1",
    "SELECT 1 FROM yaotask_events WHERE task = :task AND state = 0 AND worker IS NULL LIMIT 1",
    "SELECT 1 FROM yaotask_events WHERE worker IS NOT NULL AND +task = :task LIMIT 1",
)

NEXT_DUE = "SELECT min(due_at) FROM yaotask_jobs WHERE state IN (0, 5) AND due_at IS NOT NULL"

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
SELECT key, state, fence, generation, started_at, counted, events
FROM yaotask_jobs WHERE task = :task AND id = :id
"""

# T8, and the unstarted claim, whose fence moves so that its worker can change nothing any more.
CANCEL = """
UPDATE yaotask_jobs
SET state = 6, attempt = attempt - CASE WHEN state = 1 THEN 1 ELSE 0 END, fence = fence + 1, worker = NULL,
    counted = 0, ready_at = NULL, due_at = NULL, finished_at = :now, updated_at = :now
WHERE key = :key AND fence = :fence AND (state IN (0, 5) OR (state = 1 AND started_at IS NULL))
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
    run_at = :now, ready_at = :ready_at, due_at = NULL, updated_at = :now
WHERE key = :key AND state IN (3, 6) AND generation = :generation
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
SET tries = tries + 1, state = :state, next_at = :next_at, error = :error, worker = NULL
WHERE seq = :seq AND worker = :worker
"""

REGISTER_WORKER = """
INSERT INTO yaotask_workers (
    incarnation, host, pid, started_at, expires_at, lock_path, lock_device, lock_inode, boot_id)
VALUES (:incarnation, :host, :pid, :now, NULL, :lock_path, :lock_device, :lock_inode, :boot_id)
RETURNING key
"""

OTHER_WORKERS = """
SELECT key, incarnation, host, pid, lock_path, lock_device, lock_inode, boot_id
FROM yaotask_workers WHERE key <> :worker
"""

DELETE_WORKER = "DELETE FROM yaotask_workers WHERE key = :worker"

# Workers that have claims or events, but no row: they are as lost as dead ones.
ORPHANS = """
SELECT worker FROM yaotask_jobs WHERE state = 1 AND worker NOT IN (SELECT key FROM yaotask_workers)
UNION
SELECT worker FROM yaotask_events WHERE worker IS NOT NULL AND worker NOT IN (SELECT key FROM yaotask_workers)
"""

DELETE_IDLE_WORKER = """
DELETE FROM yaotask_workers
WHERE key = :worker AND NOT EXISTS (SELECT 1 FROM yaotask_jobs WHERE state = 1 AND worker = :worker)
"""

# T10: what a worker claimed and did not start; its place in the queue is kept.
HAND_BACK = """
UPDATE yaotask_jobs
SET state = CASE WHEN attempt = 1 AND losses = 0 AND deaths = 0 THEN 0 ELSE 5 END,
    attempt = attempt - 1, worker = NULL, started_at = NULL, updated_at = :now
WHERE state = 1 AND worker = :worker
"""

# The claims of a worker that died.
CLAIMS_OF = """
SELECT key, task, id, fence, generation, attempt, losses, deaths, events, ready_at, started_at, claimed_at
FROM yaotask_jobs WHERE state = 1 AND worker = :worker ORDER BY key LIMIT :most
"""

# T7: the try does not count, the death does.
LOSE = """
UPDATE yaotask_jobs
SET state = 5, fence = fence + 1, attempt = attempt - 1, losses = :losses,
    deaths = deaths + 1, worker = NULL, run_at = :now, ready_at = :ready_at, due_at = NULL,
    error_type = 'WorkerLost', error = :error, traceback = NULL, updated_at = :now
WHERE key = :key AND state = 1 AND fence = :fence
"""

POISON = """
UPDATE yaotask_jobs
SET state = 3, fence = fence + 1, attempt = attempt - 1, losses = :losses, deaths = deaths + 1, worker = NULL,
    finished_at = :now, updated_at = :now,
    error_type = 'PoisonedJob', error = :error, traceback = NULL
WHERE key = :key AND state = 1 AND fence = :fence
"""

RELEASE_EVENT = "UPDATE yaotask_events SET worker = NULL WHERE seq = :seq AND worker = :worker AND state = 0"

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
