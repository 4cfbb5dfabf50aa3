"""What the tests of the runtime share: claims and policies made by hand, and the wait for jobs.

The fixtures are in runtime_fixtures.py. Handlers and hooks are functions of the tests: the fixture `stage` puts
them into this module, where the definition of the task `mail` finds them.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractContextManager, aclosing
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, NoReturn, cast

import anyio
import transitions
from store_support import behind, connected

from yaotask import App
from yaotask.backoff import Backoff
from yaotask.callbacks import Callbacks
from yaotask.chance import SystemChance
from yaotask.context import Job
from yaotask.invoke import Handler, suited
from yaotask.jobs import Claim
from yaotask.runtime.alarm import ring
from yaotask.runtime.execute import Policy
from yaotask.settings import Limits
from yaotask.signatures import Parameters
from yaotask.store.opening import place

PATIENCE = 10
# Polling alone would come too late for every test: what has to happen must happen by itself.
SETTINGS = "poll: 1h\n"

StageApp = Callable[..., App]

CLAIM = Claim(
    key=1,
    fence=1,
    id=12,
    task="mail",
    generation=0,
    attempt=1,
    attempts=None,
    losses=0,
    timeout=None,
    events=0,
    ready_at=0,
    claimed_at=0,
    args=[],
    payload={},
    created_by=None,
    extra=None,
)

POLICY = Policy(
    attempts=3,
    attempt_after=timedelta(milliseconds=200),
    backoff=Backoff(),
    timeout_ms=30_000,
    fail_on=(),
    ignore_on=(),
    transaction=False,
    sensitive=(),
    limits=Limits(),
    chance=SystemChance(),
)


@dataclass
class Notes:
    """A desk that only takes notes."""

    stored: list[dict[str, Any]]
    announced: list[tuple[int, int | None, str | None]]

    @classmethod
    def empty(cls) -> Notes:
        return cls([], [])

    def store(self, job: Job, changes: Mapping[str, Any]) -> None:
        self.stored.append(dict(changes))

    def announce(self, job: Job, progress: tuple[int, int | None, str | None]) -> None:
        self.announced.append(progress)

    def encode(self, value: Any) -> str:
        return repr(value)

    def text(self, message: str) -> str:
        return message

    def alarm(self, job: Job, callbacks: Callbacks) -> None:
        ring(job, callbacks, Limits())

    def transaction(self, job: Job) -> AbstractContextManager[NoReturn]:
        raise NotImplementedError


def a_job(desk: Notes | None = None, *, policy: Policy = POLICY, **claim: Any) -> Job:
    made = CLAIM._replace(**claim)
    return Job(made, desk or Notes.empty(), 0, policy.attempts_of(made), policy.timeout_of(made))


def a_handler(function: Callable[..., Any]) -> Handler:
    return Handler(function, Parameters.of(function), suited(function))


def a_policy(**changes: Any) -> Policy:
    return replace(POLICY, **changes)


def handler(task_id: int) -> str:
    """What child processes find where `stage` has put a function of the test."""
    return "done"


async def ended(app: App, id: int) -> dict[str, Any]:
    """The job once it has ended."""
    with anyio.fail_after(PATIENCE):
        async for job in app.afollow(f"mail.{id}"):
            last = job
    return last


async def reaches(app: App, id: int, status: str) -> dict[str, Any]:
    """The job once it has this status."""
    with anyio.fail_after(PATIENCE):
        async with aclosing(cast(AsyncGenerator[dict[str, Any], None], app.afollow(f"mail.{id}"))) as looks:
            async for job in looks:
                if job["status"] == status:
                    return job
    raise AssertionError(f"it ended as {job['status']}")


def break_down(cycle: object) -> None:
    """An errand that ends the ledger which does it."""
    raise MemoryError("no room for a page")


def query(app: App, statement: str) -> list[tuple[Any, ...]]:
    """Rows of the store, read behind its back."""
    return behind(place(app.root, app.settings.store), statement)


def change(app: App, statement: str) -> None:
    """Change something behind the store's back, whether or not a job may change so."""
    there = place(app.root, app.settings.store)
    with connected(there) as connection:
        transitions.release(connection)
    behind(there, statement)
