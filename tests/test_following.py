"""Following a job to its end, as an iterator and by callbacks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import pairwise
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
from store_support import ManualClock

from yaotask import App, BlockingCall, JobNotFound, StorageBusy, UnknownName, current_app, current_job
from yaotask.clock import SystemClock
from yaotask.errors import StorageError, StorageUnavailable
from yaotask.following import LONGEST_WAIT, SHORTEST_WAIT, Callback, Subscriptions, Watch, follow

pytest_plugins = ["door_support", "runtime_fixtures"]

PATIENCE = 10


async def _reports(task_id: int) -> str:
    current_job().progress(1, 2, "half")
    return "done"


# --- iterators -------------------------------------------------------------------------------------------------


async def test_it_yields_the_job_now_and_at_its_end(stage: Callable[..., App]) -> None:
    app = stage(_reports)
    id = await app.tasks["mail"].aadd()
    jobs = app.afollow(f"mail.{id}")
    seen = [await anext(jobs)]
    with anyio.fail_after(PATIENCE):
        async with app.running():
            seen += [job async for job in jobs]

    assert (seen[0]["status"], seen[-1]["status"], seen[-1]["response"]) == ("WAITING", "SUCCESS", "done")
    assert all(before != after for before, after in pairwise(seen))


async def test_it_is_followed_from_a_thread_as_well(stage: Callable[..., App]) -> None:
    app = stage(_reports)
    async with app.running():
        id = await app.tasks["mail"].aadd()
        jobs = await anyio.to_thread.run_sync(lambda: list(app.follow(f"mail.{id}", timeout=PATIENCE)))

    assert jobs[-1]["status"] == "SUCCESS"


def test_a_job_that_has_ended_is_yielded_once(app: App) -> None:
    id = app.tasks["mail"].add()
    app.cancel(f"mail.{id}")

    assert [job["status"] for job in app.follow(f"mail.{id}")] == ["CANCELLED"]


def test_when_its_time_is_up_it_is_a_timeout_and_the_job_goes_on(app: App) -> None:
    id = app.tasks["mail"].add()
    jobs = app.follow(f"mail.{id}", timeout=0)

    assert next(jobs)["status"] == "WAITING"
    with pytest.raises(TimeoutError, match=r"mail\.1 is WAITING after 0 s; it goes on by itself"):
        next(jobs)
    assert app.get(f"mail.{id}")["status"] == "WAITING"


@pytest.mark.parametrize("timeout", ["20ms", timedelta(milliseconds=20), 0.02, -1, timedelta(days=-1)])
def test_its_time_is_a_number_of_seconds_a_timedelta_or_text(app: App, timeout: float | str | timedelta) -> None:
    id = app.tasks["mail"].add()

    with pytest.raises(TimeoutError):
        list(app.follow(f"mail.{id}", timeout=timeout))


@pytest.mark.parametrize("timeout", [float("inf"), 10**9])
def test_it_may_be_longer_than_anything_runs(app: App, timeout: float) -> None:
    id = app.tasks["mail"].add()

    assert next(app.follow(f"mail.{id}", timeout=timeout))["status"] == "WAITING"


@pytest.mark.parametrize("timeout", ["soon", "", b"1s", True, [1], float("nan")])
def test_a_time_that_is_none_is_refused_at_once(app: App, timeout: Any) -> None:
    with pytest.raises(ValueError, match=r"^timeout must be a number of seconds or a duration such as"):
        app.follow("mail.1", timeout=timeout)


@pytest.mark.parametrize("id", [1, "1", "mail.1"])
async def test_a_task_follows_its_jobs_by_all_their_names(app: App, id: int | str) -> None:
    mail = app.tasks["mail"]
    await mail.aadd()
    await mail.acancel(id)

    assert [job["status"] async for job in mail.afollow(id)] == ["CANCELLED"]
    assert await anyio.to_thread.run_sync(lambda: [job["id"] for job in mail.follow(id, timeout="10s")]) == [1]
    with pytest.raises(JobNotFound):
        mail.follow("bulk.1")


async def test_on_a_loop_it_names_its_twin(app: App) -> None:
    with pytest.raises(BlockingCall, match=r"`follow` waits.* use its async twin, `afollow`"):
        list(app.follow("mail.1"))


async def test_a_job_that_is_not_there_is_not_found(app: App) -> None:
    with pytest.raises(JobNotFound):
        await anext(app.afollow("mail.9"))
    with pytest.raises(JobNotFound):
        await anyio.to_thread.run_sync(lambda: next(app.follow("mail.9")))


def test_looks_come_more_and_more_seldom_until_something_changes() -> None:
    watch = Watch(SystemClock())
    watch.is_new({"current": 1})
    for _ in range(20):
        watch.is_new({"current": 1})
    idle = watch.wait
    watch.is_new({"current": 2})

    assert (idle, watch.wait) == (LONGEST_WAIT, SHORTEST_WAIT)


def test_a_partial_success_is_an_end() -> None:
    job = {"status": "PARTIAL", "task_id": "mail.1"}

    assert list(follow(lambda: job, SystemClock(), None)) == [job]


# --- callbacks -------------------------------------------------------------------------------------------------


class Told:
    """A callback that can be waited for."""

    def __init__(self, until: str) -> None:
        self.jobs: list[dict[str, Any]] = []
        self.done = threading.Event()
        self._until = until

    def __call__(self, job: dict[str, Any]) -> None:
        self.jobs.append(job)
        if job["status"] == self._until:
            self.done.set()


async def test_a_callback_is_told_of_the_job_now_and_of_its_end(stage: Callable[..., App]) -> None:
    app, told = stage(_reports), Told("SUCCESS")
    id = await app.tasks["mail"].aadd()
    app.subscribe(f"mail.{id}", told)
    async with app.running():
        assert await anyio.to_thread.run_sync(told.done.wait, PATIENCE)

    assert told.jobs[-1]["response"] == "done"


def test_after_unsubscribe_nobody_is_called(app: App) -> None:
    first, second = Told("WAITING"), Told("WAITING")
    id = app.tasks["mail"].add()
    app.subscribe(f"mail.{id}", first)
    app.subscribe(f"mail.{id}", second)
    assert first.done.wait(PATIENCE)
    assert second.done.wait(PATIENCE)
    app.unsubscribe(f"mail.{id}", first)
    app.cancel(f"mail.{id}")
    app.unsubscribe(f"mail.{id}")

    assert [job["status"] for job in first.jobs] == ["WAITING"]


def test_two_callbacks_that_unsubscribe_all_do_not_wait_for_each_other(app: App) -> None:
    id = app.tasks["mail"].add()
    both, ended = threading.Barrier(2), threading.Semaphore(0)

    def end_all(job: dict[str, Any]) -> None:
        both.wait(PATIENCE)
        app.unsubscribe(job["task_id"])
        ended.release()

    app.subscribe(f"mail.{id}", end_all)
    app.subscribe(f"mail.{id}", lambda job: end_all(job))

    assert ended.acquire(timeout=PATIENCE)
    assert ended.acquire(timeout=PATIENCE)


def test_a_callback_may_unsubscribe_itself(app: App) -> None:
    called = threading.Event()

    def callback(job: dict[str, Any]) -> None:
        app.unsubscribe(job["task_id"], callback)
        called.set()

    app.subscribe(f"mail.{app.tasks['mail'].add()}", callback)

    assert called.wait(PATIENCE)


@pytest.mark.parametrize("error", [RuntimeError("not now"), SystemExit("not now")])
def test_a_callback_that_raises_is_logged_and_called_again(
    app: App, caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    told = Told("CANCELLED")
    seen_first = threading.Event()

    def callback(job: dict[str, Any]) -> None:
        told(job)
        seen_first.set()
        raise error

    id = app.tasks["mail"].add()
    app.subscribe(f"mail.{id}", callback)
    assert seen_first.wait(PATIENCE)
    app.cancel(f"mail.{id}")

    assert told.done.wait(PATIENCE)
    assert f"a callback for mail.1 failed: {type(error).__name__}: not now" in caplog.text


def test_a_callback_may_be_async(app: App) -> None:
    told = Told("CANCELLED")

    async def callback(job: dict[str, Any]) -> None:
        await anyio.lowlevel.checkpoint()
        told(job)

    id = app.tasks["mail"].add()
    app.subscribe(f"mail.{id}", callback)
    app.cancel(f"mail.{id}")

    assert told.done.wait(PATIENCE)


def test_an_async_callback_may_close_the_app(app: App) -> None:
    closed = threading.Event()

    async def callback(job: dict[str, Any]) -> None:
        await app.aclose()
        closed.set()

    app.subscribe(f"mail.{app.tasks['mail'].add()}", callback)

    assert closed.wait(PATIENCE)


def test_who_changes_the_job_that_is_told_sees_no_changes_of_its_own() -> None:
    looks: list[dict[str, Any]] = [
        {"status": "WAITING", "extra": {"n": 1}},
        {"status": "WAITING", "extra": {"n": 1}},
        {"status": "SUCCESS"},
    ]
    seen = []
    for job in follow(iter(looks).__next__, ManualClock(), None):
        seen.append(job["status"])
        job.pop("extra", {}).clear()
        job["status"] = "mine"

    assert seen == ["WAITING", "SUCCESS"]


def test_a_callback_runs_on_behalf_of_whoever_subscribed(app: App) -> None:
    roots: list[Any] = []
    done = threading.Event()

    def callback(job: dict[str, Any]) -> None:
        roots.append(current_app())
        done.set()

    id = app.tasks["mail"].add()
    app._calls._behalf.call(app.subscribe, f"mail.{id}", callback)  # as a script does

    assert done.wait(PATIENCE)
    assert roots == [app]


@pytest.mark.parametrize(
    ("error", "lines"),
    [(StorageBusy("locked"), []), (StorageUnavailable("away"), ["mail.1 cannot be watched for now: away"])],
)
def test_a_store_that_is_away_for_a_while_ends_no_subscription(
    caplog: pytest.LogCaptureFixture, error: StorageError, lines: list[str]
) -> None:
    told = Told("SUCCESS")
    faults: Iterator[Exception] = iter([error, error])

    def look() -> dict[str, Any]:
        for fault in faults:
            raise fault
        return {"status": "SUCCESS"}

    subscriptions = Subscriptions(SystemClock())
    subscriptions.subscribe("mail.1", look, told)

    assert told.done.wait(PATIENCE)
    subscriptions.close()
    assert caplog.messages == lines


def test_watching_a_job_that_is_not_there_ends_with_a_line_in_the_log(
    app: App, caplog: pytest.LogCaptureFixture
) -> None:
    app.subscribe("mail.9", Told("SUCCESS"))
    for watcher in list(app._subscriptions._watchers):
        watcher.thread.join(PATIENCE)

    assert "watching mail.9 ended: there is no job mail.9" in caplog.text
    assert app._subscriptions._watchers == []


def test_what_is_no_name_of_a_job_is_refused_at_once(app: App) -> None:
    with pytest.raises(UnknownName):
        app.subscribe("mail", Told("SUCCESS"))


def test_closing_the_app_ends_all_subscriptions(app: App) -> None:
    told = Told("WAITING")
    app.subscribe(f"mail.{app.tasks['mail'].add()}", told)
    assert told.done.wait(PATIENCE)
    watchers = list(app._subscriptions._watchers)
    app.close()

    assert not any(watcher.thread.is_alive() for watcher in watchers)


def test_who_subscribes_while_the_app_is_closed_is_refused() -> None:
    class ClosedMeanwhile(Subscriptions):
        def unsubscribe(self, name: str, callback: Callback | None = None) -> None:
            self.close()

    subscriptions = ClosedMeanwhile(SystemClock())
    told = Told("SUCCESS")
    with pytest.raises(StorageUnavailable, match="closed"):
        subscriptions.subscribe("mail.1", lambda: {"status": "SUCCESS"}, told)

    assert subscriptions._watchers == []
    assert told.jobs == []


def test_a_subscription_whose_thread_starts_as_the_app_is_closed_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    subscriptions = Subscriptions(SystemClock())
    threads: list[threading.Thread] = []
    start = threading.Thread.start

    def start_late(thread: threading.Thread) -> None:
        subscriptions.close()
        threads.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_late)
    told = Told("SUCCESS")
    subscriptions.subscribe("mail.1", lambda: {"status": "SUCCESS"}, told)
    for thread in threads:
        thread.join(PATIENCE)

    assert [thread.is_alive() for thread in threads] == [False]
    assert told.jobs == []
