"""Nodes entered into a store by hand, as their supervisors would enter and renew them."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import transitions
from store_support import URL, behind, connected

from yaotask.clock import SECOND, SystemClock
from yaotask.store.locks import Lock
from yaotask.store.opening import place

PROCESS = """
    INSERT INTO yaotask_workers
        (key, incarnation, host, pid, kind, node, number, started_at, renewed_at, expires_at, info)
    VALUES (:key, :incarnation, :host, :pid, :kind, :node, :number, :started_at, :renewed_at, :expires_at, :info)
"""
LOCK = """
    UPDATE yaotask_workers SET host = :host, lock_path = :lock_path, lock_device = :lock_device,
        lock_inode = :lock_inode, boot_id = :boot_id
    WHERE key = :key
"""
CLAIM = """
    UPDATE yaotask_jobs SET state = 1, attempt = 1, fence = fence + 1, worker = :worker, claimed_at = :claimed_at,
        started_at = :started_at
    WHERE task = :task AND id = :id
"""
HOST = "build-1"


class Fleet:
    """The processes in the store of a project. Times are seconds before `now`, which stands still."""

    def __init__(self, root: Path, now: int | None = None, url: str = URL) -> None:
        self.now = SystemClock().now() if now is None else now
        self._place = place(root, url)

    def enter(
        self,
        key: int,
        kind: str = "worker",
        *,
        age: float = 60,
        renewed: float = 2,
        lease: float | None = 30,
        **more: Any,
    ) -> None:
        """Enter a process of another machine. What is not a column is what its supervisor told of it."""
        columns = {name: more.pop(name, usual) for name, usual in {"host": HOST, "node": None, "number": None}.items()}
        self.execute(
            PROCESS,
            key=key,
            incarnation=more.pop("incarnation", f"{key:032x}"),
            pid=1_000 + key,
            kind=kind,
            started_at=self.before(age),
            renewed_at=self.before(renewed),
            expires_at=None if lease is None else self.before(renewed - lease),
            info=json.dumps(more) if more else None,
            **columns,
        )

    def node(self, key: int = 1, workers: int = 1, **more: Any) -> None:
        """A supervisor, and its workers after it; `more` is told of each worker."""
        self.enter(key, "supervisor", version="0.1.0", state="working", beat=0)
        for number in range(workers):
            self.enter(key + 1 + number, node=key, number=number, **{"state": "working", "beat": 0.5, **more})

    def lock(self, key: int, lock: Lock) -> None:
        """Let a process be one of this machine, that holds a lock."""
        self.execute(LOCK, key=key, host=socket.gethostname(), **lock.row())

    def claim(self, id: int, worker: int, *, task: str = "mail", since: float = 3, started: bool = True) -> None:
        """Let a worker have a job that was added, though not in the way that jobs are claimed."""
        with connected(self._place) as connection:
            transitions.release(connection)
        moment = self.before(since)
        started_at = moment if started else None
        self.execute(CLAIM, task=task, id=id, worker=worker, claimed_at=moment, started_at=started_at)

    def before(self, seconds: float) -> int:
        return self.now - round(seconds * SECOND)

    def execute(self, statement: str, **values: Any) -> None:
        behind(self._place, statement, **values)
