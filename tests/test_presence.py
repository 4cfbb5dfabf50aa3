"""Who is alive, and what becomes of the claims of those who are not."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from yaotask.errors import StorageFull, StorageUnavailable
from yaotask.store import locks
from yaotask.store.presence import Lock

pytest_plugins = ["store_fixtures"]

# Takes a lock as a worker does, says so with what identifies it, and waits to be killed.
HOLDER = """
import json, sys
from pathlib import Path
from yaotask.store.locks import Lock
print(json.dumps(Lock.take(Path(sys.argv[1]), "theirs").row()), flush=True)
sys.stdin.read()
"""


@contextmanager
def holder(folder: Path) -> Iterator[tuple[subprocess.Popen[str], Any]]:
    """A process that holds a lock, and its row in the table."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        line = process.stdout.readline()
        yield process, as_row(json.loads(line), pid=process.pid)
        process.kill()


def as_row(lock: dict[str, Any], **others: Any) -> Any:
    return SimpleNamespace(**{"key": 2, "incarnation": "theirs", "host": os.uname().nodename, **lock, **others})


# --- death, proved ---------------------------------------------------------------------------------


def test_a_live_process_is_never_dead_and_a_killed_one_is_at_once(tmp_path: Path) -> None:
    with holder(tmp_path / "workers") as (process, row):
        alive = locks.is_dead(row)
        process.send_signal(signal.SIGKILL)
        process.wait()

        assert not alive
        assert locks.is_dead(row)


def test_a_paused_process_is_not_dead(tmp_path: Path) -> None:
    with holder(tmp_path / "workers") as (process, row):
        process.send_signal(signal.SIGSTOP)

        assert not locks.is_dead(row)


@pytest.fixture
def free(tmp_path: Path) -> Any:
    """The row of a worker of this machine whose lock is free, under a process id that is in use again."""
    lock = Lock.take(tmp_path / "workers", "theirs")
    row = as_row(lock.row(), pid=os.getpid())
    os.close(lock.handle)
    return row


def test_a_free_lock_counts_even_when_the_process_id_is_in_use_again(free: Any) -> None:
    assert locks.is_dead(free)


@pytest.mark.parametrize("boot", ["another", None])
def test_a_free_lock_counts_after_another_start_of_the_machine(free: Any, boot: str | None) -> None:
    free.boot_id, free.lock_device = boot, free.lock_device + 1

    assert locks.is_dead(free)


def test_who_holds_his_lock_lives_whatever_is_known_of_the_start_of_his_machine(tmp_path: Path) -> None:
    with holder(tmp_path / "workers") as (_, row):
        for boot in ("another", None):
            row.boot_id = boot

            assert not locks.is_dead(row)


def test_a_worker_of_another_machine_is_left_to_that_machine(free: Any) -> None:
    free.host = "elsewhere"

    assert not locks.is_dead(free)


@pytest.mark.parametrize("boot", ["same", "another", None])
def test_a_lock_that_is_not_to_be_seen_proves_nothing(free: Any, boot: str | None) -> None:
    """It may be that of another machine of this name, or of another container, whose processes are not seen here."""
    Path(free.lock_path).unlink()
    free.pid = ended_process()
    if boot != "same":
        free.boot_id = boot

    assert not locks.is_dead(free)


def test_a_file_of_the_same_name_is_not_the_lock(free: Any) -> None:
    free.lock_inode += 1

    assert not locks.is_dead(free)


def ended_process() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


def test_a_lock_is_for_its_owner_alone(tmp_path: Path) -> None:
    umask = os.umask(0)
    try:
        lock = Lock.take(tmp_path / "workers", "ours")
    finally:
        os.umask(umask)
    modes = [path.stat().st_mode & 0o777 for path in (tmp_path / "workers", lock.path)]
    lock.release()

    assert modes == [0o700, 0o600]
    assert not lock.path.exists()


def test_a_lock_that_cannot_be_made_says_where_and_why(tmp_path: Path) -> None:
    (tmp_path / "workers").write_text("a file in the place of the folder")

    with pytest.raises(StorageUnavailable, match=r"workers.* cannot be made: .*a worker shows there that it lives"):
        Lock.take(tmp_path / "workers", "ours")


def test_a_disk_without_room_for_a_lock_is_said_to_be_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, *_: int) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", refuse)
        with pytest.raises(StorageFull, match=r"workers/ours\.new cannot be made: .*: make room"):
            Lock.take(tmp_path / "workers", "ours")


@pytest.fixture
def without_locks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """On a file system that has no locks; the descriptors for which one was wanted."""
    asked: list[int] = []

    def refuse(handle: int, operation: int) -> None:
        asked.append(handle)
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    return asked


def test_a_lock_that_cannot_be_had_says_so_and_leaves_nothing(tmp_path: Path, without_locks: list[int]) -> None:
    said = r"workers/ours\.lock cannot be locked: No locks available; a worker shows there that it lives"
    with pytest.raises(StorageUnavailable, match=said):
        Lock.take(tmp_path / "workers", "ours")

    assert list((tmp_path / "workers").iterdir()) == []
    assert_closed(without_locks)


def test_a_lock_is_held_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever removes what nobody holds never finds it free."""
    seen: list[list[Path]] = []
    lock = fcntl.flock

    def look(handle: int, operation: int) -> None:
        seen.append(list((tmp_path / "workers").glob("*.lock")))
        lock(handle, operation)

    monkeypatch.setattr(fcntl, "flock", look)
    ours = Lock.take(tmp_path / "workers", "ours")

    assert seen == [[]]
    assert locks.unheld(tmp_path / "workers") == {}
    ours.abandon()
    assert locks.unheld(tmp_path / "workers") == {ours.path: ""}


def test_a_lock_says_to_which_store_it_belongs(tmp_path: Path) -> None:
    ours = Lock.take(tmp_path / "workers", "ours")
    ours.tell("one")
    ours.abandon()

    assert locks.unheld(tmp_path / "workers") == {ours.path: "one"}


def assert_closed(handles: list[int]) -> None:
    for handle in handles:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(handle)


def test_where_no_lock_can_be_had_nothing_is_proved(free: Any, without_locks: list[int]) -> None:
    assert not locks.is_dead(free)
    assert_closed(without_locks)
