"""The checker of chaos runs: what is in order passes, and each way to break a promise is found under its name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from chaos_support import BOUNDS, NEW, PLAIN, TERMS, WORKER, Story, whole
from hypothesis import given, settings
from hypothesis import strategies as st

from yaotask.chaos.check import judge
from yaotask.chaos.check.index import Index
from yaotask.chaos.check.runs import recoveries
from yaotask.chaos.check.transitions import transition
from yaotask.chaos.facts import FAIL, INFO, RETURNED, SECOND, Fault, JobId, Lease, Worker
from yaotask.jobs import JobState


def found(story: Story) -> list[str]:
    """The promises that a story breaks, each once."""
    return sorted({violation.invariant for violation in judge(story.facts)}, key=lambda name: int(name[1:]))


@pytest.mark.parametrize("task", TERMS)
def test_a_run_in_which_all_went_well_breaks_nothing(task: str) -> None:
    story, _ = whole(task)

    assert judge(story.facts) == []


# --- what callers were told -----------------------------------------------------------------------------


def test_an_acknowledged_job_that_is_not_there_is_lost() -> None:
    story, _ = whole()
    story.call("add", job=JobId("quick", 99), tag="tag-99")

    assert found(story) == ["I1"]


def test_an_acknowledged_job_that_did_not_end_is_lost() -> None:
    story = Story()
    story.add()

    assert "quick.1 has not ended: it is WAITING" in [violation.what for violation in judge(story.facts)]


def test_a_job_that_nobody_added_is_one_too_many() -> None:
    story, _ = whole()
    story.calls.clear()

    assert found(story) == ["I1"]


def test_a_job_that_was_refused_may_not_be_stored() -> None:
    story = Story()
    story.claim(key := story.add(answer=FAIL))
    story.succeed(key)

    assert found(story) == ["I1"]


def test_a_job_of_which_nobody_could_say_may_be_stored() -> None:
    story = Story()
    story.claim(key := story.add(answer=INFO))
    story.succeed(key)
    story.call("add", INFO, tag="tag-of-one-that-was-not")

    assert found(story) == []


def test_a_job_that_answers_for_another_is_no_answer() -> None:
    story, key = whole()
    story.calls[0] = replace(story.calls[0], tag="another")
    story.call("add", INFO, tag=story.jobs[key].tag)

    assert found(story) == ["I1"]


def test_whoever_asks_for_an_acknowledged_job_is_not_told_that_there_is_none() -> None:
    story, key = whole()
    story.call("get", FAIL, job=story.jobs[key].id, error="JobNotFound")

    assert found(story) == ["I1"]


def test_one_add_makes_one_job() -> None:
    story, first = whole()
    second = story.add()
    story.jobs[second] = replace(story.jobs[second], tag=story.jobs[first].tag)
    story.calls[-1] = replace(story.calls[-1], tag=story.jobs[first].tag)
    story.claim(second)
    story.succeed(second)

    assert found(story) == ["I2"]


def test_a_key_that_is_used_again_answers_the_first_job() -> None:
    story, key = whole()
    story.call("add", job=story.jobs[key].id, tag=story.jobs[key].tag, key="k")

    assert found(story) == []


def test_reads_never_go_back() -> None:
    story, key = whole()
    story.see(key, "SUCCESS")
    story.see(key, "RETRYING")

    assert found(story) == ["I16"]


def test_two_who_ask_at_the_same_time_may_see_it_in_either_order() -> None:
    story, key = whole()
    first = story.see(key, "SUCCESS")
    story.calls.append(replace(first, began=first.began, seen={"status": "RETRYING", "attempt": 1}))

    assert found(story) == []


def test_a_job_that_is_retried_by_hand_is_seen_waiting_again() -> None:
    story = Story()
    story.claim(key := story.add())
    story.fail(key)
    story.see(key, "FAILURE")
    story.retry(key)
    story.see(key, "WAITING")
    story.claim(key)
    story.succeed(key)

    assert found(story) == []


@pytest.mark.parametrize(("status", "attempt"), [("FAILURE", None), ("WAITING", None), ("SUCCESS", 7)])
def test_what_is_seen_is_what_was(status: str, attempt: int | None) -> None:
    story, key = whole()
    story.tick(30)
    story.see(key, "SUCCESS")
    right = found(story)
    story.see(key, status, attempt)

    assert right == []
    assert "I16" in found(story)


def test_a_job_that_is_seen_before_it_runs_waits() -> None:
    story = Story()
    story.claim(key := story.add())
    story.see(key, "WAITING", 0)
    story.tick(30)
    story.set(key, started_at=story.now)
    story.tick(30)
    story.see(key, "RUNNING")
    story.succeed(key)

    assert "I16" not in found(story)


def test_a_job_that_was_claimed_long_ago_and_has_not_begun_is_seen_as_before() -> None:
    story = Story()
    story.claim(key := story.add())
    story.tick(30)
    story.see(key, "WAITING", 0)
    right = found(story)
    story.see(key, "WAITING", 1)

    assert "I16" not in right
    assert "I16" in found(story)


def test_a_cancel_that_is_acknowledged_is_done() -> None:
    story, first = whole()
    second = story.add()
    story.cancel(second)
    # To cancel what is cancelled changes nothing.
    story.call("cancel", job=story.jobs[second].id)
    right = found(story)
    story.call("cancel", job=story.jobs[first].id)

    assert right == []
    assert found(story) == ["I18"]


def test_one_that_runs_is_asked_to_stop() -> None:
    story = Story()
    story.claim(key := story.add())
    story.call("cancel", job=story.jobs[key].id)
    story.set(key, cancel_at=story.now)
    story.succeed(key)

    assert found(story) == []


def test_a_retry_that_is_acknowledged_is_done() -> None:
    story = Story()
    story.claim(key := story.add())
    story.fail(key)
    story.call("retry", job=story.jobs[key].id)

    assert found(story) == ["I18"]


@pytest.mark.parametrize("answer", [FAIL, None])
@pytest.mark.parametrize("operation", ["cancel", "retry"])
def test_nothing_is_cancelled_or_retried_unasked(operation: str, answer: str | None) -> None:
    story = Story()
    story.claim(key := story.add())
    story.fail(key)
    {"cancel": story.give_up, "retry": story.retry}[operation](key)
    if operation == "retry":
        story.claim(key)
        story.succeed(key)
    right = found(story)
    call = next(call for call in story.calls if call.operation == operation)
    story.calls.remove(call)
    if answer is not None:
        story.calls.append(replace(call, answer=answer))

    assert right == []
    assert found(story) == ["I18"]


def test_what_nobody_heard_of_may_have_been_done_later() -> None:
    story = Story()
    key = story.add()
    story.call("cancel", INFO, job=story.jobs[key].id)
    story.tick(30)
    story.cancel(key)
    story.calls.pop()

    assert found(story) == []


# --- rows -----------------------------------------------------------------------------------------------


def test_a_result_of_an_older_claim_is_not_stored() -> None:
    story = Story()
    story.claim(key := story.add())
    story.faults.append(Fault("pause-node", story.tick(), story.tick(), "node-1"))
    story.lose(key)
    story.claim(key)
    story.note(key, "end")
    story.set(key, state=JobState.SUCCESS, worker=None, result='{"fence":1}', finished_at=story.now)

    assert found(story) == ["I3"]


def test_progress_of_an_older_claim_is_not_stored() -> None:
    story = Story()
    story.claim(key := story.add())
    story.set(key, message="fence 1, 1 of 5")
    story.faults.append(Fault("pause-node", story.tick(), story.tick(), "node-1"))
    story.lose(key)
    story.claim(key)
    story.set(key, message="fence 1, 2 of 5")
    story.succeed(key)

    assert found(story) == ["I3"]


def test_a_fence_only_grows() -> None:
    story, key = whole()
    story.set(key, fence=1)

    assert "I3" in found(story)


def test_a_claim_ends_once() -> None:
    story = Story()
    story.claim(key := story.add())
    running = story.rows[key]
    story.again(key)
    story.rows[key] = running
    story.again(key)
    story.claim(key)
    story.succeed(key)

    assert "I4" in found(story)


def test_a_claim_that_has_ended_is_not_lost_as_well() -> None:
    story = Story()
    story.claim(key := story.add())
    running = story.rows[key]
    story.again(key)
    story.rows[key] = running
    story.faults.append(Fault("kill-worker", story.tick(), story.tick(), "node-1", (70,)))
    story.lose(key)
    story.claim(key)
    story.succeed(key)

    assert found(story) == ["I4", "I6"]


def test_a_result_that_does_not_say_of_which_claim_it_is_is_found() -> None:
    story = Story()
    story.claim(key := story.add())
    story.note(key, "end")
    story.set(key, state=JobState.SUCCESS, worker=None, result=None, finished_at=story.now)

    assert found(story) == ["I3"]


def test_what_has_ended_is_not_written_over() -> None:
    story, key = whole()
    story.set(key, state=JobState.CANCELLED, fence=story.rows[key].fence)

    assert found(story) == ["I5", "I6"]


def test_a_result_that_is_replaced_after_the_end_is_found() -> None:
    story, key = whole()
    story.set(key, result='{"fence":4,"more":1}')

    assert "I5" in found(story)


def test_a_change_that_no_trigger_saw_is_found() -> None:
    story, _ = whole()
    del story.changes[3]

    assert "I6" in found(story)


def test_a_job_that_is_removed_is_found() -> None:
    story, key = whole()
    del story.jobs[key]

    assert found(story) == ["I1", "I6", "I7"]


def test_a_job_of_which_no_trigger_saw_anything_is_found() -> None:
    story, _ = whole()
    story.changes.clear()

    assert "I6" in found(story)


def test_a_job_whose_beginning_no_trigger_saw_is_found() -> None:
    story, _ = whole()
    del story.changes[0]

    assert found(story) == ["I6"]


@pytest.mark.parametrize("column", ["losses", "counted", "message", "result", "attempt", "worker"])
def test_what_was_changed_unseen_is_found_whatever_it_was(column: str) -> None:
    story, key = whole()
    changed: Any = {column: 9}
    before = story.changes[2].before
    assert before is not None
    story.changes[2] = story.changes[2]._replace(before=before._replace(**changed))
    between = found(story)
    story, key = whole()
    story.jobs[key] = replace(story.jobs[key], row=story.rows[key]._replace(**changed))

    assert "I6" in between
    assert "I6" in found(story)


def test_what_was_changed_unseen_is_named() -> None:
    story, key = whole()
    story.jobs[key] = replace(story.jobs[key], row=story.rows[key]._replace(losses=9))

    (violation,) = judge(story.facts)
    assert violation.what.endswith("of another losses")


# --- handlers -------------------------------------------------------------------------------------------


def test_a_handler_that_starts_twice_for_one_claim_is_found() -> None:
    story, _ = whole()
    story.notes.append(story.notes[0])

    assert found(story) == ["I7"]


def test_a_handler_that_starts_without_a_claim_is_found() -> None:
    story, _ = whole()
    story.notes.append(replace(story.notes[0], fence=9))

    assert found(story) == ["I7"]


def test_a_success_for_which_no_handler_started_is_found() -> None:
    story, _ = whole()
    story.notes.remove(next(note for note in story.notes if note.what == "start" and note.fence == 4))

    assert found(story) == ["I7"]


def test_a_job_that_is_ignored_though_no_handler_started_is_found() -> None:
    story = Story()
    story.claim(key := story.add())
    story.notes.clear()
    story.set(key, state=JobState.IGNORED, worker=None, finished_at=story.now)

    assert found(story) == ["I7", "I17"]


def test_a_handler_of_a_job_that_was_never_there_is_found() -> None:
    story, _ = whole()
    story.notes.append(replace(story.notes[0], job=JobId("quick", 99)))

    assert found(story) == ["I7"]


def test_a_job_that_is_tried_more_often_than_it_may_be_is_found() -> None:
    story = Story()
    key = story.add()
    for _ in range(PLAIN.attempts + 1):
        story.claim(key)
        story.again(key)
    story.claim(key)
    story.succeed(key)

    assert found(story) == ["I7"]


def test_a_handler_is_given_what_its_job_was_added_with() -> None:
    story, _ = whole()
    story.notes[0] = replace(story.notes[0], tag="tag-of-another")

    assert found(story) == ["I7"]


LATE = 11


@pytest.mark.parametrize(
    ("how", "seconds", "end", "broken"),
    [
        ("ValueError", 0, Story.succeed, ["I17"]),
        ("Ignore", 0, Story.succeed, ["I17"]),
        (RETURNED, 0, Story.again, ["I17"]),
        ("Ignore", 0, Story.again, ["I17"]),
        ("Fail", 0, Story.again, ["I17"]),
        (None, 0, Story.again, ["I17"]),
        ("CancelledError", 0, Story.again, ["I17"]),
        ("CancelledError", LATE, Story.again, []),
        # It goes on in its thread, or comes back when its time is up.
        (None, LATE, Story.again, []),
        (RETURNED, LATE, Story.again, []),
        ("ValueError", 0, Story.fail, ["I17"]),
        (RETURNED, 0, Story.fail, ["I17"]),
        (None, LATE, Story.fail, ["I17"]),
        ("Fail", 0, Story.fail, []),
    ],
)
def test_an_attempt_ends_as_its_handler_did(
    how: str | None, seconds: int, end: Callable[[Story, int], None], broken: list[str]
) -> None:
    story = Story()
    story.claim(key := story.add())
    story.tick(seconds)
    end(story, key)
    number = next(number for number, note in enumerate(story.notes) if note.what == "end")
    story.notes[number] = replace(story.notes[number], how=how)
    if how is None:
        del story.notes[number]
    if end is Story.again:
        story.claim(key)
        story.succeed(key)

    assert found(story) == broken


@pytest.mark.parametrize(
    ("stopped_for", "told_first", "broken"), [(LATE, False, []), (LATE, True, ["I17"]), (0, False, ["I17"])]
)
def test_the_time_of_an_attempt_runs_from_when_its_child_was_told_to_start_it(
    stopped_for: int, told_first: bool, broken: list[str]
) -> None:
    """A node that is stopped keeps the child from its handler's first line; what is before the claim counts nothing."""
    story = Story()
    key, before = story.add(), story.now
    story.tick(LATE if told_first else 0)
    story.claim(key)
    story.set(key, started_at=before if told_first else story.now)
    if not told_first:
        story.tick(stopped_for)
        story.notes[-1] = replace(story.notes[-1], at=story.now)
    story.again(key)
    story.notes[-1] = replace(story.notes[-1], how=RETURNED)
    story.claim(key)
    story.succeed(key)

    assert found(story) == broken


def test_a_job_fails_for_good_once_it_had_its_retries() -> None:
    story = Story()
    story.claim(key := story.add())
    story.again(key)
    story.claim(key)
    story.fail(key, "ValueError")

    assert found(story) == []


def test_an_attempt_that_fails_although_its_handler_had_not_started_is_found() -> None:
    story = Story()
    story.claim(key := story.add())
    story.notes.clear()
    story.set(key, state=JobState.RETRYING, worker=None)
    story.claim(key)
    story.succeed(key)

    assert found(story) == ["I17"]


@pytest.mark.parametrize(("losses", "poisoned", "broken"), [(2, False, []), (2, True, ["I19"]), (3, False, ["I19"])])
def test_the_third_loss_poisons_and_no_other(losses: int, poisoned: bool, broken: list[str]) -> None:
    story = Story()
    key = story.add()
    for number in range(losses):
        story.claim(key)
        story.faults.append(Fault("kill-child", story.tick(), story.tick(), "node-1"))
        story.lose(key)
        row = story.rows[key]._replace(losses=number + 1)
        if poisoned and number == losses - 1:
            row = row._replace(state=JobState.FAILURE, attempt=row.attempt + 1, finished_at=story.now)
        story.changes[-1] = story.changes[-1]._replace(after=row)
        story.rows[key], story.jobs[key] = row, replace(story.jobs[key], row=row)
    if not poisoned:
        story.claim(key)
        story.succeed(key)

    assert found(story) == broken


@pytest.mark.parametrize(
    ("act", "changed"),
    [
        (Story.claim, {"losses": 1}),
        (Story.claim, {"deaths": 1}),
        (Story.claim, {"counted": 1}),
        (Story.again, {"losses": 1}),
        (Story.hand_back, {"deaths": 1}),
        (Story.lose, {"losses": 2}),
    ],
)
def test_columns_that_a_change_may_not_touch_are_held(
    act: Callable[[Story, int], None], changed: dict[str, Any]
) -> None:
    story = Story()
    key = story.add()
    if act is not Story.claim:
        story.claim(key)
    act(story, key)
    change = story.changes[-1]

    assert transition(change.before or NEW, change.after) is not None
    assert transition(change.before or NEW, change.after._replace(**changed)) is None


def test_who_was_asked_to_stop_stays_so() -> None:
    running = NEW._replace(state=JobState.RUNNING, fence=1, attempt=1, worker=7, counted=0, cancel_at=5)

    assert transition(running, running._replace(message="more")) == "T3"
    assert transition(running, running._replace(cancel_at=None)) is None


def test_nobody_is_cancelled_as_he_runs_who_was_not_asked_to_stop() -> None:
    running = NEW._replace(state=JobState.RUNNING, fence=1, attempt=1, worker=7, counted=0, started_at=1)

    assert transition(running, running._replace(state=JobState.CANCELLED, worker=None)) is None


def test_effects_without_a_success_are_found() -> None:
    story = Story()
    story.claim(key := story.add("ledger"))
    story.ledger.append((story.jobs[key].id, 1))
    story.fail(key)

    assert found(story) == ["I8"]


def test_effects_that_are_there_twice_are_found() -> None:
    story, _ = whole("ledger")
    story.ledger.append(story.ledger[0])

    assert found(story) == ["I8"]


def test_a_success_without_its_effects_is_found() -> None:
    story, _ = whole("ledger")
    story.ledger.clear()

    assert found(story) == ["I8"]


def test_a_lost_event_is_found() -> None:
    story, _ = whole("told")
    gone = story.events.pop(1)
    story.notes.remove(next(note for note in story.notes if note.what == gone.hook))

    assert found(story) == ["I10"]


def test_an_event_that_no_hook_was_told_is_found() -> None:
    story, _ = whole("told")
    story.notes.remove(next(note for note in story.notes if note.what == "success"))

    assert found(story) == ["I10"]


def test_hooks_that_are_told_in_the_wrong_order_are_found() -> None:
    story, _ = whole("told")
    told = [number for number, note in enumerate(story.notes) if note.is_of_hook]
    story.notes[told[0]], story.notes[told[-1]] = story.notes[told[-1]], story.notes[told[0]]

    assert found(story) == ["I10"]


def test_a_hook_that_is_told_too_early_is_found_though_it_is_told_again_in_time() -> None:
    story, _ = whole("told")
    told = [note for note in story.notes if note.is_of_hook]
    story.notes.insert(story.notes.index(told[0]), replace(told[-1], at=told[0].at - 1))

    assert found(story) == ["I10"]


def test_a_hook_that_is_told_twice_is_in_order() -> None:
    story, _ = whole("told")
    twice = [note for note in story.notes for _ in range(1 + note.is_of_hook)]
    story.notes[:] = twice

    assert found(story) == []


def test_a_hook_that_hears_what_did_not_happen_is_found() -> None:
    story, _ = whole("told")
    story.notes.append(replace(story.notes[-1], what="cancel"))

    assert found(story) == ["I10"]


def test_a_job_that_is_taken_over_too_late_is_found() -> None:
    story = Story()
    story.claim(key := story.add())
    story.faults.append(Fault("kill-worker", story.tick(), story.tick(), "node-1", (70,)))
    story.tick(30)
    story.lose(key)
    story.claim(key)
    story.succeed(key)

    assert found(story) == ["I12"]
    assert [round(one.took / SECOND) for one in recoveries(Index.of(story.facts))] == [30]


def test_a_job_that_is_taken_from_a_worker_that_lives_is_found() -> None:
    story = Story()
    story.claim(key := story.add())
    story.faults.append(Fault("kill-caller", story.tick(), story.tick(), "caller-1", (71,)))
    story.lose(key)
    story.claim(key)
    story.succeed(key)

    assert found(story) == ["I4"]


@pytest.mark.parametrize(
    ("has_lock", "target", "seconds", "broken"),
    [
        # It may have died by itself, as its lock tells.
        (True, "node-1", 0, []),
        (True, "node-2", 0, ["I4"]),
        (True, "server", 0, ["I4"]),
        (False, "node-1", 0, ["I4"]),
        # Its lease is over.
        (True, "server", 3, []),
        (False, "node-2", 3, []),
    ],
)
def test_whose_lease_goes_on_is_dead_only_if_something_happened_to_its_node(
    has_lock: bool, target: str, seconds: int, broken: list[str]
) -> None:
    story = Story()
    story.workers = [story.workers[0]._replace(has_lock=has_lock)]
    story.claim(key := story.add())
    story.faults.append(Fault("pause-node", story.tick(), story.tick(), target))
    story.leases.append(Lease(WORKER, story.now, story.now + BOUNDS.lease))
    story.tick(seconds)
    story.lose(key)
    story.claim(key)
    story.succeed(key)

    assert found(story) == broken


def test_a_job_of_a_worker_that_was_never_entered_is_not_taken_back() -> None:
    story = Story()
    story.claim(key := story.add(), worker=99)
    story.faults.append(Fault("pause-node", story.tick(), story.tick(), "node-1"))
    story.lose(key)
    story.claim(key)
    story.succeed(key)

    assert found(story) == ["I4"]


def test_a_node_that_is_stopped_need_not_take_anything_over() -> None:
    story = Story()
    story.claim(key := story.add())
    story.faults.append(Fault("kill-worker", story.tick(), story.tick(), "node-1", (70,)))
    began = story.tick()
    story.tick(30)
    story.faults.append(Fault("pause-node", began, story.tick(), "node-1"))
    story.lose(key)
    story.claim(key)
    story.succeed(key)

    assert found(story) == []


@pytest.mark.parametrize(
    ("faults", "broken"),
    [
        # Killing a caller keeps no node from anything.
        ([("kill-caller", 0, 28)], ["I12"]),
        # Two that overlap take away no more time than one.
        ([("pause-node", 0, 12), ("pause-node", 2, 12), ("stop-node", 4, 13)], ["I12"]),
        # One after the other they do.
        ([("pause-node", 0, 12), ("pause-node", 14, 26)], []),
        # What came later, or was over before, took nothing away.
        ([("pause-node", -40, -1), ("pause-node", 40, 70)], ["I12"]),
    ],
)
def test_only_time_in_which_a_node_was_disturbed_makes_a_recovery_late(
    faults: list[tuple[str, int, int]], broken: list[str]
) -> None:
    story = Story(now=100 * SECOND)
    story.claim(key := story.add())
    died = story.tick()
    story.faults.append(Fault("kill-worker", died, story.tick(), "node-1", (70,)))
    for kind, began, ended in faults:
        target = "caller-1" if kind == "kill-caller" else "node-2"
        story.faults.append(Fault(kind, died + began * SECOND, died + ended * SECOND, target))
    story.tick(30)
    story.lose(key)
    story.claim(key)
    story.succeed(key)

    assert found(story) == broken


@pytest.mark.parametrize(
    ("kind", "disturbed", "broken"),
    [("kill-worker", False, ["I12"]), ("kill-worker", True, []), ("kill-node", False, [])],
)
def test_the_death_of_a_worker_alone_is_seen_at_once(kind: str, disturbed: bool, broken: list[str]) -> None:
    story = Story()
    story.claim(key := story.add())
    story.faults.append(Fault(kind, story.tick(), story.tick(), "node-1", (70,)))
    if disturbed:
        story.faults.append(Fault("pause-node", story.tick(), story.tick(), "node-1"))
    story.tick(8)
    story.lose(key)
    story.claim(key)
    story.succeed(key)

    assert found(story) == broken


def killed_as_it_ran(seconds: int, jobs: int = 1) -> Story:
    """A story in which a process is killed that had these jobs at once."""
    story = Story()
    keys = [story.add() for _ in range(jobs)]
    for key in keys:
        story.claim(key)
    story.tick(seconds)
    story.faults.append(Fault("kill-worker", story.tick(), story.tick(), "node-1", (70,)))
    for key in keys:
        story.lose(key)
    for key in keys:
        story.claim(key)
        story.succeed(key)
    return story


def test_a_handler_that_was_killed_counts_until_then() -> None:
    assert found(killed_as_it_ran(1, PLAIN.worker_nums)) == []
    assert found(killed_as_it_ran(1, PLAIN.worker_nums + 1)) == ["I14"]
    assert found(killed_as_it_ran(30)) == ["I13"]


def test_what_has_ended_does_not_count_as_one_that_waits() -> None:
    story = Story()
    key = story.add()
    story.cancel(key)
    story.jobs[key] = replace(story.jobs[key], row=story.rows[key]._replace(counted=1))

    assert f"{story.jobs[key].id} has ended, and counts as one that waits" in [one.what for one in judge(story.facts)]


def test_a_process_number_that_is_used_again_is_not_mistaken() -> None:
    story = Story()
    story.workers.append(Worker(8, 70, "worker", 1, story.tick(), has_lock=True))
    story.claim(key := story.add(), worker=8)
    story.faults.append(Fault("kill-worker", story.tick(), story.tick(), "node-1", (70,)))
    story.lose(key)
    story.claim(key)
    story.succeed(key)

    assert len(recoveries(Index.of(story.facts))) == 1


def test_a_handler_that_outlives_its_timeout_is_found() -> None:
    story = Story()
    story.claim(key := story.add())
    story.tick(30)
    story.succeed(key)

    assert found(story) == ["I13"]


@pytest.mark.parametrize(
    ("faults", "broken"),
    [
        ([("pause-node", "node-1", 0, 20)], []),
        ([("hold-line", "node-1", 0, 20)], []),
        ([("restart-server", "server", 0, 20)], []),
        # Another node, or what ends handlers rather than keep them.
        ([("pause-node", "node-2", 0, 20)], ["I13"]),
        ([("hold-line", "caller-1", 0, 20)], ["I13"]),
        ([("kill-node", "node-1", 0, 20)], ["I13"]),
        ([("kill-caller", "caller-1", 0, 20)], ["I13"]),
        # Those that overlap count once.
        ([("pause-node", "node-1", 0, 8), ("hold-line", "node-1", 1, 9)], ["I13"]),
        ([("pause-node", "node-1", 0, 8), ("hold-line", "node-1", 9, 17)], []),
    ],
)
def test_only_time_in_which_its_own_node_stood_still_lets_a_handler_run_on(
    faults: list[tuple[str, str, int, int]], broken: list[str]
) -> None:
    story = Story()
    story.claim(key := story.add())
    begun = story.now
    for kind, target, began, ended in faults:
        story.faults.append(Fault(kind, begun + began * SECOND, begun + ended * SECOND, target))
    story.tick(30)
    story.succeed(key)

    assert found(story) == broken


@pytest.mark.parametrize(("nodes", "broken"), [(("node-1",) * 3, ["I14"]), (("node-1", "node-1", "node-2"), [])])
def test_more_at_once_than_a_node_may_run_is_found(nodes: tuple[str, ...], broken: list[str]) -> None:
    story = Story()
    keys = [story.add() for _ in nodes]
    for key in keys:
        story.set(
            key, state=JobState.RUNNING, fence=1, attempt=1, worker=7, counted=0
        )  # fmt: skip
    for what in ("start", "end"):
        for key, node in zip(keys, nodes, strict=True):
            story.note(key, what, node)
    for key in keys:
        story.set(key, state=JobState.SUCCESS, worker=None, result='{"fence":1}', finished_at=story.now)

    assert found(story) == broken


@pytest.mark.parametrize(("count", "broken"), [(3, []), (4, ["I14"])])
def test_more_that_wait_than_there_is_room_for_are_found(count: int, broken: list[str]) -> None:
    story = Story()
    keys = [story.add() for _ in range(count)]
    for key in keys:
        story.claim(key)
        story.succeed(key)

    assert found(story) == broken


def test_a_size_that_does_not_go_by_what_waits_is_found() -> None:
    story, _ = whole()
    facts = replace(story.facts, waiting={"quick": 2})

    assert [violation.invariant for violation in judge(facts)] == ["I14"]


def test_what_is_left_behind_is_found() -> None:
    story, _ = whole()
    story.leftovers = ["the process yaotask run"]
    story.was_drained = False

    assert [violation.invariant for violation in judge(story.facts)] == ["I15", "I15"]


def test_a_node_that_does_not_end_in_order_is_found() -> None:
    story, _ = whole()
    story.faults.append(Fault("stop-node", story.tick(), story.tick(), "node-1", wrong="ended with 3"))

    assert judge(story.facts) == [("I15", "stop-node: node-1 ended with 3")]


# --- any story ------------------------------------------------------------------------------------------

ACTS: dict[str, tuple[set[JobState], Callable[[Story, int], None]]] = {
    "claim": ({JobState.WAITING, JobState.RETRYING}, Story.claim),
    "cancel": ({JobState.WAITING, JobState.RETRYING}, Story.cancel),
    "succeed": ({JobState.RUNNING}, Story.succeed),
    "fail": ({JobState.RUNNING}, Story.fail),
    "lose": ({JobState.RUNNING}, Story.lose),
    "hand_back": ({JobState.RUNNING}, Story.hand_back),
    "retry": ({JobState.FAILURE, JobState.CANCELLED}, Story.retry),
}


def told(acts: list[str], task: str) -> tuple[Story, int]:
    """A story of one job in which happens what can happen of these, up to an end."""
    story = Story()
    key = story.add(task)
    for act in [*acts, "claim", "succeed"]:
        states, play = ACTS[act]
        if act == "lose":
            story.faults.append(Fault("kill-worker", story.tick(), story.tick(), "node-1"))
        if story.rows[key].state in states:
            play(story, key)
    return story, key


@settings(max_examples=200)
@given(st.lists(st.sampled_from(sorted(ACTS)), max_size=30), st.sampled_from(sorted(TERMS)))
def test_whatever_the_table_allows_breaks_nothing(acts: list[str], task: str) -> None:
    story, _ = told(acts, task)

    assert judge(story.facts) == []


@settings(max_examples=200)
@given(st.lists(st.sampled_from(sorted(ACTS)), max_size=30), st.data())
def test_a_change_that_the_table_does_not_know_is_always_found(acts: list[str], data: st.DataObject) -> None:
    story, _ = told(acts, "quick")
    number = data.draw(st.integers(0, len(story.changes) - 1))
    change = story.changes[number]
    state = data.draw(st.sampled_from([state for state in JobState if state != change.after.state]))
    story.changes[number] = change._replace(after=change.after._replace(state=state))

    assert {"I5", "I6"} & set(found(story))


@pytest.mark.parametrize("state", [JobState.SUCCESS, JobState.IGNORED])
def test_nothing_leads_out_of_a_success(state: JobState) -> None:
    ended = NEW._replace(state=state, fence=1, attempt=1, finished_at=5)
    again = ended._replace(state=JobState.WAITING, generation=1, attempt=0, finished_at=None)

    assert transition(ended, again) is None


def test_what_was_asked_to_stop_is_not_tried_again() -> None:
    running = NEW._replace(state=JobState.RUNNING, fence=1, attempt=1, worker=7, cancel_at=5)
    retrying = running._replace(state=JobState.RETRYING, worker=None)

    assert transition(running, retrying) is None
    assert transition(running, retrying._replace(state=JobState.CANCELLED)) == "T9"
    assert transition(running._replace(cancel_at=None), retrying._replace(cancel_at=None)) == "T5"
