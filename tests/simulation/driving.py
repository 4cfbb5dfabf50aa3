"""A ledger that is driven by a task: turn after turn, until its node dies or is closed."""

from __future__ import annotations

import math
from collections.abc import Callable

import anyio
import anyio.lowlevel

from simulation.world import Died, Place
from yaotask.errors import StorageUnavailable
from yaotask.store.ledger import Ledger

# One incarnation takes some thousands.
MOST_TURNS = 10_000


class TaskDriver:
    """Stands in for LedgerThread. While `cut_off_until` lies ahead, its database is out of reach."""

    def __init__(self, ledger: Ledger, place: Place) -> None:
        self.on_death: Callable[[], None] = lambda: None
        self.died: Callable[[], None] = lambda: None
        self.cut_off_until = 0.0
        self._ledger = ledger
        self._place = place
        self._turns = 0
        self._poked = anyio.Event()
        ledger.poke = lambda: self._poked.set()

    async def run(self) -> None:
        """Take turns, until cancelled or dead."""
        time = self._place.world.time
        try:
            while not self._place.is_dead:
                if time.monotonic() < self.cut_off_until:
                    await anyio.sleep(self.cut_off_until - time.monotonic())
                    continue
                self._poked = anyio.Event()
                wait = self._turn()
                if wait == 0:
                    await anyio.lowlevel.checkpoint()
                    continue
                with anyio.move_on_after(math.inf if wait is None else wait):
                    await self._poked.wait()
        finally:
            # Whoever waits for an answer, shielded even, shall not wait for ever.
            self.die()

    def _turn(self) -> float | None:
        world = self._place.world
        self._turns += 1
        if self._turns > MOST_TURNS:
            raise AssertionError(f"seed {world.seed}: the ledger of {self._place.name} does not come to rest")
        world.writing = self._place
        try:
            return self._ledger.turn()
        except Died:
            self.die()
            return None
        except Exception as error:  # noqa: BLE001 - a ledger that dies of itself is a finding
            world.defects.append(f"the ledger of {self._place.name} died of {type(error).__name__}: {error}")
            self.die()
            return None
        finally:
            world.writing = None

    def die(self) -> None:
        """Write nothing more, and forget all."""
        self._place.die()
        self._ledger.store.close()
        self.on_death()
        self.refuse_if_over()
        self.died()

    def refuse_if_over(self) -> None:
        if self._place.is_dead:
            self._ledger.refuse(StorageUnavailable("this node is dead"))

    def close(self) -> None:
        self._place.die()
        self._ledger.store.close()
