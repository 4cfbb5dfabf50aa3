"""What a handler wants called once it should stop: kept in order, and each called once."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from anyio.lowlevel import EventLoopToken, current_token


class Callback(NamedTuple):
    """A function without arguments, the loop that its handler runs on, if any, and the App on whose behalf it is."""

    function: Callable[[], Any]
    loop: EventLoopToken | None
    owner: Any

    @classmethod
    def of_here(cls, function: Callable[[], Any], owner: Any) -> Callback:
        """Registered in this thread, on the loop that it runs."""
        try:
            return cls(function, current_token(), owner)
        except RuntimeError:  # there is none
            return cls(function, None, owner)


class Callbacks:
    """The callbacks of one attempt. From any thread; one at a time calls them."""

    def __init__(self) -> None:
        self._waiting: deque[Callback] = deque()
        self._are_called = False
        self._lock = threading.Lock()

    def add(self, callback: Callback) -> None:
        """After those that were added before."""
        self._waiting.append(callback)

    def begin(self) -> bool:
        """Whether whoever asks is the one to call them, until `next` has no more."""
        with self._lock:
            begins = bool(self._waiting) and not self._are_called
            self._are_called = self._are_called or begins
            return begins

    def next(self) -> Callback | None:
        """The one to be called now."""
        with self._lock:
            if self._waiting:
                return self._waiting.popleft()
            self._are_called = False
            return None
