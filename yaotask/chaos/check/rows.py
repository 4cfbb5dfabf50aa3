"""What the database's triggers saw of each job: I3 to I6."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise

from yaotask.chaos.check.index import Index, named
from yaotask.chaos.facts import Change, Row, Violation
from yaotask.jobs import JobState

# Handlers of the run return {"fence": 3}, and report their progress as "fence 3, 7 of 10".
FENCE = re.compile(r'"?fence"?:? ?(\d+)')


def writers_had_the_claim(index: Index) -> Iterator[Violation]:
    """I3: fences only grow, and what a handler wrote is of the claim that its job had then."""
    for key, changes in index.changes.items():
        for change in changes:
            before, after = change.before, change.after
            if before is not None and after.fence < before.fence:
                yield Violation("I3", f"{_name(index, key)}: its fence went from {before.fence} to {after.fence}")
            if after.message is not None and (before is None or after.message != before.message):
                yield from _of(index, key, "progress", after.message, after)
            if after.state == JobState.SUCCESS and after.result is not None:
                yield from _of(index, key, "a result", after.result, after)


def _of(index: Index, key: int, what: str, text: str, row: Row) -> Iterator[Violation]:
    found = FENCE.search(text)
    if found and int(found[1]) != row.fence:
        yield Violation("I3", f"{_name(index, key)}: {what} of fence {found[1]} was stored when it was {row.fence}")


def one_end_a_claim(index: Index) -> Iterator[Violation]:
    """I4: of one claim one end is written."""
    for key, changes in index.changes.items():
        ends = Counter(change.after.fence for change in changes if _ends_claim(change))
        for fence, count in ends.items():
            if count > 1:
                yield Violation("I4", f"{_name(index, key)}: the claim of fence {fence} ended {count} times")


def _ends_claim(change: Change) -> bool:
    return named(change) in ("T4", "T5", "T6", "T10")


def what_has_ended_stays(index: Index) -> Iterator[Violation]:
    """I5: state, result and time of a job that has ended change by a retry by hand alone."""
    for key, changes in index.changes.items():
        for change in changes:
            before, after = change.before, change.after
            if before is None or not before.state.is_terminal or after.generation > before.generation:
                continue
            if (before.state, before.result, before.finished_at) != (after.state, after.result, after.finished_at):
                yield Violation("I5", f"{_name(index, key)} had ended as {_told(before)} and became {_told(after)}")


def only_known_transitions(index: Index) -> Iterator[Violation]:
    """I6: each change is one of the table, and begins where the one before it ended."""
    for key, changes in index.changes.items():
        for change in changes:
            if named(change) is None:
                was = "nothing" if change.before is None else _told(change.before)
                yield Violation("I6", f"{_name(index, key)}: from {was} to {_told(change.after)} there is no way")
        yield from _unbroken(index, key, changes)


def _unbroken(index: Index, key: int, changes: Sequence[Change]) -> Iterator[Violation]:
    for earlier, later in pairwise(changes):
        if later.before is None or later.before.state != earlier.after.state:
            yield Violation("I6", f"{_name(index, key)}: what made it {_told(earlier.after)} was undone unseen")
    job = index.facts.jobs.get(key)
    if job is None:
        yield Violation("I6", f"{_name(index, key)} was removed")
    elif (changes[-1].after.state, changes[-1].after.fence) != (job.row.state, job.row.fence):
        yield Violation("I6", f"{job.id} is {_told(job.row)}, and its last change made it {_told(changes[-1].after)}")


def _name(index: Index, key: int) -> str:
    job = index.facts.jobs.get(key)
    return str(job.id) if job else f"the job with key {key}"


def _told(row: Row) -> str:
    return f"{row.state.name} (generation {row.generation}, attempt {row.attempt}, fence {row.fence})"
