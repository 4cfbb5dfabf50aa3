"""What threads are doing, cut to what says something: the frames of users' code."""

from __future__ import annotations

import os
import sysconfig
import traceback
from importlib.util import find_spec
from itertools import dropwhile
from pathlib import Path
from types import FrameType

from yaotask.spelling import as_written

MOST_FRAMES = 12


def _folder(package: str) -> list[str]:
    found = find_spec(package)
    return [] if found is None or found.origin is None else [f"{Path(found.origin).parent}{os.sep}"]


_OURS = tuple(_folder("yaotask"))
# What runs us, and waits in our threads where nobody has anything to do.
_MACHINERY = ("<", f"{sysconfig.get_path('stdlib')}{os.sep}")
_LIBRARIES = tuple(folder for package in ("anyio", "trio", "sqlalchemy") for folder in _folder(package))


def users_stacks(dump: str, root: str) -> str:
    """Of what `faulthandler` wrote, the threads that run something of users; all, where none does."""
    threads = [thread.strip().splitlines() for thread in dump.split("\n\n") if thread.strip()]
    theirs = [thread for thread in threads if any(_is_users(_file(line), root) for line in thread)]
    return "\n".join("\n".join(thread[: MOST_FRAMES + 1]) for thread in theirs or threads)


def _file(line: str) -> str:
    return line.partition('File "')[2].partition('"')[0]


def _is_users(file: str, root: str | None = None) -> bool:
    if root is not None and file.startswith(root):
        return True
    # Installed packages may lie in the folder of the standard library, and are users' but for those that we use.
    if "site-packages" in file or "dist-packages" in file:
        return not file.startswith(_OURS + _LIBRARIES)
    return bool(file) and not file.startswith(_OURS + _LIBRARIES + _MACHINERY)


def stack_of(frame: FrameType) -> str:
    """The stack of a running thread as tracebacks show it, what it does now at the end.

    It begins with users' code, where there is any, and goes on without what is ours.
    """
    stack = traceback.extract_stack(frame)
    theirs = dropwhile(lambda entry: not _is_users(entry.filename), stack)
    shown = [entry for entry in theirs if not entry.filename.startswith(_OURS)] or stack
    return as_written("".join(traceback.format_list(shown[-MOST_FRAMES:]))).rstrip()
