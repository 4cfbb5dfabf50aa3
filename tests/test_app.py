"""A project in this process: which one it is, how many there may be, and on whose behalf code runs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from runtime_support import ended

import yaotask
from yaotask import (
    App,
    BadDefinitions,
    InvalidPayload,
    JobNotFound,
    UnknownTask,
    ambient,
    aprocess,
    current_app,
    process,
)

pytest_plugins = ["door_support", "runtime_fixtures"]


@pytest.fixture(autouse=True)
def no_default_app() -> Iterator[None]:
    yield
    for app in ambient._default.values():
        app.close()
    ambient._default.clear()


@pytest.fixture
def other_root(tmp_path: Path) -> Path:
    root = tmp_path / "other"
    (root / "tasks").mkdir(parents=True)
    (root / "scripts").mkdir()
    (root / "tasks" / "mail.yml").write_text("name: Other\nprocess: scripts.mail.Send\n")
    (root / "scripts" / "mail.py").write_text(
        "from yaotask import current_app\ndef Here():\n    return str(current_app().root)\n"
    )
    return root


# --- the default app -------------------------------------------------------------------------------------------


def test_the_default_app_is_found_upward_and_made_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root / "scripts")

    assert current_app() is current_app()
    assert current_app().root.samefile(root)
    assert process("tasks.mail.add", "Hello") == 1


def test_once_it_was_closed_another_is_made_for_the_project_of_that_moment(
    root: Path, other_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("YAOTASK_ROOT", str(root))
    with current_app():
        assert process("tasks.mail.add", "Hello") == 1
    monkeypatch.setenv("YAOTASK_ROOT", str(other_root))

    assert process("scripts.mail.Here") == str(other_root)
    assert current_app() is current_app()


def test_yaotask_root_names_the_default_app(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("YAOTASK_ROOT", str(root))

    assert process("scripts.mail.Here") == str(current_app().root)
    assert current_app().root.samefile(root)


def test_where_there_is_no_project_there_is_no_default_app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        with pytest.raises(BadDefinitions):
            current_app()


def test_threads_that_are_first_get_the_same_default_app(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    start, apps = threading.Barrier(6), list[App]()

    def get() -> None:
        start.wait()
        apps.append(current_app())

    threads = [threading.Thread(target=get) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert set(apps) == {current_app()}


async def test_the_default_app_serves_loops(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    id = await aprocess("tasks.mail.add", "Hello")

    assert (await aprocess("tasks.mail.get", id))["args"] == ["Hello"]


# --- on whose behalf -------------------------------------------------------------------------------------------


def test_a_script_is_run_on_behalf_of_the_app_that_calls_it(root: Path, other_root: Path) -> None:
    with App(root) as one, App(other_root) as other:
        assert one.call("scripts.mail.Here") == str(one.root)
        assert other.call("scripts.mail.Here") == str(other.root)


async def test_async_scripts_are_too_and_leave_no_trace(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    async with App(root) as app:
        assert await app.acall("scripts.mail.Where") == str(app.root)
        assert current_app() is not app


async def test_handlers_and_hooks_are_run_on_behalf_of_the_app_that_runs_them(
    stage: Callable[..., App], other_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(other_root)
    seen: dict[str, App] = {}
    told = anyio.Event()

    def handler(task_id: int) -> None:
        seen["handler"] = current_app()
        process("tasks.mail.progress", task_id, 1)

    def on_progress(*_: Any) -> None:
        seen["progress"] = current_app()

    async def on_success(*_: Any) -> None:
        seen["success"] = current_app()
        told.set()

    def on_next() -> int:
        seen["next"] = current_app()
        return 7

    app = stage(handler, hooks={"progress": on_progress, "success": on_success, "next": on_next})
    async with app.running():
        await ended(app, await app.tasks["mail"].aadd())
        with anyio.fail_after(10):
            await told.wait()

    assert seen == dict.fromkeys(("next", "handler", "progress", "success"), app)


async def test_async_next_hooks_are_run_on_behalf_of_the_app_that_adds(stage: Callable[..., App]) -> None:
    seen = []

    async def on_next() -> int:
        seen.append(current_app())
        return len(seen)

    app = stage(lambda task_id: None, hooks={"next": on_next})
    await app.tasks["mail"].aadd()
    await anyio.to_thread.run_sync(app.tasks["mail"].add)

    assert seen == [app, app]


# --- its parts ---------------------------------------------------------------------------------------------------


def test_tasks_are_a_mapping_that_says_what_was_meant(app: App) -> None:
    assert {"mail", "media.video"} <= set(app.tasks)
    assert len(app.tasks) == len(list(app.tasks))
    assert "mial" not in app.tasks
    assert app.tasks.get("mail") is not None
    with pytest.raises(UnknownTask, match='did you mean "mail"'):
        app.tasks["mial"]


@pytest.mark.parametrize("id", [None, 3, ["mail"]])
def test_what_is_no_name_is_no_task(app: App, id: Any) -> None:
    calls: list[Callable[[], object]] = [
        lambda: app.tasks[id],
        lambda: app.status(id, [1]),
        lambda: app.tasks.get(id) or app.tasks[id],
    ]
    for call in calls:
        with pytest.raises(UnknownTask, match=f"a {type(id).__name__} is no task: a task is named by its id"):
            call()


def test_what_programs_hold_is_shown_by_its_name(root: Path) -> None:
    app = App(root, settings={"store": "postgresql://ann:secret@nowhere/jobs"})

    assert repr(app) == f"<App '{root}'>"
    assert repr(app.tasks["mail"].options(key="secret")) == "<Task mail>"


def test_a_task_knows_its_definition(app: App) -> None:
    assert (app.tasks["mail"].id, app.tasks["mail"].definition.name) == ("mail", "Send mail")


@pytest.mark.parametrize("id", [1, "1", "mail.1"])
async def test_a_tasks_jobs_go_by_all_their_names(app: App, id: int | str) -> None:
    mail = app.tasks["mail"]
    await mail.aadd("Hello")

    assert (await mail.aget(id))["args"] == ["Hello"]
    assert await mail.astatus([id]) == {1: "WAITING"}
    await mail.acancel(id)
    await mail.aretry(id)
    assert await mail.aattempts(id) == []
    assert [job["id"] for job in (await mail.alist())["items"]] == [1]


@pytest.mark.parametrize("id", [1, "1", "mail.1"])
async def test_the_status_of_a_tasks_jobs_goes_by_all_their_names_from_the_app_too(app: App, id: int | str) -> None:
    await app.tasks["mail"].aadd("Hello")

    assert await app.astatus("mail", [id]) == {1: "WAITING"}


@pytest.mark.parametrize("ids", [1, "12", None, {"1": 1}, b"1"])
def test_status_takes_a_list_and_says_so(app: App, ids: Any) -> None:
    for ask in (partial(app.status, "mail"), app.tasks["mail"].status):
        with pytest.raises(InvalidPayload, match=r"\$\.ids: must be a list of ids"):
            ask(ids)


def test_status_finds_no_job_of_another_task_and_no_task_that_is_not_there(app: App) -> None:
    for ask in (partial(app.status, "mail"), app.tasks["mail"].status):
        with pytest.raises(JobNotFound):
            ask(["bulk.1"])
    with pytest.raises(UnknownTask):
        app.status("mial", ["mial.1"])


def test_a_delay_counts_from_each_add(app: App) -> None:
    soon = app.tasks["mail"].options(delay="1h")
    jobs = [app.get(f"mail.{soon.add()}") for _ in range(2)]

    assert jobs[0]["run_at"] < jobs[1]["run_at"]


def test_options_leave_the_task_itself_as_it_was(app: App) -> None:
    mail = app.tasks["mail"]
    mail.options(priority=5)

    assert app.get(f"mail.{mail.add()}")["priority"] == 0


def test_a_used_key_answers_the_first_job(app: App) -> None:
    mail = app.tasks["mail"].options(key="order-17")

    assert mail.add("first") == mail.add("again") == 1
    assert app.tasks["strict"].options(key="order-17").add("ann") == 1
    assert app.list("mail", page=1)["total"] == 1


def test_the_state_of_the_store_is_told(app: App) -> None:
    app.tasks["mail"].add()
    status = app.store_status()

    assert status["jobs"] == {"WAITING": 1}
    assert status["schema"] == status["current_schema"]


def test_the_package_knows_the_app_by_its_name() -> None:
    assert yaotask.App is App
