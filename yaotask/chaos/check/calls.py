"""What callers were told against what is in the store: I1, I2, I16, I18."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import zip_longest

from yaotask.chaos.check.index import NEARLY, Index, named
from yaotask.chaos.facts import FAIL, OK, SECOND, Call, Change, Job, JobId, Row, Violation
from yaotask.jobs import TERMINAL, JobState

CANCEL, RETRY = "cancel", "retry"
# So long after a trigger saw a change it was committed at the latest, whoever stood still meanwhile.
COMMITTED_BY = 12 * SECOND
ENDED = frozenset(state.name for state in TERMINAL) | {"PARTIAL"}


def nothing_lost(index: Index) -> Iterator[Violation]:
    """I1: each acknowledged job is there and has ended, and none is there that nobody added."""
    asked: defaultdict[str, list[Call]] = defaultdict(list)
    for call in index.adds:
        asked[call.tag or ""].append(call)
        if call.answer == OK:
            yield from _acknowledged(index, call)
    for job in index.facts.jobs.values():
        if not job.row.state.is_terminal:
            yield Violation("I1", f"{job.id} has not ended: it is {job.row.state.name}")
        calls = asked.get(job.tag, [])
        if not calls:
            yield Violation("I1", f"{job.id} was added by nobody: no call has its tag {job.tag}")
        elif all(call.answer == FAIL for call in calls):
            yield Violation("I1", f"{job.id} is stored although its caller was told {calls[0].error}: it was not")
    for call in index.facts.calls:
        if call.error == "JobNotFound" and call.job in index.by_id:
            yield Violation("I1", f"{call.operation} was told that there is no {call.job}, which was acknowledged")


def _acknowledged(index: Index, call: Call) -> Iterator[Violation]:
    job = index.by_id.get(call.job) if call.job else None
    if job is None:
        yield Violation("I1", f"{call.job} was acknowledged and is not there")
    elif job.tag != call.tag:
        yield Violation("I1", f"{call.job} was acknowledged for {call.tag} and belongs to {job.tag}")


def one_job_a_key(index: Index) -> Iterator[Violation]:
    """I2: adds that share a key make one job; adds that do not make one each."""
    answers: defaultdict[str, set[JobId]] = defaultdict(set)
    for call in index.adds:
        if call.answer == OK and call.job is not None:
            answers[call.tag or ""].add(call.job)
    stored: defaultdict[str, list[JobId]] = defaultdict(list)
    for job in index.facts.jobs.values():
        stored[job.tag].append(job.id)
    for tag, jobs in stored.items():
        if len(jobs) > 1:
            yield Violation("I2", f"one add, {tag}, made {len(jobs)} jobs: {', '.join(map(str, jobs))}")
    for tag, jobs_told in answers.items():
        if len(jobs_told) > 1:
            yield Violation("I2", f"adds of {tag} were answered with several jobs: {', '.join(map(str, jobs_told))}")


def what_was_asked_is_done(index: Index) -> Iterator[Violation]:
    """I18: a cancel or retry that was acknowledged was done, once; none was done that nobody asked for."""
    asked: defaultdict[tuple[str, JobId], list[Call]] = defaultdict(list)
    for call in index.facts.calls:
        if call.operation in (CANCEL, RETRY) and call.job is not None and call.answer != FAIL:
            asked[call.operation, call.job].append(call)
    for job in index.facts.jobs.values():
        changes = index.changes.get(job.key, [])
        for operation, is_it in ((CANCEL, _cancels), (RETRY, _retries)):
            calls = asked[operation, job.id]
            done = [change for change in changes if is_it(change)]
            yield from _unasked(job, operation, calls, done)
            yield from _undone(index, job, calls, done)


def _cancels(change: Change) -> bool:
    """Whether somebody who cancels did this: the end of what waits, the asking of what runs, giving up what failed."""
    before, after = change.before, change.after
    if before is None:
        return False
    if before.state == JobState.RUNNING and before.cancel_at is None and after.cancel_at is not None:
        return True
    return after.state == JobState.CANCELLED and named(change) in ("T8", "T11")


def _retries(change: Change) -> bool:
    return named(change) == "T11" and change.after.state == JobState.WAITING


def _unasked(job: Job, operation: str, calls: Sequence[Call], done: Sequence[Change]) -> Iterator[Violation]:
    if len(done) > len(calls):
        yield Violation("I18", f"{job.id}: {operation} was done {len(done)} times, and asked for {len(calls)} times")
    for change in done:
        if not any(_is_within(change.at, call) for call in calls):
            yield Violation("I18", f"{job.id}: {operation} was done when nobody asked for it")


def _undone(index: Index, job: Job, calls: Sequence[Call], done: Sequence[Change]) -> Iterator[Violation]:
    for call in calls:
        if call.answer != OK or any(_is_within(change.at, call) for change in done):
            continue
        # To cancel what is cancelled, or asked to stop, changes nothing.
        if call.operation == CANCEL and any(
            row.state == JobState.CANCELLED or row.cancel_at is not None for row in _rows_seen_by(index, job, call)
        ):
            continue
        yield Violation("I18", f"{job.id}: {call.operation} was acknowledged, and not done")


def _is_within(moment: int, call: Call) -> bool:
    return call.began - NEARLY <= moment and (call.ended is None or call.answer != OK or moment <= call.ended + NEARLY)


def _rows_seen_by(index: Index, job: Job, call: Call) -> Iterator[Row]:
    """What the job may have been while the call lasted."""
    changes = index.changes.get(job.key, [])
    for change, later in zip_longest(changes, changes[1:]):
        is_there = call.ended is None or change.at <= call.ended + NEARLY
        if is_there and (later is None or later.at + COMMITTED_BY >= call.began):
            yield change.after


def reads_are_true(index: Index) -> Iterator[Violation]:
    """I16: what is seen of a job is what it was then: its status, and which try."""
    for call in index.facts.calls:
        job = index.by_id.get(call.job) if call.job else None
        if call.seen is None or job is None:
            continue
        seen = call.seen["status"], call.seen["attempt"]
        were = {_shown(row) for row in _rows_seen_by(index, job, call)}
        if seen not in were:
            words = ", ".join(f"{status} (try {attempt})" for status, attempt in sorted(were))
            yield Violation("I16", f"{job.id} was seen as {seen[0]} (try {seen[1]}), and was {words or 'not there'}")


def _shown(row: Row) -> tuple[str, int]:
    """Its status and its try as users see them: a job that was claimed, and has not begun, is as it was before."""
    if row.state == JobState.RUNNING and row.started_at is None:
        was_tried = row.attempt > 1 or row.losses or row.deaths
        return (JobState.RETRYING if was_tried else JobState.WAITING).name, row.attempt - 1
    return row.state.name, row.attempt


def reads_never_go_back(index: Index) -> Iterator[Violation]:
    """I16: a job that somebody saw ended is seen so by all who ask later, until it is retried by hand."""
    seen: dict[JobId, tuple[int, str]] = {}
    rounds = _retried(index)
    for began, ended, job, status in sorted(_reads(index)):
        before = seen.get(job)
        if before is not None and before[0] < began and status not in ENDED and job not in rounds:
            yield Violation("I16", f"{job} was seen as {before[1]}, and later as {status}")
        if status in ENDED and (before is None or ended < before[0]):
            seen[job] = (ended, status)


def _reads(index: Index) -> Iterator[tuple[int, int, JobId, str]]:
    """When each look began and ended, at which job, and the status it saw."""
    for call in index.facts.calls:
        if call.seen is not None and call.job is not None and call.ended is not None:
            yield call.began, call.ended, call.job, str(call.seen["status"])


def _retried(index: Index) -> set[JobId]:
    """Jobs that somebody asked to be run again, told so or not."""
    return {call.job for call in index.facts.calls if call.operation == RETRY and call.job is not None}
