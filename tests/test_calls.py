"""Process calls: what a name stands for, what it takes, what it answers."""

from __future__ import annotations

import logging
import threading
from typing import Any

import anyio.to_thread
import pytest

from yaotask import (
    App,
    BlockingCall,
    InvalidPayload,
    JobNotFound,
    QueueFull,
    UnknownName,
    UnknownTask,
    WrongState,
)

pytest_plugins = ["door_support"]


# --- names ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tasks.mail.add", "Tasks.mail.Add", "TASKS.mail.ADD"])
def test_group_and_method_may_be_written_in_any_case(app: App, name: str) -> None:
    assert app.call(name, "Hello") == 1


def test_the_id_of_a_task_keeps_its_case(app: App) -> None:
    with pytest.raises(UnknownTask, match='did you mean "mail"'):
        app.call("tasks.Mail.add")


def test_the_name_of_a_function_keeps_its_case(app: App) -> None:
    assert app.call("Scripts.mail.Upper", "a") == "A"
    with pytest.raises(Exception, match='did you mean "Upper"'):
        app.call("scripts.mail.upper", "a")


def test_the_id_of_a_task_may_have_dots(app: App) -> None:
    id = app.call("tasks.media.video.add", "x")

    assert app.call("tasks.media.video.get", f"media.video.{id}")["task_id"] == "media.video.1"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("task.mail.add", '"task.mail.add" is no process; did you mean "tasks"?'),
        ("add", '"add" is no process'),
        ("", '"" is no process'),
        ("tasks", '"tasks" is no process; there are tasks.<id>.<method> and scripts.<path>.<Function>'),
        ("tasks.mail.ad", 'there is no method "ad" of tasks; did you mean "add"?'),
        ("tasks.mail", 'there is no method "mail" of tasks'),
        ("tasks.mial.add", 'there is no task "mial"; did you mean "mail"?'),
        ("tasks..add", 'there is no task ""'),
        ("batches.x.get", '"batches.x.get" is no process'),
        ("tasks.mail.why", 'there is no method "why" of tasks'),
    ],
)
async def test_an_unknown_name_says_what_was_meant(app: App, name: str, told: str) -> None:
    def call() -> None:
        app.call(name)

    for attempt in (app.acall(name), anyio.to_thread.run_sync(call)):
        with pytest.raises(UnknownName) as unknown:
            await attempt
        assert told in str(unknown.value)


@pytest.mark.parametrize(
    ("name", "args", "told"),
    [
        ("tasks.mail.get", (), "tasks.mail.get: missing a required argument: 'id'"),
        ("tasks.mail.Cancel", (1, 2), "tasks.mail.Cancel: too many positional arguments"),
        ("tasks.mail.progress", (1,), "tasks.mail.progress: missing a required argument: 'current'"),
    ],
)
async def test_arguments_that_a_method_does_not_take_are_a_type_error(
    app: App, name: str, args: tuple[Any, ...], told: str
) -> None:
    with pytest.raises(TypeError) as refused:
        await app.acall(name, *args)

    assert str(refused.value) == told


# --- add and submit ------------------------------------------------------------------------------------------


def test_add_answers_the_id_and_takes_anything(app: App) -> None:
    id = app.call("tasks.mail.add", "Hello", 1, None, name="n", task="t", self="s", id=7)
    job = app.get(f"mail.{id}")

    assert job["args"] == ["Hello", 1, None]
    assert job["payload"] == {"name": "n", "task": "t", "self": "s", "id": 7}


async def test_a_refused_add_answers_0_and_the_log_says_why(app: App, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(5):
        await app.acall("tasks.mail.add")
    answers = [await app.acall("tasks.mail.add"), await app.acall("tasks.checked.add", to=1)]

    assert answers == [0, 0]
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING] == [
        "a job of mail was refused: the queue of mail is full: 5 jobs wait already; add later, or raise `size` in its"
        " definition",
        "a job of checked was refused: $.payload.to: must be text",
    ]


async def test_a_payload_may_name_its_members_as_our_own_arguments_are_named(app: App) -> None:
    odd = {"self": 1, "function": 2, "name": 3, "args": 4}

    assert await app.tasks["mail"].aadd(**odd) == 1
    assert await app.acall("tasks.mail.add", **odd) == 2
    assert await app.acall("scripts.mail.Send", 5, **odd) == {"args": (), "payload": odd}


def test_submit_answers_the_job(app: App) -> None:
    wish = {"args": ["Hello"], "payload": {"to": "ann"}, "priority": "high", "attempts": 2, "created_by": "ann"}
    job = app.call("tasks.mail.submit", wish)

    assert (job["id"], job["args"], job["payload"]) == (1, ["Hello"], {"to": "ann"})
    assert (job["priority"], job["attempts"], job["created_by"]) == (10, 2, "ann")


async def test_submit_takes_its_options_by_name_as_well(app: App) -> None:
    job = await app.acall("tasks.mail.submit", {"args": ["Hello"]}, key="k", timeout="5m")

    assert job["timeout"] == 300
    assert (await app.acall("tasks.mail.submit", key="k"))["id"] == job["id"]


async def test_submit_raises_where_add_answers_0(app: App) -> None:
    for _ in range(5):
        await app.acall("tasks.mail.submit")

    with pytest.raises(QueueFull):
        await app.acall("tasks.mail.submit", {})
    with pytest.raises(InvalidPayload, match=r"\$\.payload\.to"):
        await app.acall("tasks.checked.submit", {"payload": {"to": 5}})


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"arg": []}, 'submit takes no "arg"; did you mean "args"?'),
        ({"connection": 1}, 'submit takes no "connection"'),
        ({"unique": "x"}, 'submit takes no "unique"'),
        ({"args": "Hello"}, "$.args: must be a list"),
        ({"payload": [1]}, "$.payload: must be a mapping"),
        ([1], "$: must be a mapping, not a list"),
        ({"priority": "top"}, "$.priority: must be an integer, or low, normal or high"),
    ],
)
def test_submit_refuses_what_it_does_not_know(app: App, given: Any, told: str) -> None:
    with pytest.raises((UnknownName, InvalidPayload)) as refused:
        app.call("tasks.mail.submit", given)

    assert told in str(refused.value)
    assert app.call("tasks.mail.list")["items"] == []


# --- the other methods ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("id", [1, "1", "mail.1"])
async def test_a_job_is_found_by_all_its_names(app: App, id: object) -> None:
    await app.acall("tasks.mail.add", "Hello")

    assert (await app.acall("tasks.mail.get", id))["args"] == ["Hello"]


@pytest.mark.parametrize("method", ["get", "cancel", "retry", "attempts", "progress"])
@pytest.mark.parametrize("id", [9, "9", "mail.9", "sms.1", None, True, 1.0])
async def test_a_job_that_is_not_there_is_not_found(app: App, method: str, id: object) -> None:
    more = (1,) if method == "progress" else ()
    with pytest.raises(JobNotFound, match=r"it was never added$"):
        await app.acall(f"tasks.mail.{method}", id, *more)


def test_status_takes_many_ids_and_leaves_out_those_that_are_not_there(app: App) -> None:
    ids = [app.call("tasks.mail.add") for _ in range(3)]
    app.call("tasks.mail.cancel", ids[1])

    assert app.call("tasks.mail.status", [*ids, "mail.1", 99]) == {1: "WAITING", 2: "CANCELLED", 3: "WAITING"}
    assert app.call("tasks.mail.status", []) == {}


@pytest.mark.parametrize("ids", [1, "12", None, {"1": 1}, b"1"])
def test_status_refuses_what_is_no_list(app: App, ids: object) -> None:
    with pytest.raises(InvalidPayload, match=r"\$\.ids: must be a list of ids"):
        app.call("tasks.mail.status", ids)


def test_list_is_of_one_task_or_of_all(app: App) -> None:
    app.call("tasks.mail.add")
    app.call("tasks.strict.add", "ann")

    assert [job["task_id"] for job in app.call("tasks.list")["items"]] == ["strict.1", "mail.1"]
    assert [job["task_id"] for job in app.call("Tasks.mail.List", {"status": "pending"})["items"]] == ["mail.1"]
    assert app.call("tasks.mail.list", status="failed")["items"] == []


def test_a_waiting_job_is_cancelled_and_retried(app: App) -> None:
    id = app.call("tasks.mail.add")
    app.call("tasks.mail.cancel", id)

    with pytest.raises(WrongState):
        app.call("tasks.mail.cancel", id)
    app.call("tasks.mail.retry", id)
    assert app.call("tasks.mail.get", id)["status"] == "WAITING"
    with pytest.raises(WrongState):
        app.call("tasks.mail.retry", id)
    assert app.call("tasks.mail.attempts", id) == []


def test_progress_of_a_job_that_does_not_run_is_a_wrong_state(app: App) -> None:
    id = app.call("tasks.mail.add")

    with pytest.raises(WrongState, match="only a running job can report progress"):
        app.call("tasks.mail.progress", id, 1, 2, "x")


# --- loops and threads ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tasks.mail.add", "tasks.mail.get", "tasks.mail.progress", "scripts.mail.Upper"])
async def test_a_call_that_waits_is_refused_on_a_loop(app: App, name: str) -> None:
    with pytest.raises(BlockingCall, match=rf'use `await aprocess\("{name}", ...\)`'):
        app.call(name, 1, 2)


async def test_a_method_that_waits_is_refused_on_a_loop(app: App) -> None:
    with pytest.raises(BlockingCall, match="use its async twin, `aadd`"):
        app.tasks["mail"].add("Hello")
    with pytest.raises(BlockingCall, match="`aget`"):
        app.get("mail.1")


async def test_scripts_are_called_from_both_kinds_of_callers(app: App) -> None:
    assert await app.acall("scripts.mail.Upper", "a") == "A"
    assert await app.acall("scripts.mail.Where") == str(app.root)
    assert await app.acall("scripts.mail.Here") == str(app.root)
    assert await anyio.to_thread.run_sync(app.call, "scripts.mail.Where") == str(app.root)


def test_a_script_adds_to_the_app_that_calls_it(app: App) -> None:
    id = app.call("scripts.mail.Add", "Hello", to="ann")

    assert app.get(f"mail.{id}")["payload"] == {"to": "ann"}


def test_calls_from_many_threads_find_what_each_has_added(app: App) -> None:
    seen: list[bool] = []

    def work() -> None:
        for number in range(20):
            id = app.call("tasks.bulk.add", number)
            seen.append(app.call("tasks.bulk.get", id)["args"] == [number])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert seen == [True] * 80
