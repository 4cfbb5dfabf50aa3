"""One place of a node: the process that fills it, what it says, how it ends, and the next one."""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from subprocess import TimeoutExpired

import anyio

from yaotask.channel import Message
from yaotask.clock import Clock
from yaotask.plan import Place
from yaotask.processes import Spawned, kill_group, why
from yaotask.runtime.estate import Estate, Legacy
from yaotask.runtime.life import Life

log = logging.getLogger(__name__)

# Processes that ended before they were ready, one after the other, and how long to wait between them.
MOST_FAILURES = 5
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 8.0
# One that worked is replaced at once, but not for ever: so many seconds from its start to its end are a short life,
# and after so many of them in a row there are pauses too.
SHORT_LIFE, SHORT_LIVES = 2.0, 5
# What a node says last that gives up because of it.
GIVEN_UP = "times in a row before it was ready"
# How long a process may take to end once it has given everything back, or was told to hurry.
PATIENCE = 5.0
HURRY = 2.0
# And once it has said why it has to end: before it does, it tries for some seconds to write what it still has.
FAREWELL = 10.0
GLANCE = 0.02


class CrashLoop(Exception):
    """A process ends again and again before it can work."""


class Ward:
    """Keeps one place filled until it is told to stop."""

    def __init__(
        self,
        place: Place,
        first: Spawned | None,
        enter: Callable[[Ward, Life], Awaitable[int]],
        estate: Estate,
        clock: Clock,
        ear: Path,
    ) -> None:
        self.place = place
        self.life: Life | None = None
        # Set once a process works here, or none will.
        self.ready = anyio.Event()
        self.broken: dict[str, str] = {}
        # A process that was started for this place before the place was there.
        self._first = first
        self._ear = ear
        self._enter = enter
        self._estate = estate
        self._clock = clock
        self._stopping = anyio.Event()
        # How the attempts of those that have ended did, by word.
        self._ended: dict[str, int] = {}

    @property
    def ended(self) -> dict[str, int]:
        """How the attempts of all processes of this place ended, by word, as far as they have said."""
        living = self.life.beat.get("ended", {}) if self.life is not None else {}
        return {word: self._ended.get(word, 0) + living.get(word, 0) for word in {**self._ended, **living}}

    # --- a place's life ---------------------------------------------------------------------------------

    async def live(self) -> None:
        """Fill the place again and again. Raises CrashLoop."""
        failures = short = 0
        while not self._stopping.is_set():
            begun = self._clock.monotonic()
            if not await self._live_once():
                failures += 1
                await self._pause_after_failure(failures)
                continue
            failures = 0
            short = short + 1 if self._clock.monotonic() - begun < SHORT_LIFE else 0
            if short > SHORT_LIVES:
                await self._pause(min(FIRST_PAUSE * 2 ** (short - SHORT_LIVES - 1), LONGEST_PAUSE))

    async def _pause_after_failure(self, failures: int) -> None:
        name = self.place.name
        if self._stopping.is_set():
            return
        if failures >= MOST_FAILURES:
            raise CrashLoop(
                f"{name} has ended {failures} {GIVEN_UP}: how is said above; a script that it imports may be the reason"
            )
        pause = min(FIRST_PAUSE * 2 ** (failures - 1), LONGEST_PAUSE)
        log.error("%s ended before it was ready; it is started again in %g s", name, pause)
        await self._pause(pause)

    async def _pause(self, seconds: float) -> None:
        with anyio.move_on_after(seconds):
            await self._stopping.wait()

    async def _live_once(self) -> bool:
        """One process, from its birth to its burial; whether it came to work."""
        try:
            spawned, self._first = self._first or self.place.start(), None
        except OSError as error:
            log.error("%s cannot be started: %s", self.place.name, why(error))
            return False
        now = self._clock.monotonic()
        self.life = life = Life(spawned, now, now)
        try:
            with life.scope:
                await self._converse(life)
            await self._until_ended(life)
        finally:
            spawned.close()
        self._bury(life)
        return life.worker is not None or self._stopping.is_set()

    async def _converse(self, life: Life) -> None:
        while (message := await life.spawned.channel.areceive()) is not None:
            life.heard = self._clock.monotonic()
            if "beat" in message:
                life.beat = message["beat"]
            elif "ready" in message:
                await self._begin(life, message)
            elif "left" in message:
                life.left, life.due = True, life.heard + PATIENCE
                life.beat["ended"] = message["left"]
            elif "born" in message:
                life.groups.add(message["born"])
            elif "buried" in message:
                life.groups.discard(message["buried"])
            elif "complaint" in message:
                life.complaint = message["complaint"]
                life.due = life.heard + FAREWELL
        if life.spawned.channel.torn:
            life.complaint = "something in it has written to a descriptor that is not its own"

    async def _begin(self, life: Life, message: Message) -> None:
        self.broken = message["broken"]
        life.worker = await self._enter(self, life)
        if self._stopping.is_set():
            life.left = True
            return
        await life.spawned.channel.asend({"begin": life.worker, "ear": str(self._ear)})
        life.heard = self._clock.monotonic()
        log.info("%s is up (process %d)", self.place.name, life.spawned.pid)
        self.ready.set()

    async def _until_ended(self, life: Life) -> None:
        """It has nothing more to say; wait for the process."""
        if life.due is None:
            life.due = self._clock.monotonic() + PATIENCE
        while not life.spawned.ended():
            if self._clock.monotonic() > life.due:
                life.spawned.kill()
            await self._clock.sleep(GLANCE)

    def _bury(self, life: Life) -> None:
        self.life = None
        # Its children died with it, but not what they had started.
        for group in life.groups:
            kill_group(group)
        for word, count in life.beat.get("ended", {}).items():
            self._ended[word] = self._ended.get(word, 0) + count
        fate, name = life.spawned.fate, f"{self.place.name} (process {life.spawned.pid})"
        if life.complaint:
            log.error("%s: %s", name, life.complaint)
        if life.legacy is not None:
            log.info("%s was ended", name)
        elif not life.left and not (life.worker is None and self._stopping.is_set()):
            again = "" if self._stopping.is_set() else "; another one takes its place"
            log.error("%s died: %s%s", name, fate, again)
        elif not self._stopping.is_set():
            log.info("%s has left; another one takes its place", name)
        if life.worker is not None:
            death = None if life.left else f"its {name} died while it had the job: {fate}"
            self._estate.take(life.legacy or Legacy(life.worker, death))

    # --- what may be done with it -----------------------------------------------------------------------

    async def stop(self, grace: float) -> None:
        """Fill the place no more; its process gets so many seconds for the jobs that it runs."""
        self._stopping.set()
        self.ready.set()
        if self.life is not None:
            await self._drain(self.life, grace)

    async def hurry(self) -> None:
        """No grace any more."""
        if self.life is not None and not self.life.left:
            self.life.due = self._clock.monotonic() + HURRY
            await self.life.spawned.channel.asend({"hurry": True})

    async def replace(self, life: Life, grace: float) -> None:
        """Let the process end in order, and another one take its place after it."""
        if not life.draining:
            await self._drain(life, grace)

    async def _drain(self, life: Life, grace: float) -> None:
        life.draining = True
        if life.worker is None:
            # Nothing is lost with one that is still getting ready.
            life.spawned.kill()
        else:
            life.due = self._clock.monotonic() + grace + PATIENCE
            await life.spawned.channel.asend({"stop": grace})

    def end(self, life: Life, legacy: Legacy | None = None) -> None:
        """Kill the process; what it had is handed back, or becomes what `legacy` says."""
        if life.worker is not None and not life.left:
            life.legacy = legacy or Legacy(life.worker)
        life.spawned.kill()

    def close(self) -> None:
        """Let nothing be left, whatever has happened."""
        spawned = self._first if self.life is None else self.life.spawned
        if spawned is not None:
            spawned.kill()
            try:
                spawned.process.wait(PATIENCE)
            except TimeoutExpired:
                log.error("%s (process %d) cannot be killed: the system holds it", self.place.name, spawned.pid)
            spawned.close()
        self._ear.unlink(missing_ok=True)

    def memory(self) -> int | None:
        """Bytes of real memory that the process holds, where the system tells."""
        if self.life is None:
            return None
        try:
            pages = int(Path(f"/proc/{self.life.spawned.pid}/statm").read_text().split()[1])
        except (OSError, IndexError, ValueError):
            return None
        return pages * os.sysconf("SC_PAGE_SIZE")
