"""Many seeds, each of several processes up to the first that breaks a promise."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import NamedTuple

from simulation.run import Verdict, staged


class Played(NamedTuple):
    """What came of seeds."""

    seeds: int
    transitions: int
    broken: Sequence[Verdict]


def play(seeds: Sequence[int], seconds: float) -> Played:
    """Run one after the other here, up to the first that breaks a promise; after so many seconds none is begun."""
    deadline = time.monotonic() + seconds
    count = transitions = 0
    with staged() as stage:
        for seed in seeds:
            if count and time.monotonic() >= deadline:
                break
            try:
                verdict = stage.play(seed)
            except Exception as error:
                raise RuntimeError(f"seed {seed} came to no verdict") from error
            count, transitions = count + 1, transitions + len(verdict.facts.changes)
            if verdict.broken:
                return Played(count, transitions, [verdict])
    return Played(count, transitions, [])


def play_together(seeds: Sequence[int], processes: int, seconds: float) -> Played:
    """The same by several processes, each with its share of the seeds."""
    mine = partial(play, seconds=seconds)
    # One that is forked would begin with what this one has imported and drawn.
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        shares = list(pool.map(mine, [seeds[first::processes] for first in range(processes)]))
    broken = [verdict for share in shares for verdict in share.broken]
    return Played(sum(share.seeds for share in shares), sum(share.transitions for share in shares), broken)
