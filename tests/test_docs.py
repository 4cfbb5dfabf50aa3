"""The documents name everything that there is, and what they say of it is so."""

from __future__ import annotations

import ast
import json
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
import pytest
from fleet_support import Fleet
from run_support import command, drained

import yaotask
from yaotask import App, Job, current_app
from yaotask.app import Task
from yaotask.calls import METHODS, SUBMIT
from yaotask.cli import exits
from yaotask.cli.base import common_options
from yaotask.cli.root import cli
from yaotask.definitions.loader import load
from yaotask.definitions.schema import TASK
from yaotask.jobs import STATUS_WORDS, STATUSES
from yaotask.jobview import ATTEMPT_FIELDS
from yaotask.listing import FILTERS
from yaotask.options import NAMES
from yaotask.settings import Limits, Settings, load_settings

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


def text(page: Path | str) -> str:
    return (ROOT / "docs" / page).read_text(encoding="utf-8")


def rows(markdown: str) -> list[list[str]]:
    """The cells of all its tables."""
    return [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in markdown.splitlines()
        if line.startswith("|") and not line.startswith("|---")
    ]


def code(cell: str) -> set[str]:
    """The names in a cell that are set as code."""
    return set(re.findall(r"`([^`]+)`", cell))


def named(markdown: str) -> set[str]:
    """The names in the first cells of its tables."""
    return {name for row in rows(markdown) for name in code(row[0])}


def section(markdown: str, heading: str) -> str:
    """What stands under a heading, to the next one of its rank or above."""
    rank = len(heading) - len(heading.lstrip("#"))
    found = re.search(rf"^{re.escape(heading)}.*?\n(.*?)(?=^#{{1,{rank}}} |\Z)", markdown, re.DOTALL | re.MULTILINE)
    assert found, heading
    return found[1]


def blocks(markdown: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", markdown, re.DOTALL | re.MULTILINE)


# --- links -------------------------------------------------------------------------------------------


def anchors(markdown: str) -> set[str]:
    """What the headings of a page are called in links to them."""
    titles = re.findall(r"^#+ (.+)$", markdown, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_each_link_inside_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        place = (page.parent / file) if file else page

        assert place.is_file(), target
        assert not anchor or anchor in anchors(place.read_text(encoding="utf-8")), target


# --- the command line --------------------------------------------------------------------------------


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every command by the words that call it."""
    context = click.Context(cli)
    for name in cli.list_commands(context):
        found = cli.get_command(context, name)
        assert found
        inner = found.commands if isinstance(found, click.Group) else {"": found}
        for word, below in inner.items():
            yield f"{name} {word}".strip(), below


COMMANDS = dict(commands())


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_a_section_with_all_its_options_and_no_other(name: str) -> None:
    common = {flag for option in common_options() for flag in option.opts}
    flags = {
        flag
        for option in COMMANDS[name].params
        if isinstance(option, click.Option)
        for flag in option.opts
        if flag not in common
    }

    shown = section(text("commands.md"), f"### `yaotask {name}")
    mentioned = {
        flag for names in [named(shown), code(shown)] for text in names for flag in re.findall(r"^--?\w[\w-]*", text)
    }

    assert flags <= mentioned
    assert {flag for name in named(shown) for flag in re.findall(r"^--?\w[\w-]*", name)} <= flags


def test_common_options_and_exit_statuses_are_told() -> None:
    page = text("commands.md")
    statuses = {row[0] for row in rows(section(page, "## Exit statuses")) if row[0].isdigit()}

    assert {flag for option in common_options() for flag in option.opts} <= {name.split()[0] for name in named(page)}
    assert statuses == {
        str(status)
        for status in (exits.DONE, exits.FAILED, exits.USAGE, exits.DEFINITIONS, exits.STORE, exits.INTERRUPTED)
    }


def test_every_command_that_reads_takes_json() -> None:
    reading = ("check", "show", "schema", "list", "get", "workers", "doctor", "db status", "db upgrade", "db verify")

    assert all("--json" in {flag for option in COMMANDS[name].params for flag in option.opts} for name in reading)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_documents_name_no_command_that_is_not_there(page: Path) -> None:
    words = {name.split()[0] for name in COMMANDS}
    shown = re.findall(r"(?<!from )\byaotask (?:-a \S+ )?([a-z]+)\b", "\n".join(code_of(page)), re.MULTILINE)

    assert set(shown) <= words


def code_of(page: Path) -> list[str]:
    """All that is set as code."""
    markdown = page.read_text(encoding="utf-8")
    fenced = blocks(markdown, r"\w*")
    return [*fenced, *re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", markdown, flags=re.DOTALL | re.MULTILINE))]


# --- definitions and settings ------------------------------------------------------------------------


def test_each_key_of_a_definition_is_told_with_its_default() -> None:
    page = text("definitions.md")
    table = {name: row for row in rows(section(page, "## Keys")) for name in code(row[0])}
    properties = TASK["properties"]

    assert set(table) - {"x-..."} == set(properties)
    for key in ("worker_nums", "attempts", "attempt_after", "timeout", "size", "priority"):
        assert table[key][2] == str(properties[key]["default"])


def test_each_hook_and_each_part_of_backoff_is_told() -> None:
    hooks = set(TASK["properties"]["event"]["properties"])
    waits = section(text("definitions.md"), "## Waits between tries")
    backoff = TASK["properties"]["backoff"]

    assert {name for name in named(text("definitions.md")) if name.startswith("event.")} == {
        f"event.{h}" for h in hooks
    }
    assert hooks <= named(section(text("handlers.md"), "## Hooks"))
    assert {*backoff["then"]["properties"], *backoff["else"]["enum"]} <= code(waits)


def test_each_setting_is_told_with_its_variable_and_its_default() -> None:
    page = text("settings.md")
    known = {field.name for field in fields(Settings)} - {"origins"}
    limits = {f"limits.{field.name}": field.default for field in fields(Limits)}
    table = {name: row for row in rows(page) for name in code(row[0])}

    assert set(table) - {"key", "limit"} == known | set(limits)
    for name in (known | set(limits)) - {"limits", "defaults"}:
        assert table[name][1] == f"`YAOTASK_{name.upper().replace('.', '__')}`"
    for name, default in limits.items():
        assert table[name][2] == str(default)


def test_the_settings_shown_are_the_defaults(tmp_path: Path) -> None:
    (example,) = blocks(text("settings.md"), "yaml")
    (tmp_path / "yaotask.yml").write_text(example)
    (tmp_path / "bare").mkdir()

    shown, faults = load_settings(tmp_path, {})
    usual, _ = load_settings(tmp_path / "bare", {})

    assert faults == []
    for field in fields(Settings):
        if field.name not in ("defaults", "origins", "store"):
            assert getattr(shown, field.name) == getattr(usual, field.name), field.name


def test_the_defaults_told_in_the_table_are_those_of_the_code(tmp_path: Path) -> None:
    table = {name: row for row in rows(text("settings.md")) for name in code(row[0])}
    names = [name for name in table if len(table[name]) == 4 and code(table[name][2]) and name != "store"]
    (tmp_path / "bare").mkdir()
    (tmp_path / "yaotask.yml").write_text("\n".join(f"{name}: {code(table[name][2]).pop()}" for name in names))

    shown, faults = load_settings(tmp_path, {})
    usual, _ = load_settings(tmp_path / "bare", {})

    assert faults == []
    assert len(names) >= 7
    assert [getattr(shown, name) for name in names] == [getattr(usual, name) for name in names]


def test_the_definition_shown_is_one(tmp_path: Path) -> None:
    example, *_ = blocks(text("definitions.md"), "yaml")
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "mail.yml").write_text(example)
    settings, _ = load_settings(tmp_path, {})

    catalog = load(tmp_path, settings, {})

    assert (list(catalog.tasks), catalog.problems) == (["mail"], [])


# --- Python ------------------------------------------------------------------------------------------


def test_every_public_name_is_told() -> None:
    everything = "\n".join(block for page in PAGES for block in code_of(page))
    words = set(re.findall(r"\w+", everything))

    assert set(yaotask.__all__) <= words


def test_every_method_of_an_app_and_of_a_task_is_told_or_is_the_twin_of_one_that_is() -> None:
    page = text("calls.md")
    told = set(re.findall(r"(?:app|mail)\.(\w+)", page)) | {"options"}
    public = {name for kind in (App, Task) for name in dir(kind) if not name.startswith("_")}

    assert {name for name in public if name not in told and name.removeprefix("a") not in told} == set()


def test_what_handlers_use_of_their_job_is_told() -> None:
    table = named(section(text("handlers.md"), "## The current job"))
    told = {name.removeprefix("job.").partition("(")[0] for name in table}
    # The others are how the runtime reads a job.
    inner = {"ask_to_stop", "claim", "hide", "must_be_open", "open_transaction", "over", "result", "said"}
    inner |= {"is_in_thread", "recount", "started", "stops_by", "timeout_ms", "unsaved", "until_told"}

    assert told == {name for name in dir(Job) if not name.startswith("_")} - inner


def test_options_filters_and_calls_are_told() -> None:
    page = text("calls.md")
    calls = {name: row for row in rows(section(page, "## By name")) for name in code(row[0])}

    assert set(NAMES) <= named(section(page, "## Through the App"))
    assert code(calls["tasks.<id>.submit"][1]) == set(SUBMIT)
    assert code(calls["tasks.<id>.list"][1]) == set(FILTERS)
    assert {name.rpartition(".")[2] for name in calls if name.startswith("tasks.<id>.")} == set(METHODS)


def test_each_field_of_a_job_and_of_a_try_is_told(tmp_path: Path) -> None:
    root = example(tmp_path)
    with App(root) as app:
        id = app.tasks["mail"].add("Hello")
        job = app.get(f"mail.{id}")
    page = text("calls.md")

    assert set(job) <= code(section(page, "## A job"))
    assert named(section(page, "## A job")) <= set(job)
    assert named(section(page, "## A try")) == {*ATTEMPT_FIELDS, "started_at", "finished_at"}


def test_each_field_of_a_process_is_told(tmp_path: Path) -> None:
    root = example(tmp_path)
    with App(root) as app:
        app.store_status()
        Fleet(root).enter(1)
        (process,) = app.workers()

    assert named(section(text("calls.md"), "## A process")) == set(process)


def test_each_status_is_told_and_each_word_for_one() -> None:
    statuses = section(text("calls.md"), "## Statuses")

    assert named(statuses) == set(STATUSES)
    assert set(STATUS_WORDS) <= {name.lower() for name in code(statuses)} | set(re.findall(r"\d", statuses))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_python_shown_is_python(page: Path) -> None:
    for block in blocks(page.read_text(encoding="utf-8"), "python"):
        ast.parse(f"async def shown():\n{''.join(f'    {line}' for line in block.splitlines(True))}\n    pass")


def test_the_files_that_the_design_names_are_there() -> None:
    folder, missing = "yaotask", []
    for line in section(text("design.md"), "## Where things are").splitlines():
        if place := re.match(r"  (\w+)/$", line):
            folder = f"yaotask/{place[1]}"
        elif not line.startswith("    "):
            folder = "yaotask"
        missing += [name for name in re.findall(r"\b\w+\.py", line) if not (ROOT / folder / name).is_file()]
    order = re.findall(r"^\d\. `(yaotask/[^`]+)`", section(text("design.md"), "## Five files"), re.MULTILINE)

    assert missing == []
    assert len(order) == 5
    assert all((ROOT / file).is_file() for file in order)


# --- README ------------------------------------------------------------------------------------------


def example(folder: Path) -> Path:
    """The project on the first screen of README.md: each block begins with the name of its file."""
    root = folder / "first-screen"
    readme = README.read_text(encoding="utf-8")
    for block in [blocks(readme, "yaml")[0], blocks(readme, "python")[0]]:
        file = root / block.splitlines()[0].removeprefix("# ")
        file.parent.mkdir(parents=True)
        file.write_text(block, encoding="utf-8")
    return root


@pytest.mark.timeout(60)
def test_the_first_screen_works_as_it_stands(tmp_path: Path) -> None:
    root = example(tmp_path)
    shown = blocks(README.read_text(encoding="utf-8"), "console")[0].splitlines()

    checked = command(root, "check")
    added = command(root, *shlex.split(shown[0])[2:])
    drained(root)
    job = json.loads(command(root, "get", "mail.1", "--json").stdout)

    assert checked.stdout.splitlines()[-1] == "1 task, no problems"
    assert added.stdout.splitlines() == [shown[1]]
    assert shown[2] == "$ yaotask run"
    assert (job["status"], job["response"]) == ("SUCCESS", {"sent": 1})


def grown(folder: Path) -> Path:
    """That project with the example of definitions.md in it."""
    root, page = example(folder), text("definitions.md")
    (root / "tasks" / "mail.yml").write_text(blocks(page, "yaml")[0], encoding="utf-8")
    with (root / "scripts" / "mail.py").open("a", encoding="utf-8") as script:
        script.write(f"\n\n{blocks(page, 'python')[0]}")
    return root


def test_the_example_of_definitions_fits_the_first_screen(tmp_path: Path) -> None:
    root = grown(tmp_path)

    assert command(root, "check").stdout.splitlines()[-1] == "1 task, no problems"
    assert command(root, "add", "mail", "Hello", "ann@example.com").stdout == "mail.1\n"
    assert "mail.1 went to 1 recipients" in drained(root).output


def test_the_first_examples_of_calls_fit_the_first_screen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    by_name, by_app = blocks(text("calls.md"), "python")[:2]
    grown(tmp_path).rename(tmp_path / "my-app")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("YAOTASK_ROOT", "my-app")
    seen: dict[str, Any] = {}
    try:
        with current_app() as app:
            app.import_handler("mail")
            exec(by_name, seen)  # noqa: S102 - our own documents
    finally:
        current_app().close()
    awaits = [line for line in by_app.splitlines() if "await" in line]
    exec("\n".join(line for line in by_app.splitlines() if line not in awaits), seen)  # noqa: S102 - the same

    # The third of those that were added, the one with a key.
    assert (seen["job"]["task_id"], seen["ids"]) == ("mail.3", [4, 5])
    assert len(awaits) == 1


@pytest.mark.timeout(60)
def test_the_tests_shown_are_good_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = example(tmp_path).rename(tmp_path / "my-app")
    # The project has a store of its own already, which they must leave alone.
    assert command(root, "add", "mail", "Hello").stdout == "mail.1\n"
    shown = blocks(section(text("calls.md"), "## In tests"), "python")
    (tmp_path / "test_mail.py").write_text("\n".join(shown), encoding="utf-8")
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_mail.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )

    assert run.returncode == 0, run.stdout
    assert json.loads(command(root, "list", "--json", "--page", "1").stdout)["total"] == 1


def test_what_is_installed_is_called_so(tmp_path: Path) -> None:
    (line,) = [line for line in blocks(README.read_text(encoding="utf-8"), "sh") if line.startswith("pip install")]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (found,) = re.findall(r'^pip install "(\w+)\[(\w+)\]" && ', line)

    assert found[0] == project["name"]
    assert found[1] in project["optional-dependencies"]


def test_the_first_screen_is_one() -> None:
    lines = README.read_text(encoding="utf-8").splitlines()

    assert lines.index("$ yaotask run") < 40


@pytest.mark.parametrize("end", ["run --drain", "pytest -q"])
def test_one_line_of_shell_sets_up_and_runs(end: str) -> None:
    lines = [line for line in blocks(README.read_text(encoding="utf-8"), "sh") if line.rstrip().endswith(end)]

    assert len(lines) == 1
    assert lines[0].startswith("python3 -m venv .venv && .venv/bin/pip install ")
    assert lines[0].count("\n") == 1


def test_the_benchmarks_have_their_place() -> None:
    assert len(re.findall(r"^<!-- benchmark -->\n(.*\n)*?<!-- /benchmark -->$", README.read_text(), re.MULTILINE)) == 1


def test_each_test_that_stands_for_a_promise_is_there() -> None:
    named = set(re.findall(r"`(test_[a-z0-9_]+)`", (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")))
    files = list(Path(__file__).parent.glob("test_*.py"))
    there = {name for file in files for name in re.findall(r"def (test_\w+)\(", file.read_text(encoding="utf-8"))}

    assert len(named) > 30
    assert named <= there
