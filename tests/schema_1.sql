-- An empty store as yaotask made it at schema 1, in the words of SQLite. It stays as it is.

CREATE TABLE yaotask_meta (
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (name)
);

CREATE TABLE yaotask_jobs (
    "key" INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    task TEXT NOT NULL,
    id BIGINT NOT NULL,
    queue TEXT NOT NULL,
    state SMALLINT NOT NULL,
    priority INTEGER NOT NULL,
    ready_at BIGINT,
    due_at BIGINT,
    generation INTEGER DEFAULT 0 NOT NULL,
    attempt INTEGER DEFAULT 0 NOT NULL,
    losses INTEGER DEFAULT 0 NOT NULL,
    deaths INTEGER DEFAULT 0 NOT NULL,
    fence INTEGER DEFAULT 0 NOT NULL,
    worker BIGINT,
    attempts INTEGER,
    timeout BIGINT,
    events INTEGER NOT NULL,
    counted SMALLINT NOT NULL,
    created_by TEXT,
    idempotency_key TEXT,
    args TEXT NOT NULL,
    payload TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    run_at BIGINT NOT NULL,
    claimed_at BIGINT,
    started_at BIGINT,
    finished_at BIGINT,
    current BIGINT,
    total BIGINT,
    message TEXT,
    step TEXT,
    completed_steps INTEGER,
    total_steps INTEGER,
    success_count BIGINT DEFAULT 0 NOT NULL,
    fail_count BIGINT DEFAULT 0 NOT NULL,
    ignored_count BIGINT DEFAULT 0 NOT NULL,
    extra TEXT,
    result TEXT,
    error_type TEXT,
    error TEXT,
    traceback TEXT
);

CREATE INDEX yaotask_jobs_due ON yaotask_jobs (due_at) WHERE state IN (0, 5) AND due_at IS NOT NULL;

CREATE INDEX yaotask_jobs_unsuccessful ON yaotask_jobs (task, state, id) WHERE state IN (3, 5, 6, 7);

CREATE INDEX yaotask_jobs_finished ON yaotask_jobs (task, finished_at) WHERE state IN (2, 3, 6, 7);

CREATE INDEX yaotask_jobs_ready ON yaotask_jobs (queue, task, priority DESC, ready_at) WHERE state IN (0, 5) AND ready_at IS NOT NULL;

CREATE INDEX yaotask_jobs_running ON yaotask_jobs (worker) WHERE state = 1;

CREATE UNIQUE INDEX yaotask_jobs_key ON yaotask_jobs (task, idempotency_key) WHERE idempotency_key IS NOT NULL;

CREATE INDEX yaotask_jobs_created ON yaotask_jobs (created_at);

CREATE UNIQUE INDEX yaotask_jobs_id ON yaotask_jobs (task, id);

CREATE TABLE yaotask_attempts (
    job BIGINT NOT NULL,
    fence INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    outcome TEXT NOT NULL,
    worker BIGINT,
    started_at BIGINT,
    finished_at BIGINT NOT NULL,
    error_type TEXT,
    error TEXT,
    traceback TEXT,
    PRIMARY KEY (job, fence)
)
 WITHOUT ROWID;

CREATE TABLE yaotask_events (
    seq INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    job BIGINT NOT NULL,
    task TEXT NOT NULL,
    id BIGINT NOT NULL,
    kind SMALLINT NOT NULL,
    data TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    state SMALLINT DEFAULT 0 NOT NULL,
    tries INTEGER DEFAULT 0 NOT NULL,
    next_at BIGINT NOT NULL,
    worker BIGINT,
    error TEXT
);

CREATE INDEX yaotask_events_worker ON yaotask_events (worker) WHERE worker IS NOT NULL;

CREATE INDEX yaotask_events_pending ON yaotask_events (task, next_at) WHERE state = 0 AND worker IS NULL;

CREATE INDEX yaotask_events_job ON yaotask_events (job, seq);

CREATE TABLE yaotask_workers (
    "key" INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    incarnation TEXT NOT NULL,
    host TEXT NOT NULL,
    pid INTEGER NOT NULL,
    started_at BIGINT NOT NULL,
    expires_at BIGINT,
    lock_path TEXT,
    lock_device BIGINT,
    lock_inode BIGINT,
    boot_id TEXT,
    UNIQUE (incarnation)
);

CREATE TABLE yaotask_sizes (
    task TEXT NOT NULL,
    waiting BIGINT NOT NULL,
    PRIMARY KEY (task)
);

CREATE TABLE yaotask_size_debts (
    seq INTEGER NOT NULL,
    task TEXT NOT NULL,
    added BIGINT NOT NULL,
    PRIMARY KEY (seq)
);

CREATE TABLE yaotask_ids (
    task TEXT NOT NULL,
    next BIGINT NOT NULL,
    PRIMARY KEY (task)
);

CREATE TABLE yaotask_rollups (
    task TEXT NOT NULL,
    minute BIGINT NOT NULL,
    outcome SMALLINT NOT NULL,
    bucket SMALLINT NOT NULL,
    jobs BIGINT NOT NULL,
    run_us BIGINT NOT NULL,
    wait_us BIGINT NOT NULL,
    PRIMARY KEY (task, minute, outcome, bucket)
)
 WITHOUT ROWID;

CREATE VIEW yaotask_jobs_readable AS
SELECT task || '.' || id AS job, task, id,
    CASE state WHEN 0 THEN 'WAITING' WHEN 1 THEN 'RUNNING' WHEN 2 THEN 'SUCCESS' WHEN 3 THEN 'FAILURE'
        WHEN 5 THEN 'RETRYING' WHEN 6 THEN 'CANCELLED' WHEN 7 THEN 'IGNORED' END AS status,
    priority, generation, attempt, losses, fence, worker, args, payload,
    datetime(created_at / 1000000, 'unixepoch') AS created, datetime(run_at / 1000000, 'unixepoch') AS run,
    datetime(started_at / 1000000, 'unixepoch') AS started,
    datetime(finished_at / 1000000, 'unixepoch') AS finished, result, error
FROM yaotask_jobs;
