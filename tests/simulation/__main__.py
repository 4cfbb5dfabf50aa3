"""`PYTHONPATH=tests python -m simulation --seed 7`, or `--seeds 500 --processes 2` for many of them."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from math import inf

from simulation.run import Verdict, staged
from simulation.seeds import play_together


def main() -> int:
    parser = argparse.ArgumentParser(prog="simulation")
    parser.add_argument("--seed", type=int, default=0, help="the first seed, or the only one")
    parser.add_argument("--seeds", type=int, default=1, help="how many seeds, one after the other")
    parser.add_argument("--processes", type=int, default=1, help="how many processes share the seeds")
    parser.add_argument("--within", type=float, default=inf, metavar="MINUTES", help="begin no other seed after them")
    given = parser.parse_args()
    began = time.monotonic()
    told: Sequence[Verdict]
    if given.seeds == 1:
        with staged() as stage:
            verdict = stage.play(given.seed)
        played, transitions, told = 1, len(verdict.facts.changes), [verdict]
    else:
        seeds = range(given.seed, given.seed + given.seeds)
        played, transitions, told = play_together(seeds, given.processes, given.within * 60)
    for verdict in told:
        print(verdict, verdict.fingerprint[:16])  # noqa: T201 - what it is for
    seconds = time.monotonic() - began
    print(f"{played} seeds, {transitions} transitions, {seconds:.1f} s")  # noqa: T201
    return 1 if any(verdict.broken for verdict in told) else 0


if __name__ == "__main__":
    sys.exit(main())
