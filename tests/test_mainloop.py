"""Loops that users' code ends: it is told at once, before asyncio cancels what others run there."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import NoReturn

import anyio
import anyio.lowlevel
import pytest

from yaotask import mainloop


class Over(Exception):
    pass


def stop() -> None:
    asyncio.get_running_loop().stop()


def leave() -> None:
    asyncio.get_running_loop().call_soon(sys.exit)


@pytest.mark.parametrize(("end", "kind"), [(stop, RuntimeError), (leave, SystemExit)])
def test_the_end_of_a_loop_before_its_work_is_told(end: Callable[[], None], kind: type[BaseException]) -> None:
    told: list[BaseException] = []
    cancelled: list[bool] = []

    def on_end(error: BaseException) -> NoReturn:
        told.append(error)
        assert not cancelled
        raise Over

    async def work() -> None:
        end()
        try:
            await anyio.sleep_forever()
        finally:
            cancelled.append(True)

    with pytest.raises(Over):
        mainloop.run(work, on_end)

    assert [type(error) for error in told] == [kind]


def test_work_that_ends_by_itself_is_told_to_nobody() -> None:
    def on_end(error: BaseException) -> NoReturn:
        raise AssertionError(error)

    mainloop.run(anyio.lowlevel.checkpoint, on_end)
