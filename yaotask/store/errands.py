"""What users ask of one job, and what comes of the events of many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from yaotask.errors import AlreadyFinished, JobNotFound, WrongState
from yaotask.events import CANCEL_BIT, Delivery, EventKind
from yaotask.jobs import KNOWN, JobState, name_of
from yaotask.store import rows, statements
from yaotask.store.consumers import FailedDelivery
from yaotask.store.work import Work
from yaotask.values import dumps


def cancel(work: Work, task: str, id: int) -> JobState:
    """See Cycle."""
    row = _find(work, task, id)
    name = f"{task}.{id}"
    match JobState(row.state):
        case JobState.FAILURE:
            work.expect(1, statements.GIVE_UP, key=row.key, generation=row.generation, now=work.now)
        case JobState.RUNNING if row.started_at is not None:
            _ask_to_stop(work, row)
            return JobState.RUNNING
        case JobState.WAITING | JobState.RETRYING | JobState.RUNNING:
            work.expect(1, statements.CANCEL, key=row.key, fence=row.fence, now=work.now)
            work.sizes.change(task, -row.counted)
            work.tally.cancelled(task, work.now)
        case ended:
            raise AlreadyFinished(f"{name} has ended as {ended.name}: there is nothing to cancel")
    if row.events & CANCEL_BIT:
        work.insert_events([rows.event(row.key, task, id, EventKind.CANCEL, "[]")])
    return JobState.CANCELLED


def _ask_to_stop(work: Work, row: Any) -> None:
    """Leave word for the worker that has the claim (T9); who asks again changes nothing."""
    if row.cancel_at is None:
        work.expect(1, statements.ASK_TO_STOP, key=row.key, fence=row.fence, now=work.now)
        work.harvest.asked_to_stop = True


def retry(work: Work, task: str, id: int) -> None:
    """See Cycle."""
    row = _find(work, task, id)
    if row.state not in (JobState.FAILURE, JobState.CANCELLED):
        shown = JobState(row.state).name
        raise WrongState(f"{task}.{id} is {shown}: only a FAILURE or a CANCELLED job can be retried by hand")
    held = work.execute(statements.HAS_UNTRIED_EVENTS, key=row.key).scalar()
    ready_at = None if held else work.now
    work.expect(1, statements.RETRY, key=row.key, generation=row.generation, ready_at=ready_at, now=work.now)
    work.harvest.woken.add(task)


def report(work: Work, task: str, id: int, changes: Mapping[str, Any]) -> None:
    """See Cycle."""
    row = _find(work, task, id)
    if row.state != JobState.RUNNING:
        raise WrongState(f"{task}.{id} is {JobState(row.state).name}: only a running job can report progress")
    columns = tuple(changes)
    values = {f"new_{name}": value for name, value in changes.items()}
    # It runs, so it has started: its worker may not have said so yet.
    work.expect(1, statements.progress(columns, fenced=False), key=row.key, started=work.now, now=work.now, **values)


def _find(work: Work, task: str, id: int) -> Any:
    row = work.execute(statements.FOR_CHANGE, task=task, id=id).one_or_none()
    if row is None:
        raise JobNotFound(task, id)
    if row.state not in KNOWN:
        raise WrongState(f"{task}.{id} is {name_of(row.state)}: `yaotask db verify` says what to do")
    return row


def settle(work: Work, worker: int, delivered: Sequence[Delivery], failed: Sequence[FailedDelivery]) -> None:
    """See Cycle."""
    # A job that is just being retried counts these events: who comes second must see what the first has done.
    settled = [*delivered, *(delivery for delivery, error, _ in failed if error is not None)]
    work.lock([delivery.job for delivery in settled])
    if delivered:
        seqs = dumps([delivery.seq for delivery in delivered])
        work.execute(work.own.DELETE_EVENTS, seqs=seqs, worker=worker)
    put_off: dict[int | None, list[int]] = {}
    for delivery, error, next_at in failed:
        if error is None:
            put_off.setdefault(next_at, []).append(delivery.seq)
        else:
            _fail_event(work, worker, delivery, error, next_at)
    for next_at, numbers in put_off.items():
        work.execute(work.own.PUT_EVENTS_OFF, seqs=dumps(numbers), worker=worker, next_at=next_at)
    if settled:
        work.release_held([delivery.job for delivery in settled])
        work.harvest.woken.update(delivery.task for delivery in settled)
    work.harvest.wrote_events = True


def _fail_event(work: Work, worker: int, delivery: Delivery, error: str, next_at: int | None) -> None:
    kept = next_at is None
    work.execute(
        statements.FAIL_EVENT,
        seq=delivery.seq,
        worker=worker,
        error=error,
        state=int(kept),
        deaths=delivery.deaths,
        next_at=work.now if kept else next_at,
    )
