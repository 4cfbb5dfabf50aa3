"""`PYTHONPATH=tests python -m simulation --seed 7`, or `--seeds 500` up to the first that breaks a promise."""

from __future__ import annotations

import argparse
import sys
import time

from simulation.run import staged


def main() -> int:
    parser = argparse.ArgumentParser(prog="simulation")
    parser.add_argument("--seed", type=int, default=0, help="the first seed, or the only one")
    parser.add_argument("--seeds", type=int, default=1, help="how many seeds, one after the other")
    given = parser.parse_args()
    began, transitions, played, failed = time.monotonic(), 0, 0, False
    with staged() as stage:
        for seed in range(given.seed, given.seed + given.seeds):
            verdict = stage.play(seed)
            transitions += len(verdict.facts.changes)
            played, failed = played + 1, bool(verdict.broken)
            if failed or given.seeds == 1:
                print(verdict, verdict.fingerprint[:16])  # noqa: T201 - what it is for
            if failed:
                break
    seconds = time.monotonic() - began
    print(f"{played} seeds, {transitions} transitions, {seconds:.1f} s")  # noqa: T201
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
