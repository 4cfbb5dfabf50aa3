"""Who wrote what: a claim is handed back (T10) by the process that has it, and by no other.

The rows do not show that, and a process of which others do so looks as if it had done it itself.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence

from yaotask.chaos.check.transitions import transition
from yaotask.chaos.facts import Facts, Violation

# The number of the last change of a commit, and the process that made it.
Written = tuple[int, int]


def handed_back_by_others(facts: Facts, written: Sequence[Written]) -> Iterator[Violation]:
    """Each claim that was handed back by a process whose it was not. `written` is in the order of its numbers."""
    pids = {worker.key: worker.pid for worker in facts.workers}
    last = [seq for seq, _ in written]
    for change in facts.changes:
        before = change.before
        if before is None or before.worker is None or transition(before, change.after) != "T10":
            continue
        place = bisect_left(last, change.seq)
        # What was written last of all may be of a node that did not live to say so.
        pid = written[place][1] if place < len(written) else pids[before.worker]
        if pid != pids[before.worker]:
            job = facts.jobs[change.key].id
            what = f"process {pid} handed back {job.task}.{job.id}, which process {pids[before.worker]} had"
            yield Violation("T10", what)
