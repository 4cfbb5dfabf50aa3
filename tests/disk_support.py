"""A program on a disk that is not to be trusted: how it is run, and whether all that it was told is still true.

What the disks do is in powerloss.c and failing_sync.c, what the program does in disk_program.py.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from run_support import PATIENCE
from store_support import URL

from yaotask import App
from yaotask.store import verifying
from yaotask.store.opening import place

HERE = Path(__file__).parent
FILES = ("yaotask.db", "yaotask.db-wal")
MOST_ROUNDS = 1000
# What a disk writes whole or not at all.
SECTOR = 512

TASKS = {
    "mail": "{name: Mail, process: scripts.work.Mail, worker_nums: 4, attempts: 50, attempt_after: 0}",
    "pay": "{name: Pay, process: scripts.work.Pay, worker_nums: 4, attempts: 50, attempt_after: 0}",
}
SCRIPTS = {
    "work": """
        from sqlalchemy import text
        from yaotask import current_job

        async def Mail(task_id):
            return task_id

        def Pay(task_id):
            with current_job().transaction() as connection:
                connection.execute(text("CREATE TABLE IF NOT EXISTS paid (id INTEGER)"))
                connection.execute(text("INSERT INTO paid VALUES (:id)"), {"id": task_id})
    """
}


@dataclass
class Told:
    """What the program had been told, by the lines that it wrote."""

    added: dict[str, set[int]] = field(default_factory=lambda: {task: set() for task in TASKS})
    ended: dict[str, set[int]] = field(default_factory=lambda: {task: set() for task in TASKS})
    # The errors of adds, by task and key.
    failed: dict[tuple[str, str], str] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Told:
        told = cls()
        for line in path.read_text().splitlines():
            match line.split():
                case ["added", _, task, id]:
                    told.added[task].add(int(id))
                case ["ended", task, id]:
                    told.ended[task].add(int(id))
                case ["failed", key, task, error]:
                    told.failed[task, key] = error
        return told


class Disk:
    """The folder of a disk, and the project whose store is on it."""

    def __init__(self, root: Path, folder: Path, seed: int) -> None:
        self.root = root
        self.folder = folder
        self.told = folder / "told"
        self._seed = seed
        for kept in ("kept", "cuts"):
            (folder / kept).mkdir(parents=True)
        self.told.touch()

    def run(
        self, *disks: Path, cuts: int = 0, failures: int = 0, rounds: int = MOST_ROUNDS, synchronous: str = ""
    ) -> None:
        """Let the program run to its end on these disks, the outermost first."""
        order = {
            "root": str(self.root),
            "told": str(self.told),
            "enough": str(self.folder / "enough"),
            "rounds": rounds,
            "failures": failures,
            "seed": self._seed,
            "synchronous": synchronous,
        }
        environment = {
            **os.environ,
            "LD_PRELOAD": " ".join(map(str, disks)),
            "DISK": str(self.folder),
            "DISK_STORE": str(self.root / ".yaotask"),
            "DISK_TOLD": str(self.told),
            "DISK_SEED": str(self._seed),
            "DISK_CUTS": str(cuts),
        }
        command = [sys.executable, str(HERE / "disk_program.py")]
        subprocess.run(command, input=json.dumps(order), env=environment, text=True, check=True, timeout=PATIENCE)

    @property
    def cuts(self) -> list[Path]:
        return sorted((self.folder / "cuts").iterdir(), key=lambda cut: int(cut.name))

    def power_on(self, kept: Path) -> None:
        """The disk holds what was kept of it, and nothing else."""
        store = self.root / ".yaotask"
        shutil.rmtree(store, ignore_errors=True)
        shutil.copytree(kept, store)

    def power_on_torn(self, cut: Path, random: Random) -> None:
        """The disk holds what was kept, and any part of what was written after that."""
        self.power_on(cut / "kept")
        for name in FILES:
            written = cut / "written" / name
            if written.exists():
                file = self.root / ".yaotask" / name
                kept = file.read_bytes() if file.exists() else b""
                file.write_bytes(torn(kept, written.read_bytes(), random))


def torn(kept: bytes, written: bytes, random: Random) -> bytes:
    """Of each sector the one or the other, where both are there."""
    size = len(random.choice((kept, written)))
    sectors = []
    for at in range(0, size, SECTOR):
        both = [content[at : at + SECTOR] for content in (kept, written)]
        sectors.append(random.choice([sector for sector in both if sector]))
    return b"".join(sectors)[:size]


def broken_promises(root: Path, told: Told) -> Iterator[str]:
    """What does not hold in a store, of all that the program had been told; the store is used for it, by yaotask."""
    here = place(root, URL)
    yield from (fault.what for fault in verifying.verify(here, tuple(TASKS)) or [])
    with App(root) as app:
        for task in TASKS:
            status = app.status(task, sorted(told.added[task]))
            yield from (f"{task}.{id} is missing" for id in told.added[task] - status.keys())
            ended = told.ended[task] & status.keys()
            yield from (f"{task}.{id} is {status[id]} again" for id in ended if status[id] != "SUCCESS")
        new = app.tasks["mail"].add()
        if new in told.added["mail"]:
            yield f"mail.{new} is no new job"
    with closing(sqlite3.connect(str(here.file))) as connection:
        yield from (line for (line,) in connection.execute("PRAGMA integrity_check") if line != "ok")
        yield from unpaid(connection, told.ended["pay"])


def unpaid(connection: sqlite3.Connection, ended: set[int]) -> Iterator[str]:
    """A handler that ended well has paid once; one that did not, has not."""
    counted = dict[int, int]()
    if connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'paid'").fetchone():
        counted = dict(connection.execute("SELECT id, count(*) FROM paid GROUP BY id"))
    succeeded = {id for (id,) in connection.execute("SELECT id FROM yaotask_jobs WHERE task = 'pay' AND state = 2")}
    yield from (f"pay.{id} has paid {times} times" for id, times in counted.items() if times != 1)
    yield from (f"pay.{id} has ended and not paid, or paid and not ended" for id in succeeded ^ counted.keys())
    yield from (f"pay.{id} has not paid" for id in ended - counted.keys())
