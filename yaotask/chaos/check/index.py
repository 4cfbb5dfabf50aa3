"""The facts of a run, looked up by job."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from yaotask.chaos.check.transitions import of_add, transition
from yaotask.chaos.facts import SECOND, Call, Change, Event, Facts, Job, JobId, Note

# A job and the fence of a claim of it.
Attempt = tuple[JobId, int]

# So far apart may be the moments that two who saw the same thing have noted.
NEARLY = SECOND // 2

T = TypeVar("T")
K = TypeVar("K")


@dataclass(frozen=True, slots=True)
class Index:
    """Each list is in order of time, as far as that is known for one job."""

    facts: Facts
    by_id: Mapping[JobId, Job]
    changes: Mapping[int, Sequence[Change]]
    starts: Mapping[JobId, Sequence[Note]]
    begun: Mapping[Attempt, Note]
    ended: Mapping[Attempt, Note]
    told: Mapping[JobId, Sequence[Note]]
    events: Mapping[JobId, Sequence[Event]]
    adds: Sequence[Call]

    @classmethod
    def of(cls, facts: Facts) -> Index:
        return cls(
            facts=facts,
            by_id={job.id: job for job in facts.jobs.values()},
            changes=_grouped((change.key, change) for change in sorted(facts.changes)),
            starts=_grouped((note.job, note) for note in facts.notes if note.what == "start"),
            begun=_first("start", facts.notes),
            ended=_first("end", facts.notes),
            told=_grouped((note.job, note) for note in facts.notes if note.is_of_hook),
            events=_grouped((event.job, event) for event in sorted(facts.events)),
            adds=[call for call in facts.calls if call.operation == "add"],
        )


def named(change: Change) -> str | None:
    """Which transition a change was; None where there is none such."""
    if change.before is None:
        return "T1" if of_add(change.after) else None
    return transition(change.before, change.after)


def _first(what: str, notes: Iterable[Note]) -> Mapping[Attempt, Note]:
    found: dict[Attempt, Note] = {}
    for note in notes:
        if note.what == what:
            found.setdefault((note.job, note.fence), note)
    return found


def _grouped(pairs: Iterable[tuple[K, T]]) -> Mapping[K, Sequence[T]]:
    groups: defaultdict[K, list[T]] = defaultdict(list)
    for key, value in pairs:
        groups[key].append(value)
    return groups
