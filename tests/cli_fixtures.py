"""The command line in this process, taken in with `pytest_plugins = ["cli_fixtures"]`."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from cli_support import Ended, Run

from yaotask.cli import main
from yaotask.observers.logs import LOGGER


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Runs one command line in this process, as if into pipes; what it does to the log is undone."""

    def run(*words: object) -> Ended:
        capsys.readouterr()
        status = main([str(word) for word in words])
        return Ended(status, *capsys.readouterr())

    logger = logging.getLogger(LOGGER)
    handlers, level, propagate = list(logger.handlers), logger.level, logger.propagate
    yield run
    logger.handlers[:] = handlers
    logger.setLevel(level)
    logger.propagate = propagate
