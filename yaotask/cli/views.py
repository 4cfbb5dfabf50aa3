"""A job as a person reads it: a page, a row, a line of its progress."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from yaotask.cli.text import compact, spread
from yaotask.observers.logs import escape

Job = dict[str, Any]

COLOURS = {
    "WAITING": "",
    "RUNNING": "cyan",
    "RETRYING": "yellow",
    "SUCCESS": "green",
    "PARTIAL": "yellow",
    "FAILURE": "red",
    "CANCELLED": "magenta",
    "IGNORED": "magenta",
}

HEADER = ("JOB", "STATUS", "PROGRESS", "TRY", "CREATED", "TOOK", "ABOUT")


def row(job: Job) -> tuple[str, ...]:
    """The job as a row under `HEADER`; the last cell is its error, message, response, or arguments and payload."""
    percent = f"{job['progress']}%" if job["total"] else ""
    tried = f"{job['attempt']}/{job['attempts'] + 1}" if job["attempt"] else ""
    created, duration = moment(job["created_at"]), took(job["duration_ms"])
    return (job["task_id"], job["status"], percent, tried, created, duration, about(job))


def about(job: Job) -> str:
    """What is most worth knowing of a job in half a line."""
    if job["cancel_requested"]:
        return "asked to stop"
    if job["error"] or job["error_type"]:
        return error_line(job)
    if job["response"] is not None:
        return compact(job["response"])
    payload = [compact(job["payload"])] if job["payload"] else []
    return str(job["message"] or "") or " ".join([*map(compact, job["args"]), *payload])


def fields(job: Job) -> Iterator[tuple[str, str]]:
    """The job as `(key, value)`; values that say nothing are empty."""
    yield "job", job["task_id"]
    yield "name", job["name"]
    yield "status", status(job)
    yield "progress", progress_note(job)
    yield "try", f"{job['attempt']} of at most {job['attempts'] + 1}"
    yield "lost", f"{job['losses']} times with the process that ran it" if job["losses"] > 1 else ""
    yield "args", " ".join(map(compact, job["args"]))
    yield "payload", spread(job["payload"]) if job["payload"] else ""
    yield "priority", str(job["priority"] or "")
    yield "created by", str(job["created_by"] or "")
    yield "worker", str(job["worker"] or "")
    yield "created", moment(job["created_at"])
    yield "runs at", moment(job["run_at"]) if job["status"] in ("WAITING", "RETRYING") else ""
    yield "started", moment(job["started_at"])
    yield "finished", moment(job["finished_at"])
    yield "waited", took(job["wait_ms"])
    yield "took", took(job["duration_ms"])
    yield "response", "" if job["response"] is None else spread(job["response"])
    yield "extra data", spread(job["extra_data"]) if job["extra_data"] else ""
    yield "error", error_line(job) if job["error"] or job["error_type"] else ""
    yield "traceback", str(job["traceback"] or "")


def status(job: Job) -> str:
    """Its status, and whether it is to end."""
    return f"{job['status']}, asked to stop" if job["cancel_requested"] else str(job["status"])


def change(job: Job) -> str:
    """One line of a job that is followed where no bar can be drawn."""
    return " ".join(filter(None, (job["task_id"], status(job), escape(progress_note(job)), escape(ending(job)))))


def ending(job: Job) -> str:
    """How a job ended, in words; empty while it has not."""
    match job["status"]:
        case "FAILURE":
            return error_line(job)
        case "SUCCESS" | "PARTIAL":
            return f"in {took(job['duration_ms'])}" if job["duration_ms"] is not None else ""
        case _:
            return ""


def error_line(job: Job) -> str:
    """`ValueError: no address`; the type alone where it has no message."""
    return ": ".join(str(part) for part in (job["error_type"], job["error"]) if part)


def progress_note(job: Job) -> str:
    """`30% (3/10) sent 3`; empty where nothing was reported."""
    counts = f"{job['progress']}% ({job['current']}/{job['total']})" if job["total"] else ""
    return " ".join(filter(None, (counts, str(job["message"] or ""))))


def bar_note(job: Job) -> str:
    """`3/10 sent 3`: what a bar that shows the percentage does not say itself."""
    counts = f"{job['current']}/{job['total']}" if job["total"] else ""
    return " ".join(filter(None, (counts, str(job["message"] or ""))))


def moment(text: str | None) -> str:
    """An instant of a job to the second: `2026-11-22 08:00:00Z`."""
    return f"{text[:10]} {text[11:19]}Z" if text else ""


def took(milliseconds: float | None) -> str:
    """A span as people say it: `12 ms`, `3.4 s`, `5 min 6 s`, `2 h 5 min`."""
    if milliseconds is None:
        return ""
    # Just below the next unit, so that nothing is rounded to 1000 ms or 60.0 s.
    if milliseconds < 999.5:
        return f"{milliseconds:.0f} ms"
    if milliseconds < 59_950:
        return f"{milliseconds / 1_000:.1f} s"
    minutes, seconds = divmod(round(milliseconds / 1_000), 60)
    return f"{minutes} min {seconds} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
