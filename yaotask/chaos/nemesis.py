"""Who makes the faults: several hands, which draw one after the other from one deck, by a seed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence

from yaotask.chance import Dice
from yaotask.chaos.facts import Fault

Strike = Callable[[Dice], Fault | None]

# Seconds between two faults of one hand, the shortest and the longest.
REST = (0.2, 1.0)


class Deck:
    """Names in the order of a seed, each as often as its weight says before the deck is shuffled again.

    So a short run sees what is rare as surely as a long one.
    """

    def __init__(self, weights: Mapping[str, int], dice: Dice) -> None:
        self._names = [name for name in sorted(weights) for _ in range(weights[name])]
        self._dice = dice
        self._left: list[str] = []
        self._drawing = threading.Lock()

    def draw(self) -> str:
        """The next one, for whichever thread asks. Raises IndexError where there are no names."""
        with self._drawing:
            if not self._left:
                self._left = self._dice.sample(self._names, len(self._names))
            return self._left.pop()


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
        self._deck = Deck({name: weights[name] for name in strikes}, Dice(f"{seed}-deck"))
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
                fault = self._strikes[self._deck.draw()](dice)
                if fault is not None:
                    self._faults.append(fault)
        except BaseException as error:  # noqa: BLE001 - raised where the run is conducted
            self._failed.append(error)
