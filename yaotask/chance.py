"""The one door through which chance comes in: jitter and unique names."""

from __future__ import annotations

import random
import uuid
from typing import Protocol


class Chance(Protocol):
    """Draws numbers and names."""

    def uniform(self, low: float, high: float) -> float:
        """A number between the two."""
        ...

    def uuid(self) -> str:
        """A name that nobody else has: 32 hexadecimal digits."""
        ...


class SystemChance:
    """Chance as the machine has it."""

    uniform = staticmethod(random.SystemRandom().uniform)

    @staticmethod
    def uuid() -> str:
        return uuid.uuid4().hex


# What can be repeated: the same seed, the same draws.
Dice = random.Random
