"""Ids of jobs, reserved in the store a block at a time (hi-lo), so that they are known before the insert."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Protocol

# A process that adds one job takes one id; one that keeps adding soon takes so many at once.
LARGEST_BLOCK = 1_024


class OutOfIds(Exception):
    """More ids of a task are needed than this process has reserved."""

    def __init__(self, task: str, count: int) -> None:
        super().__init__(f"{count} more ids of {task} are needed")
        self.task = task
        self.count = count


class Ids(Protocol):
    """Where generated ids come from."""

    def draw(self, task: str, count: int) -> Iterator[int]:
        """So many ids that nobody else gets."""
        ...


class IdsOnTheSpot:
    """Ids reserved one by one on somebody else's transaction, and kept nowhere: if it is rolled back,
    they were never ours.
    """

    def __init__(self, reserve: Callable[[str, int], int]) -> None:
        self._reserve = reserve

    def draw(self, task: str, count: int) -> Iterator[int]:
        """So many ids that nobody else gets, if this transaction is committed."""
        first = self._reserve(task, count) if count else 0
        return iter(range(first, first + count))


class IdBlocks:
    """The ids that this process may give out. Belongs to one thread."""

    def __init__(self) -> None:
        self._free: dict[str, deque[range]] = {}
        self._block: dict[str, int] = {}

    def draw(self, task: str, count: int) -> Iterator[int]:
        """So many ids that nobody else gets. Raises OutOfIds, before any is drawn, if too few are left."""
        free = self._free.get(task, ())
        missing = count - sum(map(len, free))
        if missing > 0:
            raise OutOfIds(task, missing)
        drawn: list[int] = []
        while len(drawn) < count:
            block = self._free[task].popleft()
            taken, rest = block[: count - len(drawn)], block[count - len(drawn) :]
            drawn += taken
            if rest:
                self._free[task].appendleft(rest)
        return iter(drawn)

    def missing(self, task: str, count: int) -> int:
        """How many ids are missing to draw so many."""
        return max(0, count - sum(map(len, self._free.get(task, ()))))

    def refill(self, task: str, count: int, reserve: Callable[[str, int], int]) -> None:
        """Reserve at least `count` more; `reserve(task, size)` answers the first of a new block."""
        size = max(count, self._block.get(task, 1))
        first = reserve(task, size)
        self._free.setdefault(task, deque()).append(range(first, first + size))
        self._block[task] = min(size * 2, LARGEST_BLOCK)
