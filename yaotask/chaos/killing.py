"""Faults of processes: killed, stopped for longer than their lease, ended in order and begun again."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from yaotask.chance import Dice
from yaotask.chaos.facts import Fault
from yaotask.chaos.nemesis import Strike
from yaotask.chaos.programs import Node, Program, buried, send
from yaotask.clock import Clock

P = TypeVar("P", bound=Program)

# Seconds.
LEASE = 2.0
LONGEST_ABSENCE = 1.0
# Of a lease: some who are stopped are back before others may judge them, some are not.
PAUSES = (1.1, 3.0)
# How often each happens, against the others.
WEIGHTS = {"kill-worker": 12, "kill-child": 4, "kill-services": 1, "kill-node": 3, "kill-caller": 2}
WEIGHTS |= {"pause-node": 4, "stop-node": 2}


@dataclass(frozen=True, slots=True)
class Killing:
    """What can be done to the processes of a run; each of these answers what it truly did, or None."""

    nodes: Sequence[Node]
    callers: Sequence[Program]
    clock: Clock

    @property
    def faults(self) -> dict[str, Strike]:
        """By name."""
        return {
            "kill-worker": lambda dice: self._kill_member(dice, "worker"),
            "kill-child": lambda dice: self._kill_member(dice, "child"),
            "kill-services": lambda dice: self._kill_member(dice, "services"),
            "kill-node": self._kill_node,
            "kill-caller": self._kill_caller,
            "pause-node": self._pause_node,
            "stop-node": self._stop_node,
        }

    def _kill_member(self, dice: Dice, kind: str) -> Fault | None:
        with _free(self.nodes, dice) as node:
            if node is None or not (members := node.members(kind)):
                return None
            began, victim = self.clock.now(), dice.choice(members)
            if not send(signal.SIGKILL, [victim]):
                return None
            killed = buried([victim], self.clock)
            return Fault(f"kill-{kind}", began, self.clock.now(), node.folder.name, killed)

    def _kill_node(self, dice: Dice) -> Fault | None:
        """As loss of power would, for all its processes; it begins again a while later."""
        with _free(self.nodes, dice) as node:
            if node is None:
                return None
            began = self.clock.now()
            killed = node.kill()
            self.clock.pause(dice.uniform(0, LONGEST_ABSENCE))
            node.start()
            return Fault("kill-node", began, self.clock.now(), node.folder.name, killed)

    def _kill_caller(self, dice: Dice) -> Fault | None:
        with _free(self.callers, dice) as caller:
            if caller is None:
                return None
            began = self.clock.now()
            killed = caller.kill()
            caller.start()
            return Fault("kill-caller", began, self.clock.now(), caller.folder.name, killed)

    def _pause_node(self, dice: Dice) -> Fault | None:
        """Stopped for longer than its lease: others may take its jobs over, and it must notice when it wakes."""
        with _free(self.nodes, dice) as node:
            if node is None:
                return None
            began = self.clock.now()
            family = node.family()
            # The supervisor first: it would take its workers for hung.
            send(signal.SIGSTOP, family)
            self.clock.pause(LEASE * dice.uniform(*PAUSES))
            send(signal.SIGCONT, family)
            return Fault("pause-node", began, self.clock.now(), node.folder.name)

    def _stop_node(self, dice: Dice) -> Fault | None:
        """Ended in order, as for a new version."""
        with _free(self.nodes, dice) as node:
            if node is None:
                return None
            began = self.clock.now()
            node.signal(signal.SIGTERM)
            wrong = node.must_end()
            node.start()
            return Fault("stop-node", began, self.clock.now(), node.folder.name, wrong=wrong)


@contextmanager
def _free(programs: Sequence[P], dice: Dice) -> Iterator[P | None]:
    """One that is up, and that nobody else does something to."""
    for program in dice.sample(programs, len(programs)):
        if not program.busy.acquire(blocking=False):
            continue
        try:
            if program.is_up():
                yield program
                return
        finally:
            program.busy.release()
    yield None
