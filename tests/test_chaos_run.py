"""The real thing, broken on purpose: every promise is kept whatever is killed, stopped, cut and restarted.

For a few seconds here; `benchmarks/soak.py` does the same for as long as one likes.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from own_server import OwnServer
from servers import SERVERS

from yaotask.chance import Dice
from yaotask.chaos.conduct import Moment, Order, Run
from yaotask.chaos.facts import Fault
from yaotask.chaos.report import Report
from yaotask.clock import SystemClock

pytest_plugins = ["own_server_fixtures"]
pytestmark = pytest.mark.timeout(300)

SECONDS = 8.0
SEED = 20261126
LEAST_JOBS, LEAST_KILLS, LEAST_OF_WORKERS = 100, 1, 2


def order(store: str, folder: Path, restart: Callable[[], None] | None = None) -> Order:
    return Order(
        store=store,
        folder=folder,
        seed=SEED,
        seconds=SECONDS,
        jobs=LEAST_JOBS,
        kills=LEAST_KILLS,
        # Of a kind that cannot be made there is none to wait for.
        least={"kill-worker": LEAST_OF_WORKERS, "no-such-fault": 1},
        hands=3,
        restart=restart,
    )


def broken(wanted: Order) -> Report:
    moments: list[Moment] = []
    report = Run(wanted, SystemClock(), moments.append).report()
    assert [moment.doing for moment in moments][-1] == "judges what happened"
    return report


def held(report: Report, folder: Path) -> None:
    assert report.violations == []
    assert report.holds, report.untried
    assert report.jobs >= LEAST_JOBS, report
    assert report.kills >= LEAST_KILLS, report
    assert report.faults["kill-worker"] >= LEAST_OF_WORKERS, report
    assert report.adds["acknowledged"] > 0
    assert report.starts > report.jobs / 2
    # A handler that ends by a mistake of the scratch project tries nothing of what it is there for.
    logs = "".join(log.read_text(encoding="utf-8", errors="replace") for log in folder.glob("node-*/log.txt"))
    assert "running; " in logs
    assert "TypeError" not in logs


@pytest.fixture(autouse=True)
def no_other_transition() -> None:
    """What breaks the table is for the checker to find."""


def test_a_file_keeps_every_promise(tmp_path: Path) -> None:
    held(broken(order(f"sqlite:///{tmp_path / 'store.db'}", tmp_path / "run")), tmp_path / "run")


def test_a_run_ends_once_a_fault_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def strike(dice: Dice) -> Fault | None:
        raise OSError("no such thing here")

    monkeypatch.setattr(Run, "_strikes", lambda run, access: {"kill-worker": strike})
    wanted = replace(order(f"sqlite:///{tmp_path / 'store.db'}", tmp_path / "run"), seconds=3_600)
    with pytest.raises(OSError, match="no such thing here"):
        Run(wanted, SystemClock(), lambda moment: None).report()


# PyMySQL leaves a socket to the garbage collector where nobody listens at the other end.
@pytest.mark.filterwarnings("ignore:.*socket:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
@pytest.mark.parametrize("server", list(SERVERS), indirect=True)
def test_a_server_keeps_every_promise(tmp_path: Path, server: OwnServer) -> None:
    dice = random.Random(SEED)  # noqa: S311 - which way it is restarted

    def restart() -> None:
        server.restart(gently=dice.random() < 0.5)

    held(broken(order(server.database().url, tmp_path / "run", restart)), tmp_path / "run")
