"""How attempts ended, against what their handlers did: I7, I17."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from yaotask.chaos.check.index import NEARLY, Index, named
from yaotask.chaos.facts import RETURNED, Job, Row, Terms, Violation
from yaotask.jobs import JobState

# What a handler raises that is to end its job, whatever tries are left.
FAIL, IGNORE = "Fail", "Ignore"
# What is thrown into a handler whose time is up, by asyncio and by trio.
CANCELLED = frozenset({"CancelledError", "Cancelled"})


def ends_are_of_their_handlers(index: Index) -> Iterator[Violation]:
    """I17: an attempt ends as its handler did, or because its time was up; and a job fails for good as it should."""
    for job in index.facts.jobs.values():
        retries: Counter[int] = Counter()
        claimed = 0
        for change in index.changes.get(job.key, []):
            name = named(change)
            if name == "T2":
                claimed = change.at
            elif name in ("T4", "T5", "T6"):
                # None of these changes the fence.
                end = _End(index, job, change.after, change.at, claimed)
                if (wrong := end.is_wrong(retries[change.after.generation])) is not None:
                    yield Violation("I17", f"{job.id} became {change.after.state.name}, and {wrong}")
            retries[change.after.generation] += name == "T5"


class _End:
    """One end of an attempt, and what its handler said of itself until then."""

    def __init__(self, index: Index, job: Job, row: Row, moment: int, claimed: int) -> None:
        attempt = job.id, row.fence
        self._terms: Terms = index.facts.terms[job.id.task]
        self._state = row.state
        self._begun = index.begun.get(attempt)
        ended = index.ended.get(attempt)
        self._how = ended.how if ended is not None and ended.at <= moment + NEARLY else None
        # Its time runs from when its child was told to start it; that may have been stopped, with its node, before the
        # handler could say a word.
        told = None if row.started_at is None else max(claimed, row.started_at)
        begun = None if self._begun is None else self._begun.at
        since = min((at for at in (told, begun) if at is not None), default=claimed)
        self._is_late = moment >= since + self._terms.timeout - NEARLY

    def is_wrong(self, retries: int) -> str | None:
        """What should not be, in words; its job had so many retries before."""
        if self._state in (JobState.SUCCESS, JobState.IGNORED):
            wanted = RETURNED if self._state == JobState.SUCCESS else IGNORE
            return None if self._how == wanted else self._words
        if self._how is None or self._how in CANCELLED:
            wrong = not self._is_late
        elif self._how == RETURNED:
            # What comes back too late does not count, and a transaction may fail to be committed.
            wrong = not (self._is_late or self._terms.is_ledgered)
        else:
            wrong = self._how == IGNORE or (self._how == FAIL and self._state != JobState.FAILURE)
        if wrong:
            return self._words
        if self._state == JobState.FAILURE and self._how != FAIL and retries < self._terms.attempts:
            return f"had {retries} of {self._terms.attempts} retries"
        return None

    @property
    def _words(self) -> str:
        if self._begun is None:
            return "its handler had not started"
        return f"its handler {'had not ended' if self._how is None else f'ended with {self._how}'}"


def handlers_are_given_their_own(index: Index) -> Iterator[Violation]:
    """I7: a handler is given the arguments of its job."""
    for note in index.begun.values():
        job = index.by_id.get(note.job)
        if job is not None and note.tag != job.tag:
            yield Violation("I7", f"{note.job} was given the arguments of {note.tag}")
