"""Who makes the faults: several hands, each of which draws one after the other, by a seed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence

from yaotask.chance import Dice
from yaotask.chaos.facts import Fault

Strike = Callable[[Dice], Fault | None]

# Seconds between two faults of one hand, the shortest and the longest.
REST = (0.2, 1.0)


class Nemesis:
    """Strikes until it is told to stop; then each hand ends what it has begun, so that all is whole again."""

    def __init__(
        self,
        strikes: Mapping[str, Strike],
        weights: Mapping[str, int],
        seed: str,
        hands: int,
        rest: tuple[float, float] = REST,
    ) -> None:
        self._strikes = strikes
        self._names = sorted(strikes)
        self._weights = [weights[name] for name in self._names]
        self._rest = rest
        self._over = threading.Event()
        self._faults: list[Fault] = []
        self._failed: list[BaseException] = []
        busy = range(hands if strikes else 0)
        self._hands = [threading.Thread(target=self._work, args=(Dice(f"{seed}-{hand}"),)) for hand in busy]

    def start(self) -> None:
        for hand in self._hands:
            hand.start()

    def stop(self) -> Sequence[Fault]:
        """All that was done, in the order of its ends. Raises what a hand could not do."""
        self._over.set()
        for hand in self._hands:
            hand.join()
        if self._failed:
            raise self._failed[0]
        return self.faults

    @property
    def has_failed(self) -> bool:
        """Whether a hand could not do what it was to do, which `stop` raises."""
        return bool(self._failed)

    @property
    def faults(self) -> Sequence[Fault]:
        """What was done so far."""
        return list(self._faults)

    def _work(self, dice: Dice) -> None:
        try:
            while not self._over.wait(dice.uniform(*self._rest)):
                (name,) = dice.choices(self._names, self._weights)
                fault = self._strikes[name](dice)
                if fault is not None:
                    self._faults.append(fault)
        except BaseException as error:  # noqa: BLE001 - raised where the run is conducted
            self._failed.append(error)
