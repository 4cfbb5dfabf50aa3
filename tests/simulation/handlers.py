"""The handlers and hooks of the simulated nodes."""

from __future__ import annotations

from typing import Any

import anyio

from simulation.world import here, own
from yaotask import Fail, Ignore
from yaotask.chaos.facts import RETURNED, JobId

# Seconds: the last is longer than a lease, and than the timeout of the task.
LENGTHS = (0.0, 0.01, 0.1, 0.5, 1.5, 4.0, 20.0)


async def work(task_id: int, tag: str) -> Any:
    """Take some time, say so now and then, and end in one way or another."""
    world, name, job = own()
    claim, dice = job.claim, world.dice
    about = {"generation": claim.generation, "fence": claim.fence}
    world.note("start", name, **about, tag=tag)
    how = RETURNED
    try:
        length, steps = dice.choice(LENGTHS), dice.randint(0, 2)
        for step in range(1, steps + 1):
            await anyio.sleep(length / (steps + 1))
            job.progress(step, steps, f"fence {claim.fence}, {step} of {steps}")
        await anyio.sleep(length / (steps + 1))
        fate = dice.random()
        if fate < 0.2:
            raise ValueError("simulated")
        if fate < 0.25:
            raise Fail("for good")
        if fate < 0.3:
            raise Ignore("not needed")
        return {"fence": claim.fence}
    except BaseException as error:
        how = type(error).__name__
        raise
    finally:
        world.note("end", name, **about, how=how)


async def _hook(what: str, task_id: int) -> None:
    world = here.get().world
    await anyio.sleep(world.dice.choice((0.0, 0.0, 0.05)))
    if world.rages and world.dice.random() < 0.05:
        raise RuntimeError("simulated")
    world.note(what, JobId("told", task_id))


async def on_add(task_id: int, *_: Any) -> None:
    await _hook("add", task_id)


async def on_success(task_id: int, *_: Any) -> None:
    await _hook("success", task_id)


async def on_error(task_id: int, *_: Any) -> None:
    await _hook("error", task_id)


async def on_retry(task_id: int, *_: Any) -> None:
    await _hook("retry", task_id)


async def on_cancel(task_id: int, *_: Any) -> None:
    await _hook("cancel", task_id)


async def on_ignore(task_id: int, *_: Any) -> None:
    await _hook("ignore", task_id)
