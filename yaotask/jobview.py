"""A job as users get it from every door: one dict with the fields of the contract."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from yaotask import masking
from yaotask.clock import rfc3339
from yaotask.definitions.model import Definition
from yaotask.jobs import JobState, name_of
from yaotask.signatures import Parameters
from yaotask.values import loads

Row = Mapping[str, Any]
View = dict[str, Any]

MICROSECONDS_PER_MS = 1_000


def status(row: Row) -> str:
    """The status that users see: a claim that has not started yet shows as what it was before it."""
    if is_unstarted(row):
        return "RETRYING" if was_tried(row) else "WAITING"
    if row["state"] == JobState.SUCCESS and row["fail_count"]:
        return "PARTIAL"
    return name_of(row["state"])


def is_unstarted(row: Row) -> bool:
    """Whether a worker has claimed it whose handler has not begun."""
    return bool(row["state"] == JobState.RUNNING and row["started_at"] is None)


def was_tried(row: Row) -> bool:
    """Whether an unstarted claim is of a job that was tried, or lost, before."""
    return bool(row["attempt"] > 1 or row["losses"] or row["deaths"])


def view(row: Row, definition: Definition | None, parameters: Parameters | None) -> View:
    """The job; `definition` and the handler's `parameters` where they are known here."""
    return {
        **_identity(row, definition),
        **_progress(row),
        **_given(row, definition, parameters),
        **_tries(row, definition),
        **_ending(row),
        **_times(row),
    }


def _identity(row: Row, definition: Definition | None) -> View:
    return {
        "id": row["id"],
        "task": row["task"],
        "task_id": f"{row['task']}.{row['id']}",
        "task_type": row["task"],
        "name": definition.name if definition else row["task"],
        "queue_name": row["queue"],
        "status": status(row),
        "cancel_requested": row["state"] == JobState.RUNNING and row["cancel_at"] is not None,
    }


def _progress(row: Row) -> View:
    current, total = row["current"] or 0, row["total"] or 0
    return {
        "current": current,
        "total": total,
        "message": row["message"] or "",
        "progress": min(100, current * 100 // total) if total else 0,
        "step": row["step"],
        "completed_steps": row["completed_steps"],
        "total_steps": row["total_steps"],
        "success_count": row["success_count"],
        "fail_count": row["fail_count"],
    }


def _given(row: Row, definition: Definition | None, parameters: Parameters | None) -> View:
    args, payload = loads(row["args"]), loads(row["payload"])
    if definition is None:
        args, payload = masking.everything(args, payload)
    elif definition.sensitive:
        args = masking.args(args, definition.sensitive, parameters)
        payload = masking.members(payload, definition.sensitive)
    return {"args": args, "payload": payload, "priority": row["priority"], "created_by": row["created_by"]}


def _tries(row: Row, definition: Definition | None) -> View:
    unstarted = is_unstarted(row)
    attempt = row["attempt"] - unstarted
    attempts = row["attempts"]
    if attempts is None:
        attempts = definition.attempts if definition else 0
    timeout = row["timeout"]
    if timeout is None and definition is not None:
        timeout = round(definition.timeout.total_seconds() * 1_000)
    return {
        "attempt": attempt,
        "attempts": attempts,
        "retry_count": max(0, attempt - 1),
        "losses": row["losses"],
        "max_retries": attempts,
        "retry_strategy": definition.backoff.strategy if definition else None,
        "retry_interval": definition.attempt_after.total_seconds() if definition else None,
        "timeout": None if timeout is None else timeout / 1_000,
        "worker": None if unstarted else row["worker"],
    }


def _ending(row: Row) -> View:
    response = None if row["result"] is None else loads(row["result"])
    return {
        "response": response,
        "result": response,
        "extra_data": None if row["extra"] is None else loads(row["extra"]),
        "error": row["error"],
        "error_type": row["error_type"],
        "traceback": row["traceback"],
    }


def _times(row: Row) -> View:
    names = ("created_at", "updated_at", "run_at", "started_at", "finished_at")
    started, finished = row["started_at"], row["finished_at"]
    # Nothing waits before it is added, whatever time was asked for.
    ready = max(row["run_at"], row["created_at"])
    return {
        **{name: rfc3339(row[name]) for name in names},
        "duration_ms": None if started is None or finished is None else (finished - started) / MICROSECONDS_PER_MS,
        "wait_ms": None if started is None else max(0, started - ready) / MICROSECONDS_PER_MS,
    }


ATTEMPT_FIELDS = ("generation", "attempt", "outcome", "worker", "error_type", "error", "traceback")


def attempt_view(row: Row) -> View:
    """One recorded try of a job."""
    times = {name: rfc3339(row[name]) for name in ("started_at", "finished_at")}
    return {**{name: row[name] for name in ATTEMPT_FIELDS}, **times}
