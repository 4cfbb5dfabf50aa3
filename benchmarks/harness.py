"""What every benchmark uses: a fresh project each time, child processes that measure, rows of the table."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import project

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

    def __init__(self, folder: Path, *, quick: bool = False) -> None:
        self.folder = folder
        self.quick = quick
        self.runs = 1 if quick else 5

    def pick(self, full: T, quick: T) -> T:
        """The amount for a real run, or the one that only shows that all works."""
        return quick if self.quick else full

    def project(self) -> Path:
        """The root of a new project with an empty store."""
        root = Path(tempfile.mkdtemp(dir=self.folder))
        project.write(root)
        return root

    def repeat(self, measure: Callable[[], T]) -> list[T]:
        """What each run measured."""
        return [measure() for _ in range(self.runs)]


def measure(function: Callable[..., T], root: Path, **arguments: Any) -> T:
    """Call a function of a benchmark in a process of its own; what it returns goes through JSON."""
    given = json.dumps({"root": str(root), **arguments})
    command = [sys.executable, str(CHILD), function.__module__, function.__name__, given]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=PATIENCE, check=True)
    result: T = json.loads(done.stdout)
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
