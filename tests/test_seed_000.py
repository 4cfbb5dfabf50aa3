"""Following the state of work elsewhere: many states at once, failures that are retried or given up: seed 000."""

from __future__ import annotations

import pytest
from runtime_support import ended
from seed_support import OpenApp, reaches

pytest_plugins = ["seed_fixtures"]

SYNC = """
    from yaotask import current_job

    ready = []

    def Send(task_id, what):
        job = current_job()
        job.extra["tries"] = job.extra.get("tries", 0) + 1
        job.extra["来源"] = what
        job.count(success=3, failure=2 if what == "partly" else 0)
        if what == "fail" and not ready:
            raise ValueError("同步失败")
        return what

    def Ready():
        ready.append(True)
"""


async def test_the_states_of_many_jobs_come_in_one_answer(open_app: OpenApp) -> None:
    app = open_app(SYNC)
    async with app.running():
        ids = [await app.acall("tasks.mail.add", what) for what in ("all", "fail", "partly")]
        later = (await app.acall("tasks.mail.submit", {"args": ["all"], "delay": "1h"}))["id"]
        for id in ids:
            await ended(app, id)
        states = await app.acall("tasks.mail.status", [*ids, later, 999])

    assert states == {ids[0]: "SUCCESS", ids[1]: "FAILURE", ids[2]: "PARTIAL", later: "WAITING"}


async def test_a_failure_can_be_retried_and_runs_again_with_all_its_tries(open_app: OpenApp) -> None:
    app = open_app(SYNC)
    async with app.running():
        id = await app.acall("tasks.mail.add", "fail")
        failed = await ended(app, id)
        await app.acall("scripts.mail.Ready")
        await app.acall("tasks.mail.retry", id)
        done = await ended(app, id)

    assert (failed["status"], failed["error"]) == ("FAILURE", "同步失败")
    assert (done["status"], done["attempt"], done["error"], done["response"]) == ("SUCCESS", 1, None, "fail")


async def test_a_failure_can_be_given_up(open_app: OpenApp) -> None:
    app = open_app(SYNC)
    async with app.running():
        id = await app.acall("tasks.mail.add", "fail")
        await ended(app, id)
        await app.acall("tasks.mail.cancel", id)
        job = await reaches(app, id, "CANCELLED")

    assert job["error"] == "同步失败"


async def test_a_success_that_counted_failures_shows_as_partial_and_is_found_as_that(open_app: OpenApp) -> None:
    app = open_app(SYNC)
    async with app.running():
        id = await app.acall("tasks.mail.add", "partly")
        await app.acall("tasks.mail.add", "all")
        job = await ended(app, id)
        await ended(app, 2)

    assert (job["status"], job["success_count"], job["fail_count"]) == ("PARTIAL", 3, 2)
    for word in ("PARTIAL", "partial", 4):
        found = await app.alist("mail", status=word)
        assert [one["id"] for one in found["items"]] == [id]


async def test_extra_data_is_kept_through_failure_and_into_the_next_try(open_app: OpenApp) -> None:
    app = open_app(SYNC, attempts=1, attempt_after=0)
    async with app.running():
        id = await app.acall("tasks.mail.add", "fail")
        job = await ended(app, id)

    assert job["status"] == "FAILURE"
    assert job["extra_data"] == {"tries": 2, "来源": "fail"}


@pytest.mark.parametrize("word", [2, "2", "completed", "success"])
async def test_a_state_is_found_by_its_words_and_its_number(open_app: OpenApp, word: object) -> None:
    app = open_app(SYNC)
    async with app.running():
        await ended(app, await app.acall("tasks.mail.add", "all"))
        await ended(app, await app.acall("tasks.mail.add", "fail"))
        found = await app.acall("tasks.mail.list", status=word)

    assert [job["id"] for job in found["items"]] == [1]
