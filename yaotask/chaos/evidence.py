"""From what a run left in its folder and its store to the facts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yaotask.chaos import history
from yaotask.chaos.facts import Bounds, Change, Event, Facts, Fault, Job, JobId, Lease, Row, Terms, Worker
from yaotask.codec import decode
from yaotask.events import EventKind
from yaotask.jobs import JobState
from yaotask.store import auditing

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

# As the outbox has it.
GIVEN_UP = 1


def gather(
    connection: Connection,
    folder: Path,
    *,
    terms: Mapping[str, Terms],
    bounds: Bounds,
    faults: Sequence[Fault],
    leftovers: Sequence[str],
    was_drained: bool,
) -> Facts:
    """All that is known of a run whose processes have ended."""
    return Facts(
        terms=terms,
        bounds=bounds,
        calls=[call for place in _folders(folder, "caller") for call in history.calls(place)],
        notes=sorted(
            (note for place in _folders(folder, "node") for note in history.notes(place)), key=lambda note: note.at
        ),
        changes=[_change(row) for row in auditing.changes_of(connection)],
        events=[_event(*both) for both in auditing.events_of(connection)],
        faults=faults,
        jobs={job.key: job for job in map(_job, auditing.jobs_of(connection))},
        workers=list(map(_worker, auditing.workers_of(connection))),
        leases=[Lease(row.worker, row.at, row.ends_at) for row in auditing.leases_of(connection)],
        ledger=[(JobId(row.task, row.id), row.fence) for row in auditing.ledger_of(connection)],
        waiting=auditing.waiting_of(connection),
        is_serial=connection.dialect.name == "sqlite",
        leftovers=leftovers,
        was_drained=was_drained,
    )


def _folders(folder: Path, kind: str) -> Iterable[Path]:
    return sorted(folder.glob(f"{kind}-*"))


def _change(row: Any) -> Change:
    before = None if row.is_new else _row(row, "old_")
    return Change(row.seq, row.at, row.job, before, _row(row, "new_"))


def _row(row: Any, age: str = "") -> Row:
    values = {name: getattr(row, f"{age}{name}") for name in Row._fields}
    return Row(**{**values, "state": JobState(values["state"])})


def _event(row: Any, left: Any) -> Event:
    job, hook = JobId(row.task, row.id), EventKind(row.kind).hook
    if left is None:
        return Event(row.seq, job, hook, given_up=False, pending=False)
    why = f"after {left.tries} calls and {left.deaths} deaths: {left.error}"
    return Event(row.seq, job, hook, given_up=left.state == GIVEN_UP, pending=left.state == 0, why=why)


def _worker(row: Any) -> Worker:
    return Worker(row.worker, row.pid, row.kind, row.node, row.at, bool(row.has_lock))


def _job(row: Any) -> Job:
    return Job(row.key, JobId(row.task, row.id), decode(row.args)[0], _row(row), row.idempotency_key)
