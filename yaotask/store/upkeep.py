"""Upkeep that nobody waits for: statistics grow coarser with age, and no event stays with a worker that is gone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from sqlalchemy.engine import Connection

from yaotask.clock import SECOND
from yaotask.store import statements
from yaotask.store.cycle import SqlCycle
from yaotask.store.direct import ask
from yaotask.values import dumps

HOUR, DAY = 3_600 * SECOND, 86_400 * SECOND
# How long statistics are kept by the minute, and how many rows one transaction folds.
BY_THE_MINUTE = 2 * DAY
MOST_FOLDED = 2_000


def minutes_to_fold(connection: Connection, now: int) -> list[Any]:
    """Some of the rollups by the minute that are older than two days: a look without the write lock."""
    before = now - BY_THE_MINUTE
    values = {"before": before - before % HOUR, "hour": HOUR, "most": MOST_FOLDED}
    return list(ask(connection, statements.MINUTES_TO_FOLD, values).all())


def fold_rollups(cycle: SqlCycle, minutes: Sequence[Any]) -> int:
    """Fold these into their hours; how many that were. What another process has changed meanwhile is left out."""
    sums: defaultdict[tuple[str, int, int, int], list[int]] = defaultdict(lambda: [0, 0, 0])
    folded = 0
    for task, minute, outcome, bucket, shard, *counts in minutes:
        key = {"task": task, "minute": minute, "outcome": outcome, "bucket": bucket, "shard": shard}
        if cycle.execute(statements.DELETE_ROLLUP, jobs=counts[0], **key).rowcount:
            folded += 1
            hour = sums[task, minute - minute % HOUR, outcome, bucket]
            hour[:] = [sum(pair) for pair in zip(hour, counts, strict=True)]
    if folded:
        cycle.execute(cycle.own.ADD_ROLLUPS, rows=dumps([[*key, 0, *counts] for key, counts in sorted(sums.items())]))
    return folded


def any_stale_event(connection: Connection) -> bool:
    """Whether `release_events` would find one: a look without the write lock."""
    return ask(connection, statements.STALE_EVENT).first() is not None


def release_events(cycle: SqlCycle) -> int:
    """Let others deliver what workers had taken that are not in the store any more; how many events."""
    released = cycle.execute(statements.RELEASE_STALE_EVENTS).rowcount
    cycle.harvest.wrote_events = cycle.harvest.wrote_events or bool(released)
    return released
