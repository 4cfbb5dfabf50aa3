"""Adds are checked before anything is stored: values, sizes, signatures, and whose the id is."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import Any

import anyio.to_thread
import pytest

from yaotask import App, DuplicateJobId, InvalidPayload, QueueFull
from yaotask.intake import CHUNK, CHUNK_BYTES

pytest_plugins = ["door_support"]

TREE: list[Any] = []
for _ in range(70):
    TREE = [TREE]

BAD = [
    ({"to": "a\0b"}, "$.args[0].to", "$.payload.v.to"),
    ([1, "\ud800"], "$.args[0][1]", "$.payload.v[1]"),
    (float("nan"), "$.args[0]", "$.payload.v"),
    ([float("-inf")], "$.args[0][0]", "$.payload.v[0]"),
    (2**53, "$.args[0]", "$.payload.v"),
    (-(2**53), "$.args[0]", "$.payload.v"),
    ({"a": {1, 2}}, "$.args[0].a", "$.payload.v.a"),
    (b"x", "$.args[0]", "$.payload.v"),
    ({1: "x"}, "$.args[0]", "$.payload.v"),
    (object(), "$.args[0]", "$.payload.v"),
]


@pytest.mark.parametrize(("value", "in_args", "in_payload"), BAD)
async def test_a_value_that_no_store_can_hold_is_refused_with_its_path(
    app: App, value: Any, in_args: str, in_payload: str
) -> None:
    with pytest.raises(InvalidPayload) as first:
        await app.tasks["mail"].aadd(value)
    with pytest.raises(InvalidPayload) as second:
        await app.tasks["mail"].aadd(v=value)

    assert (first.value.path, second.value.path) == (in_args, in_payload)
    assert (await app.alist())["items"] == []


def test_a_value_that_is_too_deep_is_refused(app: App) -> None:
    with pytest.raises(InvalidPayload, match="is nested more than 64 deep"):
        app.tasks["mail"].add(TREE)


def test_a_value_that_contains_itself_is_refused(app: App) -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(InvalidPayload):
        app.tasks["mail"].add(loop)


def test_what_json_holds_comes_back_as_it_was(app: App) -> None:
    value: Any = {"a": [None, True, 2**53 - 1, -(2**53) + 1, 1.5, "\U0001f600 \u2028", {}, []]}
    id = app.tasks["mail"].add(value, (1, 2), v=value)
    job = app.get(f"mail.{id}")

    assert (job["args"], job["payload"]) == ([value, [1, 2]], {"v": value})


def test_arguments_and_payload_are_bounded_together(root: Path) -> None:
    (root / "yaotask.yml").write_text("limits: {args_bytes: 1000}\n")
    with App(root) as app:
        assert app.tasks["mail"].add("x" * 400, v="x" * 400) == 1
        with pytest.raises(InvalidPayload, match=r"limits\.args_bytes"):
            app.tasks["mail"].add("x" * 600, v="x" * 600)
        with pytest.raises(InvalidPayload, match=r"^\$\.args: is 1,\d{3} bytes"):
            app.tasks["mail"].add("x" * 1_100)


# --- what a task takes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payload", "told"),
    [
        ({"to": 5}, "$.payload.to: must be text"),
        ({}, '$.payload: lacks "to"'),
        ({"to": "a", "n": "x"}, "$.payload.n: must be an integer"),
    ],
)
async def test_a_payload_is_held_to_the_input_schema(app: App, payload: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidPayload) as refused:
        await app.tasks["checked"].aadd(**payload)

    assert str(refused.value) == told


def test_a_call_that_does_not_fit_a_known_handler_is_refused(app: App) -> None:
    strict = app.tasks["strict"]
    app.works.project.handlers.find(strict.definition)  # as a worker does, or a view that masks

    with pytest.raises(InvalidPayload, match=r"missing a required argument: 'to'; the handler takes \(task_id, to"):
        strict.add()
    with pytest.raises(InvalidPayload, match="unexpected keyword argument 'subjet'"):
        strict.add("ann", subjet="Hello")
    for _ in range(2):
        assert strict.add("ann", subject="Hello")


def test_a_handler_that_is_not_known_refuses_nothing(app: App) -> None:
    assert app.tasks["strict"].add() == 1


# --- ids -------------------------------------------------------------------------------------------------------

NEXTS = ["numbered", "anumbered"]


@pytest.mark.parametrize("task", NEXTS)
async def test_next_gives_the_id_to_every_kind_of_caller(app: App, task: str) -> None:
    await app.acall("scripts.mail.Answer", 2, 4, 6, 8, 10, 12)
    handle = app.tasks[task]

    assert await handle.aadd() == 2
    assert await anyio.to_thread.run_sync(handle.add) == 4
    assert await app.acall(f"tasks.{task}.add") == 6
    assert (await app.acall(f"tasks.{task}.submit"))["id"] == 8
    assert await handle.aadd_many([[], []]) == [10, 12]


@pytest.mark.parametrize("task", NEXTS)
@pytest.mark.parametrize("fault", [RuntimeError("no ids today"), SystemExit("gone")])
async def test_where_next_raises_an_id_is_generated_and_the_fault_logged(
    app: App, task: str, fault: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    await app.acall("scripts.mail.Answer", fault, fault)

    assert await app.tasks[task].aadd() == 1
    assert await anyio.to_thread.run_sync(app.tasks[task].add) == 2
    assert f"`event.next` of {task} failed, so an id is generated: {type(fault).__name__}: {fault}" in caplog.text


@pytest.mark.parametrize("task", NEXTS)
@pytest.mark.parametrize("id", [True, 0, -1, 2**53, 1.0, "7", None, [1]])
async def test_an_answer_of_next_that_is_no_id_is_refused(app: App, task: str, id: object) -> None:
    await app.acall("scripts.mail.Answer", id, id)

    with pytest.raises(DuplicateJobId, match=r"an id is an integer from 1 to 2\*\*53 - 1"):
        await app.tasks[task].aadd()
    assert await app.acall(f"tasks.{task}.add") == 0
    assert (await app.alist(task))["items"] == []


@pytest.mark.parametrize("task", NEXTS)
async def test_a_taken_id_names_its_holder_and_add_answers_0(app: App, task: str) -> None:
    await app.acall("scripts.mail.Answer", 7, 7, 7)
    await app.tasks[task].aadd("first")

    with pytest.raises(DuplicateJobId, match=rf"{task}\.7 exists already") as refused:
        await app.tasks[task].aadd("second")
    assert (refused.value.task, refused.value.id) == (task, 7)
    assert await app.acall(f"tasks.{task}.add", "third") == 0
    assert (await app.aget(f"{task}.7"))["args"] == ["first"]


async def test_a_generated_id_passes_over_those_that_next_has_given(app: App) -> None:
    await app.acall("scripts.mail.Answer", 1, 2, RuntimeError("no more"))
    ids = [await app.tasks["numbered"].aadd() for _ in range(3)]

    assert ids == [1, 2, 3]


async def test_the_module_of_next_is_not_imported_on_the_loop(project: Callable[..., Path]) -> None:
    script = """
        import threading

        imported_by = threading.get_ident()

        async def Next():
            return 5

        def ImportedBy():
            return imported_by
    """
    task = "name: Numbered\nprocess: scripts.slow.Next\nevent: {next: scripts.slow.Next}\n"
    async with App(project(tasks={"numbered": task}, scripts={"slow": script})) as app:
        assert await app.tasks["numbered"].aadd() == 5
        assert await app.acall("scripts.slow.ImportedBy") != threading.get_ident()


# --- many ------------------------------------------------------------------------------------------------------


def test_many_are_stored_in_order_as_arguments_or_payloads(app: App) -> None:
    ids = app.tasks["bulk"].add_many([["a", 1], ("b",), MappingProxyType({"to": "c"}), []])
    jobs = [app.get(f"bulk.{id}") for id in ids]

    assert ids == sorted(ids)
    assert [(job["args"], job["payload"]) for job in jobs] == [
        (["a", 1], {}),
        (["b"], {}),
        ([], {"to": "c"}),
        ([], {}),
    ]


def test_many_of_nothing_is_nothing(app: App) -> None:
    assert app.tasks["bulk"].add_many([]) == []


async def test_what_an_iterator_yields_is_stored_before_it_is_asked_for_much_more(app: App) -> None:
    most_ahead = 0

    def items() -> Any:
        nonlocal most_ahead
        for number in range(2_500):
            if number % 500 == 0:
                # Drawn in a thread, so that it may ask.
                stored = app.list("bulk", page=1, page_size=1)["total"]
                most_ahead = max(most_ahead, number - stored)
            yield [number]

    ids = await app.tasks["bulk"].aadd_many(items())

    assert most_ahead <= CHUNK
    assert len(set(ids)) == 2_500
    assert [(await app.aget(f"bulk.{ids[number]}"))["args"] for number in (0, 2_499)] == [[0], [2_499]]


def test_large_items_are_held_in_memory_only_a_few_at_a_time(app: App) -> None:
    held = 0

    def items() -> Any:
        nonlocal held
        for number in range(60):
            held = max(held, number - app.list("bulk", page=1, page_size=1)["total"])
            yield ["x" * 200_000]

    assert len(app.tasks["bulk"].add_many(items())) == 60
    assert held <= CHUNK_BYTES // 200_000


def test_a_queue_that_fills_half_way_tells_the_ids_of_those_stored(app: App) -> None:
    app.tasks["mail"].add("before")
    with pytest.raises(QueueFull) as full:
        app.tasks["mail"].add_many([n] for n in range(9))

    assert [app.get(f"mail.{id}")["args"] for id in full.value.ids] == [[0], [1], [2], [3]]


def test_a_bad_item_says_which_it_is_and_what_was_stored_before(app: App) -> None:
    items: list[Any] = [[n] for n in range(CHUNK + 5)]
    items[CHUNK + 3] = [1, {"to": {1}}]
    with pytest.raises(InvalidPayload) as refused:
        app.tasks["bulk"].add_many(items)

    assert refused.value.path == f"$[{CHUNK + 3}].args[1].to"
    assert len(refused.value.ids) == CHUNK
    assert app.list("bulk", page=1)["total"] == CHUNK


@pytest.mark.parametrize("item", ["ab", 5, None, {1}])
def test_an_item_that_is_neither_is_refused(app: App, item: object) -> None:
    with pytest.raises(InvalidPayload, match=r"^\$\[1\]: is an? \w+; an item is a list of arguments, or a mapping"):
        app.tasks["bulk"].add_many([[1], item])


def test_a_key_is_of_one_job(app: App) -> None:
    with pytest.raises(InvalidPayload, match="key of one job"):
        app.tasks["bulk"].options(key="k").add_many([[1], [2]])


def test_a_taken_id_in_the_middle_stores_none_of_its_portion(app: App) -> None:
    app.call("scripts.mail.Answer", 5, 1, 5, 9)
    app.tasks["numbered"].add()
    with pytest.raises(DuplicateJobId) as refused:
        app.tasks["numbered"].add_many([["a"], ["b"], ["c"]])

    assert list(refused.value.ids) == []
    assert app.list("numbered", page=1)["total"] == 1


def test_what_the_iterator_raises_passes(app: App) -> None:
    def items() -> Any:
        yield [1]
        raise LookupError("the file ended")

    with pytest.raises(LookupError, match="the file ended"):
        app.tasks["bulk"].add_many(items())


def test_a_fit_is_remembered_for_so_many_shapes_only(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("yaotask.intake.MOST_SHAPES", 2)
    app.works.project.handlers.find(app.tasks["bulk"].definition)
    add: Callable[..., int] = app.tasks["bulk"].add

    assert [add(**{f"p{n}": n}) for n in range(5)] == [1, 2, 3, 4, 5]
