"""The command line as a whole: its help, its options, its exit statuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest

from yaotask import errors
from yaotask.cli import exits, root
from yaotask.cli.base import Command, LazyGroup, Session, common_options
from yaotask.cli.root import SECTIONS, main
from yaotask.problems import Problem

PROGRAM = (sys.executable, "-m", "yaotask")
HEAVY = ("sqlalchemy", "jsonschema", "rich", "yaml", "croniter", "orjson", "asyncio", "importlib.metadata")


def run(*arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*PROGRAM, *arguments], capture_output=True, text=True, timeout=15, check=False, **more)


# --- help --------------------------------------------------------------------------------------------


def test_help_lists_the_commands_by_section(capsys: pytest.CaptureFixture[str]) -> None:
    wide = max(len(name) for commands in SECTIONS.values() for name in commands)
    status = main(["--help"])

    shown = capsys.readouterr().out

    assert status == exits.DONE
    for heading, commands in SECTIONS.items():
        assert f"\n{heading}:\n" in shown
        for name, (_, line) in commands.items():
            assert f"\n  {name:<{wide}}  {line}\n" in shown


def commands(group: click.Group, *names: str) -> Iterator[tuple[str, ...]]:
    """The words that name each command."""
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        yield (*names, name)
        if isinstance(command, click.Group):
            yield from commands(command, *names, name)


@pytest.mark.parametrize("names", list(commands(root.cli)), ids=" ".join)
def test_the_help_of_each_command_is_what_was_meant(names: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    status = main([*names, "--help"])
    shown = capsys.readouterr().out

    assert status == exits.DONE
    assert "\\b" not in shown
    assert "..." not in shown.partition("Commands:")[2]


def test_examples_in_a_help_have_lines_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    main(["call", "--help"])
    shown = capsys.readouterr().out

    assert "\n  yaotask call scripts.mail.Send ::12 Hello\n  yaotask call tasks.mail.get ::12\n" in shown
    assert r"'\::x' is the text ::x." in shown


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["lst"], []])
def test_what_needs_no_project_imports_nothing_slow(arguments: list[str]) -> None:
    code = (
        "import json, sys\n"
        "from yaotask.cli import main\n"
        f"before = set(sys.modules)\nmain({arguments})\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=15, check=True).stdout

    imported = set(json.loads(shown.splitlines()[-1]))

    assert "yaotask.cli.root" in imported
    assert not imported & (set(HEAVY) - ({"importlib.metadata"} if arguments == ["--version"] else set()))


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == exits.DONE
    assert capsys.readouterr().out.startswith("yaotask ")


def test_without_a_command_the_help_is_a_usage_error() -> None:
    ended = run()

    assert ended.returncode == exits.USAGE
    assert "Durable tasks from YAML files" in ended.stderr


# --- commands that are not there ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["lst"], 'Error: there is no command "lst"; did you mean "list"?'),
        (["LIST"], 'Error: there is no command "LIST"; did you mean "list"?'),
        (["xyzzy"], 'Error: there is no command "xyzzy"; there are init, check, show, schema, run,'),
        (["--nope"], "Error: No such option '--nope'."),
        (["x\x07"], r'Error: there is no command "x\x07"'),
        (["-a", "/no/such/folder", "list"], "Error: Invalid value for '-a' / '--app'"),
    ],
)
def test_a_line_that_cannot_be_understood_is_a_usage_error(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status = main(arguments)

    printed = capsys.readouterr()

    assert status == exits.USAGE
    assert says in printed.err
    assert "Try 'yaotask --help' for help." in printed.err
    assert (printed.out, "\x07" in printed.err) == ("", False)


# --- a program of our own ----------------------------------------------------------------------------


@click.command("tell", cls=Command)
@click.argument("words", nargs=-1)
@click.pass_obj
def tell(session: Session, words: tuple[str, ...]) -> int:
    """Say what the options said."""
    click.echo(json.dumps([str(session.root), session.debug, words]))
    return 3 if "three" in words else 0


def fail(error: BaseException) -> click.Command:
    def callback() -> None:
        raise error

    return Command("fail", callback=callback)


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> dict[str, click.Command]:
    """`main` with commands of the test's own."""
    commands: dict[str, click.Command] = {"tell": tell}
    monkeypatch.setitem(sys.modules, "some_commands", SimpleNamespace(COMMANDS=commands))
    sections = {"Some": dict.fromkeys(("tell", "fail"), ("some_commands", "Help."))}
    cli = LazyGroup("yaotask", sections=sections, params=[*common_options()], callback=lambda: None)
    monkeypatch.setattr(root, "cli", cli)
    return commands


@pytest.mark.parametrize(
    ("arguments", "app", "debug"),
    [
        (["-a", "{}", "tell"], "{}", False),
        (["tell", "-a", "{}"], "{}", False),
        (["tell", "x", "--app", "{}", "y"], "{}", False),
        (["-a", "{}", "tell", "-a", "{}/inner"], "{}/inner", False),
        (["--debug", "tell"], "None", True),
        (["tell", "--debug"], "None", True),
        (["--debug", "-a", "{}", "tell", "-a", "{}/inner"], "{}/inner", True),
        (["tell"], "None", False),
    ],
)
def test_common_options_stand_before_or_after_the_command(
    arguments: list[str],
    app: str,
    debug: bool,
    program: dict[str, click.Command],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "inner").mkdir()

    status = main([argument.replace("{}", str(tmp_path)) for argument in arguments])

    assert status == exits.DONE
    assert json.loads(capsys.readouterr().out)[:2] == [app.replace("{}", str(tmp_path)), debug]


@pytest.mark.parametrize(("value", "debug"), [("1", True), ("yes", True), ("0", False), ("Off", False), ("", False)])
def test_debugging_may_be_asked_for_by_the_environment(
    value: str,
    debug: bool,
    program: dict[str, click.Command],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("YAOTASK_DEBUG", value)

    main(["tell"])

    assert json.loads(capsys.readouterr().out)[1] is debug


def test_what_a_command_returns_is_the_exit_status(program: dict[str, click.Command]) -> None:
    assert main(["tell", "three"]) == 3


PROBLEM = Problem("tasks/mail.yml", 4, 7, "size", "must be at least 1, got 0", snippet="size: 0")
SHOWN = (
    "tasks/mail.yml:4:7: size: must be at least 1, got 0\n    size: 0\n          ^\nError: 1 problem in the definitions"
)


@pytest.mark.parametrize(
    ("error", "status", "says"),
    [
        (click.UsageError("not so"), 2, "Error: not so\n"),
        (click.ClickException("no \x1b[2J"), 1, "Error: no \\x1b[2J\n"),
        (errors.UnknownTask("no task x"), 2, "Error: no task x\n"),
        (errors.BadDefinitions([PROBLEM]), 3, SHOWN),
        (errors.StorageUnavailable("gone"), 4, "Error: gone\n"),
        (errors.StorageBusy("busy"), 4, "Error: busy\n"),
        (errors.OutcomeUnknown("who knows"), 4, "Error: who knows\n"),
        (errors.QueueFull("mail", 10), 1, "Error: the queue of mail is full"),
        (errors.JobNotFound("mail", 12), 1, "Error: there is no job mail.12"),
        (errors.InvalidPayload("is not text", "$.to"), 1, "Error: $.to: is not text\n"),
        (errors.HandlerNotFound("no such", "Traceback\n  line\x1b"), 1, "Error: no such\nTraceback\n  line\\x1b\n"),
        (exits.CallFailed("a.B raised ValueError: no\nway"), 1, "Error: a.B raised ValueError: no\nway\n"),
        (PermissionError(13, "Permission denied", "/x"), 1, "Error: /x: Permission denied\n"),
        (OSError(28, "No space left on device"), 1, "Error: No space left on device\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (click.Abort(), 130, "interrupted\n"),
        (RuntimeError("oh"), 1, "Error: yaotask itself failed: RuntimeError: oh\nPlease report it"),
        (AssertionError(), 1, "Error: yaotask itself failed: AssertionError\nPlease report it"),
    ],
    ids=lambda part: type(part).__name__,
)  # fmt: skip
def test_every_error_is_a_message_and_a_status(
    error: BaseException,
    status: int,
    says: str,
    program: dict[str, click.Command],
    capsys: pytest.CaptureFixture[str],
) -> None:
    program["fail"] = fail(error)

    ended = main(["fail"])

    printed = capsys.readouterr()
    assert (ended, printed.out) == (status, "")
    assert says in printed.err
    assert "Traceback (most" not in printed.err


@pytest.mark.parametrize("command", [["list"], ["check"], ["run"], ["call", "tasks.list"]])
def test_without_a_project_that_is_all_that_is_said(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("YAOTASK_ROOT", raising=False)
    status = main(command)

    (line,) = capsys.readouterr().err.splitlines()
    assert status == exits.DEFINITIONS
    assert line.startswith(f"Error: {tmp_path}: neither this folder nor one above it has yaotask.yml or tasks/; make a")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
@pytest.mark.parametrize("command", [["list"], ["check"], ["run"], ["call", "scripts.theirs.Run"]])
def test_a_project_above_that_is_somebody_elses_runs_nothing(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("tasks", "scripts", "below"):
        (tmp_path / name).mkdir()
    (tmp_path / "scripts" / "theirs.py").write_text("open('ran', 'w').close()\ndef Run(): ...\n", encoding="utf-8")
    os.chown(tmp_path / "tasks", 65_534, -1)
    monkeypatch.chdir(tmp_path / "below")
    monkeypatch.delenv("YAOTASK_ROOT", raising=False)
    status = main(command)

    (line,) = capsys.readouterr().err.splitlines()
    assert status == exits.DEFINITIONS
    assert line.startswith(f"Error: {tmp_path / 'tasks'}: belongs to nobody, whose code would run as you: name the")
    assert not (tmp_path / "below" / "ran").exists()


def test_debug_shows_the_traceback(program: dict[str, click.Command], capsys: pytest.CaptureFixture[str]) -> None:
    program["fail"] = fail(errors.StorageBusy("busy"))

    assert main(["fail", "--debug"]) == exits.STORE
    assert capsys.readouterr().err.startswith("Traceback (most recent call last):\n")


def test_numbers_of_things_are_said_in_words() -> None:
    assert [exits.counted(number, "job") for number in (0, 1, 2, 1_234)] == ["0 jobs", "1 job", "2 jobs", "1,234 jobs"]


# --- as a process ------------------------------------------------------------------------------------


PRINTS_LATE = (
    "import sys; from yaotask.cli import root; root.cli.main = lambda *_, **__: print(1); sys.exit(root.main())"
)


@pytest.mark.parametrize("arguments", [["-m", "yaotask", "--help"], ["-c", PRINTS_LATE]])
def test_it_ends_quietly_when_the_reader_of_a_pipe_has_left(arguments: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "wb") as pipe:
        ended = subprocess.run(
            [sys.executable, *arguments], stdout=pipe, stderr=subprocess.PIPE, timeout=15, check=False
        )

    assert (ended.returncode, ended.stderr) == (exits.FAILED, b"")


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_it_works_without_standard_streams(closed: str) -> None:
    ended = subprocess.run(
        ["sh", "-c", f'exec "$@" {closed}', "sh", *PROGRAM, "--help"], capture_output=True, timeout=15, check=False
    )

    assert (ended.returncode, ended.stderr) == (0, b"")


def test_a_disk_that_is_full_is_no_fault_of_ours() -> None:
    with open("/dev/full", "w") as full:
        ended = subprocess.run(
            [*PROGRAM, "--help"], stdout=full, stderr=subprocess.PIPE, text=True, timeout=15, check=False
        )

    assert ended.stderr.startswith("Error: No space left on device\n")
    assert ended.returncode != 0


def test_a_terminal_that_cannot_show_a_character_sees_its_escape() -> None:
    environment = os.environ | {"PYTHONIOENCODING": "latin-1"}

    ended = run("发", env=environment)

    assert ended.returncode == exits.USAGE
    assert r'there is no command "\u53d1"' in ended.stderr
