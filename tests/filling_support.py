"""A store with as many jobs as need be: each kind is made with one statement, past the transitions that lead there."""

from __future__ import annotations

from dataclasses import dataclass

from store_support import START, Bench

from yaotask.clock import SECOND
from yaotask.jobs import JobState
from yaotask.store.direct import ask

YEAR = 365 * 86_400 * SECOND
# A worker that has claims and deliveries, but is not in the store any more.
GONE = 1_000_000
# So many jobs of a churn go together.
STEP = 50_000

_JOBS = """
INSERT INTO yaotask_jobs (task, id, queue, state, priority, events, counted, args, payload, created_at, updated_at,
    run_at, ready_at, due_at, finished_at, result, worker, attempt, fence, claimed_at, started_at)
SELECT 'mail', :last + i, 'mail', :state, 0, 0, 0, '[]', '{}', :now + i, :now, :now,
    CASE WHEN :due = 0 THEN :now + i END, CASE WHEN :due > 0 THEN :due + i END,
    CASE WHEN :state IN (2, 3, 6, 7) THEN :now + i END, CASE WHEN :state = 2 THEN '1' END,
    CASE WHEN :worker > 0 THEN :worker END, CASE WHEN :state > 0 THEN 1 ELSE 0 END,
    CASE WHEN :state > 0 THEN 1 ELSE 0 END, CASE WHEN :state > 0 THEN :now END, CASE WHEN :state > 0 THEN :now END
FROM """
_EVENTS = """
INSERT INTO yaotask_events (job, task, id, kind, data, created_at, next_at, worker)
SELECT :last + i, 'mail', :last + i, 2, '[]', :now, :now + i, CASE WHEN :worker > 0 THEN :worker END
FROM """
# From 1 to :count.
_NUMBERS = {
    "sqlite": "(WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT :count) SELECT i FROM n) AS n",
    "postgresql": "generate_series(1, CAST(:count AS integer)) AS n (i)",
    "mysql": "(SELECT seq AS i FROM seq_1_to_10000000 WHERE seq <= :count) AS n",
}
_CLAIM = """
UPDATE yaotask_jobs SET state = 1, fence = fence + 1, attempt = attempt + 1, worker = 2, claimed_at = :now
WHERE task = 'mail' AND id > :first AND id <= :last AND state = 0 AND ready_at IS NOT NULL
"""
_FINISH = """
UPDATE yaotask_jobs SET state = 2, worker = NULL, started_at = :now, finished_at = :now, updated_at = :now, result = '1'
WHERE task = 'mail' AND id > :first AND id <= :last AND state = 1 AND worker = 2
"""
_TRIGGERS = ("only_known_changes", "only_two_ends_of_what_was_asked_to_stop", "only_waiting_jobs")
# As somebody's server who never comes to it, so that statistics grow old.
_STALE = {"mysql": "ALTER TABLE {} STATS_AUTO_RECALC = 0"}
# As the server does by itself, or is told to.
_FRESH = {"sqlite": "ANALYZE {}", "postgresql": "VACUUM (ANALYZE) {}", "mysql": "ANALYZE TABLE {}"}
_TABLES = ("yaotask_jobs", "yaotask_events")


@dataclass
class Filling:
    """What a store is filled with, beside what is done with it. Its ids begin where no others come."""

    bench: Bench
    last: int = 1_000_000_000
    # Behind these the next are to be claimed: of all, and of those that were added last.
    gone: int = 0
    head: int = 0

    def begin(self) -> None:
        """For a new store."""
        for trigger in _TRIGGERS:
            self.bench.release(trigger)
        self._maintain(_STALE)
        self._maintain(_FRESH)

    def grow(self, count: int) -> None:
        """So many jobs more that have ended, that wait, and that are due in a year; of events a tenth as many."""
        self.jobs(count, JobState.SUCCESS)
        self.gone, self.head = self.gone or self.last, self.last
        self.jobs(count, JobState.WAITING)
        self.jobs(count, JobState.WAITING, due=START + YEAR)
        self.events(count // 10)

    def mix_in(self, count: int) -> None:
        """So many jobs of each kind that there are few of."""
        for state in (JobState.FAILURE, JobState.CANCELLED, JobState.IGNORED):
            self.jobs(count, state)
        self.jobs(count, JobState.RETRYING, due=START + YEAR)

    def leave_behind(self) -> None:
        """What was a dead worker's, and what has just become due."""
        self.jobs(20, JobState.RUNNING, worker=GONE)
        self.events(20, worker=GONE)
        self.jobs(20, JobState.WAITING, due=self.bench.clock.now() - SECOND)

    def churn(self, count: int) -> None:
        """So many jobs are added, and as many claimed and finished: those that have waited longest."""
        for _ in range(0, count, STEP):
            self.jobs(STEP, JobState.WAITING)
            self.head += STEP
            some = {"first": self.gone, "last": self.head, "now": self.bench.clock.now()}
            self.bench.write(_CLAIM, **some)
            self.bench.write(_FINISH, **some)
            self.gone = self.head

    def refresh(self) -> None:
        """Clean up and take statistics, as each database does it in time."""
        self._maintain(_FRESH)

    def forget_plans(self) -> None:
        """Let all connections begin anew: plans and statistics are kept with them."""
        self.bench.store.writer.disconnect()
        self.bench.store.readers.dispose()

    def jobs(self, count: int, state: JobState, *, due: int = 0, worker: int = 0) -> None:
        self._insert(_JOBS, count, state=int(state), due=due, worker=worker)

    def events(self, count: int, worker: int = 0) -> None:
        self._insert(_EVENTS, count, worker=worker)

    def _insert(self, statement: str, count: int, **values: int) -> None:
        numbered = statement + _NUMBERS[self.bench.store.dialect.name]
        self.bench.write(numbered, count=count, last=self.last, now=self.bench.clock.now(), **values)
        self.last += count

    def _maintain(self, statements: dict[str, str]) -> None:
        statement = statements.get(self.bench.store.dialect.name)
        with self.bench.store.reading() as connection:
            for table in _TABLES if statement else ():
                ask(connection, str(statement).format(table))
        self.forget_plans()
