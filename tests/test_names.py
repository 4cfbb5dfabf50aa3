"""Jobs by the names that users write."""

from __future__ import annotations

from enum import IntEnum

import pytest

from yaotask import JobNotFound, UnknownName
from yaotask.names import integer, split


class Number(IntEnum):
    TWELVE = 12


@pytest.mark.parametrize("id", [12, "12", "mail.12", Number.TWELVE])
def test_a_job_of_a_task_is_a_number_alone_or_with_the_task(id: object) -> None:
    assert integer("mail", id) == 12


def test_the_id_of_a_task_may_have_dots() -> None:
    assert integer("media.video", "media.video.12") == 12
    assert split("media.video.12") == ("media.video", 12)


@pytest.mark.parametrize(
    "id",
    [
        0,
        -1,
        2**53,
        True,
        12.0,
        None,
        "",
        ".12",
        "mail.",
        "mail.x",
        "sms.12",
        "video.12",
        "1٢",
        " 12",
        "+12",
        "9" * 5_000,
    ],
)
def test_anything_else_is_no_job_of_it(id: object) -> None:
    with pytest.raises(JobNotFound):
        integer("mail", id)


@pytest.mark.parametrize(
    "name",
    ["12", 12, "mail", "mail.", ".12", "mail.x", None, ["mail.12"], "ma il.1", "mail\ud800.1", "mail\0.1", "mail..1"],
)
def test_a_job_of_any_task_is_named_in_full(name: object) -> None:
    with pytest.raises(UnknownName, match=r"is no job: a job is named by its task and its id, as in mail\.12"):
        split(name)


@pytest.mark.parametrize("name", ["mail.0", f"mail.{2**53}"])
def test_a_number_that_no_job_can_have_is_not_found(name: str) -> None:
    with pytest.raises(JobNotFound):
        split(name)
