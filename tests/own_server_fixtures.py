"""The fixture of tests that have a server of their own, taken in with `pytest_plugins = ["own_server_fixtures"]`."""

from __future__ import annotations

import gc
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from own_server import HONEST, OwnServer
from servers import SERVERS, Missing, Servers


@pytest.fixture
def server(
    request: pytest.FixtureRequest, servers: Servers, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> Iterator[OwnServer]:
    kind = request.param
    if kind not in request.config.getoption("--databases").split(","):
        pytest.skip("not one of --databases")
    for name, value in HONEST[kind].items():
        monkeypatch.setitem(SERVERS[kind].options, name, value)
    place = Path(tempfile.mkdtemp(prefix="own-", dir=servers.folder))
    try:
        own = OwnServer(kind, place)
    except Missing:
        pytest.skip(SERVERS[kind].advice)
    yield own
    own.close()
    # While its test may still leave something to be found, which the errors in the log hold on to.
    caplog.get_records("call").clear()
    gc.collect()
    shutil.rmtree(place, ignore_errors=True)
