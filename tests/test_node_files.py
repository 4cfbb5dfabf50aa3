"""A node whose store is full, read-only, gone, cut short or too new: it says so in a line, and goes on after it."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fleet_folders import GATED, all_succeed, folder, open_gate
from node_support import lines_with, processes, send, workers
from run_support import TASK, Program, add, command, drained, job, notes, running, started, until
from server_fixtures import Database
from store_support import behind

from yaotask import App
from yaotask.errors import StorageFull
from yaotask.store import migrations
from yaotask.store.opening import place

pytest_plugins = ["run_fixtures"]
pytestmark = pytest.mark.timeout(90)

Hold = Callable[..., Path]

JOBS = 3
WRITING = "the store cannot be written"
FOUR = f"{TASK}worker_nums: 4\n"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of a few MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(disk)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"a file system can be mounted by root alone: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def held(root: Path) -> None:
    """Add jobs that wait for the gate."""
    add(root, JOBS)


def until_held(root: Path) -> None:
    until(lambda: len(notes(root, "start")) == JOBS)


def let_go(root: Path) -> None:
    """Let the jobs end."""
    open_gate(root)
    until(lambda: len(notes(root, "end")) == JOBS)


def all_ended(root: Path) -> None:
    """Wait until the store knows that they succeeded."""
    until(lambda: {job(root, id)["status"] for id in range(1, JOBS + 1)} == {"SUCCESS"})


def said_once(run: Program, text: str) -> bool:
    """Whether a worker said of its store that, once, and nobody showed where in our code."""
    return len(lines_with(run, WRITING)) == len(lines_with(run, f"{WRITING}: {text}")) == 1 and is_plain(run)


def is_plain(run: Program) -> bool:
    return not any(word in run.errors for word in ("Traceback", 'File "', "threads are"))


# --- the disk -----------------------------------------------------------------------------------------


def fill(disk: Path) -> Path:
    """Leave no room; the file that takes it."""
    filler = disk / "filler"
    with pytest.raises(OSError, match="No space left"), filler.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4_096)
    return filler


def test_a_node_on_a_full_disk_keeps_what_ended_and_writes_it_when_there_is_room(hold: Hold, small_disk: Path) -> None:
    database = small_disk / "jobs.db"
    root = hold(GATED, settings=f"store: sqlite:///{database}\n", task=FOUR)
    held(root)
    with running(root) as run:
        until_held(root)
        with App(root) as app:
            filler = fill(small_disk)
            with pytest.raises(StorageFull, match="make room and try again"):
                app.tasks["hold"].add()
            let_go(root)
            run.says(f"the disk of {database} is full")
            filler.unlink()
        run.says("the store can be written again")
        all_ended(root)
        run.signal(signal.SIGTERM)
        status = run.status()

    assert said_once(run, f"the disk of {database} is full; nothing was stored: make room and try again"), run.errors
    assert len(notes(root, "start")) == JOBS
    assert status == 0


# More than a node writes to any other file here, and less than the store has already.
SMALL = 32_768


def limit_files(root: Path, most: int) -> None:
    """No process of the project may write beyond so many bytes from now on."""
    for pid in processes(root):
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))


def test_a_node_that_may_write_no_large_files_keeps_what_ended_and_writes_it_when_it_may(hold: Hold) -> None:
    root = hold(GATED, task=FOUR)
    held(root)
    database = root / ".yaotask" / "yaotask.db"
    with running(root) as run:
        until_held(root)
        limit_files(root, SMALL)
        let_go(root)
        run.says(f"{database} may not grow")
        limit_files(root, resource.RLIM_INFINITY)
        run.says("the store can be written again")
        all_ended(root)
        run.signal(signal.SIGTERM)
        status = run.status()

    limit = "this process writes no file beyond 32,768 bytes (ulimit -f)"
    assert said_once(run, f"{database} may not grow: {limit}"), run.errors
    assert len(notes(root, "start")) == JOBS
    assert status == 0


ADDER = """
import resource, sys
from yaotask import App, StorageFull

def limit(most):
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))

with App(".") as app:
    print(app.tasks["hold"].add("the first"))
    limit(int(sys.argv[1]))
    try:
        while True:
            print(app.tasks["hold"].add("x" * 50_000))
    except StorageFull as full:
        print(full, file=sys.stderr)
    limit(resource.RLIM_INFINITY)
    print(app.tasks["hold"].add("the last"))
"""


# The log of SQLite is full soon; or, where that is copied to the database from time to time, both of them are.
@pytest.mark.parametrize("most", [300_000, 6_000_000])
def test_adds_beyond_a_limit_of_file_sizes_are_refused_and_all_others_are_there(hold: Hold, most: int) -> None:
    root = hold("def Hold(task_id, text):\n    return len(text)\n", task=f"{FOUR}size: 1000\n")
    with started(root, ["-c", ADDER, str(most)]) as adder:
        assert adder.status() == 0, adder.errors
    drained(root)
    ids = [int(line) for line in adder.output.splitlines()]
    with App(root) as app:
        counted = app.store_status()["jobs"]
        found = app.status("hold", ids)

    assert adder.errors.endswith(f"may not grow: this process writes no file beyond {most:,} bytes (ulimit -f)\n")
    assert len(adder.errors.splitlines()) == 1
    assert list(found.values()) == ["SUCCESS"] * len(ids)
    assert {state: count for state, count in counted.items() if count} == {"SUCCESS": len(ids)}


def test_a_node_of_a_read_only_store_ends_with_four_and_runs_once_it_can_be_written(
    hold: Hold, small_disk: Path
) -> None:
    root = hold(GATED, settings=f"store: sqlite:///{small_disk / 'jobs.db'}\n", task=FOUR)
    held(root)
    open_gate(root)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    refused = command(root, "run")
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    drained(root)

    assert (refused.returncode, "Traceback" in refused.stderr) == (4, False)
    assert refused.stderr.endswith("jobs.db cannot be opened: check that its folder exists and can be written\n")
    assert len(notes(root, "end")) == JOBS


# --- the file -----------------------------------------------------------------------------------------


def test_a_node_whose_file_is_taken_away_goes_on_when_it_is_back(hold: Hold) -> None:
    root = hold(GATED, task=FOUR)
    held(root)
    database, aside = root / ".yaotask" / "yaotask.db", root / "aside"
    with running(root) as run:
        until_held(root)
        database.rename(aside)
        let_go(root)
        run.says(WRITING)
        run.says("services cannot be entered")
        made_anew = database.exists()
        aside.rename(database)
        run.says("the store can be written again")
        run.says("services is up")
        all_ended(root)
        run.signal(signal.SIGTERM)
        status = run.status()

    assert said_once(run, f"{database} is gone while it is in use"), run.errors
    assert len(lines_with(run, "cannot be entered")) == 1
    assert len(notes(root, "start")) == JOBS
    assert (status, made_anew) == (0, False)


def test_a_node_whose_file_is_emptied_writes_nothing_to_it_and_its_jobs_run_from_a_backup(hold: Hold) -> None:
    root = hold(GATED, settings="grace: 1s\n", task=FOUR)
    held(root)
    database = root / ".yaotask" / "yaotask.db"
    backup = shutil.copy(database, root / "backup")
    run, status = cut(root, database, 0)
    left = database.stat().st_size
    for file in database.parent.glob("yaotask.db*"):
        file.unlink()
    shutil.copy(backup, database)
    drained(root)

    assert said_once(run, f"{database} was emptied while it is in use: nothing is stored any more"), run.errors
    assert (status, left) == (4, 0)
    all_ended(root)


def test_a_node_whose_file_is_cut_short_asks_for_a_backup_and_ends_with_four(hold: Hold) -> None:
    root = hold(GATED, settings="grace: 1s\n", task=FOUR)
    held(root)
    database = root / ".yaotask" / "yaotask.db"
    run, status = cut(root, database, 6_000)

    advice = "is not a sound SQLite database (database disk image is malformed): restore it from a backup"
    assert said_once(run, f"{database} {advice}"), run.errors
    assert len(lines_with(run, "died: exit status 4")) == 1
    assert run.errors.splitlines()[-1] == f"Error: {database} {advice}"
    assert status == 4


def cut(root: Path, database: Path, size: int) -> tuple[Program, int]:
    """A node whose file was cut under it, and how it ended when it was told to."""
    with running(root) as run:
        until_held(root)
        os.truncate(database, size)
        let_go(root)
        run.says(WRITING)
        run.signal(signal.SIGTERM)
        return run, run.status()


# --- the schema ---------------------------------------------------------------------------------------


def test_a_worker_that_finds_a_newer_store_waits_and_works_when_that_is_its_own_again(
    tmp_path: Path, database: Database
) -> None:
    root = folder(tmp_path, "a", database, settings="grace: 100ms\n")
    add(root, JOBS)

    def set_schema(version: int) -> None:
        change = "UPDATE yaotask_meta SET value = :v WHERE name = 'schema'"
        behind(place(root, database.url), change, v=str(version))

    with running(root) as run:
        until(lambda: len(notes(root, "start")) == 2)
        set_schema(migrations.CURRENT + 1)
        send(signal.SIGTERM, *workers(run).values())
        run.says("the store cannot be opened, will go on trying")
        set_schema(migrations.CURRENT)
        open_gate(root)
        run.says("the store can be opened again")
        with App(root) as app:
            all_succeed(app, JOBS)
        run.signal(signal.SIGTERM)
        status = run.status()
    (said,) = lines_with(run, "the store cannot be opened")

    assert said.endswith(f"knows up to {migrations.CURRENT}: install the newer yaotask")
    assert " ERROR " in said
    assert (status, is_plain(run)) == (0, True), run.errors
