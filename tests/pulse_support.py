"""A worker of a test's own process with a pulse, and what its supervisor would hear of it."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from typing import Any

import anyio
from fleet_support import Fleet
from runtime_support import PATIENCE

from yaotask import App
from yaotask.channel import Channel
from yaotask.clock import SystemClock
from yaotask.runtime.pulse import Pulse
from yaotask.runtime.runner import Runner

WORKER = 7
CANCEL_GRACE = 5.0
HOOK_TIMEOUT = 30.0

Beat = dict[str, Any]


class Shifted(SystemClock):
    """The machine's time, and what a test adds to it."""

    def __init__(self) -> None:
        self.ahead = 0
        self.monotonic = lambda: SystemClock.monotonic() + self.ahead

    def advance(self, seconds: int) -> None:
        self.ahead += seconds


class Supervisor:
    """Hears beats, in a thread of its own."""

    def __init__(self, clock: Shifted) -> None:
        self.clock = clock
        self.beats: list[Beat] = []
        self._came = threading.Condition()

    @contextmanager
    def hearing(self, channel: Channel) -> Iterator[None]:
        """Until the other side of the channel is closed."""
        thread = threading.Thread(target=self._hear, args=[channel])
        thread.start()
        try:
            yield
        finally:
            thread.join(PATIENCE)

    def _hear(self, channel: Channel) -> None:
        while (message := channel.receive()) is not None:
            with self._came:
                self.beats.append(message["beat"])
                self._came.notify_all()

    def hears(self, look: Callable[[Beat], Any]) -> Beat:
        """The first beat from now on of which this is so. Blocks this thread, and with it a loop in it."""
        with self._came:
            heard = len(self.beats)
            assert self._came.wait_for(lambda: any(map(look, self.beats[heard:])), PATIENCE)
            return next(beat for beat in self.beats[heard:] if look(beat))

    def passes(self, seconds: float) -> Beat:
        """Let time pass, second by second, so that it is noticed; the last beat."""
        for _ in range(round(seconds)):
            self.clock.advance(1)
            beat = self.looked()
        return beat

    def looked(self) -> Beat:
        """A beat after a look that began when the clock was set as now."""
        # The look before the first such beat may have been earlier.
        self.hears(self._is_of_now)
        return self.hears(self._is_of_now)

    def _is_of_now(self, beat: Beat) -> bool:
        return bool(beat["ended"]["ahead"] >= self.clock.ahead)


@asynccontextmanager
async def worker(app: App, supervisor: Supervisor, **options: Any) -> AsyncIterator[Runner]:
    """Run the project's jobs with a pulse that beats to this supervisor."""
    runner = app.works.runner([])
    app.upgrade_store()
    Fleet(app.root, url=app.settings.store).enter(WORKER)
    near, far = Channel.pair()
    pulse = Pulse(
        near,
        supervisor.clock,
        runner.pools,
        # So that a beat says when it was made.
        ended=lambda: Counter(ahead=supervisor.clock.ahead),
        cancel_grace=CANCEL_GRACE,
        hook_timeout=HOOK_TIMEOUT,
        **options,
    )
    ear = app.root / ".yaotask" / "ear"
    with closing(Channel(far)) as other, supervisor.hearing(other), closing(near):
        async with anyio.create_task_group() as group, runner.working(WORKER, lambda: 0.0, ear):
            group.start_soon(pulse.turn)
            with pulse.beating():
                yield runner
            group.cancel_scope.cancel()
