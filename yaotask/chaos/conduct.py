"""A run from an empty store to its verdict."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from yaotask.app import App
from yaotask.chaos import caller, scratch
from yaotask.chaos.check import judge
from yaotask.chaos.evidence import gather
from yaotask.chaos.facts import Facts, Fault
from yaotask.chaos.killing import WEIGHTS, Killing
from yaotask.chaos.line import HERE, Address, Line
from yaotask.chaos.nemesis import REST, Nemesis, Strike
from yaotask.chaos.programs import Node, Nursery, Program, working_in
from yaotask.chaos.report import Report
from yaotask.chaos.serving import LINES, RESTART, Serving
from yaotask.clock import Clock
from yaotask.errors import StorageError
from yaotask.store import auditing, opening, sessions
from yaotask.store.access import Access

# Seconds.
PATIENCE = 60.0
MOST_TIMES = 3
LOOK = 0.5
ALL_WEIGHTS: Mapping[str, int] = {**WEIGHTS, **LINES, **RESTART}


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What somebody wants to see."""

    store: str
    """The address of an empty database."""
    folder: Path
    """For all that the run writes outside of it: not there yet."""
    seed: int
    seconds: float
    jobs: int = 0
    kills: int = 0
    least: Mapping[str, int] = field(default_factory=dict)
    """Faults of these kinds, as far as they can be made here. Where there were fewer of all that by then, things are
    broken for longer, up to three times as long."""
    nodes: int = 2
    processes: int = 2
    callers: int = 2
    hands: int = 2
    rest: tuple[float, float] = REST
    """Seconds for which each hand rests between two faults: at least, and at most."""
    patience: float = PATIENCE
    """Seconds in which some job must end, once nobody disturbs the nodes any more, until all have ended."""
    faults: Sequence[str] = tuple(ALL_WEIGHTS)
    """Those that cannot be made here, of lines and servers where the store is a file, are left out."""
    restart: Callable[[], None] | None = None
    """Restarts the database server, and comes back once it serves again."""


@dataclass(frozen=True, slots=True)
class Moment:
    """How far a run is."""

    doing: str
    seconds: float
    jobs: Mapping[str, int]
    faults: int


Watch = Callable[[Moment], None]


class Run:
    """One run. What it made outside the store stays in its folder, the logs of all nodes too."""

    def __init__(self, order: Order, clock: Clock, watch: Watch) -> None:
        self._order = order
        self._clock = clock
        self._watch = watch
        self._begun = clock.monotonic()
        self._nursery = Nursery()
        self._lines: list[tuple[str, Line]] = []
        self._nodes: list[Node] = []
        self._callers: list[Program] = []
        self._leftovers: list[str] = []

    def report(self) -> Report:
        """Break it, mend it, judge it. Raises StorageUnavailable for a store that is not empty."""
        order = self._order
        auditing.must_be_empty(opening.place(order.folder, order.store))
        order.folder.mkdir(mode=0o700, parents=True)
        with App(self._folder("judge-1", order.store)) as app:
            access = app.works.access
            access.opened.store.write(auditing.install)
            self._furnish()
            try:
                faults = self._break(access)
                was_drained = self._drain(access)
                self._end()
            finally:
                self._clear_away()
            self._tell(access, "judges what happened", 0)
            facts = self._gather(app, faults, was_drained)
        seconds = self._clock.monotonic() - self._begun
        store = opening.shown(app.works.place())
        return Report.of(facts, judge(facts), store=store, seed=order.seed, seconds=seconds, wanted=order.faults)

    def _furnish(self) -> None:
        order = self._order
        for number in range(order.nodes):
            folder = self._folder(f"node-{number + 1}", self._way(f"node-{number + 1}"))
            far = sessions.is_server(order.store)
            self._nodes.append(Node(folder, order.processes, self._clock, self._nursery, far=far))
        for number in range(order.callers):
            folder = self._folder(f"caller-{number + 1}", self._way(f"caller-{number + 1}"))
            command = ["-m", "yaotask.chaos.caller", str(folder), f"{order.seed}-{number}"]
            self._callers.append(Program(folder, command, caller.READY, self._clock, self._nursery))

    def _way(self, name: str) -> str:
        """How a program gets to the store: where that is on a server, by a line of its own."""
        store = self._order.store
        if not sessions.is_server(store):
            return store
        line = Line(Address(*sessions.where(store)))
        self._lines.append((name, line))
        return sessions.by_way_of(store, HERE, line.port)

    def _folder(self, name: str, store: str) -> Path:
        folder = self._order.folder / name
        scratch.furnish(folder, store)
        return folder

    # --- the parts --------------------------------------------------------------------------------------

    def _break(self, access: Access) -> Sequence[Fault]:
        order = self._order
        programs = (*self._nodes, *self._callers)
        for program in programs:
            program.begin()
        for program in programs:
            program.come_up()
        strikes = self._strikes(access)
        least = {name: count for name, count in order.least.items() if name in strikes}
        nemesis = Nemesis(strikes, ALL_WEIGHTS, str(order.seed), order.hands, order.rest)
        nemesis.start()
        try:
            self._wait(access, nemesis, least)
        finally:
            faults = nemesis.stop()
        return faults

    def _wait(self, access: Access, nemesis: Nemesis, least: Mapping[str, int]) -> None:
        order, begun = self._order, self._clock.monotonic()
        while (passed := self._clock.monotonic() - begun) < order.seconds * MOST_TIMES:
            self._clock.pause(LOOK)
            for program in (*self._nodes, *self._callers):
                program.revive()
            jobs = self._tell(access, "breaks things", len(nemesis.faults))
            kills = sum(bool(fault.killed) for fault in nemesis.faults)
            made = Counter(fault.kind for fault in nemesis.faults)
            is_enough = (
                passed >= order.seconds and jobs >= order.jobs and kills >= order.kills and made >= Counter(least)
            )
            if is_enough or nemesis.has_failed:
                return

    def _strikes(self, access: Access) -> Mapping[str, Strike]:
        known = Killing(self._nodes, self._callers, self._clock).faults
        if self._lines:
            known |= Serving(self._lines, access, self._order.restart, self._clock).faults
        return {name: strike for name, strike in known.items() if name in self._order.faults}

    def _drain(self, access: Access) -> bool:
        """Nobody adds any more; the nodes, all of them up, come to the end of what there is."""
        self._must_end(self._callers)
        for node in self._nodes:
            node.revive()
            node.come_up()

        ended, moment = -1, 0.0
        while ended < (now := self._ended(access)) or self._clock.monotonic() - moment < self._order.patience:
            if ended < now:
                ended, moment = now, self._clock.monotonic()
            with access.opened.store.snapshot() as connection:
                if auditing.is_settled(connection):
                    return True
            self._clock.pause(LOOK)
        return False

    def _ended(self, access: Access) -> int:
        """How many jobs have ended, and hooks were told."""
        self._tell(access, "waits for the jobs that are left", 0)
        with access.opened.store.reading() as connection:
            return auditing.ended(connection)

    def _end(self) -> None:
        self._must_end(self._nodes)
        for node in self._nodes:
            files = (node.folder / ".yaotask" / "workers").glob("*")
            self._leftovers += [f"the file {file}" for file in files]
        self._leftovers += [f"the process {words}" for words in working_in(self._order.folder)]

    def _must_end(self, programs: Sequence[Program]) -> None:
        """Ask all of these to end, and note which were over before, which ended badly, and which had to be killed."""
        up = [program for program in programs if not program.has_ended()]
        for program in programs:
            if program not in up:
                program.note_fall()
        for program in up:
            program.signal(signal.SIGTERM)
        for program in up:
            if wrong := program.must_end():
                self._leftovers.append(f"{program.folder.name} {wrong}: see its log")
        self._leftovers += [defect for program in programs for defect in program.defects()]

    def _clear_away(self) -> None:
        """Whatever has happened, nothing of the run goes on: nor does it where we are killed."""
        for program in (*self._nodes, *self._callers):
            program.clear_away()
        self._nursery.close()
        for _, line in self._lines:
            line.close()

    def _gather(self, app: App, faults: Sequence[Fault], was_drained: bool) -> Facts:
        with app.works.access.opened.store.snapshot() as connection:
            return gather(
                connection,
                self._order.folder,
                terms=scratch.terms_of(app),
                bounds=scratch.bounds_of(app),
                faults=faults,
                leftovers=self._leftovers,
                was_drained=was_drained,
            )

    def _tell(self, access: Access, doing: str, faults: int) -> int:
        """Say how far it is; the answer is how many jobs there are, as far as can be seen."""
        try:
            with access.opened.store.reading() as connection:
                jobs = auditing.states_of(connection)
        except StorageError:
            # It is away: that may be one of the faults.
            jobs = {}
        self._watch(Moment(doing, self._clock.monotonic() - self._begun, jobs, faults))
        return sum(jobs.values())
