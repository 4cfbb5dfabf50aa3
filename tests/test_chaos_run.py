"""The real thing, broken on purpose: every promise is kept whatever is killed, stopped, cut and restarted.

Short where somebody waits for it; in CI, or with --scale, as long as it takes to see hundreds of deaths.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path

import pytest
import scale_fixtures
from own_server import OwnServer
from servers import SERVERS

from yaotask.chaos.conduct import Moment, Order, Run
from yaotask.chaos.report import Report
from yaotask.clock import SystemClock

pytest_plugins = ["own_server_fixtures"]
pytestmark = pytest.mark.timeout(400)

SHORT, LONG = 8.0, 60.0
SEED = 20261126
# What each minute in CI comes to, at least; and each short run.
LEAST: Mapping[bool, Mapping[str, int]] = {
    True: {"jobs": 5_000, "kills": 60},
    False: {"jobs": 100, "kills": 1},
}


def broken(order: Order) -> Report:
    moments: list[Moment] = []
    report = Run(order, SystemClock(), moments.append).report()
    assert [moment.doing for moment in moments][-1] == "judges what happened"
    return report


def held(report: Report, *, long: bool) -> None:
    assert report.violations == []
    assert report.jobs >= LEAST[long]["jobs"], report
    assert report.kills >= LEAST[long]["kills"], report
    assert report.adds["acknowledged"] > 0
    assert report.starts >= report.jobs * 0.8


@pytest.fixture
def is_long(request: pytest.FixtureRequest) -> bool:
    return scale_fixtures.is_wanted(request.config)


def test_a_file_keeps_every_promise(tmp_path: Path, is_long: bool) -> None:
    store = f"sqlite:///{tmp_path / 'store.db'}"
    order = Order(store=store, folder=tmp_path / "run", seed=SEED, seconds=LONG if is_long else SHORT)
    held(broken(order), long=is_long)


# PyMySQL leaves a socket to the garbage collector where nobody listens at the other end.
@pytest.mark.filterwarnings("ignore:.*socket:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
@pytest.mark.parametrize("server", list(SERVERS), indirect=True)
def test_a_server_keeps_every_promise(tmp_path: Path, server: OwnServer, is_long: bool) -> None:
    dice = random.Random(SEED)  # noqa: S311 - which way it is restarted
    order = Order(
        store=server.database().url,
        folder=tmp_path / "run",
        seed=SEED,
        seconds=LONG if is_long else SHORT,
        restart=lambda: server.restart(gently=dice.random() < 0.5),
    )
    held(broken(order), long=is_long)
