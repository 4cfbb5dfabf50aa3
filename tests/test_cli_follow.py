"""`--follow` and `--wait`: a bar for a person, a line for each change into a pipe, an object a line for programs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cli_support import Screen, screen
from run_support import command, running, started, until

from yaotask import App

pytestmark = pytest.mark.timeout(60)

# Step n is reported once the file `step-n` is there.
SCRIPT = """
    import time
    from pathlib import Path

    from yaotask import current_job

    def Send(task_id, to):
        for step in (1, 2):
            while not Path(f"step-{step}").exists():
                time.sleep(0.01)
            current_job().progress(step, 4, f"[bold]sent {step}\\x1b[2J " + "发" * 200)
        while not Path("end").exists():
            time.sleep(0.01)
        if to == "nowhere":
            raise ValueError("no such place")
        return "sent"
"""


@pytest.fixture
def root(project: Callable[..., Path]) -> Iterator[Path]:
    """A project with a `yaotask run`; its job mail.1 waits for files."""
    root = project(tasks={"mail": "name: Mail\nprocess: scripts.mail.Send\nworker_nums: 2\n"}, scripts={"mail": SCRIPT})
    with App(root) as app:
        app.tasks["mail"].add("ann")
    with running(root):
        yield root


def let(root: Path, *steps: str) -> None:
    for step in steps:
        (root / step).touch()


# --- on a terminal -----------------------------------------------------------------------------------


@pytest.mark.parametrize("rich", [True, False])
@pytest.mark.parametrize("columns", [60, 120])
def test_a_bar_moves_and_goes_away_at_the_end(root: Path, rich: bool, columns: int) -> None:
    with screen(root, "get", "mail.1", "--follow", rich=rich, columns=columns) as terminal:
        let(root, "step-1")
        terminal.shows("[bold]")
        first = terminal.text
        let(root, "step-2")
        terminal.shows("50%")
        let(root, "end")
        assert terminal.status() == 0

    assert "25%" in first
    assert "RUNNING" in first
    assert widest(terminal) <= columns
    assert terminal.text.splitlines()[-1].split(maxsplit=1) == ["response:", '"sent"']


def widest(terminal: Screen) -> int:
    """The columns of the widest line that a bar has drawn."""
    lines = terminal.text.replace("\r", "\n").split("\n")
    return max(len(line) + line.count("发") for line in lines if "25%" in line and "[bold]" in line)


@pytest.mark.parametrize("rich", [True, False])
def test_ctrl_c_ends_the_watching_and_not_the_job(root: Path, rich: bool) -> None:
    with screen(root, "add", "mail", "bob", "--wait", rich=rich) as terminal:
        let(root, "step-1")
        terminal.shows("25%")
        terminal.interrupt()
        assert terminal.status() == 130
    with App(root) as app:
        status = app.get("mail.2")["status"]

    said = " ".join(terminal.text.split())
    assert "mail.2 goes on by itself; watch it again with: yaotask get mail.2 --follow" in said
    assert said.endswith("interrupted")
    assert status == "RUNNING"


def test_a_dumb_terminal_gets_lines_instead(root: Path) -> None:
    with screen(root, "get", "mail.1", "--follow", term="dumb") as terminal:
        terminal.shows("mail.1 RUNNING")
        let(root, "step-1")
        terminal.shows("mail.1 RUNNING 25% (1/4) [bold]sent 1")
        let(root, "step-2", "end")
        assert terminal.status() == 0

    assert "\x1b" not in terminal.raw


# --- into a pipe -------------------------------------------------------------------------------------


def test_a_pipe_gets_a_line_for_each_change_and_then_the_job(root: Path) -> None:
    with started(root, ["-m", "yaotask", "get", "mail.1", "--follow"]) as following:
        let(root, "step-1")
        until(lambda: "mail.1 RUNNING 25% (1/4) [bold]sent 1" in following.output)
        let(root, "step-2")
        until(lambda: "mail.1 RUNNING 50% (2/4) [bold]sent 2" in following.output)
        let(root, "end")
        assert following.status() == 0
    lines = following.output.splitlines()

    assert following.errors == ""
    assert [line for line in lines if line.startswith("mail.1 SUCCESS 50% (2/4)")]
    assert "job:       mail.1" in lines
    assert lines[-1] == 'response:  "sent"'


def test_with_json_each_change_is_an_object_a_line(root: Path) -> None:
    let(root, "step-1", "step-2", "end")
    followed = command(root, "get", "mail.1", "--follow", "--json")
    jobs = [json.loads(line) for line in followed.stdout.splitlines()]

    assert (followed.returncode, followed.stderr) == (0, "")
    assert (jobs[-1]["status"], jobs[-1]["response"]) == ("SUCCESS", "sent")
    assert all(job["task_id"] == "mail.1" for job in jobs)


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_following_a_job_that_fails_ends_with_one(root: Path, options: list[str]) -> None:
    let(root, "step-1", "step-2", "end")
    with App(root) as app:
        app.tasks["mail"].add("nowhere")
    followed = command(root, "get", "mail.2", "--follow", *options)

    assert followed.returncode == 1
    assert "no such place" in followed.stdout
