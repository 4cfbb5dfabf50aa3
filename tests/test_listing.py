"""Lists: what is let through, in which pages, and what is refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from runtime_support import ended, reaches

from yaotask import App, Fail, Ignore, InvalidPayload, Retry, UnknownName, UnknownTask, current_job
from yaotask.jobs import STATUS_WORDS
from yaotask.listing import status_named

pytest_plugins = ["door_support", "runtime_fixtures"]


def _ids(page: dict[str, Any]) -> list[int]:
    return [job["id"] for job in page["items"]]


# --- statuses --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("waiting", "WAITING"),
        ("Pending", "WAITING"),
        (0, "WAITING"),
        ("processing", "RUNNING"),
        ("running", "RUNNING"),
        (1, "RUNNING"),
        ("COMPLETED", "SUCCESS"),
        (2, "SUCCESS"),
        ("failed", "FAILURE"),
        ("3", "FAILURE"),
        ("partial", "PARTIAL"),
        (4, "PARTIAL"),
        ("retrying", "RETRYING"),
        ("Cancelled", "CANCELLED"),
        ("ignored", "IGNORED"),
    ],
)
def test_a_status_is_named_in_any_case_and_in_the_seeds_words(word: object, name: str) -> None:
    assert status_named(word) == name


@pytest.mark.parametrize("word", [5, 6, -1, "", True, None, [], "done"])
def test_any_other_status_is_refused(word: object) -> None:
    with pytest.raises(InvalidPayload, match=r"^\$\.status: there is no status .*there are WAITING, RUNNING"):
        status_named(word)


def test_an_unknown_status_says_what_was_meant() -> None:
    with pytest.raises(InvalidPayload, match=r'no status "complete"; did you mean "completed"\?'):
        status_named("complete")


LISTS = [("WAITING", "running"), ("retrying", 4, "cancelled", "ignored", "failed"), ("partial", "SUCCESS", 2)]


async def test_each_status_finds_its_jobs(stage: Callable[..., App]) -> None:
    leave = anyio.Event()

    async def handler(task_id: int, what: str) -> None:
        match what:
            case "fail":
                raise Fail("no")
            case "ignore":
                raise Ignore("no")
            case "retry":
                raise Retry(after="1h")
            case "partly":
                current_job().count(failure=1)
            case "run":
                await leave.wait()

    app = stage(handler, worker_nums=10, attempts=1)
    mail = app.tasks["mail"]
    async with app.running():
        waits = await mail.options(delay="1h").aadd("wait")
        cancelled = await mail.options(delay="1h").aadd("cancel")
        await app.acancel(f"mail.{cancelled}")
        good, partly = await mail.aadd("good"), await mail.aadd("partly")
        bad, ignored = await mail.aadd("fail"), await mail.aadd("ignore")
        retried, runs = await mail.aadd("retry"), await mail.aadd("run")
        for id in (good, partly, bad, ignored):
            await ended(app, id)
        await reaches(app, retried, "RETRYING")
        await reaches(app, runs, "RUNNING")
        found = {name: _ids(await mail.alist(status=name)) for name in {*STATUS_WORDS.values(), "RETRYING"}}
        found |= {name: _ids(await mail.alist(status=name)) for name in ("cancelled", "ignored")}
        some = {names: await mail.alist(status=list(names), page=1) for names in LISTS}
        some_of_all = _ids(await app.alist(status={"failed", "WAITING"}, page_size=1))
        totals = {name: (await mail.alist(status=name, page=1))["total"] for name in found}
        leave.set()

    assert found == {
        "WAITING": [waits],
        "RUNNING": [runs],
        "SUCCESS": [partly, good],
        "FAILURE": [bad],
        "PARTIAL": [partly],
        "RETRYING": [retried],
        "cancelled": [cancelled],
        "ignored": [ignored],
    }
    assert totals == {name: len(ids) for name, ids in found.items()}
    assert {names: _ids(page) for names, page in some.items()} == {
        ("WAITING", "running"): [runs, waits],
        ("retrying", 4, "cancelled", "ignored", "failed"): [retried, ignored, bad, partly, cancelled],
        ("partial", "SUCCESS", 2): [partly, good],
    }
    assert all(page["total"] == len(page["items"]) for page in some.values())
    assert some_of_all == [bad]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ([], "must name a status, or some of them"),
        (["failed", "waitng"], 'there is no status "waitng"; did you mean "WAITING"?'),
        ([["failed"]], "there is no status"),
    ],
)
def test_a_list_of_statuses_with_another_thing_in_it_is_refused(app: App, given: list[Any], says: str) -> None:
    with pytest.raises(InvalidPayload, match=f"^{re.escape(f'$.status: {says}')}"):
        app.list("mail", status=given)


# --- pages -----------------------------------------------------------------------------------------------------


def test_a_cursor_goes_on_where_the_page_ended_whatever_is_added_meanwhile(app: App) -> None:
    ids = app.tasks["bulk"].add_many([n] for n in range(7))
    first = app.list("bulk", page_size=3)
    more = app.tasks["bulk"].add_many([n] for n in range(5))
    second = app.list("bulk", page_size=3, cursor=first["next_cursor"])
    third = app.list("bulk", page_size=3, cursor=second["next_cursor"])

    assert _ids(first) + _ids(second) + _ids(third) == ids[::-1]
    assert (third["next_cursor"], third["total"], third["page"]) == (None, None, None)
    assert _ids(app.list("bulk", page_size=5)) == more[::-1]


def test_a_cursor_over_all_tasks_goes_through_each_job_once(app: App) -> None:
    for number in range(4):
        app.tasks["bulk"].add(number)
        app.tasks["media.video"].add(number)
    seen, cursor = [], None
    while page := app.list(page_size=3, cursor=cursor):
        seen += [job["task_id"] for job in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break

    assert len(seen) == len(set(seen)) == 8


def test_a_page_counts_all_that_there_are(app: App) -> None:
    ids = app.tasks["bulk"].add_many([n] for n in range(7))
    page = app.list("bulk", page=2, page_size=3)

    assert (_ids(page), page["total"], page["page"], page["page_size"]) == (ids[::-1][3:6], 7, 2, 3)
    assert _ids(app.list("bulk", page=9, page_size=3)) == []
    assert app.list("bulk")["page_size"] == 20


def test_the_last_full_page_has_no_cursor(app: App) -> None:
    app.tasks["bulk"].add_many([n] for n in range(6))
    first = app.list("bulk", page_size=3)

    assert app.list("bulk", page_size=3, cursor=first["next_cursor"])["next_cursor"] is None


# --- filters ---------------------------------------------------------------------------------------------------


def test_since_and_until_bound_the_time_of_the_add(app: App) -> None:
    first = app.tasks["bulk"].add()
    second = app.tasks["bulk"].add()
    moment = app.get(f"bulk.{second}")["created_at"]

    assert _ids(app.list("bulk", since=moment)) == [second]
    assert _ids(app.list("bulk", until=moment)) == [first]


def test_text_is_looked_for_in_arguments_and_payload(app: App) -> None:
    found = [app.tasks["bulk"].add("100% sure"), app.tasks["bulk"].add(to="100% of you")]
    app.tasks["bulk"].add("1000 others")

    assert _ids(app.list("bulk", text="100%")) == found[::-1]


@pytest.mark.parametrize("name", ["statuss", "queue_name", "ref", "labels", "retryable"])
def test_a_filter_that_is_not_there_is_refused(app: App, name: str) -> None:
    with pytest.raises(UnknownName, match=f'no filter "{name}".*known are status, since, until, text, page, '):
        app.list("bulk", **{name: "x"})


def test_an_unknown_filter_says_what_was_meant(app: App) -> None:
    with pytest.raises(UnknownName, match='did you mean "status"'):
        app.list("bulk", statuss="failed")


def test_an_unknown_task_says_what_was_meant(app: App) -> None:
    with pytest.raises(UnknownTask, match='did you mean "bulk"'):
        app.list("bulc")


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ({"page": 0}, "$.page"),
        ({"page": True}, "$.page"),
        ({"page": "1"}, "$.page"),
        ({"page": 1, "cursor": "5"}, "$.page"),
        ({"page_size": 0}, "$.page_size"),
        ({"page_size": 201}, "$.page_size"),
        ({"cursor": "x"}, "$.cursor"),
        ({"cursor": -1}, "$.cursor"),
        ({"cursor": "9223372036854775808"}, "$.cursor"),
        ({"cursor": "9" * 5_000}, "$.cursor"),
        ({"since": "yesterday"}, "$.since"),
        ({"until": 12}, "$.until"),
        ({"text": 5}, "$.text"),
        ({"text": "\ud800"}, "$.text"),
    ],
)
def test_a_value_at_fault_is_named(app: App, given: dict[str, Any], path: str) -> None:
    with pytest.raises(InvalidPayload) as refused:
        app.list("bulk", **given)

    assert refused.value.path == path


def test_a_filter_that_is_none_was_not_given(app: App) -> None:
    id = app.tasks["bulk"].add()

    assert _ids(app.list("bulk", status=None, since=None, cursor=None, page=None)) == [id]
