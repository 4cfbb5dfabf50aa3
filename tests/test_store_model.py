"""Whatever comes in whatever order, the store does what a few lines of Python say it does."""

from __future__ import annotations

import os
from dataclasses import dataclass

import pytest
from broken_lines import Fate, Line
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
from store_support import DONE, FAILED, Bench, an_add, answer, retry_after

from yaotask.errors import AlreadyFinished, QueueFull, StorageError, WrongState
from yaotask.jobs import TERMINAL, Cancelled, Claim, Ignored, Interrupted, JobState, Outcome
from yaotask.store import direct, presence
from yaotask.store.protocol import Started

pytest_plugins = ["store_fixtures"]

SIZE = 6
WORKERS = st.integers(1, 16)
# What an example leaves behind, but for the ids that it used: they are never given out again.
TABLES = ("jobs", "attempts", "events", "sizes", "size_debts", "rollups")
# Most of it is waiting for servers, so that it is worth its time only where nobody waits for it.
EXAMPLES, STEPS = (500, 50) if os.environ.get("CI") == "true" else (30, 30)
OUTCOMES: list[tuple[Outcome, JobState]] = [
    (DONE, JobState.SUCCESS),
    (FAILED, JobState.FAILURE),
    (retry_after(), JobState.RETRYING),
    (retry_after(5), JobState.RETRYING),
    (Ignored("no need"), JobState.IGNORED),
    (Cancelled(), JobState.CANCELLED),
    (Interrupted(), JobState.WAITING),
]


@dataclass
class Job:
    """What a job should look like."""

    state: JobState = JobState.WAITING
    attempt: int = 0
    fence: int = 0
    generation: int = 0
    losses: int = 0
    started: bool = False
    cancelling: bool = False
    counted: bool = True

    def be_claimed(self) -> None:
        assert self.state in (JobState.WAITING, JobState.RETRYING)
        self.state, self.started, self.cancelling, self.counted = JobState.RUNNING, False, False, False
        self.attempt, self.fence = self.attempt + 1, self.fence + 1

    def give_back(self) -> None:
        """Its worker leaves it; one that was asked to stop has ended with that, and its fence says so."""
        if self.cancelling:
            self.state, self.fence = JobState.CANCELLED, self.fence + 1
            return
        self.attempt -= 1
        self.state = JobState.RETRYING if self.attempt or self.losses else JobState.WAITING


# What is asked of one job by a caller is told to fail, and the caller looks; here no line breaks for it.
whole = precondition(lambda machine: not machine.line.fates)


class StoreMachine(RuleBasedStateMachine):
    claims = Bundle("claims")

    def __init__(self, bench: Bench, line: Line) -> None:
        super().__init__()
        self.bench = bench
        self.line = line
        self.jobs: dict[int, Job] = {}

    def teardown(self) -> None:
        self.line.fates = ()
        for table in TABLES:
            self.bench.write(f"DELETE FROM yaotask_{table}")  # noqa: S608

    @rule(fate=st.sampled_from(Fate))
    def the_line_will_break(self, fate: Fate) -> None:
        """During the next add, claim or finish."""
        self.line.fates = (fate,)

    @rule()
    @whole
    def all_lines_end(self) -> None:
        """As with a restart of the server."""
        self.bench.store.close()

    @rule(count=st.integers(1, 4), priority=st.integers(-1, 1), delay=st.sampled_from([0, 3]))
    def add(self, count: int, priority: int, delay: int) -> None:
        room = SIZE - sum(job.counted for job in self.jobs.values())
        run_at = self.bench.clock.now() + delay * 1_000_000 if delay else None
        fate, wanted = next(iter(self.line.fates), None), an_add(count, size=SIZE, priority=priority, run_at=run_at)
        try:
            (ticket,) = self.bench.adds(wanted)
        except StorageError:
            self.may_be_stored(min(count, room), fate)
            return

        if count > room:
            assert isinstance(ticket.error, QueueFull)
        ids = ticket.error.ids if isinstance(ticket.error, QueueFull) else answer(ticket)
        assert len(ids) == min(count, room)
        assert not self.jobs.keys() & set(ids)
        self.jobs.update({id: Job() for id in ids})

    def may_be_stored(self, count: int, fate: Fate | None) -> None:
        """An add of which nobody can say what became: all of it is there, or nothing."""
        stored = {row["id"] for row in self.bench.query("SELECT id FROM yaotask_jobs")} - self.jobs.keys()
        assert fate is not None
        assert len(stored) in ((0, count) if fate is Fate.AFTER_COMMIT else (0,))
        self.jobs.update({id: Job() for id in stored})

    @rule(target=claims, most=st.integers(1, 3), worker=WORKERS)
    def claim(self, most: int, worker: int) -> object:
        fate = next(iter(self.line.fates), None)
        try:
            found = self.bench.claim(most, worker=worker)
        except StorageError:
            self.may_be_claimed(most, fate)
            return multiple()
        for claim in found:
            job = self.jobs[claim.id]
            job.be_claimed()
            assert (claim.attempt, claim.fence, claim.generation) == (job.attempt, job.fence, job.generation)
        return multiple(*found)

    def may_be_claimed(self, most: int, fate: Fate | None) -> None:
        """Claims that nobody was given go back in the next cycle, whatever it is."""
        self.bench.cycle()
        fences = {row["id"]: row["fence"] for row in self.bench.query("SELECT id, fence FROM yaotask_jobs")}
        claimed = [job for id, job in self.jobs.items() if fences[id] != job.fence]
        assert fate is not None
        assert len(claimed) <= (most if fate is Fate.AFTER_COMMIT else 0)
        for job in claimed:
            job.be_claimed()
            job.give_back()

    def holds(self, claim: Claim) -> bool:
        job = self.jobs[claim.id]
        return job.state is JobState.RUNNING and job.fence == claim.fence

    @rule(claim=claims)
    @whole
    def start(self, claim: Claim) -> None:
        self.bench.cycle(started=[Started(claim.key, claim.fence, self.bench.clock.now())])
        if self.holds(claim):
            self.jobs[claim.id].started = True

    @rule(claim=claims, ending=st.sampled_from(OUTCOMES))
    def finish(self, claim: Claim, ending: tuple[Outcome, JobState]) -> None:
        outcome, state = ending
        held = self.holds(claim)
        try:
            won = self.bench.finish(claim, outcome)
            assert won or not held
        except StorageError:
            # A ledger keeps it, and writes it once more.
            self.bench.finish(claim, outcome)

        if held:
            job = self.jobs[claim.id]
            if job.cancelling and state is not JobState.SUCCESS:
                job.state = JobState.CANCELLED
            elif isinstance(outcome, Interrupted):
                job.give_back()
            else:
                job.state = state

    @rule(first=consumes(claims), second=claims)
    def finish_two(self, first: Claim, second: Claim) -> None:
        ended = {claim.id for claim in (first, second) if self.holds(claim)}
        ends = [self.bench.end(first), self.bench.end(second)]
        try:
            self.bench.cycle(finishes=ends)
        except StorageError:
            self.bench.cycle(finishes=ends)
        for id in ended:
            self.jobs[id].state = JobState.SUCCESS

    @rule(data=st.data())
    @whole
    def cancel(self, data: st.DataObject) -> None:
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
    @whole
    def retry(self, data: st.DataObject) -> None:
        if not self.jobs:
            return
        id = data.draw(st.sampled_from(sorted(self.jobs)))
        job = self.jobs[id]
        if job.state not in (JobState.FAILURE, JobState.CANCELLED):
            with pytest.raises(WrongState):
                self.bench.errand(lambda cycle: cycle.retry("mail", id))
            return
        self.bench.errand(lambda cycle: cycle.retry("mail", id))
        self.jobs[id] = Job(fence=job.fence, generation=job.generation + 1, counted=False)

    @rule(seconds=st.integers(1, 6))
    def pass_time(self, seconds: int) -> None:
        self.bench.clock.advance(seconds)

    @rule()
    @whole
    def lose_all(self) -> None:
        """No worker has a row here, so that all of them are lost."""
        lost = self.bench.errand(lambda cycle: presence.reap(cycle, 99))
        running = [job for job in self.jobs.values() if job.state is JobState.RUNNING]

        assert len(lost) == len(running)
        for job in running:
            if job.cancelling:
                job.give_back()
                continue
            poisoned = next((one.poisoned for one in lost if self.jobs[int(one.name[5:])] is job), False)
            row = self.bench.row(next(id for id, one in self.jobs.items() if one is job))
            job.attempt, job.fence, job.losses = job.attempt - 1, job.fence + 1, row["losses"]
            job.state = JobState.FAILURE if poisoned else JobState.RETRYING
            assert job.losses >= 1

    @rule(data=st.data())
    @whole
    def leave(self, data: st.DataObject) -> None:
        """A worker that runs something, or the last one, which may run nothing."""
        busy = self.bench.query("SELECT DISTINCT worker FROM yaotask_jobs WHERE state = 1")
        worker = data.draw(st.sampled_from(sorted({16, *(row["worker"] for row in busy)})))
        rows = self.bench.query("SELECT id FROM yaotask_jobs WHERE state = 1 AND worker = :w", w=worker)
        self.bench.errand(lambda cycle: presence.leave(cycle, worker))
        for row in rows:
            self.jobs[row["id"]].give_back()

    @invariant()
    def the_store_agrees(self) -> None:
        rows = self.bench.query("SELECT id, state, attempt, fence, generation FROM yaotask_jobs")
        stored = {row["id"]: (row["state"], row["attempt"], row["fence"], row["generation"]) for row in rows}

        assert stored == {id: (int(job.state), job.attempt, job.fence, job.generation) for id, job in self.jobs.items()}
        assert self.bench.waiting() == sum(job.counted for job in self.jobs.values())


@pytest.mark.timeout(900)
def test_the_store_agrees_with_the_model(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.release("only_ended_jobs")
    line = Line()
    monkeypatch.setattr(direct, "run", line.say)

    class Machine(StoreMachine):
        def __init__(self) -> None:
            super().__init__(bench, line)

    run_state_machine_as_test(Machine, settings=settings(max_examples=EXAMPLES, stateful_step_count=STEPS))

    assert line.broken > EXAMPLES / 2
