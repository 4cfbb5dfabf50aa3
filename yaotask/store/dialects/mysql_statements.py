"""The statements that MySQL and MariaDB have of their own; all of them were tried on MariaDB 10.11.

Only what both document is used. A join goes from the rows of a batch to the table by its key, and says so. An UPDATE
of a join promises no order among its settings, so that none reads a column which another changes. No word in them
depends on the session's SQL mode: strings stand in single quotes, and nothing is put together with `||`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy.engine import Connection

from yaotask.store.dialects.base import Nest
from yaotask.store.direct import Answer, execute
from yaotask.values import dumps

# Texts of a batch stand in it as JSON strings, so that they are stored byte for byte as they are.
nest: Nest | None = dumps

INSERT_JOBS = """
INSERT INTO yaotask_jobs (
    task, queue, state, events, counted, created_at, updated_at, priority, attempts, timeout, created_by,
    idempotency_key, run_at, ready_at, due_at, id, args, payload)
SELECT :task, :task, 0, :events, :counted, :now, :now, :priority, :attempts, :timeout, :created_by,
    :key, :run_at, :ready_at, :due_at, job.id, job.args, job.payload
FROM JSON_TABLE(:rows, '$[*]' COLUMNS (
    id BIGINT PATH '$[0]',
    args LONGTEXT CHARACTER SET utf8mb4 PATH '$[1]',
    payload LONGTEXT CHARACTER SET utf8mb4 PATH '$[2]')) AS job
"""

# A row for each job, put together below. Nothing is put together here, in a table that MariaDB would make
# for it: where a lock that it waits for in there ends in an error, MariaDB 10.11.19 crashes.
SELECT_CLAIMS = """
SELECT key, counted, concat('[', concat_ws(',',
    key, greatest(fence + 1, :fence), id, generation, attempt + 1, coalesce(attempts, 'null'), losses,
    coalesce(timeout, 'null'), events, ready_at, :now, args, payload,
    coalesce(json_quote(created_by), 'null'), coalesce(extra, 'null')), ']') AS claim
FROM yaotask_jobs FORCE INDEX (yaotask_jobs_ready)
-- in this queue, of this task, and ready: the index holds these in just this order
WHERE ready_queue = :task AND task = :task
ORDER BY urgency, ready_at, key
LIMIT :most
-- those that another process is just taking are left to it
FOR UPDATE SKIP LOCKED
"""

TAKE_CLAIMS: str | None = """
UPDATE JSON_TABLE(:keys, '$[*]' COLUMNS (key BIGINT PATH '$')) AS taken
STRAIGHT_JOIN yaotask_jobs AS jobs FORCE INDEX (PRIMARY) ON jobs.key = taken.key
SET jobs.state = 1, jobs.fence = greatest(jobs.fence + 1, :fence), jobs.attempt = jobs.attempt + 1,
    jobs.worker = :worker, jobs.counted = 0, jobs.claimed_at = :now, jobs.started_at = NULL,
    -- each try counts anew
    jobs.success_count = 0, jobs.fail_count = 0, jobs.ignored_count = 0
-- looked at again, so that this statement is right by itself
WHERE jobs.state IN (0, 5)
"""


class Found(NamedTuple):
    """See Statements.gather_claims."""

    jobs: int
    counted: int
    keys_: str
    claims: str


def gather_claims(answer: Answer) -> Found:
    rows = answer.all()
    keys, claims = ",".join([str(row.key) for row in rows]), ",".join([row.claim for row in rows])
    return Found(len(rows), sum(row.counted for row in rows), f"[{keys}]", f"[{claims}]")


FINISH_SUCCESS = """
UPDATE JSON_TABLE(:rows, '$[*]' COLUMNS (
    key BIGINT PATH '$[0]',
    fence BIGINT PATH '$[1]',
    started BIGINT PATH '$[2]',
    ended BIGINT PATH '$[3]',
    result LONGTEXT CHARACTER SET utf8mb4 PATH '$[4]')) AS won
STRAIGHT_JOIN yaotask_jobs AS jobs FORCE INDEX (PRIMARY) ON jobs.key = won.key
SET jobs.state = 2, jobs.worker = NULL, jobs.started_at = won.started, jobs.finished_at = won.ended,
    jobs.updated_at = won.ended, jobs.result = won.result, jobs.error_type = NULL, jobs.error = NULL,
    jobs.traceback = NULL
WHERE jobs.fence = won.fence AND jobs.state = 1
"""

FINISH_OTHER = """
UPDATE JSON_TABLE(:rows, '$[*]' COLUMNS (
    key BIGINT PATH '$[0]',
    fence BIGINT PATH '$[1]',
    state BIGINT PATH '$[2]',
    untried BIGINT PATH '$[3]',
    started BIGINT PATH '$[4]',
    updated BIGINT PATH '$[5]',
    finished BIGINT PATH '$[6]',
    run_at BIGINT PATH '$[7]',
    ready_at BIGINT PATH '$[8]',
    due_at BIGINT PATH '$[9]',
    result LONGTEXT CHARACTER SET utf8mb4 PATH '$[10]',
    error_type LONGTEXT CHARACTER SET utf8mb4 PATH '$[11]',
    error LONGTEXT CHARACTER SET utf8mb4 PATH '$[12]',
    traceback LONGTEXT CHARACTER SET utf8mb4 PATH '$[13]',
    lost BIGINT PATH '$[14]')) AS ended
STRAIGHT_JOIN yaotask_jobs AS jobs FORCE INDEX (PRIMARY) ON jobs.key = ended.key
SET jobs.state = ended.state, jobs.worker = NULL, jobs.attempt = jobs.attempt - ended.untried,
    -- a loss is told by its fence too (T7)
    jobs.losses = jobs.losses + ended.lost, jobs.deaths = jobs.deaths + ended.lost,
    jobs.fence = jobs.fence + ended.lost,
    jobs.started_at = ended.started, jobs.finished_at = ended.finished, jobs.updated_at = ended.updated,
    jobs.run_at = coalesce(ended.run_at, jobs.run_at), jobs.ready_at = ended.ready_at, jobs.due_at = ended.due_at,
    jobs.result = coalesce(ended.result, jobs.result),
    jobs.error_type = coalesce(ended.error_type, jobs.error_type),
    jobs.error = coalesce(ended.error, jobs.error),
    jobs.traceback = CASE WHEN ended.error IS NULL THEN jobs.traceback ELSE ended.traceback END
WHERE jobs.fence = ended.fence AND jobs.state = 1
    -- once it was asked to stop there is no other end but success, which has a statement of its own
    AND (jobs.cancel_at IS NULL OR ended.state = 6)
"""

STORE_STARTED = """
UPDATE JSON_TABLE(:rows, '$[*]' COLUMNS (
    key BIGINT PATH '$[0]',
    fence BIGINT PATH '$[1]',
    started BIGINT PATH '$[2]')) AS begun
STRAIGHT_JOIN yaotask_jobs AS jobs FORCE INDEX (PRIMARY) ON jobs.key = begun.key
SET jobs.started_at = begun.started, jobs.updated_at = begun.started
WHERE jobs.fence = begun.fence AND jobs.state = 1 AND jobs.started_at IS NULL
"""

LOCK_JOBS: str | None = """
SELECT jobs.key FROM JSON_TABLE(:keys, '$[*]' COLUMNS (key BIGINT PATH '$')) AS wanted
STRAIGHT_JOIN yaotask_jobs AS jobs FORCE INDEX (PRIMARY) ON jobs.key = wanted.key
FOR UPDATE
"""

FREE_JOBS: str | None = f"{LOCK_JOBS} SKIP LOCKED"

FREE_EVENTS: str | None = """
SELECT events.seq FROM JSON_TABLE(:keys, '$[*]' COLUMNS (seq BIGINT PATH '$')) AS wanted
STRAIGHT_JOIN yaotask_events AS events FORCE INDEX (PRIMARY) ON events.seq = wanted.seq
FOR UPDATE SKIP LOCKED
"""

# The ledger would rather do without a row, or a key, that somebody else's transaction has, than wait long for it.
LOCK_WAIT = "innodb_lock_wait_timeout = 2"
# MySQL waits for a second at least, MariaDB not at all.
BE_BRIEF: str | None = "SET SESSION innodb_lock_wait_timeout = 1 /*M! - 1 */"
BE_PATIENT: str | None = f"SET SESSION {LOCK_WAIT}"

INSERT_EVENTS = """
INSERT INTO yaotask_events (job, task, id, kind, data, created_at, next_at)
SELECT told.job, told.task, told.id, told.kind, told.data, :now, :now
FROM JSON_TABLE(:rows, '$[*]' COLUMNS (
    job BIGINT PATH '$[0]',
    task VARCHAR(255) CHARACTER SET utf8mb4 PATH '$[1]',
    id BIGINT PATH '$[2]',
    kind BIGINT PATH '$[3]',
    data LONGTEXT CHARACTER SET utf8mb4 PATH '$[4]')) AS told
"""

INSERT_ATTEMPTS = """
INSERT INTO yaotask_attempts (
    job, fence, generation, attempt, outcome, worker, started_at, finished_at, error_type, error, traceback)
SELECT tried.job, tried.fence, tried.generation, tried.attempt, tried.outcome, :worker, tried.started, tried.finished,
    tried.error_type, tried.error, tried.traceback
FROM JSON_TABLE(:rows, '$[*]' COLUMNS (
    job BIGINT PATH '$[0]',
    fence BIGINT PATH '$[1]',
    generation BIGINT PATH '$[2]',
    attempt BIGINT PATH '$[3]',
    outcome VARCHAR(255) CHARACTER SET utf8mb4 PATH '$[4]',
    started BIGINT PATH '$[5]',
    finished BIGINT PATH '$[6]',
    error_type LONGTEXT CHARACTER SET utf8mb4 PATH '$[7]',
    error LONGTEXT CHARACTER SET utf8mb4 PATH '$[8]',
    traceback LONGTEXT CHARACTER SET utf8mb4 PATH '$[9]')) AS tried
"""

ADD_ROLLUPS = """
INSERT INTO yaotask_rollups (task, minute, outcome, bucket, shard, jobs, run_us, wait_us)
SELECT more.task, more.minute, more.outcome, more.bucket, more.shard, more.jobs, more.run_us, more.wait_us
FROM JSON_TABLE(:rows, '$[*]' COLUMNS (
    task VARCHAR(255) CHARACTER SET utf8mb4 PATH '$[0]',
    minute BIGINT PATH '$[1]',
    outcome BIGINT PATH '$[2]',
    bucket BIGINT PATH '$[3]',
    shard BIGINT PATH '$[4]',
    jobs BIGINT PATH '$[5]',
    run_us BIGINT PATH '$[6]',
    wait_us BIGINT PATH '$[7]')) AS more
ON DUPLICATE KEY UPDATE jobs = yaotask_rollups.jobs + more.jobs, run_us = yaotask_rollups.run_us + more.run_us,
    wait_us = yaotask_rollups.wait_us + more.wait_us
"""

ADD_SIZES = """
INSERT INTO yaotask_sizes (task, waiting)
SELECT more.task, more.waiting
FROM JSON_TABLE(:rows, '$[*]' COLUMNS (
    task VARCHAR(255) CHARACTER SET utf8mb4 PATH '$[0]',
    waiting BIGINT PATH '$[1]')) AS more
ON DUPLICATE KEY UPDATE waiting = yaotask_sizes.waiting + more.waiting
"""
ADD_SIZES_WITHIN: str | None = None

PROMOTE = """
UPDATE (
    SELECT key AS found FROM yaotask_jobs
    WHERE state IN (0, 5) AND due_at IS NOT NULL AND due_at <= :now
    ORDER BY due_at LIMIT :most
    FOR UPDATE SKIP LOCKED) AS due
STRAIGHT_JOIN yaotask_jobs AS jobs FORCE INDEX (PRIMARY) ON jobs.key = due.found
SET jobs.ready_at = :now, jobs.due_at = NULL
WHERE jobs.state IN (0, 5) AND jobs.due_at <= :now
"""

# As texts, because a JSON value would be written anew in MySQL's own way.
SELECT_DELIVERIES = """
SELECT concat('[', concat_ws(
    ',', next_at, seq, job, json_quote(task), id, kind, tries, deaths, data), ']') AS delivery
FROM yaotask_events AS event
WHERE event.task = :task AND event.state = 0 AND event.worker IS NULL AND event.next_at <= :now
    -- an event waits for the earlier ones of its job
    AND NOT EXISTS (
        SELECT 1 FROM yaotask_events AS earlier
        WHERE earlier.job = event.job AND earlier.state = 0 AND earlier.seq < event.seq)
ORDER BY event.next_at, event.seq
LIMIT :most
FOR UPDATE SKIP LOCKED
"""

# What it locks is of now, but what it knows of earlier events is of the moment at which it began.
SECOND_LOOK: str | None = """
SELECT found.seq FROM JSON_TABLE(:seqs, '$[*]' COLUMNS (seq BIGINT PATH '$')) AS found
STRAIGHT_JOIN yaotask_events AS event FORCE INDEX (PRIMARY) ON event.seq = found.seq
WHERE EXISTS (
    SELECT 1 FROM yaotask_events AS earlier
    WHERE earlier.job = event.job AND earlier.state = 0 AND earlier.seq < event.seq)
"""

TAKE_DELIVERIES = """
UPDATE JSON_TABLE(:seqs, '$[*]' COLUMNS (seq BIGINT PATH '$')) AS taken
STRAIGHT_JOIN yaotask_events AS events FORCE INDEX (PRIMARY) ON events.seq = taken.seq
SET events.worker = :worker
WHERE events.state = 0 AND events.worker IS NULL
"""


def gather_deliveries(answer: Answer) -> str:
    return "[" + ",".join([row.delivery for row in answer.all()]) + "]"


# By id, because the rows have just been stored and their keys are not known here.
INSERT_ADD_EVENTS = """
INSERT INTO yaotask_events (job, task, id, kind, data, created_at, next_at)
SELECT jobs.key, jobs.task, jobs.id, 1, '[]', :now, :now
FROM JSON_TABLE(:ids, '$[*]' COLUMNS (id BIGINT PATH '$')) AS added
STRAIGHT_JOIN yaotask_jobs AS jobs FORCE INDEX (yaotask_jobs_id) ON jobs.task = :task AND jobs.id = added.id
"""

DELETE_EVENTS = """
DELETE events FROM JSON_TABLE(:seqs, '$[*]' COLUMNS (seq BIGINT PATH '$')) AS told
STRAIGHT_JOIN yaotask_events AS events FORCE INDEX (PRIMARY) ON events.seq = told.seq
WHERE events.worker = :worker
"""

PUT_EVENTS_OFF = """
UPDATE JSON_TABLE(:seqs, '$[*]' COLUMNS (seq BIGINT PATH '$')) AS told
STRAIGHT_JOIN yaotask_events AS events FORCE INDEX (PRIMARY) ON events.seq = told.seq
SET events.next_at = :next_at, events.worker = NULL
WHERE events.worker = :worker
"""

# A held job goes on once each of its events was tried.
RELEASE_HELD = """
UPDATE JSON_TABLE(:keys, '$[*]' COLUMNS (key BIGINT PATH '$')) AS held
STRAIGHT_JOIN yaotask_jobs AS jobs FORCE INDEX (PRIMARY) ON jobs.key = held.key
SET jobs.ready_at = CASE WHEN jobs.run_at <= :now THEN :now END,
    jobs.due_at = CASE WHEN jobs.run_at > :now THEN jobs.run_at END
WHERE jobs.state IN (0, 5) AND jobs.ready_at IS NULL AND jobs.due_at IS NULL
    -- not NOT EXISTS, for which MariaDB would first look at the events of all jobs
    AND (
        SELECT 1 FROM yaotask_events AS event
        WHERE event.job = jobs.key AND event.state = 0 AND event.tries = 0
            -- nobody waits for one that itself waits behind an event whose hook fails
            AND NOT EXISTS (
                SELECT 1 FROM yaotask_events AS earlier
                WHERE earlier.job = event.job AND earlier.seq < event.seq AND earlier.state = 0 AND earlier.tries > 0)
        LIMIT 1) IS NULL
"""

# LAST_INSERT_ID keeps what it is given, for this connection alone: the next statement asks for it.
RESERVE_IDS = """
INSERT INTO yaotask_ids (task, next) VALUES (:task, LAST_INSERT_ID(1 + :count))
ON DUPLICATE KEY UPDATE next = LAST_INSERT_ID(next + :count)
"""

LAST_INSERTED = "SELECT LAST_INSERT_ID()"


def reserve_ids(connection: Connection, task: str, count: int) -> int:
    execute(connection, RESERVE_IDS, {"task": task, "count": count})
    return int(execute(connection, LAST_INSERTED).scalar_one()) - count


WAITING = "SELECT waiting FROM yaotask_sizes WHERE task = :task FOR UPDATE"

MAKE_SIZE = """
INSERT INTO yaotask_sizes (task, waiting) VALUES (:task, 0) ON DUPLICATE KEY UPDATE waiting = yaotask_sizes.waiting
"""


def waiting(connection: Connection, task: str) -> int:
    found = execute(connection, WAITING, {"task": task}).scalar()
    if found is None:
        execute(connection, MAKE_SIZE, {"task": task})
        found = execute(connection, WAITING, {"task": task}).scalar_one()
    return int(found)


FIND_DEBTS = "SELECT seq, task, added FROM yaotask_size_debts ORDER BY seq FOR UPDATE SKIP LOCKED"

DELETE_DEBTS = """
DELETE debts FROM JSON_TABLE(:seqs, '$[*]' COLUMNS (seq BIGINT PATH '$')) AS paid
STRAIGHT_JOIN yaotask_size_debts AS debts FORCE INDEX (PRIMARY) ON debts.seq = paid.seq
"""


def take_debts(connection: Connection) -> Sequence[Any]:
    debts = execute(connection, FIND_DEBTS).all()
    if debts:
        execute(connection, DELETE_DEBTS, {"seqs": dumps([debt.seq for debt in debts])})
    return debts


# All that a poll looks for. A task is looked for by its number too: MariaDB remembers what it found for a name, and
# takes it for the answer to another one that a dictionary would not tell from it.
GLANCE: str | None = """
SELECT TIMESTAMPDIFF(MICROSECOND, '1970-01-01 00:00:00', UTC_TIMESTAMP(6)) AS now,
    (SELECT due_at FROM yaotask_jobs FORCE INDEX (yaotask_jobs_due)
     WHERE due_at IS NOT NULL AND state IN (0, 5)
     ORDER BY due_at LIMIT 1) AS due,
    -- the tasks of which a claim would find a job
    (SELECT json_arrayagg(worked.task)
     FROM JSON_TABLE(:worked, '$[*]' COLUMNS (
        number FOR ORDINALITY, task VARCHAR(255) CHARACTER SET utf8mb4 PATH '$')) AS worked
     WHERE (
        SELECT 1 FROM yaotask_jobs AS job FORCE INDEX (yaotask_jobs_ready)
        WHERE job.ready_queue = worked.task AND job.task = worked.task AND worked.number > 0 LIMIT 1) IS NOT NULL
    ) AS ready,
    -- the first event that can be delivered
    (SELECT min(first.next_at) FROM (
        SELECT (
            SELECT event.next_at FROM yaotask_events AS event
            WHERE event.task = told.task AND told.number > 0 AND event.state = 0 AND event.worker IS NULL
              AND NOT EXISTS (
                SELECT 1 FROM yaotask_events AS earlier
                WHERE earlier.job = event.job AND earlier.state = 0 AND earlier.seq < event.seq)
            ORDER BY event.next_at LIMIT 1) AS next_at
        FROM JSON_TABLE(:told, '$[*]' COLUMNS (
            number FOR ORDINALITY, task VARCHAR(255) CHARACTER SET utf8mb4 PATH '$')) AS told
    ) AS first) AS event,
    -- whether a job of this worker is to stop
    (SELECT 1 FROM yaotask_jobs
     WHERE worker = :worker AND state = 1 AND cancel_at IS NOT NULL
     ORDER BY cancel_at LIMIT 1) IS NOT NULL AS asked,
    -- whether a caller's own transaction owes to `sizes`
    (SELECT seq FROM yaotask_size_debts ORDER BY seq LIMIT 1) IS NOT NULL AS owed
"""

NOW = "SELECT TIMESTAMPDIFF(MICROSECOND, '1970-01-01 00:00:00', UTC_TIMESTAMP(6))"

STORE_NAME = "SELECT value FROM yaotask_meta WHERE name = 'store'"
