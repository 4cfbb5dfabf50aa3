"""Faults of the database server, and of the lines to it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from yaotask.chance import Dice
from yaotask.chaos.facts import Fault
from yaotask.chaos.killing import LEASE, PAUSES
from yaotask.chaos.line import Line
from yaotask.chaos.nemesis import Strike
from yaotask.clock import Clock
from yaotask.errors import StorageError
from yaotask.store import sessions
from yaotask.store.access import Access

# How often each happens, against all others.
LINES = {"cut-line": 5, "lose-answers": 6, "hold-line": 1, "kill-session": 4}
RESTART = {"restart-server": 3}
MOST_SESSIONS = 3
# Seconds for which answers get lost before their lines break: a commit or more of whoever is busy.
BRIEFLY = (0.02, 0.3)


@dataclass(frozen=True, slots=True)
class Serving:
    """What can be done between the programs of a run and its server. `restart` comes back once it serves again."""

    lines: Sequence[tuple[str, Line]]
    """Each with the name of the program whose it is."""
    access: Access
    restart: Callable[[], None] | None
    clock: Clock
    restarting: threading.Lock = field(default_factory=threading.Lock)

    @property
    def faults(self) -> dict[str, Strike]:
        """By name."""
        known: dict[str, Strike] = {
            "cut-line": self._cut,
            "lose-answers": self._lose,
            "hold-line": self._hold,
            "kill-session": self._kill,
        }
        return known if self.restart is None else {**known, "restart-server": self._restart}

    def _cut(self, dice: Dice) -> Fault | None:
        began, (name, line) = self.clock.now(), dice.choice(self.lines)
        return Fault("cut-line", began, self.clock.now(), name) if line.cut() else None

    def _lose(self, dice: Dice) -> Fault | None:
        """Whatever is committed meanwhile, its program never hears of it."""
        began, (name, line) = self.clock.now(), dice.choice(self.lines)
        line.lose_answers()
        self.clock.pause(dice.uniform(*BRIEFLY))
        return Fault("lose-answers", began, self.clock.now(), name) if line.cut() else None

    def _hold(self, dice: Dice) -> Fault | None:
        """A network that parts a program from its server for longer than a lease, and heals."""
        began, (name, line) = self.clock.now(), dice.choice(self.lines)
        line.hold()
        try:
            self.clock.pause(LEASE * dice.uniform(*PAUSES))
        finally:
            line.go_on()
        return Fault("hold-line", began, self.clock.now(), name)

    def _kill(self, dice: Dice) -> Fault | None:
        began = self.clock.now()
        try:
            with self.access.opened.store.reading() as connection:
                found = sessions.others(connection)
                for number in dice.sample(found, min(len(found), dice.randint(1, MOST_SESSIONS))):
                    sessions.end(connection, number)
        except StorageError:
            # The server is away, or the session was over first.
            return None
        return Fault("kill-session", began, self.clock.now(), "server")

    def _restart(self, dice: Dice) -> Fault | None:
        if self.restart is None or not self.restarting.acquire(blocking=False):
            return None
        try:
            began = self.clock.now()
            self.restart()
            return Fault("restart-server", began, self.clock.now(), "server")
        finally:
            self.restarting.release()
