"""How the workers of a node divide what their tasks may run at once: by number, without speaking to each other."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Share:
    """The part of worker `number`, counted from 0, of `of` workers."""

    number: int = 0
    of: int = 1

    def part(self, worker_nums: int, task: int) -> int:
        """How many jobs this worker may run at once of the task at position `task`; none where others run them all.

        The parts of all workers make up `worker_nums`. What does not divide evenly begins at another worker for
        each task, so that small numbers spread.
        """
        whole, rest = divmod(worker_nums, self.of)
        return whole + ((self.number - task) % self.of < rest)


WHOLE = Share()
