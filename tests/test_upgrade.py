"""A store that an older yaotask made: refused, upgraded by those who may, and then like a new one."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cli_support import Run
from run_support import IN_A_THREAD, drained, job, notes
from sqlalchemy import create_engine

from yaotask import App
from yaotask.store import migrations
from yaotask.store.dialects.sqlite_database import SqliteDatabase

pytest_plugins = ["cli_fixtures", "run_fixtures"]

STORE = "a" * 32
JOB = """
    INSERT INTO yaotask_jobs (task, id, queue, state, priority, ready_at, events, counted, args, payload,
        created_at, updated_at, run_at, attempt, fence, worker)
    VALUES ('hold', ?, 'hold', ?, 0, 1, 0, 1, '[]', '{}', 1, 1, 1, ?, ?, ?)
"""
WORKER = "INSERT INTO yaotask_workers (incarnation, host, pid, started_at) VALUES ('old', 'elsewhere', 1, 1)"


@contextmanager
def opened(database: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(database)
    try:
        with connection:
            yield connection
    finally:
        connection.close()


@pytest.fixture
def old(hold: Callable[..., Path]) -> Path:
    """A project whose store is at schema 1, with a job that waits."""
    root = hold(IN_A_THREAD)
    (root / "gate").touch()
    (root / ".yaotask").mkdir(mode=0o700)
    (root / ".yaotask" / "store").write_text(STORE + "\n")
    with opened(database(root)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript((Path(__file__).parent / "schema_1.sql").read_text())
        connection.executemany("INSERT INTO yaotask_meta VALUES (?, ?)", [("schema", "1"), ("store", STORE)])
        connection.execute(JOB, (1, 0, 0, 0, None))
        connection.execute("INSERT INTO yaotask_ids VALUES ('hold', 2)")
        connection.execute("INSERT INTO yaotask_sizes VALUES ('hold', 1)")
    return root


def database(root: Path) -> Path:
    return root / ".yaotask" / "yaotask.db"


def shape(file: Path) -> dict[str, Any]:
    """The columns, indexes and views of a store. The order of columns is nobody's business."""
    with opened(file) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        columns = {name: {row[1:] for row in connection.execute(f"PRAGMA table_info({name})")} for name in tables}
        others = connection.execute("SELECT name, sql FROM sqlite_master WHERE type IN ('index', 'view')").fetchall()
    return columns | {name: " ".join((sql or "").split()) for name, sql in others}


@pytest.fixture
def fresh(tmp_path: Path) -> dict[str, Any]:
    """The shape of a store that this yaotask makes."""
    engine = create_engine(f"sqlite:///{tmp_path / 'fresh.db'}")
    with engine.begin() as connection:
        migrations.create(connection, STORE, SqliteDatabase(tmp_path / "fresh.db").furnish)
    engine.dispose()
    return shape(tmp_path / "fresh.db")


@pytest.mark.parametrize("command", [("list",), ("get", "hold.1"), ("add", "hold"), ("db", "status")])
def test_a_store_at_schema_1_is_refused_with_what_to_do(old: Path, run: Run, command: tuple[str, ...]) -> None:
    before = shape(database(old))
    ended = run(*command, "-a", old)

    assert (ended.status, ended.out) == (4, "")
    assert f"the store is at schema 1, this yaotask needs {migrations.CURRENT}: " in ended.err
    assert "run `yaotask db upgrade`" in ended.err
    assert shape(database(old)) == before


def test_once_upgraded_it_is_like_a_new_one(old: Path, run: Run, fresh: dict[str, Any]) -> None:
    assert shape(database(old)) != fresh

    upgraded = run("db", "upgrade", "-a", old)

    assert (upgraded.status, upgraded.err) == (0, "")
    assert shape(database(old)) == fresh


@pytest.mark.timeout(60)
def test_run_upgrades_it_and_runs_what_waited(old: Path, fresh: dict[str, Any]) -> None:
    drained(old)

    assert shape(database(old)) == fresh
    assert (notes(old, "end"), job(old)["status"]) == (["1"], "SUCCESS")


def test_what_ran_before_the_upgrade_is_kept_with_its_worker(old: Path, run: Run) -> None:
    with opened(database(old)) as connection:
        connection.execute(WORKER)
        connection.execute(JOB, (2, 1, 1, 1, 1))
    run("db", "upgrade", "-a", old)
    with App(old) as app:
        app.cancel("hold.2")
        statuses = app.status("hold", [1, 2])
    with opened(database(old)) as connection:
        worker = connection.execute("SELECT kind, node, renewed_at, info FROM yaotask_workers").fetchone()

    assert worker == ("worker", None, None, None)
    assert statuses == {1: "WAITING", 2: "CANCELLED"}
