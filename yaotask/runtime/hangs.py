"""Whose fault it is that a worker does not answer any more: pure rules, from what it has claimed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from yaotask.jobs import Claim

# A claim, and when its handler was started in microseconds since 1970, where the store was told.
Held = tuple[Claim, int | None]

MILLISECOND = 1_000
# By so much the clocks of a node's processes may be apart, in microseconds.
SLACK = 1_000_000
# An hour, in microseconds.
REMEMBERED = 3_600_000_000


@dataclass(frozen=True, slots=True)
class Verdict:
    """The `culprits` have used up their time: a failed try. A job among the `suspects` will run alone next time.

    What else the worker had goes back as if nothing had been.
    """

    culprits: Sequence[Held] = ()
    suspects: frozenset[int] = field(default_factory=frozenset)

    def __bool__(self) -> bool:
        return bool(self.culprits or self.suspects)


def judge(
    held: Sequence[Held], now: int, timeout_of: Callable[[Claim], int], grace: int, jumped: int | None = None
) -> Verdict:
    """Who is overdue by `grace` (microseconds) in a worker that is silent; nobody, while nothing is.

    Whoever began before the clock `jumped`, to that time, has all of its time again: by a clock that was set since
    nobody knows how long it has been at it.

    `timeout_of` gives milliseconds. While a handler keeps the interpreter to itself the store is told of no
    start, and a claim counts from when it was taken: it may be to blame, or be waiting behind who is.
    """

    def counted_from(since: int) -> int:
        return since if jumped is None or jumped <= since <= now + SLACK else jumped

    def is_overdue(claim: Claim, since: int) -> bool:
        return now > counted_from(since) + timeout_of(claim) * MILLISECOND + grace

    started = [(claim, at) for claim, at in held if at is not None and is_overdue(claim, at)]
    unseen = [(claim, at) for claim, at in held if at is None and is_overdue(claim, claim.claimed_at)]
    return Verdict(started, frozenset(claim.key for claim, _ in unseen))


class Bystanders:
    """Jobs that had time left in workers that were ended because others there had none.

    One of them may be what kept the interpreter from the rest, seen to have started or not. Whoever is there the
    second time is a suspect, or it would cost one worker after the other.
    """

    def __init__(self) -> None:
        # Since when, in microseconds.
        self._once: dict[int, int] = {}

    def reconsider(self, verdict: Verdict, held: Sequence[Held], now: int) -> Verdict:
        """The verdict on a worker that is to be ended with these."""
        named = {claim.key for claim, _ in verdict.culprits} | verdict.suspects
        present = {claim.key for claim, _ in held} - named
        lately = {key: at for key, at in self._once.items() if now - at < REMEMBERED}
        again = present & lately.keys()
        self._once = {key: lately.get(key, now) for key in (lately.keys() | present) - again}
        return Verdict(verdict.culprits, verdict.suspects | again)


def blame(held: Sequence[Held], key: int, fence: int) -> Verdict:
    """The verdict where the worker itself could tell who blocks it."""
    return Verdict([(claim, at) for claim, at in held if (claim.key, claim.fence) == (key, fence)])
