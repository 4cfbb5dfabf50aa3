"""How another thread gets something done on an event loop: at once, and together with what else came."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any
from weakref import ref

from anyio.lowlevel import RunVar, current_token

_bell: RunVar[Bell] = RunVar("yaotask_bell")


class Bell:
    """Calls functions on the event loop on which it was made.

    Calls keep their order; many that come between two turns of the loop cost it one wake-up. Once
    the loop has ended, calls are dropped: nobody is left who could want them.
    """

    def __init__(self) -> None:
        # Not held: the bell is kept by what anyio keeps for as long as the loop is there.
        self._loop: ref[Any] = ref(current_token().native_token)
        self._calls: deque[Callable[[], object]] = deque()
        self._rung = False

    @classmethod
    def of_this_loop(cls) -> Bell:
        """The one bell of the running loop."""
        bell = _bell.get(None)
        if bell is None:
            bell = cls()
            _bell.set(bell)
        return bell

    def call(self, function: Callable[[], object]) -> None:
        """Have `function` called on the loop, soon. From any thread; never blocks."""
        self._calls.append(function)
        if not self._rung:
            self._ring()

    def _ring(self) -> None:
        self._rung = True
        try:
            self._soon(self._answer)
        except RuntimeError:  # anyio's and both loops' way to say that the loop has ended
            self._calls.clear()
            self._rung = False
        except BaseException:  # for want of memory: the next call rings again
            self._rung = False
            raise

    def _soon(self, function: Callable[[], object]) -> None:
        loop = self._loop()
        if loop is None:
            raise RuntimeError("the loop has gone")
        # The two loops that anyio runs on have one such method each, under its own name.
        soon = getattr(loop, "call_soon_threadsafe", None) or loop.run_sync_soon
        soon(function)

    def _answer(self) -> None:
        # Lowered first: a call that comes from here on rings again.
        self._rung = False
        try:
            for _ in range(len(self._calls)):
                self._calls.popleft()()
        finally:
            # One that raised shall not keep those after it waiting for the next ring.
            if self._calls and not self._rung:
                self._ring()
