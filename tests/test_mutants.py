"""The checker is worth something: each bug that is planted in yaotask is found by a run of chaos, under its name."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from yaotask.chaos.conduct import Order, Run
from yaotask.clock import SystemClock

FOLDER = Path(__file__).parent / "mutants"
sys.path.append(str(FOLDER))
import sitecustomize as mutants  # noqa: E402 - it is in a folder that only nodes have on their path

pytestmark = [pytest.mark.timeout(400), pytest.mark.mutants]

SECONDS, PATIENCE = 6.0, 5.0
SEEDS = (1, 2, 3, 4)


class Plan(NamedTuple):
    """What shows a bug: these faults, and by which broken promise, at least."""

    promise: str
    faults: tuple[str, ...] = ("kill-worker", "kill-caller")
    seconds: float = SECONDS
    hands: int = 2


PLANS = {
    "a_success_of_any_claim_counts": Plan("I3", ("pause-node",), 20, 1),
    "another_end_of_any_claim_counts": Plan("I6", ("pause-node",), 20, 1),
    "progress_of_any_claim_counts": Plan("I3", ("pause-node",), 20, 1),
    "acknowledged_before_it_is_committed": Plan("I1"),
    "everybody_else_is_dead": Plan("I4", ("kill-caller",)),
    "the_dead_are_left_alone": Plan("I1"),
    "sizes_are_counted_elsewhere": Plan("I14"),
    "events_are_written_elsewhere": Plan("I10"),
    "events_are_settled_before_they_are_told": Plan("I10"),
    "a_cancel_comes_over_everything": Plan("I5"),
    "keys_are_forgotten": Plan("I2"),
    "what_failed_is_committed": Plan("I8"),
    "retries_have_no_end": Plan("I7"),
    "a_cancel_does_nothing": Plan("I18"),
    "a_retry_does_nothing": Plan("I18"),
    "what_has_failed_comes_back": Plan("I18"),
    "what_returned_has_failed": Plan("I17"),
    "arguments_are_of_another_job": Plan("I7"),
    "the_first_failure_is_the_last": Plan("I17"),
    "the_first_death_poisons": Plan("I19"),
    "events_are_given_up_untold": Plan("I10"),
    "timeouts_come_early": Plan("I17"),
    "no_timeout": Plan("I13"),
    "twice_as_many_at_once": Plan("I14"),
}

# What takes a line that breaks in one commit of thousands is found in simulation.
IN_SIMULATION = {"what_is_in_doubt_is_forgotten", "what_is_in_doubt_goes_back_whoever_has_it"}


@pytest.fixture(autouse=True)
def no_other_transition() -> None:
    """What breaks the table is for the checker to find."""


def test_each_bug_has_its_plan() -> None:
    assert PLANS.keys() | IN_SIMULATION == mutants.MUTANTS.keys()


@pytest.mark.parametrize("name", PLANS)
def test_a_planted_bug_is_found(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = PLANS[name]
    monkeypatch.setenv("PYTHONPATH", str(FOLDER))
    monkeypatch.setenv("MUTANT", name)
    pages = []
    # A zombie that writes in just the wrong moment may take more than one try.
    for seed in SEEDS:
        order = Order(
            store=f"sqlite:///{tmp_path / f'{seed}.db'}",
            folder=tmp_path / f"run-{seed}",
            seed=seed,
            seconds=plan.seconds,
            faults=plan.faults,
            hands=plan.hands,
            patience=PATIENCE,
        )
        report = Run(order, SystemClock(), lambda moment: None).report()
        if plan.promise in {violation.invariant for violation in report.violations}:
            return
        pages.append("\n".join(report.lines()))
    pytest.fail("\n\n".join(pages))
