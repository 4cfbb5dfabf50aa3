"""What callers were told against what is in the store: I1, I2, I16."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from yaotask.chaos.check.index import Index
from yaotask.chaos.facts import FAIL, OK, Call, JobId, Violation
from yaotask.jobs import TERMINAL

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
    return {call.job for call in index.facts.calls if call.operation == "retry" and call.job is not None}
