"""The work of a store, piece by piece, and a way to look at each statement that it consists of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import event
from store_support import EVERY_EVENT, FAILED, START, Bench, an_add, retry_after

from yaotask.clock import SECOND
from yaotask.store import direct, presence, reads, upkeep
from yaotask.store.protocol import Progress, Started

Statement = tuple[str, Any]
_OURS = ("SELECT", "UPDATE", "INSERT", "DELETE", "WITH")


@contextmanager
def watched(
    bench: Bench, before: Callable[[Any, str, Any], None], after: Callable[[Any], None] = lambda cursor: None
) -> Iterator[None]:
    """Call these around each statement of the ledger and of readers: with its cursor, its text and its values."""

    def is_ours(statement: str) -> bool:
        return statement.split(maxsplit=1)[0] in _OURS

    def run(cursor: Any, statement: str, values: Any) -> None:
        if is_ours(statement):
            before(cursor, statement, values)
        cursor.execute(statement, values)
        if is_ours(statement):
            after(cursor)

    def begin(_connection: Any, cursor: Any, statement: str, values: Any, *_: Any) -> None:
        if is_ours(statement):
            before(cursor, statement, values)

    def end(_connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if is_ours(statement):
            after(cursor)

    hooks = {"before_cursor_execute": begin, "after_cursor_execute": end}
    for moment, hook in hooks.items():
        event.listen(bench.store.readers, moment, hook)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(direct, "run", run)
        yield
    for moment, hook in hooks.items():
        event.remove(bench.store.readers, moment, hook)


@contextmanager
def recorded(bench: Bench) -> Iterator[list[Statement]]:
    """What is executed meanwhile, by the ledger and by readers."""
    seen: list[Statement] = []
    with watched(bench, lambda _cursor, statement, values: seen.append((statement, values))):
        yield seen


def add_all_kinds(bench: Bench) -> None:
    bench.adds(an_add(3, size=100_000, events=EVERY_EVENT), an_add(key="k"), an_add(run_at=START + 3600 * SECOND))


def run_through(bench: Bench) -> None:
    claims = bench.cycle(worker=1, demands={"mail": 8}, others=True).claims["mail"]
    done, failed, retried, *rest = claims
    bench.cycle(
        worker=1,
        progress=[Progress(rest[0].key, rest[0].fence, START, {"current": 1})],
        started=[Started(claim.key, claim.fence, START) for claim in rest],
        finishes=[bench.end(done), bench.end(failed, FAILED), bench.end(retried, retry_after(1))],
    )


def deliver(bench: Bench) -> None:
    bench.clock.advance(3_600)
    deliveries = bench.cycle(worker=1, deliveries=10, delivery_tasks=("mail", "video")).deliveries
    first, *rest = deliveries
    bench.errand(lambda cycle: cycle.settle(1, rest, [(first, "bad", None)]))


def reap(bench: Bench) -> None:
    bench.errand(lambda cycle: presence.reap(cycle, 1))
    bench.errand(lambda cycle: presence.leave(cycle, 1))


def glance(bench: Bench) -> None:
    bench.store.any_ready("mail")
    bench.store.next_due()
    bench.store.cancels_of(1)
    bench.store.next_event(("mail", "video"))
    bench.store.glance(1, ("mail", "video"), ("mail", "video"))


def look(bench: Bench) -> None:
    with bench.store.reading() as connection:
        presence.any_dead(connection, 1)
        reads.get(connection, "mail", 7)
        reads.status(connection, "mail", [1, 2, 3])
        reads.attempts_of(connection, 7)
        reads.unsettled(connection, ["none"])


def ask_of_one(bench: Bench) -> None:
    id = bench.add_one()
    bench.errand(lambda cycle: cycle.cancel("mail", id))
    bench.errand(lambda cycle: cycle.retry("mail", id))
    claim = bench.claim_one()
    bench.cycle(started=[Started(claim.key, claim.fence, START)])
    bench.errand(lambda cycle: cycle.cancel("mail", claim.id))
    assert bench.finish(claim, FAILED)


def keep_up(bench: Bench) -> None:
    """But for the look for minutes to fold, which is for services, once an hour."""
    bench.errand(lambda cycle: upkeep.fold_rollups(cycle, [("mail", START, 2, 3, 0, 1, 10, 100)]))
    with bench.store.reading() as connection:
        assert upkeep.any_stale_event(connection)
    bench.errand(upkeep.release_events)


WORK: dict[str, Callable[[Bench], None]] = {
    "add": add_all_kinds,
    "claim, progress, finish": run_through,
    "deliveries": deliver,
    "reap and hand back": reap,
    "glance": glance,
    "looks of readers": look,
    "cancel and retry": ask_of_one,
    "upkeep": keep_up,
}
