"""The table of transitions, read backwards: which one made a job's row into what it is now.

A row that none of them explains was written by something that may not write it.
"""

from __future__ import annotations

from collections.abc import Callable

from yaotask.chaos.facts import Row
from yaotask.jobs import JobState

WAITING, RUNNING, SUCCESS, FAILURE = JobState.WAITING, JobState.RUNNING, JobState.SUCCESS, JobState.FAILURE
RETRYING, CANCELLED, IGNORED = JobState.RETRYING, JobState.CANCELLED, JobState.IGNORED
WAITS = (WAITING, RETRYING)

Rule = Callable[[Row, Row], bool]


def of_add(row: Row) -> bool:
    """T1: a job begins as WAITING, and nobody has had it."""
    return (row.state, row.fence, row.attempt, row.generation, row.worker) == (WAITING, 0, 0, 0, None)


def transition(before: Row, after: Row) -> str | None:
    """Which transition this was, as T2 to T11; None where there is none such."""
    return next((name for name, fits in _RULES if fits(before, after)), None)


def _claim(before: Row, after: Row) -> bool:
    return (
        before.state in WAITS
        and after.state == RUNNING
        and after.fence > before.fence
        and after.attempt == before.attempt + 1
        and after.generation == before.generation
        and after.worker is not None
        and after.started_at is None
        and after.cancel_at is None
        and after.counted == 0
        and _same_deaths(before, after)
    )


def _same_deaths(before: Row, after: Row) -> bool:
    return (after.losses, after.deaths) == (before.losses, before.deaths)


def _same_attempt(before: Row, after: Row) -> bool:
    same = (after.fence, after.attempt, after.generation) == (before.fence, before.attempt, before.generation)
    return same and after.counted == before.counted and _same_deaths(before, after)


def _own_end(before: Row, after: Row) -> bool:
    """What the owner of a claim writes, and nobody else."""
    return before.state == RUNNING and after.worker is None and _same_attempt(before, after)


def _may_fail(before: Row) -> bool:
    """One that was asked to stop ends as a success or as cancelled."""
    return before.cancel_at is None


def _success(before: Row, after: Row) -> bool:
    if not _own_end(before, after):
        return False
    return after.state == SUCCESS or (after.state == IGNORED and _may_fail(before))


def _retry(before: Row, after: Row) -> bool:
    return _own_end(before, after) and after.state == RETRYING and _may_fail(before)


def _failure(before: Row, after: Row) -> bool:
    return _own_end(before, after) and after.state == FAILURE and _may_fail(before)


def _lost(before: Row, after: Row) -> bool:
    return (
        before.state == RUNNING
        and after.state in (RETRYING, FAILURE)
        and after.worker is None
        and after.fence == before.fence + 1
        and after.attempt == before.attempt - (after.state == RETRYING)
        and after.generation == before.generation
        and after.deaths == before.deaths + 1
        and max(before.losses, 1) <= after.losses <= before.losses + 1
        and after.counted == before.counted
        and _may_fail(before)
    )


def _cancelled_waiting(before: Row, after: Row) -> bool:
    if after.state != CANCELLED or after.fence != before.fence + 1 or after.generation != before.generation:
        return False
    if after.counted or not _same_deaths(before, after):
        return False
    if before.state in WAITS:
        return after.attempt == before.attempt
    unstarted = before.state == RUNNING and before.started_at is None
    return unstarted and after.attempt == before.attempt - 1


def _cancelled_running(before: Row, after: Row) -> bool:
    if before.state != RUNNING or after.state != CANCELLED or after.worker is not None:
        return False
    if before.cancel_at is None or not _same_deaths(before, after):
        return False
    # Whoever buries its worker takes the claim away with it.
    same = after.attempt == before.attempt and after.generation == before.generation
    return same and after.fence in (before.fence, before.fence + 1)


def _handed_back(before: Row, after: Row) -> bool:
    was_tried = after.attempt > 0 or before.losses > 0
    return (
        before.state == RUNNING
        and after.state == (RETRYING if was_tried else WAITING)
        and after.worker is None
        and after.fence == before.fence
        and after.attempt == before.attempt - 1
        and after.generation == before.generation
        and after.counted == before.counted
        and _same_deaths(before, after)
        and _may_fail(before)
    )


def _again(before: Row, after: Row) -> bool:
    fresh = (after.attempt, after.losses, after.deaths, after.result, after.finished_at) == (0, 0, 0, None, None)
    next_round = after.generation == before.generation + 1 and after.fence == before.fence
    return before.state in (FAILURE, CANCELLED) and after.state == WAITING and next_round and fresh


def _given_up(before: Row, after: Row) -> bool:
    same = after.fence == before.fence and after.attempt == before.attempt and _same_deaths(before, after)
    return before.state == FAILURE and after.state == CANCELLED and after.generation == before.generation + 1 and same


def _in_place(before: Row, after: Row) -> bool:
    """T3, and asking for the end: the attempt goes on, and is whose it was."""
    same = after.state == before.state and after.worker == before.worker and _same_attempt(before, after)
    # Who was asked to stop stays so.
    same = same and (before.cancel_at is None or after.cancel_at == before.cancel_at)
    if not before.state.is_terminal:
        return same
    return same and (after.result, after.finished_at) == (before.result, before.finished_at)


_RULES: tuple[tuple[str, Rule], ...] = (
    ("T2", _claim),
    ("T3", _in_place),
    ("T4", _success),
    ("T5", _retry),
    ("T6", _failure),
    ("T7", _lost),
    ("T8", _cancelled_waiting),
    ("T9", _cancelled_running),
    ("T10", _handed_back),
    ("T11", _again),
    ("T11", _given_up),
)
