"""What was read of a store, for the findings about those who work and what waits for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from yaotask import nodeview
from yaotask.settings import Settings
from yaotask.store import checkup, fleet

if TYPE_CHECKING:
    from sqlalchemy import Connection

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Contents:
    """The answers of one store at one time, `now`. `lease` is the setting, in microseconds."""

    now: int
    lease: int
    latest: int
    processes: Sequence[nodeview.View]
    claims: Sequence[Row]
    waiting: Sequence[Row]
    undelivered: Row
    given_up: Row

    @property
    def is_worked_on(self) -> bool:
        """Whether anybody is up that claims jobs."""
        return any(map(nodeview.can_work, self.processes))


def read(connection: Connection, settings: Settings, now: int) -> Contents:
    """Ask all that is to be known."""
    claims = fleet.claims(connection)
    return Contents(
        now=now,
        lease=_microseconds(settings.lease),
        latest=checkup.latest(connection),
        processes=nodeview.views(fleet.processes(connection, now), claims, now),
        claims=claims,
        waiting=checkup.waiting(connection, now),
        undelivered=checkup.undelivered(connection, now - 2 * _microseconds(settings.hook_timeout)),
        given_up=checkup.given_up(connection),
    )


def _microseconds(span: timedelta) -> int:
    return span // timedelta(microseconds=1)
