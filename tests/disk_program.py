"""A program that adds jobs and runs them, on a disk that is not to be trusted, and writes down what it was told.

It reads a JSON object: `root` of the project; `told`, the file to write to; `enough`, a file after whose appearance it
goes through one more round and ends; `rounds`, after which it ends anyway; `failures`, the syncs that shall fail, drawn
with `seed`; and `synchronous`, if that shall be another than ours. Its lines are `added KEY TASK ID`,
`failed KEY TASK ERROR`, `ended TASK ID`, and `refused ERROR` where it could not begin. Each round opens the store anew,
and in the last one no sync fails.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import anyio

from yaotask import App, JobNotFound, StorageError
from yaotask.store.dialects import sqlite

ADDERS, JOBS = 4, 6
# Before a sync fails, so many pass at most; and so many fail one after the other.
MOST_PASS, MOST_FAIL = 8, 3


class Told:
    """What was acknowledged, each line of it at once."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def note(self, *words: object) -> None:
        os.write(self._file, (" ".join(map(str, words)) + "\n").encode())


class Faults:
    """What is to fail of the disk, which is in failing_sync.c."""

    def __init__(self, most: int, enough: Path, seed: int) -> None:
        self._disk = ctypes.CDLL(None)
        self._most = most
        self._enough = enough
        self._random = Random(seed)  # noqa: S311 - the same faults each time

    def draw(self) -> None:
        """Let some of the next syncs fail, unless some are to fail already, or enough have."""
        if self._disk.failed_syncs() >= self._most:
            self._enough.touch()
        elif not self._disk.failing_syncs():
            self._disk.fail_syncs(self._random.randrange(MOST_PASS), self._random.randint(1, MOST_FAIL))


class Round:
    """Some add and wait for the ends, while the jobs are run beside them."""

    def __init__(self, app: App, told: Told, next_key: Callable[[], int], fault: Callable[[], None]) -> None:
        self._app = app
        self._told = told
        self._next_key = next_key
        self._fault = fault

    async def work(self) -> None:
        async with self._app.running(), anyio.create_task_group() as adders:
            for number in range(ADDERS):
                adders.start_soon(self._add_and_follow, ("mail", "pay")[number % 2])

    async def _add_and_follow(self, task: str) -> None:
        for _ in range(JOBS):
            self._fault()
            key = self._next_key()
            try:
                id = await self._app.tasks[task].options(key=str(key)).aadd()
            except StorageError as error:
                self._told.note("failed", key, task, type(error).__name__)
                continue
            self._told.note("added", key, task, id)
            with suppress(JobNotFound):  # whoever reads what was told will miss it
                async for view in self._app.afollow(f"{task}.{id}"):
                    if view["status"] == "SUCCESS":
                        self._told.note("ended", task, id)


def sync_as(synchronous: str) -> None:
    def configure(connection: Any, _record: Any) -> None:
        connection.execute(f"PRAGMA synchronous = {synchronous}")

    sqlite._configure = configure


def no_fault() -> None:
    """Nothing fails."""


def main(order: dict[str, Any]) -> None:
    told, enough, next_key = Told(order["told"]), Path(order["enough"]), partial(next, count(1))
    fault = Faults(order["failures"], enough, order["seed"]).draw if order["failures"] else no_fault
    for _ in range(order["rounds"]):
        last = enough.exists()
        try:
            with App(order["root"]) as app:
                anyio.run(Round(app, told, next_key, no_fault if last else fault).work)
        except StorageError as error:
            told.note("refused", type(error).__name__)
        if last:
            break


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    if asked["synchronous"]:
        sync_as(asked["synchronous"])
    main(asked)
