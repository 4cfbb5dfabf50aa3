"""The door inside transactions, handlers and hooks: nothing waits for itself, and nothing is stored too early."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from runtime_support import ended, reaches
from server_fixtures import Database
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.orm import Session

from yaotask import (
    AlreadyFinished,
    App,
    BlockingCall,
    Fail,
    InvalidPayload,
    JobNotFound,
    QueueFull,
    StorageUnavailable,
    TransactionError,
    UnknownTask,
    aprocess,
    current_job,
    process,
)
from yaotask.store.opening import place

pytest_plugins = ["door_support", "runtime_fixtures"]


# --- the caller's own transaction ------------------------------------------------------------------------------


@pytest.fixture
def project(project: Callable[..., Path], database: Database) -> Callable[..., Path]:
    return partial(project, settings=database.setting)


@pytest.fixture
def engine(app: App) -> Iterator[Engine]:
    app.tasks["bulk"].add("the store is there")
    engine = create_engine(place(app.root, app.settings.store).url)
    yield engine
    engine.dispose()


def _waiting(app: App, task: str = "mail") -> list[Any]:
    return [job["args"] for job in app.list(task)["items"]]


def test_a_job_in_the_callers_transaction_exists_once_that_commits(app: App, engine: Engine) -> None:
    with engine.connect() as connection:
        connection.execute(text("CREATE TABLE orders (id INTEGER)"))
        connection.commit()
        connection.execute(text("INSERT INTO orders VALUES (1)"))
        id = app.tasks["mail"].options(connection=connection).add("order 1")
        with pytest.raises(JobNotFound):
            app.get(f"mail.{id}")
        connection.commit()

    assert app.get(f"mail.{id}")["args"] == ["order 1"]


def test_a_job_in_a_transaction_that_is_rolled_back_never_was(app: App, engine: Engine) -> None:
    with engine.connect() as connection:
        app.tasks["mail"].options(connection=connection).add("order 1")
        connection.rollback()

    assert _waiting(app) == []


def test_a_session_lends_its_connection(app: App, engine: Engine) -> None:
    with Session(engine) as session, session.begin():
        app.tasks["mail"].options(connection=session.connection()).add("order 1")

    assert _waiting(app) == [["order 1"]]


def test_many_go_into_the_callers_transaction_too(app: App, engine: Engine) -> None:
    with engine.begin() as connection:
        ids = app.tasks["bulk"].options(connection=connection).add_many([n] for n in range(2_000))

    assert len(app.status("bulk", ids)) == 2_000


def test_size_holds_in_the_callers_transaction(app: App, engine: Engine) -> None:
    with engine.begin() as connection:
        mail = app.tasks["mail"].options(connection=connection)
        for _ in range(5):
            mail.add()
        with pytest.raises(QueueFull):
            mail.add()

    with pytest.raises(QueueFull):
        app.tasks["mail"].add()
    assert len(_waiting(app)) == 5


def test_what_is_refused_leaves_the_callers_transaction_as_it_was(app: App, engine: Engine) -> None:
    with engine.begin() as connection:
        mail = app.tasks["mail"].options(connection=connection)
        mail.add("good")
        with pytest.raises(InvalidPayload):
            mail.add({1, 2})

    assert _waiting(app) == [["good"]]


def test_a_key_is_known_in_the_callers_transaction(app: App, engine: Engine) -> None:
    first = app.tasks["mail"].options(key="k").add("first")
    with engine.begin() as connection:
        mail = app.tasks["mail"].options(connection=connection)

        assert mail.options(key="k").add("again") == first
        assert mail.options(key="other").add("new") != first


def test_a_connection_to_another_database_is_refused_with_advice(app: App, tmp_path: Path) -> None:
    other = create_engine(f"sqlite:///{tmp_path}/other.db")
    advice = "in a transaction of its own database"
    with other.connect() as connection, pytest.raises(StorageUnavailable, match=advice):
        app.tasks["mail"].options(connection=connection).add("x")
    other.dispose()


def test_what_is_no_connection_is_refused_with_advice(app: App, engine: Engine) -> None:
    for wrong in (engine, Session(engine), "sqlite://"):
        with pytest.raises(
            TransactionError, match=r"must be a Connection of SQLAlchemy, not .*session\.connection\(\)"
        ):
            app.tasks["mail"].options(connection=wrong).add("x")  # type: ignore[arg-type]


async def test_a_connection_would_block_a_loop_and_is_refused_there(app: App) -> None:
    engine = create_engine(place(app.root, app.settings.store).url)

    def order() -> int:
        with engine.begin() as connection:
            return app.tasks["mail"].options(connection=connection).add("in a thread")

    await app.tasks["bulk"].aadd("the store is there")
    with engine.connect() as connection:
        mail = app.tasks["mail"].options(connection=connection)
        with pytest.raises(BlockingCall, match="in a thread"):
            await mail.aadd("x")
        with pytest.raises(BlockingCall):
            await mail.aadd_many([["x"]])
    id = await anyio.to_thread.run_sync(order)
    engine.dispose()

    assert (await app.aget(f"mail.{id}"))["args"] == ["in a thread"]


# --- the job's own transaction ---------------------------------------------------------------------------------


def _all_calls() -> dict[str, Any]:
    """Every call, as a handler makes it."""
    first, second = process("tasks.mail.add", "first"), process("tasks.mail.submit", {"args": ["second"]})["id"]
    third, *_ = process_app().tasks["mail"].add_many([["third"], ["fourth"]])
    process("tasks.mail.cancel", second)
    process("tasks.mail.cancel", third)
    process("tasks.mail.retry", third)
    process("tasks.mail.progress", current_job().id, 1, 2, "half")
    return {
        "got": process("tasks.mail.get", first)["args"],
        "status": list(process("tasks.mail.status", [second, third]).values()),
        "listed": len(process("tasks.mail.list")["items"]),
        "attempts": process("tasks.mail.attempts", first),
    }


def process_app() -> App:
    from yaotask import current_app  # noqa: PLC0415

    return current_app()


ANSWER = {"got": ["first"], "status": ["CANCELLED", "WAITING"], "listed": 5, "attempts": []}


async def test_every_call_of_a_handler_goes_through_its_transaction(stage: Callable[..., App]) -> None:
    seen: list[int] = []

    def handler(task_id: int, *args: Any) -> Any:
        if args:
            return None
        with current_job().transaction():
            answer = _all_calls()
            seen.append(len(app.list("mail")["items"]))
            return answer

    app = stage(handler)
    async with app.running():
        job = await ended(app, await app.tasks["mail"].aadd())

    assert (job["status"], job["response"], job["message"]) == ("SUCCESS", ANSWER, "half")
    assert seen == [5]


async def test_what_a_handler_adds_in_a_transaction_that_fails_never_was(stage: Callable[..., App]) -> None:
    def handler(task_id: int, *args: Any) -> None:
        with current_job().transaction():
            _all_calls()
            raise Fail("no")

    app = stage(handler)
    async with app.running():
        job = await ended(app, await app.tasks["mail"].aadd())
        items = (await app.alist("mail"))["items"]

    assert job["status"] == "FAILURE"
    assert [item["id"] for item in items] == [job["id"]]


async def test_hooks_and_scripts_that_are_called_inside_it_go_through_it(stage: Callable[..., App]) -> None:
    added: list[int] = []

    def handler(task_id: int, *args: Any) -> None:
        if not args:
            with current_job().transaction():
                current_job().progress(1, 2, "x")
                process("scripts.more.Add")
                raise Fail("no")

    def on_progress(*_: Any) -> None:
        added.append(process("tasks.mail.add", "from the hook"))

    app = stage(handler, hooks={"progress": on_progress})
    (app.root / "scripts").mkdir()
    (app.root / "scripts" / "more.py").write_text(
        "from yaotask import process\ndef Add():\n    return process('tasks.mail.add', 'from the script')\n"
    )
    async with app.running():
        job = await ended(app, await app.tasks["mail"].aadd())
        items = (await app.alist("mail"))["items"]

    assert (job["error"], len(added)) == ("no", 1)
    assert [item["id"] for item in items] == [job["id"]]


async def test_a_loop_of_the_handlers_own_thread_goes_through_it(stage: Callable[..., App]) -> None:
    async def work() -> Any:
        ids = [await aprocess("tasks.mail.add", "x"), await process_app().tasks["mail"].aadd("y")]
        ids += await process_app().tasks["mail"].aadd_many([["z"]])
        return [(await aprocess("tasks.mail.get", id))["args"] for id in ids]

    def handler(task_id: int, *args: Any) -> Any:
        if args:
            return None
        with current_job().transaction():
            return asyncio.run(work())

    app = stage(handler)
    async with app.running():
        job = await ended(app, await app.tasks["mail"].aadd())

    assert (job["status"], job["response"]) == ("SUCCESS", [["x"], ["y"], ["z"]])


async def test_another_app_of_the_same_project_goes_through_it_too(stage: Callable[..., App]) -> None:
    def handler(task_id: int, *args: Any) -> Any:
        if args:
            return None
        with current_job().transaction(), App(app.root) as other:
            return other.get(f"mail.{other.tasks['mail'].add('x')}")["args"]

    app = stage(handler)
    async with app.running():
        job = await ended(app, await app.tasks["mail"].aadd())

    assert (job["status"], job["response"]) == ("SUCCESS", ["x"])


async def test_an_app_of_another_project_does_not(stage: Callable[..., App], tmp_path: Path) -> None:
    (tmp_path / "other" / "tasks").mkdir(parents=True)
    (tmp_path / "other" / "tasks" / "mail.yml").write_text("name: Other\nprocess: scripts.x.X\n")

    def handler(task_id: int) -> Any:
        with current_job().transaction():
            ids.append(other.tasks["mail"].add("x"))
            raise Fail("no")

    app, ids = stage(handler), list[int]()
    with App(tmp_path / "other") as other:
        async with app.running():
            await ended(app, await app.tasks["mail"].aadd())

        assert (await other.aget(f"mail.{ids[0]}"))["args"] == ["x"]


# --- handlers, hooks, several apps ---------------------------------------------------------------------------------


async def test_progress_of_another_apps_job_of_the_same_name_is_not_ones_own(
    stage: Callable[..., App], tmp_path: Path
) -> None:
    (tmp_path / "other" / "tasks").mkdir(parents=True)
    (tmp_path / "other" / "tasks" / "mail.yml").write_text("name: Other\nprocess: scripts.x.X\n")

    async def handler(task_id: int) -> None:
        current_job().progress(1, 2, "mine")
        # A job with the same name, which does not run.
        await other.acall("tasks.mail.progress", task_id, 2, 2, "not mine")

    app = stage(handler)
    with App(tmp_path / "other") as other:
        await other.tasks["mail"].aadd()
        async with app.running():
            job = await ended(app, await app.tasks["mail"].aadd())

    assert (job["error_type"], job["message"]) == ("WrongState", "mine")


async def test_an_async_handler_and_its_hooks_may_call_everything(stage: Callable[..., App]) -> None:
    told: list[Any] = []

    async def handler(task_id: int, *args: Any) -> Any:
        if args:
            return None
        process("tasks.mail.progress", task_id, 1, 2, "half")  # one's own: it does not wait
        id = await aprocess("tasks.mail.add", "x")
        with pytest.raises(BlockingCall):
            process("tasks.mail.get", id)
        return (await aprocess("tasks.mail.get", id))["args"]

    async def on_success(id: int, response: Any) -> None:
        if response is not None:
            told.append((await aprocess("tasks.mail.get", id))["response"])
            await aprocess("tasks.mail.add", "from a hook")

    app = stage(handler, hooks={"success": on_success})
    async with app.running():
        job = await ended(app, await app.tasks["mail"].aadd())

    assert (job["status"], job["response"], told) == ("SUCCESS", ["x"], [["x"]])


async def test_progress_from_outside_is_held_to_the_same_edges(stage: Callable[..., App]) -> None:
    leave = anyio.Event()

    async def handler(task_id: int) -> None:
        await leave.wait()

    app = stage(handler, settings="poll: 1h\nlimits: {message_bytes: 100}\n")
    async with app.running():
        id = await app.tasks["mail"].aadd()
        await reaches(app, id, "RUNNING")
        wrong: list[list[Any]] = [[-1], [float("nan")], [2**53], [1, float("inf")], ["1"]]
        for numbers in wrong:
            with pytest.raises(InvalidPayload, match=r"\$\.(current|total): must be a number from 0"):
                await app.aprogress(f"mail.{id}", *numbers)
        await app.aprogress(f"mail.{id}", 1, 0, "a\0b\ud800")
        mended = await app.aget(f"mail.{id}")
        await app.aprogress(f"mail.{id}", 50, message="x" * 500)
        cut = await app.aget(f"mail.{id}")
        leave.set()

    assert (mended["current"], mended["total"], mended["message"]) == (1, 0, "a\u2400b\ufffd")
    assert (cut["current"], cut["total"], cut["progress"]) == (50, 100, 50)
    assert cut["message"].endswith("… [cut from 500 bytes]")


# --- unknown jobs ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["aget", "acancel", "aretry", "aattempts"])
async def test_a_job_of_an_unknown_task_says_which_task_was_meant(app: App, method: str) -> None:
    with pytest.raises(UnknownTask, match='did you mean "mail"'):
        await getattr(app, method)("mial.1")


async def test_a_job_of_a_known_task_that_is_not_there_is_not_found(app: App) -> None:
    with pytest.raises(JobNotFound, match=r"there is no job mail\.1"):
        await app.aprogress("mail.1", 1)


def test_a_job_that_ended_is_not_cancelled(app: App) -> None:
    id = app.tasks["mail"].add()
    app.cancel(f"mail.{id}")

    with pytest.raises(AlreadyFinished):
        app.tasks["mail"].cancel(id)
