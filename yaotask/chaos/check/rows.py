"""What the database's triggers saw of each job: I3 to I6, I19."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise

from yaotask.chaos.check.index import Index, named
from yaotask.chaos.facts import Change, Job, Row, Violation
from yaotask.jobs import JobState
from yaotask.phrases import listed

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
            if after.state == JobState.SUCCESS:
                yield from _of(index, key, "a result", after.result or "", after)


def _of(index: Index, key: int, what: str, text: str, row: Row) -> Iterator[Violation]:
    found = FENCE.search(text)
    if found is None:
        yield Violation("I3", f"{_name(index, key)}: {what} was stored that names no fence: {text}")
    elif int(found[1]) != row.fence:
        yield Violation("I3", f"{_name(index, key)}: {what} of fence {found[1]} was stored when it was {row.fence}")


def one_end_a_claim(index: Index) -> Iterator[Violation]:
    """I4: of one claim one end is written, by its owner or by whoever takes it back."""
    for key, changes in index.changes.items():
        ends = Counter(change.before.fence for change in changes if change.before and _ends_claim(change))
        for fence, count in ends.items():
            if count > 1:
                yield Violation("I4", f"{_name(index, key)}: the claim of fence {fence} ended {count} times")


def _ends_claim(change: Change) -> bool:
    return change.before is not None and change.before.state == JobState.RUNNING != change.after.state


def what_has_ended_stays(index: Index) -> Iterator[Violation]:
    """I5: state, result and time of a job that has ended change by a retry by hand alone."""
    for key, changes in index.changes.items():
        for change in changes:
            before, after = change.before, change.after
            if before is None or not before.state.is_terminal or after.generation > before.generation:
                continue
            if (before.state, before.result, before.finished_at) != (after.state, after.result, after.finished_at):
                yield Violation("I5", f"{_name(index, key)} had ended as {_told(before)} and became {_told(after)}")


def what_kills_is_stopped(index: Index) -> Iterator[Violation]:
    """I19: a job is poisoned by the last death that it may have, and by none before."""
    bounds = index.facts.bounds
    for key, changes in index.changes.items():
        for change in changes:
            before, after = change.before, change.after
            if before is None or named(change) != "T7":
                continue
            is_last = after.deaths >= bounds.deaths or before.losses < after.losses >= bounds.losses
            if is_last != (after.state == JobState.FAILURE):
                what = f"{after.losses} losses and {after.deaths} deaths, and is {after.state.name}"
                yield Violation("I19", f"{_name(index, key)} has {what}")


def only_known_transitions(index: Index) -> Iterator[Violation]:
    """I6: every change was seen, is one of the table, and begins where the one before it ended."""
    for key, changes in index.changes.items():
        for change in changes:
            if named(change) is None:
                was = "nothing" if change.before is None else _told(change.before)
                yield Violation("I6", f"{_name(index, key)}: from {was} to {_told(change.after)} there is no way")
        yield from _unbroken(index, key, changes)
        if key not in index.facts.jobs:
            yield Violation("I6", f"{_name(index, key)} was removed")
    for job in index.facts.jobs.values():
        yield from _seen_to_its_end(index, job)


def _unbroken(index: Index, key: int, changes: Sequence[Change]) -> Iterator[Violation]:
    if changes[0].before is not None:
        yield Violation("I6", f"{_name(index, key)}: how it came to be {_told(changes[0].before)} was not seen")
    for earlier, later in pairwise(changes):
        if later.before != earlier.after:
            what = f"between {_told(earlier.after)} and {_told(later.after)} it was changed unseen"
            yield Violation("I6", f"{_name(index, key)}: {what}{_differing(earlier.after, later.before)}")


def _seen_to_its_end(index: Index, job: Job) -> Iterator[Violation]:
    changes = index.changes.get(job.key)
    if not changes:
        yield Violation("I6", f"{job.id} is {_told(job.row)}, and nobody saw how it came to be")
    elif changes[-1].after != job.row:
        what = f"its last change made it {_told(changes[-1].after)}{_differing(changes[-1].after, job.row)}"
        yield Violation("I6", f"{job.id} is {_told(job.row)}, and {what}")


def _differing(one: Row, other: Row | None) -> str:
    """The columns in which they differ, which are more than what is told of a row."""
    names = [name for name in Row._fields if other is not None and getattr(one, name) != getattr(other, name)]
    return f", of another {listed(names)}" if names else ""


def _name(index: Index, key: int) -> str:
    job = index.facts.jobs.get(key)
    return str(job.id) if job else f"the job with key {key}"


def _told(row: Row) -> str:
    return f"{row.state.name} (generation {row.generation}, attempt {row.attempt}, fence {row.fence})"
