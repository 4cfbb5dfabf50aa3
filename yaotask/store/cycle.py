"""One transaction of the ledger: what each part of a mailbox does to the tables.

Parts are done for a whole batch at once. Where the database says that one row of a batch does not
fit (`Misfit`, or an integrity error), the caller rolls back and plays the mailbox again, one
request at a time, so that the others land and the one gets its error.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy.engine import Connection, CursorResult

from yaotask.errors import AlreadyFinished, JobNotFound, QueueFull, WrongState
from yaotask.events import ADD_BIT, CANCEL_BIT, Delivery, EventKind
from yaotask.jobs import Claim, JobState, Succeeded
from yaotask.store import rows, statements
from yaotask.store.dialects.base import Dialect
from yaotask.store.ids import IdBlocks
from yaotask.store.protocol import Add, Finish, Harvest, NewJob, Progress, Started
from yaotask.values import dumps, loads

# A cycle promotes and claims at most so many rows, so that no transaction is long.
MOST_ROWS = 2_000


class Misfit(Exception):
    """A row of a batch did not change what it was to change."""


class SqlCycle:
    """A transaction under way on `connection`; `now` is the one time of all that it writes."""

    def __init__(self, connection: Connection, dialect: Dialect, ids: IdBlocks, now: int, worker: int | None) -> None:
        self.connection = connection
        self.dialect = dialect
        self.ids = ids
        self.now = now
        self.worker = worker
        self.harvest = Harvest()
        self.sizes: Counter[str] = Counter()
        self.tally = rows.Tally()
        self._waiting: dict[str, int] = {}

    def execute(self, statement: str, **values: Any) -> CursorResult[Any]:
        return self.connection.exec_driver_sql(statement, values)

    # --- progress and starts --------------------------------------------------------------------

    def store_started(self, started: Sequence[Started]) -> None:
        """Show claims as RUNNING; one that was lost meanwhile is left alone."""
        self.execute(self.dialect.store_started, rows=dumps(started))

    def progress(self, notes: Sequence[Progress]) -> None:
        """Store what jobs say of themselves (T3), the latest of each; the lost claims are reported."""
        latest: dict[tuple[int, int | None], Progress] = {}
        for note in notes:
            earlier = latest.get((note.key, note.fence))
            if earlier is not None:
                note = note._replace(changes={**earlier.changes, **note.changes})
            latest[note.key, note.fence] = note
        for note in latest.values():
            if not self._store_progress(note) and note.fence is not None:
                self.harvest.lost.append((note.key, note.fence))

    def _store_progress(self, note: Progress) -> bool:
        statement = statements.progress(tuple(note.changes), fenced=note.fence is not None)
        values = {f"new_{name}": value for name, value in note.changes.items()}
        result = self.execute(
            statement, key=note.key, fence=note.fence, started=note.started, now=self.now, **values
        )
        return result.rowcount == 1

    # --- finishes ---------------------------------------------------------------------------------

    def finish(self, finishes: Sequence[Finish]) -> None:
        """End attempts where their fences are still current (T4, T5, T6, T10); else raise Misfit."""
        simple = [finish for finish in finishes if type(finish.outcome) is Succeeded]
        if simple:
            self._expect(len(simple), self.dialect.finish_success, rows=rows.texts([rows.success(f) for f in simple]))
        endings = [rows.Ending(finish, self.now) for finish in finishes if type(finish.outcome) is not Succeeded]
        if endings:
            self._expect(len(endings), self.dialect.finish_other, rows=dumps([ending.row() for ending in endings]))
        self._note_successes(simple)
        self._note_endings(endings)

    def _expect(self, count: int, statement: str, **values: Any) -> None:
        if self.execute(statement, **values).rowcount != count:
            raise Misfit

    def _note_successes(self, finishes: Sequence[Finish]) -> None:
        events, attempts, count = [], [], self.tally.count
        for claim, outcome, started, ended in finishes:
            count(claim, 2, started, ended)
            if claim.events:
                events.append(rows.success_event(claim, outcome.result))  # type: ignore[union-attr]
            if claim.attempt > 1:
                attempts.append(
                    [claim.key, claim.fence, claim.generation, claim.attempt, "success", started, ended] + [None] * 3
                )
        self.insert_events([event for event in events if event is not None])
        self.insert_attempts(attempts)

    def _note_endings(self, endings: Sequence[rows.Ending]) -> None:
        events = []
        for ending in endings:
            claim = ending.claim
            told = ending.event()
            if told is not None:
                events.append(rows.event(claim.key, claim.task, claim.id, *told))
            if ending.state.is_terminal:
                self.tally.count(claim, ending.state, ending.started, ending.ended)
            elif ending.ready_at is not None:
                self.harvest.woken.add(claim.task)
        self.insert_events(events)
        self.insert_attempts([ending.attempt_row() for ending in endings if not ending.given_back])

    def already_finished(self, finish: Finish) -> bool:
        """Whether this very finish is in the store: the one whose commit was in doubt."""
        row = self.execute(statements.STATE_OF, key=finish.claim.key).one_or_none()
        if row is None or row.fence != finish.claim.fence:
            return False
        if type(finish.outcome) is Succeeded:
            return bool(row.state == JobState.SUCCESS)
        return bool(row.state == rows.Ending(finish, self.now).state)

    def insert_events(self, events: Sequence[list[Any]]) -> None:
        if events:
            self.execute(self.dialect.insert_events, rows=dumps(events), now=self.now)
            self.harvest.wrote_events = True

    def insert_attempts(self, attempts: Sequence[list[Any]]) -> None:
        if attempts:
            self.execute(self.dialect.insert_attempts, rows=dumps(attempts), worker=self.worker)

    # --- adds -------------------------------------------------------------------------------------

    def add(self, add: Add) -> None:
        """Store the jobs of one add (T1), as many as fit into the size; `add.stored` has their ids."""
        add.stored.clear()
        room = len(add.jobs) if add.size is None else add.size - self.waiting(add.task)
        self._insert(add, add.jobs[: max(0, room)])

    def full(self, add: Add) -> QueueFull:
        """The error for an add of which not all jobs were stored."""
        return QueueFull(add.task, add.size or 0, add.stored)

    def _insert(self, add: Add, jobs: Sequence[NewJob]) -> None:
        """All but the jobs with a key as one batch, in runs, so that ids keep the order of the jobs."""
        run: list[NewJob] = []
        for job in jobs:
            if job.key is None:
                run.append(job)
                continue
            self._insert_run(add, run)
            run = []
            used = self.execute(statements.BY_IDEMPOTENCY_KEY, task=add.task, key=job.key).scalar_one_or_none()
            if used is None:
                self._insert_run(add, [job])
            else:
                add.stored.append(used)
        self._insert_run(add, run)

    def _insert_run(self, add: Add, jobs: Sequence[NewJob]) -> None:
        if not jobs:
            return
        drawn = self.ids.draw(add.task, sum(job.id is None for job in jobs))
        stored = [next(drawn) if job.id is None else job.id for job in jobs]
        held = bool(add.events & ADD_BIT)
        counted = int(add.size is not None)
        new = rows.texts([rows.new_job(job, id, self.now, held) for job, id in zip(jobs, stored, strict=True)])
        self.execute(
            self.dialect.insert_jobs, task=add.task, events=add.events, counted=counted, now=self.now, rows=new
        )
        add.stored += stored
        self.sizes[add.task] += counted * len(stored)
        self.harvest.woken.add(add.task)
        if held:
            self._tell_added(add.task, stored)

    def _tell_added(self, task: str, ids: Sequence[int]) -> None:
        self.execute(self.dialect.insert_add_events, task=task, ids=dumps(ids), now=self.now)
        self.harvest.wrote_events = True

    def waiting(self, task: str) -> int:
        """How many callers' jobs of the task were never claimed."""
        if task not in self._waiting:
            self._waiting[task] = self.execute(statements.WAITING_OF, task=task).scalar() or 0
        return self._waiting[task] + self.sizes[task]

    # --- claims -----------------------------------------------------------------------------------

    def pay_debts(self) -> None:
        """Count the jobs that were added in callers' own transactions."""
        for task, added, last in self.execute(statements.SIZE_DEBTS).all():
            self.sizes[task] += int(added)
            self.execute(statements.DELETE_SIZE_DEBTS, task=task, last=last)
            self.harvest.woken.add(task)

    def promote(self) -> int | None:
        """Make what is due ready; the answer is when the next will be due."""
        due = self.execute(statements.NEXT_DUE).scalar()
        if due is None or due > self.now:
            return due
        self.execute(self.dialect.promote, now=self.now, most=MOST_ROWS)
        rest: int | None = self.execute(statements.NEXT_DUE).scalar()
        return rest

    def claim(self, demands: Mapping[str, int], worker: int) -> None:
        """Give `worker` the next jobs of each task (T2), at most what it asked for."""
        share = max(1, MOST_ROWS // max(1, len(demands)))
        for task, most in demands.items():
            self.harvest.claims[task] = self._claim(task, min(most, share), worker)

    def _claim(self, task: str, most: int, worker: int) -> list[Claim]:
        found = self.execute(self.dialect.select_claims, task=task, most=most).scalar()
        if found is None:
            return []
        claims, counted, now = [], 0, self.now
        for key, fence, id, generation, attempt, attempts, losses, timeout, events, ready, counts, *rest in loads(found):
            counted += counts
            claims.append(
                Claim(key, fence, id, task, generation, attempt, attempts, losses, timeout, events, ready, now, *rest)
            )
        keys = rows.texts([str(claim.key) for claim in claims])
        self._expect(len(claims), self.dialect.take_claims, worker=worker, now=now, keys=keys)
        self.sizes[task] -= counted
        return claims

    def claim_deliveries(self, tasks: Sequence[str], most: int, worker: int) -> None:
        """Give `worker` events to deliver, at most one of each job."""
        found = self.execute(self.dialect.select_deliveries, now=self.now, tasks=dumps(list(tasks)), most=most).scalar()
        deliveries = [Delivery(*row) for row in loads(found or "[]")]
        if deliveries:
            seqs = rows.texts([str(delivery.seq) for delivery in deliveries])
            self._expect(len(deliveries), self.dialect.take_deliveries, worker=worker, seqs=seqs)
        self.harvest.deliveries = deliveries

    def close(self) -> None:
        """The last statements: rows that many processes share are touched as late as can be."""
        sizes = [[task, delta] for task, delta in self.sizes.items() if delta]
        if sizes:
            self.execute(self.dialect.add_sizes, rows=dumps(sizes))
        if self.tally:
            self.execute(self.dialect.add_rollups, rows=self.tally.rows())

    # --- errands ----------------------------------------------------------------------------------

    def _find(self, task: str, id: int) -> Any:
        row = self.execute(statements.FOR_CHANGE, task=task, id=id).one_or_none()
        if row is None:
            raise JobNotFound(task, id)
        return row

    def cancel(self, task: str, id: int) -> None:
        row = self._find(task, id)
        name = f"{task}.{id}"
        if row.state == JobState.FAILURE:
            self._expect(1, statements.GIVE_UP, key=row.key, generation=row.generation, now=self.now)
        elif row.state == JobState.RUNNING and row.started_at is not None:
            raise WrongState(f"{name} is running: a job can be cancelled before it starts or between its tries")
        elif row.state in (JobState.WAITING, JobState.RETRYING, JobState.RUNNING):
            self._expect(1, statements.CANCEL, key=row.key, fence=row.fence, now=self.now)
            self.sizes[task] -= row.counted
        else:
            raise AlreadyFinished(f"{name} has ended as {JobState(row.state).name}: there is nothing to cancel")
        if row.events & CANCEL_BIT:
            self.insert_events([rows.event(row.key, task, id, EventKind.CANCEL, "[]")])

    def retry(self, task: str, id: int) -> None:
        row = self._find(task, id)
        if row.state not in (JobState.FAILURE, JobState.CANCELLED):
            shown = JobState(row.state).name
            raise WrongState(f"{task}.{id} is {shown}: only a FAILURE or a CANCELLED job can be retried by hand")
        held = self.execute(statements.HAS_UNTRIED_EVENTS, key=row.key).scalar()
        self._expect(
            1,
            statements.RETRY,
            key=row.key,
            generation=row.generation,
            ready_at=None if held else self.now,
            now=self.now,
        )
        self.harvest.woken.add(task)

    def settle(
        self, worker: int, delivered: Sequence[Delivery], failed: Sequence[tuple[Delivery, str, int | None]]
    ) -> None:
        if delivered:
            seqs = dumps([delivery.seq for delivery in delivered])
            self.execute(self.dialect.delete_events, seqs=seqs, worker=worker)
        for delivery, error, next_at in failed:
            self.execute(
                statements.FAIL_EVENT,
                seq=delivery.seq,
                worker=worker,
                error=error,
                state=0 if next_at is not None else 1,
                next_at=self.now if next_at is None else next_at,
            )
        settled = [*delivered, *(delivery for delivery, _, _ in failed)]
        if settled:
            keys = dumps([delivery.job for delivery in settled])
            self.execute(self.dialect.release_held, keys=keys, now=self.now)
            self.harvest.woken.update(delivery.task for delivery in settled)
        self.harvest.wrote_events = True

