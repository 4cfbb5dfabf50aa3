"""What a node does besides running jobs, which is upkeep of the store. It calls none of users' code."""

from __future__ import annotations

import os

import anyio

from yaotask import processes, requests
from yaotask.app import App
from yaotask.channel import Channel
from yaotask.errors import YaotaskError
from yaotask.observers import logs
from yaotask.runtime.pulse import Pulse

DONE, FAULTY = 0, 3


def main(arguments: list[str]) -> int:
    """Serve until the supervisor says that it is over; the exit status."""
    channel, hello = processes.adopted(arguments)
    try:
        with App(hello["root"]) as app:
            logs.configure(app.settings.log)
            channel.send({"ready": True, "broken": {}})
            begin = channel.receive()
            if begin is not None and "begin" in begin:
                anyio.run(_serve, app, channel)
    except YaotaskError as error:
        channel.send({"complaint": str(error)})
        return FAULTY
    return DONE


async def _serve(app: App, channel: Channel) -> None:
    over = anyio.Event()
    pulse = Pulse(channel, app.clock, hook_timeout=app.settings.hook_timeout.total_seconds())
    async with anyio.create_task_group() as group:
        group.start_soon(pulse.turn)
        group.start_soon(_maintain, app, over)
        group.start_soon(_hear_supervisor, channel, over)
        group.start_soon(_hear_signals, over)
        with pulse.beating():
            await over.wait()
        group.cancel_scope.cancel()
    channel.send({"left": {}})


async def _maintain(app: App, over: anyio.Event) -> None:
    await app.works.maintenance().run()
    over.set()


async def _hear_supervisor(channel: Channel, over: anyio.Event) -> None:
    while (message := await channel.areceive()) is not None:
        if "stop" in message or "hurry" in message:
            over.set()
    # Its supervisor is dead.
    os._exit(1)


async def _hear_signals(over: anyio.Event) -> None:
    with anyio.open_signal_receiver(*requests.heard()) as signals:
        async for _ in signals:
            over.set()
