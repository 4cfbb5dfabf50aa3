"""A process's way to the store of a bench, for parts that are tested without a ledger's thread."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

from store_support import Bench, answer

from yaotask.errors import StorageBusy
from yaotask.store.access import Access
from yaotask.store.protocol import Errand, Finish, Ticket


class Reach:
    """Does what is asked at once, unless the store is `broken`; counts how often it was `asked`.

    It is its own ledger. What has ended is written with the next errand, as by the real one.
    """

    def __init__(self, bench: Bench) -> None:
        self.broken = False
        self.asked = 0
        self.on_death: Callable[[], None] = lambda: None
        self.opened = SimpleNamespace(store=bench.store, ledger=self)
        self._bench = bench
        self._finishes: list[Finish] = []

    @property
    def access(self) -> Access:
        return cast(Access, self)

    async def aask(self, request: Callable[[Any, Ticket], None]) -> Any:
        self.asked += 1
        if self.broken:
            raise StorageBusy("database is locked")
        ticket = Ticket()
        request(self, ticket)
        return answer(ticket)

    def finish(self, finish: Finish) -> None:
        self._finishes.append(finish)

    def errand(self, run: Any, ticket: Ticket) -> None:
        finishes, self._finishes = self._finishes, []
        self._bench.cycle(finishes=finishes, errands=[Errand(run, ticket)])
