"""The statements that SQLite has of its own.

States stand in them as literals, so that the partial indexes of tables.py match.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy.engine import Connection

from yaotask.store import statements
from yaotask.store.dialects.base import Nest
from yaotask.store.direct import Answer, execute

nest: Nest | None = None

# What the jobs of a batch have in common is given once: SQLite reads the text of a row anew for each value.
INSERT_JOBS = """
INSERT INTO yaotask_jobs (
    task, queue, state, events, counted, created_at, updated_at, priority, attempts, timeout, created_by,
    idempotency_key, run_at, ready_at, due_at, id, args, payload)
SELECT :task, :task, 0, :events, :counted, :now, :now, :priority, :attempts, :timeout, :created_by,
    :key, :run_at, :ready_at, :due_at, value ->> 0, value -> '$[1]', value -> '$[2]'
FROM json_each(:rows)
"""

# The rows come back as one JSON text. SQLite may step a thousand rows without the interpreter's
# lock, but must win it back for each row that Python steps. The ledger needs the keys alone.
SELECT_CLAIMS = """
SELECT count(*) AS jobs, total(counted) AS counted, '[' || group_concat(key) || ']' AS keys_,
    '[' || group_concat(claim) || ']' AS claims
FROM (
    SELECT key, counted, printf('[%d,%d,%d,%d,%d,%s,%d,%s,%d,%d,%d,%s,%s,%s,%s]',
        key, max(fence + 1, :fence), id, generation, attempt + 1, coalesce(attempts, 'null'), losses,
        coalesce(timeout, 'null'), events, ready_at, :now, args, payload,
        coalesce(json_quote(created_by), 'null'), coalesce(extra, 'null')
    ) AS claim
    FROM yaotask_jobs
    -- in this queue, of this task, and ready: an index holds these in just this order
    WHERE queue = :task AND task = :task AND state IN (0, 5) AND ready_at IS NOT NULL
    ORDER BY priority DESC, ready_at
    LIMIT :most)
"""

TAKE_CLAIMS: str | None = """
UPDATE yaotask_jobs
SET state = 1, fence = max(fence + 1, :fence), attempt = attempt + 1, worker = :worker, counted = 0,
    claimed_at = :now, started_at = NULL,
    -- each try counts anew
    success_count = 0, fail_count = 0, ignored_count = 0
WHERE key IN (SELECT value FROM json_each(:keys))
    -- looked at again, so that this statement is right by itself
    AND state IN (0, 5)
"""


def gather_claims(answer: Answer) -> Any:
    return answer.one()


# The plus signs keep the planner from the index on running jobs: it must come from the rows to the key.
FINISH_SUCCESS = """
UPDATE yaotask_jobs
SET state = 2, worker = NULL, started_at = won.started, finished_at = won.ended, updated_at = won.ended,
    result = won.result, error_type = NULL, error = NULL, traceback = NULL
FROM (
    SELECT value ->> 0 AS key, value ->> 1 AS fence, value ->> 2 AS started, value ->> 3 AS ended,
        value -> '$[4]' AS result
    FROM json_each(:rows)) AS won
WHERE yaotask_jobs.key = won.key AND +yaotask_jobs.fence = won.fence AND +yaotask_jobs.state = 1
"""

FINISH_OTHER = """
UPDATE yaotask_jobs
SET state = ended.state, worker = NULL, attempt = yaotask_jobs.attempt - ended.untried,
    -- a loss is told by its fence too (T7)
    losses = losses + ended.lost, deaths = deaths + ended.lost, fence = yaotask_jobs.fence + ended.lost,
    started_at = ended.started, finished_at = ended.finished, updated_at = ended.updated,
    run_at = coalesce(ended.run_at, yaotask_jobs.run_at), ready_at = ended.ready_at, due_at = ended.due_at,
    result = coalesce(ended.result, yaotask_jobs.result),
    error_type = coalesce(ended.error_type, yaotask_jobs.error_type),
    error = coalesce(ended.error, yaotask_jobs.error),
    traceback = CASE WHEN ended.error IS NULL THEN yaotask_jobs.traceback ELSE ended.traceback END
FROM (
    SELECT value ->> 0 AS key, value ->> 1 AS fence, value ->> 2 AS state, value ->> 3 AS untried,
        value ->> 4 AS started, value ->> 5 AS updated, value ->> 6 AS finished, value ->> 7 AS run_at,
        value ->> 8 AS ready_at, value ->> 9 AS due_at, value ->> 10 AS result,
        value ->> 11 AS error_type, value ->> 12 AS error, value ->> 13 AS traceback, value ->> 14 AS lost
    FROM json_each(:rows)) AS ended
WHERE yaotask_jobs.key = ended.key AND +yaotask_jobs.fence = ended.fence AND +yaotask_jobs.state = 1
    -- once it was asked to stop there is no other end but success, which has a statement of its own
    AND (yaotask_jobs.cancel_at IS NULL OR ended.state = 6)
"""

STORE_STARTED = """
UPDATE yaotask_jobs
SET started_at = begun.started, updated_at = begun.started
FROM (
    SELECT value ->> 0 AS key, value ->> 1 AS fence, value ->> 2 AS started
    FROM json_each(:rows)) AS begun
WHERE yaotask_jobs.key = begun.key AND +yaotask_jobs.fence = begun.fence AND +yaotask_jobs.state = 1
    AND started_at IS NULL
"""

# All other writers are kept off.
LOCK_JOBS: str | None = None
FREE_JOBS: str | None = None
FREE_EVENTS: str | None = None
BE_BRIEF: str | None = None
BE_PATIENT: str | None = None


INSERT_EVENTS = """
INSERT INTO yaotask_events (job, task, id, kind, data, created_at, next_at)
SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, :now, :now
FROM json_each(:rows)
"""

INSERT_ATTEMPTS = """
INSERT INTO yaotask_attempts (
    job, fence, generation, attempt, outcome, worker, started_at, finished_at, error_type, error, traceback)
SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, :worker,
    value ->> 5, value ->> 6, value ->> 7, value ->> 8, value ->> 9
FROM json_each(:rows)
"""

ADD_ROLLUPS = """
INSERT INTO yaotask_rollups (task, minute, outcome, bucket, shard, jobs, run_us, wait_us)
SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6, value ->> 7
FROM json_each(:rows) WHERE true
ON CONFLICT (task, minute, outcome, bucket, shard) DO UPDATE
SET jobs = jobs + excluded.jobs, run_us = run_us + excluded.run_us, wait_us = wait_us + excluded.wait_us
"""

ADD_SIZES = """
INSERT INTO yaotask_sizes (task, waiting)
SELECT value ->> 0, value ->> 1 FROM json_each(:rows) WHERE true
ON CONFLICT (task) DO UPDATE SET waiting = waiting + excluded.waiting
"""
ADD_SIZES_WITHIN: str | None = None

PROMOTE = """
UPDATE yaotask_jobs SET ready_at = :now, due_at = NULL
WHERE key IN (
    SELECT key FROM yaotask_jobs
    WHERE state IN (0, 5) AND due_at IS NOT NULL AND due_at <= :now
    ORDER BY due_at LIMIT :most)
"""

# Of one task, so that the index has them in just this order.
SELECT_DELIVERIES = """
SELECT json_group_array(json_array(
    next_at, seq, job, task, id, kind, tries, deaths, json(data)))
FROM (
    SELECT event.* FROM yaotask_events AS event
    WHERE event.task = :task AND event.state = 0 AND event.worker IS NULL AND event.next_at <= :now
        -- an event waits for the earlier ones of its job
        AND NOT EXISTS (
            SELECT 1 FROM yaotask_events AS earlier
            WHERE earlier.job = event.job AND earlier.state = 0 AND earlier.seq < event.seq)
    ORDER BY event.next_at, event.seq LIMIT :most)
"""

SECOND_LOOK: str | None = None

TAKE_DELIVERIES = """
UPDATE yaotask_events SET worker = :worker
WHERE seq IN (SELECT value FROM json_each(:seqs)) AND state = 0 AND worker IS NULL
"""


def gather_deliveries(answer: Answer) -> str:
    return answer.scalar() or "[]"


# By id, because the rows have just been stored and their keys are not known here.
INSERT_ADD_EVENTS = """
INSERT INTO yaotask_events (job, task, id, kind, data, created_at, next_at)
SELECT jobs.key, jobs.task, jobs.id, 1, '[]', :now, :now
FROM json_each(:ids) CROSS JOIN yaotask_jobs AS jobs ON jobs.task = :task AND jobs.id = json_each.value
"""

DELETE_EVENTS = """
DELETE FROM yaotask_events WHERE seq IN (SELECT value FROM json_each(:seqs)) AND worker = :worker
"""

PUT_EVENTS_OFF = """
UPDATE yaotask_events SET next_at = :next_at, worker = NULL
WHERE seq IN (SELECT value FROM json_each(:seqs)) AND worker = :worker
"""

# A held job goes on once each of its events was tried.
RELEASE_HELD = """
UPDATE yaotask_jobs
SET ready_at = CASE WHEN run_at <= :now THEN :now END, due_at = CASE WHEN run_at > :now THEN run_at END
WHERE key IN (SELECT value FROM json_each(:keys))
    AND state IN (0, 5) AND ready_at IS NULL AND due_at IS NULL
    AND NOT EXISTS (
        SELECT 1 FROM yaotask_events AS event
        WHERE event.job = yaotask_jobs.key AND event.state = 0 AND event.tries = 0
            -- nobody waits for one that itself waits behind an event whose hook fails
            AND NOT EXISTS (
                SELECT 1 FROM yaotask_events AS earlier
                WHERE earlier.job = event.job AND earlier.seq < event.seq AND earlier.state = 0 AND earlier.tries > 0))
"""

RESERVE_IDS = """
INSERT INTO yaotask_ids (task, next) VALUES (:task, 1 + :count)
ON CONFLICT (task) DO UPDATE SET next = yaotask_ids.next + :count
RETURNING next
"""


def reserve_ids(connection: Connection, task: str, count: int) -> int:
    return int(execute(connection, RESERVE_IDS, {"task": task, "count": count}).scalar_one()) - count


TAKE_DEBTS = "DELETE FROM yaotask_size_debts RETURNING task, added"


def take_debts(connection: Connection) -> Sequence[Any]:
    return execute(connection, TAKE_DEBTS).all()


def waiting(connection: Connection, task: str) -> int:
    return int(execute(connection, statements.WAITING_OF, {"task": task}).scalar() or 0)


# Many small questions cost no more.
GLANCE: str | None = None
