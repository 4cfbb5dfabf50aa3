"""Whole nodes in one thread, on a virtual clock, with everything broken that can be: see tests/simulation."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from math import inf
from pathlib import Path

import pytest
from chaos_support import Story
from simulation import seeds
from simulation.run import Stage, Verdict, staged

from yaotask.chaos.facts import Violation

TESTS = Path(__file__).parent
SEEDS = range(6)

# Bugs, and the promises of which each breaks one. Nearly all show in the first seed; which ones do not changes with
# whatever changes the order of events.
FOUND = {
    "another_end_of_any_claim_counts": {"I5", "I6", "I10"},
    "a_success_of_any_claim_counts": {"I3", "I10"},
    "progress_of_any_claim_counts": {"I3"},
    "acknowledged_before_it_is_committed": {"I1"},
    "everybody_else_is_dead": {"I4"},
    "the_dead_are_left_alone": {"I1"},
    "sizes_are_counted_elsewhere": {"I14"},
    "events_are_written_elsewhere": {"I10"},
    "events_are_settled_before_they_are_told": {"I10"},
    "events_are_given_up_untold": {"I10"},
    "a_cancel_comes_over_everything": {"I5"},
    "a_cancel_does_nothing": {"I18"},
    "a_retry_does_nothing": {"I18"},
    "what_has_failed_comes_back": {"I18"},
    "what_returned_has_failed": {"I17"},
    "arguments_are_of_another_job": {"I7"},
    "the_first_failure_is_the_last": {"I17"},
    "the_first_death_poisons": {"I19"},
    "timeouts_come_early": {"I17"},
    "what_is_in_doubt_is_forgotten": {"I1", "I10"},
    "what_is_in_doubt_goes_back_whoever_has_it": {"T10"},
    "retries_have_no_end": {"I7"},
    "no_timeout": {"I13"},
    "twice_as_many_at_once": {"I14"},
}
FIRST = 48


@pytest.fixture(autouse=True)
def no_other_transition() -> None:
    """What breaks the table is for the checker to find."""


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with staged() as made:
        yield made


@pytest.mark.parametrize("seed", SEEDS)
def test_a_seed_keeps_all_promises(stage: Stage, seed: int) -> None:
    verdict = stage.play(seed)

    assert not verdict.broken, str(verdict)
    assert verdict.facts.was_drained
    # Otherwise nothing was tried.
    assert verdict.facts.faults
    assert verdict.faulty_commits > 0


def test_the_same_seed_gives_the_same_history(stage: Stage) -> None:
    first, again, other = stage.play(1), stage.play(1), stage.play(2)

    assert first.fingerprint == again.fingerprint
    assert first.fingerprint != other.fingerprint


def test_what_breaks_in_a_run_is_not_logged_and_what_comes_later_is(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    stage.play(1)
    logging.getLogger("yaotask").error("later")

    assert caplog.messages == ["later"]


def test_a_seed_is_replayed_by_another_process() -> None:
    first, again = (_simulate("--seed", "3", hashes=hashes) for hashes in ("1", "2"))

    assert first.returncode == 0
    assert first.stdout.splitlines()[0] == again.stdout.splitlines()[0]


def test_processes_share_the_seeds(stage: Stage) -> None:
    transitions = sum(len(stage.play(seed).facts.changes) for seed in range(3))

    shared = _simulate("--seeds", "3", "--processes", "2")

    assert shared.returncode == 0
    assert shared.stdout.startswith(f"3 seeds, {transitions} transitions, ")


def test_no_seed_is_begun_after_its_time() -> None:
    assert _simulate("--seeds", "500", "--processes", "2", "--within", "0").stdout.startswith("2 seeds, ")


def test_a_seed_that_broke_a_promise_ends_its_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where others have found none."""
    whole = Verdict(0, Story().facts, [], 1.0, 1, 1)
    broken = replace(whole, seed=3, broken=[Violation("I1", "lost")])
    plays: list[int] = []

    def play(stage: Stage, seed: int) -> Verdict:
        plays.append(seed)
        return broken if seed == 3 else whole

    monkeypatch.setattr(Stage, "play", play)

    assert seeds.play(range(10), inf) == seeds.Played(4, 0, [broken])
    assert plays == [0, 1, 2, 3]


@pytest.mark.mutants
@pytest.mark.timeout(120)
@pytest.mark.parametrize("bug", FOUND)
def test_a_planted_bug_is_found(bug: str) -> None:
    found = _simulate("--seeds", str(FIRST), bug=bug)

    assert found.returncode == 1
    assert any(f" {promise}: " in found.stdout for promise in FOUND[bug])
    assert "again: PYTHONPATH=tests python -m simulation --seed" in found.stdout


def _simulate(*options: str, bug: str = "", hashes: str = "0") -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(TESTS), *([str(TESTS / "mutants")] if bug else [])])
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": hashes, **({"MUTANT": bug} if bug else {})}
    command = [sys.executable, "-m", "simulation", *options]
    return subprocess.run(
        command, cwd=TESTS.parent, env=environment, capture_output=True, text=True, timeout=100, check=False
    )
