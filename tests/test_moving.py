"""A store carried to another database: nothing is lost or doubled, whatever happens in the middle."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import moving_support
import pytest
from moving_support import NOW, contents_of, filled, opened
from run_support import until
from servers import SERVERS, Missing, Servers
from sqlalchemy import select

from yaotask import App
from yaotask.chance import SystemChance
from yaotask.clock import SECOND, SystemClock
from yaotask.errors import StorageBusy, StorageError, StorageUnavailable
from yaotask.store import reads, verifying
from yaotask.store.dialects import mysql_hold
from yaotask.store.dialects.postgresql import PostgresqlDialect
from yaotask.store.dialects.sqlite_hold import FileHold
from yaotask.store.locks import Lock
from yaotask.store.moving import copying, source, target, words
from yaotask.store.moving import side as sides
from yaotask.store.moving.copying import Copy, Note
from yaotask.store.moving.move import Moved, MoveRefused, Step, move, undo
from yaotask.store.moving.words import Leaving
from yaotask.store.opening import Place, open_store, place, shown
from yaotask.store.protocol import Add, Mailbox, NewJob, Terms, Ticket
from yaotask.store.scripting import script
from yaotask.store.tables import attempts, ids, jobs, meta, workers

KILLED = Path(__file__).with_name("moving_killed.py")
TASK = "name: Mail\nprocess: scripts.mail.Send\n"
PAIRS = [("sqlite", "sqlite"), ("sqlite", "postgresql"), ("postgresql", "mariadb"), ("mariadb", "sqlite")]
# How many jobs a planner reckons with.
KNOWN_ROWS = {
    "postgresql": "SELECT reltuples FROM pg_class WHERE oid = CAST('yaotask_jobs' AS regclass)",
    "mariadb": "SELECT n_rows FROM mysql.innodb_table_stats"
    " WHERE database_name = database() AND table_name = 'yaotask_jobs'",
}
PlaceOn = Callable[..., Place]

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(autouse=True)
def no_other_transition() -> None:
    """What is carried is stored in the state that it has."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "project"


@pytest.fixture
def place_on(root: Path, servers: Servers, request: pytest.FixtureRequest) -> Iterator[PlaceOn]:
    """A place without a store, on the kind of database that is asked for."""
    wanted = request.config.getoption("--databases").split(",")
    with ExitStack() as stack:

        def place_on(kind: str, name: str = "store") -> Place:
            if kind not in wanted:
                pytest.skip(f"not among the databases of this run: {kind}")
            if kind not in SERVERS:
                return place(root, f"sqlite:///{name}.db")
            try:
                url = stack.enter_context(servers.database(kind))
            except Missing as missing:
                pytest.skip(str(missing))
            return place(root, url.render_as_string(hide_password=False))

        yield place_on


@pytest.fixture(params=PAIRS, ids=lambda pair: "-".join(pair))
def pair(request: pytest.FixtureRequest, place_on: PlaceOn) -> tuple[Place, Place]:
    """Where a store is, and where it shall be."""
    here, there = request.param
    return place_on(here, "here"), place_on(there, "there")


@pytest.fixture
def files(place_on: PlaceOn) -> tuple[Place, Place]:
    return place_on("sqlite", "here"), place_on("sqlite", "there")


def moved(here: Place, there: Place, tell: Callable[[Step], None] = lambda step: None) -> Moved:
    return move(here, there, SystemClock, SystemChance(), tell)


def same(here: Place, there: Place) -> bool:
    """Whether all that was left is there, and nothing else."""
    one, other = contents_of(here), contents_of(there)
    assert [name for name in one if one[name] != other[name]] == []
    return True


def refused(place: Place) -> str:
    """Why a store cannot be opened."""
    with pytest.raises(StorageUnavailable) as caught, opened(place):
        pass
    return str(caught.value)


def a_stranger(there: Place) -> Place:
    """The same database, as another project has it."""
    return Place(there.url, there.state / "other")


def add(place: Place, task: str = "mail") -> int:
    """The id of a job that was added in the way of all jobs."""
    one = Add(task, [NewJob("[]", "{}", Terms())], 1_000_000, 0, Ticket())
    with opened(place) as store:
        store.run_cycle(Mailbox(adds=[one]))
    assert one.ticket.error is None
    return one.stored[0]


def change(place: Place, statement: Any, *rows: Any) -> None:
    """Change something behind the store's back."""
    engine = place.dialect().engine(writer=False)
    with engine.connect() as connection:
        connection.execute(statement, *rows)
    engine.dispose()


def a_worker(expires_at: int | None, *, kind: str = "worker", node: int | None = None) -> dict[str, Any]:
    place = {"kind": kind, "node": node, "incarnation": f"{kind} {node}"}
    return {"host": "far", "pid": 12, "started_at": NOW, "expires_at": expires_at, **place}


# --- all of it ----------------------------------------------------------------------------------------


def test_all_jobs_and_what_belongs_to_them_are_carried(pair: tuple[Place, Place]) -> None:
    here, there = pair
    filled(here, 2_000)

    result = moved(here, there)

    assert same(here, there)
    assert result.jobs["RETRYING"] == 500
    assert "RUNNING" not in result.jobs
    assert result.rows["yaotask_jobs"] == 2_000
    assert verifying.verify(there, {"mail"}) == []


def test_from_database_to_database_the_checksum_stays(place_on: PlaceOn) -> None:
    first = filled(place_on("sqlite", "first"), 300)
    stations = [first, *(place_on(kind) for kind in ("postgresql", "mariadb")), place_on("sqlite", "last")]
    sums = {moved(*leg).checksum for leg in pairwise(stations)}

    assert len(sums) == 1
    assert same(first, stations[-1])


def test_ids_and_keys_go_on_behind_what_was_moved(pair: tuple[Place, Place]) -> None:
    here, there = pair
    filled(here, 100)
    moved(here, there)

    id = add(there)
    with opened(there) as store, store.reading() as connection:
        job = reads.get(connection, "mail", id)
        last = max(key for key in connection.execute(select(jobs.c.key)).scalars())

    assert id == 200
    assert job is not None
    assert job["key"] == last > 199


def test_what_dead_workers_had_is_taken_back_first(files: tuple[Place, Place]) -> None:
    here, there = files
    filled(here, 40)  # 1, 11, 21 and 31 run; 1 and 21 are asked to stop
    moved(here, there)
    found = contents_of(there)
    states = {row["id"]: (row["state"], row["worker"]) for row in found["yaotask_jobs"].values()}
    lost = [row["job"] for row in found["yaotask_attempts"].values() if row["outcome"] == "lost"]

    assert [states[id] for id in (2, 12, 22, 32)] == [(6, None), (5, None), (6, None), (5, None)]
    assert lost == [2 * 11 + 1, 2 * 31 + 1]
    assert found["yaotask_workers"] == {}
    assert all(row["worker"] is None for row in found["yaotask_events"].values())


def test_an_empty_store_can_be_moved(pair: tuple[Place, Place]) -> None:
    here, there = pair
    filled(here, 0)

    assert moved(here, there).rows["yaotask_jobs"] == 0
    assert add(there) == 1


def test_an_empty_file_that_was_there_can_be_read_by_nobody_else_once_it_is_filled(files: tuple[Place, Place]) -> None:
    here, there = files
    filled(here, 3)
    assert there.file is not None
    there.file.touch()
    there.file.chmod(0o644)
    moved(here, there)

    assert there.file.stat().st_mode & 0o777 == 0o600


def test_a_folder_that_is_missing_is_made(files: tuple[Place, Place], root: Path) -> None:
    here, _ = files
    there = place(root, "sqlite:///data/deep/there.db")
    filled(here, 3)
    moved(here, there)

    assert same(here, there)
    assert (root / "data" / "deep").stat().st_mode & 0o777 == 0o700


def test_a_folder_that_cannot_be_made_is_named(files: tuple[Place, Place], root: Path) -> None:
    here, _ = files
    filled(here, 1)
    (root / "data").write_text("a file in its place")

    with pytest.raises(StorageUnavailable, match=r"/data/deep cannot be made: Not a directory; a move shows there"):
        moved(here, place(root, "sqlite:///data/deep/there.db"))
    assert add(here)


def test_the_new_store_is_that_of_the_project(files: tuple[Place, Place]) -> None:
    here, there = files
    filled(here, 1)
    known = here.marker.read_text()
    result = moved(here, there)

    with opened(there) as store, store.reading() as connection:
        found = connection.execute(select(meta.c.name)).scalars().all()
    assert known.strip() == result.store_id
    assert sorted(found) == ["schema", "store"]


def test_long_rows_are_read_a_few_at_a_time(files: tuple[Place, Place], monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = files
    filled(here, 60)
    sizes: list[int] = []
    write = Copy.write

    def measured(self: Copy, there: Any, rows: Any, before: Note) -> Note:
        if self.table is jobs:
            sizes.append(len(rows))
        return write(self, there, rows, before)

    monkeypatch.setattr(Copy, "write", measured)
    monkeypatch.setattr(copying, "MOST_TEXT", 1_000)
    moved(here, there)

    assert same(here, there)
    assert max(sizes) < 20
    assert min(sizes) >= 1


def test_how_far_it_is_is_told(files: tuple[Place, Place]) -> None:
    here, there = files
    filled(here, 30)
    steps: list[Step] = []
    moved(here, there, steps.append)

    assert {step.what for step in steps} == {"copying", "comparing"}
    assert steps == sorted(steps, key=lambda step: (step.what != "copying", step.done))
    assert steps[-1].done == steps[-1].total


@pytest.mark.parametrize("kind", SERVERS)
def test_a_server_knows_at_once_what_it_holds(place_on: PlaceOn, kind: str) -> None:
    here, there = place_on("sqlite"), place_on(kind)
    filled(here, 300)
    steps: list[Step] = []
    moved(here, there, steps.append)
    with opened(there) as store, store.reading() as connection:
        known = connection.exec_driver_sql(KNOWN_ROWS[kind]).scalar_one()

    assert known == 300
    assert [step.what for step in steps[-2:]] == ["analyzing"] * 2
    assert steps[-1].done == steps[-1].total


# --- ended in the middle ------------------------------------------------------------------------------


class Killer:
    """The program that ends itself, asked one order after the other."""

    def __init__(self, program: subprocess.Popen[str], root: Path) -> None:
        self._program = program
        self._root = root

    def move(self, here: Place, there: Place, at: int, *, before: bool) -> bool:
        """Whether the move came to its end before it was to be killed."""
        addresses = {
            name: side.url.render_as_string(hide_password=False) for name, side in (("here", here), ("there", there))
        }
        order = {"root": str(self._root), "at": at, "before": before, **addresses}
        assert self._program.stdin
        assert self._program.stdout
        self._program.stdin.write(json.dumps(order) + "\n")
        self._program.stdin.flush()
        answer = self._program.stdout.readline()
        assert answer, "the program has died itself"
        return bool(json.loads(answer))


@pytest.fixture
def killer(root: Path) -> Iterator[Killer]:
    command = [sys.executable, str(KILLED)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as program:
        yield Killer(program, root)


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_killed_at_any_commit_it_goes_on_and_nothing_is_lost_or_doubled(
    files: tuple[Place, Place], root: Path, killer: Killer, before: bool
) -> None:
    first, _ = files
    filled(first, 400)
    kills = 0
    for at in range(1, 100):
        here, there = place(root, f"sqlite:///here{at}.db"), place(root, f"sqlite:///there{at}.db")
        shutil.copy(first.file or "", here.file or "")
        if killer.move(here, there, at, before=before):
            break
        kills += 1
        if there.file and there.file.exists() and "arriving" in _told(there):
            assert "has not ended: go on with it: yaotask db move" in refused(there)
        moved(here, there)

        assert same(here, there)
        assert add(there) == 500

    assert kills > 15


def _told(place: Place) -> set[str]:
    engine = place.dialect().engine(writer=False)
    with engine.connect() as connection:
        found = connection.execute(select(meta.c.name)).scalars().all()
    engine.dispose()
    return {name.partition(".")[0] for name in found}


def test_killed_again_and_again_on_servers_too(pair: tuple[Place, Place], killer: Killer) -> None:
    here, there = pair
    filled(here, 700)
    tries = 0
    while not killer.move(here, there, 3, before=bool(tries % 2)):
        tries += 1

    assert tries > 3
    assert same(here, there)
    assert verifying.verify(there, {"mail"}) == []


def test_killed_while_the_tables_are_made(files: tuple[Place, Place], monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = files
    filled(here, 10)
    with monkeypatch.context() as patch:
        patch.setattr(words, "receive", _fail)
        with pytest.raises(ZeroDivisionError):
            moved(here, there)

    moved(here, there)

    assert same(here, there)


def _fail(*_: object) -> None:
    raise ZeroDivisionError


def test_of_two_that_move_at_once_one_is_refused(files: tuple[Place, Place]) -> None:
    here, there = files
    filled(here, 10)
    filled(a_stranger(there), 0)
    copy = Copy("arriving.jobs", jobs, jobs, jobs)
    with opened(here) as left, opened(a_stranger(there)) as right:
        with left.reading() as connection:
            rows = copy.read(connection, None)
        first = right.write(lambda connection: copy.write(connection, rows[:4], Note()))
        right.write(lambda connection: copy.write(connection, rows[4:6], first))
        with pytest.raises(StorageBusy, match="another process moves this store"):
            right.write(lambda connection: copy.write(connection, rows[4:], first))
        with right.reading() as connection:
            stored = len(copy.read(connection, None))

    assert stored == 6


# --- two movers ---------------------------------------------------------------------------------------

# The connections that have the lock of a move.
LOCKS = {
    "postgresql": "SELECT pid FROM pg_locks WHERE locktype = 'advisory'"
    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
    "mysql": "SELECT IS_USED_LOCK(concat('yaotask move ', left(md5(database()), 32)))",
}
SESSIONS = {
    "postgresql": "SELECT 1 FROM pg_stat_activity WHERE pid = {}",
    "mysql": "SELECT 1 FROM information_schema.processlist WHERE id = {}",
}


def lose_lock(place: Place) -> None:
    if place.file:
        place.file.with_name(f"{place.file.name}-moving").unlink()
        return
    engine = place.dialect().engine(writer=False)
    with engine.connect() as connection:
        kind = place.url.get_backend_name()
        owner = connection.exec_driver_sql(LOCKS[kind]).scalar_one()
        connection.exec_driver_sql(f"KILL {owner}" if kind == "mysql" else f"SELECT pg_terminate_backend({owner})")
        # MariaDB 10.11 was seen to crash where the lock of a session that was just ending was asked for.
        there = SESSIONS[kind].format(owner)
        until(lambda: connection.exec_driver_sql(there).first() is None)
    engine.dispose()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sides, "_PATIENCE", 0.0)


@pytest.mark.usefixtures("impatient")
def test_while_a_move_is_under_way_another_one_and_its_undoing_are_refused(pair: tuple[Place, Place]) -> None:
    here, there = pair
    filled(here, 20)
    refusals: list[str] = []

    def meanwhile(step: Step) -> None:
        for other in (lambda: moved(here, there), lambda: undo(here, SystemClock(), SystemChance())):
            with pytest.raises(MoveRefused) as caught:
                other()
            refusals.append(str(caught.value))

    moved(here, there, meanwhile)

    assert {refusal.partition(" moves ")[0] for refusal in refusals} == {"another process"}
    assert same(here, there)
    assert add(there) == 120


def test_a_store_into_which_another_one_is_moved_is_not_filled(
    files: tuple[Place, Place], place_on: PlaceOn, impatient: None
) -> None:
    here, there = files
    filled(here, 20)
    other = filled(a_stranger(place_on("sqlite", "other")), 10)

    def meanwhile(step: Step) -> None:
        with pytest.raises(MoveRefused, match=r"another process moves sqlite:.*there\.db"):
            moved(other, there)

    moved(here, there, meanwhile)

    assert same(here, there)
    assert add(other) == 110


@pytest.mark.parametrize("lost", [0, 1], ids=["here", "there"])
def test_a_move_that_has_lost_its_lock_writes_no_more_and_can_be_begun_again(
    pair: tuple[Place, Place], lost: int
) -> None:
    here, there = pair
    filled(here, 20)
    steps: list[Step] = []

    def meanwhile(step: Step) -> None:
        steps.append(step)
        if len(steps) == 1:
            lose_lock(pair[lost])

    with pytest.raises(StorageUnavailable, match="was lost: do the same again, it goes on where it was"):
        moved(here, there, meanwhile)
    assert len(steps) == 1
    moved(here, there)

    assert same(here, there)
    assert add(there) == 120


def test_a_server_that_knows_no_such_lock_does_not_keep_a_store_from_being_moved(
    pair: tuple[Place, Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = pair
    monkeypatch.setattr(mysql_hold, "_TAKE", "SELECT no_such_lock()")
    filled(here, 20)
    moved(here, there)

    assert same(here, there)


@pytest.mark.parametrize("when", ["preparing", "copying", "comparing"])
def test_a_mover_that_sleeps_while_another_one_comes_to_the_end_changes_nothing_any_more(
    files: tuple[Place, Place], monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    here, there = files
    filled(here, 20)
    prepare, others = target.prepare, iter([partial(moved, here, there)])
    # As on a server that takes a connection for whole that is not.
    monkeypatch.setattr(FileHold, "is_held", lambda self: True)
    monkeypatch.setattr(FileHold, "release", lambda self: os.close(self._handle))

    def asleep(step: Step) -> None:
        if step.what == when:
            for other in others:
                lose_lock(here)
                lose_lock(there)
                other()

    def late(*arguments: Any, **named: Any) -> None:
        asleep(Step("preparing", 0, 0))
        prepare(*arguments, **named)

    monkeypatch.setattr(target, "prepare", late)
    with pytest.raises(StorageError, match=r"another process has moved this store|the store was moved, or is"):
        moved(here, there, asleep)

    assert "this store was moved to " in refused(here)
    assert same(here, there)
    assert add(there) == 120


# --- what is not moved --------------------------------------------------------------------------------


def test_it_is_refused_while_a_node_runs_on_either_side(pair: tuple[Place, Place]) -> None:
    here, there = pair
    filled(here, 5)
    filled(a_stranger(there), 0)
    change(there, workers.delete())
    far = SystemClock().now() + 60 * 1_000_000
    change(here, workers.delete())
    for busy in (there, here):
        change(
            busy,
            workers.insert(),
            [a_worker(far, kind="supervisor"), a_worker(far, node=1)],
        )
        with pytest.raises(MoveRefused, match=r"1 node or program may run .*supervisor, process 12 on far \(if it is"):
            moved(here, there)
        assert "moved" not in _told(here)
        change(busy, workers.delete())

    with opened(here):
        pass


def test_a_node_whose_lease_ran_out_is_there_as_long_as_it_holds_its_lock(
    files: tuple[Place, Place], tmp_path: Path
) -> None:
    """One that is stopped by Ctrl-Z goes on with `fg`."""
    here, there = files
    filled(here, 5)
    lock = Lock.take(tmp_path / "workers", "theirs")
    over = SystemClock().now() - 60 * SECOND
    change(here, workers.delete())
    change(here, workers.insert(), [{**a_worker(over, kind="supervisor"), **lock.row(), "host": socket.gethostname()}])

    with pytest.raises(MoveRefused, match=r"supervisor, process 12 on .* \(it holds .*theirs\.lock\)"):
        moved(here, there)
    lock.release()
    assert moved(here, there).rows["yaotask_jobs"] == 5


def test_a_node_of_the_other_side_is_seen_whatever_the_time_is_here(
    place_on: PlaceOn, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = place_on("postgresql"), place_on("sqlite")
    now = PostgresqlDialect.now
    monkeypatch.setattr(PostgresqlDialect, "now", lambda *asked: now(*asked) + 3_600 * SECOND)
    filled(here, 5)
    filled(a_stranger(there), 0)
    change(there, workers.delete())
    change(there, workers.insert(), [a_worker(SystemClock().now() + 60 * SECOND)])

    with pytest.raises(MoveRefused, match="1 node or program may run jobs of sqlite:"):
        moved(here, there)


def test_a_process_without_a_lease_is_named_with_its_row(files: tuple[Place, Place]) -> None:
    here, there = files
    filled(here, 0)
    change(here, workers.insert(), [a_worker(None, kind="embedded")])

    with pytest.raises(MoveRefused, match="delete the row with key 8 of yaotask_workers"):
        moved(here, there)


def test_a_node_that_starts_meanwhile_ends_the_move_and_not_the_store(
    pair: tuple[Place, Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = pair
    filled(here, 5)
    settle = source.settle

    def late(side: Any) -> None:
        settle(side)
        change(here, workers.insert(), [a_worker(None)])

    monkeypatch.setattr(source, "settle", late)
    with pytest.raises(MoveRefused, match=r"a node of .* was started meanwhile"):
        moved(here, there)
    monkeypatch.undo()

    assert add(here) == 105
    change(here, workers.delete())
    moved(here, there)
    assert same(here, there)


def test_what_a_killed_move_has_closed_is_opened_again_where_a_node_had_begun_meanwhile(
    pair: tuple[Place, Place],
) -> None:
    here, there = pair
    filled(here, 20)
    word = Leaving("killed", shown(here), shown(there), there.dialect().place, NOW)
    with opened(here) as store:
        store.write(partial(words.close, word=word))

    with pytest.raises(MoveRefused, match=r"a node of .* was started meanwhile: stop it, and begin again"):
        moved(here, there)
    moved(here, there)

    assert same(here, there)
    assert {row["worker"] for row in contents_of(there)["yaotask_jobs"].values()} == {None}


def test_what_is_not_empty_is_not_overwritten(pair: tuple[Place, Place]) -> None:
    here, there = pair
    filled(here, 5)
    filled(a_stranger(there), 0)
    change(there, workers.delete())
    change(there, ids.insert(), [{"task": "mail", "next": 5}])

    with pytest.raises(MoveRefused, match="is a store already, with 1 row in yaotask_ids: "):
        moved(here, there)
    with opened(here):
        pass


def test_a_file_that_is_no_database_is_left_as_it_is_and_another_asked_for(files: tuple[Place, Place]) -> None:
    here, there = files
    filled(here, 1)
    assert there.file is not None
    there.file.write_text("a letter, not a database" * 100)

    with pytest.raises(StorageUnavailable, match=r"there\.db is not a sound database: name another database as TO$"):
        moved(here, there)
    assert there.file.read_text() == "a letter, not a database" * 100
    assert add(here)


def test_a_store_is_not_moved_onto_itself(files: tuple[Place, Place]) -> None:
    here, _ = files
    filled(here, 1)

    with pytest.raises(MoveRefused, match="the same database"):
        moved(here, here)


@pytest.mark.parametrize("jobs", [0, 5])
@pytest.mark.parametrize("kind", SERVERS)
def test_nor_onto_itself_by_another_spelling(place_on: PlaceOn, kind: str, jobs: int) -> None:
    here = filled(place_on(kind), jobs)
    change(here, workers.delete())
    name = "host" if kind == "postgresql" else "unix_socket"
    folder, _, last = str(here.url.query[name]).rpartition("/")
    there = Place(here.url.update_query_dict({name: f"{folder}/./{last}"}), here.state)

    for _ in range(2):
        with pytest.raises(MoveRefused, match="the same database"):
            moved(here, there)
    assert _told(here) == {"schema", "store"}
    assert add(here) == (105 if jobs else 1)


def test_a_job_in_a_state_that_is_none_ends_the_move_before_it_begins(pair: tuple[Place, Place]) -> None:
    here, there = pair
    filled(here, 5)
    change(here, jobs.update().where(jobs.c.id.in_([2, 3])).values(state=99))

    with pytest.raises(MoveRefused, match=r"^2 jobs of .* in a state that yaotask does not know \(99\): `yaotask db"):
        moved(here, there)
    assert _told(here) == {"schema", "store"}
    assert add(here) == 105


def test_where_there_is_no_store_there_is_nothing_to_move(files: tuple[Place, Place]) -> None:
    with pytest.raises(MoveRefused, match="holds no yaotask store"):
        moved(*files)


def test_a_store_under_way_goes_nowhere_else(files: tuple[Place, Place], place_on: PlaceOn, killer: Killer) -> None:
    here, there = files
    filled(here, 400)
    elsewhere = place_on("sqlite", "elsewhere")
    assert not killer.move(here, there, 8, before=False)

    with pytest.raises(MoveRefused, match=r"is being moved to .*there.db: go on with that, or give it up"):
        moved(here, elsewhere)
    with pytest.raises(StorageUnavailable, match="has not ended"):
        moved(there, elsewhere)


def test_what_differs_in_the_end_is_told_and_can_be_done_again(files: tuple[Place, Place]) -> None:
    here, there = files
    filled(here, 50)

    def spoil(step: Step) -> None:
        if step.what == "comparing" and step.done == 3:
            closed = words.CLOSED[jobs.name]
            change(there, closed.update().where(closed.c.id == 7).values(payload='{"text": "changed"}'))

    with pytest.raises(MoveRefused, match=r"yaotask_jobs of .*there.db is not what was copied there"):
        moved(here, there, spoil)
    assert "being moved" in refused(here)
    assert there.file
    there.file.unlink()
    moved(here, there)

    assert same(here, there)


# --- the store that was left --------------------------------------------------------------------------


def test_programs_that_have_it_open_can_add_no_more(
    pair: tuple[Place, Place], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = pair
    (root / "tasks").mkdir(parents=True)
    (root / "tasks" / "mail.yml").write_text(TASK)
    with App(root, settings={"store": here.url.render_as_string(hide_password=False)}) as app:
        app.tasks["mail"].add()
        moved(here, there)
        for use in (app.tasks["mail"].add, lambda: app.get("mail.1"), app.list, lambda: app.cancel("mail.1")):
            with pytest.raises(StorageUnavailable, match=r"is missing.*: the store was moved, or is being moved, see"):
                use()
    with App(root, settings={"store": there.url.render_as_string(hide_password=False)}) as app:
        assert app.get("mail.1")["status"] == "WAITING"


def test_programs_that_have_the_new_store_open_can_add_once_it_is_complete(
    pair: tuple[Place, Place], tmp_path: Path
) -> None:
    here, there = pair
    filled(here, 20)
    (tmp_path / "other" / "tasks").mkdir(parents=True)
    (tmp_path / "other" / "tasks" / "mail.yml").write_text(TASK)
    refusals = []
    store = there.url.render_as_string(hide_password=False)
    with App(tmp_path / "other", settings={"store": store}) as app:
        app.list()

        def meanwhile(step: Step) -> None:
            with pytest.raises(StorageUnavailable, match="was moved, or is being moved") as caught:
                app.tasks["mail"].add()
            refusals.append(caught.value)

        moved(here, there, meanwhile)
        assert same(here, there)
        assert app.tasks["mail"].add() == 120

    assert refusals
    assert verifying.verify(there, {"mail"}) == []


@pytest.mark.parametrize("kind", ["sqlite", *SERVERS])
def test_what_a_program_adds_before_the_new_store_is_closed_is_kept(
    place_on: PlaceOn, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    here, there = place_on("sqlite", "here"), place_on(kind, "there")
    filled(here, 20)
    filled(a_stranger(there), 0)
    change(there, workers.delete())
    prepare, others = target.prepare, iter([partial(add, a_stranger(there))])

    def late(*arguments: Any) -> None:
        assert [other() for other in others] == [1]
        prepare(*arguments)

    monkeypatch.setattr(target, "prepare", late)
    with pytest.raises(MoveRefused, match=r"is a store already, with .*1 row in yaotask_jobs"):
        moved(here, there)

    assert add(here) == 120
    assert add(a_stranger(there)) > 1


def test_it_says_where_it_went_and_can_be_used_all_the_same(pair: tuple[Place, Place]) -> None:
    here, there = pair
    filled(here, 20)
    moved(here, there)

    said = refused(here)
    undo(here, SystemClock(), SystemChance())

    assert "this store was moved to " in said
    assert "yaotask db move --undo " in said
    assert add(here) == 120
    with pytest.raises(MoveRefused, match="there is nothing to undo"):
        undo(here, SystemClock(), SystemChance())


def test_of_an_older_schema_it_can_be_used_again_too(files: tuple[Place, Place]) -> None:
    here, there = files
    filled(here, 20)
    moved(here, there)
    change(here, meta.update().where(meta.c.name == "schema").values(value="3"))
    undo(here, SystemClock(), SystemChance())

    assert "run `yaotask db upgrade`" in refused(here)
    open_store(here, SystemClock(), SystemChance(), upgrade=True).close()
    assert add(here) == 120


def test_once_moved_the_same_again_says_the_same(pair: tuple[Place, Place], place_on: PlaceOn) -> None:
    here, there = pair
    filled(here, 20)
    result = moved(here, there)
    add(there)

    assert moved(here, there) == result
    with pytest.raises(MoveRefused, match=r"was moved to .* already: write that as `store:`"):
        moved(here, place_on("sqlite", "elsewhere"))


def test_a_move_that_was_given_up_does_not_go_on_by_itself(files: tuple[Place, Place], killer: Killer) -> None:
    here, there = files
    filled(here, 400)
    assert not killer.move(here, there, 8, before=False)
    undo(here, SystemClock(), SystemChance())
    add(here)

    with pytest.raises(MoveRefused, match=r"holds a part of another move, .*: delete the file"):
        moved(here, there)
    assert there.file
    there.file.unlink()
    moved(here, there)

    assert same(here, there)


SECRETS = (
    "postgresql://me:secret@host/db?password=hidden",
    "postgresql://me:secret@host/db?sslpassword=hidden&sslkey=file",
    "postgresql://me:secret@host/db?oauth_client_id=me&oauth_client_secret=hidden",
    "postgresql://me:secret@host/db?scram_client_key=hidden&scram_server_key=hidden",
    "postgresql://me:secret@host/db?passwrd=hidden&sslmode=require",
    "mysql://me:secret@host/db?passwd=hidden",
    "mysql://me:secret@host/db?ssl_key_password=hidden",
)


@pytest.mark.parametrize("address", SECRETS)
def test_no_password_is_kept_or_told(tmp_path: Path, address: str) -> None:
    there = place(tmp_path, address)
    told = words.command("--undo", shown(there))
    kept = there.dialect().place

    assert "secret" not in told + kept
    assert "hidden" not in told + kept


def test_the_password_of_the_new_store_is_not_in_the_old_one(place_on: PlaceOn) -> None:
    here, there = filled(place_on("sqlite", "here"), 5), place_on("postgresql", "there")
    moved(here, Place(there.url.update_query_dict({"password": "hidden"}), there.state))

    assert here.file
    assert b"hidden" not in b"".join(file.read_bytes() for file in here.file.parent.glob(f"{here.file.name}*"))


# --- made by somebody else ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sqlite", "postgresql", "mariadb"])
def test_a_script_makes_a_complete_store_that_can_be_moved_into(place_on: PlaceOn, kind: str) -> None:
    here, there = filled(place_on("sqlite", "here"), 30), place_on(kind, "there")
    _run(there, script(there, SystemChance()))

    assert script(there, SystemChance()) == ""
    moved(here, there)
    assert same(here, there)
    assert verifying.verify(there, {"mail"}) == []
    assert add(there) == 130


def _run(place: Place, text: str) -> None:
    """As the database's own client would."""
    if place.file:
        place.file.parent.mkdir(exist_ok=True)
        connection = sqlite3.connect(place.file)
        connection.executescript(text)
        connection.close()
        return
    engine = place.dialect().engine(writer=False)
    with engine.connect() as connected:
        cursor = connected.connection.cursor()
        for statement in text.split(";\n"):
            if statement.strip():
                cursor.execute(statement)
        cursor.close()
    engine.dispose()


def test_tries_keep_their_own_workers(files: tuple[Place, Place]) -> None:
    here, there = files
    filled(here, 30)
    moved(here, there)
    with opened(there) as store, store.reading() as connection:
        found = set(connection.execute(select(attempts.c.worker)).scalars())

    assert found == {moving_support.DEAD}
