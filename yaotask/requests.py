"""The signals by which others ask our processes to end, and what users' code forks to do so."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

REQUESTS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
# Whose handlers of these signals are not for what users' code forks: ours, and those of loops.
LOOPS = ("yaotask", "asyncio", "uvloop")
# Of each thread that forks: the signals that it did not hear before.
_masks = threading.local()


def heard() -> tuple[signal.Signals, ...]:
    """Those that this process has to hear: not what it was started to ignore.

    Who starts it by `nohup` lets it outlive the terminal, and a script that does so by `&` keeps Ctrl-C to itself.
    SIGTERM is left to end it by.
    """
    return tuple(
        number for number in REQUESTS if number == signal.SIGTERM or signal.getsignal(number) != signal.SIG_IGN
    )


def outlive() -> None:
    """Do not end when asked to by a signal: the parent says when.

    Whoever ends a service may send a signal to all its processes at once, as systemd does by default. What users' code
    starts is not kept from ending so.
    """
    for number in heard():
        signal.signal(number, _wait_for_word)


@contextmanager
def not_heard() -> Iterator[None]:
    """Meanwhile this thread hears none of them, nor does what it starts, before that says `hear`."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        # By then the handlers of those that are due are called, which may raise.
        signal.pthread_sigmask(signal.SIG_BLOCK, REQUESTS)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def hear() -> None:
    """Hear them again: in a process that was started where they were not heard, or where users' code has left them so.

    What it starts would not end by them either. A handler of signals that raises during a fork is enough.
    """
    signal.pthread_sigmask(signal.SIG_UNBLOCK, REQUESTS)


def keep_from_forks() -> None:
    """From now on what users' code forks from this process hears them as any other does."""
    os.register_at_fork(before=_hear_nothing, after_in_parent=_hear_again, after_in_child=_hear_as_others_do)


def _wait_for_word(number: int, frame: object) -> None:
    """The channel says it."""


def _hear_nothing() -> None:
    """Before a fork: what was forked must not hear a signal by what it inherits."""
    _masks.before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    signal.pthread_sigmask(signal.SIG_BLOCK, REQUESTS)


def _hear_again() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _masks.before)


def _hear_as_others_do() -> None:
    """In what was forked: its signals are its own, and end it.

    It has inherited our handlers, and the socket by which our loop hears of a signal: whoever ended it would have told
    us to end, and it would go on.
    """
    signal.set_wakeup_fd(-1)
    for number in REQUESTS:
        home = getattr(signal.getsignal(number), "__module__", None) or ""
        if home.partition(".")[0] in LOOPS:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    _hear_again()
