"""The databases that tests run on: a test that asks for `database`, itself or through a fixture, runs on each.

`only_on` marks what not all of them have: `only_on("sqlite")` are its files, its lock, pragmas and plans.
With `--databases sqlite` no server is needed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import scale_fixtures
from servers import ROOM, ROOM_AT_SCALE, SERVERS, Missing, Servers

DATABASES = ("sqlite", *SERVERS)
UNWANTED = "unwanted"
SQLITE_URL = "sqlite:///.yaotask/yaotask.db"

_SERVERS = pytest.StashKey[Servers]()


@dataclass(frozen=True)
class Database:
    """An empty database; the `url` of SQLite is below the root of whoever opens it."""

    kind: str
    url: str

    @property
    def is_server(self) -> bool:
        return self.kind in SERVERS

    @property
    def setting(self) -> str:
        """What a project's settings say of it."""
        return f"store: {json.dumps(self.url)}\n" if self.is_server else ""


def pytest_addoption(parser: pytest.Parser) -> None:
    usual = ",".join(DATABASES)
    parser.addoption("--databases", default=usual, help=f"run tests of the store on these (default: {usual})")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "only_on(*databases): about what these databases alone have")
    begun_by = getattr(config, "workerinput", {}).get("servers")
    room = ROOM_AT_SCALE if scale_fixtures.is_wanted(config) else ROOM
    config.stash[_SERVERS] = Servers(Path(begun_by)) if begun_by else Servers.begin(room)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: object) -> None:
    """Let a process of pytest-xdist use the servers of all."""
    node.workerinput["servers"] = str(node.config.stash[_SERVERS].folder)  # type: ignore[attr-defined]


def pytest_unconfigure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        config.stash[_SERVERS].end()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "database" in metafunc.fixturenames:
        own = metafunc.definition.get_closest_marker("only_on")
        wanted = metafunc.config.getoption("--databases").split(",")
        kinds = [kind for kind in (own.args if own else DATABASES) if kind in wanted]
        metafunc.parametrize("database", kinds or [UNWANTED], indirect=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is about databases that are not wanted.

    On servers async tests run on asyncio alone: how a loop waits has nothing to do with the database.
    """
    left_out = [item for item in items if _database_of(item) == UNWANTED or _is_trio_on_a_server(item)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        kept = set(items) - set(left_out)
        items[:] = [item for item in items if item in kept]


def pytest_collection_finish(session: pytest.Session) -> None:
    """Start what is needed before the first test, whose time is short."""
    needed = {_database_of(item) for item in session.items} & SERVERS.keys()
    for kind in needed if not session.config.option.collectonly else ():
        try:
            session.config.stash[_SERVERS].url(str(kind))
        except Missing:
            pass  # its tests say so, each for itself


def _database_of(item: pytest.Item) -> str | None:
    """What a test runs on, if it asks for a database."""
    return _parameter(item, "database")


def _is_trio_on_a_server(item: pytest.Item) -> bool:
    return _database_of(item) in SERVERS and _parameter(item, "anyio_backend") == "trio"


def _parameter(item: pytest.Item, name: str) -> str | None:
    call = getattr(item, "callspec", None)
    return call.params.get(name) if call else None


@pytest.fixture
def servers(request: pytest.FixtureRequest) -> Servers:
    return request.config.stash[_SERVERS]


@pytest.fixture
def database(request: pytest.FixtureRequest, servers: Servers) -> Iterator[Database]:
    kind = getattr(request, "param", "sqlite")
    if kind not in SERVERS:
        yield Database(kind, SQLITE_URL)
        return
    try:
        servers.url(kind)
    except Missing as missing:
        pytest.skip(str(missing))
    with servers.database(kind) as url:
        yield Database(kind, url.render_as_string(hide_password=False))
