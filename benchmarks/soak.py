"""How often it has to be broken until it loses something: `python benchmarks/soak.py --minutes 5` on each database.

Servers are started here, and restarted by the run, in order and not. `--write` puts the table into docs/reliability.md.
For a release: `--minutes 70`, which comes to 1,000,000 jobs and 6,000 kills.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median

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

# In a minute; the run goes on for up to three times as long until it has seen so many.
LEAST_JOBS, LEAST_KILLS = 5_000, 30

Restart = Callable[[], None]


def soak(kind: str, minutes: float, seed: int, folder: Path) -> Report:
    """One run, on a database of its own."""
    with _store(kind, folder, Dice(seed)) as (url, restart):
        order = Order(
            store=url,
            folder=folder / "run",
            seed=seed,
            seconds=minutes * 60,
            callers=3,
            hands=3,
            jobs=round(minutes * LEAST_JOBS),
            kills=round(minutes * LEAST_KILLS),
            restart=restart,
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


def table(reports: Sequence[tuple[str, Report]]) -> str:
    """For people, in Markdown."""
    head = ["", *(NAMES[kind] for kind, _ in reports), "together"]
    rows = [head, ["---", *("---:" for _ in head[1:])]]

    def row(what: str, count: Callable[[Report], int]) -> None:
        counts = [count(report) for _, report in reports]
        rows.append([what, *(f"{number:,}" for number in (*counts, sum(counts)))])

    row("jobs", lambda report: report.jobs)
    row("handlers started", lambda report: report.starts)
    row("changes of rows, each looked up in the table of transitions", lambda report: sum(report.changes.values()))
    row("hooks called", lambda report: report.hooks)
    row("kills", lambda report: report.kills)
    row("processes that died of them", lambda report: report.killed)
    for kind in sorted({fault for _, report in reports for fault in report.faults}):
        row(f"`{kind}`", lambda report, kind=kind: report.faults.get(kind, 0))  # type: ignore[misc]
    row("adds of which nobody could say whether they were stored", lambda report: report.adds["unknown"])
    rows.append(["jobs of the dead run again after, median", *(_seconds(report, median) for _, report in reports), ""])
    rows.append(["the same, worst", *(_seconds(report, max) for _, report in reports), ""])
    row("**broken promises**", lambda report: len(report.violations))
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


def _seconds(report: Report, of: Callable[[Sequence[float]], float]) -> str:
    return f"{of(report.recoveries):.2f} s" if report.recoveries else ""


def about(reports: Sequence[tuple[str, Report]], minutes: float) -> str:
    """What that many say, and how to see it again."""
    if not reports:
        return "There was no database: nothing is proved."
    kills = sum(report.kills for _, report in reports)
    broken = sum(len(report.violations) for _, report in reports)
    seeds = ", ".join(sorted({str(report.seed) for _, report in reports}))
    run = f"Seed {seeds}, `--minutes {minutes:g}`"
    if broken:
        return f"{run}: {broken} promises were broken."
    if not kills or not holds(reports):
        untried = [f"{NAMES[kind]}: {what}" for kind, report in reports for what in report.untried]
        return f"{run}: nothing is proved. {'; '.join(untried) or 'Nothing was killed'}."
    return (
        f"{run}. None broken by {kills:,} kills means, by the rule of three: with"
        f" 95 % certainty a kill breaks one in at most {THREE / kills:.2%} of all cases."
    )


def holds(reports: Sequence[tuple[str, Report]]) -> bool:
    """Whether something was tried, on each of the databases, and nothing was broken."""
    return bool(reports) and all(report.holds for _, report in reports)


def main() -> int:
    """Run it; the exit status is 1 where a promise was broken, or nothing was tried."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", choices=KINDS, action="append", help="this one; may be given more than once")
    parser.add_argument("--minutes", type=float, default=5.0, help="on each database")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there too")
    parser.add_argument("--write", action="store_true", help="put the table into docs/reliability.md")
    options = parser.parse_args()
    reports: list[tuple[str, Report]] = []
    for kind in options.store or KINDS:
        folder = Path(tempfile.mkdtemp(prefix="yts-"))
        folder.chmod(0o711)  # PostgreSQL runs as another user where we are root
        try:
            report = soak(kind, options.minutes, options.seed, folder)
        except Missing as missing:
            print(f"{kind} is left out: {missing}", file=sys.stderr)
            continue
        print("", *report.lines(), "", sep="\n")
        reports.append((kind, report))
    print(table(reports), about(reports, options.minutes), sep="\n\n")
    if options.json:
        options.json.write_text(json.dumps([report.as_json() for _, report in reports], indent=2), encoding="utf-8")
    if options.write and reports:
        replace(PAGE, MARK, f"{table(reports)}\n\n{about(reports, options.minutes)}")
    return int(not holds(reports))


if __name__ == "__main__":
    sys.exit(main())
