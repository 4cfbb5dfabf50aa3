"""`yaotask db`: the store as its owner sees it, and what is said where it cannot be used."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from cli_support import Run, screen

from yaotask import App
from yaotask.store.moving import move as moving
from yaotask.store.moving.move import Moved

pytest_plugins = ["cli_fixtures"]

FROM, TO = "sqlite:///.yaotask/yaotask.db", "sqlite:///moved.db"
TASK = "name: Mail\nprocess: scripts.mail.Send\n"
# What begins a variable in a file of settings, and what ends a line for YAML.
ODD = ["${HOME}.db", "$${A.db", "发\x85\u2028.db"]


@pytest.fixture
def root(project: Callable[..., Path]) -> Path:
    root = project(tasks={"mail": TASK})
    with App(root) as app:
        app.tasks["mail"].add()
    return root


def test_status_tells_where_the_store_is_and_what_is_in_it(root: Path, run: Run) -> None:
    status, out, err = run("db", "status", "-a", root)
    shown = dict(line.split(":", 1) for line in out.splitlines())

    assert (status, err) == (0, "")
    assert shown["store"].strip() == f"sqlite:///{root}/.yaotask/yaotask.db"
    assert shown["jobs"].strip() == "WAITING: 1"
    assert shown["schema"].strip() == shown["current schema"].strip()


def test_status_as_json_is_for_programs(root: Path, run: Run) -> None:
    facts = json.loads(run("db", "status", "-a", root, "--json").out)

    assert facts["jobs"] == {"WAITING": 1}
    assert facts["schema"] == facts["current_schema"]


def test_a_state_that_nobody_knows_is_shown_as_one(root: Path, run: Run) -> None:
    with closing(sqlite3.connect(root / ".yaotask" / "yaotask.db")) as connection, connection:
        connection.execute("DROP TRIGGER only_known_changes")
        connection.execute("UPDATE yaotask_jobs SET state = 99")
    refused = [run(command, "mail.1", "-a", root) for command in ("cancel", "retry")]

    assert json.loads(run("db", "status", "-a", root, "--json").out)["jobs"] == {"UNKNOWN 99": 1}
    assert json.loads(run("get", "mail.1", "-a", root, "--json").out)["status"] == "UNKNOWN 99"
    assert "UNKNOWN 99" in run("list", "-a", root).out
    assert [ended.status for ended in refused] == [1, 1]
    assert all("mail.1 is UNKNOWN 99: `yaotask db verify` says what to do" in ended.err for ended in refused)


def test_upgrade_leaves_a_store_that_is_current_as_it_is(root: Path, run: Run) -> None:
    before = run("db", "status", "-a", root, "--json").out

    assert run("db", "upgrade", "-a", root, "--json") == (0, before, "")


@pytest.mark.parametrize("command", [("db", "status"), ("list",), ("get", "mail.1"), ("add", "mail")])
def test_a_store_that_is_no_store_ends_every_command_with_four(root: Path, run: Run, command: tuple[str, ...]) -> None:
    (root / ".yaotask" / "yaotask.db").write_bytes(b"this is a letter, not a database" * 100)
    ended = run(*command, "-a", root)

    assert (ended.status, ended.out) == (4, "")
    assert ".yaotask/yaotask.db" in ended.err


@pytest.mark.parametrize(
    "command",
    [
        ("db", "status"),
        ("db", "upgrade"),
        ("db", "upgrade", "--sql"),
        ("db", "verify"),
        ("db", "move", "sqlite:///one.db", "sqlite:///two.db"),
        ("list",),
        ("get", "mail.1"),
        ("add", "mail"),
        ("run",),
    ],
)
def test_a_fault_in_the_settings_ends_every_command_with_three(
    project: Callable[..., Path], run: Run, command: tuple[str, ...]
) -> None:
    root = project(tasks={"mail": TASK}, settings="store: 5\n")
    ended = run(*command, "-a", root)

    assert (ended.status, ended.out) == (3, "")
    assert ended.err.startswith("yaotask.yml:1:8: store: ")
    assert not (root / ".yaotask").exists()


@pytest.mark.parametrize("command", [("run", "--drain"), ("list",), ("add", "mail"), ("db", "status")])
def test_a_store_whose_file_cannot_be_made_ends_every_command_with_four(
    project: Callable[..., Path], run: Run, command: tuple[str, ...]
) -> None:
    root = project(tasks={"mail": TASK}, settings="store: sqlite:///link.db\n")
    (root / "link.db").symlink_to("nowhere/file")
    ended = run(*command, "-a", root)

    assert (ended.status, ended.out) == (4, "")
    assert f"{root}/link.db cannot be made: No such file or directory; the store lies there" in ended.err


# --- verify -------------------------------------------------------------------------------------------


def test_verify_finds_nothing_in_a_sound_store(root: Path, run: Run) -> None:
    assert run("db", "verify", "-a", root) == (0, "0 faults\n", "")
    assert run("db", "verify", "-a", root, "--json") == (0, "[]\n", "")


def test_verify_where_there_is_no_store_says_so(project: Callable[..., Path], run: Run) -> None:
    root = project(tasks={"mail": TASK})

    assert run("db", "verify", "-a", root).out == "there is no store yet; it is made at the first use\n"
    assert not (root / ".yaotask").exists()


def test_verify_tells_each_fault_with_what_to_do(root: Path, run: Run) -> None:
    with closing(sqlite3.connect(root / ".yaotask" / "yaotask.db")) as connection, connection:
        connection.execute("UPDATE yaotask_sizes SET waiting = 3")
    ended = run("db", "verify", "-a", root)
    fault, advice, count = ended.out.splitlines()

    assert (ended.status, ended.err, count) == (1, "", "1 fault")
    assert fault == "fault  sizes: 3 jobs of mail are counted, 1 wait"
    assert advice.startswith("       -> stop all that use the store, then UPDATE yaotask_sizes SET waiting=1 ")
    assert [fault["about"] for fault in json.loads(run("db", "verify", "-a", root, "--json").out)] == ["sizes"]


# --- upgrade --sql ------------------------------------------------------------------------------------


def test_the_script_for_a_store_that_is_not_there_yet_makes_one(project: Callable[..., Path], run: Run) -> None:
    root = project(tasks={"mail": TASK})
    script = run("db", "upgrade", "--sql", "-a", root).out
    assert not (root / ".yaotask").exists()
    (root / ".yaotask").mkdir()
    with closing(sqlite3.connect(root / ".yaotask" / "yaotask.db")) as connection:
        connection.executescript(script)
        mode = connection.execute("PRAGMA journal_mode").fetchone()

    assert mode == ("wal",)
    assert run("add", "mail", "-a", root).out == "mail.1\n"
    assert run("db", "verify", "-a", root).status == 0


def test_the_script_for_an_old_store_brings_it_to_this_schema(root: Path, run: Run) -> None:
    database = root / ".yaotask" / "yaotask.db"
    database.unlink()
    with closing(sqlite3.connect(database)) as connection:
        connection.executescript((Path(__file__).parent / "schema_1.sql").read_text())
        connection.execute("INSERT INTO yaotask_meta VALUES ('schema', '1'), ('store', 'old')")
        connection.commit()
        script = run("db", "upgrade", "--sql", "-a", root).out
        connection.executescript(script)
    (root / ".yaotask" / "store").unlink()

    assert script.startswith("BEGIN;\nALTER TABLE yaotask_jobs ADD COLUMN cancel_at BIGINT;\n")
    assert run("db", "verify", "-a", root) == (0, "0 faults\n", "")
    assert run("db", "upgrade", "--sql", "-a", root) == (0, "", "")


def test_statements_are_not_json(root: Path, run: Run) -> None:
    assert run("db", "upgrade", "--sql", "--json", "-a", root).status == 2


# --- move ---------------------------------------------------------------------------------------------


def test_move_says_what_was_moved_and_what_to_write(root: Path, run: Run) -> None:
    ended = run("db", "move", FROM, TO, "-a", root)
    what, where, rows, advice = ended.out.splitlines()
    (root / "yaotask.yml").write_text(advice.removeprefix("now write into yaotask.yml: ") + "\n")

    assert (ended.status, what) == (0, "moved 1 job (1 WAITING)")
    assert ended.err.splitlines() == ["copying 3 rows", "comparing 3 rows"]
    assert where == f"from sqlite:///{root}/.yaotask/yaotask.db to sqlite:///{root}/moved.db"
    assert rows.startswith("3 rows on both sides, checksum ")
    assert run("add", "mail", "-a", root).out == "mail.2\n"


def test_move_as_json_is_for_programs(root: Path, run: Run) -> None:
    facts = json.loads(run("db", "move", FROM, TO, "-a", root, "--json").out)

    assert set(facts) == {"from", "to", "store_id", "jobs", "rows", "checksum", "setting"}
    assert (facts["jobs"], facts["setting"]) == ({"WAITING": 1}, f'store: "{TO}"')


@pytest.mark.parametrize("name", ["my #1.db", "it: is.db", 'a "b".db', "back\\slash.db", "plain.db", *ODD])
@pytest.mark.parametrize("options", [[], ["--json"]])
def test_what_to_write_is_yaml_that_says_it(root: Path, run: Run, name: str, options: list[str]) -> None:
    out = run("db", "move", FROM, f"sqlite:///{name}", "-a", root, *options).out
    setting = json.loads(out)["setting"] if options else out.rpartition("now write into yaotask.yml: ")[2]
    (root / "yaotask.yml").write_text(setting + "\n", encoding="utf-8")

    assert run("add", "mail", "-a", root).out == "mail.2\n"


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://me:secret@host/db",
        "postgresql://me@host/db?password=secret",
        "postgresql://me@host/db?passwrd=secret",
        "mysql://me@host/db?password=secret&connect_timeout=5",
        "mysql://me@host/db?passwd=secret",
    ],
)
def test_what_to_write_tells_no_password(root: Path, run: Run, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setattr(moving, "move", lambda *_: Moved("id", {}, {}, "0"))
    told = [run("db", "move", FROM, address, "-a", root, *more) for more in ((), ("--json",))]

    assert [one.status for one in told] == [0, 0]
    assert "store: " in told[0].out
    assert "secret" not in str(told)


@pytest.mark.parametrize("command", [("db", "status"), ("list",), ("add", "mail"), ("run",), ("db", "verify")])
def test_a_store_that_was_moved_ends_every_command_with_four(root: Path, run: Run, command: tuple[str, ...]) -> None:
    run("db", "move", FROM, TO, "-a", root)
    ended = run(*command, "-a", root)

    assert (ended.status, ended.out.partition("\n")[0].startswith("moved")) == (4, False)
    assert f"this store was moved to sqlite:///{root}/moved.db (" in ended.err
    assert f"yaotask db move --undo sqlite:///{root}/.yaotask/yaotask.db" in ended.err


def test_undo_opens_it_again(root: Path, run: Run) -> None:
    run("db", "move", FROM, TO, "-a", root)
    undone = run("db", "move", "--undo", FROM, "-a", root)

    assert (undone.status, undone.out) == (0, f"sqlite:///{root}/.yaotask/yaotask.db can be used again\n")
    assert run("add", "mail", "-a", root).out == "mail.2\n"
    assert run("db", "move", "--undo", FROM, "-a", root).status == 1


@pytest.mark.parametrize("addresses", [(FROM,), ("somewhere", TO), (FROM, "oracle://host/db"), (FROM, "sqlite://")])
def test_addresses_that_are_none_are_wrong_usage(root: Path, run: Run, addresses: tuple[str, ...]) -> None:
    assert run("db", "move", *addresses, "-a", root).status == 2


def test_what_is_refused_ends_with_one_and_what_cannot_be_reached_with_four(root: Path, run: Run) -> None:
    (root / "letter.db").write_bytes(b"this is a letter, not a database" * 100)

    assert run("db", "move", FROM, FROM, "-a", root).status == 1
    assert run("db", "move", FROM, "sqlite:///letter.db", "-a", root).status == 4
    assert run("add", "mail", "-a", root).out == "mail.2\n"


@pytest.mark.timeout(60)
@pytest.mark.parametrize("rich", [True, False])
def test_on_a_terminal_a_bar_moves(root: Path, rich: bool) -> None:
    with screen(root, "db", "move", FROM, TO, rich=rich, columns=150) as shown:
        shown.shows("now write into yaotask.yml: ")

        assert shown.status() == 0
        assert "comparing" in shown.text
        assert "3/3" in shown.text if rich else "3 of 3 rows" in shown.text


def test_a_command_without_a_project_says_how_to_make_one(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = run("list")

    assert (ended.status, ended.out) == (3, "")
    assert "make a project with: yaotask init" in ended.err


@pytest.fixture
def deleted_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the commands of this test are given."""
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()


@pytest.mark.usefixtures("deleted_folder")
@pytest.mark.parametrize("command", [("list",), ("check",), ("show", "mail"), ("schema", "--write")])
def test_a_command_in_a_deleted_folder_says_what_to_do(run: Run, command: tuple[str, ...]) -> None:
    ended = run(*command)

    assert (ended.status, ended.out) == (3, "")
    assert "the current folder was deleted; go to one that is there, or name the project" in ended.err


@pytest.mark.parametrize("command", [("list",), ("check",), ("show", "mail")])
def test_a_command_in_a_deleted_folder_works_where_the_project_is_named(
    root: Path, run: Run, command: tuple[str, ...], request: pytest.FixtureRequest
) -> None:
    (root / "scripts").mkdir()
    (root / "scripts" / "mail.py").write_text("def Send(task_id): ...\n")
    request.getfixturevalue("deleted_folder")

    assert run(*command, "-a", root).status == 0
