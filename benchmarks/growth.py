"""What a steady rate of jobs does to a store: `python benchmarks/growth.py --store postgresql --minutes 10`.

Nothing is removed meanwhile, so that the tables grow with the jobs that are done. All else should stay as it is.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import growing
import machine
from databases import Missing, databases
from growing import Sample
from harness import Bench, answer, launch
from run import STORE

# What may differ between the last third and the first, and still count as flat.
TOLERANCE = 1.25
# Seconds between two looks for a new sample.
GLANCE = 0.5
HEADER = (
    "minutes",
    "jobs done",
    "claim",
    "jobs of a claim",
    "tables",
    "indexes",
    "live rows",
    "dead rows",
    "log a job",
    "vacuums",
)


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory(prefix="ytb-", dir=options.folder) as folder:
        try:
            with databases(options.store, Path(folder)) as stores:
                about = machine.describe(options.folder, stores.about())
                try:
                    samples = list(_measured(Bench(Path(folder), stores).project(), options))
                finally:
                    stores.drop()
        except Missing as missing:
            raise SystemExit(str(missing)) from missing
    print("\n".join(["", *verdict(samples), "", about]))
    if options.json:
        figures = [sample._asdict() for sample in samples]
        options.json.write_text(json.dumps({"about": about, "samples": figures}, indent=2), encoding="utf-8")


def _measured(root: Path, options: argparse.Namespace) -> Iterator[Sample]:
    """Each sample once it is there; it is printed as a line of the table."""
    written, seconds = root / "samples", options.minutes * 60
    written.touch()
    working = launch(growing.work, root, seconds=seconds, every=options.every, samples=str(written))
    adding = launch(growing.add_steadily, root, rate=options.rate, seconds=seconds)
    print(f"{line(HEADER)}\n{line(['---:'] * len(HEADER))}", flush=True)
    before = None
    try:
        with written.open() as file:
            ended = False
            while not ended:
                ended = working.poll() is not None
                for text in file:
                    sample = Sample(*json.loads(text))
                    print(line(cells(before, sample)), flush=True)
                    yield sample
                    before = sample
                time.sleep(GLANCE)
        added, done = answer(growing.add_steadily, adding), answer(growing.work, working)
    finally:
        adding.kill()
        working.kill()
    print(f"\n{added:,} jobs were added in {seconds:g} s, and {done:,} of them done.")


# --- the table ----------------------------------------------------------------------------------------------


def line(texts: Sequence[str]) -> str:
    return f"| {' | '.join(texts)} |"


def cells(before: Sample | None, sample: Sample) -> list[str]:
    """What stands in a line; the log is that of the time since the line before."""
    log = log_per_job(before, sample) if before else None
    return [
        f"{sample.minutes:.1f}",
        f"{sample.done:,}",
        _shown(sample.claim_ms, "{:.2f} ms"),
        _shown(sample.claimed, "{:g}"),
        _shown(sample.table_bytes / 1e6, "{:,.1f} MB"),
        _shown(sample.index_bytes and sample.index_bytes / 1e6, "{:,.1f} MB"),
        _shown(sample.live, "{:,}"),
        _shown(sample.dead, "{:,}"),
        _shown(log, "{:,.0f} bytes"),
        _shown(sample.vacuums, "{:,}"),
    ]


def _shown(value: float | None, how: str) -> str:
    return "" if value is None else how.format(value)


# --- the verdict --------------------------------------------------------------------------------------------


def verdict(samples: Sequence[Sample]) -> list[str]:
    """A line for each thing that should stay as it is: the last third of the time against the first."""
    pairs = list(pairwise(samples))
    measures: list[tuple[str, str, Sequence[float | None]]] = [
        ("claim", "ms", [sample.claim_ms for sample in samples]),
        ("claim, for each of its jobs", "ms", [_claim_per_job(sample) for sample in samples]),
        ("log a job", "bytes", [log_per_job(*pair) for pair in pairs]),
        ("dead rows of 100 live ones", "", [_dead_share(sample) for sample in samples]),
        ("tables and indexes, for a job more", "bytes", [bytes_per_job(*pair) for pair in pairs]),
    ]
    return [_judged(what, unit, [value for value in values if value is not None]) for what, unit, values in measures]


def _judged(what: str, unit: str, values: Sequence[float]) -> str:
    if len(values) < 3:
        return f"{what}: too few samples, or the database does not say"
    third = len(values) // 3
    first, last = statistics.median(values[:third]), statistics.median(values[-third:])
    word = "flat" if last <= first * TOLERANCE else "grows"
    return f"{what}: {word}, {first:.3g} {unit}".rstrip() + f", then {last:.3g} {unit}".rstrip()


def log_per_job(before: Sample, after: Sample) -> float | None:
    """What the database wrote to its log, for each job that was done."""
    if before.log is None or after.log is None:
        return None
    return _per_job(after.log - before.log, before, after)


def bytes_per_job(before: Sample, after: Sample) -> float | None:
    """By how much the store grew for each job that was done."""
    return _per_job(_size(after) - _size(before), before, after)


def _size(sample: Sample) -> int:
    return sample.table_bytes + (sample.index_bytes or 0)


def _per_job(amount: float, before: Sample, after: Sample) -> float | None:
    return amount / (after.done - before.done) if after.done > before.done else None


def _claim_per_job(sample: Sample) -> float | None:
    return sample.claim_ms / sample.claimed if sample.claim_ms is not None and sample.claimed else None


def _dead_share(sample: Sample) -> float | None:
    return 100 * sample.dead / sample.live if sample.dead is not None and sample.live else None


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", default="sqlite", help=STORE)
    parser.add_argument("--rate", type=int, default=1_000, help="jobs a second")
    parser.add_argument("--minutes", type=float, default=10, help="how long; 60 for the long form")
    parser.add_argument("--every", type=float, default=30, help="seconds between two samples")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="for the store")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all samples there too")
    return parser.parse_args()


if __name__ == "__main__":
    main()
