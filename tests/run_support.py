"""Programs of a project in processes of their own: started, watched, and ended by signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from yaotask import App

T = TypeVar("T")

# How long a test waits for what must happen, on a machine that is busy with others.
PATIENCE = 60.0

# A script of the projects: `note` adds a line to the witness file, whole, whoever else writes.
WITNESS = """
    import os

    def note(*words):
        file = os.open("witness", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(file, (" ".join(map(str, words)) + "\\n").encode())
        os.close(file)
"""


TASK = "name: Hold\nprocess: scripts.hold.Hold\n"

# Handlers that note their start, wait for the file `gate`, and note their end.
IN_A_THREAD = """
    import time
    from pathlib import Path

    from scripts.witness import note

    def Hold(task_id):
        note("start", task_id)
        while not Path("gate").exists():
            time.sleep(0.02)
        note("end", task_id)
"""
ON_THE_LOOP = IN_A_THREAD.replace("import time", "import anyio").replace("def Hold", "async def Hold")
ON_THE_LOOP = ON_THE_LOOP.replace("time.sleep", "await anyio.sleep")


def notes(root: Path, word: str) -> list[str]:
    """What handlers and hooks noted after this word, in order: ids mostly."""
    witness = root / "witness"
    lines = witness.read_text().splitlines() if witness.exists() else []
    return [line.removeprefix(f"{word} ") for line in lines if line.startswith(f"{word} ")]


def until(look: Callable[[], T], patience: float = PATIENCE) -> T:
    """What a look saw, once that is true."""
    deadline = time.monotonic() + patience
    while not (seen := look()):
        assert time.monotonic() < deadline, f"not so after {patience:g} s, but {seen}"
        time.sleep(0.01)
    return seen


class Program:
    """A process and what it has said; the head of a process group."""

    def __init__(self, process: subprocess.Popen[bytes], output: Path, errors: Path) -> None:
        self.process = process
        self._output = output
        self._errors = errors

    @property
    def output(self) -> str:
        return self._output.read_text(encoding="utf-8")

    @property
    def errors(self) -> str:
        return self._errors.read_text(encoding="utf-8")

    def says(self, text: str) -> None:
        """Wait until this is on standard error."""
        try:
            until(lambda: text in self.errors)
        except AssertionError:
            raise AssertionError(f"it did not say: {text}\n{self.errors}") from None

    def signal(self, number: signal.Signals = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def status(self, patience: float = PATIENCE) -> int:
        """Wait for its end; the exit status."""
        return self.process.wait(patience)

    def kill(self) -> None:
        """SIGKILL to it and all that it started."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(PATIENCE)


@contextmanager
def started(root: Path, command: Sequence[str], environment: Mapping[str, str] | None = None) -> Iterator[Program]:
    """A Python program in the project's folder, with this added to our environment.

    What is left of it at the end is killed.
    """
    number = len(list(root.parent.glob("*.err")))
    output, errors = root.parent / f"{number}.out", root.parent / f"{number}.err"
    with output.open("wb") as out, errors.open("wb") as err:
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=root,
            env={**os.environ, **(environment or {})},
            stdout=out,
            stderr=err,
            start_new_session=True,
        )
    program = Program(process, output, errors)
    try:
        yield program
    finally:
        program.kill()


@contextmanager
def running(root: Path, *options: str) -> Iterator[Program]:
    """`yaotask run`, once it works."""
    with started(root, ["-m", "yaotask", "run", *options]) as program:
        until(lambda: "running;" in program.errors or program.process.poll() is not None)
        yield program


def drained(root: Path) -> Program:
    """`yaotask run --drain`, after its end with status 0."""
    with running(root, "--drain") as program:
        assert program.status() == 0, program.errors
    return program


def command(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """A command of `yaotask`, after its end."""
    return subprocess.run(
        [sys.executable, "-m", "yaotask", *words], cwd=root, capture_output=True, text=True, timeout=PATIENCE
    )


def add(root: Path, count: int = 1) -> None:
    """Add so many jobs of the task `hold`."""
    with App(root) as app:
        app.tasks["hold"].add_many([[]] * count)


def job(root: Path, id: int = 1) -> dict[str, Any]:
    """A job of the task `hold`."""
    with App(root) as app:
        return app.get(f"hold.{id}")
