"""Whose fault it is that a worker is silent: the jobs that are overdue, and no others."""

from __future__ import annotations

import pytest
from runtime_support import CLAIM

from yaotask.clock import SECOND
from yaotask.jobs import Claim
from yaotask.runtime.hangs import Bystanders, Held, Verdict, blame, judge

START = 1_000 * SECOND
TIMEOUT = 30
GRACE = 5
OVER = TIMEOUT + GRACE


def claimed(key: int, at: float = 0, timeout: int | None = None) -> Claim:
    return CLAIM._replace(key=key, claimed_at=START + round(at * SECOND), timeout=timeout)


def unseen(key: int, at: float = 0) -> Held:
    """A claim of whose start the store was never told."""
    return claimed(key, at), None


def started(key: int, at: float = 0, timeout: int | None = None) -> Held:
    return claimed(key, timeout=timeout), START + round(at * SECOND)


def timeout_of(claim: Claim) -> int:
    return TIMEOUT * 1_000 if claim.timeout is None else claim.timeout


def after(seconds: float, *held: Held) -> Verdict:
    return judge(held, START + round(seconds * SECOND), timeout_of, GRACE * SECOND)


@pytest.mark.parametrize(
    ("held", "verdict"), [(started(1), Verdict([started(1)])), (unseen(1), Verdict([], frozenset({1})))]
)
def test_a_job_is_overdue_once_its_timeout_and_the_grace_are_over(held: Held, verdict: Verdict) -> None:
    assert not after(OVER, held)
    assert after(OVER + 0.001, held) == verdict


def test_nobody_is_to_blame_in_a_worker_without_jobs() -> None:
    assert not after(1_000)


def test_a_started_job_counts_from_its_start() -> None:
    assert not after(OVER + 5, started(1, at=5))


def test_a_job_with_a_timeout_of_its_own_is_judged_by_that() -> None:
    short, long = started(1, timeout=1_000), started(2, timeout=60_000)

    assert after(OVER, short, long).culprits == [short]


def after_a_jump(seconds: float, to: float, *held: Held) -> Verdict:
    """The verdict so many seconds after the clock has jumped."""
    moment = START + round(to * SECOND)
    return judge(held, moment + round(seconds * SECOND), timeout_of, GRACE * SECOND, moment)


@pytest.mark.parametrize("to", [3_600, -3_600])
def test_who_began_before_a_jump_of_the_clock_has_all_its_time_again(to: float) -> None:
    assert not after_a_jump(OVER, to, started(1))
    assert after_a_jump(OVER + 0.001, to, started(1)) == Verdict([started(1)])


@pytest.mark.parametrize("to", [3_600, -3_600])
def test_who_began_after_a_jump_of_the_clock_counts_from_its_start(to: float) -> None:
    late = started(1, at=to + 5)

    assert not after_a_jump(4.5, to, late)
    assert not after_a_jump(OVER + 5, to, late)
    assert after_a_jump(OVER + 5.001, to, late) == Verdict([late])


def test_one_unseen_claim_may_have_waited_behind_who_is_to_blame() -> None:
    verdict = after(OVER + 1, unseen(1), started(2, at=10))

    assert verdict == Verdict([], frozenset({1}))


def test_of_several_unseen_claims_any_may_be_to_blame() -> None:
    verdict = after(OVER + 1, unseen(1), unseen(2), unseen(3, at=10))

    assert verdict == Verdict([], frozenset({1, 2}))
    assert verdict


def test_a_started_culprit_is_known_and_unseen_ones_are_suspects() -> None:
    assert after(OVER + 1, started(1), unseen(2)) == Verdict([started(1)], frozenset({2}))


def test_who_was_there_with_time_left_is_a_suspect_the_second_time() -> None:
    bystanders = Bystanders()
    held = [unseen(1), started(2, at=10), unseen(3, at=10)]
    verdicts = [bystanders.reconsider(after(OVER + 1, *held), held, START) for _ in range(3)]
    other = [unseen(4), started(5, at=10)]

    # After that it runs alone, and begins anew.
    assert [verdict.suspects for verdict in verdicts] == [{1}, {1, 2, 3}, {1}]
    assert bystanders.reconsider(after(OVER + 1, *other), other, START).suspects == {4}


def test_who_was_there_long_ago_is_no_suspect() -> None:
    bystanders = Bystanders()
    held = [unseen(1), started(2, at=10)]
    verdicts = [
        bystanders.reconsider(after(OVER + 1, *held), held, START + minutes * 60 * SECOND) for minutes in (0, 60, 90)
    ]

    assert [verdict.suspects for verdict in verdicts] == [{1}, {1}, {1, 2}]


def test_a_worker_that_knows_blames_one_claim() -> None:
    assert blame([started(1), started(2)], 2, CLAIM.fence) == Verdict([started(2)])


def test_nobody_is_blamed_for_a_claim_that_is_another_ones_now() -> None:
    assert not blame([started(1)], 1, CLAIM.fence + 1)
