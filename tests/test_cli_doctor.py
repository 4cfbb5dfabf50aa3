"""`yaotask doctor`: a list to go through, and an exit status for programs that watch."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_support import Run, screen
from fleet_support import Fleet

from yaotask import App

pytest_plugins = ["cli_fixtures"]

TASK = "name: Mail\nprocess: scripts.mail.Send\n"
SCRIPT = "print('imported')\ndef Send(task_id): ...\n"


@pytest.fixture
def root(project: Callable[..., Path]) -> Path:
    return project(tasks={"mail": TASK}, scripts={"mail": SCRIPT})


@pytest.fixture
def used(root: Path) -> Path:
    with App(root) as app:
        app.tasks["mail"].add()
    return root


def test_where_all_is_well_each_thing_is_a_line_and_the_status_is_zero(root: Path, run: Run) -> None:
    ended = run("doctor", "-a", root)
    lines = ended.out.splitlines()

    assert (ended.status, ended.err) == (0, "imported\n")
    assert lines[:2] == ["ok     settings: no problems", "ok     definitions: 1 task"]
    assert all(line.startswith("ok     ") for line in lines[:-1])
    assert lines[-1] == "0 faults, 0 warnings"


def test_a_fault_makes_the_status_one_and_says_what_to_do(used: Path, run: Run) -> None:
    ended = run("doctor", "-a", used)
    *_, what, advice, hooks, last = ended.out.splitlines()

    assert ended.status == 1
    assert what.startswith("fault  jobs: no worker is up, and 1 job could run, the oldest for ")
    assert advice == "       -> start one with: yaotask run"
    assert (hooks, last) == ("ok     hooks: all delivered", "1 fault, 0 warnings")


def test_a_warning_leaves_the_status_at_zero(used: Path, run: Run) -> None:
    Fleet(used).enter(1, zombies={"mail": 1})
    ended = run("doctor", "-a", used)

    assert (ended.status, ended.out.splitlines()[-1]) == (0, "0 faults, 1 warning")


def test_as_json_each_finding_is_an_object(used: Path, run: Run) -> None:
    ended = run("doctor", "-a", used, "--json", "--full")
    findings = json.loads(ended.out)

    assert ended.status == 1
    assert findings[0] == {"level": "ok", "about": "settings", "what": "no problems", "advice": ""}
    assert {finding["level"] for finding in findings} == {"ok", "fault"}


def test_faults_of_the_settings_are_findings_and_no_reason_to_give_up(project: Callable[..., Path], run: Run) -> None:
    root = project(tasks={"mail": TASK}, scripts={"mail": SCRIPT}, settings="store: 5\n")
    ended = run("doctor", "-a", root)

    assert (ended.status, ended.out.splitlines()[0][:39]) == (1, "fault  settings: yaotask.yml:1:8: store")


def test_what_others_have_written_is_shown_escaped(used: Path, run: Run) -> None:
    Fleet(used).enter(1, host="a\x1b[2Jb", state="silent")

    assert "fault  workers: worker 1 on a\\x1b[2Jb is silent" in run("doctor", "-a", used).out


def test_on_a_terminal_the_levels_have_colours(used: Path) -> None:
    with screen(used, "doctor") as terminal:
        assert terminal.status() == 1

    assert "\x1b[32mok     \x1b[0mdefinitions: 1 task" in terminal.raw
    assert "\x1b[31mfault  \x1b[0mjobs: " in terminal.raw
