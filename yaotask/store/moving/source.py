"""The store that is left: settled, so that it is like one in which nobody has ever run, and closed."""

from __future__ import annotations

from functools import partial
from typing import Any

from sqlalchemy import Table, func, select
from sqlalchemy.engine import Connection

from yaotask.errors import StorageBusy
from yaotask.jobs import JobState
from yaotask.phrases import counted
from yaotask.store import adds, migrations, opening, tables
from yaotask.store.moving import words
from yaotask.store.moving.side import MoveRefused, Side, count, must_be_alone
from yaotask.store.moving.words import LEAVING, Leaving
from yaotask.store.reaping import reap
from yaotask.store.tables import workers

# No process has this key, so that all that are entered are others.
_NOBODY = -1


def must_be_store(side: Side) -> str:
    """The id of a store that this yaotask can read. Raises StorageUnavailable, MoveRefused where it is none."""
    place, dialect = side.place, side.store.dialect
    known = opening.known_id(place)

    def look(connection: Connection) -> str | None:
        if not opening.has_store(place, dialect, connection, known):
            return None
        found = opening.identify(place, dialect, connection, known)
        migrations.version(connection)  # a newer one may mean something else by its words
        if words.arriving(connection) is not None:
            words.must_be_here(connection)
        return found

    found = None if opening.is_missing(place, dialect, known) else side.ask(look)
    if found is None:
        raise MoveRefused(f"{side.name} holds no yaotask store: there is nothing to move")
    return found


def must_know_states(side: Side) -> None:
    """Raises MoveRefused where jobs are in a state that is none."""
    jobs = side.table(tables.jobs)
    found = side.ask(lambda connection: connection.execute(_count_unknown(jobs)).all())
    if found:
        states = ", ".join(str(state) for state, _ in found)
        raise MoveRefused(
            f"{counted(sum(total for _, total in found), 'job')} of {side.name} in a state that yaotask does not know"
            f" ({states}): `yaotask db verify` names them; correct or delete them, and begin again"
        )


def _count_unknown(jobs: Table) -> Any:
    unknown = jobs.c.state.not_in([int(state) for state in JobState])
    return select(jobs.c.state, func.count()).where(unknown).group_by(jobs.c.state).order_by(jobs.c.state)


def settle(side: Side) -> None:
    """Take back what dead workers had, and pay what is owed. Raises MoveRefused where that cannot be done."""
    before, left = None, side.ask(_unsettled)
    while any(left):
        must_be_alone(side)
        if left == before:
            raise MoveRefused(
                f"jobs of {side.name} could not be taken back from workers that died; `yaotask db verify` says what is"
                " wrong with them"
            )
        side.run(lambda cycle: reap(cycle, _NOBODY, lambda: cycle.now))
        before, left = left, side.ask(_unsettled)
    side.run(adds.pay_debts)


def close(side: Side, word: Leaving) -> None:
    """Close a settled store. Raises MoveRefused, and leaves it open, where somebody has begun to work meanwhile."""
    if not side.write(partial(_close, word=word)):
        raise MoveRefused(f"a node of {side.name} was started meanwhile: stop it, and begin again")


def _close(connection: Connection, word: Leaving) -> bool:
    """Whether it is closed, and was settled. An earlier try may have been killed before it came to look."""
    found = words.leaving(connection)
    if found is not None and (found.move, found.result) != (word.move, None):
        raise StorageBusy(words.OTHERS)
    was_closed = words.is_closed(connection)
    words.close(connection, word)
    entered, *taken = _unsettled(connection)
    # Whoever enters a closed store can take nothing.
    if not any(taken) and (was_closed or not entered):
        return True
    # Undone by hand: not every database rolls back the name of a table.
    words.reopen(connection, LEAVING)
    return False


def _unsettled(connection: Connection) -> tuple[int, int, int]:
    """How many processes are entered, how many jobs run, and how many events are being delivered."""
    jobs, events = (words.as_it_is(connection, table) for table in (tables.jobs, tables.events))
    return (
        count(connection, workers),
        count(connection, jobs, jobs.c.state == JobState.RUNNING),
        count(connection, events, events.c.worker.is_not(None)),
    )
