"""What type checkers say of programs that use yaotask. The checks are mypy's, which runs over this file.

It also fails for a `type: ignore` that is not needed: what is refused below must stay refused.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, assert_type

from yaotask import App, Fail, Job, QueueFull, Retry, aprocess, current_app, current_job, process

pytest_plugins = ["door_support"]


def test_what_threads_call_has_its_types(app: App) -> None:
    mail = app.tasks["mail"]
    id = mail.options(priority="high", delay=timedelta(seconds=1), key="k").add("Hello", to="ann")

    assert_type(id, int)
    assert_type(app.tasks["bulk"].add_many([["a"], {"to": "b"}]), list[int])
    assert_type(mail.get(id), dict[str, Any])
    assert_type(mail.status([id, "mail.1"]), dict[int, str])
    assert_type(app.list("mail", status="failed"), dict[str, Any])
    assert_type(app.attempts(f"mail.{id}"), list[dict[str, Any]])
    assert_type(app.call("scripts.mail.Upper", "a"), Any)
    for job in app.follow(f"mail.{mail.options(delay=0).add()}"):
        assert_type(job, dict[str, Any])
        if job["status"] == "WAITING":
            app.cancel(job["task_id"])

    assert id == 1


async def test_what_loops_call_has_its_types(app: App) -> None:
    async with App(app.root) as other:
        id = await other.tasks["mail"].aadd("Hello")
        assert_type(id, int)
        assert_type(await other.tasks["bulk"].aadd_many([[]]), list[int])
        assert_type(await other.aget(f"mail.{id}"), dict[str, Any])
        await other.acancel(f"mail.{id}")
        async for job in other.afollow(f"mail.{id}"):
            assert_type(job, dict[str, Any])

    assert id == 1


def test_what_handlers_use_has_its_types() -> None:
    def handler(task_id: int) -> None:
        assert_type(current_job(), Job)
        assert_type(current_app(), App)
        assert_type(process("tasks.mail.get", task_id), Any)
        raise Retry(after="5m") from Fail("bad", response={"a": 1})

    full = QueueFull("mail", 5, [1])
    assert_type(full.task, str)

    assert handler.__name__ == "handler"


if TYPE_CHECKING:

    async def _refused(app: App) -> None:
        app.tasks["mail"].options(prioritty=5)  # type: ignore[call-arg]
        app.tasks["mail"].options(5)  # type: ignore[call-arg, arg-type]
        app.tasks["mail"].options(attempts="3")  # type: ignore[arg-type]
        app.tasks["mail"].options(delay=[1])  # type: ignore[arg-type]
        app.tasks["mail"].options(connection="sqlite://")  # type: ignore[arg-type]
        app.tasks["mail"].add_many(5)  # type: ignore[arg-type]
        app.tasks["mail"].get(1.5)  # type: ignore[arg-type]
        app.get(12)  # type: ignore[arg-type]
        app.progress("mail.1", "half")  # type: ignore[arg-type]
        app.follow("mail.1", timeout=b"5s")  # type: ignore[arg-type]
        app.subscribe("mail.1", "callback")  # type: ignore[arg-type]
        App(5)  # type: ignore[arg-type]
        process(5)  # type: ignore[arg-type]
        (await aprocess)("x")  # type: ignore[misc]
        Retry(after=b"5m")  # type: ignore[arg-type]
        Retry("later", "5m")  # type: ignore[call-arg]
        Fail("bad", {"a": 1})  # type: ignore[call-arg]
