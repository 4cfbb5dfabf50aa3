"""The command line in a terminal of its own, and how it ended."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import click
from run_support import PATIENCE, until

WITHOUT_RICH = "import sys; sys.modules['rich'] = None; from yaotask.cli import main; sys.exit(main())"


class Ended(NamedTuple):
    """How a command line ended, and what it wrote."""

    status: int
    out: str
    err: str


Run = Callable[..., Ended]


class Screen:
    """A terminal in which a command runs."""

    def __init__(self, process: subprocess.Popen[bytes], terminal: int) -> None:
        self._process = process
        self._terminal = terminal
        self._seen = b""

    @property
    def raw(self) -> str:
        """All that has been written to it."""
        self._read()
        return self._seen.decode()

    @property
    def text(self) -> str:
        """The same without colours."""
        return click.unstyle(self.raw)

    def shows(self, text: str) -> None:
        """Wait until this has been written to it."""
        until(lambda: text in self.text)

    def interrupt(self) -> None:
        """What Ctrl-C does."""
        os.killpg(self._process.pid, signal.SIGINT)

    def status(self) -> int:
        """Wait for the command's end; its exit status."""

        until(self._is_over)
        return self._process.wait()

    def _is_over(self) -> bool:
        self._read()  # or it could never end: a terminal takes only so much that nobody reads
        return self._process.poll() is not None

    def _read(self) -> None:
        try:
            while data := os.read(self._terminal, 65_536):
                self._seen += data
        except OSError:
            return  # no more for now, or nobody is there any more who could write


@contextmanager
def screen(
    root: Path, *words: str, columns: int = 80, rich: bool = True, term: str = "xterm-256color"
) -> Iterator[Screen]:
    """`yaotask` in a terminal; what is left of it at the end is killed."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, columns))
    os.set_blocking(ours, False)
    environment = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "COLUMNS")}
    process = subprocess.Popen(
        [sys.executable, *(["-m", "yaotask"] if rich else ["-c", WITHOUT_RICH]), *words],
        cwd=root,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        env=environment | {"TERM": term, "PYTHONUTF8": "1"},
    )
    os.close(theirs)
    try:
        yield Screen(process, ours)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(PATIENCE)
        os.close(ours)
