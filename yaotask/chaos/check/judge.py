"""All promises, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from yaotask.chaos.check import calls, effects, ends, rows, runs
from yaotask.chaos.check.index import Index
from yaotask.chaos.facts import Facts, Violation

CHECKS: tuple[Callable[[Index], Iterator[Violation]], ...] = (
    calls.nothing_lost,
    calls.one_job_a_key,
    rows.writers_had_the_claim,
    rows.one_end_a_claim,
    rows.what_has_ended_stays,
    rows.only_known_transitions,
    rows.what_kills_is_stopped,
    runs.each_claim_starts_once,
    ends.handlers_are_given_their_own,
    effects.effects_with_their_success,
    effects.hooks_hear_all,
    runs.nobody_is_buried_alive,
    runs.the_dead_are_buried_in_time,
    runs.nobody_outlives_its_timeout,
    runs.never_too_many_at_once,
    runs.nothing_runs_any_more,
    calls.reads_never_go_back,
    calls.reads_are_true,
    ends.ends_are_of_their_handlers,
    calls.what_was_asked_is_done,
)


def judge(facts: Facts) -> list[Violation]:
    """Every promise that was not kept in a run; none is what it should be."""
    index = Index.of(facts)
    return [violation for check in CHECKS for violation in check(index)]
