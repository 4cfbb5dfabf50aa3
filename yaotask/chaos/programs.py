"""The nodes and callers of a run: programs in folders of their own, started, stopped, and killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, NamedTuple

from yaotask.clock import Clock
from yaotask.processes import program_of
from yaotask.runtime.ward import GIVEN_UP
from yaotask.store.ledger_thread import DEATH

LOOK = 0.02
# Seconds that a process which was killed has to be gone, and a node to be up or to be over.
BURIAL, BIRTH, END = 20.0, 60.0, 30.0
# The status with which `yaotask run` ends where its store is out of reach as it begins.
NO_STORE = 4


# Bound to its parent, a process becomes what it is to be.
_LEASH = """
import os, sys
from yaotask.processes import die_with
die_with(int(sys.argv[1]))
os.execv(sys.argv[2], sys.argv[2:])
"""


class Nursery:
    """Starts processes that die with this one, however it ends, and at the latest when it is closed.

    The system has them die with the thread that has started them, so that it is one thread for all.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "yaotask-nursery")

    def start(self, command: Sequence[str], folder: Path, log: IO[bytes]) -> subprocess.Popen[bytes]:
        """A process in a session of its own. Raises OSError."""
        leashed = [sys.executable, "-c", _LEASH, str(os.getpid()), *command]
        begun = self._thread.submit(
            subprocess.Popen,
            leashed,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        process: subprocess.Popen[bytes] = begun.result()
        return process

    def close(self) -> None:
        """More than once is fine."""
        self._thread.shutdown()


class Program:
    """A program of the run, in a session of its own. It is up once it says so: `ready` is what it says then."""

    def __init__(self, folder: Path, command: Sequence[str], ready: str, clock: Clock, nursery: Nursery) -> None:
        self.folder = folder
        self.clock = clock
        self._command = [sys.executable, *command]
        self._ready = ready
        self._nursery = nursery
        self._log = folder / "log.txt"
        self._process: subprocess.Popen[bytes] | None = None
        # Where in its log this life begins.
        self._birth = 0
        # How it ended by itself, each time that it should not have.
        self.falls: list[str] = []
        # Held by whoever does something to it.
        self.busy = threading.Lock()

    @property
    def pid(self) -> int:
        return self._begun.pid

    @property
    def _begun(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError(f"{self.folder.name} was not started yet")
        return self._process

    def start(self) -> None:
        """Begin, and wait until it is up, or has ended."""
        self.begin()
        self.come_up()

    def begin(self) -> None:
        """Without waiting; what it says is added to its log."""
        with self._log.open("ab") as log:
            self._birth = log.tell()
            self._process = self._nursery.start(self._command, self.folder, log)

    def come_up(self) -> None:
        """Wait until it is up, or has ended."""
        until(lambda: self.is_up() or self.has_ended(), BIRTH, self.clock)

    def is_up(self) -> bool:
        """Whether it goes on, and has said that it is up."""
        return not self.has_ended() and self._ready in self.said(self._birth)

    def revive(self) -> None:
        """Begin one again that has ended by itself, as whoever keeps services would; not while it is in other hands."""
        if not self.busy.acquire(blocking=False):
            return
        try:
            if self.has_ended():
                self.note_fall()
                self.begin()
        finally:
            self.busy.release()

    def note_fall(self) -> None:
        """It has ended, and nobody had asked it to."""
        self.falls.append(f"{self.folder.name} ended by itself with {self.status()}: see its log")

    def status(self, patience: float = END) -> int | None:
        """Wait for its end; the exit status, None where it goes on."""
        try:
            return self._begun.wait(patience)
        except subprocess.TimeoutExpired:
            return None

    def defects(self) -> list[str]:
        """What was wrong with it in all its lives, unless somebody did it on purpose."""
        died = [f"a ledger of {self.folder.name} died: see its log"] if DEATH in self.said() else []
        return [*self.falls, *died]

    def must_end(self, patience: float = END) -> str:
        """Wait for the end of one that was asked to; one that goes on is killed. What was wrong with it, in words."""
        status = self.status(patience)
        if status is None:
            self.clear_away()
            return f"went on for {patience:g} s after it was asked to end, and was killed"
        return f"ended with {status} when it was asked to" if status else ""

    def has_ended(self) -> bool:
        return self._begun.poll() is not None

    def signal(self, number: signal.Signals) -> None:
        send(number, [self.pid])

    def kill(self) -> list[int]:
        """SIGKILL to it alone, and the numbers of all that are dead now: it, and what died with it."""
        family = [self.pid, *(process.pid for process in descendants(self.pid))]
        self.signal(signal.SIGKILL)
        self.status(BURIAL)
        return buried(family, self.clock)

    def clear_away(self) -> None:
        """See that it has ended, if it was ever started; in any way."""
        if self._process is not None and self._process.poll() is None:
            send(signal.SIGCONT, [self.pid])
            self.kill()

    def said(self, since: int = 0) -> str:
        """Its log, of all its lives, or from a byte on."""
        with self._log.open("rb") as log:
            log.seek(since)
            return log.read().decode(errors="replace")


class Node(Program):
    """`yaotask run` of one folder; its store may be away where it is `far`, on a server."""

    def __init__(self, folder: Path, processes: int, clock: Clock, nursery: Nursery, *, far: bool = False) -> None:
        command = ["-m", "yaotask", "run", "--processes", str(processes)]
        super().__init__(folder, command, "running; ", clock, nursery)
        self._far = far

    def note_fall(self) -> None:
        """See Program. A node may give up as it begins, where its store is away, or where its workers never begin."""
        said = self.said(self._birth)
        is_cut_off = self._far and self._ready not in said and self.status() == NO_STORE
        if not is_cut_off and GIVEN_UP not in said:
            super().note_fall()

    def family(self) -> list[int]:
        """Its supervisor first, then all that it has started."""
        return [self.pid, *(process.pid for process in descendants(self.pid))]

    def members(self, kind: str) -> list[int]:
        """Its processes of a kind: worker, services, or child."""
        return [process.pid for process in descendants(self.pid) if process.kind == kind]


def until(is_so: Callable[[], bool], patience: float, clock: Clock) -> bool:
    """Look again and again; whether it came to be so in time."""
    deadline = clock.monotonic() + patience
    while not is_so():
        if clock.monotonic() > deadline:
            return False
        clock.pause(LOOK)
    return True


def send(number: signal.Signals, pids: Sequence[int]) -> list[int]:
    """A signal to each of these that is still there; those."""
    reached = []
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue
        reached.append(pid)
    return reached


def buried(pids: Sequence[int], clock: Clock) -> list[int]:
    """Those of these that are dead, once all are, or have had their time."""

    def dead() -> list[int]:
        now = table()
        return [pid for pid in pids if pid not in now or now[pid].is_dead]

    until(lambda: len(dead()) == len(pids), BURIAL, clock)
    return dead()


# --- what the system knows of processes -----------------------------------------------------------------


class Process(NamedTuple):
    """A line of `ps`, which all Unix systems have."""

    pid: int
    parent: int
    state: str
    words: str

    @property
    def is_dead(self) -> bool:
        """It has ended, though nobody has waited for it yet."""
        return self.state[:1] in ("Z", "X")

    @property
    def kind(self) -> str:
        """Which of ours it is: worker, services, child."""
        return program_of(self.words)


def table() -> dict[int, Process]:
    """All processes of the machine, by their numbers."""
    command = ["ps", "-ww", "-A", "-o", "pid=,ppid=,stat=,args="]
    shown = subprocess.run(command, capture_output=True, text=True, errors="replace", check=True).stdout  # noqa: S603
    found = (line.split(maxsplit=3) for line in shown.splitlines())
    return {int(words[0]): Process(int(words[0]), int(words[1]), words[2], "".join(words[3:])) for words in found}


def descendants(pid: int) -> list[Process]:
    """All that a process has started, and what those have."""
    now = table()
    found: list[Process] = []
    parents = {pid}
    while parents:
        children = [process for process in now.values() if process.parent in parents]
        found += children
        parents = {child.pid for child in children}
    return [process for process in found if not process.is_dead]


def working_in(folder: Path) -> list[str]:
    """The processes whose command lines name a folder, or something below it."""
    return [process.words for process in table().values() if str(folder) in process.words and not process.is_dead]
