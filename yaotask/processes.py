"""The processes that yaotask starts: they speak with their parent over a channel, and die with it.

They are plain programs, started without a fork of our own memory: the `main` of `yaotask.worker` and the like.
"""

from __future__ import annotations

import ctypes
import errno
import faulthandler
import io
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

from yaotask import requests
from yaotask.channel import Channel, Message

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

PACKAGE = Path(__file__).resolve().parent
# What starts our programs, followed by the name of one.
LAUNCH = ("-m", "yaotask.launch")
# prctl(2): the signal that the kernel sends when the thread that started us ends.
PR_SET_PDEATHSIG = 1


# Held while a process is started, and while users' code forks (store/forks.py): what was forked meanwhile would keep
# open the pipe by which the start hears that its program has begun, and the other's end of the channel.
starting = threading.RLock()


@dataclass(slots=True, eq=False)
class Spawned:
    """A process that was started, and the channel to it."""

    process: subprocess.Popen[bytes]
    channel: Channel
    # A file without a name, in which it writes what its threads do when it gets SIGQUIT.
    stacks: IO[bytes]
    _is_stolen: bool = False

    @property
    def pid(self) -> int:
        return self.process.pid

    def kill(self) -> None:
        """SIGKILL to it and to whatever it started; nothing happens to one that was waited for."""
        if self.process.returncode is None:
            kill_group(self.pid)

    def is_dead(self) -> bool:
        """Whether it has ended; it need not have been waited for."""
        if self.process.returncode is None:
            if not hasattr(os, "waitid"):
                return self._has_ended()
            try:
                return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
            except ChildProcessError:
                # Users' code waits for any child. Its number, and its group's, may be somebody else's by now.
                self._is_stolen = True
                self.process.wait()
        return True

    def _has_ended(self) -> bool:
        """For a Python that cannot look without waiting, as on macOS before 3.13."""
        ended = self.process.poll() is not None
        if ended:
            # The number of a group stays taken as long as it has members.
            kill_group(self.pid)
        return ended

    def ended(self) -> bool:
        """Whether it has ended. What it started and left behind is killed then."""
        if self.process.returncode is None:
            # Looked at before it is waited for: until then nobody else gets its number, or its group's.
            if not self.is_dead():
                return False
            self.kill()
            self.process.wait()
        return True

    def ask_for_stacks(self) -> None:
        """Have it write down what its threads do, which it can although a handler never gives way.

        One that is stopped is not asked. It would answer only when it goes on, and then its threads move while
        their frames are read, which CPython does not survive for certain.
        """
        if self.stacks.closed:
            return
        self.stacks.seek(0)
        self.stacks.truncate()
        if is_stopped(self.pid):
            return
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGQUIT)

    def stacks_told(self) -> str:
        """What it has written since it was asked, as `faulthandler` writes it; nothing once it was buried."""
        if self.stacks.closed:
            return ""
        self.stacks.seek(0)
        return self.stacks.read().decode(errors="backslashreplace")

    def close(self) -> None:
        """Let go of what we have of it. More than once is fine."""
        self.channel.close()
        self.stacks.close()

    @property
    def fate(self) -> str:
        """How it ended, in words; to be asked once it has."""
        return "a status that something else has taken" if self._is_stolen else describe(self.process.returncode)


def is_stopped(pid: int) -> bool:
    """Whether a process was stopped by a signal or a debugger, where the system tells."""
    try:
        status = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return False
    # Its name is in brackets, and may have some of its own.
    return status.rpartition(b")")[2].split()[0] in (b"T", b"t")


def spawn(module: str, label: str, hello: Message) -> Spawned:
    """Start the program of a module in a session of its own. `label` is what `ps` shows, `hello` its first message.

    To be called from a thread that lives as long as the process shall. Raises OSError.
    """
    stacks = _nameless_file()
    with starting:
        channel, theirs = Channel.pair()
        with theirs:
            given = [theirs.fileno(), stacks.fileno()]
            command = [sys.executable, *_flags(), *LAUNCH, module, *map(str, given), str(os.getpid()), label]
            try:
                with requests.not_heard():
                    process = subprocess.Popen(  # noqa: S603 - our own modules
                        command, stdin=subprocess.DEVNULL, pass_fds=given, start_new_session=True
                    )
            except BaseException:
                channel.close()
                stacks.close()
                raise
    spawned = Spawned(process, channel, stacks)
    try:
        channel.send({**hello, "path": _folders()})
    except BaseException:
        spawned.kill()
        process.wait()
        spawned.close()
        raise
    return spawned


def _folders() -> str:
    """Where we import from, as JSON in ASCII: the name of a folder may be bytes that are no text."""
    # Users' code may have put there what is no name at all; imports pass over it.
    folders: list[object] = [*sys.path]
    return json.dumps([folder for folder in folders if isinstance(folder, str)])


def program_of(command: str) -> str:
    """Which of our programs a command line starts: `worker`, `services`, `child`; empty for any other."""
    return command.partition(f" {' '.join(LAUNCH)} yaotask.")[2].partition(" ")[0]


def _nameless_file() -> IO[bytes]:
    """A file that is gone with the last process that has it open."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("yaotask-stacks"), "w+b", buffering=0)
    return tempfile.TemporaryFile(buffering=0)


def adopted(arguments: list[str]) -> tuple[Channel, Message]:
    """In the process that was started: the channel to the parent, and its first message.

    From now on this process dies with its parent, and what users' code forks from it hears signals as any other does.
    SystemExit where the parent has died already.
    """
    descriptor, stacks, parent = map(int, arguments[:3])
    die_with(parent)
    _print_plainly()
    # Python writes this whatever keeps its threads from running.
    faulthandler.register(signal.SIGQUIT, file=stacks, all_threads=True)
    requests.keep_from_forks()
    end = socket.socket(fileno=descriptor)
    # What users' code starts shall not hold it open.
    end.set_inheritable(False)
    os.set_inheritable(stacks, False)
    channel = Channel(end)
    hello = channel.receive()
    if hello is None:
        raise SystemExit(1)
    sys.path += [folder for folder in json.loads(hello.pop("path")) if folder not in sys.path]
    return channel, hello


def reap_strays(ours: Collection[int]) -> None:
    """As the first process of a container: let go of ended processes that nobody else is the parent of any more."""
    with suppress(ChildProcessError):
        while (found := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
            if found.si_pid in ours:
                return  # whoever started it will ask for it
            os.waitpid(found.si_pid, 0)


def why(error: OSError) -> str:
    """What the system says that it would not do, and what to do where that is the limit of open files."""
    advice = ": raise their limit (ulimit -n)" if error.errno in (errno.EMFILE, errno.ENFILE) else ""
    return f"{error.strerror}{advice}"


def describe(status: int) -> str:
    """An exit status as people say it: `exit status 3`, `SIGSEGV`."""
    if status >= 0:
        return f"exit status {status}"
    with suppress(ValueError):
        return signal.Signals(-status).name
    return f"signal {-status}"


def _flags() -> list[str]:
    """Keep the folder that we happen to be in off the path, unless we ourselves were found there."""
    here = not sys.flags.safe_path and sys.path and Path(sys.path[0] or ".").resolve() == PACKAGE.parent
    return [] if here else ["-P"]


def _print_plainly() -> None:
    """What users' code prints is seen at once, and fails neither for a character nor for who shall read it."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            patient = _patient(stream)
            setattr(sys, name, patient)
            setattr(sys, f"__{name}__", patient)


def _patient(stream: io.TextIOWrapper) -> io.TextIOWrapper:
    """The same stream, on an outlet."""
    outlet = _Outlet(stream.fileno(), "w", closefd=False)
    outlet.name = stream.name
    # With PYTHONUNBUFFERED nothing lies between.
    is_unbuffered = isinstance(stream.buffer, io.RawIOBase)
    patient = io.TextIOWrapper(
        cast("io.BufferedWriter", outlet) if is_unbuffered else io.BufferedWriter(outlet),
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=True,
        write_through=stream.write_through,
    )
    patient.mode = stream.mode  # type: ignore[misc]  # Python sets it so too
    return patient


# Why nothing can be written: no reader, no terminal, no room on the disk, for its user, or in a file of `ulimit -f`.
NOWHERE = (errno.EPIPE, errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class _Outlet(io.FileIO):
    """Where a process prints to. What can be written nowhere is lost, and no more."""

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in NOWHERE:
                raise
            return memoryview(data).nbytes


def die_with(parent: int) -> None:
    """From now on this process dies with its parent; SystemExit where that has died already.

    On Linux alone, and there it is the thread that has started us whose end counts.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    # It may have died before that was said.
    if os.getppid() != parent:
        raise SystemExit(1)


def kill_group(leader: int) -> None:
    """SIGKILL to all processes of a group that are left."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)
