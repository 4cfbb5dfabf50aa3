"""Where the state of a project lies: the folder, its files, the disk below them."""

from __future__ import annotations

import os
import shlex
import shutil
import stat
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from yaotask.doctor.finding import Finding, Findings, fault, ok, warn
from yaotask.phrases import counted
from yaotask.store import checkup
from yaotask.store.mounts import NETWORK_FILE_SYSTEMS, file_system
from yaotask.store.opening import Place
from yaotask.store.presence import FOLDER

if TYPE_CHECKING:
    from sqlalchemy import Connection

MEGABYTE = 1_000_000
LITTLE_ROOM = 256 * MEGABYTE
NO_ROOM = 16 * MEGABYTE
# A log of this size is usual even for a small database.
USUAL_LOG = 64 * MEGABYTE
SHOWN = 3


def folder(place: Place) -> Findings:
    """Whether the state can be used by its owner, and by nobody else."""
    is_there, modes = os.path.lexists(place.state), _modes(place)
    paths = dict.fromkeys((place.state, *modes)) if is_there else modes
    closed = [path for path in paths if not os.access(path, os.R_OK | os.W_OK)]
    public = [path for path, mode in modes.items() if mode & 0o077]
    if closed:
        what = f"{_names(closed)} cannot be written by this user"
        yield fault("state", what, "be its owner, or give it to this user")
    if public:
        yield warn("state", f"others can come at {_names(public)}", _shut(place, public))
    if not is_there:
        yield _to_be_made("state", place.state)
    elif not closed and not public:
        yield ok("state", str(place.state))


def disk(place: Place) -> Findings:
    """Whether locks hold where they are taken, and how much room there is."""
    database = place.file
    # What a server has is on the server's disk, which it looks after.
    paths = [path for path in (database, place.state / FOLDER) if path is not None]
    networked = [path for path in paths if _kind(path) in NETWORK_FILE_SYSTEMS]
    for path in networked:
        what = f"{path} is on a network file system ({_kind(path)})"
        yield fault("disk", what, "move it to a local disk: locks do not hold there")
    free = shutil.disk_usage(_nearest(paths[0].parent)).free
    room = f"{free / MEGABYTE:,.0f} MB free for {paths[0].name}"
    if free < LITTLE_ROOM:
        find = fault if free < NO_ROOM else warn
        yield find("disk", f"only {room}", "make room: when the disk is full, adds are refused")
    elif not networked:
        yield ok("disk", f"{room}, on {_kind(paths[0]) or 'an unknown file system'}")


def empty(place: Place) -> Findings:
    """Whether a store that is not there yet can be made."""
    # A server tells that at the first use only; whether a file that is there can be written is seen with the state.
    if place.file is None or os.path.exists(place.file):
        yield ok("store", f"{place.dialect().label} is made at the first use")
    else:
        yield _to_be_made("store", place.file, ", or correct `store`")


def _to_be_made(about: str, path: Path, otherwise: str = "") -> Finding:
    """Whether this user can make a file or folder, and the folders above it that are missing."""
    above = _nearest(path.parent)
    if above.is_dir() and os.access(above, os.W_OK | os.X_OK):
        return ok(about, f"{path} is made at the first use")
    advice = f"give this user write access to {above}" if above.is_dir() else f"{above} is no folder: move it away"
    return fault(about, f"{path} cannot be made by this user", advice + otherwise)


def log(place: Place) -> Findings:
    """Whether SQLite can write its log back into the database."""
    database = place.file
    if database is None:
        return
    wal = _size(database.with_name(database.name + "-wal"))
    if wal > max(_size(database), USUAL_LOG):
        what = f"the log of the database has grown to {wal / MEGABYTE:,.0f} MB, more than the database itself"
        yield warn("log", what, "end the program that reads from it without end: a transaction that is left open")


def server(place: Place, connection: Connection) -> Findings:
    """Whether a server takes what is to be stored, keeps what it has acknowledged, and is not held up by others."""
    if place.file is not None:
        return
    if refused := checkup.refusal(place, connection):
        yield fault("server", "nothing can be stored there", refused)
    found = checkup.weaknesses(place, connection)
    for weakness in found:
        if weakness.advice:
            yield warn("server", weakness.what, weakness.advice)
        else:
            yield ok("server", weakness.what)
    if not any(weakness.advice for weakness in found):
        yield ok("server", "what it has committed it keeps")


def _modes(place: Place) -> dict[Path, int]:
    """Who may use what yaotask has made there."""
    database, workers = place.file, place.state / FOLDER
    beside = [database.with_name(database.name + end) for end in ("", "-wal", "-shm")] if database else []
    modes = {}
    for path in (place.state, *beside, place.marker, place.state / "lock", workers, *_inside(workers)):
        # Much of it comes and goes with the processes that use it, or is behind a closed door.
        with suppress(OSError):
            modes[path] = path.stat().st_mode
    # Sockets have no modes of their own: who comes into the folder is what counts.
    return {path: mode for path, mode in modes.items() if not stat.S_ISSOCK(mode)}


def _inside(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _kind(path: Path) -> str | None:
    return file_system(path.resolve())


def _nearest(path: Path) -> Path:
    """The path itself, or the first above it that is there and can be seen."""
    # Path.exists would fail behind a closed door.
    return next(folder for folder in (path, *path.parents) if os.path.exists(folder))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _shut(place: Place, public: list[Path]) -> str:
    """The command that keeps others out."""
    outside = [path for path in public if not path.is_relative_to(place.state)]
    inside = [place.state] if len(outside) < len(public) else []
    return f"chmod -R go-rwx {' '.join(shlex.quote(str(path)) for path in (*inside, *outside))}"


def _names(paths: list[Path]) -> str:
    shown = ", ".join(str(path) for path in paths[:SHOWN])
    return shown if len(paths) <= SHOWN else f"{shown} and {counted(len(paths) - SHOWN, 'more file')}"
