"""By their digests definitions are told apart: where jobs would fare differently, and only there."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from yaotask.backoff import Backoff
from yaotask.definitions.digest import LENGTH, digest
from yaotask.definitions.model import Definition, Hooks


def of(**more: Any) -> str:
    return digest(Definition(**{"id": "mail", "name": "Mail", "process": "scripts.mail.Send", **more}))


def test_it_is_short_and_always_the_same() -> None:
    assert of() == of() == "0628d2"
    assert len(of()) == LENGTH


@pytest.mark.parametrize(
    "more",
    [
        {"process": "scripts.mail.Post"},
        {"attempts": 3},
        {"attempt_after": timedelta(seconds=1)},
        {"backoff": Backoff("linear")},
        {"backoff": Backoff(max=timedelta(seconds=9))},
        {"timeout": timedelta(seconds=3)},
        {"executor": "process"},
        {"transaction": True},
        {"event": Hooks(success="scripts.mail.Sent")},
        {"event": Hooks(error="scripts.mail.Sent")},
        {"input": {"type": "object"}},
        {"input": False},
        {"fail_on": ("ValueError",)},
        {"ignore_on": ("ValueError",)},
        {"sensitive": ("password",)},
        {"size": 3},
        {"priority": 3},
    ],
)
def test_what_a_job_would_notice_makes_a_difference(more: dict[str, Any]) -> None:
    assert of(**more) != of()


@pytest.mark.parametrize(
    "more",
    [
        {"name": "Post"},
        {"worker_nums": 8},
        {"source": Path("tasks/mail.json")},
        {"missing": ("timeout",)},
        {"secrets": frozenset({("process",)})},
        {"attempts": 0},
        {"timeout": timedelta(minutes=5)},
    ],
)
def test_what_is_about_one_node_or_for_people_makes_none(more: dict[str, Any]) -> None:
    assert of(**more) == of()


def test_the_order_in_which_a_schema_is_written_makes_none() -> None:
    assert of(input={"a": 1, "b": 2}) == of(input={"b": 2, "a": 1}) != of(input={"a": 2, "b": 1})
