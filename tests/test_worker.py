"""A worker's process: what it sets up, and that it waits for its store, and ends in order meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from node_support import nothing_left
from run_support import IN_A_THREAD, command, job, running, until

pytest_plugins = ["run_fixtures"]
pytestmark = pytest.mark.timeout(60)

# A worker imports its scripts first, and so finds that the store cannot be opened so many times.
AWAY = """
    import sys

    from yaotask.errors import StorageUnavailable
    from yaotask.store import opening

    plain, left = opening.open_store, [{times}]

    def open_store(*given, **named):
        if left[0] > 0 and "yaotask.worker" in sys.orig_argv:
            left[0] -= 1
            raise StorageUnavailable("nobody answers there")
        return plain(*given, **named)

    opening.open_store = open_store
"""
GARBAGE = """
    import gc

    {setting}
    MADE = [[]]

    def Hold(task_id):
        return [gc.get_threshold()[0], any(one is MADE for one in gc.get_objects())]
"""
WAITS = "the store cannot be opened, will go on trying: nobody answers there"


def test_a_worker_begins_once_the_store_can_be_opened(hold: Callable[..., Path]) -> None:
    root = hold(AWAY.format(times=2) + IN_A_THREAD)
    (root / "gate").touch()
    assert command(root, "add", "hold").returncode == 0
    with running(root) as node:
        until(lambda: job(root)["status"] == "SUCCESS")
        node.signal()
        assert node.status() == 0
        said = node.errors

    assert said.count(WAITS) == 1
    assert " died: " not in said


def test_a_worker_that_waits_for_its_store_ends_when_its_node_does(hold: Callable[..., Path]) -> None:
    root = hold(AWAY.format(times=1_000_000) + IN_A_THREAD)
    with running(root) as node:
        node.says(WAITS)
        node.signal()
        assert node.status() == 0
        said = node.errors

    assert " died: " not in said
    assert "killed" not in said
    nothing_left(root)


@pytest.mark.parametrize(
    ("setting", "young"),
    [("gc.set_threshold(700)", 2_000), ("gc.set_threshold(9_000)", 9_000), ("gc.set_threshold(0)", 0)],
)
def test_a_worker_seldom_looks_for_garbage_and_never_among_its_scripts(
    hold: Callable[..., Path], setting: str, young: int
) -> None:
    root = hold(GARBAGE.format(setting=setting))
    assert command(root, "add", "hold").returncode == 0
    assert command(root, "run", "--drain").returncode == 0

    assert job(root)["response"] == [young, False]
