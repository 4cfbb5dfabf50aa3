"""`yaotask call`: any process call from a shell, and what it answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_support import Run

from yaotask import App

pytest_plugins = ["cli_fixtures"]

SCRIPT = """
    def Echo(*args):
        return list(args)

    def Text():
        return "发\\n送"

    async def Later():
        return 1

    def Boom():
        raise RuntimeError("no\\x1b[2J way")

    def Leave():
        raise SystemExit(5)

    def Set():
        return {1}

    def Circle():
        around = []
        around.append(around)
        return around

    def NaN():
        return float("nan")

    def Touch():
        open("touched", "w").close()

    def Send(task_id):
        return None
"""


@pytest.fixture
def root(project: Callable[..., Path]) -> Path:
    return project(
        tasks={"mail": "name: Mail\nprocess: scripts.some.Send\nsize: 1\n"},
        scripts={"some": SCRIPT, "broken": "1 / 0\n"},
    )


def test_the_answer_is_printed_as_json_and_said_to_be_one(root: Path, run: Run) -> None:
    assert run("call", "-a", root, "scripts.some.Echo", "a", "::[1]", "\\::x") == (
        0,
        json.dumps(["a", [1], "::x"], indent=2) + "\n",
        "scripts.some.Echo returned:\n",
    )


@pytest.mark.parametrize(
    ("name", "words", "shown"),
    [("Echo", ["::{}", "b"], '[{}, "b"]'), ("Text", [], "发\n送"), ("Later", [], "1")],
)
def test_silent_prints_the_bare_answer(root: Path, run: Run, name: str, words: list[str], shown: str) -> None:
    assert run("call", "-a", root, "-s", f"scripts.some.{name}", *words) == (0, f"{shown}\n", "")


def test_what_a_function_raises_is_told_with_its_name(root: Path, run: Run) -> None:
    assert run("call", "-a", root, "scripts.some.Boom") == (
        1,
        "",
        "Error: scripts.some.Boom raised RuntimeError: no\\x1b[2J way\n",
    )


def test_a_function_cannot_choose_our_exit_status(root: Path, run: Run) -> None:
    assert run("call", "-a", root, "scripts.some.Leave") == (1, "", "Error: scripts.some.Leave raised SystemExit: 5\n")


@pytest.mark.parametrize("silent", [["-s"], []])
@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("Set", "Object of type set is not JSON serializable"),
        ("Circle", "Circular reference detected"),
        ("NaN", "Out of range float values are not JSON compliant"),
    ],
)
def test_an_answer_that_json_cannot_hold_is_no_fault_of_ours(
    root: Path, run: Run, name: str, why: str, silent: list[str]
) -> None:
    ended = run("call", "-a", root, *silent, f"scripts.some.{name}")

    assert (ended.status, ended.out) == (1, "")
    assert ended.err.startswith(f"Error: scripts.some.{name} returned what JSON cannot hold: {why}")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("tasks.mial.add", 'Error: there is no task "mial"; did you mean "mail"?'),
        ("tasks.mail.ad", 'Error: there is no method "ad" of tasks; did you mean "add"?'),
        ("taks.mail.add", 'Error: "taks.mail.add" is no process; did you mean "tasks"?'),
        ("tasks.mail.get", "Error: tasks.mail.get: missing a required argument: 'id'"),
    ],
)
def test_a_name_or_a_call_that_is_wrong_is_a_usage_error(root: Path, run: Run, name: str, says: str) -> None:
    ended = run("call", "-a", root, name)

    assert (ended.status, ended.out) == (2, "")
    assert says in ended.err


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("scripts.some.Ecko", 'scripts/some.py has no function "Ecko"; did you mean "Echo"?'),
        ("scripts.broken.Any", "scripts/broken.py cannot be imported: ZeroDivisionError: division by zero"),
    ],
)
def test_a_function_that_is_not_there_fails_with_the_reason(root: Path, run: Run, name: str, says: str) -> None:
    ended = run("call", "-a", root, name)

    assert (ended.status, ended.out) == (1, "")
    assert ended.err.startswith(f"Error: {says}")


def test_an_add_that_was_refused_answers_0_and_fails(root: Path, run: Run, caplog: pytest.LogCaptureFixture) -> None:
    first, second = (run("call", "-a", root, "-s", "tasks.mail.add") for _ in range(2))

    assert (first.status, first.out) == (0, "1\n")
    assert (second.status, second.out) == (1, "0\n")
    assert "a job of mail was refused: the queue of mail is full" in caplog.text


def test_wait_is_refused_before_anything_is_called_that_adds_no_job(
    root: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    ended = run("call", "-a", root, "--wait", "scripts.some.Touch")

    assert ended.status == 2
    assert "Error: --wait is for calls that add a job, as in tasks.mail.add" in ended.err
    assert not (root / "touched").exists()


def test_tasks_are_asked_by_name(root: Path, run: Run) -> None:
    with App(root) as app:
        app.tasks["mail"].add()
    shown = json.loads(run("call", "-a", root, "-s", "Tasks.mail.Get", "1").out)

    assert (shown["task_id"], shown["status"]) == ("mail.1", "WAITING")
    assert run("call", "-a", root, "-s", "tasks.mail.status", "::[1]").out == '{"1": "WAITING"}\n'
