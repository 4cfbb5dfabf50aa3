"""All benchmarks: `python benchmarks/run.py`. The machine should have nothing else to do.

With --quick it shows in a minute that all of them run, and holds what does not depend on the machine.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import adding
import draining
import history
import machine
import peers
import report
import starting
import waiting
from harness import Bench, Row

GROUPS: dict[str, Callable[[Bench], Iterator[Row]]] = {
    "drain": draining.rows,
    "add": adding.rows,
    "wait": waiting.rows,
    "progress": waiting.progress,
    "long-queue": draining.long_queue,
    "history": history.rows,
    "start": starting.rows,
    "peers": peers.rows,
}
README = Path(__file__).parent.parent / "README.md"
HOW = "One worker process; medians of five runs, with the least and the most; `python benchmarks/run.py` repeats them."


def main() -> None:
    options = _options()
    about = machine.describe(options.folder)
    rows = [row for name in options.only or _usual(options.peers) for row in _run(name, options.folder, options.quick)]
    print(f"\n{report.table(rows, aims=True)}\n\n{about}")
    if options.write_readme:
        report.replace(README, f"{report.table(rows, aims=False)}\n\n{HOW} {about}")


def _run(name: str, folder: Path, quick: bool) -> Iterator[Row]:
    """One group, whose stores are gone when it ends."""
    _say(f"{name} ...")
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="yaotask-benchmark-", dir=folder) as stores:
        for row in GROUPS[name](Bench(Path(stores), quick=quick)):
            _say("  " + "  ".join(report.cells(row)))
            yield row
    _say(f"  {time.perf_counter() - started:.1f} s")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _usual(peers: bool) -> list[str]:
    return [name for name in GROUPS if peers or name != "peers"]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a minute, to see that all works")
    parser.add_argument("--only", action="append", choices=GROUPS, help="this group; may be given more than once")
    parser.add_argument("--peers", action="store_true", help="compare with huey, which is installed for it")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="for the stores")
    parser.add_argument("--write-readme", action="store_true", help="put the table into README.md")
    options = parser.parse_args()
    if options.quick and options.write_readme:
        parser.error("the times of a quick run are not for README.md")
    return options


if __name__ == "__main__":
    main()
