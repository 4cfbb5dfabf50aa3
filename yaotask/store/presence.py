"""Who is alive: each worker holds a file lock for life, and whoever finds it free knows that it died."""

from __future__ import annotations

import fcntl
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yaotask.events import ERROR_BIT, RETRY_BIT, EventKind
from yaotask.jobs import Failure
from yaotask.store import rows, statements
from yaotask.store.cycle import SqlCycle
from yaotask.values import dumps

# So many deaths of any kind end a job that is always there when its worker dies.
MOST_DEATHS = 20

# Claims of a dead worker that one cycle takes back.
MOST_REAPED = 500


@dataclass(slots=True)
class Lock:
    """A lock file that this process holds until it ends, however it ends."""

    path: Path
    handle: int

    @classmethod
    def take(cls, folder: Path, incarnation: str) -> Lock:
        """Make and hold the lock of a new incarnation."""
        folder.mkdir(mode=0o700, exist_ok=True)
        path = folder / f"{incarnation}.lock"
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return cls(path, handle)

    def release(self) -> None:
        """Let go: for an ordered end, after everything was handed back."""
        self.path.unlink(missing_ok=True)
        os.close(self.handle)

    def row(self) -> dict[str, Any]:
        """How others find this lock again, and can tell it from one of the same name."""
        status = os.fstat(self.handle)
        return {
            "lock_path": str(self.path.resolve()),
            "lock_device": status.st_dev,
            "lock_inode": status.st_ino,
            "boot_id": boot_id(),
        }


def boot_id() -> str | None:
    """Which start of this machine we are in, where the system tells."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None


def is_dead(worker: Any) -> bool:
    """Whether a row of the workers table belongs to a process that has certainly ended.

    Only what can be proved counts: the same machine, and either another start of it, or the very
    lock file, free. A lock that is gone proves nothing by itself unless its process is gone too.
    """
    if worker.host != socket.gethostname() or worker.lock_path is None:
        return False
    if worker.boot_id != boot_id():
        return True
    try:
        handle = os.open(worker.lock_path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return not _process_exists(worker.pid)
    except OSError:
        return False
    try:
        status = os.fstat(handle)
        if (status.st_dev, status.st_ino) != (worker.lock_device, worker.lock_inode):
            return not _process_exists(worker.pid)
        return _is_free(handle)
    finally:
        os.close(handle)


def _is_free(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _process_exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def register(cycle: SqlCycle, incarnation: str, lock: Lock) -> int:
    """Enter a new worker; the answer is the key that its claims will carry."""
    values = {"incarnation": incarnation, "host": socket.gethostname(), "pid": os.getpid(), "now": cycle.now}
    return int(cycle.execute(statements.REGISTER_WORKER, **values, **lock.row()).scalar_one())


def leave(cycle: SqlCycle, worker: int) -> int:
    """Take a worker out, its unfinished claims handed back (T10); how many those were."""
    handed_back = cycle.execute(statements.HAND_BACK, worker=worker, now=cycle.now).rowcount
    cycle.execute(statements.RELEASE_EVENTS_OF, worker=worker)
    cycle.execute(statements.DELETE_WORKER, worker=worker)
    return handed_back


@dataclass(frozen=True, slots=True)
class Lost:
    """A job whose worker died, and whether that was once too often."""

    name: str
    worker: str
    poisoned: bool


def reap(cycle: SqlCycle, worker: int) -> list[Lost]:
    """Take back the claims of every other worker that has died (T7), some at a time."""
    lost: list[Lost] = []
    for other in cycle.execute(statements.OTHER_WORKERS, worker=worker).all():
        if not is_dead(other):
            continue
        cycle.execute(statements.RELEASE_EVENTS_OF, worker=other.key)
        cycle.harvest.wrote_events = True
        claims = cycle.execute(statements.CLAIMS_OF, worker=other.key, most=MOST_REAPED).all()
        lost += [_lose(cycle, claim, other) for claim in claims]
        if len(claims) < MOST_REAPED:
            cycle.execute(statements.DELETE_WORKER, worker=other.key)
            if other.lock_path:
                Path(other.lock_path).unlink(missing_ok=True)
    return lost


def _lose(cycle: SqlCycle, claim: Any, worker: Any) -> Lost:
    poisoned = claim.deaths + 1 >= MOST_DEATHS
    name = f"{claim.task}.{claim.id}"
    message = f"its worker (process {worker.pid} on {worker.host}) died while it had the job"
    failure = Failure("WorkerLost", message)
    if poisoned:
        failure = Failure("PoisonedJob", f"{MOST_DEATHS} workers died while they had the job; the last: {message}")
        cycle.execute(statements.POISON, key=claim.key, fence=claim.fence, now=cycle.now, error=failure.message)
    else:
        ready = None if claim.events & RETRY_BIT else cycle.now
        cycle.execute(
            statements.LOSE, key=claim.key, fence=claim.fence, now=cycle.now, ready_at=ready, error=failure.message
        )
        cycle.harvest.woken.add(claim.task)
    _record(cycle, claim, failure, worker.key, poisoned)
    return Lost(name, worker.incarnation, poisoned)


def _record(cycle: SqlCycle, claim: Any, failure: Failure, worker: int, poisoned: bool) -> None:
    started, word = claim.started_at, "failure" if poisoned else "lost"
    row = [claim.key, claim.fence, claim.generation, claim.attempt, word, started, cycle.now]
    attempt = [*row, failure.type, failure.message, None]
    cycle.insert_attempts([attempt], worker)
    told = rows.told(failure)
    if poisoned and claim.events & ERROR_BIT:
        cycle.insert_events([rows.event(claim.key, claim.task, claim.id, EventKind.ERROR, dumps([told]))])
    if not poisoned and claim.events & RETRY_BIT:
        data = dumps([told, claim.attempt, 0])
        cycle.insert_events([rows.event(claim.key, claim.task, claim.id, EventKind.RETRY, data)])
