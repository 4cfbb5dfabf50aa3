"""What every benchmark uses: a fresh project each time, child processes that measure, rows of the table."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import project
from databases import Databases

T = TypeVar("T")

CHILD = Path(__file__).with_name("child.py")
# In seconds; a child that takes longer hangs.
PATIENCE = 600


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: a figure from each run, and what we aim for on the machines of its kind."""

    what: str
    unit: str
    samples: Sequence[float]
    aim: str = ""


class Bench:
    """How much to measure, and where."""

    def __init__(self, folder: Path, databases: Databases, *, quick: bool = False) -> None:
        self.folder = folder
        self.databases = databases
        self.quick = quick
        self.runs = 1 if quick else 5

    @property
    def kind(self) -> str:
        """The database: `sqlite`, `postgresql` or `mysql`."""
        return self.databases.kind

    @property
    def on_server(self) -> bool:
        return self.kind != "sqlite"

    def pick(self, full: T, quick: T) -> T:
        """The amount for a real run, or the one that only shows that all works."""
        return quick if self.quick else full

    def aim(self, sqlite: str, postgresql: str = "", mysql: str = "") -> str:
        """What we aim for on this database."""
        return {"sqlite": sqlite, "postgresql": postgresql, "mysql": mysql}[self.kind]

    def project(self) -> Path:
        """The root of a new project with an empty store."""
        store = self.databases.new()
        return self._project({"store": store} if store else {})

    def node(self, root: Path, **settings: object) -> Path:
        """The same project as another machine has it: it shares the store, which is on a server, and nothing else."""
        return self._project({"store": project.address(root), **settings})

    def _project(self, settings: dict[str, object]) -> Path:
        root = Path(tempfile.mkdtemp(dir=self.folder))
        project.write(root, settings)
        return root

    def repeat(self, measure: Callable[[], T]) -> list[T]:
        """What each run measured."""
        return [measure() for _ in range(self.runs)]


def measure(function: Callable[..., T], root: Path, **arguments: Any) -> T:
    """Call a function of a benchmark in a process of its own; what it returns goes through JSON."""
    return measure_together(function, root, [arguments])[0]


def measure_together(function: Callable[..., T], root: Path, calls: Sequence[dict[str, Any]]) -> list[T]:
    """Make several calls at once, each in a process of its own."""
    processes = [launch(function, root, **arguments) for arguments in calls]
    return [answer(function, process) for process in processes]


def launch(function: Callable[..., Any], root: Path, **arguments: Any) -> subprocess.Popen[str]:
    """Begin such a call."""
    given = json.dumps({"root": str(root), **arguments})
    command = [sys.executable, str(CHILD), function.__module__, function.__name__, given]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def answer(_function: Callable[..., T], process: subprocess.Popen[str]) -> T:
    """What a call returns that was begun."""
    try:
        written, _ = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()  # which does nothing once it has ended
    assert process.returncode == 0, f"{_function.__name__} failed"
    result: T = json.loads(written)
    return result


def yaotask(*arguments: str) -> list[str]:
    """The command line of our program, as it is installed beside this Python."""
    return [str(Path(sys.executable).with_name("yaotask")), *arguments]


@contextmanager
def worker(root: Path) -> Iterator[int]:
    """`yaotask run` for a project, while the block lasts; the process id."""
    log = root / "worker.log"
    with log.open("w") as errors:
        process = subprocess.Popen(yaotask("-a", str(root), "run"), stderr=errors)
    try:
        yield process.pid
        process.terminate()
        status = process.wait(timeout=60)
    finally:
        process.kill()  # which does nothing once it has ended
    assert status == 0, log.read_text()


# How a node starts its processes, in this and in older versions.
_PROGRAM = re.compile(r" -m (?:yaotask\.launch )?yaotask\.(\w+)")


def members(node: int) -> dict[str, int]:
    """The processes of a node, itself included: their numbers by the last part of their module, or `supervisor`."""
    listed = subprocess.run(["/bin/ps", "-A", "-o", "pid=,ppid=,args="], stdout=subprocess.PIPE, text=True, check=True)
    found = {"supervisor": node}
    for line in listed.stdout.splitlines():
        pid, parent, command = line.split(maxsplit=2)
        program = _PROGRAM.search(command)
        if int(parent) == node and program:
            found[program[1]] = int(pid)
    return found


def memory(pid: int) -> float:
    """Real memory that a process holds, in MB."""
    command = ["/bin/ps", "-o", "rss=", "-p", str(pid)]
    return int(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout) / 1_024


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has used, as Linux tells it."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
