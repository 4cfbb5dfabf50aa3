"""The fixture of tests that have a server of their own, taken in with `pytest_plugins = ["own_server_fixtures"]`."""

from __future__ import annotations

import gc
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from own_server import HONEST, Housing, OwnServer
from servers import SERVERS, Missing, Servers


@pytest.fixture
def housing(request: pytest.FixtureRequest, servers: Servers, caplog: pytest.LogCaptureFixture) -> Housing:
    """Folders for servers that belong to the test, which is skipped where their kind is unwanted or missing."""

    @contextmanager
    def house(kind: str) -> Iterator[Path]:
        if kind not in request.config.getoption("--databases").split(","):
            pytest.skip("not one of --databases")
        place = Path(tempfile.mkdtemp(prefix="own-", dir=servers.folder))
        place.chmod(0o711)  # PostgreSQL runs as another user where we are root
        try:
            yield place
        except Missing:
            pytest.skip(SERVERS[kind].advice)
        finally:
            # While its test may still leave something to be found, which the errors in the log hold on to.
            caplog.get_records("call").clear()
            gc.collect()
            shutil.rmtree(place, ignore_errors=True)

    return house


@pytest.fixture
def server(request: pytest.FixtureRequest, housing: Housing, monkeypatch: pytest.MonkeyPatch) -> Iterator[OwnServer]:
    kind = request.param
    with housing(kind) as place:
        for name, value in HONEST[kind].items():
            monkeypatch.setitem(SERVERS[kind].options, name, value)
        own = OwnServer(kind, place)
        yield own
        own.close()
