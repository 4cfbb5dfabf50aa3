"""Keeps the lease of a worker inside somebody else's program: on a thread, because a loop may be blocked for long."""

from __future__ import annotations

import importlib.metadata
import logging
import threading
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from yaotask.chance import Chance
from yaotask.runtime.leases import Leases
from yaotask.values import dumps

log = logging.getLogger(__name__)


class Keeper:
    """Renews the lease of one worker at each heartbeat, from `start` to `stop`."""

    def __init__(
        self, leases: Leases, worker: int, told: Mapping[str, Any], heartbeat: timedelta, chance: Chance
    ) -> None:
        """People are shown what is `told` of it."""
        self._leases = leases
        version = importlib.metadata.version("yaotask")
        self._info = {worker: dumps({"version": version, "state": "working", **told})}
        self._heartbeat = heartbeat.total_seconds()
        self._chance = chance
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="yaotask-lease", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Renew it no more; waits for a renewal under way."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        failing = False
        # A worker that others took for dead hears of it when it next wants to claim.
        while not self._stopping.is_set():
            try:
                self._leases.renew_in_thread(self._info)
                failing = False
            except Exception as error:  # noqa: BLE001 - the next renewal may succeed
                if not failing:
                    log.error("the lease of this worker cannot be renewed, will go on trying: %s", error)
                failing = True
            self._stopping.wait(self._heartbeat * self._chance.uniform(0.9, 1.0))
