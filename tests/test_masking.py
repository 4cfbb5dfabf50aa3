"""Sensitive arguments are seen nowhere: not where a job is shown, not in what it says, not in the log."""

from __future__ import annotations

import functools
import itertools
import json
import logging
import threading
import timeit
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from cancel_support import seen, wait_for_the_flag
from runtime_support import StageApp, ended, query, reaches
from sqlalchemy import text

from yaotask import App, Fail, Ignore, Retry, current_job, process
from yaotask.errors import TransactionError
from yaotask.masking import MASK, args, everything, hider, members
from yaotask.signatures import Parameters
from yaotask.store.transactions import Transaction

pytest_plugins = ["runtime_fixtures"]

CANARY = "canary-4111"


def _parameters(function: Callable[..., Any]) -> Parameters:
    return Parameters.of(function)


def handler(task_id: int, name: str, card: Any = None, /, *rest: Any, **payload: Any) -> None:
    """What the arguments of these tests are for."""


# --- shown values --------------------------------------------------------------------------------------------


def test_a_positional_argument_is_masked_by_its_parameter() -> None:
    assert args(["Ann", CANARY], ["card"], _parameters(handler)) == ["Ann", MASK]


def test_all_that_a_starred_parameter_takes_is_masked_by_its_name() -> None:
    assert args(["Ann", 1, CANARY, 2], ["rest"], _parameters(handler)) == ["Ann", 1, MASK, MASK]


def test_the_id_is_no_argument() -> None:
    assert args(["Ann"], ["task_id"], _parameters(handler)) == ["Ann"]


def test_where_the_handler_is_not_known_every_positional_argument_is_masked() -> None:
    assert args(["Ann", {"a": 1}], ["card"], None) == [MASK, MASK]


def test_members_are_masked_however_deep_they_are() -> None:
    value = {"card": CANARY, "to": [{"card": {"number": CANARY}, "name": "Ann"}], "cards": 1}

    assert members(value, ["card"]) == {"card": MASK, "to": [{"card": MASK, "name": "Ann"}], "cards": 1}


def test_members_of_positional_arguments_are_masked() -> None:
    assert args([{"card": CANARY, "n": 1}], ["card"], _parameters(handler)) == [{"card": MASK, "n": 1}]


def test_of_a_task_without_a_definition_all_values_are_masked() -> None:
    assert everything([1, "x"], {"card": CANARY}) == ([MASK, MASK], {"card": MASK})


# --- texts ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given",
    [
        (["Ann", CANARY], {}),
        (["Ann", {"number": CANARY}], {}),
        (["Ann", [["x", CANARY]]], {}),
        (["Ann"], {"card": CANARY}),
        (["Ann"], {"to": [{"card": {"number": CANARY}}]}),
        ([{"card": CANARY}], {}),
    ],
)
def test_a_secret_is_found_wherever_it_was_given(given: tuple[list[Any], dict[str, Any]]) -> None:
    hide = hider(*given, ["card"], _parameters(handler))

    assert hide(f"refused: <{CANARY}>, Ann") == f"refused: <{MASK}>, Ann"


@pytest.mark.parametrize("secret", ['it\'s "so"', "two\nlines", "caf\u00e9 noir", "back\\slash"])
@pytest.mark.parametrize("spell", [str, repr, ascii, json.dumps])
def test_a_secret_is_found_as_python_and_json_quote_it(secret: str, spell: Callable[[str], str]) -> None:
    hide = hider([], {"card": secret}, ["card"], None)

    assert MASK in hide(f"refused {spell(secret)}.")
    assert secret.split()[0] not in hide(f"refused {spell(secret)}.")


def test_a_number_is_a_secret_too() -> None:
    assert hider([], {"card": 41112222}, ["card"], None)("card 41112222 refused") == f"card {MASK} refused"


def test_a_short_secret_is_found_as_a_word_of_its_own() -> None:
    hide = hider([], {"cvv": "12"}, ["cvv"], None)

    assert hide("cvv 12: line 123 of 12.py") == f"cvv {MASK}: line 123 of {MASK}.py"


@pytest.mark.parametrize(
    ("secrets", "told"),
    [
        (["12"], "x *** 3, *** and 12a"),
        (["3, 1", "12"], "x *** ***2 and 12a"),
        (["2 3"], "x 12 3, 12 and 12a"),
        (["2 3", "12"], "x *** 3, *** and 12a"),
    ],
)
def test_short_secrets_are_words_of_their_own_among_others(secrets: list[str], told: str) -> None:
    assert hider([], {"codes": secrets}, ["codes"], None)("x 12 3, 12 and 12a") == told


def _seconds(secrets: list[str], told: str) -> float:
    """What it takes to mask so many in a text, at best."""
    hide = hider([], {"codes": secrets}, ["codes"], None)
    return min(timeit.repeat(lambda: hide(told), number=1, repeat=3))


def test_many_short_secrets_cost_no_more_than_long_ones() -> None:
    codes = ["".join(letters) for letters in itertools.product("abcdefghijklmnopqrstu", repeat=3)][:9_000]
    longer = [code * 2 for code in codes]

    assert _seconds(codes, f"page 3 of 10, {codes[7]}") < 20 * _seconds(longer, f"page 3 of 10, {longer[7]}")


@pytest.mark.parametrize("value", [None, True, False, ""])
def test_a_value_that_says_nothing_is_left_in_texts(value: object) -> None:
    assert hider([], {"card": value}, ["card"], None)("None, True, False") == "None, True, False"


def test_the_longer_of_two_secrets_is_found_first() -> None:
    hide = hider([], {"a": "secret", "b": "secret-and-more"}, ["a", "b"], None)

    assert hide("secret-and-more") == MASK


def test_a_text_that_names_no_secret_is_left_as_it_is() -> None:
    assert hider(["Ann"], {}, ["card"], _parameters(handler))("no such user") == "no such user"


# --- the whole way ----------------------------------------------------------------------------------------------


def _fail(card: str) -> None:
    raise ValueError(f"bad card {card}")


def _give_up(card: str) -> None:
    raise Fail(f"bad card {card}")


def _ignore(card: str) -> None:
    raise Ignore(f"seen {card}")


def _ask_again(card: str) -> None:
    raise Retry(f"later: {card}", after=0)


def _say(card: str) -> None:
    job = current_job()
    job.progress(1, 2, f"charging {card}")
    process("tasks.mail.progress", job.id, 1, 2, f"charging {card}")
    job.progress_step(f"step {card}", 1, 2, f"at {card}")


@pytest.mark.parametrize("act", [_fail, _give_up, _ignore, _ask_again, _say])
@pytest.mark.parametrize("how", ["by position", "by name", "whole"])
async def test_no_row_and_no_log_line_holds_what_is_sensitive(
    stage: Callable[..., App],
    act: Callable[[str], None],
    how: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def plain(task_id: int, card: str) -> None:
        act(card)

    def whole(task_id: int, payload: dict[str, str]) -> None:
        # Taken out of it: it is hidden all the same.
        act(payload.pop("card"))

    hooks = {name: lambda *_: None for name in ("error", "retry", "ignore")}
    app = stage(whole if how == "whole" else plain, attempts=1, attempt_after=0, sensitive=["card"], hooks=hooks)
    caplog.set_level(logging.INFO)
    async with app.running():
        given = ([CANARY], {}) if how == "by position" else ([], {"card": CANARY})
        id = await app.tasks["mail"].aadd(*given[0], **given[1])
        shown = await ended(app, id)
        attempts = await app.aattempts(f"mail.{id}")

    assert CANARY not in json.dumps([shown, attempts])
    assert MASK in json.dumps([shown["args"], shown["payload"]])
    assert CANARY not in caplog.text
    # In the store itself it is found where it was given, and nowhere else.
    rows = query(app, "SELECT * FROM yaotask_attempts") + query(app, "SELECT * FROM yaotask_events")
    assert CANARY not in str(rows)
    assert str(query(app, "SELECT * FROM yaotask_jobs")).count(CANARY) == 1


async def test_what_is_given_to_a_statement_that_fails_is_not_told(stage: StageApp) -> None:
    # SQLAlchemy would cut it in its middle, where nothing finds it any more.
    secret = f"{CANARY} " * 100

    def handler(task_id: int, card: str) -> None:
        with current_job().transaction() as connection:
            connection.execute(text("INSERT INTO nowhere VALUES (:card)"), {"card": card})

    app = stage(handler, attempts=1, attempt_after=0, sensitive=["card"])
    async with app.running():
        job = await ended(app, await app.tasks["mail"].aadd(secret))

    assert "INSERT INTO nowhere" in job["error"]
    assert CANARY not in json.dumps(job)


async def test_what_refuses_the_commit_of_a_handler_is_masked(
    stage: StageApp, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def handler(task_id: int, card: str) -> None:
        with current_job().transaction():
            pass

    def refuse(transaction: Transaction, *_: object) -> bool:
        transaction.rollback()
        raise TransactionError(f"Key (card)=({CANARY}) already exists")

    app = stage(handler, attempts=1, attempt_after=0, sensitive=["card"])
    monkeypatch.setattr(Transaction, "finish", refuse)
    async with app.running():
        job = await ended(app, await app.tasks["mail"].aadd(CANARY))

    assert f"Key (card)=({MASK}) already exists" in job["error"]
    assert CANARY not in json.dumps(job) + caplog.text


async def test_what_a_transaction_says_that_cannot_be_rolled_back_is_masked(
    stage: StageApp, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def handler(task_id: int, card: str) -> None:
        with current_job().transaction():
            raise ValueError

    rollback = Transaction.rollback

    def complain(transaction: Transaction) -> None:
        rollback(transaction)
        raise TransactionError(f"still there: {CANARY}")

    app = stage(handler, attempts=1, attempt_after=0, sensitive=["card"])
    monkeypatch.setattr(Transaction, "rollback", complain)
    async with app.running():
        await ended(app, await app.tasks["mail"].aadd(CANARY))

    assert f"its transaction ends with its connection: TransactionError: still there: {MASK}" in caplog.text
    assert CANARY not in caplog.text


async def test_what_a_callback_of_a_cancel_raises_is_masked(stage: StageApp, caplog: pytest.LogCaptureFixture) -> None:
    def handler(task_id: int, card: str) -> None:
        def fail() -> None:
            raise ValueError(f"cannot give back {card}")

        job = current_job()
        job.on_cancel(fail)
        job.on_cancel(over.set)
        wait_for_the_flag(job)

    over = threading.Event()
    app = stage(handler, sensitive=["card"])
    async with app.running():
        id = await app.tasks["mail"].aadd(CANARY)
        await reaches(app, id, "RUNNING")
        await app.acancel(f"mail.{id}")
        assert await seen(over)

    assert f"gave to on_cancel failed: ValueError: cannot give back {MASK}" in caplog.text


async def test_a_message_from_outside_the_handler_is_masked(stage: Callable[..., App]) -> None:
    running, leave = anyio.Event(), anyio.Event()

    async def wait(task_id: int, card: str) -> None:
        running.set()
        await leave.wait()

    app = stage(wait, sensitive=["card"])
    async with app.running():
        id = await app.tasks["mail"].aadd(CANARY)
        await running.wait()
        await app.aprogress(f"mail.{id}", 1, 2, f"charging {CANARY}")
        leave.set()

        assert (await ended(app, id))["message"] == f"charging {MASK}"


def test_a_refused_payload_is_logged_without_its_values(
    project: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    task = """
        name: Mail
        process: scripts.mail.Send
        sensitive: [card]
        input: {properties: {card: {type: integer}, other: {enum: [a]}}}
    """
    with App(project(tasks={"mail": task})) as app:
        assert app.call("tasks.mail.add", card=CANARY) == 0
        assert app.call("tasks.mail.add", other=CANARY) == 0

    assert "$.payload.card" in caplog.text
    assert CANARY not in caplog.text


@pytest.fixture
def removed(project: Callable[..., Path]) -> Iterator[App]:
    root = project(
        tasks={
            "mail": "name: M\nprocess: scripts.mail.Send\nsensitive: [card]\n",
            "pay": "name: P\nprocess: scripts.p.P\n",
        }
    )
    with App(root) as app:
        app.tasks["mail"].add("Ann", card=CANARY)
    (root / "tasks" / "mail.yml").write_text("name: M\nprocess: scripts.mail.Send\nsensitve: [card]\n")
    with App(root) as app:
        yield app


def test_a_definition_with_a_fault_shows_no_values(removed: App) -> None:
    job = removed.get("mail.1")

    assert (job["args"], job["payload"]) == ([MASK], {"card": MASK})


def test_what_a_decorator_may_move_is_masked_wherever_it_goes() -> None:
    def login(session: object, task_id: int, password: str) -> None: ...

    @functools.wraps(login)
    def call(task_id: int, *given: Any) -> None:
        return login(None, task_id, *given)

    parameters = Parameters.of(call)

    assert args(["hunter2hunter2", "more"], ["password"], parameters) == ["***", "***"]
    assert args(["hello"], [], parameters) == ["hello"]
