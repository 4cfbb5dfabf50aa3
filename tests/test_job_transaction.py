"""job.transaction(): effects that commit with the success of the job, or not at all."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import anyio.to_thread
import pytest
from runtime_support import PATIENCE, StageApp, change, ended, query
from sqlalchemy import text

from yaotask import App, current_job, process
from yaotask.context import Job
from yaotask.errors import ClaimLost, TransactionError
from yaotask.jobs import JobState, Succeeded
from yaotask.runtime import desk
from yaotask.store import direct, statements
from yaotask.store.ledger import Ledger
from yaotask.store.protocol import Progress
from yaotask.store.sql import SqlStore

pytest_plugins = ["runtime_fixtures"]

INSERT = text("INSERT INTO effects VALUES (1)")


def prepare(app: App) -> App:
    """Make the store, and the table for the effects of handlers."""
    app.store_status()
    change(app, "CREATE TABLE effects (amount INTEGER)")
    return app


def effects(app: App) -> int:
    ((count,),) = query(app, "SELECT count(*) FROM effects")
    return int(count)


async def run(app: App) -> dict[str, Any]:
    """Add a job and run it to its end."""
    async with app.running():
        return await ended(app, await app.acall("tasks.mail.add"))


def write(then: Callable[[], Any] = lambda: "done") -> Callable[[int], Any]:
    def handler(task_id: int) -> Any:
        with current_job().transaction() as connection:
            connection.execute(INSERT)
        return then()

    return handler


def _raise() -> None:
    raise ValueError("bad")


async def test_effects_commit_with_the_success(stage: StageApp) -> None:
    app = prepare(stage(write()))
    job = await run(app)

    assert (job["status"], job["response"], effects(app)) == ("SUCCESS", "done", 1)


async def test_a_success_in_a_transaction_is_counted_as_any_other(stage: StageApp) -> None:
    app = prepare(stage(write()))
    runner = app.works.embedded()
    async with runner.running(0):
        await ended(app, await app.acall("tasks.mail.add"))

    assert runner.ended == {Succeeded: 1}


@pytest.mark.parametrize("then", [_raise, lambda: {1, 2}], ids=["raises", "not JSON"])
async def test_without_success_there_are_no_effects(stage: StageApp, then: Callable[[], Any]) -> None:
    app = prepare(stage(write(then)))
    job = await run(app)

    assert (job["status"], effects(app)) == ("FAILURE", 0)


async def test_an_exception_inside_the_block_rolls_back_and_the_handler_may_go_on(stage: StageApp) -> None:
    def handler(task_id: int) -> str:
        with pytest.raises(ValueError, match="bad"), current_job().transaction() as connection:
            connection.execute(INSERT)
            raise ValueError("bad")
        return str(process("tasks.mail.get", task_id)["status"])

    app = prepare(stage(handler))
    job = await run(app)

    assert (job["status"], effects(app)) == ("SUCCESS", 0)


async def test_a_retry_writes_once(stage: StageApp) -> None:
    tries: list[int] = []

    def then() -> str:
        tries.append(1)
        if len(tries) < 3:
            raise ValueError("bad")
        return "done"

    app = prepare(stage(write(then), attempts=3, attempt_after=0))
    job = await run(app)

    assert (job["status"], len(tries), effects(app)) == ("SUCCESS", 3, 1)


async def test_a_timeout_rolls_back_at_once_and_the_late_success_is_refused(stage: StageApp) -> None:
    entered, gate, told = threading.Event(), threading.Event(), threading.Event()
    late: list[type[BaseException]] = []

    def handler(task_id: int) -> str:
        if entered.is_set():
            return "the other"
        job = current_job()
        with job.transaction() as connection:
            connection.execute(INSERT)
        entered.set()
        assert gate.wait(PATIENCE)
        try:
            job.progress(50)
        except ClaimLost as error:
            late.append(type(error))
        told.set()
        return "late"

    app = prepare(stage(handler, timeout="1s"))
    async with app.running():
        id = await app.acall("tasks.mail.add")
        assert await anyio.to_thread.run_sync(entered.wait, PATIENCE)
        job = await ended(app, id)
        # It has given the lock back although its handler goes on: others can write.
        await app.acall("tasks.mail.add")
        gate.set()
        # Its thread is nobody's any more, so that nobody waits for it.
        assert await anyio.to_thread.run_sync(told.wait, PATIENCE)

    assert (job["status"], job["error_type"]) == ("FAILURE", "TimeoutError")
    assert (effects(app), late) == (0, [ClaimLost])


async def test_an_attempt_that_is_over_gets_no_transaction_any_more(stage: StageApp) -> None:
    late, gate, over = list[type[BaseException]](), threading.Event(), threading.Event()

    def handler(task_id: int) -> None:
        assert gate.wait(PATIENCE)
        try:
            with current_job().transaction() as connection:
                connection.execute(INSERT)
        except ClaimLost as error:
            late.append(type(error))
        over.set()

    app = prepare(stage(handler, timeout="10ms"))
    async with app.running():
        job = await ended(app, await app.acall("tasks.mail.add"))
        gate.set()
        assert await anyio.to_thread.run_sync(over.wait, PATIENCE)

    assert (job["error_type"], late, effects(app)) == ("TimeoutError", [ClaimLost], 0)


async def test_an_attempt_that_ends_while_its_transaction_begins_gives_it_back(
    stage: StageApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin, running, late, over = SqlStore.transaction, list[Job](), list[type[BaseException]](), threading.Event()

    def begin_late(store: SqlStore) -> Any:
        opened = begin(store)
        running[-1].over = True
        return opened

    def handler(task_id: int) -> None:
        running.append(current_job())
        try:
            with current_job().transaction():
                pass
        except ClaimLost as error:
            late.append(type(error))
        over.set()

    app = prepare(stage(handler))
    monkeypatch.setattr(SqlStore, "transaction", begin_late)
    async with app.running(grace=0):
        await app.acall("tasks.mail.add")
        assert await anyio.to_thread.run_sync(over.wait, PATIENCE)
        # The write lock is free again.
        await app.acall("tasks.mail.add")

    assert late[0] is ClaimLost


async def test_a_claim_that_was_lost_meanwhile_stores_nothing(stage: StageApp) -> None:
    def handler(task_id: int) -> str:
        with current_job().transaction() as connection:
            connection.execute(INSERT)
            # What a reaper would have done before, had it taken this worker for dead.
            claim = current_job().claim
            taken = {"key": claim.key, "fence": claim.fence, "losses": 1, "error": "", "now": 1, "ready_at": None}
            direct.ask(connection, statements.LOSE, taken)
        over.set()
        return "late"

    over = threading.Event()
    app = prepare(stage(handler))
    async with app.running(grace=0):
        await app.acall("tasks.mail.add")
        assert await anyio.to_thread.run_sync(over.wait, PATIENCE)

    assert effects(app) == 0


async def test_it_can_be_used_once_in_an_attempt(stage: StageApp) -> None:
    def handler(task_id: int) -> None:
        with current_job().transaction() as connection:
            connection.execute(INSERT)
        with pytest.raises(TransactionError, match="once"), current_job().transaction():
            pass

    app = prepare(stage(handler))
    job = await run(app)

    assert (job["status"], effects(app)) == ("SUCCESS", 1)


async def test_an_async_handler_cannot_have_one(stage: StageApp) -> None:
    async def handler(task_id: int) -> None:
        with current_job().transaction():
            pass

    job = await run(prepare(stage(handler)))

    assert (job["status"], job["error_type"]) == ("FAILURE", "TransactionError")


async def test_a_thread_of_an_async_handler_cannot_have_one(stage: StageApp) -> None:
    """It may go on when the handler has ended, and then nobody would commit."""

    async def handler(task_id: int) -> None:
        await anyio.to_thread.run_sync(write(), task_id)

    app = prepare(stage(handler))
    job = await run(app)

    assert (job["status"], job["error_type"], effects(app)) == ("FAILURE", "TransactionError", 0)


async def test_a_definition_can_ask_for_it_and_a_failure_undoes_the_adds_of_the_handler(stage: StageApp) -> None:
    def handler(task_id: int, what: str) -> str:
        if what == "parent":
            process("tasks.mail.add", "child")
            raise ValueError("bad")
        return what

    app = prepare(stage(handler, transaction=True))
    async with app.running():
        job = await ended(app, await app.acall("tasks.mail.add", "parent"))
    ((jobs,),) = query(app, "SELECT count(*) FROM yaotask_jobs")

    assert (job["status"], jobs) == ("FAILURE", 1)


async def test_one_that_the_definition_has_opened_is_handed_out(stage: StageApp) -> None:
    def handler(task_id: int, fails: bool) -> int:
        child: int = process("tasks.mail.add", True)
        with current_job().transaction() as connection:
            connection.execute(INSERT)
        if fails:
            raise ValueError("bad")
        return child

    app = prepare(stage(handler, transaction=True))
    async with app.running():
        good = await ended(app, await app.acall("tasks.mail.add", False))
        # It was added with that success; what it adds itself is undone with its failure.
        bad = await ended(app, good["response"])
    ((jobs,),) = query(app, "SELECT count(*) FROM yaotask_jobs")

    assert (good["status"], bad["status"], bad["error_type"]) == ("SUCCESS", "FAILURE", "ValueError")
    assert (jobs, effects(app)) == (2, 1)


async def test_one_that_is_handed_out_may_be_let_go_of(stage: StageApp) -> None:
    def handler(task_id: int) -> str:
        opened = current_job().transaction()
        opened.__enter__().execute(INSERT)
        return "done"

    app = prepare(stage(handler, transaction=True))
    job = await run(app)

    assert (job["status"], job["error"], effects(app)) == ("SUCCESS", None, 1)


async def test_one_that_the_definition_has_opened_is_handed_out_once(stage: StageApp) -> None:
    def handler(task_id: int) -> None:
        with current_job().transaction() as connection:
            connection.execute(INSERT)
        with pytest.raises(TransactionError, match="once"), current_job().transaction():
            pass

    app = prepare(stage(handler, transaction=True))
    job = await run(app)

    assert (job["status"], effects(app)) == ("SUCCESS", 1)


async def test_a_handler_that_goes_on_after_an_exception_in_the_definitions_transaction_has_failed(
    stage: StageApp,
) -> None:
    """What it wrote before would be lost with a success that says nothing of it."""

    def handler(task_id: int) -> str:
        process("tasks.mail.add")
        with pytest.raises(ValueError, match="bad"), current_job().transaction() as connection:
            connection.execute(INSERT)
            raise ValueError("bad")
        return "done"

    app = prepare(stage(handler, transaction=True))
    job = await run(app)
    ((jobs,),) = query(app, "SELECT count(*) FROM yaotask_jobs")

    assert (job["status"], job["error_type"], effects(app), jobs) == ("FAILURE", "TransactionError", 0, 1)
    assert "exception" in job["error"]


async def test_calls_of_the_handler_go_through_it(stage: StageApp) -> None:
    def handler(task_id: int, what: str) -> Any:
        if what == "child":
            return what
        with current_job().transaction() as connection:
            connection.execute(INSERT)
            child = process("tasks.mail.add", "child")
        return [child, process("tasks.mail.get", child)["status"]]

    app = prepare(stage(handler, worker_nums=2))
    async with app.running():
        parent = await ended(app, await app.acall("tasks.mail.add", "parent"))
        child = await ended(app, parent["response"][0])

    assert (parent["response"][1], child["response"], effects(app)) == ("WAITING", "child", 1)


def _say(then: Callable[[], Any]) -> Callable[[int], Any]:
    def handler(task_id: int) -> Any:
        job = current_job()
        with job.transaction():
            job.progress(3, 10, "sent 3")
            job.count(success=3, failure=1)
            job.extra["at"] = "page 3"
        return then()

    return handler


@pytest.mark.parametrize(
    ("then", "status", "types"), [(lambda: "done", "PARTIAL", None), (_raise, "FAILURE", "ValueError")]
)
async def test_what_is_said_inside_is_kept_with_any_end(
    stage: StageApp, then: Callable[[], Any], status: str, types: str | None
) -> None:
    job = await run(prepare(stage(_say(then))))

    assert (job["status"], job["error_type"]) == (status, types)
    assert (job["current"], job["total"], job["message"]) == (3, 10, "sent 3")
    assert (job["success_count"], job["fail_count"], job["extra_data"]) == (3, 1, {"at": "page 3"})


async def test_a_result_set_inside_is_the_response(stage: StageApp) -> None:
    def handler(task_id: int) -> None:
        with current_job().transaction():
            current_job().set_result({"rows": 3})

    job = await run(prepare(stage(handler)))

    assert (job["status"], job["response"]) == ("SUCCESS", {"rows": 3})


async def test_held_for_too_long_it_is_rolled_back_and_a_failed_try(
    stage: StageApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk, "LONGEST_TRANSACTION", 0.03)
    entered, expired = threading.Event(), threading.Event()

    def handler(task_id: int) -> str:
        job = current_job()
        with job.transaction() as connection:
            connection.execute(INSERT)
            # What others write to as well, so that they must wait.
            connection.execute(text("UPDATE yaotask_ids SET next = next"))
            job.progress(7)
        entered.set()
        assert expired.wait(PATIENCE)
        return "done"

    app = prepare(stage(handler))
    async with app.running():
        id = await app.acall("tasks.mail.add")
        assert await anyio.to_thread.run_sync(entered.wait, PATIENCE)
        # Others can write again before this handler ends.
        await anyio.to_thread.run_sync(change, app, "UPDATE yaotask_ids SET next = next")
        expired.set()
        job = await ended(app, id)

    assert (job["status"], job["error_type"], effects(app)) == ("FAILURE", "TransactionTooLong", 0)
    assert job["current"] == 7


async def test_waiting_for_others_is_not_of_its_time(stage: StageApp, monkeypatch: pytest.MonkeyPatch) -> None:
    begin, longest = SqlStore.transaction, 1.0

    def begin_late(store: SqlStore) -> Any:
        threading.Event().wait(1.1 * longest)
        return begin(store)

    monkeypatch.setattr(desk, "LONGEST_TRANSACTION", longest)
    monkeypatch.setattr(SqlStore, "transaction", begin_late)
    app = prepare(stage(write()))
    job = await run(app)

    assert (job["status"], effects(app)) == ("SUCCESS", 1)


async def test_a_handler_that_asks_for_a_rollback_has_failed(stage: StageApp) -> None:
    def handler(task_id: int) -> str:
        with current_job().transaction() as connection:
            connection.execute(INSERT)
            with pytest.raises(TransactionError):
                connection.rollback()
        return "done"

    app = prepare(stage(handler, worker_nums=1))
    async with app.running():
        first = await ended(app, await app.acall("tasks.mail.add"))
        second = await ended(app, await app.acall("tasks.mail.add"))

    assert {first["error_type"], second["error_type"]} == {"TransactionError"}
    assert effects(app) == 0


async def test_a_progress_hook_inside_goes_through_it_too(stage: StageApp) -> None:
    seen: list[str] = []

    def handler(task_id: int) -> str:
        with current_job().transaction() as connection:
            connection.execute(INSERT)
            current_job().progress(50)
        return "done"

    def on_progress(id: int, *rest: Any) -> None:
        seen.append(process("tasks.mail.get", id)["task_id"])

    app = prepare(stage(handler, hooks={"progress": on_progress}))
    job = await run(app)

    assert (job["status"], seen, effects(app)) == ("SUCCESS", ["mail.1"], 1)


@pytest.mark.parametrize("more", [False, True], ids=["before it", "before and in it"])
async def test_what_was_said_before_the_commit_is_stored_though_the_commit_overtakes_it(
    stage: StageApp, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, more: bool
) -> None:
    def handler(task_id: int) -> None:
        job = current_job()
        job.count(success=1)
        job.progress(10, 100, "before")
        with job.transaction() as connection:
            connection.execute(INSERT)
            if more:
                job.progress(20, 100, "in it")

    under_way: list[Progress] = []
    write = Ledger.progress
    monkeypatch.setattr(Ledger, "progress", lambda ledger, note: under_way.append(note))
    app = prepare(stage(handler))
    said = "SELECT state, current, message, success_count FROM yaotask_jobs"
    async with app.running():
        await ended(app, await app.acall("tasks.mail.add"))
        with_the_commit = query(app, said)
        for note in under_way:
            write(app.works.access.opened.ledger, note)
        await app.works.access.aask(lambda ledger, ticket: ledger.errand(lambda cycle: None, ticket))

    assert [note.changes.get("current") for note in under_way] == [None, 10]
    assert with_the_commit == [(JobState.SUCCESS, *((20, "in it") if more else (10, "before")), 1)]
    assert query(app, said) == with_the_commit
    assert "given to another worker" not in caplog.text


@pytest.mark.parametrize("what", ["invalidate", "close"])
async def test_a_handler_that_takes_its_connection_away_fails_and_leaves_its_place(stage: StageApp, what: str) -> None:
    def handler(task_id: int, breaks: bool) -> str:
        with current_job().transaction() as connection:
            if breaks and what == "invalidate":
                connection.invalidate()
            elif breaks:
                connection.connection.close()
        return "done"

    app = stage(handler, worker_nums=1)
    async with app.running():
        first = await ended(app, await app.acall("tasks.mail.add", True))
        second = await ended(app, await app.acall("tasks.mail.add", False))

    assert (first["status"], second["status"]) == ("FAILURE", "SUCCESS")
