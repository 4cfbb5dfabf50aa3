"""The processes of all nodes as users get them: who lives, until when, and what each has in hand."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from fleet_support import Fleet
from store_support import START, ManualClock

from yaotask import App
from yaotask.definitions.model import Definition
from yaotask.errors import BlockingCall
from yaotask.nodeview import MOST_NAMED, can_run, can_work, disagreements, told_of
from yaotask.store.locks import Lock
from yaotask.values import dumps

TASK = "name: Mail\nprocess: scripts.mail.Send\n"


@pytest.fixture
def app(project: Callable[..., Path]) -> Iterator[App]:
    with App(project(tasks={"mail": TASK}), clock=ManualClock()) as app:
        app.tasks["mail"].add_many([[]] * 3)
        yield app


@pytest.fixture
def fleet(app: App) -> Fleet:
    return Fleet(app.root, START)


def only(app: App) -> dict[str, Any]:
    (process,) = app.workers()
    return process


def test_where_nothing_was_entered_nothing_is_shown(app: App) -> None:
    assert app.workers() == []


def test_a_process_is_shown_as_its_supervisor_told_of_it(app: App, fleet: Fleet) -> None:
    told: dict[str, Any] = {
        "version": "0.1.0",
        "state": "draining",
        "memory": 80_000_000,
        "zombies": {"mail": 2},
        "tasks": None,
        "ended": {"lost": 1},
    }
    fleet.enter(7, node=5, number=1, renewed=4, beat=0.5, **told)

    assert only(app) == {
        "key": 7,
        "kind": "worker",
        "node": 5,
        "number": 2,
        "incarnation": f"{7:032x}",
        "host": "build-1",
        "pid": 1007,
        "alive": True,
        "started_at": "2027-01-15T07:59:00.000000Z",
        "age": 60.0,
        "renewed_at": "2027-01-15T07:59:56.000000Z",
        "lease_ends_at": "2027-01-15T08:00:26.000000Z",
        "lease_age": 4.0,
        "lease_left": 26.0,
        "beat": 4.5,
        "running": 0,
        "claimed": 0,
        "jobs": [],
        "broken": [],
        "definitions": None,
        "differs": [],
        **told,
    }


def test_each_process_is_shown_with_what_it_has_in_hand_the_oldest_first(app: App, fleet: Fleet) -> None:
    fleet.enter(1)
    fleet.enter(2)
    fleet.claim(1, 1, since=3)
    fleet.claim(2, 1, since=9, started=False)
    fleet.claim(3, 2, since=1)
    first, second = app.workers()

    assert first["jobs"] == [
        {"task_id": "mail.2", "started": False, "seconds": 9.0},
        {"task_id": "mail.1", "started": True, "seconds": 3.0},
    ]
    assert (first["running"], first["claimed"]) == (1, 1)
    assert second["jobs"] == [{"task_id": "mail.3", "started": True, "seconds": 1.0}]


def test_of_very_many_jobs_the_oldest_are_named_and_all_are_counted(app: App, fleet: Fleet) -> None:
    app.tasks["mail"].add_many([[]] * MOST_NAMED)
    fleet.enter(1)
    for id in range(1, MOST_NAMED + 3):
        fleet.claim(id, 1, since=1_000 - id)
    process = only(app)

    assert process["running"] == MOST_NAMED + 2
    assert [job["task_id"] for job in process["jobs"]] == [f"mail.{id}" for id in range(1, MOST_NAMED + 1)]


def test_nodes_come_one_after_the_other_each_with_its_supervisor_first(app: App, fleet: Fleet) -> None:
    fleet.enter(1, "supervisor")
    fleet.enter(2, "supervisor")
    fleet.enter(3, node=2, number=0)
    fleet.enter(4, "services", node=1, number=0)
    fleet.enter(5, node=1, number=1)
    fleet.enter(6, node=1, number=0)
    fleet.enter(7, "embedded")

    assert [process["key"] for process in app.workers()] == [1, 6, 5, 4, 2, 3, 7]
    assert [process["number"] for process in app.workers()] == [None, 1, 2, None, None, 1, None]


def test_nodes_come_in_the_order_of_their_start_whatever_their_keys(app: App, fleet: Fleet) -> None:
    fleet.enter(3, "supervisor", age=30)
    fleet.enter(4, node=3, number=0, age=1)
    fleet.enter(1, "supervisor", age=10)
    fleet.enter(2, node=1, number=0, age=9)
    fleet.enter(5, "supervisor", age=20)

    assert [process["key"] for process in app.workers()] == [3, 4, 5, 1, 2]


# --- what their tasks are ----------------------------------------------------------------------------


def told(attempts: Mapping[str, int], broken: Sequence[str] = ()) -> dict[str, Any]:
    """What the supervisor tells of a node whose tasks have so many attempts."""
    tasks = {task: Definition(task, task, "scripts.mail.Send", attempts=number) for task, number in attempts.items()}
    return told_of(tasks, broken)


def test_what_a_node_tells_of_a_thousand_tasks_is_small() -> None:
    tasks = {f"t{number}": 3 for number in range(1_000)}

    assert len(dumps(told(tasks))) < 16_000


def test_each_node_is_shown_with_its_definitions_and_with_what_it_cannot_run(app: App, fleet: Fleet) -> None:
    fleet.enter(1, "supervisor", **told({"mail": 3, "page": 0}, broken=["page"]))
    node = only(app)

    assert (node["tasks"], node["broken"]) == (["mail", "page"], ["page"])
    assert node["definitions"].keys() == {"mail", "page"}
    assert node["definitions"]["mail"] != node["definitions"]["page"]
    assert can_run(node) == {"mail"}


def test_tasks_that_nodes_define_in_different_ways_are_told_of_each(app: App, fleet: Fleet) -> None:
    fleet.enter(1, "supervisor", **told({"mail": 3, "page": 0, "fax": 1}))
    fleet.enter(2, "supervisor", **told({"mail": 0, "page": 0}))
    fleet.enter(3, "embedded", **told({"mail": 3, "page": 2}))
    first, second, third = app.workers()

    assert first["differs"] == second["differs"] == third["differs"] == ["mail", "page"]
    assert disagreements([first, second, third]) == [
        "mail differs between node 1 on build-1, embedded 3 on build-1 and node 2 on build-1",
        "page differs between node 1 on build-1, node 2 on build-1 and embedded 3 on build-1",
    ]


def test_many_tasks_that_differ_between_the_same_nodes_are_told_of_in_one_line(app: App, fleet: Fleet) -> None:
    fleet.enter(1, "supervisor", **told({f"t{number}": 0 for number in range(1_000)}))
    fleet.enter(2, "supervisor", **told({f"t{number}": 1 for number in range(1_000)}))

    assert disagreements(app.workers()) == [
        "t0, t1, t10 and 997 more differ between node 1 on build-1 and node 2 on build-1"
    ]


def test_a_node_that_is_gone_disagrees_with_nobody(app: App, fleet: Fleet) -> None:
    fleet.enter(1, "supervisor", **told({"mail": 3}))
    fleet.enter(2, "supervisor", renewed=60, **told({"mail": 0}))

    assert [process["differs"] for process in app.workers()] == [[], []]


# --- who lives ---------------------------------------------------------------------------------------


def test_one_whose_lease_has_run_out_is_dead(app: App, fleet: Fleet) -> None:
    fleet.enter(1, renewed=31, lease=30, state="working")
    process = only(app)

    assert (process["alive"], process["state"], process["lease_left"]) == (False, "dead", -1.0)


def test_one_whose_lock_is_free_is_dead_at_once(app: App, fleet: Fleet) -> None:
    lock = Lock.take(app.root / ".yaotask" / "workers", "theirs")
    fleet.enter(1, state="working")
    fleet.lock(1, lock)
    alive = only(app)["alive"]
    os.close(lock.handle)

    assert alive
    assert only(app)["state"] == "dead"


@pytest.mark.parametrize(("kind", "node"), [("supervisor", None), ("embedded", None), ("worker", 1)])
def test_a_process_that_nothing_was_told_of_works(app: App, fleet: Fleet, kind: str, node: int | None) -> None:
    fleet.enter(2, kind, node=node, lease=None)
    process = only(app)

    assert (process["state"], process["beat"], process["memory"], process["zombies"]) == ("working", None, None, {})
    assert (process["lease_ends_at"], process["lease_left"]) == (None, None)


@pytest.mark.parametrize(
    "info", ["not json", "[1]", json.dumps({"beat": "late", "zombies": 3, "tasks": [[]], "digests": "12"})]
)
def test_what_another_version_told_does_no_harm(app: App, fleet: Fleet, info: str) -> None:
    fleet.enter(1)
    fleet.execute("UPDATE yaotask_workers SET info = :info", info=info)

    process = only(app)

    assert (process["alive"], process["beat"], process["zombies"]) == (True, None, {})
    assert (process["tasks"], process["definitions"]) == (None, None)


@pytest.mark.parametrize(
    ("kind", "lease", "can"),
    [
        ("worker", 30, True),
        ("embedded", None, True),
        ("supervisor", 30, False),
        ("services", 30, False),
        ("worker", 1, False),
    ],
)
def test_jobs_are_claimed_by_living_workers_alone(
    app: App, fleet: Fleet, kind: str, lease: float | None, can: bool
) -> None:
    fleet.enter(1, kind, lease=lease, renewed=2)

    assert can_work(only(app)) is can


async def test_on_a_loop_its_twin_is_to_be_used(app: App, fleet: Fleet) -> None:
    fleet.enter(1)

    with pytest.raises(BlockingCall, match="aworkers"):
        app.workers()
    assert [process["key"] for process in await app.aworkers()] == [1]
