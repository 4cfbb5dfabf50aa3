"""What every test may use, and what every test is held to."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from textwrap import dedent

import hypothesis
import pytest
import transitions
from sqlalchemy import URL
from sqlalchemy.engine import Connection

from yaotask.store import migrations, opening
from yaotask.store.dialects import choice
from yaotask.store.dialects.base import Dialect

pytest_plugins = ["scale_fixtures", "server_fixtures"]

# In CI a failure must come back when somebody runs it again; elsewhere each run may try new examples.
hypothesis.settings.register_profile("tests", deadline=None, derandomize=os.environ.get("CI") == "true")
hypothesis.settings.load_profile("tests")

# A shell has what it starts in the background ignore Ctrl-C, and `nohup` the end of the terminal; so would all that
# tests start and end so.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

# Kept by trio for ten seconds, to be used again; they hold nothing of ours.
POOLED_THREADS = ("Trio thread",)


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Async tests run on both loops."""
    return str(request.param)


@pytest.fixture
def project(tmp_path: Path) -> Callable[..., Path]:
    """Writes a project and returns its root; called again, it adds files to the same one.

    `tasks` and `scripts` map names such as `media/video` to the text of the file, which is dedented;
    a name without a suffix gets .yml or .py. `settings` is the text of yaotask.yml.
    """
    root = tmp_path / "project"

    def write(
        tasks: Mapping[str, str] | None = None,
        scripts: Mapping[str, str] | None = None,
        settings: str | None = None,
    ) -> Path:
        root.mkdir(exist_ok=True)
        for name, text in (tasks or {}).items():
            _write(root / "tasks", name, ".yml", text)
        for name, text in (scripts or {}).items():
            _write(root / "scripts", name, ".py", text)
        if settings is not None:
            _write(root, "yaotask", ".yml", settings)
        return root

    return write


def _write(folder: Path, name: str, suffix: str, text: str) -> None:
    path = folder / (name if Path(name).suffix else name + suffix)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(dedent(text), encoding="utf-8")


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings of whoever runs the tests stay outside."""
    for name in list(os.environ):
        if name.startswith("YAOTASK_"):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def no_other_transition(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every store that a test creates refuses each change of a job that is not in the table of transitions.

    Where jobs are written as no transition leaves them, a test module has a fixture of this name that does nothing.
    """
    plain = migrations.create

    def create(connection: Connection, store_id: str, furnish: Callable[[Connection], None]) -> None:
        plain(connection, store_id, furnish)
        transitions.hold(connection)

    monkeypatch.setattr(migrations, "create", create)


@pytest.fixture(autouse=True)
def our_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server tells the time that the clock of its store shows, so that tests can move it."""

    def dialect_of(url: URL) -> Dialect:
        dialect = choice.dialect_of(url)
        monkeypatch.setattr(dialect, "now", lambda connection, clock: clock.now())
        return dialect

    monkeypatch.setattr(opening, "dialect_of", dialect_of)


@pytest.fixture(autouse=True)
def nothing_left_behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A test ends with the threads and the open temporary files that it began with."""
    threads, files = set(threading.enumerate()), _open_files(tmp_path_factory.getbasetemp())
    yield
    new_threads = [thread for thread in threading.enumerate() if thread not in threads]
    for thread in new_threads:
        if not thread.name.startswith(POOLED_THREADS):
            # One that was told to stop may still be on its last line.
            thread.join(timeout=2)
            # Meanwhile it may have gone back to where trio keeps it.
            is_over = not thread.is_alive() or thread.name.startswith(POOLED_THREADS)
            assert is_over, f"left running: {thread.name}"
    assert _open_files(tmp_path_factory.getbasetemp()) <= files


def _open_files(folder: Path) -> set[str]:
    """The files below a folder that this process has open, on systems that tell."""
    opened = Path("/proc/self/fd")
    if not opened.is_dir():
        return set()
    links = (_link(entry) for entry in opened.iterdir())
    return {link for link in links if link.startswith(f"{folder}{os.sep}")}


def _link(entry: Path) -> str:
    try:
        return os.readlink(entry)
    except FileNotFoundError:  # the descriptor with which the folder was listed
        return ""
