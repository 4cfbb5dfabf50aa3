"""Clocks that are set while everything runs: those of nodes, and that of the server whose time counts for all."""

from __future__ import annotations

import shutil
import signal
import struct
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path

import pytest
from fleet_folders import BRISK, all_succeed, folder, noted
from node_support import lines_with, members, nothing_left, send, workers
from own_server import OwnServer
from preloading import compiled
from run_support import Program, notes, started, until
from server_fixtures import Database
from servers import SERVERS, Servers

from yaotask import App
from yaotask.clock import SECOND, SystemClock
from yaotask.store import opening
from yaotask.store.dialects import choice

pytest_plugins = ["own_server_fixtures"]
pytestmark = pytest.mark.timeout(120)

MINUTES, HOUR = 600, 3_600
LEASE = 1.5
# Within so many seconds the death of a worker is seen by its node; a busy machine needs its time for all of it.
DEATH_SEEN, SLACK = 2.0, 10.0
# With a heartbeat of a third of it: after a jump leases are judged again before so many renewals are over.
RENEWALS = 6

TASKS = {
    "quick": "name: Q\nprocess: scripts.work.Quick\nworker_nums: 4\nsize: 9999\nevent: {success: scripts.work.tell}\n",
    "again": "name: A\nprocess: scripts.work.Again\nworker_nums: 4\nattempts: 1\nattempt_after: 300ms\n",
    "slow": "name: S\nprocess: scripts.work.Slow\nworker_nums: 2\n",
    "held": "name: H\nprocess: scripts.work.Held\nworker_nums: 2\n",
}
# A start is noted with how far the wall clock is ahead of the one that all processes of a machine share.
SCRIPTS = {
    "work": """
    import time
    from pathlib import Path

    from scripts.witness import note
    from yaotask import current_job

    def start():
        job = current_job()
        note("start", f"{job.task}.{job.id}", job.attempt, time.time() - time.monotonic())

    async def Quick(task_id):
        start()

    async def Again(task_id):
        start()
        if current_job().attempt == 1:
            raise ValueError("not yet")

    def Slow(task_id):
        start()
        time.sleep(1)

    def Held(task_id):
        start()
        while not Path("gate").exists():
            time.sleep(0.02)

    def tell(task_id, response):
        note("told", task_id)
"""
}


class MachineClock(SystemClock):
    """The clock of a machine, which is set while programs go by it; also to be gone by here."""

    def __init__(self, library: Path, ahead: Path) -> None:
        super().__init__()
        self._ahead_of_ours = ahead
        self.environment = {"LD_PRELOAD": str(library), "CLOCK_AHEAD": str(ahead)}
        self.ahead = 0
        ahead.write_bytes(struct.pack("q", 0))

    def set(self, ahead: int) -> None:
        """From now on it is so many seconds ahead."""
        self.ahead = ahead
        # In one write, of a file that stays as it is.
        with self._ahead_of_ours.open("r+b") as file:
            file.write(struct.pack("q", ahead))

    def now(self) -> int:
        return super().now() + self.ahead * SECOND


@pytest.fixture
def machine_clock(servers: Servers) -> Iterator[Callable[[str], MachineClock]]:
    """Makes clocks. They are where a server may look too that runs as another user."""
    place = Path(tempfile.mkdtemp(prefix="clocks-", dir=servers.folder))
    place.chmod(0o711)
    library = compiled("jumping_clock", place)
    yield lambda name: MachineClock(library, place / name)
    shutil.rmtree(place)


@pytest.fixture(autouse=True)
def its_own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tests let servers tell a time that they can move."""
    monkeypatch.setattr(opening, "dialect_of", choice.dialect_of)


def make(tmp_path: Path, name: str, database: Database) -> Path:
    return folder(tmp_path, name, database, tasks=TASKS, scripts=SCRIPTS, settings=BRISK + "poll: 200ms\n")


# --- what is seen ----------------------------------------------------------------------------------------


def starts(*roots: Path) -> Counter[str]:
    """How often each attempt of each job was started: the job's name and the number of the attempt."""
    return Counter(line.rpartition(" ")[0] for line in noted("start", *roots))


def seen_ahead(root: Path) -> int:
    """By how many seconds the clock is ahead of ours, as the handler saw it that was started last."""
    last = notes(root, "start")[-1].split()[-1]
    return round(float(last) - (time.time() - time.monotonic()))


def goes_by(root: Path, clock: MachineClock, load: Load) -> bool:
    """Whether the last handler there went by this clock; else there is more to do."""
    is_so = seen_ahead(root) == clock.ahead
    if not is_so:
        load.add("quick")
    return is_so


def renewals(app: App) -> dict[int, str]:
    """When each process has renewed its lease."""
    return {process["key"]: process["renewed_at"] for process in app.workers()}


def keep_leases(app: App) -> None:
    """Wait until leases are judged again after a jump, and some more."""
    for _ in range(RENEWALS):
        before = renewals(app)
        until(lambda before=before: all(at != before.get(key) for key, at in renewals(app).items()))  # type: ignore[misc]


@contextmanager
def two_nodes(app: App, *machines: tuple[Path, Mapping[str, str]]) -> Iterator[list[Program]]:
    """Two nodes of a store, on these machines: the folder and the environment of each. They begin together."""
    app.upgrade_store()
    with ExitStack() as stack:
        nodes = [stack.enter_context(started(root, ["-m", "yaotask", "run"], clock)) for root, clock in machines]
        for node in nodes:
            node.says("services is up")
        yield nodes


def end(*nodes: Program) -> None:
    for node in nodes:
        node.signal(signal.SIGTERM)
    assert [node.status() for node in nodes] == [0] * len(nodes)


class Load:
    """Jobs that are added some at a time, and how they are to come out."""

    COUNTS: Mapping[str, int] = {"quick": 40, "again": 3, "slow": 2}
    ATTEMPTS: Mapping[str, int] = {"quick": 1, "again": 2, "slow": 1}

    def __init__(self, app: App) -> None:
        self._app = app
        self.ids: dict[str, list[int]] = {task: [] for task in self.COUNTS}

    def add(self, *tasks: str) -> None:
        """Some of these tasks, or of all."""
        for task in tasks or self.COUNTS:
            self.ids[task] += self._app.tasks[task].add_many([[]] * self.COUNTS[task])

    @property
    def count(self) -> int:
        return sum(map(len, self.ids.values()))

    @property
    def starts(self) -> dict[str, int]:
        """Each attempt of each job, once."""
        wanted = {task: range(1, most + 1) for task, most in self.ATTEMPTS.items()}
        return {f"{task}.{id} {attempt}": 1 for task in wanted for id in self.ids[task] for attempt in wanted[task]}

    @property
    def told(self) -> dict[str, int]:
        return {str(id): 1 for id in self.ids["quick"]}


# --- nodes -----------------------------------------------------------------------------------------------


def test_clocks_of_nodes_that_jump_and_are_minutes_apart_give_no_job_to_another_worker(
    tmp_path: Path, database: Database, machine_clock: Callable[[str], MachineClock]
) -> None:
    a, first = make(tmp_path, "a", database), machine_clock("first")
    # One machine has one clock, and on SQLite that is the store's clock too.
    b, second = (make(tmp_path, "b", database), machine_clock("second")) if database.is_server else (a, first)
    machines = {a: first, b: second}
    apart = {first: 0, second: MINUTES}
    with App(a, clock=SystemClock() if database.is_server else first) as app:
        load = Load(app)
        load.add()
        with two_nodes(app, (a, first.environment), (b, second.environment)) as nodes:
            processes = set(renewals(app))
            # What is to be tried again at a time goes by the store's clock: once more it comes to where it was.
            for ahead in (HOUR, 0, HOUR):
                load.add()
                for clock, minutes in apart.items():
                    clock.set(ahead + minutes)
                load.add()
                keep_leases(app)
                for root, clock in machines.items():
                    until(partial(goes_by, root, clock, load))
            all_succeed(app, load.count)
            until(lambda: len(noted("told", *machines)) >= len(load.told))
            left = set(renewals(app))
            end(*nodes)

    assert starts(*machines) == load.starts
    assert Counter(noted("told", *machines)) == load.told
    assert left == processes
    for node in nodes:
        # The clock of a server has not jumped.
        assert len(lines_with(node, "the clock has jumped")) == (0 if database.is_server else 3)
    for root in machines:
        nothing_left(root)


# --- the server ------------------------------------------------------------------------------------------


def stored_ahead(app: App, load: Load) -> int:
    """By how many seconds the store's clock is ahead of ours, as it says of a job that is added."""
    load.add("quick")
    added = app.get(f"quick.{load.ids['quick'][-1]}")["created_at"]
    return round(datetime.fromisoformat(added).timestamp() - time.time())


def held(root: Path) -> int:
    """How many jobs that are held were started there."""
    return sum(note.startswith("held.") for note in notes(root, "start"))


# PyMySQL leaves a socket to the garbage collector where nobody listens at the other end.
@pytest.mark.filterwarnings("ignore:.*socket:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
@pytest.mark.parametrize("server", list(SERVERS), indirect=True)
def test_a_servers_clock_that_jumps_gives_no_job_to_another_worker_and_hides_no_death(
    tmp_path: Path, server: OwnServer, machine_clock: Callable[[str], MachineClock]
) -> None:
    database, clock = server.database(), machine_clock("server")
    server.environment |= clock.environment
    server.restart(gently=False)
    a, b = make(tmp_path, "a", database), make(tmp_path, "b", database)
    with App(a) as app, two_nodes(app, (a, {}), (b, {})) as (one, two):
        load, processes = Load(app), set(renewals(app))
        for ahead in (HOUR, 0):
            load.add()
            clock.set(ahead)
            load.add()
            keep_leases(app)
            until(lambda ahead=ahead: stored_ahead(app, load) == ahead)  # type: ignore[misc]
        left, harmed = set(renewals(app)), {job: count for job, count in starts(a, b).items() if count > 1}

        # A worker, whose own node sees its death.
        app.tasks["held"].add_many([[]] * 4)
        until(lambda: held(a) == held(b) == 2)
        send(signal.SIGKILL, workers(two)["worker 1"])
        died = time.monotonic()
        until(lambda: held(b) == 4)
        worker_took = time.monotonic() - died

        # A node, which says nothing more.
        (b / "gate").touch()
        send(signal.SIGSTOP, one.process.pid, *members(one).values())
        died = time.monotonic()
        until(lambda: held(b) == 6)
        node_took = time.monotonic() - died
        one.kill()

        # The time comes for what was to be tried again at a time by the clock before.
        clock.set(HOUR)
        all_succeed(app, load.count + 4)
        end(two)

    assert (left, harmed) == (processes, {})
    assert lines_with(two, "the clock has jumped forward by 1h")
    assert lines_with(two, "the clock has jumped back by 1h")
    assert worker_took < DEATH_SEEN + SLACK
    assert node_took < LEASE + 5 + SLACK
    nothing_left(b)
