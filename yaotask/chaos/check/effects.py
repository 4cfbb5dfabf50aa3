"""What came of the jobs outside their rows: the ledger of transactions, I8, and hooks, I10."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from yaotask.chaos.check.index import Index, named
from yaotask.chaos.facts import Change, Event, Job, JobId, Violation
from yaotask.jobs import JobState

# The hook that hears of a transition, by the state that it leads to.
HEARD = {
    ("T1", JobState.WAITING): "add",
    ("T4", JobState.SUCCESS): "success",
    ("T4", JobState.IGNORED): "ignore",
    ("T5", JobState.RETRYING): "retry",
    ("T6", JobState.FAILURE): "error",
    ("T7", JobState.RETRYING): "retry",
    ("T7", JobState.FAILURE): "error",
    ("T8", JobState.CANCELLED): "cancel",
    ("T9", JobState.CANCELLED): "cancel",
    ("T11", JobState.CANCELLED): "cancel",
}


def effects_with_their_success(index: Index) -> Iterator[Violation]:
    """I8: what a handler wrote in its transaction is there once for a success, and never without one."""
    fences: dict[JobId, list[int]] = {}
    for id, fence in index.facts.ledger:
        fences.setdefault(id, []).append(fence)
    for job in index.facts.jobs.values():
        if not index.facts.terms[job.id.task].is_ledgered:
            continue
        found = fences.pop(job.id, [])
        wanted = [job.row.fence] if job.row.state == JobState.SUCCESS else []
        if found != wanted:
            yield Violation("I8", f"{job.id} is {job.row.state.name} with fence {job.row.fence}; its effects: {found}")
    for id in fences:
        yield Violation("I8", f"{id} has effects and is not there")


def hooks_hear_all(index: Index) -> Iterator[Violation]:
    """I10: each transition that a hook listens to has its event, and hooks are told each, in order."""
    for job in index.facts.jobs.values():
        hooks = index.facts.terms[job.id.task].hooks
        if not hooks:
            continue
        events = index.events.get(job.id, [])
        yield from _written(index, job, hooks, events)
        yield from _told(index, job, events)


def _written(index: Index, job: Job, hooks: frozenset[str], events: Sequence[Event]) -> Iterator[Violation]:
    wanted = [hook for change in index.changes.get(job.key, []) if (hook := _hook(change)) in hooks]
    found = [event.hook for event in events]
    if wanted != found:
        yield Violation("I10", f"{job.id}: hooks should hear {_words(wanted)}, and the outbox had {_words(found)}")


def _told(index: Index, job: Job, events: Sequence[Event]) -> Iterator[Violation]:
    told = [note.what for note in index.told.get(job.id, [])]
    for event in events:
        if event.pending:
            yield Violation("I10", f"{job.id}: {event.hook} is still to be told, {event.why}")
        if event.given_up:
            # Hooks of the run fail too seldom to be given up.
            yield Violation("I10", f"{job.id}: {event.hook} was given up {event.why}")
    # Each may be told again, also by somebody who was stopped meanwhile: what comes in order is the first time of each.
    settled = [event for event in events if not (event.given_up or event.pending)]
    firsts = [told.index(hook) for hook in dict.fromkeys(event.hook for event in settled) if hook in told]
    if firsts != sorted(firsts):
        yield Violation("I10", f"{job.id}: of {_words([e.hook for e in events])} hooks were told {_words(told)}")
        return
    at = 0
    for event in settled:
        while at < len(told) and told[at] != event.hook:
            at += 1
        if at == len(told):
            yield Violation("I10", f"{job.id}: of {_words([e.hook for e in events])} hooks were told {_words(told)}")
            return
        at += 1
    more = Counter(told) - Counter({hook: len(told) for hook in {event.hook for event in events}})
    if more:
        yield Violation("I10", f"{job.id}: hooks were told {_words(list(more))}, which did not happen")


def _hook(change: Change) -> str | None:
    name = named(change)
    return HEARD.get((name, change.after.state)) if name else None


def _words(words: Sequence[str]) -> str:
    return ", ".join(words) or "nothing"
