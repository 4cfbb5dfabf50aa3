"""The commands about a project's files: init, check, show, schema."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from definitions_support import TASK
from run_support import PATIENCE

from yaotask.cli import main
from yaotask.definitions.schema import TASK as SCHEMA

Project = Callable[..., Path]
SEND = "def Send(task_id): ...\n"


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs one command line; returns its exit status and what it wrote."""

    def run(*arguments: object) -> tuple[int, str, str]:
        status = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return status, out, err

    return run


Run = Callable[..., tuple[int, str, str]]


# --- check -------------------------------------------------------------------------------------------


def test_check_tells_what_each_task_amounts_to(project: Project, run: Run) -> None:
    root = project(
        tasks={
            "mail": f"{TASK}worker_nums: 10\nattempts: 3\nattempt_after: 1m\nbackoff: exponential\ntimeout: 30\n",
            "once": TASK,
            "twice": f"{TASK}attempts: 1\n",
        },
        scripts={"mail": SEND},
    )

    assert run("check", "-a", root) == (
        0,
        "TASK   AT ONCE  TRIES              WAITS       TIMEOUT  FILE\n"
        "mail   10       1 try + 3 retries  1m, 2m, 4m  30s      tasks/mail.yml\n"
        "once   1        1 try                          5m       tasks/once.yml\n"
        "twice  1        1 try + 1 retry    200ms       5m       tasks/twice.yml\n"
        "3 tasks, no problems\n",
        "",
    )


def test_check_prints_every_problem_and_exits_3(project: Project, run: Run) -> None:
    root = project(
        tasks={"mail": f"{TASK}worker_nums: 0\n", "other": "name: Other\nprocess: scripts.mail.Sned\n"},
        scripts={"mail": SEND},
        settings="pol: 1\n",
    )

    assert run("check", "-a", root) == (
        3,
        "tasks/mail.yml:3:14: worker_nums: must be at least 1, got 0\n"
        "    worker_nums: 0\n"
        "                 ^\n"
        'tasks/other.yml:2:10: process: scripts/mail.py has no function "Sned"; did you mean "Send"?\n'
        "    process: scripts.mail.Sned\n"
        "             ^\n"
        'yaotask.yml:1:1: pol: unknown setting; did you mean "poll"?\n'
        "    pol: 1\n"
        "    ^\n"
        "1 task, 3 problems\n",
        "",
    )


def test_check_as_json_is_for_programs(project: Project, run: Run) -> None:
    status, out, _ = run("check", "-a", project(tasks={"mail": TASK}, scripts={"mail": "1 / 0"}), "--format", "json")
    (problem,) = json.loads(out)

    assert status == 3
    assert problem["detail"].endswith("ZeroDivisionError: division by zero")
    assert {key: value for key, value in problem.items() if key != "detail"} == {
        "file": "tasks/mail.yml",
        "line": 2,
        "column": 10,
        "key": "process",
        "message": "scripts/mail.py cannot be imported: ZeroDivisionError: division by zero",
    }


def test_check_as_json_of_a_good_project_is_an_empty_list(project: Project, run: Run) -> None:
    root = project(tasks={"mail": TASK}, scripts={"mail": SEND})

    assert run("check", "-a", root, "--format", "json") == (0, "[]\n", "")


def test_check_annotates_on_github(project: Project, run: Run) -> None:
    root = project(tasks={"mail": f"{TASK}size: 5%\n"}, scripts={"mail": SEND})

    assert run("check", "-a", root, "--format", "github") == (
        3,
        '::error file=tasks/mail.yml,line=3,col=7,title=size::must be an integer, got "5%25"\n',
        "",
    )


def test_check_strict_reports_what_was_left_out(project: Project, run: Run) -> None:
    root = project(
        tasks={"mail": f"{TASK}worker_nums: 1\nattempts: 0\nattempt_after: 1\nsize: 1\n"}, scripts={"mail": SEND}
    )

    assert run("check", "-a", root, "--strict") == (
        3,
        "tasks/mail.yml: timeout: is left to its default; write it out, as in timeout: 5m\n1 task, 1 problem\n",
        "",
    )


def test_what_scripts_print_stays_out_of_the_report(project: Project, run: Run) -> None:
    root = project(tasks={"mail": TASK}, scripts={"mail": f"print('imported')\n{SEND}"})

    assert run("check", "-a", root, "--format", "json") == (0, "[]\n", "imported\n")


def test_what_a_file_says_cannot_move_the_cursor(project: Project, run: Run) -> None:
    root = project(tasks={"mail": f'{TASK}size: "\\e[31mred"\n'}, scripts={"mail": SEND})
    _, out, _ = run("check", "-a", root)

    assert "\x1b" not in out
    assert '[31mred"' in out


def test_check_needs_and_makes_no_store(project: Project, run: Run) -> None:
    root = project(tasks={"mail": TASK}, scripts={"mail": SEND})
    run("check", "-a", root)

    assert not (root / ".yaotask").exists()


# --- show --------------------------------------------------------------------------------------------

SECRETIVE = f"{TASK}attempts: ${{TRIES:-3}}\nsensitive: [a, '$ENV.WORD']\nx-mine: 1\n"


def test_show_prints_a_definition_as_its_file_has_it(
    project: Project, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORD", "hunter2")
    root = project(tasks={"mail": SECRETIVE})

    assert run("show", "-a", root, "mail") == (
        0,
        "name:       Mail\n"
        "process:    scripts.mail.Send\n"
        "attempts:   ${TRIES:-3}\n"
        'sensitive:  ["a", "$ENV.WORD"]\n'
        "x-mine:     1\n",
        "",
    )


def test_show_effective_has_every_key_and_masks_the_environment(
    project: Project, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORD", "hunter2")
    monkeypatch.setenv("TRIES", "77")
    root = project(tasks={"mail": SECRETIVE}, settings="defaults: {attempt_after: 1s, event: {add: scripts.mail.On}}")
    status, out, _ = run("show", "-a", root, "mail", "--effective", "--json")

    assert status == 0
    assert json.loads(out) == {
        "name": "Mail",
        "process": "scripts.mail.Send",
        "worker_nums": 1,
        "attempts": "***",
        "attempt_after": "1s",
        "backoff": {"strategy": "fixed", "jitter": 0.0},
        "timeout": "5m",
        "size": 1024,
        "event": {"add": "scripts.mail.On"},
        "executor": None,
        "priority": 0,
        "input": {},
        "fail_on": [],
        "ignore_on": [],
        "transaction": False,
        "sensitive": ["a", "***"],
    }


def test_what_show_prints_as_effective_is_a_definition_itself(project: Project, run: Run) -> None:
    text = f"{TASK}attempt_after: 90s\nbackoff: {{strategy: linear, max: 1h}}\npriority: low\ninput: {{type: object}}\n"
    root = project(tasks={"mail": text}, scripts={"mail": SEND})
    _, out, _ = run("show", "-a", root, "mail", "--effective", "--json")
    project(tasks={"mail.yml": out})

    assert run("show", "-a", root, "mail", "--effective", "--json") == (0, out, "")


@pytest.mark.parametrize(
    ("key", "handler", "executor"),
    [
        ("", "def Send(task_id): ...", "thread"),
        ("", "async def Send(task_id): ...", "async"),
        ("executor: process\n", "", "process"),
    ],
)
def test_show_effective_says_where_the_handler_runs(
    project: Project, run: Run, key: str, handler: str, executor: str
) -> None:
    root = project(tasks={"mail": TASK + key}, scripts={"mail": f"print('imported')\n{handler}\n"})
    status, out, _ = run("show", "-a", root, "mail", "--effective", "--json")

    assert (status, json.loads(out)["executor"]) == (0, executor)


def test_show_effective_says_why_it_does_not_know_where_the_handler_runs(project: Project, run: Run) -> None:
    root = project(tasks={"mail": TASK}, scripts={"mail": "raise ValueError('no such thing')"})
    status, out, err = run("show", "-a", root, "mail", "--effective", "--json")

    assert (status, json.loads(out)["executor"]) == (0, None)
    assert err == (
        "executor: not known, since scripts/mail.py cannot be imported: ValueError: no such thing; see: yaotask check\n"
    )


@pytest.mark.parametrize("suffix", [".yao", ".json"])
def test_show_reads_json_too(project: Project, run: Run, suffix: str) -> None:
    root = project(tasks={f"mail{suffix}": '{"name": "Mail", "process": "a.b"} // done'})

    assert run("show", "-a", root, "mail") == (0, "name:     Mail\nprocess:  a.b\n", "")


def test_show_of_an_unknown_task_says_what_was_meant(project: Project, run: Run) -> None:
    assert run("show", "-a", project(tasks={"mail": TASK}), "mial") == (
        2,
        "",
        'Error: there is no task "mial"; did you mean "mail"?\n',
    )


def test_show_of_a_task_with_problems_tells_them(project: Project, run: Run) -> None:
    root = project(tasks={"mail": f"{TASK}size: 0\n", "other": "", "good": TASK})
    status, out, err = run("show", "-a", root, "mail")

    assert (status, out) == (3, "")
    assert err.startswith("tasks/mail.yml:3:7: size: must be at least 1, got 0\n")
    assert "other" not in err
    assert run("show", "-a", root, "good")[0] == 0


# --- schema ------------------------------------------------------------------------------------------


def test_schema_prints_the_schema(run: Run) -> None:
    status, out, _ = run("schema")

    assert (status, json.loads(out)) == (0, SCHEMA)


def test_schema_write_puts_it_where_editors_look(project: Project, run: Run) -> None:
    root = project(tasks={"mail": TASK})
    status, out, _ = run("schema", "-a", root, "--write")

    assert (status, out) == (0, f"{root}/.yaotask/task.schema.json\n")
    assert json.loads((root / ".yaotask" / "task.schema.json").read_text(encoding="utf-8")) == SCHEMA


# --- init --------------------------------------------------------------------------------------------


@pytest.fixture
def fresh(tmp_path: Path, run: Run) -> Path:
    """A project as `init` writes it."""
    status, _, _ = run("init", tmp_path / "my app")
    assert status == 0
    return tmp_path / "my app"


def test_init_writes_a_project_that_passes_check(fresh: Path, run: Run) -> None:
    assert run("check", "-a", fresh) == (
        0,
        "TASK   AT ONCE  TRIES              WAITS       TIMEOUT  FILE\n"
        "hello  2        1 try + 3 retries  1s, 4s, 9s  10s      tasks/hello.yml\n"
        "1 task, no problems\n",
        "",
    )


def test_its_task_file_leads_editors_to_our_schema(fresh: Path) -> None:
    file = fresh / "tasks" / "hello.yml"
    key, _, target = file.read_text(encoding="utf-8").splitlines()[0].partition("$schema=")

    assert key == "# yaml-language-server: "
    assert json.loads((file.parent / target).read_text(encoding="utf-8")) == SCHEMA


def test_its_editor_settings_name_our_schema_for_every_task_file(fresh: Path) -> None:
    # Without them, editors take tasks/*.yml for Ansible's, as the public catalogue has it.
    settings: dict[str, Any] = json.loads((fresh / ".vscode" / "settings.json").read_text(encoding="utf-8"))
    ((schema, globs),) = settings["yaml.schemas"].items()

    assert json.loads((fresh / schema).read_text(encoding="utf-8")) == SCHEMA
    assert globs == ["tasks/**/*.yml", "tasks/**/*.yaml"]


def test_its_state_is_ignored_by_git(fresh: Path) -> None:
    assert ".yaotask/" in (fresh / ".gitignore").read_text(encoding="utf-8").splitlines()


def test_init_says_what_to_do_next(tmp_path: Path, run: Run) -> None:
    _, out, _ = run("init", tmp_path / "my app")

    assert out.endswith(
        f"\nNext:\n    cd '{tmp_path}/my app'\n    yaotask check\n    yaotask add hello you\n"
        "    yaotask run --drain\n    yaotask list\n"
    )


def test_init_leaves_what_is_there_as_it_is(fresh: Path, run: Run) -> None:
    mine = fresh / "tasks" / "hello.yml"
    mine.write_text("mine")
    status, out, _ = run("init", fresh)

    assert status == 0
    assert mine.read_text() == "mine"
    assert f"exists   {mine} (left as it is)\n" in out
    assert "wrote" not in out


@pytest.mark.parametrize("room", [0, 30])
def test_init_on_a_full_disk_leaves_no_piece_of_a_file_for_the_next_one(
    tmp_path: Path, run: Callable[..., tuple[int, str, str]], room: int
) -> None:
    root = tmp_path / "app"
    limit = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({room}, resource.RLIM_INFINITY)); "
    words = [
        sys.executable,
        "-c",
        f"{limit}import sys; from yaotask.cli import main; sys.exit(main())",
        "init",
        str(root),
    ]
    failed = subprocess.run(words, capture_output=True, timeout=PATIENCE)
    left = [file for file in root.rglob("*") if file.is_file()]
    status, out, _ = run("init", root)

    assert (failed.returncode, left) == (1, [])
    assert (status, out.count("wrote"), out.count("exists")) == (0, 5, 0)


def test_init_without_a_folder_writes_here(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    _, out, _ = run("init")

    assert (tmp_path / "tasks" / "hello.yml").is_file()
    assert "cd " not in out


def test_init_says_where_once(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    status, out, err = run("-a", tmp_path, "init", "sub")

    assert (status, out) == (2, "")
    assert f"Error: say where once: sub, or -a {tmp_path}\n" in err
    assert list(tmp_path.iterdir()) == []


def test_init_writes_where_the_environment_says(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("YAOTASK_ROOT", str(tmp_path / "there"))
    _, out, _ = run("init")

    assert run("check")[0] == 0
    assert (tmp_path / "there" / "tasks" / "hello.yml").is_file()
    assert list((tmp_path / "here").iterdir()) == []
    assert out.partition("\nNext:\n")[2].startswith("    yaotask check\n")


@pytest.mark.parametrize(
    ("words", "first"),
    [
        (["sub"], ["unset YAOTASK_ROOT", "cd sub"]),
        (["."], ["unset YAOTASK_ROOT", "yaotask check"]),
        (["-a", "."], ["unset YAOTASK_ROOT", "yaotask check"]),
        (["../there"], ["yaotask check", "yaotask add hello you"]),
    ],
)
def test_init_elsewhere_says_what_the_environment_would_hide(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch, words: list[str], first: list[str]
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("YAOTASK_ROOT", str(tmp_path / "there"))
    _, out, _ = run("init", *words)

    assert [line.strip() for line in out.partition("\nNext:\n")[2].splitlines()][:2] == first


def test_a_folder_that_looks_like_an_option_is_none(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    _, out, _ = run("init", "--", "-y")

    assert "\n    cd ./-y\n" in out
