"""The statements that PostgreSQL has of its own.

States stand in them as literals, so that the partial indexes of tables.py match; `+jobs.state` is written where they
must not: the way goes from the rows of a batch to the key, never from the rows that happen to be in a state. The
rows come as `json` and not `jsonb`, which keeps the texts inside as they were given. What may be null or a small
number is cast, because it has no type of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy.engine import Connection

from yaotask.store.dialects.base import Nest
from yaotask.store.direct import Answer, execute

nest: Nest | None = None

# The statistics of a queue are always late: who believes them sorts a million rows that were not there yet, or walks
# through all. And what is prepared is planned once, because planning a cycle costs more than what it does for one job.
# Where a table must be read as a whole all the same, a plan counts as costly, and would be compiled each time it is
# executed: that takes longer than all the rest.
SESSION_PLANS = """
SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off;
SET plan_cache_mode = force_generic_plan; SET jit = off
"""

BEGIN = "BEGIN ISOLATION LEVEL READ COMMITTED"
# Of one transaction and not of the connection, which a pooler may give to others in between.
BEGIN_PLANNED = f"{BEGIN};{SESSION_PLANS.replace('SET', 'SET LOCAL')}"

INSERT_JOBS = """
INSERT INTO yaotask_jobs (
    task, queue, state, events, counted, created_at, updated_at, priority, attempts, timeout, created_by,
    idempotency_key, run_at, ready_at, due_at, id, args, payload)
SELECT :task, :task, 0, CAST(:events AS integer), CAST(:counted AS smallint), CAST(:now AS bigint),
    CAST(:now AS bigint), CAST(:priority AS integer), CAST(:attempts AS integer), CAST(:timeout AS bigint),
    CAST(:created_by AS text), CAST(:key AS text), CAST(:run_at AS bigint), CAST(:ready_at AS bigint),
    CAST(:due_at AS bigint), CAST(value ->> 0 AS bigint), CAST(value -> 1 AS text), CAST(value -> 2 AS text)
FROM json_array_elements(CAST(:rows AS json))
"""

SELECT_CLAIMS = """
WITH ready AS MATERIALIZED (
    -- in this queue, of this task, and ready: an index holds these in just this order
    SELECT key, priority, ready_at, counted FROM yaotask_jobs
    WHERE queue = :task AND task = :task AND state IN (0, 5) AND ready_at IS NOT NULL
    ORDER BY priority DESC, ready_at, key
    LIMIT CAST(:most AS bigint)
    -- what somebody else is just taking is theirs
    FOR UPDATE SKIP LOCKED),
taken AS (
    UPDATE yaotask_jobs AS jobs
    SET state = 1, fence = greatest(jobs.fence + 1, CAST(:fence AS integer)), attempt = jobs.attempt + 1,
        worker = CAST(:worker AS bigint), counted = 0, claimed_at = CAST(:now AS bigint), started_at = NULL,
        -- each try counts anew
        success_count = 0, fail_count = 0, ignored_count = 0
    FROM ready
    -- looked at again, so that this statement is right by itself
    WHERE jobs.key = ready.key AND +jobs.state IN (0, 5)
    RETURNING jobs.key, ready.priority, ready.ready_at, ready.counted,
        -- what `claim` must know, as JSON text that is put together and not parsed
        concat('[', jobs.key, ',', jobs.fence, ',', jobs.id, ',', jobs.generation, ',', jobs.attempt, ',',
            coalesce(CAST(jobs.attempts AS text), 'null'), ',', jobs.losses, ',',
            coalesce(CAST(jobs.timeout AS text), 'null'), ',', jobs.events, ',', jobs.ready_at, ',',
            jobs.claimed_at, ',', jobs.args, ',', jobs.payload, ',',
            coalesce(CAST(to_json(jobs.created_by) AS text), 'null'), ',', coalesce(jobs.extra, 'null'), ']') AS claim)
SELECT count(*) AS jobs, coalesce(sum(counted), 0) AS counted,
    '[' || string_agg(claim, ',' ORDER BY priority DESC, ready_at, key) || ']' AS claims
FROM taken
"""

# They are taken as they are found.
TAKE_CLAIMS: str | None = None


def gather_claims(answer: Answer) -> Any:
    return answer.one()


FINISH_SUCCESS = """
UPDATE yaotask_jobs AS jobs
SET state = 2, worker = NULL, started_at = won.started, finished_at = won.ended, updated_at = won.ended,
    result = won.result, error_type = NULL, error = NULL, traceback = NULL
FROM (
    SELECT CAST(value ->> 0 AS bigint) AS key, CAST(value ->> 1 AS integer) AS fence,
        CAST(value ->> 2 AS bigint) AS started, CAST(value ->> 3 AS bigint) AS ended, CAST(value -> 4 AS text) AS result
    FROM json_array_elements(CAST(:rows AS json))) AS won
WHERE jobs.key = won.key AND jobs.fence = won.fence AND +jobs.state = 1
"""

FINISH_OTHER = """
UPDATE yaotask_jobs AS jobs
SET state = ended.state, worker = NULL, attempt = jobs.attempt - ended.untried,
    -- a loss is told by its fence too (T7)
    losses = jobs.losses + ended.lost, deaths = jobs.deaths + ended.lost, fence = jobs.fence + ended.lost,
    started_at = ended.started, finished_at = ended.finished, updated_at = ended.updated,
    run_at = coalesce(ended.run_at, jobs.run_at), ready_at = ended.ready_at, due_at = ended.due_at,
    result = coalesce(ended.result, jobs.result),
    error_type = coalesce(ended.error_type, jobs.error_type),
    error = coalesce(ended.error, jobs.error),
    traceback = CASE WHEN ended.error IS NULL THEN jobs.traceback ELSE ended.traceback END
FROM (
    SELECT CAST(value ->> 0 AS bigint) AS key, CAST(value ->> 1 AS integer) AS fence,
        CAST(value ->> 2 AS smallint) AS state, CAST(value ->> 3 AS integer) AS untried,
        CAST(value ->> 4 AS bigint) AS started, CAST(value ->> 5 AS bigint) AS updated,
        CAST(value ->> 6 AS bigint) AS finished, CAST(value ->> 7 AS bigint) AS run_at,
        CAST(value ->> 8 AS bigint) AS ready_at, CAST(value ->> 9 AS bigint) AS due_at, value ->> 10 AS result,
        value ->> 11 AS error_type, value ->> 12 AS error, value ->> 13 AS traceback,
        CAST(value ->> 14 AS integer) AS lost
    FROM json_array_elements(CAST(:rows AS json))) AS ended
WHERE jobs.key = ended.key AND jobs.fence = ended.fence AND +jobs.state = 1
    -- once it was asked to stop there is no other end but success, which has a statement of its own
    AND (jobs.cancel_at IS NULL OR ended.state = 6)
"""

STORE_STARTED = """
UPDATE yaotask_jobs AS jobs
SET started_at = begun.started, updated_at = begun.started
FROM (
    SELECT CAST(value ->> 0 AS bigint) AS key, CAST(value ->> 1 AS integer) AS fence,
        CAST(value ->> 2 AS bigint) AS started
    FROM json_array_elements(CAST(:rows AS json))) AS begun
WHERE jobs.key = begun.key AND jobs.fence = begun.fence AND +jobs.state = 1 AND jobs.started_at IS NULL
"""

INSERT_EVENTS = """
INSERT INTO yaotask_events (job, task, id, kind, data, created_at, next_at)
SELECT CAST(value ->> 0 AS bigint), value ->> 1, CAST(value ->> 2 AS bigint), CAST(value ->> 3 AS smallint),
    value ->> 4, CAST(:now AS bigint), CAST(:now AS bigint)
FROM json_array_elements(CAST(:rows AS json))
"""

INSERT_ATTEMPTS = """
INSERT INTO yaotask_attempts (
    job, fence, generation, attempt, outcome, worker, started_at, finished_at, error_type, error, traceback)
SELECT CAST(value ->> 0 AS bigint), CAST(value ->> 1 AS integer), CAST(value ->> 2 AS integer),
    CAST(value ->> 3 AS integer), value ->> 4, CAST(:worker AS bigint), CAST(value ->> 5 AS bigint),
    CAST(value ->> 6 AS bigint), value ->> 7, value ->> 8, value ->> 9
FROM json_array_elements(CAST(:rows AS json))
"""

ADD_ROLLUPS = """
INSERT INTO yaotask_rollups AS known (task, minute, outcome, bucket, shard, jobs, run_us, wait_us)
SELECT value ->> 0, CAST(value ->> 1 AS bigint), CAST(value ->> 2 AS smallint), CAST(value ->> 3 AS smallint),
    CAST(value ->> 4 AS smallint), CAST(value ->> 5 AS bigint), CAST(value ->> 6 AS bigint),
    CAST(value ->> 7 AS bigint)
FROM json_array_elements(CAST(:rows AS json))
ON CONFLICT (task, minute, outcome, bucket, shard) DO UPDATE
SET jobs = known.jobs + excluded.jobs, run_us = known.run_us + excluded.run_us,
    wait_us = known.wait_us + excluded.wait_us
"""

ADD_SIZES = """
INSERT INTO yaotask_sizes AS known (task, waiting)
SELECT value ->> 0, CAST(value ->> 1 AS bigint) FROM json_array_elements(CAST(:rows AS json))
ON CONFLICT (task) DO UPDATE SET waiting = known.waiting + excluded.waiting
"""

# Whatever fails ends the transaction. The text is what an administrator finds in the server's log.
ADD_SIZES_WITHIN: str | None = """
WITH changed AS (ADD_SIZES RETURNING task, waiting + coalesce((
    SELECT CAST(sum(added) AS bigint) FROM yaotask_size_debts AS debts WHERE debts.task = known.task), 0) AS waiting)
SELECT task, CASE WHEN waiting <= coalesce(CAST(CAST(:bounds AS json) ->> task AS bigint), waiting) THEN waiting
    ELSE CAST(concat('yaotask asks again with care: there is no more room for jobs of ', task) AS bigint) END AS waiting
FROM changed
""".replace("ADD_SIZES", ADD_SIZES)

PROMOTE = """
UPDATE yaotask_jobs SET ready_at = CAST(:now AS bigint), due_at = NULL
WHERE key = ANY (ARRAY(
    SELECT key FROM yaotask_jobs
    WHERE state IN (0, 5) AND due_at IS NOT NULL AND due_at <= CAST(:now AS bigint)
    ORDER BY due_at LIMIT CAST(:most AS bigint)
    FOR UPDATE SKIP LOCKED))
    -- looked at again, so that this statement is right by itself
    AND +state IN (0, 5) AND due_at <= CAST(:now AS bigint)
"""

# Of one task, so that the index has them in just this order. They stay ours until `take_deliveries` says so.
SELECT_DELIVERIES = """
SELECT CAST(json_agg(json_build_array(
    next_at, seq, job, task, id, kind, tries, deaths, CAST(data AS json))) AS text)
FROM (
    SELECT event.* FROM yaotask_events AS event
    WHERE event.task = :task AND event.state = 0 AND event.worker IS NULL AND event.next_at <= CAST(:now AS bigint)
        -- an event waits for the earlier ones of its job
        AND NOT EXISTS (
            SELECT 1 FROM yaotask_events AS earlier
            WHERE earlier.job = event.job AND earlier.state = 0 AND earlier.seq < event.seq)
    ORDER BY event.next_at, event.seq LIMIT CAST(:most AS bigint)
    FOR UPDATE OF event SKIP LOCKED) AS found
"""

SECOND_LOOK: str | None = None

TAKE_DELIVERIES = """
UPDATE yaotask_events SET worker = CAST(:worker AS bigint)
WHERE seq = ANY (ARRAY(SELECT CAST(value AS bigint) FROM json_array_elements_text(CAST(:seqs AS json))))
    AND +state = 0 AND worker IS NULL
"""


def gather_deliveries(answer: Answer) -> str:
    return answer.scalar() or "[]"


# By id, because the rows have just been stored and their keys are not known here.
INSERT_ADD_EVENTS = """
INSERT INTO yaotask_events (job, task, id, kind, data, created_at, next_at)
SELECT jobs.key, jobs.task, jobs.id, 1, '[]', CAST(:now AS bigint), CAST(:now AS bigint)
FROM json_array_elements_text(CAST(:ids AS json)) WITH ORDINALITY AS given (id, place)
JOIN yaotask_jobs AS jobs ON jobs.task = :task AND jobs.id = CAST(given.id AS bigint)
ORDER BY given.place
"""

DELETE_EVENTS = """
DELETE FROM yaotask_events
WHERE seq = ANY (ARRAY(SELECT CAST(value AS bigint) FROM json_array_elements_text(CAST(:seqs AS json))))
    AND worker = CAST(:worker AS bigint)
"""

PUT_EVENTS_OFF = """
UPDATE yaotask_events SET next_at = CAST(:next_at AS bigint), worker = NULL
WHERE seq = ANY (ARRAY(SELECT CAST(value AS bigint) FROM json_array_elements_text(CAST(:seqs AS json))))
    AND worker = CAST(:worker AS bigint)
"""

# A held job goes on once each of its events was tried.
RELEASE_HELD = """
UPDATE yaotask_jobs
SET ready_at = CASE WHEN run_at <= CAST(:now AS bigint) THEN CAST(:now AS bigint) END,
    due_at = CASE WHEN run_at > CAST(:now AS bigint) THEN run_at END
WHERE key = ANY (ARRAY(SELECT CAST(value AS bigint) FROM json_array_elements_text(CAST(:keys AS json))))
    AND +state IN (0, 5) AND ready_at IS NULL AND due_at IS NULL
    AND NOT EXISTS (
        SELECT 1 FROM yaotask_events AS event
        WHERE event.job = yaotask_jobs.key AND event.state = 0 AND event.tries = 0
            -- nobody waits for one that itself waits behind an event whose hook fails
            AND NOT EXISTS (
                SELECT 1 FROM yaotask_events AS earlier
                WHERE earlier.job = event.job AND earlier.seq < event.seq AND earlier.state = 0 AND earlier.tries > 0))
"""

# In one order everywhere, so that no two transactions wait for each other.
LOCK_JOBS: str | None = """
SELECT key FROM yaotask_jobs
WHERE key = ANY (ARRAY(SELECT CAST(value AS bigint) FROM json_array_elements_text(CAST(:keys AS json))))
ORDER BY key FOR UPDATE
"""

# Locked no more than a change of them needs, and waited for no one.
FREE_JOBS: str | None = """
SELECT key FROM yaotask_jobs
WHERE key = ANY (ARRAY(SELECT CAST(value AS bigint) FROM json_array_elements_text(CAST(:keys AS json))))
FOR NO KEY UPDATE SKIP LOCKED
"""

FREE_EVENTS: str | None = """
SELECT seq FROM yaotask_events
WHERE seq = ANY (ARRAY(SELECT CAST(value AS bigint) FROM json_array_elements_text(CAST(:keys AS json))))
FOR NO KEY UPDATE SKIP LOCKED
"""

# The ledger would rather do without a row, or a key, that somebody else's transaction has, than wait long for it.
LOCK_TIMEOUT = "lock_timeout = 2000"
BE_BRIEF: str | None = "SET LOCAL lock_timeout = 20"
BE_PATIENT: str | None = f"SET LOCAL {LOCK_TIMEOUT}"

RESERVE_IDS = """
INSERT INTO yaotask_ids AS known (task, next) VALUES (:task, 1 + CAST(:count AS bigint))
ON CONFLICT (task) DO UPDATE SET next = known.next + CAST(:count AS bigint)
RETURNING next
"""


def reserve_ids(connection: Connection, task: str, count: int) -> int:
    return int(execute(connection, RESERVE_IDS, {"task": task, "count": count}).scalar_one()) - count


# Locked, because whoever asks will add to it.
WAITING_OF = "SELECT waiting FROM yaotask_sizes WHERE task = :task FOR UPDATE"

MAKE_SIZE = "INSERT INTO yaotask_sizes (task, waiting) VALUES (:task, 0) ON CONFLICT (task) DO NOTHING"


def waiting(connection: Connection, task: str) -> int:
    found = execute(connection, WAITING_OF, {"task": task}).scalar()
    if found is None:
        execute(connection, MAKE_SIZE, {"task": task})
        found = execute(connection, WAITING_OF, {"task": task}).scalar_one()
    return int(found)


# Those that somebody else is just paying in are left to them.
TAKE_DEBTS = """
DELETE FROM yaotask_size_debts WHERE seq = ANY (ARRAY(SELECT seq FROM yaotask_size_debts FOR UPDATE SKIP LOCKED))
RETURNING task, added
"""


def take_debts(connection: Connection) -> Sequence[Any]:
    return execute(connection, TAKE_DEBTS).all()


# All that a poll looks for. Each look at a task is in the order of its index and ends at the first row: no planner
# would rather read the table for that, or join the tasks to it.
GLANCE: str | None = """
SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint) AS now,
    (SELECT min(due_at) FROM yaotask_jobs WHERE state IN (0, 5) AND due_at IS NOT NULL) AS due,
    -- the tasks of which a claim would find a job
    (SELECT CAST(json_agg(worked.task) AS text)
     FROM json_array_elements_text(CAST(:worked AS json)) AS worked (task)
     WHERE (
        SELECT 1 FROM yaotask_jobs AS job
        WHERE job.queue = worked.task AND job.task = worked.task AND job.state IN (0, 5) AND job.ready_at IS NOT NULL
        ORDER BY job.priority DESC, job.ready_at LIMIT 1) IS NOT NULL) AS ready,
    -- the first event that can be delivered
    (SELECT min(event.next_at)
     FROM json_array_elements_text(CAST(:told AS json)) AS told (task) CROSS JOIN LATERAL (
        SELECT event.next_at FROM yaotask_events AS event
        WHERE event.task = told.task AND event.state = 0 AND event.worker IS NULL AND NOT EXISTS (
            SELECT 1 FROM yaotask_events AS earlier
            WHERE earlier.job = event.job AND earlier.state = 0 AND earlier.seq < event.seq)
        ORDER BY event.next_at LIMIT 1) AS event) AS event,
    -- whether a job of this worker is to stop
    (SELECT 1 FROM yaotask_jobs
     WHERE worker = CAST(:worker AS bigint) AND state = 1 AND cancel_at IS NOT NULL
     ORDER BY cancel_at LIMIT 1) IS NOT NULL AS asked,
    -- whether a caller's own transaction owes to `sizes`
    (SELECT seq FROM yaotask_size_debts ORDER BY seq LIMIT 1) IS NOT NULL AS owed
"""

NOW = "SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint)"

# The store's id is looked up only where the table is: a failed statement would end its owner's transaction.
WHERE_IT_IS = "SELECT current_database() AS database, to_regclass('yaotask_meta') IS NOT NULL AS has_store"
STORE_ID = "SELECT value FROM yaotask_meta WHERE name = 'store'"
