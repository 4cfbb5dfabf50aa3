"""How often it has to be broken until it loses something: `python benchmarks/soak.py` on each database.

One run follows the other, each on a new database, until all together have seen so many jobs and kills; after one that
breaks a promise, or proves nothing, there is no other seed, and its folder stays. Servers are started here, and
restarted by the runs, in order and not. `--write` puts the table into docs/reliability.md. For a release:
`--jobs 1000000 --kills 3000`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from math import inf
from pathlib import Path
from statistics import median
from typing import Any

from databases import SERVERS, Missing
from report import replace
from yaotask.chance import Dice
from yaotask.chaos.conduct import Moment, Order, Run
from yaotask.chaos.report import Report
from yaotask.clock import SystemClock

PAGE = Path(__file__).parent.parent / "docs" / "reliability.md"
MARK = "soak"
KINDS = ("sqlite", *SERVERS)
NAMES = {"sqlite": "SQLite", "postgresql": "PostgreSQL", "mariadb": "MariaDB"}
# Kills, of one chance in so many at most with 95 % certainty, where none of them lost anything (the rule of three).
THREE = 3
# What a run is like, as in Order; of the seconds between two faults of a hand: some two hundred jobs come to a kill.
USUAL: Mapping[str, Any] = {"rest": (0.8, 3.2), "hands": 2, "nodes": 2, "processes": 2}
# Of what is rare, in a run that shall have seen everything.
LEAST = {"pause-node": 10, "restart-server": 5, "cut-line": 20}

REST_HELP = "seconds for which each of the hands that break things rests between two faults"
AT_ONCE_HELP = (
    "let each run go on until it alone has seen all of them, with 10 paused nodes, on a server 5 restarts and 20 cut"
    " connections, for three times as many minutes at most"
)

Restart = Callable[[], None]
Reports = Sequence[tuple[str, Report]]


def soak(kind: str, minutes: float, seed: int, folder: Path, **more: Any) -> Report:
    """One run, on a database of its own; what is not `USUAL` as in Order."""
    with _store(kind, folder, Dice(seed)) as (url, restart):
        order = Order(
            store=url,
            folder=folder / "run",
            seed=seed,
            seconds=minutes * 60,
            callers=3,
            restart=restart,
            **{**USUAL, **more},
        )
        return Run(order, SystemClock(), partial(_show, kind)).report()


@contextmanager
def _store(kind: str, folder: Path, dice: Dice) -> Iterator[tuple[str, Restart | None]]:
    if kind == "sqlite":
        yield f"sqlite:///{folder / 'store.db'}", None
        return
    from own_server import OwnServer  # noqa: PLC0415 - the tests', which need the way that `databases` has shown

    place = folder / "server"
    place.mkdir()
    server = OwnServer(kind, place, SERVERS[kind])
    try:
        yield server.database().url, lambda: server.restart(gently=dice.random() < 0.5)
    finally:
        server.close()


def _show(kind: str, moment: Moment) -> None:
    jobs = sum(moment.jobs.values())
    line = f"\r{kind}: {moment.seconds:.0f} s, {moment.doing}, {jobs:,} jobs, {moment.faults} faults "
    print(line, end="", file=sys.stderr)


def table(reports: Reports) -> str:
    """For people, in Markdown: a column for each database, with the sums of its runs."""
    kinds = [kind for kind in KINDS if _of(kind, reports)]
    head = ["", *(NAMES[kind] for kind in kinds), "together"]
    rows = [head, ["---", *("---:" for _ in head[1:])]]

    def row(what: str, count: Callable[[Report], int]) -> None:
        counts = [sum(map(count, _of(kind, reports))) for kind in kinds]
        rows.append([what, *(f"{number:,}" for number in (*counts, sum(counts)))])

    row("runs", lambda report: 1)
    row("jobs", lambda report: report.jobs)
    row("handlers started", lambda report: report.starts)
    row("changes of rows, each looked up in the table of transitions", lambda report: sum(report.changes.values()))
    row("hooks called", lambda report: report.hooks)
    row("kills", lambda report: report.kills)
    row("processes that died of them", lambda report: report.killed)
    for fault in sorted({fault for _, report in reports for fault in report.faults}):
        row(f"`{fault}`", lambda report, fault=fault: report.faults.get(fault, 0))  # type: ignore[misc]
    row("adds of which nobody could say whether they were stored", lambda report: report.adds["unknown"])
    times = [[time for report in _of(kind, reports) for time in report.recoveries] for kind in kinds]
    rows.append(["jobs of the dead run again after, median", *(_seconds(median, some) for some in times), ""])
    rows.append(["the same, worst", *(_seconds(max, some) for some in times), ""])
    row("**broken promises**", lambda report: len(report.violations))
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


def _of(kind: str, reports: Reports) -> list[Report]:
    return [report for other, report in reports if other == kind]


def _seconds(of: Callable[[Sequence[float]], float], times: Sequence[float]) -> str:
    return f"{of(times):.2f} s" if times else ""


def about(reports: Reports, minutes: float, **more: Any) -> str:
    """What that many say, and how to see it again; `more` is what they were like, as in USUAL."""
    if not reports:
        return "There was no database: nothing is proved."
    kills = sum(report.kills for _, report in reports)
    broken = sum(len(report.violations) for _, report in reports)
    seeds = sorted({report.seed for _, report in reports})
    which = f"Seed {seeds[0]}" if len(seeds) == 1 else f"Seeds {seeds[0]} to {seeds[-1]}"
    asked = [f"--minutes {minutes:g}"]
    for name, value in more.items():
        if value != USUAL[name]:
            numbers = value if isinstance(value, tuple) else (value,)
            asked.append(" ".join([f"--{name}", *(f"{number:g}" for number in numbers)]))
    runs = f"{which}, `{' '.join(asked)}`"
    if broken:
        return f"{runs}: {broken} promises were broken."
    if not kills or not holds(reports):
        untried = [f"{NAMES[kind]}: {what}" for kind, report in reports for what in report.untried]
        return f"{runs}: nothing is proved. {'; '.join(untried) or 'Nothing was killed'}."
    return (
        f"{runs}. {kills:,} kills broke no promise. By the rule of three, with"
        f" 95 % confidence, at most {THREE / kills:.2%} of kills would break one."
    )


def holds(reports: Reports) -> bool:
    """Whether something was tried, in each of the runs, and nothing was broken."""
    return bool(reports) and all(report.holds for _, report in reports)


def is_enough(reports: Reports, jobs: int, kills: int) -> bool:
    """Whether all together have seen so many."""
    return sum(report.jobs for _, report in reports) >= jobs and sum(report.kills for _, report in reports) >= kills


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; the exit status is 1 where a promise was broken, or nothing was tried."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", choices=KINDS, action="append", help="this one; may be given more than once")
    parser.add_argument("--jobs", type=int, default=100_000, help="as many in all, at least")
    parser.add_argument("--kills", type=int, default=500, help="as many in all, at least")
    parser.add_argument("--minutes", type=float, default=4.0, help="for which each run breaks things")
    parser.add_argument("--seed", type=int, default=1, help="the first one")
    parser.add_argument("--rest", type=float, nargs=2, metavar=("LEAST", "MOST"), help=REST_HELP)
    parser.add_argument("--hands", type=int, help="so many break things at once")
    parser.add_argument("--nodes", type=int, help="so many nodes")
    parser.add_argument("--processes", type=int, help="so many workers in each of them")
    parser.set_defaults(**USUAL)
    parser.add_argument("--at-once", action="store_true", help=AT_ONCE_HELP)
    parser.add_argument("--within", type=float, default=inf, metavar="MINUTES", help="begin no other seed after them")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there too, after each run")
    parser.add_argument("--write", action="store_true", help="put the table into docs/reliability.md")
    options = parser.parse_args(arguments)
    kinds: list[str] = [*(options.store or KINDS)]
    options.rest = tuple(options.rest)
    like = {name: getattr(options, name) for name in USUAL}
    each: dict[str, Any] = dict(like)
    if options.at_once:
        each |= {"jobs": options.jobs, "kills": options.kills, "least": LEAST}
    reports: list[tuple[str, Report]] = []
    seed, clock = options.seed, SystemClock()
    deadline = clock.monotonic() + options.within * 60

    def is_over() -> bool:
        enough = is_enough(reports, options.jobs, options.kills) or clock.monotonic() >= deadline
        return not kinds or (bool(reports) and (enough or not holds(reports)))

    try:
        while not is_over():
            for kind in list(kinds):
                try:
                    reports.append((kind, _soaked(kind, options.minutes, seed, **each)))
                except Missing:
                    print(f"{kind} is left out: {SERVERS[kind].advice}", file=sys.stderr)
                    kinds.remove(kind)
                if options.json:
                    told = [report.as_json() for _, report in reports]
                    options.json.write_text(json.dumps(told, indent=2), encoding="utf-8")
            seed += 1
    finally:
        # Whatever ends it, hours of runs are told.
        print(table(reports), about(reports, options.minutes, **like), sep="\n\n")
        if not is_enough(reports, options.jobs, options.kills):
            print(f"\nOver before there were {options.jobs:,} jobs and {options.kills:,} kills.")
    if options.write and reports:
        replace(PAGE, MARK, f"{table(reports)}\n\n{about(reports, options.minutes, **like)}")
    return int(not holds(reports))


def _soaked(kind: str, minutes: float, seed: int, **more: Any) -> Report:
    folder = Path(tempfile.mkdtemp(prefix="yts-"))
    folder.chmod(0o711)  # PostgreSQL runs as another user where we are root
    is_over = False
    try:
        report = soak(kind, minutes, seed, folder, **more)
        is_over = report.holds
    except Missing:
        is_over = True
        raise
    finally:
        if is_over:
            shutil.rmtree(folder)
        else:
            print(f"what it left is in {folder}", file=sys.stderr)
    print("", *report.lines(), "", sep="\n", flush=True)
    return report


if __name__ == "__main__":
    sys.exit(main())
