"""A disk whose syncs fail: nobody is told that something is stored which is not, and it is used again when it works."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from disk_support import Disk, Told, broken_promises
from run_support import drained

from yaotask import App

pytest_plugins = ["disk_fixtures"]
pytestmark = pytest.mark.timeout(90)

FAILURES = 30

# Creates stores, while one sync of each fails, a later one each time, until none has failed; tells what came of it.
CREATOR = """
import ctypes, json, sqlite3, sys
from itertools import count
from pathlib import Path
from yaotask.chance import SystemChance
from yaotask.clock import SystemClock
from yaotask.errors import StorageUnavailable
from yaotask.store.opening import open_store, place

def create(root):
    try:
        open_store(place(root, "sqlite:///.yaotask/yaotask.db"), SystemClock(), SystemChance()).close()
    except StorageUnavailable:
        return "refused"
    return sqlite3.connect(root / ".yaotask" / "yaotask.db").execute("PRAGMA journal_mode").fetchone()[0]

disk, seen = ctypes.CDLL(None), []
for number in count():
    root = Path(sys.argv[1], str(number))
    root.mkdir(parents=True)
    disk.fail_syncs(number, 1)
    first = create(root)
    failed = not disk.failing_syncs()
    disk.fail_syncs(0, 0)
    seen.append([first, create(root)])
    if not failed:
        break
print(json.dumps(seen))
"""


def test_no_add_or_end_is_acknowledged_by_a_sync_that_failed(disk: Disk, failing_sync: Path, powerloss: Path) -> None:
    disk.run(failing_sync, powerloss, failures=FAILURES)
    told = Told.read(disk.told)
    in_place = list(broken_promises(disk.root, told))
    unknown = {(task, key) for task, key in told.failed}
    with App(disk.root) as app:
        again = {(task, app.tasks[task].options(key=key).add()) for task, key in unknown}
    drained(disk.root)
    with App(disk.root) as app:
        states = {status for task in app.tasks for status in app.status(task, range(1, 1000)).values()}
    after_all = list(broken_promises(disk.root, told))
    disk.power_on(disk.folder / "kept")

    assert in_place == after_all == list(broken_promises(disk.root, told)) == []
    assert len(again) == len(unknown) > 10
    assert set(told.failed.values()) == {"OutcomeUnknown"}
    assert states == {"SUCCESS"}
    assert min(len(ids) for ids in told.ended.values()) > 10  # those of the last round at least


def test_a_store_whose_creation_was_not_synced_is_created_anew(failing_sync: Path, tmp_path: Path) -> None:
    """Whichever sync it was, the store has its log in the end, or readers and writers would block each other."""
    environment = {**os.environ, "LD_PRELOAD": str(failing_sync), "DISK_STORE": str(tmp_path)}
    command = [sys.executable, "-c", CREATOR, str(tmp_path / "stores")]
    process = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    first, then = zip(*json.loads(process.stdout), strict=True)

    assert set(first) == {"refused", "wal"}
    assert set(then) == {"wal"}
