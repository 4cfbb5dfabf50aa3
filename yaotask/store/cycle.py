"""One transaction of the ledger: what each part of a mailbox does to the tables.

Parts are done for a whole batch at once. Where the database says that one row of a batch does not
fit (`Misfit`, or an integrity error), the caller rolls back and plays the mailbox again, one
request at a time, so that the others land and the one gets its error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from yaotask.clock import MILLISECOND
from yaotask.events import Delivery
from yaotask.jobs import Claim, JobState, Succeeded
from yaotask.store import adds, doubt, errands, rows, statements
from yaotask.store.consumers import FailedDelivery
from yaotask.store.direct import Posted
from yaotask.store.protocol import Add, ClaimBatch, Finish, Progress, Started
from yaotask.store.work import MOST_ROWS, Misfit, Work
from yaotask.values import dumps, loads

__all__ = ["MOST_ROWS", "Misfit", "SqlCycle"]

# How many milliseconds pass until fences come round: twelve days.
FENCES = 2**30
# When to look again for what is due, but held by others, in microseconds.
HELD_PAUSE = 50_000


class SqlCycle(Work):
    """A transaction with all that can be done in it."""

    # --- progress and starts --------------------------------------------------------------------

    def store_started(self, started: Sequence[Started]) -> None:
        """Show claims as RUNNING; one that was lost meanwhile is left alone, and reported as outrun."""
        shown = self.execute(self.own.STORE_STARTED, rows=dumps(started)).rowcount
        if shown < len(started):
            # Most of these have said so already, with progress, or have ended.
            self.harvest.outrun += [(note.key, note.fence) for note in started if self._is_outrun(note)]

    def _is_outrun(self, note: Started) -> bool:
        row = self.execute(statements.STATE_OF, key=note.key).one_or_none()
        return row is None or row.fence != note.fence

    def progress(self, notes: Sequence[Progress]) -> None:
        """Store what jobs say of themselves (T3), the latest of each; the lost claims are reported."""
        latest: dict[tuple[int, int | None], Progress] = {}
        for note in notes:
            earlier = latest.get((note.key, note.fence))
            if earlier is not None:
                note = note._replace(changes={**earlier.changes, **note.changes})
            latest[note.key, note.fence] = note
        for note in latest.values():
            if not self.store_progress(note) and note.fence is not None and not self._has_succeeded(note):
                self.harvest.lost.append((note.key, note.fence))

    def _has_succeeded(self, note: Progress) -> bool:
        """Whether this very claim has: its own transaction took the progress along, and came first."""
        row = self.execute(statements.STATE_OF, key=note.key).one_or_none()
        return row is not None and (row.state, row.fence) == (JobState.SUCCESS, note.fence)

    def store_progress(self, note: Progress) -> bool:
        """Store one note; False, and nothing changes, where the claim was lost or the job does not run."""
        statement = statements.progress(tuple(note.changes), fenced=note.fence is not None)
        values = {f"new_{name}": value for name, value in note.changes.items()}
        result = self.execute(statement, key=note.key, fence=note.fence, started=note.started, now=self.now, **values)
        return result.rowcount == 1

    # --- finishes ---------------------------------------------------------------------------------

    def finish(self, finishes: Sequence[Finish]) -> None:
        """End attempts where their fences are still current (T4, T5, T6, T10); else raise Misfit."""
        simple = [finish for finish in finishes if type(finish.outcome) is Succeeded]
        if simple:
            nest = self.own.nest
            won = rows.texts([rows.success(finish, nest) for finish in simple])
            self.expect(len(simple), self.own.FINISH_SUCCESS, rows=won)
        endings = [rows.Ending(finish, self.now) for finish in finishes if type(finish.outcome) is not Succeeded]
        if endings:
            self.expect(len(endings), self.own.FINISH_OTHER, rows=dumps([ending.row() for ending in endings]))
        self._note_successes(simple)
        self._note_endings(endings)

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
        # Their event may be stuck behind one whose hook fails.
        self.release_held([ending.claim.key for ending in endings if ending.is_held])
        self.insert_attempts([ending.attempt_row() for ending in endings if not ending.given_back])

    def is_asked_to_stop(self, claim: Claim) -> bool:
        """Whether this claim is still held, and is to end as a success or as CANCELLED."""
        return self.execute(statements.IS_ASKED_TO_STOP, key=claim.key, fence=claim.fence).scalar() is not None

    def already_finished(self, finish: Finish) -> bool:
        """Whether this very finish is in the store: the one whose commit was in doubt."""
        return doubt.has_ended(self.connection, finish, self.now)

    # --- claims -----------------------------------------------------------------------------------

    def look_around(self, worker: int) -> Posted:
        """When the next future job is `due`, and whether a worker is `entered`: nobody has taken it for dead."""
        return self.ask_ahead(statements.BEFORE_CLAIMS, worker=worker)

    def promote(self, due: int | None) -> int | None:
        """Make ready what is due, the first of it at `due`; the answer is when the next will be."""
        if due is None or due > self.now:
            return due
        promoted = self.execute(self.own.PROMOTE, now=self.now, most=MOST_ROWS).rowcount
        rest: int | None = self.execute(statements.NEXT_DUE).scalar()
        if not promoted and rest is not None:
            # What is due is in the hands of others, and may be so for long.
            rest = max(rest, self.now + HELD_PAUSE)
        return rest

    def claim(self, demands: Mapping[str, int], worker: int) -> None:
        """Give `worker` the next jobs of each task (T2), at most what it asked for."""
        share = max(1, MOST_ROWS // max(1, len(demands)))
        given = {"worker": worker, "now": self.now, "fence": _least_fence(self.now)}
        asked = {
            task: self.ask_ahead(self.own.SELECT_CLAIMS, task=task, most=min(most, share), **given)
            for task, most in demands.items()
        }
        self.see_done()
        for task, found in asked.items():
            self.harvest.claims[task] = self._take(task, found, given)

    def _take(self, task: str, asked: Posted, given: Mapping[str, int]) -> ClaimBatch:
        found = self.own.gather_claims(asked.come())
        if not found.jobs:
            return ClaimBatch(task, 0, "[]")
        if self.own.TAKE_CLAIMS is not None:
            self.expect(found.jobs, self.own.TAKE_CLAIMS, keys=found.keys_, **given)
        self.sizes.change(task, -int(found.counted))
        return ClaimBatch(task, found.jobs, found.claims)

    def claim_deliveries(self, tasks: Sequence[str], most: int, worker: int) -> None:
        """Give `worker` events to deliver, at most one of each job, from all tasks in turn, the oldest first."""
        found = [row for task in tasks for row in self._find_deliveries(task, most)]
        deliveries = [Delivery(*row) for _, _, *row in sorted(found)[:most]]
        if deliveries:
            seqs = rows.texts([str(delivery.seq) for delivery in deliveries])
            self.expect(len(deliveries), self.own.TAKE_DELIVERIES, worker=worker, seqs=seqs)
        self.harvest.deliveries = deliveries

    def _find_deliveries(self, task: str, most: int) -> list[list[Any]]:
        """Events of a task that can be delivered, each after its turn and its time."""
        answer = self.execute(self.own.SELECT_DELIVERIES, now=self.now, task=task, most=most)
        found = loads(self.own.gather_deliveries(answer))
        if found and self.own.SECOND_LOOK is not None:
            seqs = dumps([row[1] for row in found])
            behind = {row.seq for row in self.execute(self.own.SECOND_LOOK, seqs=seqs).all()}
            found = [row for row in found if row[1] not in behind]
        return [[turn, *row] for turn, row in enumerate(found)]

    # --- adds and errands -------------------------------------------------------------------------

    def add(self, add: Add) -> list[int]:
        return adds.add(self, add)

    def cancel(self, task: str, id: int) -> JobState:
        return errands.cancel(self, task, id)

    def retry(self, task: str, id: int) -> None:
        errands.retry(self, task, id)

    def report(self, task: str, id: int, changes: Mapping[str, Any]) -> None:
        errands.report(self, task, id, changes)

    def settle(self, worker: int, delivered: Sequence[Delivery], failed: Sequence[FailedDelivery]) -> None:
        errands.settle(self, worker, delivered, failed)


def _least_fence(now: int) -> int:
    """The fence of a claim is this, or one more than the last where that is higher.

    A server that lost its last commits, as a replica may that takes over, knows nothing of the claims in them, and
    gives the keys of jobs in them to others. Whoever still has one of those claims must not end by it what others have.
    """
    return now // MILLISECOND % FENCES
