"""The command line in this process, taken in with `pytest_plugins = ["cli_fixtures"]`."""

from __future__ import annotations

import pytest
from cli_support import Ended, Run

from yaotask.cli import main


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs one command line in this process, as if into pipes."""

    def run(*words: object) -> Ended:
        capsys.readouterr()
        status = main([str(word) for word in words])
        return Ended(status, *capsys.readouterr())

    return run
