"""What the log says of attempts that did not simply succeed, once that is stored."""

from __future__ import annotations

import logging
from datetime import timedelta

from yaotask.durations import show
from yaotask.jobs import Cancelled, Claim, Failed, Failure, Ignored, Interrupted, Lost, Outcome, RetryAfter

log = logging.getLogger(__name__)


def tell(claim: Claim, outcome: Outcome) -> None:
    """One line for what failed, is tried again, was ignored or cancelled; successes are silent, being too many."""
    about = {"task": claim.task, "job": claim.name, "attempt": claim.attempt}
    match outcome:
        case Failed(failure):
            log.error("%s failed at try %d: %s", claim.name, claim.attempt, _line(failure), extra=about)
        case RetryAfter(failure, after, at):
            when = f"the next in {_wait(after)}" if at is None else "the next when the handler asked for it"
            log.warning("%s failed at try %d, %s: %s", claim.name, claim.attempt, when, _line(failure), extra=about)
        case Lost(failure, poisoned=True):
            log.error("%s failed as PoisonedJob: %s", claim.name, failure.message, extra=about)
        case Lost(failure):
            log.warning("%s runs again, without using up a try: %s", claim.name, failure.message, extra=about)
        case Ignored(reason):
            log.info("%s ignored: %s", claim.name, reason, extra=about)
        case Cancelled():
            log.info("%s cancelled while it ran", claim.name, extra=about)
        case Interrupted():
            log.info("%s handed back unfinished", claim.name, extra=about)
        case _:
            return


def _line(failure: Failure) -> str:
    return f"{failure.type}: {failure.message}" if failure.message else failure.type


def _wait(microseconds: int) -> str:
    """Rounded, so that jitter does not fill the line with digits."""
    exact = timedelta(microseconds=microseconds)
    return show(exact if exact < timedelta(seconds=10) else timedelta(seconds=round(exact.total_seconds())))
