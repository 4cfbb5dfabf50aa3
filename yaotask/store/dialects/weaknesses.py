"""What is unsound about a database, and what weakens a promise where it is a server: settings, and what others do."""

from __future__ import annotations

from typing import NamedTuple

from yaotask.phrases import counted

# Seconds for which a transaction may be open before people are told.
LONG = 600
# The part of a server's connections that may be in use.
MANY = 0.9
# So many dead rows are usual between two rounds of a vacuum.
USUAL_DEAD = 100_000


class Unsound(NamedTuple):
    """What is so, and what to do."""

    what: str
    advice: str


class Weakness(NamedTuple):
    """What is so, what that means for jobs, and what to do; nothing, where it could not be looked at."""

    what: str
    advice: str = ""


def damaged(how: str) -> Unsound:
    """What the database cannot mend by itself."""
    return Unsound(f"the database is damaged: {how}", "stop all nodes, keep a copy of it, and restore it from a backup")


def long_transaction(session: int, seconds: int, end: str) -> list[Weakness]:
    """A transaction that has been open for so long. `end` is what ends its session."""
    if seconds < LONG:
        return []
    what = f"the transaction of session {session} has been open for {counted(seconds // 60, 'minute')}"
    return [Weakness(f"{what}: no dead row can be removed, and claims get slower", f"commit it, or end it: {end}")]


def many_connections(used: int, most: int) -> list[Weakness]:
    """So many of the connections that the server allows are in use."""
    if used < most * MANY:
        return []
    advice = "raise max_connections, or find who keeps connections: nodes and programs that cannot connect wait"
    return [Weakness(f"{used} of {counted(most, 'connection')} are in use", advice)]


def asynchronous_replicas(number: int) -> list[Weakness]:
    """So many replicas that nobody waits for."""
    if not number:
        return []
    what = (
        f"{counted(number, 'replica')} may lag behind: when one takes over, the last commits are lost, and their jobs"
    )
    return [Weakness(what, "let commits wait for a replica, if one is to take over without loss")]
