"""Everything through PgBouncer in transaction mode, which gives each transaction another connection of its own."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from fleet_folders import all_succeed, folder, noted, shown
from moving_support import filled
from node_support import lines_with
from pooler_support import CONSOLE, PASSWORD, Pooler, pooling, program
from run_support import command, notes, running, until
from server_fixtures import Database
from servers import Missing, Servers
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from yaotask import App
from yaotask.errors import StorageUnavailable
from yaotask.store.opening import place

pytestmark = [pytest.mark.only_on("postgresql"), pytest.mark.timeout(180)]

MAILS, PAYMENTS = 240, 60
FAILURES = "SELECT DISTINCT outcome, error_type FROM yaotask_attempts WHERE outcome <> 'success'"
TASKS = {
    "mail": """
        name: Mail
        process: scripts.mail.Send
        worker_nums: 8
        attempts: 2
        attempt_after: 0
        event: {add: scripts.mail.OnAdd, success: scripts.mail.OnSuccess, retry: scripts.mail.OnRetry}
    """,
    "pay": "name: Pay\nprocess: scripts.pay.Pay\nworker_nums: 2\nattempts: 2\nattempt_after: 0\n",
}
SCRIPTS = {
    "mail": """
        from scripts.witness import note
        from yaotask import aprocess, current_job

        async def Send(task_id):
            await aprocess("tasks.mail.progress", task_id, 1, 2, "half")
            if task_id % 4 == 0 and current_job().attempt == 1:
                raise ConnectionError("once more")
            return task_id

        def OnAdd(id):
            note("added", id)

        def OnSuccess(id, response):
            note("sent", id, response)

        def OnRetry(id, *more):
            note("again", id)
    """,
    "pay": """
        from sqlalchemy import text

        from yaotask import current_job

        PAID = text("INSERT INTO paid VALUES (:id)")

        def Pay(task_id):
            job = current_job()
            with job.transaction() as connection:
                connection.execute(PAID, {"id": task_id})
            if task_id % 4 == 0 and job.attempt == 1:
                raise ConnectionError("once more")
    """,
}


@pytest.fixture(autouse=True)
def no_other_transition() -> None:
    """What is carried is stored in the state that it has."""


@pytest.fixture(params=[20, 2], ids=lambda size: f"pool-of-{size}")
def pooler(request: pytest.FixtureRequest, database: Database, servers: Servers) -> Iterator[Pooler]:
    try:
        program()
    except Missing as missing:
        pytest.skip(str(missing))
    with pooling(database, servers.folder, {"default_pool_size": request.param}) as pooler:
        yield pooler


@pytest.fixture(params=["hints: off\n", ""], ids=["hints-off", "hints-on"])
def settings(request: pytest.FixtureRequest) -> str:
    return f"{request.param}poll: 200ms\n"


def project(tmp_path: Path, name: str, pooler: Pooler, settings: str) -> Path:
    return folder(tmp_path, name, pooler.database, tasks=TASKS, scripts=SCRIPTS, settings=settings)


def test_a_node_and_who_adds_for_it_work_through_pgbouncer(tmp_path: Path, pooler: Pooler, settings: str) -> None:
    a, c = (project(tmp_path, name, pooler, settings) for name in "ac")
    with running(a, "--processes", "2") as node, App(c) as app:
        with pooler.connection() as own:
            own.execute("CREATE TABLE paid (id bigint)")
        app.tasks["mail"].add_many([[]] * (MAILS // 2))
        app.tasks["pay"].add_many([[]] * PAYMENTS)
        for _ in range(MAILS // 2):
            app.tasks["mail"].add()
        all_succeed(app, MAILS + PAYMENTS)
        # A hook may be called after its job has ended.
        until(lambda: len(noted("sent", a)) == MAILS and len(noted("added", a)) == MAILS)
        status, verified = (command(a, "db", word, "--json") for word in ("status", "verify"))
        node.signal(signal.SIGTERM)
        ended = node.status()
    with pooler.connection() as own:
        paid = [id for (id,) in own.execute("SELECT id FROM paid ORDER BY id").fetchall()]
        failures = own.execute(FAILURES).fetchall()

    assert sorted(notes(a, "sent")) == sorted(f"{id} {id}" for id in range(1, MAILS + 1))
    assert sorted(map(int, notes(a, "again"))) == list(range(4, MAILS + 1, 4))
    assert paid == list(range(1, PAYMENTS + 1))
    # What was meant to fail did, and nothing else.
    assert failures == [("retry", "ConnectionError")]
    assert (ended, lines_with(node, "died")) == (0, []), node.errors
    assert json.loads(status.stdout)["jobs"]["SUCCESS"] == MAILS + PAYMENTS
    assert (verified.returncode, shown(a, verified.stdout)) == (0, []), verified.stderr
    assert pooler.left_behind() == set()


def test_jobs_are_added_in_transactions_of_others_through_pgbouncer(tmp_path: Path, pooler: Pooler) -> None:
    url = pooler.url.set(drivername="postgresql+psycopg")
    engine = create_engine(url, poolclass=NullPool, connect_args={"prepare_threshold": None})
    with App(project(tmp_path, "c", pooler, "")) as app:
        app.store_status()
        with engine.begin() as connection:
            connection.execute(text("CREATE TABLE orders (id bigint)"))
        for number in range(20):
            with engine.connect() as connection:
                connection.execute(text("INSERT INTO orders VALUES (:id)"), {"id": number})
                app.tasks["mail"].options(connection=connection).add()
                connection.commit() if number % 2 else connection.rollback()
        with engine.connect() as connection:
            orders = connection.execute(text("SELECT count(*) FROM orders")).scalar()
        jobs = app.store_status()["jobs"]["WAITING"]

    assert (orders, jobs) == (10, 10)
    assert pooler.left_behind() == set()


def test_a_store_is_moved_through_pgbouncer_and_back(tmp_path: Path, pooler: Pooler) -> None:
    root = project(tmp_path, "a", pooler, "")
    filled(place(root, "sqlite:///old.db"), 500)
    there = pooler.database.url
    moves = [command(root, "db", "move", *way) for way in (("sqlite:///old.db", there), (there, "sqlite:///new.db"))]

    assert [moved.returncode for moved in moves] == [0, 0], moves
    assert PASSWORD not in str([moved.stdout + moved.stderr for moved in moves])
    assert pooler.left_behind() == set()


def test_the_tables_are_in_the_schema_that_the_user_is_given(tmp_path: Path, pooler: Pooler) -> None:
    asked = pooler.url.update_query_dict({"options": "-csearch_path=ours"})
    refused = command(
        folder(tmp_path, "b", Database("postgresql", asked.render_as_string(hide_password=False))), "db", "status"
    )
    with pooler.connection() as own:
        own.execute("CREATE SCHEMA ours")
        own.execute(f'ALTER ROLE postgres IN DATABASE "{pooler.url.database}" SET search_path = ours')
    with pooler.connection(CONSOLE) as console:
        console.execute("RECONNECT")
    with App(project(tmp_path, "a", pooler, "")) as app:
        app.tasks["mail"].add()
    with pooler.connection() as own:
        ((count,),) = own.execute("SELECT count(*) FROM ours.yaotask_jobs").fetchall()

    assert (refused.returncode, refused.stderr.count("\n")) == (4, 1)
    assert "by ALTER ROLE (" in refused.stderr
    assert PASSWORD not in refused.stderr
    assert count == 1


@pytest.mark.parametrize("has_store", [False, True])
def test_one_that_takes_each_statement_for_a_transaction_is_told_by_its_name(
    tmp_path: Path, pooler: Pooler, database: Database, servers: Servers, has_store: bool
) -> None:
    if has_store:
        with App(project(tmp_path, "a", pooler, "")) as app:
            app.tasks["mail"].add()
    with pooling(database, servers.folder, {"pool_mode": "statement"}, port=6433) as other:
        root = project(tmp_path, "b", other, "")
        with App(root) as app, pytest.raises(StorageUnavailable, match="set its pool_mode to transaction"):
            app.tasks["mail"].add()
