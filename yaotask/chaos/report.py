"""What a run came to: counts, how long recoveries took, and the verdict; on one page, or as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from yaotask.chaos.check.index import Index, named
from yaotask.chaos.check.runs import recoveries
from yaotask.chaos.facts import FAIL, INFO, OK, SECOND, Facts, Violation
from yaotask.phrases import counted, listed

# Seconds up to which a recovery is in a row of the histogram.
STEPS = (0.5, 1, 2, 4, 8, 16, 32)
WIDTH = 40
# So many violations are written out; all are in the JSON.
MOST_TOLD = 20


@dataclass(frozen=True, slots=True)
class Report:
    """All figures of one run; times in seconds."""

    store: str
    seed: int
    seconds: float
    jobs: int
    states: Mapping[str, int]
    adds: Mapping[str, int]
    """Acknowledged, refused, and unknown; and of the unknown how many had been stored."""
    calls: int
    starts: int
    changes: Mapping[str, int]
    """Transitions by their names in the table."""
    hooks: int
    faults: Mapping[str, int]
    unmade: Sequence[str]
    """Faults that were wanted and never came about, of which the run says nothing."""
    kills: int
    """How often something was ended by SIGKILL, a process or all those of a node at once."""
    killed: int
    """The processes that were seen dead after it."""
    recoveries: Sequence[float]
    violations: Sequence[Violation]
    untried: Sequence[str]
    """What did not happen at all, in words: a run without it proves nothing."""

    @classmethod
    def of(
        cls,
        facts: Facts,
        violations: Sequence[Violation],
        *,
        store: str,
        seed: int,
        seconds: float,
        wanted: Sequence[str] = (),
    ) -> Report:
        """Sum a run up, in which some faults were `wanted`, by name."""
        index = Index.of(facts)
        answers = Counter(call.answer for call in index.adds)
        tags = {job.tag for job in facts.jobs.values()}
        faults = Counter(fault.kind for fault in facts.faults)
        return cls(
            store=store,
            seed=seed,
            seconds=round(seconds, 1),
            jobs=len(facts.jobs),
            states=dict(Counter(job.row.state.name for job in facts.jobs.values())),
            adds={
                "acknowledged": answers[OK],
                "refused": answers[FAIL],
                "unknown": answers[INFO],
                "unknown and stored": len({call.tag for call in index.adds if call.answer == INFO} & tags),
            },
            calls=len(facts.calls),
            starts=sum(note.what == "start" for note in facts.notes),
            changes=dict(sorted(Counter(named(change) or "unknown" for change in facts.changes).items())),
            hooks=sum(note.is_of_hook for note in facts.notes),
            faults=dict(sorted(faults.items())),
            unmade=[name for name in wanted if name not in faults],
            kills=sum(bool(fault.killed) for fault in facts.faults),
            killed=sum(len(fault.killed) for fault in facts.faults),
            recoveries=sorted(round(one.took / SECOND, 3) for one in recoveries(index)),
            violations=violations,
            untried=list(_untried(index, wanted)),
        )

    @property
    def holds(self) -> bool:
        """Whether promises were tried, and all of them kept."""
        return not self.violations and not self.untried

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        plain = {name: getattr(self, name) for name in self.__slots__ if name != "violations"}
        found = [{"invariant": one.invariant, "what": one.what} for one in self.violations]
        return {**plain, "violations": found, "verdict": self._word}

    @property
    def _word(self) -> str:
        if self.violations:
            return "broken"
        return "nothing is proved" if self.untried else "nothing was lost"

    def lines(self) -> Iterator[str]:
        """One page for people."""
        yield f"store       {self.store}"
        yield f"seed        {self.seed}, {self.seconds:g} s"
        yield f"jobs        {self.jobs:,}: {_listed(self.states)}"
        yield f"adds        {_listed(self.adds)}"
        yield f"ran         {counted(self.starts, 'start')} of handlers, {counted(self.hooks, 'call')} of hooks"
        yield f"changes     {_listed(self.changes)}"
        yield f"faults      {_listed(self.faults) or 'none'}"
        if self.faults and self.unmade:
            yield f"not made    {', '.join(self.unmade)}: of these the run says nothing"
        yield f"kills       {self.kills:,} by SIGKILL, of which {counted(self.killed, 'process', 'processes')} died"
        yield from self._histogram()
        yield ""
        yield from self._verdict()

    def _histogram(self) -> Iterator[str]:
        if not self.recoveries:
            return
        worst, middle = max(self.recoveries), median(self.recoveries)
        yield f"recoveries  {counted(len(self.recoveries), 'job')} of dead processes could run again after"
        yield f"            {middle:.2f} s in the median, {worst:.2f} s at worst"
        rows = Counter(next((step for step in STEPS if took <= step), None) for took in self.recoveries)
        most = max(rows.values())
        for step in (*STEPS, None):
            if rows[step]:
                bar = "#" * max(1, WIDTH * rows[step] // most)
                label = f"up to {step:g} s" if step else f"over {STEPS[-1]} s"
                yield f"            {label:>10}  {bar} {rows[step]:,}"

    def _verdict(self) -> Iterator[str]:
        if self.untried:
            yield f"verdict     NOTHING IS PROVED: {', '.join(self.untried)}"
        if self.holds:
            yield "verdict     nothing was lost, nothing ran without a claim, all promises were kept"
        if not self.violations:
            return
        by_kind = _listed(Counter(one.invariant for one in self.violations))
        yield f"verdict     BROKEN: {counted(len(self.violations), 'violation')} ({by_kind})"
        for one in self.violations[:MOST_TOLD]:
            yield f"            {one.invariant}: {one.what}"
        if len(self.violations) > MOST_TOLD:
            yield f"            and {len(self.violations) - MOST_TOLD:,} more, which are in the JSON"


def _untried(index: Index, wanted: Sequence[str]) -> Iterator[str]:
    if not any(call.answer == OK for call in index.adds):
        yield "no add was acknowledged"
    if not index.starts:
        yield "no handler started"
    if wanted and not index.facts.faults:
        yield f"no fault was made, of {listed(wanted)}"


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items())
