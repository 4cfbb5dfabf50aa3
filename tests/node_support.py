"""What tests of whole nodes need: their processes by name, what is left of them, and what they say."""

from __future__ import annotations

import os
import signal
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

from run_support import Program, until

# A second of monotonic clocks, which all processes of a machine share, in the notes of handlers.
STAMPED = """
    import os
    import time
    from pathlib import Path

    from scripts.witness import note

    def Hold(task_id):
        note("start", task_id, os.getpid(), time.monotonic())
        while not Path("gate").exists():
            time.sleep(0.02)
        note("end", task_id)
"""


def processes(folder: Path) -> dict[int, list[str]]:
    """Every living process that works in a folder, or below it: its number, and its command line."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and _works_in(entry, folder.resolve()):
            found[int(entry.name)] = _words(entry)
    return found


def members(run: Program) -> dict[str, int]:
    """The processes that a supervisor has now, by the name that `ps` shows: `worker 1`, `services`."""
    return {words[-1].partition(" of ")[0]: pid for pid, words in _started_by(run.process.pid)}


def workers(run: Program) -> dict[str, int]:
    """Of these, the workers."""
    return {name: pid for name, pid in members(run).items() if name.startswith("worker")}


def is_up(run: Program, pid: int) -> bool:
    """Whether a process has come to work."""
    return f"is up (process {pid})" in run.errors


def replaced(run: Program, name: str, pid: int) -> int:
    """Wait until another process has come to work in the place of one; its number."""
    return until(lambda: next((new for new in _others(run, name, pid) if is_up(run, new)), 0))


def _others(run: Program, name: str, pid: int) -> Iterator[int]:
    now = members(run).get(name, pid)
    if now != pid:
        yield now


def has_ended(pid: int) -> bool:
    """Whether a process has; it may still be waited for by nobody."""
    try:
        return ") Z " in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True


def send(number: signal.Signals, *pids: int) -> None:
    """A signal to each of these."""
    for pid in pids:
        os.kill(pid, number)


def stop(pids: Sequence[int], file: Path | None) -> bool:
    """Stop processes, but not in the middle of a transaction, which on SQLite keeps everybody from writing.

    Whether they stand still now.
    """
    send(signal.SIGSTOP, *pids)
    until(lambda: all(") T " in Path(f"/proc/{pid}/stat").read_text() for pid in pids))
    if file is None or not _is_locked(file):
        return True
    send(signal.SIGCONT, *pids)
    return False


def _is_locked(file: Path) -> bool:
    with closing(sqlite3.connect(file, timeout=0, isolation_level=None)) as connection:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return True
    return False


def lines_with(run: Program, text: str) -> list[str]:
    """The lines of its log that say this."""
    return [line for line in run.errors.splitlines() if text in line]


def nothing_left(root: Path) -> None:
    """Wait until no process of a project is left; no lock, socket or other file of one may be."""
    until(lambda: not processes(root.parent))
    folder = root / ".yaotask" / "workers"

    assert not folder.exists() or not list(folder.iterdir())


def _works_in(entry: Path, folder: Path) -> bool:
    try:
        return entry.joinpath("cwd").readlink().is_relative_to(folder)
    except OSError:
        # Gone meanwhile, or waited for by nobody yet, or none of ours.
        return False


def _words(entry: Path) -> list[str]:
    try:
        return entry.joinpath("cmdline").read_bytes().decode().rstrip("\0").split("\0")
    except OSError:
        return [""]


def _started_by(parent: int) -> Iterator[tuple[int, list[str]]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            words = _words(entry)
            # A process names its parent itself; until it does, it is still a copy of that.
            if any(word.startswith("yaotask.") for word in words) and words[-2:-1] == [str(parent)]:
                yield int(entry.name), words
