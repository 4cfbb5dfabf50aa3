"""The real thing, broken on purpose: every promise is kept whatever is killed, stopped, cut and restarted.

Short where somebody waits for it; in CI, or with --scale, as long as it takes to see hundreds of deaths.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import scale_fixtures
from own_server import OwnServer
from servers import SERVERS

from yaotask.chaos.conduct import Moment, Order, Run
from yaotask.chaos.report import Report
from yaotask.clock import SystemClock

pytest_plugins = ["own_server_fixtures"]
pytestmark = pytest.mark.timeout(600)

SHORT, LONG = 8.0, 60.0
SEED = 20261126
# What a minute in CI comes to, at least; and each short run.
LEAST: Mapping[bool, Mapping[str, int]] = {
    True: {"jobs": 5_000, "kills": 60},
    False: {"jobs": 100, "kills": 1},
}


def order(store: str, folder: Path, *, long: bool, restart: Callable[[], None] | None = None) -> Order:
    seconds = LONG if long else SHORT
    jobs, kills = LEAST[long]["jobs"], LEAST[long]["kills"]
    return Order(
        store=store, folder=folder, seed=SEED, seconds=seconds, jobs=jobs, kills=kills, hands=3, restart=restart
    )


def broken(wanted: Order) -> Report:
    moments: list[Moment] = []
    report = Run(wanted, SystemClock(), moments.append).report()
    assert [moment.doing for moment in moments][-1] == "judges what happened"
    return report


def held(report: Report, *, long: bool) -> None:
    assert report.violations == []
    assert report.jobs >= LEAST[long]["jobs"], report
    assert report.kills >= LEAST[long]["kills"], report
    assert report.adds["acknowledged"] > 0
    assert report.starts > report.jobs / 2


@pytest.fixture(autouse=True)
def no_other_transition() -> None:
    """What breaks the table is for the checker to find."""


@pytest.fixture
def is_long(request: pytest.FixtureRequest) -> bool:
    return scale_fixtures.is_wanted(request.config)


def test_a_file_keeps_every_promise(tmp_path: Path, is_long: bool) -> None:
    report = broken(order(f"sqlite:///{tmp_path / 'store.db'}", tmp_path / "run", long=is_long))

    held(report, long=is_long)
    assert not is_long or report.faults["pause-node"] >= 5


# PyMySQL leaves a socket to the garbage collector where nobody listens at the other end.
@pytest.mark.filterwarnings("ignore:.*socket:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
@pytest.mark.parametrize("server", list(SERVERS), indirect=True)
def test_a_server_keeps_every_promise(tmp_path: Path, server: OwnServer, is_long: bool) -> None:
    dice = random.Random(SEED)  # noqa: S311 - which way it is restarted

    def restart() -> None:
        server.restart(gently=dice.random() < 0.5)

    report = broken(order(server.database().url, tmp_path / "run", long=is_long, restart=restart))

    held(report, long=is_long)
    assert not is_long or report.faults["restart-server"] >= 2
