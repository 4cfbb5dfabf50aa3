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
import nodes
import peers
import report
import starting
import upkeep
import waiting
from databases import KINDS, Databases, Missing, databases
from harness import Bench, Row

GROUPS: dict[str, Callable[[Bench], Iterator[Row]]] = {
    "drain": draining.rows,
    "processes": nodes.rows,
    "upkeep": upkeep.rows,
    "add": adding.rows,
    "wait": waiting.rows,
    "progress": waiting.progress,
    "long-queue": draining.long_queue,
    "history": history.rows,
    "start": starting.rows,
    "peers": peers.rows,
}
# Nearly the same on all databases: a quick run on a server does without.
ALIKE = ("processes", "history", "start")
ROOT = Path(__file__).parent.parent
# Where the tables are shown: a page, and the mark in it.
PAGES = {
    "sqlite": (ROOT / "README.md", "benchmark"),
    "postgresql": (ROOT / "docs" / "databases.md", "benchmark postgresql"),
    "mysql": (ROOT / "docs" / "databases.md", "benchmark mysql"),
}
HOW = (
    "One worker process; medians of five runs, with the least and the most; `python benchmarks/run.py{}` repeats them."
)


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory(prefix="ytb-", dir=options.folder) as folder:
        try:
            with databases(options.store, Path(folder)) as stores:
                _measure(options, Path(folder), stores)
        except Missing as missing:
            if not options.quick:
                raise SystemExit(str(missing)) from missing
            print(f"skipped: {missing}")


def _measure(options: argparse.Namespace, folder: Path, stores: Databases) -> None:
    about = machine.describe(options.folder, stores.about())
    names = options.only or _usual(options.peers, hurried=options.quick and stores.kind != "sqlite")
    rows = [row for name in names for row in _run(name, folder, stores, options.quick)]
    print(f"\n{report.table(rows, aims=True)}\n\n{about}")
    if options.json:
        options.json.write_text(report.as_json(rows, about), encoding="utf-8")
    if options.write:
        how = HOW.format("" if stores.kind == "sqlite" else f" --store {_word(options.store)}")
        report.replace(*PAGES[stores.kind], f"{report.table(rows, aims=False)}\n\n{how} {about}")


def _word(store: str) -> str:
    """What documents say of a store: never an address, which may hold a password."""
    return store if store in KINDS else "URL"


def _run(name: str, folder: Path, stores: Databases, quick: bool) -> Iterator[Row]:
    """One group, whose stores are gone when it ends."""
    _say(f"{name} ...")
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=folder) as projects:
        try:
            for row in GROUPS[name](Bench(Path(projects), stores, quick=quick)):
                _say("  " + "  ".join(report.cells(row)))
                yield row
        finally:
            stores.drop()
    _say(f"  {time.perf_counter() - started:.1f} s")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _usual(peers: bool, *, hurried: bool) -> list[str]:
    left_out = {*(() if peers else ("peers",)), *(ALIKE if hurried else ())}
    return [name for name in GROUPS if name not in left_out]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a minute, to see that all works")
    parser.add_argument("--only", action="append", choices=GROUPS, help="this group; may be given more than once")
    parser.add_argument("--store", default="sqlite", help=STORE)
    parser.add_argument("--peers", action="store_true", help="compare with huey, which is installed for it")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="for the stores")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there too")
    parser.add_argument("--write", action="store_true", help="put the table into README.md, a server's into docs/")
    options = parser.parse_args()
    if options.quick and options.write:
        parser.error("the times of a quick run are not for readers")
    return options


STORE = (
    f"{', '.join(KINDS)}: the last two start a server for it. Or an address, such as"
    " postgresql://USER:PASSWORD@HOST/DATABASE, whose user may create databases"
)


if __name__ == "__main__":
    main()
