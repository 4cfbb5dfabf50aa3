"""A program that begins moves and ends itself in the middle of each, as `kill -9` would.

It reads one JSON object a line: `root`, `here`, `there`, and `at`: the commit at which it ends, counted from 1, and
whether `before` it or after it. It answers each with `true` where the move came to its end before. Batches are small.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from sqlalchemy.engine import Connection

from yaotask.chance import SystemChance
from yaotask.clock import SystemClock
from yaotask.store.moving import copying
from yaotask.store.moving.move import move
from yaotask.store.opening import place
from yaotask.store.writer import Writer

SMALL = 150


def end_at(at: int, before: bool) -> None:
    """End this process at its so-manieth commit."""
    commit, commits = Writer._commit, iter(range(1, 1_000_000))

    def counted(self: Writer, connection: Connection) -> None:
        due = next(commits) == at
        if due and before:
            os.kill(os.getpid(), signal.SIGKILL)
        commit(self, connection)
        if due:
            os.kill(os.getpid(), signal.SIGKILL)

    Writer._commit = counted  # type: ignore[method-assign]


def try_to_move(order: dict[str, Any]) -> None:
    end_at(order["at"], order["before"])
    copying.MOST_ROWS = SMALL
    root = Path(order["root"])
    move(place(root, order["here"]), place(root, order["there"]), SystemClock, SystemChance(), lambda step: None)


def in_a_process_of_its_own(order: dict[str, Any]) -> bool:
    child = os.fork()
    if not child:
        try:
            try_to_move(order)
        except BaseException:  # noqa: BLE001 - a child must not go on as its parent
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return False
    assert os.WEXITSTATUS(status) == 0
    return True


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(in_a_process_of_its_own(json.loads(line))), flush=True)  # noqa: T201 - its answer
