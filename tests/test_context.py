"""What a handler can learn of its own job and say about it."""

from __future__ import annotations

import contextvars
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any, NoReturn

import pytest
from runtime_support import Notes, a_job

from yaotask import current_job
from yaotask.clock import instant
from yaotask.context import current
from yaotask.errors import ClaimLost, InvalidPayload, NoCurrentJob, ResultNotJson
from yaotask.jobs import MAX_ID
from yaotask.values import dumps


class NothingIsJson(Notes):
    def encode(self, value: Any) -> NoReturn:
        raise ResultNotJson("is a set")


class JsonNotes(Notes):
    def encode(self, value: Any) -> str:
        return dumps(value)


class Vector:
    """Like an array of numpy: a comparison has no single answer."""

    def __eq__(self, other: object) -> NoReturn:
        raise ValueError("ambiguous")


# --- who it is ---------------------------------------------------------------------------------------------


def test_there_is_no_job_outside_a_handler() -> None:
    with pytest.raises(NoCurrentJob):
        current_job()


def test_threads_that_inherit_the_context_know_the_job() -> None:
    job, inside, seen = a_job(), contextvars.copy_context(), list[object]()
    inside.run(current.set, job)
    thread = threading.Thread(target=inside.copy().run, args=(lambda: seen.append(current_job()),))
    thread.start()
    thread.join()

    assert seen == [job]


def test_a_job_is_shown_by_its_name() -> None:
    assert repr(a_job(args=["secret"])) == "<Job mail.12>"


def test_a_job_says_what_its_claim_says() -> None:
    job = a_job(attempt=2, generation=1, args=["a"], payload={"b": 1}, attempts=5)

    assert (job.id, job.task, job.name) == (12, "mail", "mail.12")
    assert (job.attempt, job.attempts, job.generation) == (2, 5, 1)
    assert (job.args, job.payload) == (["a"], {"b": 1})


@pytest.mark.parametrize(("timeout", "expected"), [(None, 30_000), (500, 500)])
def test_the_deadline_counts_from_the_start_of_the_attempt(timeout: int | None, expected: int) -> None:
    assert a_job(timeout=timeout).deadline == instant(0) + timedelta(milliseconds=expected)


# --- progress ------------------------------------------------------------------------------------------------


def test_progress_is_stored_and_announced() -> None:
    desk = Notes.empty()
    a_job(desk).progress(3, 10, "sent 3")

    assert desk.stored == [{"current": 3, "total": 10, "message": "sent 3"}]
    assert desk.announced == [(3, 10, "sent 3")]


def test_progress_of_one_number_is_percent() -> None:
    desk = Notes.empty()
    a_job(desk).progress(50)

    assert desk.announced == [(50, 100, None)]


def test_fractions_are_rounded_down() -> None:
    desk = Notes.empty()
    a_job(desk).progress(2.9, 3.9)  # type: ignore[arg-type]

    assert desk.announced == [(2, 3, None)]


@pytest.mark.parametrize("number", [-1, float("nan"), float("inf"), MAX_ID + 1, "3", None])
def test_a_number_that_is_none_is_refused_and_nothing_is_said(number: Any) -> None:
    desk = Notes.empty()
    with pytest.raises(InvalidPayload, match=r"\$\.current"):
        a_job(desk).progress(number, 10)

    assert (desk.stored, desk.announced) == ([], [])


def test_there_are_no_more_steps_than_a_store_can_hold() -> None:
    desk = Notes.empty()
    with pytest.raises(InvalidPayload, match=r"\$\.total: must be a number from 0 to 2\*\*31 - 1"):
        a_job(desk).progress_step("upload", 1, 2**31)

    assert desk.stored == []


def test_steps_are_progress_too() -> None:
    desk = Notes.empty()
    a_job(desk).progress_step("transcode", 2, 5, "half way")

    assert desk.stored == [
        {
            "current": 2,
            "total": 5,
            "message": "half way",
            "step": "transcode",
            "completed_steps": 2,
            "total_steps": 5,
        }
    ]


def test_an_attempt_that_is_over_can_say_nothing_more() -> None:
    desk = Notes.empty()
    job = a_job(desk)
    job.over = True

    for say in (job.progress, job.count, job.set_result):
        with pytest.raises(ClaimLost, match=r"mail\.12"):
            say(1)
    assert (desk.stored, desk.announced) == ([], [])


# --- counts and the result ---------------------------------------------------------------------------------------


def test_counts_add_up() -> None:
    desk = Notes.empty()
    job = a_job(desk)
    job.count(success=2)
    job.count(success=1, failure=1, ignored=3)

    assert desk.stored[-1] == {"success_count": 3, "fail_count": 1, "ignored_count": 3}


def test_counts_from_many_threads_add_up() -> None:
    job = a_job()
    with ThreadPoolExecutor(8) as threads:
        for _ in range(2_000):
            threads.submit(job.count, success=1)

    assert job.unsaved()["success_count"] == 2_000


def test_a_job_that_says_nothing_has_nothing_to_store() -> None:
    assert a_job().unsaved() == {}


def test_set_result_is_stored_at_once() -> None:
    desk = Notes.empty()
    job = a_job(desk)
    job.set_result({"a": 1})

    assert desk.stored == [{"result": "{'a': 1}"}]
    assert job.result == "{'a': 1}"


def test_a_result_that_is_not_json_changes_nothing() -> None:
    desk = NothingIsJson.empty()
    job = a_job(desk)
    with pytest.raises(ResultNotJson):
        job.set_result({1})

    assert (desk.stored, job.result) == ([], None)


# --- extra ---------------------------------------------------------------------------------------------------------


def test_extra_of_an_earlier_try_is_there_and_unchanged_it_is_not_stored_again() -> None:
    job = a_job(JsonNotes.empty(), extra={"seen": [1]})

    assert job.extra == {"seen": [1]}
    assert job.unsaved() == {}


def test_what_is_put_deep_into_extra_is_stored() -> None:
    job = a_job(JsonNotes.empty(), extra={"seen": [1]})
    job.extra["seen"].append(2)

    assert job.unsaved() == {"extra": '{"seen":[1,2]}'}


def test_extra_goes_with_the_next_report() -> None:
    desk = JsonNotes.empty()
    job = a_job(desk)
    job.extra["at"] = "page 3"
    job.progress(1)

    assert desk.stored == [{"extra": '{"at":"page 3"}', "current": 1, "total": 100, "message": None}]


def test_extra_may_hold_what_cannot_be_compared() -> None:
    job = a_job(Notes.empty(), extra={"at": 1})
    job.extra["at"] = Vector()

    assert "Vector" in job.unsaved()["extra"]
