"""What a child process needs to run the jobs of one task."""

from __future__ import annotations

from contextvars import Context
from dataclasses import dataclass

from yaotask.invoke import Handler
from yaotask.runtime.desk import JobDesk
from yaotask.runtime.execute import Policy


@dataclass(frozen=True, slots=True)
class Bench:
    """The handler of a task, the rules of its attempts, where its jobs' words go, and what it starts in."""

    handler: Handler
    policy: Policy
    desk: JobDesk
    start: Context
