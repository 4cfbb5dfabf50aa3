"""Faults of the database server, and of the lines to it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from yaotask.chance import Dice
from yaotask.chaos.facts import SERVER, Fault
from yaotask.chaos.killing import LEASE, PAUSES
from yaotask.chaos.line import Line
from yaotask.chaos.nemesis import Strike
from yaotask.clock import Clock
from yaotask.errors import StorageError
from yaotask.store import sessions
from yaotask.store.access import Access

# How often each happens, against all others.
LINES = {"cut-line": 8, "lose-answers": 4, "hold-line": 1, "kill-session": 3}
RESTART = {"restart-server": 2}
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
        """Whatever is committed meanwhile, its program never hears of it. Where nothing was answered it is only cut."""
        with self._free(dice) as (name, line):
            if line is None:
                return None
            began, before = self.clock.now(), line.lost
            line.lose_answers()
            self.clock.pause(dice.uniform(*BRIEFLY))
            broken = line.cut()
            kind = "lose-answers" if line.lost > before else "cut-line"
            return Fault(kind, began, self.clock.now(), name) if broken or line.lost > before else None

    def _hold(self, dice: Dice) -> Fault | None:
        """A network that parts a program from its server for longer than a lease, and heals."""
        with self._free(dice) as (name, line):
            if line is None:
                return None
            began, held = self.clock.now(), line.hold()
            try:
                self.clock.pause(LEASE * dice.uniform(*PAUSES))
            finally:
                held += line.go_on()
            return Fault("hold-line", began, self.clock.now(), name) if held else None

    @contextmanager
    def _free(self, dice: Dice) -> Iterator[tuple[str, Line | None]]:
        """A line, unless somebody else holds it: the first of two who let go would end what the other says he did."""
        name, line = dice.choice(self.lines)
        is_ours = line.busy.acquire(blocking=False)
        try:
            yield name, line if is_ours else None
        finally:
            if is_ours:
                line.busy.release()

    def _kill(self, dice: Dice) -> Fault | None:
        began, ended = self.clock.now(), 0
        # The server may be away, and a session over first.
        with suppress(StorageError), self.access.opened.store.reading() as connection:
            found = sessions.others(connection)
            for number in dice.sample(found, min(len(found), dice.randint(1, MOST_SESSIONS))):
                sessions.end(connection, number)
                ended += 1
        return Fault("kill-session", began, self.clock.now(), SERVER) if ended else None

    def _restart(self, dice: Dice) -> Fault | None:
        if self.restart is None or not self.restarting.acquire(blocking=False):
            return None
        try:
            began = self.clock.now()
            self.restart()
            return Fault("restart-server", began, self.clock.now(), SERVER)
        finally:
            self.restarting.release()
