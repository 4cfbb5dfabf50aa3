"""What fails for a moment ends nothing that goes on: no ledger, no worker, no node."""

from __future__ import annotations

import errno
import threading
from contextlib import closing
from contextvars import copy_context
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn, cast

import anyio
import psycopg
import pytest
from broken_lines import break_off
from children_support import until
from store_support import Bench, EvenChance, Postman

from yaotask import App, Job
from yaotask.clock import SystemClock
from yaotask.errors import StorageError, StorageUnavailable
from yaotask.following import Subscriptions
from yaotask.runtime.desk import JobDesk
from yaotask.runtime.execute import Policy
from yaotask.runtime.herald import Herald
from yaotask.runtime.spawner import Spawner
from yaotask.settings import Limits
from yaotask.store import hints
from yaotask.store.direct import ask
from yaotask.store.hints import EVERYWHERE, SUFFIX, Ear, hint
from yaotask.store.ledger import Ledger
from yaotask.store.ledger_thread import LedgerThread

pytest_plugins = ["door_support", "store_fixtures"]


def masked(text: str) -> str:
    """What a job hides."""
    return text.replace("thread", "***").replace("files", "***")


def no_room(*_: Any, **__: Any) -> NoReturn:
    raise OSError(errno.EMFILE, "Too many open files")


@pytest.mark.only_on("postgresql", "mariadb")
def test_a_line_that_breaks_under_a_reader_of_one_moment_is_an_error_of_the_store(bench: Bench) -> None:
    with pytest.raises(StorageError), bench.store.snapshot() as connection:
        break_off(connection.connection.driver_connection)
        ask(connection, "SELECT count(*) FROM yaotask_jobs")

    with bench.store.snapshot() as connection:
        assert ask(connection, "SELECT count(*) FROM yaotask_jobs").scalar() == 0


@pytest.mark.only_on("postgresql")
def test_where_the_system_refuses_a_file_to_connect_with_it_is_an_error_of_the_store(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.store.writer.disconnect()
    bench.store.readers.dispose()
    with monkeypatch.context() as patch:
        patch.setattr(psycopg.waiting, "wait_conn", no_room)
        with pytest.raises(StorageError, match="Too many open files"):
            bench.cycle()
        with pytest.raises(StorageError, match="Too many open files"), bench.store.reading():
            pass
        with pytest.raises(psycopg.OperationalError, match="Too many open files"):
            bench.store.dialect.listen()

    bench.cycle()


def test_a_hint_for_which_there_is_no_socket_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(Ear(tmp_path / f"one{SUFFIX}")):
        monkeypatch.setattr(hints, "_datagrams", no_room)
        hint(tmp_path, EVERYWHERE)


def refuse(thread: threading.Thread) -> NoReturn:
    raise RuntimeError("can't start new thread")


def test_who_adds_when_the_system_has_no_thread_is_told_and_the_next_is_served(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(StorageUnavailable, match=r"can't start new thread: .*ulimit -u"):
            app.tasks["mail"].add()
    id = app.tasks["mail"].add()

    assert app.get(f"mail.{id}")["status"] == "WAITING"
    assert [job["id"] for job in app.list("mail")["items"]] == [id]


def test_a_worker_whose_ledger_has_no_thread_does_not_begin(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger(bench.store, bench.clock, EvenChance())
    thread = LedgerThread(ledger)
    with monkeypatch.context() as patch, pytest.raises(StorageUnavailable, match="can't start new thread"):
        patch.setattr(threading.Thread, "start", refuse)
        ledger.employ(1, {}, Postman())
    thread.close()


def test_where_there_is_no_thread_to_watch_with_nobody_is_subscribed(monkeypatch: pytest.MonkeyPatch) -> None:
    subscriptions = Subscriptions(SystemClock())
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="can't start new thread"):
        patch.setattr(threading.Thread, "start", refuse)
        subscriptions.subscribe("mail.1", dict, print)

    subscriptions.close()


def test_where_there_is_no_thread_for_a_progress_hook_its_job_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    herald = Herald(print, 1.0, Limits(), SystemClock())
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        herald.announce(cast("Job", SimpleNamespace(name="mail.1", id=1, hide=masked)), (1, 2, None))

    assert "can't start new ***" in caplog.text


async def test_a_transaction_that_cannot_be_rolled_back_ends_no_worker(caplog: pytest.LogCaptureFixture) -> None:
    opened = SimpleNamespace(closed=False, transaction=SimpleNamespace(expire=no_room))
    attempt: Any = SimpleNamespace(job=SimpleNamespace(name="mail.1", open_transaction=opened, hide=masked))
    policy, nobody = cast("Policy", SimpleNamespace(limits=Limits())), cast("Any", None)
    async with anyio.create_task_group() as group:
        spawner, desk = Spawner(), JobDesk(policy, nobody, nobody, SystemClock(), nobody)
        group.start_soon(spawner.run, group, copy_context())
        desk.open(spawner)
        desk.expire(attempt)
        await until(lambda: "mail.1: its transaction could not be rolled back" in caplog.text)
        group.cancel_scope.cancel()

    assert "Too many open ***" in caplog.text
