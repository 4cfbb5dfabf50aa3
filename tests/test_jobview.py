"""A job as users see it: every field, whatever happened to it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import anyio
import pytest
from runtime_support import change, ended, reaches

from yaotask import App, current_job, process

pytest_plugins = ["door_support", "runtime_fixtures"]

FIELD_NAMES = """
    id task status cancel_requested current total message response task_id task_type name queue_name priority args
    payload created_by attempt attempts retry_count losses max_retries retry_strategy retry_interval timeout progress
    step completed_steps total_steps success_count fail_count result extra_data error error_type traceback worker
    created_at updated_at run_at started_at finished_at duration_ms wait_ms
"""
FIELDS = FIELD_NAMES.split()

RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")


def test_a_job_that_was_just_added(app: App) -> None:
    job = app.get(f"mail.{app.tasks['mail'].add('Hello', to='ann')}")
    moment = job["created_at"]

    assert set(job) == set(FIELDS)
    assert RFC3339.fullmatch(moment)
    assert job == {
        **dict.fromkeys(FIELDS),
        "id": 1,
        "task": "mail",
        "task_id": "mail.1",
        "task_type": "mail",
        "name": "Send mail",
        "queue_name": "mail",
        "status": "WAITING",
        "cancel_requested": False,
        "current": 0,
        "total": 0,
        "message": "",
        "progress": 0,
        "success_count": 0,
        "fail_count": 0,
        "args": ["Hello"],
        "payload": {"to": "ann"},
        "priority": 0,
        "attempt": 0,
        "attempts": 0,
        "retry_count": 0,
        "losses": 0,
        "max_retries": 0,
        "retry_strategy": "fixed",
        "retry_interval": 0.2,
        "timeout": 300.0,
        "created_at": moment,
        "updated_at": moment,
        "run_at": moment,
    }


def test_a_view_is_json(app: App) -> None:
    job = app.get(f"mail.{app.tasks['mail'].add('Hello')}")

    assert json.loads(json.dumps(job)) == job


def test_what_was_said_at_the_add_wins_over_the_definition(app: App) -> None:
    mail = app.tasks["mail"].options(priority=7, attempts=2, timeout="5s", created_by="ann", delay="1h")
    job = app.get(f"mail.{mail.add()}")

    assert (job["priority"], job["attempts"], job["max_retries"], job["timeout"]) == (7, 2, 2, 5.0)
    assert job["created_by"] == "ann"
    waits = datetime.fromisoformat(job["run_at"]) - datetime.fromisoformat(job["created_at"])
    assert timedelta(minutes=59) < waits <= timedelta(hours=1)


async def test_a_job_that_succeeded(stage: Callable[..., App]) -> None:
    async def handler(task_id: int) -> Any:
        job = current_job()
        job.extra["seen"] = [1]
        job.count(success=2)
        job.progress_step("transcode", 2, 3, "two")
        return {"sent": 2}

    app = stage(handler)
    async with app.running():
        job = await ended(app, await app.tasks["mail"].aadd())

    assert (job["status"], job["response"], job["result"]) == ("SUCCESS", {"sent": 2}, {"sent": 2})
    assert (job["current"], job["total"], job["progress"], job["message"]) == (2, 3, 66, "two")
    assert (job["step"], job["completed_steps"], job["total_steps"]) == ("transcode", 2, 3)
    assert (job["success_count"], job["fail_count"], job["extra_data"]) == (2, 0, {"seen": [1]})
    assert (job["attempt"], job["retry_count"]) == (1, 0)
    assert (job["error"], job["error_type"], job["traceback"]) == (None, None, None)
    assert RFC3339.fullmatch(job["started_at"])
    assert RFC3339.fullmatch(job["finished_at"])
    assert job["duration_ms"] >= 0
    assert job["wait_ms"] >= 0


async def test_a_job_that_failed_after_its_retries(stage: Callable[..., App]) -> None:
    def handler(task_id: int) -> None:
        current_job().extra["tries"] = current_job().attempt
        raise ValueError("no")

    app = stage(handler, attempts=2, attempt_after=0)
    async with app.running():
        id = await app.tasks["mail"].aadd()
        job = await ended(app, id)
        tries = await app.tasks["mail"].aattempts(id)

    assert (job["status"], job["error"], job["error_type"]) == ("FAILURE", "no", "ValueError")
    assert job["traceback"].endswith("ValueError: no")
    assert (job["attempt"], job["attempts"], job["retry_count"]) == (3, 2, 2)
    assert job["extra_data"] == {"tries": 3}
    assert [(one["attempt"], one["error"]) for one in tries] == [(1, "no"), (2, "no"), (3, "no")]


async def test_a_success_with_failures_counted_is_partial(stage: Callable[..., App]) -> None:
    app = stage(lambda task_id: current_job().count(success=3, failure=1))
    async with app.running():
        id = await app.tasks["mail"].aadd()
        job = await ended(app, id)

        assert (job["status"], job["success_count"], job["fail_count"]) == ("PARTIAL", 3, 1)
        assert await app.astatus("mail", [id]) == {id: "PARTIAL"}


@pytest.mark.parametrize(
    ("current", "total", "percent"),
    [(0, 3, 0), (1, 3, 33), (2, 3, 66), (999, 1_000, 99), (3, 3, 100), (9, 3, 100), (5, 0, 0)],
)
async def test_percent_is_rounded_down(stage: Callable[..., App], current: int, total: int, percent: int) -> None:
    app = stage(lambda task_id: process("tasks.mail.progress", task_id, current, total))
    async with app.running():
        job = await ended(app, await app.tasks["mail"].aadd())

    assert (job["current"], job["total"], job["progress"]) == (current, total, percent)


@pytest.mark.parametrize(
    ("before", "shown"),
    [
        ("attempt = 1", ("WAITING", 0)),
        ("attempt = 2", ("RETRYING", 1)),
        ("attempt = 1, losses = 1", ("RETRYING", 0)),
        ("attempt = 1, deaths = 1", ("RETRYING", 0)),
    ],
)
async def test_a_claim_that_has_not_started_shows_as_what_it_was(
    stage: Callable[..., App], before: str, shown: tuple[str, int]
) -> None:
    leave = anyio.Event()

    async def handler(task_id: int) -> None:
        await leave.wait()

    app = stage(handler)
    async with app.running():
        id = await app.tasks["mail"].aadd()
        await reaches(app, id, "RUNNING")
        change(app, f"UPDATE yaotask_jobs SET started_at = NULL, {before}")  # noqa: S608 - the test's own words
        job = await app.aget(f"mail.{id}")
        status = await app.astatus("mail", [id])
        listed = await app.alist("mail", status=shown[0])
        leave.set()

    assert (job["status"], job["attempt"], job["worker"]) == (*shown, None)
    assert status == {id: shown[0]}
    assert [one["status"] for one in listed["items"]] == [shown[0]]


def test_where_the_handler_cannot_be_found_all_positional_arguments_of_a_sensitive_task_are_masked(
    stage: Callable[..., App],
) -> None:
    app = stage(lambda task_id: None, sensitive=["card"], process="scripts.gone.Send")
    job = app.get(f"mail.{app.tasks['mail'].add('Ann', 4111, card=4111, to='ann')}")

    assert (job["args"], job["payload"]) == (["***", "***"], {"card": "***", "to": "ann"})


def test_a_job_is_the_same_in_a_list(app: App) -> None:
    job = app.get(f"mail.{app.tasks['mail'].add('Hello')}")

    assert app.list("mail")["items"] == [job]
