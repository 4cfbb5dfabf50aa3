"""What is committed last against an earlier revision: `python benchmarks/against.py REVISION`.

Both drain no-ops with one worker, in turn, as `yaotask run --drain` does; what is compared is the time from the
first claim to the last end, and the processor time of a job in all processes of the node. What the start of
these takes is not in it: it is what many jobs cost more than a few.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import text

import project
from databases import asking
from yaotask.clock import SECOND

ROOT = Path(__file__).parent.parent
GIT = shutil.which("git") or "git"
TASK = "noop"
# Enough for all processes of a node to have started, services after the workers too, whose start costs as much.
FEW = 40_000
ADD = """
from yaotask import App
with App({root!r}) as app:
    app.tasks["noop"].add_many([number] for number in range({jobs}))
"""
WINDOW = "SELECT max(finished_at) - min(claimed_at) FROM yaotask_jobs"


class Installed(NamedTuple):
    """A revision of ours, with a Python of its own."""

    name: str
    python: Path


class Cost(NamedTuple):
    """What a drain took: seconds from the first claim to the last end, and of processor time in all."""

    window: float
    cpu: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("revision", help="the earlier one, as git names it")
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--jobs", type=int, default=200_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="yta-") as folder:
        sides = [_installed(Path(folder), revision) for revision in (options.revision, "HEAD")]
        _compare(Path(folder), sides, options.pairs, options.jobs)


def _installed(folder: Path, revision: str) -> Installed:
    """A clone of ours at a revision, in an environment with all that it requires."""
    place = folder / f"at-{revision}"
    _run(GIT, "clone", "--quiet", str(ROOT), str(place))
    _run(GIT, "-C", str(place), "checkout", "--quiet", _commit(revision))
    _run(sys.executable, "-m", "venv", str(place / ".venv"))
    _run(str(place / ".venv" / "bin" / "pip"), "install", "--quiet", str(place))
    return Installed(revision, place / ".venv" / "bin" / "python")


def _commit(revision: str) -> str:
    command = [GIT, "-C", str(ROOT), "rev-parse", "--verify", f"{revision}^{{commit}}"]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


def _run(*command: str) -> None:
    subprocess.run(command, check=True)


def _compare(folder: Path, sides: Sequence[Installed], pairs: int, jobs: int) -> None:
    for side in sides:
        _drain(folder, side, FEW)  # the first time Python compiles what it imports
    speeds, costs = [], []
    for number in range(pairs):
        # Each goes first in every other pair.
        turns = sides if number % 2 == 0 else sides[::-1]
        found = {side.name: _measure(folder, side, jobs) for side in turns}
        then, now = (found[side.name] for side in sides)
        speeds.append(then.window / now.window)
        costs.append(now.cpu / then.cpu)
        print(f"{then.window:.2f} s, now {now.window:.2f}; {then.cpu:.1f} µs a job, now {now.cpu:.1f}", flush=True)
    print(f"speed, of the earlier: {_spread(speeds)}")
    print(f"processor time of a job, of the earlier: {_spread(costs)}")


def _spread(ratios: Sequence[float]) -> str:
    return f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"


def _measure(folder: Path, side: Installed, jobs: int) -> Cost:
    few, many = _drain(folder, side, FEW), _drain(folder, side, jobs)
    return Cost(many.window, (many.cpu - few.cpu) * 1e6 / (jobs - FEW))


def _drain(folder: Path, side: Installed, jobs: int) -> Cost:
    """One drain of a new store; here `cpu` is all that was spent."""
    root = Path(tempfile.mkdtemp(dir=folder))
    project.write(root, {})
    _run(str(side.python), "-P", "-c", ADD.format(root=str(root), jobs=jobs))
    before = _children()
    command = [str(side.python.with_name("yaotask")), "-a", str(root), "run", "--drain"]
    done = subprocess.run(command, capture_output=True, text=True)
    spent = _children() - before
    assert done.returncode == 0, done.stderr
    project.check_succeeded(root, TASK, jobs)
    with asking(root) as connection:
        window = connection.execute(text(WINDOW)).scalar_one() / SECOND
    shutil.rmtree(root)
    return Cost(window, spent)


def _children() -> float:
    """Processor time of all that has ended and was waited for, by us or by those."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
