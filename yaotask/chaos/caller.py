"""`python -m yaotask.chaos.caller FOLDER SEED`: a program that adds jobs and asks about them until SIGTERM.

Each call is written down before it is made, and what came of it after it. Only those of the store's errors that mean
that nothing was done count as a failure.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections import deque
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

from yaotask import App
from yaotask.chance import Dice
from yaotask.chaos.facts import FAIL, INFO, OK
from yaotask.chaos.history import History
from yaotask.errors import OutcomeUnknown, QueueFull, YaotaskError

Answer = dict[str, Any]

# What it says once it can be told to end.
READY = "calling"
THREADS = 4
# Of how many jobs of its own a caller may still ask.
KNOWN = 500
# How often each task gets a job, and each operation is called.
TASKS = {"quick": 42, "steady": 15, "apart": 6, "ledger": 10, "told": 18, "late": 3, "narrow": 6}
OPERATIONS = {"add": 80, "get": 10, "cancel": 7, "retry": 3}
ENDS = ("ok", "ok", "ok", "retry", "fail", "ignore")
# Seconds: most jobs are short; a few are long, and run when something happens to their worker.
SHORT, LONG, FEW = 0.02, 1.0, 0.1
BREATH = 0.04
# How long, at most, who finds a queue full waits before the next call.
PATIENCE = 0.4
# How often it looks whether it shall end.
LOOK = 0.1
REPEATS = 100
# How many adds with a key are made once more although they were answered.
AGAIN = 0.1


class Caller:
    """Calls from several threads; what they have in common is the history, and the jobs that were acknowledged."""

    def __init__(self, app: App, history: History, name: str) -> None:
        self._app = app
        self._history = history
        self._name = name
        self._numbers = count(1)
        self._known: deque[tuple[str, int]] = deque(maxlen=KNOWN)
        self.over = threading.Event()
        # By what no caller should ever be answered.
        self.failed: BaseException | None = None

    def work(self, dice: Dice) -> None:
        """Call something again and again, until it is over."""
        try:
            while not self.over.wait(dice.uniform(0, BREATH)):
                (operation,) = dice.choices(list(OPERATIONS), list(OPERATIONS.values()))
                if operation == "add" or not self._known:
                    self._add(dice)
                else:
                    self._ask(operation, *dice.choice(self._known))
        except BaseException as error:  # noqa: BLE001 - raised once all threads have ended
            self.failed = error
            self.over.set()

    def _add(self, dice: Dice) -> None:
        (task,) = dice.choices(list(TASKS), list(TASKS.values()))
        number = next(self._numbers)
        tag = f"{self._name}-{number}"
        key = f"key-{tag}" if dice.random() < 0.5 else None
        seconds = round(dice.uniform(0.2, LONG) if dice.random() < FEW else dice.uniform(0, SHORT), 4)
        args = [tag, seconds, dice.choice(ENDS)]
        told = {"operation": "add", "task": task, "tag": tag, "key": key}

        is_full = False

        def add() -> Answer:
            nonlocal is_full
            try:
                return {"id": self._app.tasks[task].options(key=key).add(*args)}
            except QueueFull:
                is_full = True
                raise

        answer = self._call(told, add)
        # What nobody can say is asked again with the same key: that can make no second job.
        for _ in range(REPEATS):
            if answer is not None or key is None or self.over.wait(BREATH):
                break
            answer = self._call(told, add)
        if is_full:
            self.over.wait(dice.uniform(0, PATIENCE))
        if answer:
            self._known.append((task, answer["id"]))
            if key is not None and dice.random() < AGAIN:
                self._call(told, add)

    def _ask(self, operation: str, task: str, id: int) -> None:
        handle = self._app.tasks[task]
        told = {"operation": operation, "task": task, "id": id}

        def get() -> Answer:
            job = handle.get(id)
            return {"seen": {"status": job["status"], "attempt": job["attempt"]}}

        def cancel() -> Answer:
            return {"did": handle.cancel(id)}

        def retry() -> Answer:
            handle.retry(id)
            return {}

        self._call(told, {"get": get, "cancel": cancel, "retry": retry}[operation])

    def _call(self, told: dict[str, Any], do: Callable[[], Answer]) -> Answer | None:
        """What was answered; {} where it was refused, None where nobody can say."""
        number = next(self._numbers)
        self._history.write(number, "invoke", at=self._app.clock.now(), **told)
        try:
            answer = do()
        except OutcomeUnknown as error:
            self._history.write(number, INFO, at=self._app.clock.now(), error=type(error).__name__)
            return None
        except YaotaskError as error:
            self._history.write(number, FAIL, at=self._app.clock.now(), error=type(error).__name__)
            return {}
        self._history.write(number, OK, at=self._app.clock.now(), **answer)
        return answer


def main(folder: Path, seed: str) -> None:
    """Call until SIGTERM; then what is under way is waited for."""
    with App(folder) as app:
        # Another process will follow in this folder, if this one is killed.
        name = f"{folder.name}-{app.chance.uuid()[:8]}"
        history = History(folder, name)
        caller = Caller(app, history, name)
        asked: list[int] = []
        # It takes no lock, which it might wait for while whom it has interrupted holds it.
        signal.signal(signal.SIGTERM, lambda number, _: asked.append(number))
        threads = [threading.Thread(target=caller.work, args=(Dice(f"{seed}-{number}"),)) for number in range(THREADS)]
        for thread in threads:
            thread.start()
        sys.stderr.write(f"{READY}\n")
        sys.stderr.flush()
        # Looked at again and again: a signal that comes just before a wait that has no end wakes nobody.
        while not asked and not caller.over.is_set():
            app.clock.pause(LOOK)
        caller.over.set()
        for thread in threads:
            thread.join()
        history.close()
        if caller.failed is not None:
            raise caller.failed


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
