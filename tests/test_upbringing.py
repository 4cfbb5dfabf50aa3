"""What becomes of a job whose child process has died."""

from __future__ import annotations

from pathlib import Path

import pytest
from runtime_support import CLAIM

from yaotask.jobs import Failure, Lost
from yaotask.runtime.upbringing import Upbringing
from yaotask.store.reaping import MOST_DEATHS


def verdict(losses: int, fate: str, allowed: int = 3) -> Lost:
    """Of a job that had so many losses before, where so many are allowed."""
    upbringing = Upbringing(Path("/project"), {}, most_jobs=10, losses=allowed)
    return upbringing.lost(CLAIM._replace(losses=losses), fate)


@pytest.mark.parametrize(
    ("fate", "how"),
    [
        ("SIGSEGV", "by SIGSEGV"),
        ("SIGKILL", "by SIGKILL, as when memory runs out"),
        ("exit status 3", "with exit status 3"),
    ],
)
def test_a_first_death_is_a_loss_that_says_how_it_ended(fate: str, how: str) -> None:
    assert verdict(0, fate) == Lost(Failure("WorkerLost", f"its process ended {how} while it ran the job"))


def test_the_last_loss_that_is_allowed_poisons() -> None:
    last = verdict(2, "SIGSEGV")

    assert last.poisoned
    assert last.failure.type == "PoisonedJob"
    assert last.failure.message.startswith("3 processes died while they had the job; the last: its process ended")


def test_where_one_loss_is_allowed_the_message_counts_none() -> None:
    only = verdict(0, "SIGSEGV", allowed=1)

    assert only == Lost(Failure("PoisonedJob", "its process ended by SIGSEGV while it ran the job"), poisoned=True)


def test_however_many_are_allowed_there_is_an_end() -> None:
    assert not verdict(MOST_DEATHS - 2, "SIGSEGV", allowed=1000).poisoned
    assert verdict(MOST_DEATHS - 1, "SIGSEGV", allowed=1000).poisoned
