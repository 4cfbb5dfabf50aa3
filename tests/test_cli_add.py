"""`yaotask add`: a job from the shell, checked as far as it can be there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli_support import Run
from run_support import running

from yaotask import App

pytest_plugins = ["cli_fixtures"]

pytestmark = pytest.mark.timeout(60)

SCRIPT = """
    def Send(task_id, to, times=1, **payload):
        if to == "nowhere":
            raise ValueError("no such place")
        return to
"""
TASK = "name: Mail\nprocess: scripts.mail.Send\n"


@pytest.fixture
def mail(project: Callable[..., Path]) -> Callable[..., Path]:
    """Makes a project of one task, `mail`."""

    def make(script: str = SCRIPT, task: str = TASK) -> Path:
        return project(tasks={"mail": task}, scripts={"mail": script})

    return make


def job(root: Path, id: str = "mail.1") -> dict[str, Any]:
    with App(root) as app:
        return app.get(id)


def count(root: Path) -> int:
    with App(root) as app:
        total: int = app.list(page=1)["total"]
        return total


def test_it_prints_the_name_of_the_job(mail: Callable[..., Path], run: Run) -> None:
    root = mail()

    assert run("add", "-a", root, "mail", "ann") == (0, "mail.1\n", "")
    assert run("add", "-a", root, "mail", "bob") == (0, "mail.2\n", "")


def test_words_are_text_or_json_and_a_payload_goes_by_name(mail: Callable[..., Path], run: Run) -> None:
    root = mail()
    run("add", "-a", root, "mail", "12", "::12", "--payload", '{"subject": "发送"}')
    added = job(root)

    assert (added["args"], added["payload"]) == (["12", 12], {"subject": "发送"})


def test_options_reach_the_job(mail: Callable[..., Path], run: Run) -> None:
    root = mail()
    more = ["--priority", "high", "--attempts", "7", "--timeout", "2m", "--created-by", "ann"]
    ended = run("add", "-a", root, "mail", "ann", *more, "--run-at", "2036-11-22T08:00:00Z")
    added = job(root)

    assert ended.status == 0
    assert (added["priority"], added["attempts"], added["timeout"], added["created_by"]) == (10, 7, 120, "ann")
    assert added["run_at"] == "2036-11-22T08:00:00.000000Z"


def test_a_key_that_was_used_answers_the_first_job(mail: Callable[..., Path], run: Run) -> None:
    root = mail()
    names = [run("add", "-a", root, "mail", "ann", "--key", "order-17").out for _ in range(2)]

    assert names == ["mail.1\n"] * 2
    assert count(root) == 1


# --- what is refused ---------------------------------------------------------------------------------


def test_arguments_that_the_handler_cannot_take_are_refused_at_once(mail: Callable[..., Path], run: Run) -> None:
    root = mail()

    assert run("add", "-a", root, "mail", "ann", "2", "3") == (
        1,
        "",
        "Error: too many positional arguments; the handler takes (task_id, to, times=1, **payload),"
        " and is given the job's id first\n",
    )
    assert run("add", "-a", root, "mail").err.startswith("Error: missing a required argument: 'to'")
    assert count(root) == 0


@pytest.mark.parametrize("script", ["import nothing_of_this_name\n", "def Other(): ...\n", "raise SystemExit(3)\n"])
def test_a_script_that_is_broken_does_not_keep_a_job_from_being_added(
    mail: Callable[..., Path], run: Run, script: str
) -> None:
    root = mail(script)

    assert run("add", "-a", root, "mail", "1", "2", "3", "4") == (0, "mail.1\n", "")
    assert job(root)["args"] == ["1", "2", "3", "4"]


def test_what_a_script_prints_as_it_is_imported_is_not_our_output(mail: Callable[..., Path], run: Run) -> None:
    root = mail("print('imported')\ndef Send(task_id): ...\n")

    assert run("add", "-a", root, "mail") == (0, "mail.1\n", "imported\n")


def test_a_payload_that_the_definition_does_not_allow_is_refused_with_its_place(
    mail: Callable[..., Path], run: Run
) -> None:
    root = mail(task=TASK + "input: {properties: {cc: {type: array}}}\n")
    ended = run("add", "-a", root, "mail", "ann", "--payload", '{"cc": "bob"}')

    assert (ended.status, ended.out) == (1, "")
    assert ended.err.startswith("Error: $.payload.cc: ")


def test_a_full_queue_refuses(mail: Callable[..., Path], run: Run) -> None:
    root = mail(task=TASK + "size: 1\n")
    run("add", "-a", root, "mail", "ann")
    ended = run("add", "-a", root, "mail", "bob")

    assert (ended.status, ended.out) == (1, "")
    assert ended.err.startswith("Error: the queue of mail is full: 1 jobs wait already; add later")


def test_an_unknown_task_is_a_usage_error_that_says_what_was_meant(mail: Callable[..., Path], run: Run) -> None:
    assert run("add", "-a", mail(), "mial") == (2, "", 'Error: there is no task "mial"; did you mean "mail"?\n')


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--priority", "urgent"], "--priority: must be an integer, or low, normal or high"),
        (["--delay", "soon"], '--delay: must be a number of seconds or a duration such as "500ms"'),
        (["--timeout", "0"], "--timeout: must be longer than nothing"),
        (["--run-at", "tomorrow"], "--run-at: must be a time such as 2026-11-22T08:00:00Z"),
        (["--delay", "1", "--run-at", "2036-11-22T08:00:00Z"], "--delay: give either delay or run_at"),
        (["--created-by", ""], "--created-by: must be text of 1 to 255 characters"),
        (["--attempts", "-1"], "Invalid value for '--attempts'"),
        (["--payload", "[]"], "--payload takes a JSON object"),
        (["::{"], "ARGS: { is not JSON"),
    ],
)
def test_a_bad_option_is_a_usage_error_that_names_it(
    mail: Callable[..., Path], run: Run, words: list[str], says: str
) -> None:
    root = mail()
    ended = run("add", "-a", root, "mail", "ann", *words)

    assert (ended.status, ended.out) == (2, "")
    assert f"Error: {says}" in ended.err
    assert count(root) == 0


# --- waiting -----------------------------------------------------------------------------------------


def test_wait_tells_how_the_job_ended_and_makes_that_the_status(mail: Callable[..., Path], run: Run) -> None:
    root = mail()
    with running(root):
        good = run("add", "-a", root, "mail", "ann", "--wait")
        bad = run("add", "-a", root, "mail", "nowhere", "--wait")

    assert (good.status, good.out) == (0, "mail.1\n")
    assert good.err.startswith("mail.1 SUCCESS in ")
    assert bad == (1, "mail.2\n", "mail.2 FAILURE ValueError: no such place\n")


def test_what_call_submits_can_be_waited_for_too(mail: Callable[..., Path], run: Run) -> None:
    root = mail()
    with running(root):
        added = run("call", "-a", root, "-s", "--wait", "tasks.mail.Add", "ann")
        submitted = run("call", "-a", root, "-s", "--wait", "tasks.mail.submit", '::{"args": ["nowhere"]}')

    assert (added.status, added.out) == (0, "1\n")
    assert (submitted.status, json.loads(submitted.out)["task_id"]) == (1, "mail.2")
    assert submitted.err == "mail.2 FAILURE ValueError: no such place\n"
