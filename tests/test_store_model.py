"""Whatever comes in whatever order, the store does what a few lines of Python say it does."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
from broken_lines import Fate, Line, break_off
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy.engine import Connection
from store_support import DONE, Bench, an_add, answer, retry_after

from yaotask.errors import AlreadyFinished, QueueFull, StorageError, WrongState
from yaotask.jobs import (
    TERMINAL,
    Cancelled,
    Claim,
    Failed,
    Failure,
    Ignored,
    Interrupted,
    JobState,
    Outcome,
    RetryAfter,
    Succeeded,
)
from yaotask.store import direct, presence
from yaotask.store.direct import ask
from yaotask.store.ids import IdBlocks
from yaotask.store.protocol import Add, Finish, Harvest, Mailbox, Started

pytest_plugins = ["store_fixtures"]

SIZE = 6
WORKERS = st.integers(1, 16)
# What an example leaves behind, but for the ids that it used: they are never given out again.
TABLES = ("jobs", "attempts", "events", "sizes", "size_debts", "rollups")
# Most of it is waiting for servers, so that it is worth its time only where nobody waits for it.
EXAMPLES, STEPS = (500, 50) if os.environ.get("CI") == "true" else (30, 30)
SESSIONS = {
    "postgresql": "SELECT pid AS number FROM pg_stat_activity",
    "mysql": "SELECT id AS number FROM information_schema.processlist",
}
WAITING = "(SELECT SUM(waiting) FROM yaotask_sizes WHERE task = 'mail')"
ROWS = f"""
SELECT id, state, attempt, fence, generation, run_at, ready_at, result, error_type, {WAITING} AS waiting
FROM yaotask_jobs
"""  # noqa: S608
SHOWN = ("state", "attempt", "fence", "generation", "result", "error_type")
RECORDED = ("generation", "attempt", "outcome", "error_type")
TRIES = """
SELECT jobs.id, tried.fence, tried.generation, tried.attempt, tried.outcome, tried.error_type
FROM yaotask_attempts AS tried LEFT JOIN yaotask_jobs AS jobs ON jobs.key = tried.job
"""


class Ending(NamedTuple):
    """How an attempt can end: what follows, and what is recorded of it."""

    outcome: Outcome
    state: JobState
    word: str = ""
    error: str | None = None


ENDINGS = [
    Ending(DONE, JobState.SUCCESS, "success"),
    Ending(Failed(Failure("KeyError", "worse"), '"half"'), JobState.FAILURE, "failure", "KeyError"),
    Ending(retry_after(), JobState.RETRYING, "retry", "ValueError"),
    Ending(retry_after(5), JobState.RETRYING, "retry", "ValueError"),
    Ending(Ignored("no need"), JobState.IGNORED, "ignored", "Ignore"),
    Ending(Cancelled(), JobState.CANCELLED, "cancelled"),
    Ending(Interrupted(), JobState.WAITING),
]
CANCELLED = Ending(Cancelled(), JobState.CANCELLED, "cancelled")


@dataclass
class Job:
    """What a job should look like."""

    priority: int
    # Since when it can be claimed; or, as long as it cannot, when it will be due.
    ready_at: int = 0
    is_ready: bool = False
    state: JobState = JobState.WAITING
    attempt: int = 0
    fence: int = 0
    generation: int = 0
    losses: int = 0
    started: bool = False
    cancelling: bool = False
    counted: bool = True
    result: str | None = None
    error: str | None = None

    @property
    def waits(self) -> bool:
        return self.state in (JobState.WAITING, JobState.RETRYING)

    def is_late(self, now: int) -> bool:
        """Whether its time has come, and it cannot be claimed."""
        return self.waits and not self.is_ready and self.ready_at <= now

    def be_due(self, at: int, now: int) -> None:
        self.ready_at, self.is_ready = max(at, now), at <= now

    def be_claimed(self, fence: int) -> None:
        assert self.waits
        assert self.is_ready
        self.state, self.started, self.cancelling, self.counted = JobState.RUNNING, False, False, False
        assert fence > self.fence
        self.attempt, self.fence = self.attempt + 1, fence

    def give_back(self) -> None:
        """Its worker leaves it; one that was asked to stop has ended with that, and its fence says so."""
        if self.cancelling:
            self.state, self.fence = JobState.CANCELLED, self.fence + 1
            return
        self.attempt -= 1
        self.state = JobState.RETRYING if self.attempt or self.losses else JobState.WAITING


# Lines break during adds, claims and finishes only.
no_break_is_due = precondition(lambda machine: not machine.line.fates)
PROCESS = st.integers(0, 1)


class StoreMachine(RuleBasedStateMachine):
    """Two processes on one store; each has half of the workers."""

    claims = Bundle("claims")
    # Of a process, with what is stored of it.
    doubts = Bundle("doubts")

    def __init__(self, benches: Sequence[Bench], line: Line, eyes: Connection) -> None:
        super().__init__()
        self.benches = benches
        self.bench = benches[0]
        self.line = line
        self.eyes = eyes
        # In the order in which they were added.
        self.jobs: dict[int, Job] = {}
        # Of the ids and fences of attempts: generation, attempt, how it ended, error.
        self.tries: dict[tuple[int, int], tuple[int, int, str, str | None]] = {}
        # What each process has claimed without learning of it: ids and fences.
        self.owed: list[list[tuple[int, int]]] = [[], []]
        # The same commits must be there to be broken when an example is tried again.
        for bench in benches:
            bench.store._ids = IdBlocks()
            if bench.store._estimates is not None:
                bench.store._estimates.forget()
            bench.cycle()

    def teardown(self) -> None:
        self.line.fates = ()
        for bench in self.benches:
            # What it has not learned of is of this example.
            bench.cycle()
        for table in TABLES:
            self.bench.write(f"DELETE FROM yaotask_{table}")  # noqa: S608

    # --- lines that break -----------------------------------------------------------------------------

    @rule(fates=st.lists(st.sampled_from(Fate), min_size=1, max_size=2))
    def lines_will_break(self, fates: list[Fate]) -> None:
        self.line.fates = fates

    @rule(process=PROCESS)
    def an_idle_line_breaks(self, process: int) -> None:
        """One to a file is given up instead."""
        store = self.benches[process].store
        if store.dialect.shared:
            break_off(store.writer.connected().connection.driver_connection)
        else:
            store.close()

    def at(self, process: int) -> Bench:
        """A process that is to begin a transaction."""
        self.await_the_undoing()
        if not self.line.fates:
            self.give_back_owed(process)
        return self.benches[process]

    def give_back_owed(self, process: int) -> None:
        """What a process has claimed without learning of it goes back with its next transaction."""
        for job in self.still_owed(process):
            job.give_back()
        self.owed[process].clear()

    def still_owed(self, process: int) -> list[Job]:
        owed = [(self.jobs[id], fence) for id, fence in self.owed[process]]
        return [job for job, fence in owed if job.state is JobState.RUNNING and job.fence == fence]

    def look_what_went_back(self, process: int, rows: Mapping[int, Mapping[str, Any]]) -> None:
        """After a transaction of a process of which nobody can say what became: all that it owed, or nothing."""
        ids = [id for id, job in self.jobs.items() if any(job is one for one in self.still_owed(process))]
        gone = [rows[id]["state"] != JobState.RUNNING or rows[id]["fence"] != self.jobs[id].fence for id in ids]
        assert all(gone) or not any(gone)
        if any(gone):
            self.give_back_owed(process)

    def await_the_undoing(self) -> None:
        """A server takes its time to undo what came on a line that is broken, and keeps rows locked meanwhile."""
        statement = SESSIONS.get(self.bench.store.dialect.name)
        while statement and self.line.sessions:
            there = {row["number"] for row in self.look(statement)}
            self.line.sessions[:] = [number for number in self.line.sessions if number in there]

    def rows(self) -> dict[int, Mapping[str, Any]]:
        return {row["id"]: row for row in self.look(ROWS)}

    def look(self, question: str) -> list[Mapping[str, Any]]:
        """Ask on a connection that is for this alone: to take one, and give it back, costs more than to ask."""
        return [dict(row) for row in ask(self.eyes, question).mappings()]

    # --- what is next -------------------------------------------------------------------------------------

    def next_ones(self, most: int) -> list[int]:
        """By priority, then those that are ready for longest, then those that were added first."""
        ready = [id for id, job in self.jobs.items() if job.waits and job.is_ready]
        return sorted(ready, key=lambda id: (-self.jobs[id].priority, self.jobs[id].ready_at))[:most]

    def late_ones(self, now: int) -> list[int]:
        return [id for id, job in self.jobs.items() if job.is_late(now)]

    def look_what_came_due(self, harvest: Harvest, moments: Sequence[int], *, due: bool) -> None:
        """It is ready since a cycle at one of these moments, or, where it was not to be looked for, it is told of."""
        told = harvest.next_due is not None and harvest.next_due <= harvest.now
        assert not told or (self.bench.store.dialect.shared and not due)
        if self.late_ones(harvest.now):
            self.look_what_is_ready([*moments, harvest.now], self.rows())
        assert told or not self.late_ones(harvest.now)

    def look_what_is_ready(self, moments: Sequence[int], rows: Mapping[int, Mapping[str, Any]]) -> None:
        """What had to wait can be claimed since one of these moments, if it can."""
        for id, job in self.jobs.items():
            since = rows[id]["ready_at"]
            if not job.is_ready and since is not None:
                assert job.ready_at <= since
                assert since in moments
                job.be_due(since, since)

    # --- what can be asked ------------------------------------------------------------------------------

    @rule(
        target=doubts,
        process=PROCESS,
        count=st.integers(1, 4),
        priority=st.integers(-1, 1),
        delay=st.sampled_from([0, 3]),
    )
    def add(self, process: int, count: int, priority: int, delay: int) -> object:
        run_at = self.bench.clock.now() + delay * 1_000_000 if delay else None
        return self.try_to_add(process, an_add(count, size=SIZE, priority=priority, run_at=run_at), set())

    @rule(target=doubts, doubt=consumes(doubts))
    def add_again(self, doubt: tuple[int, Add, set[int]]) -> object:
        """As a ledger does with what may have been stored, sooner or later."""
        return self.try_to_add(*doubt)

    def try_to_add(self, process: int, add: Add, before: set[int]) -> object:
        """Of what was stored `before`, though nobody could say so, nothing is stored again."""
        bench, fates, now = self.at(process), self.line.fates, self.bench.clock.now()
        room = SIZE - sum(job.counted for job in self.jobs.values())
        fitting = 0 if before else min(len(add.jobs), room)
        try:
            harvest = bench.cycle(adds=[add])
        except StorageError:
            stored = before or self.may_be_stored(process, add, fitting, fates, now)
            return (process, add, stored) if add.doubt else multiple()

        self.give_back_owed(process)
        if harvest.held:
            # It does not fit any more, and may be stored still.
            assert not before
            assert (add.doubt is not None, fitting) == (True, 0)
            return process, add, before
        full = add.ticket.error
        ids = full.ids if isinstance(full, QueueFull) else answer(add.ticket)
        assert isinstance(full, QueueFull) == (len(ids) < len(add.jobs))
        if before:
            assert set(ids) == before
            return multiple()
        assert len(ids) == fitting
        assert not self.jobs.keys() & set(ids)
        self.take_in(ids, add, harvest.now)
        return multiple()

    def take_in(self, ids: Iterable[int], add: Add, now: int) -> None:
        terms = add.jobs[0].terms
        for id in ids:
            self.jobs[id] = Job(terms.priority)
            self.jobs[id].be_due(terms.run_at or now, now)

    def may_be_stored(self, process: int, add: Add, count: int, fates: Sequence[Fate | None], now: int) -> set[int]:
        """An add of which nobody can say what became: all of it is there, or nothing."""
        assert fates
        rows = self.rows()
        stored = rows.keys() - self.jobs.keys()
        assert len(stored) in ((0, count) if Fate.AFTER_COMMIT in fates else (0,))
        self.look_what_went_back(process, rows)
        self.take_in(sorted(stored), add, now)
        return stored

    @rule(target=claims, most=st.integers(1, 3), worker=WORKERS, due=st.booleans())
    def claim(self, most: int, worker: int, due: bool) -> object:
        process = worker % 2
        bench, fates, now = self.at(process), self.line.fates, self.bench.clock.now()
        try:
            harvest = bench.cycle(worker=worker, demands={"mail": most}, due=due)
        except StorageError:
            self.may_be_claimed(process, most, fates, now, due=due)
            return multiple()
        self.give_back_owed(process)
        self.look_what_came_due(harvest, [], due=due)
        found = harvest.claims["mail"].read()
        assert [claim.id for claim in found] == self.next_ones(most)
        for claim in found:
            job = self.jobs[claim.id]
            job.be_claimed(claim.fence)
            assert (claim.attempt, claim.generation, claim.ready_at) == (job.attempt, job.generation, job.ready_at)
        return multiple(*found)

    def may_be_claimed(self, process: int, most: int, fates: Sequence[Fate | None], now: int, *, due: bool) -> None:
        """A claim of which nobody can say what became: nobody was given anything."""
        assert fates
        rows = self.rows()
        self.look_what_went_back(process, rows)
        self.look_what_is_ready([now], rows)
        claimed = {id for id, job in self.jobs.items() if rows[id]["fence"] != job.fence}
        if not claimed:
            return
        assert Fate.AFTER_COMMIT in fates
        assert not self.late_ones(now) or (self.bench.store.dialect.shared and not due)
        assert claimed == set(self.next_ones(most))
        for id in claimed:
            self.jobs[id].be_claimed(rows[id]["fence"])
            self.owed[process].append((id, rows[id]["fence"]))

    def holds(self, claim: Claim) -> bool:
        job = self.jobs[claim.id]
        return job.state is JobState.RUNNING and job.fence == claim.fence

    def finish_all(self, process: int, finishes: list[Finish]) -> tuple[set[tuple[int, int]], list[int]]:
        """As a ledger does, which keeps what was not stored for certain; the keys and fences that were refused.

        Beside them the moments of all tries: who can say which of them has stored the others?
        """
        mailbox, moments = Mailbox(worker=1, finishes=finishes), list[int]()
        while True:
            fates = self.line.fates
            bench = self.at(process)
            moments.append(bench.clock.now())
            try:
                harvest = bench.store.run_cycle(mailbox)
            except StorageError:
                assert fates
                self.look_what_went_back(process, self.rows())
                continue
            self.give_back_owed(process)
            self.look_what_came_due(harvest, moments, due=False)
            return set(harvest.lost), moments

    @rule(claim=claims)
    @no_break_is_due
    def start(self, claim: Claim) -> None:
        self.at(0).cycle(started=[Started(claim.key, claim.fence, self.bench.clock.now())])
        if self.holds(claim):
            self.jobs[claim.id].started = True

    @rule(process=PROCESS, claim=claims, ending=st.sampled_from(ENDINGS))
    def finish(self, process: int, claim: Claim, ending: Ending) -> None:
        held, breaks = self.holds(claim), bool(self.line.fates)
        refused, moments = self.finish_all(process, [self.bench.end(claim, ending.outcome)])

        # What was given back is another's when it is written again.
        assert not held or not refused or (breaks and isinstance(ending.outcome, Interrupted))
        if held:
            self.end(claim.id, ending, moments)

    @rule(process=PROCESS, first=consumes(claims), second=claims)
    def finish_two(self, process: int, first: Claim, second: Claim) -> None:
        ends = [(claim, ENDINGS[0]._replace(outcome=Succeeded(str(claim.id)))) for claim in (first, second)]
        held = [(claim, ending) for claim, ending in ends if self.holds(claim)]
        refused, moments = self.finish_all(process, [self.bench.end(claim, ending.outcome) for claim, ending in ends])

        assert not refused & {(claim.key, claim.fence) for claim, _ in held}
        for claim, ending in held:
            self.end(claim.id, ending, moments)

    def end(self, id: int, ending: Ending, moments: Sequence[int]) -> None:
        job = self.jobs[id]
        if job.cancelling and ending.state is not JobState.SUCCESS:
            ending = CANCELLED
        match ending.outcome:
            case Interrupted():
                job.give_back()
                return
            case Succeeded(result):
                job.result, job.error = result, None
            case Failed(_, result):
                job.result = result
            case RetryAfter(_, after):
                run_at = self.rows()[id]["run_at"]
                assert run_at - after in moments
                job.be_due(run_at, run_at - after)
        job.state, job.error = ending.state, ending.error or job.error
        if job.attempt > 1 or job.state is not JobState.SUCCESS:
            self.record(id, ending.word, ending.error)

    def record(self, id: int, word: str, error: str | None) -> None:
        job = self.jobs[id]
        self.tries[id, job.fence] = (job.generation, job.attempt, word, error)

    @rule(data=st.data())
    @no_break_is_due
    def cancel(self, data: st.DataObject) -> None:
        self.at(0)
        if not self.jobs:
            return
        id = data.draw(st.sampled_from(sorted(self.jobs)))
        job = self.jobs[id]
        running = job.state is JobState.RUNNING
        if job.state in TERMINAL and job.state is not JobState.FAILURE:
            with pytest.raises(AlreadyFinished):
                self.bench.errand(lambda cycle: cycle.cancel("mail", id))
            return
        asks = running and job.started
        state = self.bench.errand(lambda cycle: cycle.cancel("mail", id))

        assert state is (JobState.RUNNING if asks else JobState.CANCELLED)
        if asks:
            job.cancelling = True
            return
        if job.state is JobState.FAILURE:
            job.generation += 1
        else:
            job.attempt, job.fence, job.counted = job.attempt - running, job.fence + 1, False
        job.state = JobState.CANCELLED

    @rule(data=st.data())
    @no_break_is_due
    def retry(self, data: st.DataObject) -> None:
        self.at(0)
        if not self.jobs:
            return
        id = data.draw(st.sampled_from(sorted(self.jobs)))
        job = self.jobs[id]
        if job.state not in (JobState.FAILURE, JobState.CANCELLED):
            with pytest.raises(WrongState):
                self.bench.errand(lambda cycle: cycle.retry("mail", id))
            return
        self.bench.errand(lambda cycle: cycle.retry("mail", id))
        self.jobs[id] = Job(job.priority, fence=job.fence, generation=job.generation + 1, counted=False)
        self.jobs[id].be_due(self.bench.clock.now(), self.bench.clock.now())

    @rule(seconds=st.integers(1, 6))
    def pass_time(self, seconds: int) -> None:
        self.bench.clock.advance(seconds)

    @rule()
    @no_break_is_due
    def lose_all(self) -> None:
        """No worker has a row here, so that all of them are lost."""
        self.at(0)
        lost = self.bench.errand(lambda cycle: presence.reap(cycle, 99))
        running = {id: job for id, job in self.jobs.items() if job.state is JobState.RUNNING}

        assert {one.name for one in lost} == {f"mail.{id}" for id in running}
        poisoned = {one.name for one in lost if one.poisoned}
        for id, job in running.items():
            if job.cancelling:
                job.give_back()
                continue
            row = self.bench.row(id)
            is_poisoned = f"mail.{id}" in poisoned
            job.error = "PoisonedJob" if is_poisoned else "WorkerLost"
            self.record(id, "failure" if is_poisoned else "lost", job.error)
            job.attempt, job.fence, job.losses = job.attempt - (not is_poisoned), job.fence + 1, row["losses"]
            job.state = JobState.FAILURE if is_poisoned else JobState.RETRYING
            job.be_due(self.bench.clock.now(), self.bench.clock.now())
            assert job.losses >= 1

    @rule(data=st.data())
    @no_break_is_due
    def leave(self, data: st.DataObject) -> None:
        """A worker that runs something, or the last one, which may run nothing."""
        self.at(0)
        busy = self.look("SELECT DISTINCT worker FROM yaotask_jobs WHERE state = 1")
        worker = data.draw(st.sampled_from(sorted({16, *(row["worker"] for row in busy)})))
        rows = self.bench.query("SELECT id FROM yaotask_jobs WHERE state = 1 AND worker = :w", w=worker)
        self.bench.errand(lambda cycle: presence.leave(cycle, worker))
        for row in rows:
            # What its process had not learned to have has gone back before.
            if self.jobs[row["id"]].state is JobState.RUNNING:
                self.jobs[row["id"]].give_back()

    @invariant()
    def the_store_agrees(self) -> None:
        rows, tries = self.look(ROWS), self.look(TRIES)
        waiting = rows[0]["waiting"] if rows else self.look(f"SELECT {WAITING} AS waiting")[0]["waiting"]

        assert {row["id"]: (*map(row.get, SHOWN),) for row in rows} == {
            id: (job.state, job.attempt, job.fence, job.generation, job.result, job.error)
            for id, job in self.jobs.items()
        }
        assert {(row["id"], row["fence"]): (*map(row.get, RECORDED),) for row in tries} == self.tries
        assert (waiting or 0) == sum(job.counted for job in self.jobs.values())


@pytest.mark.timeout(900)
def test_the_store_agrees_with_the_model(open_bench: Callable[[], Bench], monkeypatch: pytest.MonkeyPatch) -> None:
    benches, line = [open_bench(), open_bench()], Line()
    benches[0].release("only_ended_jobs")
    monkeypatch.setattr(direct, "run", line.say)
    engine = benches[0].store.dialect.engine(writer=True)
    try:
        with engine.connect() as eyes:

            class Machine(StoreMachine):
                def __init__(self) -> None:
                    super().__init__(benches, line, eyes)

            run_state_machine_as_test(Machine, settings=settings(max_examples=EXAMPLES, stateful_step_count=STEPS))
    finally:
        engine.dispose()

    # Few examples, which are others each time, may do without one of them.
    assert line.broken.keys() == set(Fate) or EXAMPLES < 500
