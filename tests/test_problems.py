"""A fault in a user's file as it is printed, and what was probably meant."""

from __future__ import annotations

import pytest

from yaotask.problems import Problem, sort
from yaotask.suggest import did_you_mean, nearest


def test_a_problem_is_a_line_that_editors_link() -> None:
    problem = Problem("tasks/mail.yml", 4, 14, "worker_nums", "must be at least 1, got 0")

    assert str(problem) == "tasks/mail.yml:4:14: worker_nums: must be at least 1, got 0"


def test_a_problem_of_a_whole_file_has_no_line() -> None:
    assert str(Problem("tasks/mail.yml", 0, 0, "", "is empty")) == "tasks/mail.yml: is empty"


@pytest.mark.parametrize(
    ("snippet", "column", "caret"),
    [
        ("worker_nums: 0", 14, "             ^"),
        ("a", 1, "^"),
        ("", 1, "^"),
        ("\ta:\tb", 5, "\t  \t^"),
        ("{name: 发送, size: 0}", 17, "                  ^"),
        ("short", 8, "     ^"),
    ],
)
def test_the_caret_stands_under_the_fault(snippet: str, column: int, caret: str) -> None:
    problem = Problem("f", 1, column, "", "m", snippet=snippet)

    assert problem.render().splitlines() == [f"f:1:{column}: m", f"    {snippet}", f"    {caret}"]


def test_detail_follows_on_lines_of_its_own() -> None:
    problem = Problem("f", 0, 0, "", "m", snippet="never shown without a line", detail="first\nsecond")

    assert problem.render() == "f: m\n    first\n    second"


def test_problems_are_sorted_by_place_and_told_once() -> None:
    late, early = Problem("b", 1, 1, "", "m"), Problem("a", 10, 1, "", "m")
    first, again = Problem("a", 9, 1, "", "m", snippet="x"), Problem("a", 9, 1, "", "m", detail="y")

    assert sort([late, early, first, again]) == [first, early, late]


@pytest.mark.parametrize(
    ("word", "meant"),
    [("Sned", "Send"), ("send", "Send"), ("SEND", "Send"), ("OnAd", "OnAdd"), ("xyz", None), ("", None)],
)
def test_the_nearest_word_is_what_was_probably_meant(word: str, meant: str | None) -> None:
    assert nearest(word, ["OnAdd", "Send", "Sent"]) == meant


def test_advice_is_the_end_of_a_message() -> None:
    assert did_you_mean("Sned", ["Send"]) == '; did you mean "Send"?'
    assert did_you_mean("xyz", ["Send"]) == ""
    assert did_you_mean("Send", []) == ""
