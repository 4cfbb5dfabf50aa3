"""A node is parted from its server by a network that loses what is sent: others take over, and it comes back."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from fleet_folders import all_succeed, folder, open_gate, statuses
from network_support import ADVICE, Network, NoNetworks, far_server, network
from own_server import Housing
from run_support import notes, running, until
from server_fixtures import Database
from servers import SERVERS
from sqlalchemy import URL

from yaotask import App
from yaotask.errors import StorageError

pytest_plugins = ["own_server_fixtures"]
pytestmark = pytest.mark.timeout(180)

# A busy machine keeps nobody waiting for as long as a lease.
SETTINGS = "lease: 4s\nheartbeat: 1s\npoll: 200ms\n"
# The line of each.
FIRST, SECOND, ADDER = range(3)


@pytest.fixture
def lines() -> Iterator[Network]:
    try:
        with network(3) as made:
            yield made
    except NoNetworks as reason:
        pytest.skip(f"this system lets us make no networks ({reason}): {ADVICE}")


@pytest.fixture(params=list(SERVERS))
def address(request: pytest.FixtureRequest, lines: Network, housing: Housing) -> Iterator[Callable[[int], Database]]:
    """The database, as it is reached by a line."""
    kind = request.param
    with housing(kind) as place, far_server(kind, place, lines) as url:
        yield lambda line: Database(kind, _impatient(url(line)).render_as_string(hide_password=False))


def _impatient(url: URL) -> URL:
    """One whose lease is short does not wait for lost packets as long as others do."""
    waits = {"tcp_user_timeout": "1000"} if url.drivername.startswith("postgresql") else {"read_timeout": "1"}
    return url.update_query_dict({"connect_timeout": "1", **waits})


def at(tmp_path: Path, name: str, database: Database) -> Path:
    return folder(tmp_path, name, database, settings=SETTINGS)


def test_a_node_that_is_parted_from_the_server_loses_its_jobs_to_another_and_comes_back(
    tmp_path: Path, lines: Network, address: Callable[[int], Database]
) -> None:
    names = ("first", "second", "adder")
    a, b, c = (at(tmp_path, name, address(line)) for line, name in enumerate(names))
    with running(a) as one, running(b) as two, App(c) as app:
        app.tasks["hold"].add_many([[]] * 4)
        until(lambda: len(notes(a, "start")) == len(notes(b, "start")) == 2)
        lost = set(notes(a, "start"))

        lines.part(FIRST)
        open_gate(b)
        # Its two run on the other node, and so does what is added now.
        until(lambda: lost <= set(notes(b, "end")))
        app.tasks["hold"].add_many([[]] * 10)
        all_succeed(app, 14)
        before = {id: app.get(f"hold.{id}") for id in lost}

        lines.heal(FIRST)
        open_gate(a)
        # Whether its worker ends the two before it learns that they are others', or after: nothing of it counts.
        one.says("this node was out of reach for longer than its lease: others have taken over its jobs")
        until(lambda: one.errors.count("worker 1 is up") == 2)
        lines.part(SECOND)
        app.tasks["hold"].add_many([[]] * 10)
        all_succeed(app, 24)
        lines.heal(SECOND)
        for node in (one, two):
            node.signal(signal.SIGTERM)
            assert node.status() == 0, node.errors
        after = {id: app.get(f"hold.{id}") for id in lost}

    assert after == before
    assert lost <= set(notes(b, "end"))


def test_who_adds_over_a_line_that_is_parted_now_and_then_stores_each_job_once(
    tmp_path: Path, lines: Network, address: Callable[[int], Database]
) -> None:
    near, far = at(tmp_path, "near", address(FIRST)), at(tmp_path, "far", address(ADDER))
    ids: list[int] = []
    with App(near) as app, App(far) as parted:

        def add() -> None:
            for number in range(300):
                ids.append(until(partial(insist, parted, f"key {number}")))

        adder = threading.Thread(target=add, daemon=True)
        adder.start()
        for most in (20, 120, 220):
            until(lambda most=most: len(ids) > most)  # type: ignore[misc]
            lines.part(ADDER)
            until(lambda: not is_added_to(ids))
            lines.heal(ADDER)
        adder.join(60)

        assert len(set(ids)) == 300
        assert statuses(app) == {"WAITING": 300}


def insist(app: App, key: str) -> int:
    """The id of the job with this key; 0 where nobody can say."""
    try:
        return app.tasks["hold"].options(key=key).add()
    except StorageError:
        return 0


def is_added_to(ids: list[int]) -> bool:
    """Whether there are more of them half a second later."""
    before = len(ids)
    time.sleep(0.5)
    return len(ids) > before
