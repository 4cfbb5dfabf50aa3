"""Questions about those who run jobs: every process that is entered, and what each has in hand."""

from __future__ import annotations

from typing import Any

from sqlalchemy import func, select, text
from sqlalchemy.engine import Connection

from yaotask.store.locks import is_dead
from yaotask.store.pages import Row, read_rows
from yaotask.store.tables import jobs, workers

__all__ = ["Row", "claims", "processes"]


def processes(connection: Connection, now: int) -> list[Row]:
    """Every process that is entered: node by node, as they were started, the supervisor of each first, and its workers
    by number.

    `is_gone` says that it has certainly ended, or that its lease has run out, so that others take its jobs.
    """
    node = func.coalesce(workers.c.node, workers.c.key)
    within = (workers.c.node.is_not(None), workers.c.kind == "services", workers.c.number, workers.c.key)
    of_node = workers.alias()
    # A node that is not there any more has left what is counted with the first.
    since = select(of_node.c.started_at).where(of_node.c.key == node).scalar_subquery()
    query = select(workers).order_by(func.coalesce(since, 0), node, *within)
    return [{**row._mapping, "is_gone": _is_gone(row, now)} for row in connection.execute(query)]


def claims(connection: Connection) -> list[Row]:
    """Every claim: whose it is, and since when its job runs, or is held. The oldest first."""
    columns = [jobs.c[name] for name in ("worker", "task", "id", "claimed_at", "started_at")]
    # A claim has a worker: said, so that the index of what runs is taken whatever statistics say of it.
    running = text("state = 1 AND worker > 0")
    since = func.coalesce(jobs.c.started_at, jobs.c.claimed_at)
    return read_rows(connection, select(*columns).where(running).order_by(since, jobs.c.key))


def _is_gone(process: Any, now: int) -> bool:
    return (process.expires_at is not None and process.expires_at < now) or is_dead(process)
