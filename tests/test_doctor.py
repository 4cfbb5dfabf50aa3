"""What `doctor` finds: each thing that may be wrong, once it is, with what to do."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fleet_support import HOST, Fleet
from store_support import START, ManualClock

from yaotask import App
from yaotask.doctor import examine as doctor
from yaotask.doctor import place, project
from yaotask.doctor.finding import Finding
from yaotask.errors import StorageUnavailable
from yaotask.store import mounts, verifying
from yaotask.store.locks import Lock

TASK = "name: Mail\nprocess: scripts.mail.Send\n"
SCRIPT = "def Send(task_id): ...\n"
EVENT = """
    INSERT INTO yaotask_events (job, task, id, kind, data, created_at, next_at, state, error)
    VALUES (:id, 'mail', :id, 2, '[]', :created_at, 0, :state, :error)
"""

Project = Callable[..., Path]


@pytest.fixture
def root(project: Project) -> Path:
    return project(tasks={"mail": TASK}, scripts={"mail": SCRIPT})


@pytest.fixture
def used(root: Path) -> Iterator[App]:
    """A project whose store has a job, and nobody who runs it."""
    with App(root, clock=ManualClock()) as app:
        app.tasks["mail"].add()
        yield app


@pytest.fixture
def fleet(used: App) -> Fleet:
    return Fleet(used.root, START)


def examined(root: Path, *, whole: bool = False) -> list[Finding]:
    with App(root, clock=ManualClock()) as app:
        return list(doctor.examine(app, whole=whole))


def found(root: Path, about: str) -> list[Finding]:
    """What is not well with this."""
    return [finding for finding in examined(root) if finding.about == about and finding.level != "ok"]


def only(root: Path, about: str) -> Finding:
    (finding,) = found(root, about)
    return finding


# --- all is well -------------------------------------------------------------------------------------


def test_of_a_project_that_was_never_used_nothing_is_wrong_and_nothing_is_made(root: Path) -> None:
    findings = examined(root)

    assert {finding.level for finding in findings} == {"ok"}
    assert not (root / ".yaotask").exists()


def test_of_a_project_that_works_nothing_is_wrong(used: App, fleet: Fleet) -> None:
    fleet.node()
    fleet.claim(1, 2)
    findings = examined(used.root, whole=True)

    assert [finding for finding in findings if finding.level != "ok"] == []
    assert {finding.about for finding in findings} >= {"settings", "definitions", "handlers", "versions", "state"}
    assert {finding.about for finding in findings} >= {"disk", "store", "clock", "workers", "claims", "jobs", "hooks"}


def test_looking_changes_nothing_in_the_store(used: App, fleet: Fleet) -> None:
    fleet.enter(1, renewed=900)
    fleet.claim(1, 1, since=900)
    before = dump(used.root)
    examined(used.root, whole=True)

    assert dump(used.root) == before


def dump(root: Path) -> list[str]:
    connection = sqlite3.connect(root / ".yaotask" / "yaotask.db")
    try:
        return list(connection.iterdump())
    finally:
        connection.close()


# --- the project -------------------------------------------------------------------------------------


def test_settings_at_fault_are_told_and_the_store_that_may_not_be_meant_is_left_alone(project: Project) -> None:
    root = project(tasks={"mail": TASK}, scripts={"mail": SCRIPT}, settings="store: 5\npoll: x\n")
    finding = only(root, "settings")

    assert finding.level == "fault"
    assert finding.what.startswith("2 problems, the first: yaotask.yml:1:8: store: ")
    assert "store" not in {finding.about for finding in examined(root)}


def test_a_definition_at_fault_is_told_and_the_others_are_looked_at(project: Project) -> None:
    root = project(tasks={"mail": TASK, "bad": TASK + "size: 0\n"}, scripts={"mail": SCRIPT})
    finding = only(root, "definitions")

    assert (finding.level, finding.what[:17]) == ("fault", "tasks/bad.yml:3:7")
    assert found(root, "handlers") == []


def test_a_project_without_tasks_is_warned_of(project: Project) -> None:
    finding = only(project(settings=""), "definitions")

    assert (finding.level, finding.what) == ("warn", "there is no task")


def test_each_broken_handler_is_told_with_the_reason(project: Project) -> None:
    root = project(tasks={"mail": TASK.replace("Send", "Sned"), "good": TASK}, scripts={"mail": SCRIPT})
    finding = only(root, "handlers")

    assert finding.level == "fault"
    assert finding.what.startswith("mail is broken, its jobs wait: ")
    assert 'did you mean "Send"?' in finding.what


def test_an_sqlite_that_is_too_old_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 37, 2))
    (finding,) = project.versions()

    assert (finding.level, finding.advice) == ("fault", "use a Python whose SQLite is 3.38.0 or newer")


# --- the place ---------------------------------------------------------------------------------------


def test_state_that_others_can_read_is_told_with_the_command_that_mends_it(used: App) -> None:
    state = used.root / ".yaotask"
    state.chmod(0o755)
    (state / "yaotask.db").chmod(0o644)
    finding = only(used.root, "state")

    assert finding.level == "warn"
    assert finding.what == f"others can come at {state}, {state / 'yaotask.db'}"
    assert finding.advice == f"chmod -R go-rwx {state}"


def test_a_socket_in_a_private_folder_is_no_way_in(used: App) -> None:
    folder = used.root / ".yaotask" / "workers"
    folder.mkdir(mode=0o700)
    os.mknod(folder / "theirs.hint", 0o777 | stat.S_IFSOCK)
    (folder / "theirs.hint").chmod(0o777)

    assert found(used.root, "state") == []


def test_a_store_outside_of_the_state_folder_is_named_by_itself(project: Project, tmp_path: Path) -> None:
    root = project(tasks={"mail": TASK}, scripts={"mail": SCRIPT}, settings=f"store: sqlite:///{tmp_path}/my jobs.db\n")
    with App(root) as app:
        app.tasks["mail"].add()
    (tmp_path / "my jobs.db").chmod(0o640)

    assert only(root, "state").advice == f"chmod -R go-rwx '{tmp_path}/my jobs.db'"


def test_state_that_cannot_be_written_is_a_fault(used: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "yaotask.db")
    finding = only(used.root, "state")

    assert finding.level == "fault"
    assert finding.what.endswith("yaotask.db cannot be written by this user")


def test_a_file_that_cannot_be_written_is_told_also_where_there_is_no_state_yet(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = project(tasks={"mail": TASK}, scripts={"mail": SCRIPT}, settings=f"store: sqlite:///{tmp_path}/jobs.db\n")
    (tmp_path / "jobs.db").touch(mode=0o600)
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "jobs.db")

    assert only(root, "state").what == f"{tmp_path}/jobs.db cannot be written by this user"


def test_state_and_store_that_cannot_be_made_are_faults(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: not (Path(path) == root and mode & os.W_OK))
    state, store = only(root, "state"), only(root, "store")

    assert (state.level, store.level) == ("fault", "fault")
    assert state.what == f"{root}/.yaotask cannot be made by this user"
    assert state.advice == f"give this user write access to {root}"
    assert store.what == f"{root}/.yaotask/yaotask.db cannot be made by this user"
    assert store.advice == f"give this user write access to {root}, or correct `store`"


def test_a_store_below_what_is_no_folder_is_a_fault(project: Project) -> None:
    root = project(tasks={"mail": TASK}, scripts={"mail": SCRIPT}, settings="store: sqlite:///tasks/mail.yml/a/b.db\n")
    finding = only(root, "store")

    assert finding.level == "fault"
    assert finding.advice == f"{root}/tasks/mail.yml is no folder: move it away, or correct `store`"
    assert found(root, "state") == []


def test_a_network_file_system_is_a_fault(used: App, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (place, mounts):
        monkeypatch.setattr(module, "file_system", lambda path: "nfs4")
    database, workers = found(used.root, "disk")

    assert (database.level, workers.level) == ("fault", "fault")
    assert "yaotask.db is on a network file system (nfs4)" in database.what
    assert only(used.root, "store").level == "fault"


@pytest.mark.parametrize(("megabytes", "level"), [(15, "fault"), (255, "warn")])
def test_a_disk_that_fills_up_is_told(root: Path, monkeypatch: pytest.MonkeyPatch, megabytes: int, level: str) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=megabytes * 1_000_000))
    finding = only(root, "disk")

    assert (finding.level, finding.what) == (level, f"only {megabytes} MB free for yaotask.db")


def test_a_log_that_outgrew_its_database_is_told(used: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place, "USUAL_LOG", 0)
    log = used.root / ".yaotask" / "yaotask.db-wal"
    with log.open("r+b") as file:
        file.truncate(5_000_000)

    assert only(used.root, "log").what == "the log of the database has grown to 5 MB, more than the database itself"


# --- the store ---------------------------------------------------------------------------------------


def test_a_store_that_is_gone_is_a_fault_and_is_not_made_anew(used: App) -> None:
    used.close()
    (used.root / ".yaotask" / "yaotask.db").unlink()
    finding = only(used.root, "store")

    assert (finding.level, finding.what) == ("fault", "it cannot be used")
    assert "is not there, or empty, but this project had a store" in finding.advice
    assert not (used.root / ".yaotask" / "yaotask.db").exists()


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("UPDATE yaotask_meta SET value = '1' WHERE name = 'schema'", "run `yaotask db upgrade`"),
        ("UPDATE yaotask_meta SET value = '99' WHERE name = 'schema'", "install the newer yaotask"),
        ("UPDATE yaotask_meta SET value = 'other' WHERE name = 'store'", "is the store of another project"),
        ("DROP TABLE yaotask_meta", "holds no yaotask store, but this project had one"),
    ],
)
def test_a_store_that_does_not_fit_is_a_fault(used: App, fleet: Fleet, statement: str, says: str) -> None:
    fleet.execute(statement)

    assert says in only(used.root, "store").advice


@pytest.fixture
def closed(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose store is in a folder that does not let this user in."""
    door, look = tmp_path / "closed", os.stat
    door.mkdir()

    def stat(path: str | Path | int, **how: Any) -> os.stat_result:
        if not isinstance(path, int) and door in Path(path).parents:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return look(path, **how)

    monkeypatch.setattr(os, "stat", stat)
    return project(tasks={"mail": TASK}, scripts={"mail": SCRIPT}, settings=f"store: sqlite:///{door}/deep/jobs.db\n")


def test_a_store_behind_a_closed_door_is_a_fault(closed: Path) -> None:
    findings = {finding.about: finding for finding in examined(closed)}

    assert findings["store"].level == "fault"
    assert "jobs.db cannot be reached: Permission denied; let this user into its folder" in findings["store"].advice
    assert "free for jobs.db" in findings["disk"].what


def test_whoever_comes_to_a_closed_door_is_told_that_the_store_is_behind_it(closed: Path) -> None:
    with App(closed) as app:
        for ask in (app.store_status, lambda: verifying.verify(app.works.place(), ())):
            with pytest.raises(StorageUnavailable, match="cannot be reached: Permission denied"):
                ask()


def test_a_state_folder_behind_a_closed_door_is_a_fault(closed: Path) -> None:
    (closed / ".yaotask").symlink_to(closed.parent / "closed" / "state")

    assert only(closed, "state").what.endswith(".yaotask cannot be written by this user")


def test_a_database_of_something_else_is_no_store_yet(root: Path) -> None:
    (root / ".yaotask").mkdir(mode=0o700)
    connection = sqlite3.connect(root / ".yaotask" / "yaotask.db")
    connection.execute("CREATE TABLE mine (a)")
    connection.close()

    assert found(root, "store") == []


def test_a_file_that_is_no_database_is_a_fault(used: App) -> None:
    used.close()
    (used.root / ".yaotask" / "yaotask.db").write_bytes(b"this is a letter, not a database" * 100)

    assert "is not a sound SQLite database" in only(used.root, "store").advice


def test_a_database_that_is_not_supported_is_a_fault(project: Project) -> None:
    root = project(tasks={"mail": TASK}, scripts={"mail": SCRIPT}, settings="store: oracle://host/db\n")

    assert "oracle is not supported" in only(root, "store").advice


def test_damage_that_a_short_look_does_not_see_is_found_in_the_whole(used: App) -> None:
    used.close()
    damage(used.root / ".yaotask" / "yaotask.db", "yaotask_attempts")
    short, whole = ([one for one in examined(used.root, whole=much) if one.about == "store"] for much in (False, True))

    assert [finding.level for finding in short] == ["ok"]
    assert [finding.level for finding in whole] == ["fault"]
    assert whole[0].what.startswith("the database is damaged: ")
    assert "restore it from a backup" in whole[0].advice


def test_damage_to_what_is_always_used_is_found_by_a_short_look(used: App) -> None:
    used.close()
    damage(used.root / ".yaotask" / "yaotask.db", "yaotask_ids")

    assert only(used.root, "store").level == "fault"


def damage(database: Path, table: str) -> None:
    """Write over the first page of a table."""
    connection = sqlite3.connect(database)
    (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()
    (size,) = connection.execute("PRAGMA page_size").fetchone()
    connection.close()
    with database.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xff" * size)


# --- those who work ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("ahead", "levels"), [(1, []), (10, ["warn"]), (3_600, ["fault"])])
def test_times_of_the_future_are_told_and_beyond_a_lease_they_are_a_fault(
    used: App, fleet: Fleet, ahead: int, levels: list[str]
) -> None:
    fleet.execute("UPDATE yaotask_jobs SET created_at = :moment", moment=fleet.before(-ahead))
    findings = found(used.root, "clock")

    assert [finding.level for finding in findings] == levels
    if ahead == 3_600:
        assert findings[0].what == "the store has times that are 1h ahead of this machine's clock"


def test_a_node_of_another_version_is_warned_of(used: App, fleet: Fleet) -> None:
    fleet.enter(1, "supervisor", version="0.0.9")
    finding = only(used.root, "workers")

    assert (finding.level, finding.what) == ("warn", f"supervisor 1 on {HOST} is yaotask 0.0.9, this is 0.1.0")


def test_a_silent_worker_is_a_fault_and_zombies_are_warned_of(used: App, fleet: Fleet) -> None:
    fleet.enter(1, state="silent", zombies={"mail": 2})
    silent, zombies = found(used.root, "workers")

    assert (silent.level, silent.what) == ("fault", f"worker 1 on {HOST} is silent: a handler blocks it")
    assert (zombies.level, zombies.what.partition(" that ")[0]) == (
        "warn",
        f"worker 1 on {HOST} has 2 handlers of mail",
    )


def test_what_is_told_of_a_dead_process_is_of_no_interest_any_more(used: App, fleet: Fleet) -> None:
    fleet.enter(1, state="silent", version="0.0.9", renewed=60)

    assert found(used.root, "workers") == []


# --- what waits --------------------------------------------------------------------------------------


def test_jobs_that_could_run_while_nobody_is_up_are_a_fault(used: App) -> None:
    clock = ManualClock()
    clock.advance(90)
    with App(used.root, clock=clock) as app:
        (finding,) = [one for one in doctor.examine(app) if one.about == "jobs"]

    assert (finding.level, finding.advice) == ("fault", "start one with: yaotask run")
    assert finding.what == "no worker is up, and 1 job could run, the oldest for 1m30s"


@pytest.mark.parametrize("mail", [None, TASK + "size: 0\n", TASK.replace("Send", "Sned")])
def test_jobs_that_a_node_started_here_could_not_run_are_not_said_to_wait_for_one(
    project: Project, mail: str | None
) -> None:
    root = project(tasks={"mail": TASK, "good": TASK}, scripts={"mail": SCRIPT})
    with App(root, clock=ManualClock()) as app:
        app.tasks["mail"].add()
        app.tasks["good"].options(delay="1h").add()
    (root / "tasks" / "mail.yml").unlink() if mail is None else (root / "tasks" / "mail.yml").write_text(mail)
    before = [finding.level for finding in found(root, "jobs")]
    with App(root, clock=ManualClock()) as app:
        app.tasks["good"].add()
    able, unable = found(root, "jobs")

    assert before == ["warn"]
    assert (able.level, able.what) == ("fault", "no worker is up, and 1 job could run, the oldest for 0s")
    assert unable.what.startswith("1 waiting job of mail, ")


@pytest.mark.parametrize(("delay", "levels"), [("1h", []), ("0s", ["fault"])])
def test_jobs_for_later_need_no_worker_yet(root: Path, delay: str, levels: list[str]) -> None:
    with App(root, clock=ManualClock()) as app:
        app.tasks["mail"].options(delay=delay).add()

    assert [finding.level for finding in found(root, "jobs")] == levels


def test_jobs_that_came_due_count_as_ready(used: App, fleet: Fleet) -> None:
    fleet.execute("UPDATE yaotask_jobs SET ready_at = NULL, due_at = :moment", moment=fleet.before(5))

    assert only(used.root, "jobs").what.endswith("1 job could run, the oldest for 5s")


def test_jobs_of_a_task_that_is_broken_on_every_node_are_warned_of(used: App, fleet: Fleet) -> None:
    fleet.enter(1, "supervisor", tasks=["mail"], broken=["mail"])
    fleet.enter(2, node=1, number=0)
    finding = only(used.root, "jobs")

    assert finding.what == (
        "1 waiting job of mail, which no node that is up can run: its handler is broken on node 1 on build-1"
    )
    assert finding.advice.startswith("see what `yaotask check` says there")


def test_one_node_that_can_run_a_task_is_enough(used: App, fleet: Fleet) -> None:
    fleet.enter(1, "supervisor", tasks=["mail"], broken=["mail"])
    fleet.enter(2, "embedded", tasks=["mail"])
    (used.root / "tasks" / "mail.yml").unlink()

    assert found(used.root, "jobs") == []


def test_tasks_that_nodes_define_in_different_ways_are_warned_of(used: App, fleet: Fleet) -> None:
    fleet.enter(1, "supervisor", tasks=["mail"], digests="abcdef")
    fleet.enter(2, "supervisor", tasks=["mail"], digests="012345")
    finding = only(used.root, "definitions")

    assert (finding.level, finding.what) == ("warn", "mail differs between node 1 on build-1 and node 2 on build-1")
    assert finding.advice.startswith("bring the same files to all nodes")


def test_jobs_without_a_definition_are_warned_of(used: App, fleet: Fleet) -> None:
    fleet.enter(1)
    (used.root / "tasks" / "mail.yml").unlink()
    finding = only(used.root, "jobs")

    assert (finding.level, finding.what) == ("warn", "1 waiting job of mail, which has no file any more")
    assert finding.advice == "bring tasks/mail.yml back, or cancel them"


@pytest.mark.parametrize(
    ("task", "what"),
    [
        (TASK + "size: 0\n", "1 waiting job of mail, whose file has problems"),
        (TASK.replace("Send", "Sned"), "1 waiting job of mail, whose handler is broken"),
    ],
)
def test_jobs_of_a_task_that_cannot_run_are_warned_of(used: App, fleet: Fleet, task: str, what: str) -> None:
    fleet.enter(1)
    (used.root / "tasks" / "mail.yml").write_text(task)

    assert only(used.root, "jobs").what == what


@pytest.mark.parametrize(
    ("others", "since", "shown", "level", "advice"),
    [
        (False, 3, "3s", "fault", "they run again once a worker is up"),
        (True, 3, "3s", "warn", "they are taken over within seconds"),
        (True, 60, "1m", "fault", "they should have been taken over"),
    ],
)
def test_jobs_of_workers_that_are_gone_are_told(
    used: App, fleet: Fleet, others: bool, since: float, shown: str, level: str, advice: str
) -> None:
    fleet.enter(1, renewed=31)
    fleet.claim(1, 1, since=since)
    if others:
        fleet.enter(2)
    finding = only(used.root, "claims")

    assert (finding.level, finding.what) == (
        level,
        f"1 job of workers that are gone, mail.1 for {shown}",
    )
    assert advice in finding.advice


def test_a_claim_whose_worker_has_no_row_is_lost(used: App, fleet: Fleet) -> None:
    fleet.claim(1, 77)

    assert only(used.root, "claims").level == "fault"


def test_a_worker_that_died_on_this_machine_has_lost_its_jobs_at_once(used: App, fleet: Fleet) -> None:
    lock = Lock.take(used.root / ".yaotask" / "workers", "theirs")
    fleet.enter(1)
    fleet.lock(1, lock)
    fleet.claim(1, 1)
    before = found(used.root, "claims")
    os.close(lock.handle)

    assert before == []
    assert only(used.root, "claims").level == "fault"


@pytest.mark.parametrize(("age", "worker", "levels"), [(61, False, ["fault"]), (59, False, []), (61, True, [])])
def test_hooks_that_wait_for_a_worker_are_a_fault(
    used: App, fleet: Fleet, age: float, worker: bool, levels: list[str]
) -> None:
    event(fleet, age=age)
    if worker:
        fleet.enter(1)

    assert [finding.level for finding in found(used.root, "hooks")] == levels


def test_events_that_were_given_up_are_warned_of_with_the_last_error(used: App, fleet: Fleet) -> None:
    event(fleet, id=1, state=1, error="OSError: no route")
    event(fleet, id=2, state=1, error="ValueError: no address")
    finding = only(used.root, "hooks")

    assert (finding.level, finding.what) == ("warn", "2 events given up, the last of mail.2: ValueError: no address")


def event(fleet: Fleet, *, id: int = 1, age: float = 0, state: int = 0, error: str | None = None) -> None:
    fleet.execute(EVENT, id=id, created_at=fleet.before(age), state=state, error=error)


# --- in general --------------------------------------------------------------------------------------


def test_whatever_is_not_well_comes_with_what_to_do(used: App, fleet: Fleet) -> None:
    (used.root / "tasks" / "bad.yml").write_text("size: 0\n")
    (used.root / ".yaotask").chmod(0o777)
    fleet.enter(1, renewed=900)
    fleet.claim(1, 1)
    event(fleet, age=900)
    event(fleet, id=2, state=1, error="bad")
    findings = [finding for finding in examined(used.root) if finding.level != "ok"]

    assert {finding.about for finding in findings} == {"definitions", "state", "claims", "hooks"}
    assert all(finding.advice for finding in findings)


def test_jobs_of_a_task_that_no_node_runs_are_warned_of(used: App, fleet: Fleet) -> None:
    fleet.enter(1, "supervisor", tasks=["other"])
    fleet.enter(2, node=1, number=0)
    finding = only(used.root, "jobs")
    fleet.execute("UPDATE yaotask_workers SET info = :info WHERE key = 1", info='{"tasks": ["mail"]}')

    assert finding.what.startswith("1 waiting job of mail, which no node that is up runs")
    assert finding.advice == "stop `yaotask run`, and start it again"
    assert found(used.root, "jobs") == []
