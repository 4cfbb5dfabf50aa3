"""Tasks as a person reads them: a row each, for the banner of `run` and for `check`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from yaotask.chance import SystemChance
from yaotask.cli.text import cut
from yaotask.definitions.model import Definition
from yaotask.durations import show
from yaotask.problems import Problem

HEADER = ("TASK", "AT ONCE", "TRIES", "WAITS", "TIMEOUT", "FILE")
SHOWN_WAITS = 3


def row(definition: Definition) -> tuple[str, ...]:
    """The task as a row under `HEADER`."""
    return (
        definition.id,
        str(definition.worker_nums),
        tries(definition.attempts),
        waits(definition),
        show(definition.timeout),
        str(definition.source or ""),
    )


def tries(attempts: int) -> str:
    """`1 try + 3 retries`: what `attempts` amounts to."""
    match attempts:
        case 0:
            return "1 try"
        case 1:
            return "1 try + 1 retry"
        case _:
            return f"1 try + {attempts} retries"


def waits(definition: Definition) -> str:
    """The least waits before the first retries: `1m, 2m, 4m`."""
    backoff, number = replace(definition.backoff, jitter=0.0), min(definition.attempts, SHOWN_WAITS)
    spans = [show(backoff.delay(definition.attempt_after, retry, SystemChance())) for retry in range(1, number + 1)]
    text = spans[0] if spans and len(set(spans)) == 1 else ", ".join(spans)
    return text + (", ..." if definition.attempts > SHOWN_WAITS and backoff.strategy != "fixed" else "")


def reason(problems: Sequence[Problem]) -> str:
    """Why a task is broken, in one line."""
    return cut(problems[0].message.partition("\n")[0], 100)
