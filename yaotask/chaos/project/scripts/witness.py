"""What handlers and hooks do, written where no store can change it."""

import json
import os

from yaotask import current_job
from yaotask.chaos.facts import RETURNED
from yaotask.clock import SystemClock

CLOCK = SystemClock()


def note(what, task, id, **more):
    """Add a line, whole, whoever else writes. It is the kernel's from then on: the death of a process loses none."""
    line = {"at": CLOCK.now(), "pid": os.getpid(), "what": what, "task": task, "id": id, **more}
    file = os.open("witness.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(file, (json.dumps(line) + "\n").encode())
    finally:
        os.close(file)


class Noted:
    """A handler that was given this tag, between its start and its end, however that comes, unless its process dies."""

    def __init__(self, tag):
        self.tag = tag

    def __enter__(self):
        claim = current_job().claim
        self.about = {"generation": claim.generation, "fence": claim.fence}
        note("start", claim.task, claim.id, **self.about, tag=self.tag)
        self.claim = claim
        return claim

    def __exit__(self, kind, *_):
        how = RETURNED if kind is None else kind.__name__
        note("end", self.claim.task, self.claim.id, **self.about, how=how)
