"""How often, how soon, and how many at once handlers ran, and what was left of them: I4, I7, I12 to I15."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from yaotask.chaos.check.index import Index, named
from yaotask.chaos.facts import SECOND, SERVER, Facts, Fault, Job, Lease, Note, Violation
from yaotask.jobs import JobState

# Faults of callers, which take no job from any worker, and keep no node from taking one over.
HARMLESS = "kill-caller"
# What keeps a node from ending a handler in time, for as long as it lasts: its processes stand still, or the store does
# not answer a handler that is in a transaction. A node that is killed or stopped ends its handlers all the sooner.
STILL = frozenset({"pause-node", "cut-line", "lose-answers", "hold-line", "restart-server"})
# The death of a worker alone is seen by its own supervisor, and its jobs can run again within so long.
SEEN_AT_ONCE, AT_ONCE = "kill-worker", 2 * SECOND
# Beyond its bound a machine that is busy with the faults themselves gets so long.
SLACK = 5 * SECOND


@dataclass(frozen=True, slots=True)
class Recovery:
    """A claim whose process had died: when that was, and when its job could be claimed again."""

    job: str
    died: int
    reclaimed: int
    bound: int

    @property
    def took(self) -> int:
        return self.reclaimed - self.died


def each_claim_starts_once(index: Index) -> Iterator[Violation]:
    """I7: a handler starts once at most for each claim, and with one; no success without a start; not too often."""
    for job in index.facts.jobs.values():
        yield from _starts(index, job)
        changes = index.changes.get(job.key, [])
        retries = Counter(change.after.generation for change in changes if named(change) == "T5")
        most = index.facts.terms[job.id.task].attempts
        if retries and max(retries.values()) > most:
            yield Violation("I7", f"{job.id} was retried {max(retries.values())} times, of {most}")
    for id in index.starts.keys() - index.by_id.keys():
        yield Violation("I7", f"{id}: its handler started, and it is not there")


def _starts(index: Index, job: Job) -> Iterator[Violation]:
    changes = index.changes.get(job.key, [])
    claims = {change.after.fence for change in changes if named(change) == "T2"}
    starts = Counter(note.fence for note in index.starts.get(job.id, []))
    for fence, count in starts.items():
        if count > 1:
            yield Violation("I7", f"{job.id}: its handler started {count} times for fence {fence}")
        if fence not in claims:
            yield Violation("I7", f"{job.id}: its handler started for fence {fence}, which was no claim")
    for change in changes:
        if named(change) == "T4" and change.after.fence not in starts:
            what = f"{change.after.state.name} of fence {change.after.fence}, for which no handler started"
            yield Violation("I7", f"{job.id}: {what}")


def recoveries(index: Index) -> list[Recovery]:
    """Every claim that was lost with a process that the run has killed."""
    deaths = _deaths(index.facts.faults, index)
    found = []
    for key, changes in index.changes.items():
        for change in changes:
            if named(change) != "T7" or change.before is None or change.before.worker not in deaths:
                continue
            blow = deaths[change.before.worker]
            job = index.facts.jobs.get(key)
            found.append(Recovery(str(job.id if job else key), blow.began, change.at, _bound(index, blow, change.at)))
    return found


def _deaths(faults: Sequence[Fault], index: Index) -> dict[int, Fault]:
    """By what which worker of the store died. Numbers of processes are used again: the latest of that time counts."""
    by_pid = defaultdict(list)
    for worker in sorted(index.facts.workers, key=lambda worker: worker.at):
        by_pid[worker.pid].append(worker)
    deaths = {}
    for fault in faults:
        for pid in fault.killed:
            entered = [worker for worker in by_pid.get(pid, []) if worker.at <= fault.ended]
            if entered:
                deaths[entered[-1].key] = fault
    return deaths


def _bound(index: Index, blow: Fault, until: int) -> int:
    """The published bound, and what other faults took away meanwhile: a node that is stopped can reclaim nothing."""
    bounds = index.facts.bounds
    faults = [fault for fault in index.facts.faults if fault.kind != HARMLESS]
    others = (fault for fault in faults if fault is not blow and fault.ended >= blow.began and fault.began <= until)
    if blow.kind == SEEN_AT_ONCE and not any(others):
        return AT_ONCE + SLACK
    disturbed = _lasted(faults, blow.began, until)
    # Whoever has just come back leaves all others the time of a lease.
    return 2 * bounds.lease + bounds.reap + bounds.poll + disturbed + SLACK


def _lasted(faults: Iterable[Fault], since: int, until: int) -> int:
    """For how long of that time there was at least one of these: those that overlap are counted once."""
    lasted, reached = 0, since
    for fault in sorted(faults, key=lambda fault: fault.began):
        begin, end = max(fault.began, reached), min(fault.ended, until)
        if end > begin:
            lasted += end - begin
            reached = end
    return lasted


def the_dead_are_buried_in_time(index: Index) -> Iterator[Violation]:
    """I12: what a dead worker had can be claimed again within the bound."""
    for one in recoveries(index):
        if one.took > one.bound:
            late = f"{one.took / SECOND:.1f} s after the death of its worker, of {one.bound / SECOND:.1f} s"
            yield Violation("I12", f"{one.job} could be claimed again {late}")


def nobody_is_buried_alive(index: Index) -> Iterator[Violation]:
    """I4: a job is taken from a worker that was killed, or whose lease is over because of something that happened.

    One whose lease goes on may have died by itself, where a lock proves that; then something happened to its own node.
    """
    deaths = _deaths(index.facts.faults, index)
    alive = _Alive(index)
    for key, changes in index.changes.items():
        for change in changes:
            if change.before is None or named(change) != "T7":
                continue
            worker = change.before.worker or 0
            if worker in deaths and deaths[worker].began <= change.at:
                continue
            if (wrong := alive.speaks(worker, change.at)) is not None:
                job = index.facts.jobs.get(key)
                yield Violation("I4", f"{job.id if job else key} was taken from a worker {wrong}")


class _Alive:
    """What speaks for the lives of workers."""

    def __init__(self, index: Index) -> None:
        self._bounds = index.facts.bounds
        self._blows = [fault for fault in index.facts.faults if fault.kind != HARMLESS]
        self._workers = {worker.key: worker for worker in index.facts.workers}
        self._leases = _leases(index)
        # Where processes ran, as their handlers say.
        self._nodes = {note.pid: note.node for note in index.begun.values()}

    def speaks(self, key: int, moment: int) -> str | None:
        """What does for one that was taken for dead at that moment, in words."""
        worker = self._workers.get(key)
        if worker is None:
            return "that was never entered"
        last = [lease for lease in self._leases[key] if lease.at <= moment][-1]
        has_lease = last.ends_at > moment
        if has_lease and not worker.has_lock:
            return f"whose lease went on for {(last.ends_at - moment) / SECOND:.1f} s"
        node = self._nodes.get(worker.pid) if has_lease else None
        since = moment - 2 * self._bounds.lease - self._bounds.reap - self._bounds.poll - SLACK
        for blow in self._blows:
            if blow.ended >= since and blow.began <= moment and (node is None or blow.target == node):
                return None
        return f"to which nothing had happened{', and whose lease went on' if has_lease else ''}"


def _leases(index: Index) -> Mapping[int, Sequence[Lease]]:
    """Those of each process, from its entry."""
    lease = index.facts.bounds.lease
    found = defaultdict(list)
    for worker in index.facts.workers:
        found[worker.key].append(Lease(worker.key, worker.at, worker.at + lease))
    for renewed in sorted(index.facts.leases, key=lambda renewed: renewed.at):
        found[renewed.worker].append(renewed)
    return found


def nobody_outlives_its_timeout(index: Index) -> Iterator[Violation]:
    """I13: no handler goes on for longer than its timeout and the grace; while its node stands still does not count."""
    stills = [fault for fault in index.facts.faults if fault.kind in STILL]
    for begin, end in _runs(index.facts):
        terms, bounds = index.facts.terms[begin.job.task], index.facts.bounds
        own = (fault for fault in stills if fault.target in (begin.node, SERVER))
        still = _lasted(own, begin.at, end.at)
        if end.at - begin.at > terms.timeout + bounds.grace + still + SLACK:
            took = (end.at - begin.at) / SECOND
            yield Violation("I13", f"{begin.job} ran for {took:.1f} s, of {terms.timeout / SECOND:.1f} s")


def never_too_many_at_once(index: Index) -> Iterator[Violation]:
    """I14: on one node never more jobs of a task at once than `worker_nums`, and never more that wait than `size`."""
    lanes: defaultdict[tuple[str, str], list[tuple[int, int, Note]]] = defaultdict(list)
    for begin, end in _runs(index.facts):
        # An end sorts before a start of the same moment.
        lanes[begin.node, begin.job.task] += [(begin.at, 1, begin), (end.at, -1, begin)]
    for (node, task), moments in lanes.items():
        running, most = 0, index.facts.terms[task].worker_nums
        for _, step, note in sorted(moments, key=lambda moment: moment[:2]):
            running += step
            if running > most:
                yield Violation("I14", f"{node} ran {running} jobs of {task} at once, of {most}, with {note.job}")
                break
    yield from _too_many_waiting(index)


def _too_many_waiting(index: Index) -> Iterator[Violation]:
    counted = Counter(job.id.task for job in index.facts.jobs.values() if job.row.counted)
    for job in index.facts.jobs.values():
        if job.row.counted and job.row.state.is_terminal:
            yield Violation("I14", f"{job.id} has ended, and counts as one that waits")
    for task, terms in index.facts.terms.items():
        if index.facts.waiting.get(task, 0) != counted[task]:
            said = index.facts.waiting.get(task, 0)
            yield Violation("I14", f"{task}: {counted[task]} jobs wait, and `size` goes by {said}")
        if index.facts.is_serial:
            most = _most_waiting(index, task)
            if most > terms.size:
                yield Violation("I14", f"{task}: {most} jobs waited at once, of {terms.size}")


def _most_waiting(index: Index, task: str) -> int:
    waiting = most = 0
    for change in sorted(index.facts.changes):
        job = index.facts.jobs.get(change.key)
        if job is not None and job.id.task == task:
            waiting += change.after.counted - (change.before.counted if change.before else 0)
            most = max(most, waiting)
    return most


def _runs(facts: Facts) -> Iterator[tuple[Note, Note]]:
    """Each start with its end, of handlers that came to one, or were killed with their process."""
    begun: dict[tuple[object, ...], Note] = {}
    for note in facts.notes:
        which = (note.job, note.fence, note.pid)
        if note.what == "start":
            begun[which] = note
        elif note.what == "end" and which in begun:
            yield begun.pop(which), note
    kills = sorted((fault.began, pid) for fault in facts.faults for pid in fault.killed)
    for note in begun.values():
        died = next((moment for moment, pid in kills if pid == note.pid and moment >= note.at), None)
        if died is not None:
            yield note, replace(note, what="end", at=died)


def nothing_runs_any_more(index: Index) -> Iterator[Violation]:
    """I15: nodes that are asked to end do so in order, and when all is over no job runs and nothing of them is left."""
    for fault in index.facts.faults:
        if fault.wrong:
            yield Violation("I15", f"{fault.kind}: {fault.target} {fault.wrong}")
    for job in index.facts.jobs.values():
        if job.row.state == JobState.RUNNING:
            yield Violation("I15", f"{job.id} is still RUNNING")
    for leftover in index.facts.leftovers:
        yield Violation("I15", f"left behind: {leftover}")
    if not index.facts.was_drained:
        yield Violation("I15", "the nodes did not come to an end of their jobs in time")
