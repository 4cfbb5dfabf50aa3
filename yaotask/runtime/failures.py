"""What went wrong, as text that any store can hold and that speaks of users' code alone."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable

import yaotask
from yaotask import invoke
from yaotask.jobs import Failure
from yaotask.settings import Limits
from yaotask.spelling import as_written, class_name
from yaotask.values import clean_text

# The innermost frames of a traceback say what went wrong. An endless recursion has thousands of others.
MOST_READ = 50
# Of a group so many members are told of, and nothing in fewer bytes than that.
MOST_MEMBERS, LEAST = 5, 100
# And of so many errors in all.
MOST_TOLD = 50
_OWN_FRAMES = yaotask.__path__[0] + os.sep


def failure(error: BaseException, limits: Limits, hide: Callable[[str], str] = str) -> Failure:
    """An exception as text that any store can hold, without the frames that are ours and what `hide` takes out."""
    name, text = name_of(type(error)), message(error, limits, hide)
    try:
        told = _Account(limits, hide).of(error, limits.error_bytes)
    except Exception:  # noqa: BLE001 - the exception is the user's, and answers what it likes
        told = clean_text(f"{name}: {text}", limits.error_bytes)
    return Failure(name, text, told)


def name_of(kind: type[BaseException]) -> str:
    """The name of an exception as users write it."""
    return kind.__qualname__ if kind.__module__ == "yaotask.errors" else class_name(kind)


def message(error: BaseException, limits: Limits, hide: Callable[[str], str] = str) -> str:
    """What an exception says, as text that any store can hold; a group, what went wrong in it first."""
    text, inner = _words(error), innermost(error)
    if inner is not error:
        text = f"{text}: {name_of(type(inner))}: {_words(inner)}"
    # Before it is cut, which could leave half of a secret.
    return clean_text(hide(text), limits.error_bytes)


def _words(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException as fault:  # the exception is the user's, and may be broken itself
        if invoke.is_interrupt(fault):
            raise
        return f"(its message cannot be told: {type(fault).__name__})"


def brief(error: BaseException, limits: Limits, hide: Callable[[str], str] = str) -> str:
    """An exception in one line, for a log."""
    return f"{name_of(type(error))}: {message(error, limits, hide)}"


def innermost(error: BaseException) -> BaseException:
    """The first error of nested groups: what went wrong, not where it passed."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


class _Account:
    """What went wrong and where, as Python prints it: with its notes, what it was raised from, and all of a group."""

    def __init__(self, limits: Limits, hide: Callable[[str], str]) -> None:
        self._limits = limits
        self._hide = hide
        # Errors may be each other's causes.
        self._told: set[int] = set()

    def of(self, error: BaseException, room: int) -> str:
        """In so many bytes."""
        self._told.add(id(error))
        link, earlier = _before(error)
        members = error.exceptions[:MOST_MEMBERS] if isinstance(error, BaseExceptionGroup) else ()
        # A long message leaves room for where it was raised, and that for what came before.
        last = clean_text(self._last_words(error), room // 2)
        left = room - len(last.encode())
        text = _frames(error, left // 2 if earlier is not None or members else left) + last
        left = room - len(text.encode())
        for number, member in enumerate(members, 1):
            text += self._more(f"\n  {number}. ", member, left // (len(members) + 1), indented=True)
        before = "" if earlier is None else self._more("", earlier, room - len((link + text).encode()))
        return f"{before}{link}{text}" if before else text

    def _more(self, head: str, error: BaseException, room: int, *, indented: bool = False) -> str:
        if room < LEAST or id(error) in self._told or len(self._told) >= MOST_TOLD:
            return ""
        # Each line of a member is moved.
        told = self.of(error, room * 3 // 4 if indented else room)
        return clean_text(head + (told.replace("\n", "\n     ") if indented else told), room)

    def _last_words(self, error: BaseException) -> str:
        # Not by what a class of the user's makes of a name that is not there.
        notes = BaseException.__getattribute__(error, "__dict__").get("__notes__")
        texts = [note for note in notes if isinstance(note, str)] if isinstance(notes, list | tuple) else []
        words = f"{name_of(type(error))}: {message(error, self._limits, self._hide)}"
        return "\n".join([words, *map(self._hide, texts)])


def _before(error: BaseException) -> tuple[str, BaseException | None]:
    """What an error was raised from, or while it was handled, and how Python says that."""
    if error.__cause__ is not None:
        return "\n\nThe above exception was the direct cause of the following exception:\n\n", error.__cause__
    context = error.__context__
    if error.__suppress_context__ or context is None or not _frames(context, LEAST * LEAST):
        # What has no frame of users' code was ours to handle.
        return "", None
    return "\n\nDuring handling of the above exception, another exception occurred:\n\n", context


def _frames(error: BaseException, room: int) -> str:
    """Where it was raised: of the frames that are not ours the innermost, as many as there is room for."""
    told = ""
    for frame in reversed(traceback.extract_tb(error.__traceback__)[-MOST_READ:]):
        if frame.filename.startswith(_OWN_FRAMES):
            continue
        text = clean_text(as_written("".join(traceback.format_list([frame]))), room)
        room -= len(text.encode())
        if room <= 0:
            break
        told = text + told
    return told
