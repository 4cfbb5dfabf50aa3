"""The thread of a ledger: turn after turn, and how it begins and ends."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from yaotask.errors import StorageUnavailable
from yaotask.store.forks import forks
from yaotask.store.ledger import Ledger

log = logging.getLogger(__name__)

# Said to whoever asks too late.
CLOSED = "this app was closed"
# Said where one ends by itself, which is a defect of ours: no state of a store is a reason.
DEATH = "the ledger has died"
_NO_THREAD = "nothing can be written without one; raise the limit of processes and threads (ulimit -u), or end some"


class LedgerThread:
    """Drives a ledger on a thread of its own, which is started at the first request."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.died: BaseException | None = None
        self.on_death: Callable[[], None] = lambda: None
        self._poked = threading.Event()
        self._stopping = False
        self._over = False
        self._start = threading.Lock()
        self._thread: threading.Thread | None = None
        ledger.poke = self._poke

    def _poke(self) -> None:
        if not self._poked.is_set():
            self._poked.set()
        if self._thread is None:
            self._begin()

    def _begin(self) -> None:
        with self._start:
            if self._thread is None and not self._over:
                thread = threading.Thread(target=self._run, name="yaotask-ledger", daemon=True)
                try:
                    thread.start()
                except RuntimeError as error:
                    why = StorageUnavailable(f"{error}: {_NO_THREAD}")
                    self.ledger.refuse(why)
                    raise why from error
                self._thread = thread

    def refuse_if_over(self) -> None:
        """Answer what was asked too late: nothing will be written any more."""
        if self._over:
            # One at a time: several threads may have asked too late.
            with self._start:
                self.ledger.refuse(self._why())

    def _why(self) -> StorageUnavailable:
        if self.died is None:
            return StorageUnavailable(CLOSED)
        return StorageUnavailable(f"the ledger of this process has stopped: {self.died}")

    def close(self) -> None:
        """Write what has come in, then stop and let go of the store. More than once is fine."""
        self._stopping = True
        with self._start:
            thread = self._thread
            if thread is None and not self._over:
                self._over = True
                self.ledger.store.close()
        self._poked.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join()
            self.ledger.store.close()

    def _run(self) -> None:
        try:
            while self._turn():
                pass
        except BaseException as error:
            # First of all: it may have died of a log that users' code has broken.
            self.died = error
            self.on_death()
            log.critical(DEATH, exc_info=error)
        finally:
            self._over = True
            self.refuse_if_over()
            # Others may still be reading; `close` ends that too.
            self.ledger.store.writer.disconnect()

    def _turn(self) -> bool:
        """One turn and the wait after it; False when all is written and the end was asked for."""
        # Lowered before the look: whatever comes in from here on raises it again.
        self._poked.clear()
        with forks.held_off():
            wait = self.ledger.turn()
        if self._stopping and not self.ledger.is_behind:
            return False
        if wait is None or wait > 0:
            self._poked.wait(wait)
        return True
