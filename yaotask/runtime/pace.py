"""How many jobs to claim ahead: by time, not by number."""

from __future__ import annotations

from yaotask.clock import SECOND, Clock

# What is claimed but not started yet should start within this.
AHEAD_FOR = 0.02
MOST_AHEAD = 1_024
# A shorter look says more about chance than about pace.
SHORTEST_LOOK = 0.002


class Pace:
    """Watches how fast a pool finishes its jobs. Belongs to the ledger's thread.

    Two measures, of which the lower one counts: how many jobs were finished lately, and how many the
    slots could finish if each took as long as the last ones. Jobs that take longer than we look ahead
    are never claimed ahead, also not when a hundred of them happen to end at once.
    """

    def __init__(self, clock: Clock, slots: int) -> None:
        self._clock = clock
        self._slots = slots
        self._since = clock.monotonic()
        self._finished = 0
        self._busy = 0
        self._ahead = 0

    def ahead(self, finished: int, busy: int) -> int:
        """How many claims to hold beyond the slots.

        `finished` jobs have been finished in all, on which handlers spent `busy` microseconds.
        """
        now = self._clock.monotonic()
        elapsed, jobs, spent = now - self._since, finished - self._finished, busy - self._busy
        if elapsed >= SHORTEST_LOOK:
            by_pace = jobs / elapsed
            by_length = jobs * SECOND / max(spent, 1)
            quick = by_length * AHEAD_FOR >= 1
            by_slots = self._slots * by_length
            self._ahead = int(min(by_pace * AHEAD_FOR, by_slots * AHEAD_FOR, MOST_AHEAD)) if quick else 0
            self._since, self._finished, self._busy = now, finished, busy
        return self._ahead
