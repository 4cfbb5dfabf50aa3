"""Bugs that are planted in yaotask, one at a time, to see that they are found.

Python imports a module of this name before anything else, where its folder is on PYTHONPATH: tests put it there for the
nodes and callers of a run of chaos, and MUTANT names the bug. Each is one that a task queue has had.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from typing import Any

MUTANTS: dict[str, Callable[[], None]] = {}
# As reproducible as Python's hashes are in this process: one seed of simulation has one history with a bug, too.
CHANCE = random.Random(os.environ.get("PYTHONHASHSEED"))


def mutant(plant: Callable[[], None]) -> Callable[[], None]:
    MUTANTS[plant.__name__] = plant
    return plant


def now_and_then() -> bool:
    return CHANCE.random() < 0.05


@mutant
def a_success_of_any_claim_counts() -> None:
    """The end of a job looks at its key, not at its fence or state."""
    _without("FINISH_SUCCESS", " AND +yaotask_jobs.fence = won.fence AND +yaotask_jobs.state = 1")
    # Else the table of tries may find it first, whose key is taken.
    _replace("INSERT_ATTEMPTS", "INSERT INTO", "INSERT OR IGNORE INTO")


@mutant
def another_end_of_any_claim_counts() -> None:
    """Failures, retries and what is handed back are written without a fence."""
    _without("FINISH_OTHER", " AND +yaotask_jobs.fence = ended.fence AND +yaotask_jobs.state = 1")
    _replace("INSERT_ATTEMPTS", "INSERT INTO", "INSERT OR IGNORE INTO")


@mutant
def progress_of_any_claim_counts() -> None:
    from yaotask.store import statements

    plain = statements.progress
    statements.progress = lambda columns, *, fenced: plain(columns, fenced=False)  # type: ignore[assignment]


@mutant
def acknowledged_before_it_is_committed() -> None:
    """Now and then nothing comes of a transaction whose callers were told that all is well."""
    from yaotask.store.writer import Writer

    plain = Writer._commit

    def commit(self: Writer, connection: Any) -> None:
        if now_and_then():
            self._rollback(connection)
        else:
            plain(self, connection)

    Writer._commit = commit  # type: ignore[method-assign]


@mutant
def everybody_else_is_dead() -> None:
    """Whoever looks for the dead does not look at their leases and locks."""
    from yaotask.store import presence, reaping

    for module in (presence, reaping):
        vars(module)["is_lost"] = lambda other, *_: other.kind in ("worker", "embedded")


@mutant
def the_dead_are_left_alone() -> None:
    from yaotask.store import presence, reaping

    presence.lose = reaping.lose = lambda *_, **__: []


@mutant
def sizes_are_counted_elsewhere() -> None:
    """The counter is not changed in the transaction of what it counts, and so now and then not at all."""
    from yaotask.store.sizes import Counted

    plain = Counted.write
    Counted.write = lambda self: None if now_and_then() else plain(self)  # type: ignore[method-assign]


@mutant
def events_are_written_elsewhere() -> None:
    """The outbox is not written in the transaction of what it tells of, and so now and then not at all."""
    from yaotask.store.work import Work

    plain = Work.insert_events

    def insert_events(self: Work, events: Any) -> None:
        if not now_and_then():
            plain(self, events)

    Work.insert_events = insert_events  # type: ignore[method-assign]


@mutant
def events_are_settled_before_they_are_told() -> None:
    from yaotask.runtime.calling import Caller

    plain = Caller.call

    async def call(self: Caller, path: str, delivery: Any) -> str | None:
        return None if now_and_then() else await plain(self, path, delivery)

    Caller.call = call  # type: ignore[method-assign]


@mutant
def a_cancel_comes_over_everything() -> None:
    """It does not look whether the job has ended."""
    from yaotask.jobs import JobState
    from yaotask.store import errands

    def cancel(work: Any, task: str, id: int) -> JobState:
        over = """
            UPDATE yaotask_jobs SET state = 6, fence = fence + 1, worker = NULL, counted = 0, finished_at = :now,
                ready_at = NULL, due_at = NULL
            WHERE task = :task AND id = :id
        """
        work.execute(over, task=task, id=id, now=work.now)
        return JobState.CANCELLED

    errands.cancel = cancel


@mutant
def a_cancel_does_nothing() -> None:
    """It is acknowledged all the same."""
    from yaotask.jobs import JobState
    from yaotask.store import errands

    errands.cancel = lambda work, task, id: JobState.CANCELLED


@mutant
def a_retry_does_nothing() -> None:
    """It is acknowledged all the same."""
    from yaotask.store import errands

    errands.retry = lambda work, task, id: None


@mutant
def what_has_failed_comes_back() -> None:
    """A job that has failed for good is begun anew, although nobody asked for it."""
    from yaotask.jobs import JobState
    from yaotask.store import statements
    from yaotask.store.cycle import SqlCycle

    plain = SqlCycle._note_endings

    def note_endings(self: SqlCycle, endings: Any) -> None:
        plain(self, endings)
        for ending in endings:
            if ending.state == JobState.FAILURE and now_and_then():
                again = {"key": ending.claim.key, "generation": ending.claim.generation, "ready_at": self.now}
                self.execute(statements.RETRY, now=self.now, **again)

    SqlCycle._note_endings = note_endings  # type: ignore[method-assign]


@mutant
def keys_are_forgotten() -> None:
    """An add that is made again with its key makes another job."""
    from yaotask.handles import Task

    plain = Task.options

    def options(self: Any, **values: Any) -> Any:
        return plain(self, **{name: value for name, value in values.items() if name != "key"})

    Task.options = options  # type: ignore[method-assign]


@mutant
def what_is_in_doubt_is_forgotten() -> None:
    """A claim of which nobody learned whether it was stored is nobody's any more."""
    from yaotask.store.owing import Owing

    Owing.plus = lambda self, harvest, worker: self  # type: ignore[method-assign]


@mutant
def what_is_in_doubt_goes_back_whoever_has_it() -> None:
    """It was not stored, and another worker's claim has the same fence, as where fences are but counted."""
    from yaotask.store import cycle, statements

    cycle._least_fence = lambda now: 0
    plain = statements.HELD_BY
    statements.HELD_BY = plain.replace(" AND worker = :worker", "")
    assert plain != statements.HELD_BY


@mutant
def what_failed_is_committed() -> None:
    """Effects of a try that failed stay in the database."""
    from yaotask.store.transactions import Transaction, _ended

    def rollback(self: Any) -> None:
        try:
            if self._guard.over is None and not self._guard.doomed:
                self._guard.end("COMMIT", _ended)
        finally:
            self._hold.end()

    Transaction.rollback = rollback  # type: ignore[method-assign]


@mutant
def retries_have_no_end() -> None:
    from yaotask.runtime.execute import Policy

    Policy.attempts_of = lambda self, claim: 1_000  # type: ignore[method-assign]


@mutant
def the_first_failure_is_the_last() -> None:
    from yaotask.runtime.execute import Policy

    Policy.attempts_of = lambda self, claim: 0  # type: ignore[method-assign]


@mutant
def what_returned_has_failed() -> None:
    """Now and then a handler returns, and its job fails."""
    from yaotask.jobs import Failed, Failure
    from yaotask.runtime import execute

    plain = execute.returned
    failed = Failed(Failure("ValueError", "planted"))
    execute.returned = lambda *given: failed if now_and_then() else plain(*given)


@mutant
def arguments_are_of_another_job() -> None:
    from yaotask.runtime import execute

    plain, before = execute._begin, []

    def begin(job: Any, handler: Any) -> Any:
        before.append(job.claim.args)
        if len(before) > 1 and now_and_then():
            job.claim = job.claim._replace(args=before[-2])
        return plain(job, handler)

    execute._begin = begin


@mutant
def the_first_death_poisons() -> None:
    from yaotask.store import reaping

    plain = reaping._lose

    def lose(cycle: Any, claim: Any, *rest: Any) -> Any:
        return plain(cycle, claim._replace(deaths=reaping.MOST_DEATHS - 1), *rest)

    reaping._lose = lose  # type: ignore[assignment]


@mutant
def events_are_given_up_untold() -> None:
    from yaotask.runtime.hooks import Courier

    plain = Courier._tell

    async def tell(self: Any, delivery: Any) -> None:
        if now_and_then():
            self._failed.append((delivery, "planted", None))
            self._ledger.poke()
        else:
            await plain(self, delivery)

    Courier._tell = tell  # type: ignore[method-assign]


@mutant
def timeouts_come_early() -> None:
    from yaotask.runtime.execute import Policy

    Policy.timeout_of = lambda self, claim: self.timeout_ms // 20  # type: ignore[method-assign]


@mutant
def no_timeout() -> None:
    from yaotask.runtime.pool import Pool

    Pool.time_out = lambda self, attempt: None  # type: ignore[method-assign]


@mutant
def twice_as_many_at_once() -> None:
    from yaotask.runtime import shares

    plain = shares.Share.part
    shares.Share.part = lambda self, worker_nums, task: 2 * plain(self, worker_nums, task)  # type: ignore[method-assign]


def _without(statement: str, guard: str) -> None:
    """Take a condition out of a statement of SQLite's."""
    _replace(statement, guard, "")


def _replace(statement: str, old: str, new: str) -> None:
    from yaotask.store.dialects import sqlite_statements

    text: str = getattr(sqlite_statements, statement)
    assert old in text, f"{statement} has changed: {old} is not in it"
    setattr(sqlite_statements, statement, text.replace(old, new))


if "MUTANT" in os.environ:
    MUTANTS[os.environ["MUTANT"]]()
