"""Facts of a run that never was, put together change by change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from yaotask.chaos.facts import (
    OK,
    RETURNED,
    SECOND,
    Bounds,
    Call,
    Change,
    Event,
    Facts,
    Fault,
    Job,
    JobId,
    Lease,
    Note,
    Row,
    Terms,
    Worker,
)
from yaotask.jobs import JobState

NEW = Row(
    state=JobState.WAITING,
    generation=0,
    attempt=0,
    fence=0,
    losses=0,
    deaths=0,
    worker=None,
    counted=1,
    cancel_at=None,
    started_at=None,
    finished_at=None,
    result=None,
    message=None,
)
BOUNDS = Bounds(lease=2 * SECOND, reap=5 * SECOND, poll=SECOND, grace=SECOND, losses=3, deaths=20)
PLAIN = Terms(attempts=1, worker_nums=2, size=3, timeout=10 * SECOND)
TERMS: Mapping[str, Terms] = {
    "quick": PLAIN,
    "told": replace(PLAIN, hooks=frozenset({"add", "success", "error", "retry", "cancel", "ignore"})),
    "ledger": replace(PLAIN, is_ledgered=True),
}
WORKER = 7


@dataclass
class Story:
    """What happens to some jobs, told from the beginning; `facts` is what a run would leave of it."""

    calls: list[Call] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    workers: list[Worker] = field(default_factory=lambda: [Worker(WORKER, 70, "worker", 1, 0, has_lock=True)])
    leases: list[Lease] = field(default_factory=list)
    ledger: list[tuple[JobId, int]] = field(default_factory=list)
    rows: dict[int, Row] = field(default_factory=dict)
    jobs: dict[int, Job] = field(default_factory=dict)
    leftovers: Sequence[str] = ()
    was_drained: bool = True
    now: int = 0

    def tick(self, seconds: float = 0.001) -> int:
        self.now += round(seconds * SECOND)
        return self.now

    # --- callers ----------------------------------------------------------------------------------------

    def call(self, operation: str, answer: str = OK, **more: Any) -> Call:
        call = Call(operation, answer, self.tick(), self.tick(), **more)
        self.calls.append(call)
        return call

    def add(self, task: str = "quick", *, answer: str = OK, key: str | None = None) -> int:
        """A job, stored; its key."""
        number = len(self.jobs) + 1
        job = Job(number, JobId(task, number), f"tag-{number}", NEW, key)
        self.call("add", answer, job=job.id if answer == OK else None, tag=job.tag, key=key)
        self.jobs[number] = job
        self.change(number, NEW, "add")
        return number

    # --- the store --------------------------------------------------------------------------------------

    def change(self, key: int, after: Row, hook: str | None = None) -> None:
        """A change of a row, and the event and the hook of it where its task has them."""
        self.changes.append(Change(len(self.changes) + 1, self.tick(), key, self.rows.get(key), after))
        self.rows[key] = after
        self.jobs[key] = replace(self.jobs[key], row=after)
        job = self.jobs[key].id
        if hook in TERMS[job.task].hooks:
            self.events.append(Event(len(self.events) + 1, job, hook, given_up=False, pending=False))
            self.notes.append(Note(self.tick(), "node-1", 70, hook, job))

    def set(self, key: int, hook: str | None = None, **values: Any) -> None:
        self.change(key, self.rows[key]._replace(**values), hook)

    def claim(self, key: int, worker: int = WORKER) -> None:
        row = self.rows[key]
        self.set(
            key, state=JobState.RUNNING, fence=row.fence + 1, attempt=row.attempt + 1, worker=worker,
            counted=0, started_at=None,
        )  # fmt: skip
        self.note(key, "start")

    def note(
        self,
        key: int,
        what: str,
        node: str = "node-1",
        pid: int = 70,
        seconds: float = 0.001,
        how: str = RETURNED,
    ) -> None:
        row, job = self.rows[key], self.jobs[key]
        told = {"tag": job.tag} if what == "start" else {"how": how}
        self.notes.append(Note(self.tick(seconds), node, pid, what, job.id, row.generation, row.fence, **told))

    def succeed(self, key: int) -> None:
        self.note(key, "end")
        row, job = self.rows[key], self.jobs[key].id
        if TERMS[job.task].is_ledgered:
            self.ledger.append((job, row.fence))
        result = f'{{"fence":{row.fence}}}'
        self.set(key, "success", state=JobState.SUCCESS, worker=None, result=result, finished_at=self.now)

    def fail(self, key: int, how: str = "Fail") -> None:
        self.note(key, "end", how=how)
        self.set(key, "error", state=JobState.FAILURE, worker=None, finished_at=self.now)

    def again(self, key: int) -> None:
        """A failed try, with another to come."""
        self.note(key, "end", how="ValueError")
        self.set(key, "retry", state=JobState.RETRYING, worker=None)

    def lose(self, key: int) -> None:
        row = self.rows[key]
        self.set(
            key, "retry", state=JobState.RETRYING, worker=None, fence=row.fence + 1, attempt=row.attempt - 1,
            deaths=row.deaths + 1, losses=max(row.losses, 1),
        )  # fmt: skip

    def hand_back(self, key: int) -> None:
        row = self.rows[key]
        was_tried = row.attempt > 1 or row.losses > 0
        state = JobState.RETRYING if was_tried else JobState.WAITING
        self.set(key, state=state, worker=None, attempt=row.attempt - 1)

    def see(self, key: int, status: str, attempt: int | None = None) -> Call:
        """Somebody asks for the job, and is shown this status, and its try or another one."""
        seen = {"status": status, "attempt": self.rows[key].attempt if attempt is None else attempt}
        return self.call("get", job=self.jobs[key].id, seen=seen)

    def cancel(self, key: int) -> None:
        """While it waits."""
        self.call("cancel", job=self.jobs[key].id)
        fence = self.rows[key].fence + 1
        self.set(key, "cancel", state=JobState.CANCELLED, fence=fence, counted=0, finished_at=self.tick())

    def give_up(self, key: int) -> None:
        """A job that has failed is cancelled."""
        self.call("cancel", job=self.jobs[key].id)
        generation = self.rows[key].generation + 1
        self.set(key, "cancel", state=JobState.CANCELLED, generation=generation)

    def retry(self, key: int) -> None:
        """By hand."""
        self.call("retry", job=self.jobs[key].id)
        generation = self.rows[key].generation + 1
        self.set(
            key, state=JobState.WAITING, generation=generation, attempt=0, losses=0, deaths=0, result=None,
            finished_at=None, cancel_at=None,
        )  # fmt: skip

    # --- what is left of it -------------------------------------------------------------------------------

    @property
    def facts(self) -> Facts:
        return Facts(
            terms=TERMS,
            bounds=BOUNDS,
            calls=self.calls,
            notes=self.notes,
            changes=self.changes,
            events=self.events,
            faults=self.faults,
            jobs=self.jobs,
            workers=self.workers,
            leases=self.leases,
            ledger=self.ledger,
            waiting={},
            is_serial=True,
            leftovers=self.leftovers,
            was_drained=self.was_drained,
        )


def whole(task: str = "quick") -> tuple[Story, int]:
    """A story in which a job is added, fails once, is lost once, and succeeds."""
    story = Story()
    key = story.add(task)
    story.claim(key)
    story.again(key)
    story.claim(key)
    story.faults.append(Fault("kill-worker", story.tick(), story.tick(), "node-1", (70,)))
    story.lose(key)
    story.claim(key)
    story.succeed(key)
    return story, key
