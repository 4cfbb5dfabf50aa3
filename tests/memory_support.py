"""A control group of Linux: the kernel limits the memory of its processes, and ends one where there is no more."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from run_support import until

MEGABYTE = 1 << 20


class Version(NamedTuple):
    """Where the groups of one of the two versions of control groups are, and how they call things."""

    folder: Path
    most: str
    # Of memory and what is swapped out in the first version, of what is swapped out alone in the second.
    swap: str
    kills: str

    def swap_of(self, most: int) -> int:
        return most if self.most == "memory.limit_in_bytes" else 0


VERSIONS = (
    Version(
        Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.oom_control"
    ),
    Version(Path("/sys/fs/cgroup"), "memory.max", "memory.swap.max", "memory.events"),
)


class NoGroup(Exception):
    """This system lets us make no group; says why."""


class MemoryGroup:
    """A control group of so many bytes."""

    def __init__(self, version: Version, most: int) -> None:
        self._version = version
        self._folder = version.folder / f"yaotask-{os.getpid()}"
        self._folder.mkdir()
        try:
            (self._folder / version.most).write_text(str(most))
            with suppress(FileNotFoundError):  # where swap is not counted
                (self._folder / version.swap).write_text(str(version.swap_of(most)))
            self.killed()
        except BaseException:
            self._folder.rmdir()
            raise

    @property
    def members(self) -> Path:
        """The file in which a process writes its number to belong to it."""
        return self._folder / "cgroup.procs"

    def killed(self) -> int:
        """How many of its processes the kernel has ended because there was no more memory."""
        told = dict(line.split() for line in (self._folder / self._version.kills).read_text().splitlines())
        return int(told["oom_kill"])

    def remove(self) -> None:
        """End what is left in it, and the group."""
        until(self._is_removed)

    def _is_removed(self) -> bool:
        for pid in self.members.read_text().split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        try:
            self._folder.rmdir()
        except OSError:
            return False  # the kernel has not let go of the last one yet
        return True


@contextmanager
def memory_group(most: int) -> Iterator[MemoryGroup]:
    """A group of so many bytes, which is gone afterwards. Raises NoGroup."""
    group = _made(most)
    try:
        yield group
    finally:
        group.remove()


def _made(most: int) -> MemoryGroup:
    if sys.platform != "linux":
        raise NoGroup("it is not Linux")
    reasons = []
    for version in VERSIONS:
        try:
            return MemoryGroup(version, most)
        except (OSError, KeyError) as error:
            reasons.append(str(error))
    raise NoGroup("; ".join(reasons))
