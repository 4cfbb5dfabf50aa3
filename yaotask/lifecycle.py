"""The one life of every background loop: again and again, and no single failure ends it."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from yaotask.chance import Chance
from yaotask.clock import Clock

log = logging.getLogger(__name__)


async def every(
    seconds: float, work: Callable[[], Awaitable[object]], *, clock: Clock, chance: Chance, what: str
) -> None:
    """Do `work` now and then every so many seconds, give or take a tenth, until cancelled.

    What it raises is logged as a failure to do `what`, once until it succeeds again, which is logged too.
    """
    failing = False
    while True:
        try:
            await work()
            if failing:
                log.info("can %s again", what)
            failing = False
        except Exception as error:  # noqa: BLE001 - the next round may succeed
            if not failing:
                log.error("could not %s, will go on trying: %s", what, error)
            failing = True
        await clock.sleep(seconds * chance.uniform(0.9, 1.1))
