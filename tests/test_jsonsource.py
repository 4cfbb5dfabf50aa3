"""JSON with comments, read to values with places."""

from __future__ import annotations

from textwrap import dedent
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yaotask.marks import KEY, Marks
from yaotask.nodes import DEPTH
from yaotask.values import encode_argument
from yaotask.yamlsource import read


def load(text: str) -> tuple[Any, Marks, list[str]]:
    value, marks, problems = read(text, "mail.yao", json=True)
    return value, marks, list(map(str, problems))


def value_of(text: str) -> Any:
    value, _, problems = load(text)
    assert problems == []
    return value


def problems_of(text: str) -> list[str]:
    return load(text)[2]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"name": "发送", "attempts": 3}', {"name": "发送", "attempts": 3}),
        ("[null, true, false, -1, 2.5, 1e3, 0]", [None, True, False, -1, 2.5, 1000.0, 0]),
        (r'"a\"b\\ \n A \ud83d\ude00"', 'a"b\\ \n A \U0001f600'),
        ('"// no comment" // one', "// no comment"),
        ("[1, 2,]", [1, 2]),
        ('{"a": 1,}', {"a": 1}),
        ("/* all\nof\nit */ {} // end", {}),
        ('{"a"/**/:/**/1}', {"a": 1}),
        ("", None),
        (" \r\n\t// nothing\n", None),
        ('"~ null 010 yes"', "~ null 010 yes"),
    ],
)
def test_json_is_read_with_comments_and_trailing_commas(text: str, value: Any) -> None:
    assert repr(value_of(text)) == repr(value)


def test_every_key_and_value_has_its_place() -> None:
    text = dedent("""\
        {
          // who
          "name": "Mail", "event": {"add":
              "scripts.mail.OnAdd"},
          "fail_on": ["a", "b"]
        }
        """)

    places = load(text)[1].places

    assert places == {
        (): (1, 1),
        ("name", KEY): (3, 3),
        ("name",): (3, 11),
        ("event", KEY): (3, 19),
        ("event",): (3, 28),
        ("event", "add", KEY): (3, 29),
        ("event", "add"): (4, 7),
        ("fail_on", KEY): (5, 3),
        ("fail_on",): (5, 14),
        ("fail_on", 0): (5, 15),
        ("fail_on", 1): (5, 20),
    }


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_are_counted_whatever_ends_them(end: str) -> None:
    assert load(end.join(["{", '"a":', "[ 1 ]", "}"]))[1].places["a", 0] == (3, 3)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", 'mail.yao:1:2: expected a key in double quotes here, got the end of the file'),
        ('{"a" 1}', 'mail.yao:1:6: expected ":" after the key, got 1'),
        ('{"a": }', "mail.yao:1:7: expected a value here, got }"),
        ("{a: 1}", "mail.yao:1:2: expected a key in double quotes here, got a"),
        ('{"a": 1 "b": 2}', 'mail.yao:1:9: expected "," or "}" here, got "b"'),
        ("[1 2]", 'mail.yao:1:4: expected "," or "]" here, got 2'),
        ("[1,,2]", "mail.yao:1:4: expected a value here, got ,"),
        ("[1}", 'mail.yao:1:3: expected "," or "]" here, got }'),
        ("1 2", "mail.yao:1:3: expected the end of the file here: one value a file"),
        ("{'a': 1}", "mail.yao:1:2: expected a key in double quotes here, got 'a'"),
        ("{\n\"a\": yes\n}", "mail.yao:2:6: yes is not a JSON value; text needs double quotes"),
        ("010", "mail.yao:1:1: 010 is not a JSON value; text needs double quotes"),
        ("NaN", "mail.yao:1:1: NaN is not a JSON value; text needs double quotes"),
        (".5", "mail.yao:1:1: .5 is not a JSON value; text needs double quotes"),
        ('{"a": "b\n"}', "mail.yao:1:7: this text has no closing quote on its line"),
        ("[1, /* and", "mail.yao:1:5: this comment has no closing */"),
        ("[1 / 2]", "mail.yao:1:4: this is not JSON"),
        ('["ok", "a\tb"]', "mail.yao:1:10: this text is not JSON: Invalid control character"),
        (r'["a\x"]', r"mail.yao:1:4: this text is not JSON: Invalid \escape"),
        ('{"a": 1,\n "a": 2}', "mail.yao:2:2: a: the key is here twice; the first is on line 1"),
        ('{"a": "\\u0000"}', "mail.yao:1:7: a: holds a NUL character, which databases cannot store as text"),
        ('["\\ud800"]', "mail.yao:1:2: [0]: holds half of a surrogate pair, which is no character"),
        ('{"\\u0000": 1}', "mail.yao:1:2: a key here holds a NUL character, which databases cannot store as text"),
        ("[1e999]", "mail.yao:1:2: [0]: is not a finite number; quote it to make it text"),
        (
            "9007199254740992",
            "mail.yao:1:1: is an integer beyond 2**53 - 1, which many readers cannot keep; quote it to make it text",
        ),
        ("\ufeff{}", "mail.yao:1:1: begins with a byte order mark; save the file as UTF-8 without one"),
    ],
)  # fmt: skip
def test_what_is_no_json_is_told_with_its_place(text: str, problem: str) -> None:
    assert problems_of(text) == [problem]


def test_other_values_are_read_beside_one_at_fault() -> None:
    value, _, problems = load('{"a": 1e999, "b": 2, "b": 3}')

    assert value == {"a": None, "b": 2}
    assert len(problems) == 2


def test_nesting_is_bounded() -> None:
    assert value_of("[" * DEPTH + "]" * DEPTH)
    assert problems_of('{"a":' * 50_000) == ["mail.yao:1:161: nested more than 32 deep"]
    assert problems_of("[" * 50_000) == ["mail.yao:1:33: nested more than 32 deep"]


def test_the_line_of_a_problem_is_shown() -> None:
    _, _, [problem] = read('{\n  "attempts": ten\n}', "mail.yao", json=True)

    assert problem.render().splitlines()[1:] == ['      "attempts": ten', "                  ^"]


@given(st.text(st.sampled_from('{}[]",:/*\\ \n\r\tu0019eE+-.truefalsn发\x00\ud800')))
def test_any_text_is_told_about_or_is_a_value_that_can_be_stored(text: str) -> None:
    value, _, problems = read(text, "mail.yao", json=True)

    assert problems or encode_argument(value, limit=1_000_000, setting="")
