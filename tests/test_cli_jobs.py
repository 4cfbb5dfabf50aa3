"""`yaotask list`, `get`, `cancel`, `retry`: jobs as a person, a pipe and a program see them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli_support import Run, screen
from run_support import PATIENCE, drained

from yaotask import App

pytest_plugins = ["cli_fixtures"]

pytestmark = pytest.mark.timeout(60)

SCRIPT = """
    def Send(task_id, to, **payload):
        if to == "nowhere":
            raise ValueError("no such place:\\n\\x1b[2J发")
        return {"to": to}
"""
LATER = "2036-11-22T08:00:00Z"


@pytest.fixture
def root(project: Callable[..., Path]) -> Path:
    task = "name: 发送邮件\nprocess: scripts.mail.Send\n"
    return project(tasks={"mail": task, "media/video": task}, scripts={"mail": SCRIPT})


@pytest.fixture
def ended(root: Path) -> Path:
    """A project whose mail.1 succeeded and mail.2 failed."""
    add(root, "ann")
    add(root, "nowhere")
    drained(root)
    return root


def add(root: Path, *args: Any, task: str = "mail", **options: Any) -> str:
    with App(root) as app:
        return f"{task}.{app.tasks[task].options(**options).add(*args)}"


def rows(table: str) -> list[list[str]]:
    """The cells of a table that was printed, without its header."""
    return [line.split() for line in table.splitlines()[1:]]


# --- get ---------------------------------------------------------------------------------------------


def test_get_shows_a_job_as_fields(ended: Path, run: Run) -> None:
    status, out, err = run("get", "-a", ended, "mail.1")
    shown = dict(line.split(":", 1) for line in out.splitlines())

    assert (status, err) == (0, "")
    assert {key: shown[key].strip() for key in ("job", "name", "status", "try", "args", "response")} == {
        "job": "mail.1",
        "name": "发送邮件",
        "status": "SUCCESS",
        "try": "1 of at most 1",
        "args": '"ann"',
        "response": '{"to": "ann"}',
    }


def test_an_error_of_several_lines_stays_in_its_field_and_moves_no_cursor(ended: Path, run: Run) -> None:
    lines = run("get", "-a", ended, "mail.2").out.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("error:"))

    assert lines[at : at + 2] == ["error:      ValueError: no such place:", "            \\x1b[2J发"]


def test_a_long_value_is_shown_member_by_member(root: Path, run: Run) -> None:
    with App(root) as app:
        app.tasks["mail"].add("ann", subject="x" * 60, text="y" * 60)
    lines = run("get", "-a", root, "mail.1").out.splitlines()
    at = lines.index("payload:  {")

    assert lines[at + 1 : at + 4] == [
        f'            "subject": "{"x" * 60}",',
        f'            "text": "{"y" * 60}"',
        "          }",
    ]


def test_get_as_json_is_the_job_itself(ended: Path, run: Run) -> None:
    status, out, _ = run("get", "-a", ended, "mail.2", "--json")
    with App(ended) as app:
        assert (status, json.loads(out)) == (0, app.get("mail.2"))


@pytest.mark.parametrize("command", ["get", "cancel", "retry"])
@pytest.mark.parametrize(
    ("job", "status", "says"),
    [
        ("mail.99", 1, "there is no job mail.99: it was never added"),
        ("mial.1", 2, 'there is no task "mial"; did you mean "mail"?'),
        ("mail", 2, '"mail" is no job: a job is named by its task and its id, as in mail.12'),
        ("mail.x", 2, '"mail.x" is no job: a job is named by its task and its id, as in mail.12'),
    ],
)
def test_a_job_that_is_not_there_is_told_from_a_task_that_is_not(
    root: Path, run: Run, command: str, job: str, status: int, says: str
) -> None:
    assert run(command, "-a", root, job) == (status, "", f"Error: {says}\n")


# --- list --------------------------------------------------------------------------------------------


def test_list_shows_the_newest_first_and_how_many(ended: Path, run: Run) -> None:
    status, out, err = run("list", "-a", ended)

    assert (status, err) == (0, "2 jobs\n")
    assert out.splitlines()[0].split() == ["JOB", "STATUS", "PROGRESS", "TRY", "CREATED", "TOOK", "ABOUT"]
    assert [row[:3] for row in rows(out)] == [["mail.2", "FAILURE", "1/1"], ["mail.1", "SUCCESS", "1/1"]]


def test_a_pipe_gets_a_job_a_line_and_all_of_it(ended: Path, run: Run) -> None:
    add(ended, "z" * 500)
    out = run("list", "-a", ended).out.splitlines()

    assert len(out) == 4
    assert out[1].endswith(f'"{"z" * 500}"')
    assert out[2].endswith("ValueError: no such place:\\n\\x1b[2J发")


@pytest.mark.parametrize("rich", [True, False])
@pytest.mark.parametrize("columns", [80, 120])
def test_a_terminal_gets_lines_of_its_own_width(root: Path, rich: bool, columns: int) -> None:
    add(root, "中" * 200)
    with screen(root, "list", columns=columns, rich=rich) as terminal:
        assert terminal.status() == 0
        lines = terminal.text.splitlines()

    row = next(line for line in lines if line.startswith("mail.1"))
    assert row.endswith("…")
    assert columns - 2 <= len(row) + row.count("中") <= columns
    assert len(lines) == 3


def test_list_takes_a_task_and_filters(ended: Path, run: Run) -> None:
    add(ended, "bob", task="media.video")

    assert [row[0] for row in rows(run("list", "-a", ended, "mail", "--status", "failed").out)] == ["mail.2"]
    both = run("list", "-a", ended, "mail", "--status", "failed", "--status", "SUCCESS")
    assert [row[0] for row in rows(both.out)] == ["mail.2", "mail.1"]
    assert [row[0] for row in rows(run("list", "-a", ended, "media.video").out)] == ["media.video.1"]
    assert [row[0] for row in rows(run("list", "-a", ended, "--text", "such place").out)] == ["mail.2"]
    assert rows(run("list", "-a", ended, "--since", LATER).out) == []
    assert len(rows(run("list", "-a", ended, "--until", LATER).out)) == 3


def test_a_job_with_nothing_but_a_payload_is_listed_with_it_masked_as_elsewhere(root: Path, run: Run) -> None:
    with App(root) as app:
        app.tasks["mail"].add(to="ann", card="4242")
    task = root / "tasks" / "mail.yml"
    task.write_text(f"{task.read_text(encoding='utf-8')}sensitive: [card]\n", encoding="utf-8")

    (line,) = run("list", "-a", root).out.splitlines()[1:]
    assert line.endswith('{"to": "ann", "card": "***"}')


def test_pages_follow_each_other_by_cursor_or_by_number(root: Path, run: Run) -> None:
    for number in range(5):
        add(root, str(number))
    first = run("list", "-a", root, "mail", "--page-size", "2")
    cursor = first.err.split()[-1]
    second = run("list", "-a", root, "mail", "--page-size", "2", "--cursor", cursor)
    third = run("list", "-a", root, "mail", "--page-size", "2", "--page", "3")

    assert first.err == f"2 jobs; more with --cursor {cursor}\n"
    assert [row[0] for row in rows(first.out + second.out) if row[0] != "JOB"] == [
        "mail.5", "mail.4", "mail.3", "mail.2"
    ]  # fmt: skip
    assert ([row[0] for row in rows(third.out)], third.err) == (["mail.1"], "1 job of 5\n")


def test_list_as_json_is_the_page_itself(ended: Path, run: Run) -> None:
    status, out, err = run("list", "-a", ended, "mail", "--json", "--page", "1", "--page-size", "1")
    page = json.loads(out)

    assert (status, err) == (0, "")
    assert ([job["task_id"] for job in page["items"]], page["total"], page["page"]) == (["mail.2"], 2, 1)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--status", "waitng"], '--status: there is no status "waitng"; did you mean "WAITING"?'),
        (["--since", "yesterday"], "--since: must be a time such as 2026-11-22T08:00:00Z"),
        (["--cursor", "x"], "--cursor: is no cursor"),
        (["--page", "1", "--cursor", "5"], "--page: give either page or cursor"),
        (["--page-size", "201"], "Invalid value for '--page-size'"),
        (["mial"], 'there is no task "mial"; did you mean "mail"?'),
    ],
)
def test_a_bad_filter_is_a_usage_error_that_names_it(root: Path, run: Run, words: list[str], says: str) -> None:
    ended = run("list", "-a", root, *words)

    assert (ended.status, ended.out) == (2, "")
    assert f"Error: {says}" in ended.err


# --- cancel and retry --------------------------------------------------------------------------------


def test_cancel_takes_several_and_tells_which_could_not_be(ended: Path, run: Run) -> None:
    waiting = add(ended, "bob", run_at=LATER)

    assert run("cancel", "-a", ended, "mail.1", waiting, "mail.2") == (
        1,
        "mail.3 cancelled\nmail.2 cancelled\n",
        "Error: mail.1 has ended as SUCCESS: there is nothing to cancel\n",
    )
    with App(ended) as app:
        assert app.status("mail", [1, 2, 3]) == {1: "SUCCESS", 2: "CANCELLED", 3: "CANCELLED"}


def test_retry_lets_a_failed_job_wait_again(ended: Path, run: Run) -> None:
    assert run("retry", "-a", ended, "mail.2") == (0, "mail.2 waits to run again\n", "")
    assert run("retry", "-a", ended, "mail.1").status == 1
    with App(ended) as app:
        assert app.status("mail", [1, 2]) == {1: "SUCCESS", 2: "WAITING"}


def test_all_jobs_have_their_turn_though_nobody_reads_what_came_of_them(ended: Path) -> None:
    waiting = [add(ended, "bob", run_at=LATER) for _ in range(3)]
    left, pipe = os.pipe()
    os.close(left)
    words = [sys.executable, "-m", "yaotask"]
    cancelled = subprocess.run([*words, "cancel", *waiting], cwd=ended, stdout=pipe, timeout=PATIENCE)
    with App(ended) as app:
        then = app.status("mail", [3, 4, 5])
    # As `2>&1 | head` does, with one that cannot be changed in the middle.
    some = [waiting[0], "mail.1", *waiting[1:]]
    again = subprocess.run([*words, "retry", *some], cwd=ended, stdout=pipe, stderr=pipe, timeout=PATIENCE)
    os.close(pipe)

    assert (cancelled.returncode, again.returncode) == (0, 1)
    assert then == dict.fromkeys([3, 4, 5], "CANCELLED")
    with App(ended) as app:
        assert app.status("mail", [3, 4, 5]) == dict.fromkeys([3, 4, 5], "WAITING")
