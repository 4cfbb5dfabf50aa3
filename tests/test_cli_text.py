"""What the command line prints, and the words that it reads."""

from __future__ import annotations

import io
import json
import sys
from typing import Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from yaotask.cli import pretty, text, views, words


class Terminal(io.StringIO):
    """A stream on which a person watches."""

    def isatty(self) -> bool:
        return True


def terminal(monkeypatch: pytest.MonkeyPatch, name: str = "stdout", columns: int = 40) -> Terminal:
    """Make a terminal of a standard stream; not a fixture, as pytest puts its own streams in place for each phase."""
    stream = Terminal()
    monkeypatch.setattr(sys, name, stream)
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return stream


def job(**changes: Any) -> dict[str, Any]:
    waiting = {
        "task_id": "mail.12",
        "name": "Send mail",
        "status": "WAITING",
        "cancel_requested": False,
        "progress": 0,
        "current": None,
        "total": None,
        "message": None,
        "attempt": 0,
        "attempts": 3,
        "losses": 0,
        "args": ["a@example.com", 1],
        "payload": {},
        "priority": 0,
        "created_by": None,
        "worker": None,
        "created_at": "2026-11-22T08:00:00.123456Z",
        "run_at": "2026-11-22T08:00:05.000000Z",
        "started_at": None,
        "finished_at": None,
        "wait_ms": None,
        "duration_ms": None,
        "response": None,
        "extra_data": None,
        "error": None,
        "error_type": None,
        "traceback": None,
    }
    assert not changes.keys() - waiting.keys()
    return waiting | changes


RUNNING = job(status="RUNNING", attempt=1, progress=30, current=3, total=10, message="sent 3")
FAILED = job(status="FAILURE", attempt=4, error="no [address]", error_type="ValueError", duration_ms=3_400)


# --- columns -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("line", "columns"), [("", 0), ("abc", 3), ("发送", 4), ("é", 1), ("e\u0301", 1), ("Ａ", 2)])
def test_a_wide_character_takes_two_columns_and_a_combining_one_none(line: str, columns: int) -> None:
    assert text.width(line) == columns


@pytest.mark.parametrize(
    ("line", "columns", "shown"),
    [
        ("abcdef", 6, "abcdef"),
        ("abcdef", 5, "abcd…"),
        ("发送邮件", 8, "发送邮件"),
        ("发送邮件", 7, "发送邮…"),
        ("发送邮件", 6, "发送…"),
        ("abc", 1, "…"),
        ("e\u0301e\u0301e\u0301", 2, "e\u0301…"),
        ("", 1, ""),
    ],
)
def test_what_does_not_fit_is_cut(line: str, columns: int, shown: str) -> None:
    assert text.cut(line, columns) == shown


@given(st.text(), st.integers(1, 20))
def test_whatever_is_cut_fits_and_what_fits_is_kept(line: str, columns: int) -> None:
    shown = text.cut(line, columns)

    assert text.width(shown) <= columns
    assert (shown == line) == (text.width(line) <= columns)


def test_padding_counts_columns() -> None:
    assert text.pad("发送", 6) == "发送  "
    assert text.pad("abc", 2) == "abc"


# --- tables and fields -------------------------------------------------------------------------------


def test_columns_line_up_in_any_script() -> None:
    rows = [["mail.1", "发送", "x"], ["media.video.12", "ok", ""]]

    assert text.table(["JOB", "NAME", "ABOUT"], rows) == [
        "JOB             NAME  ABOUT",
        "mail.1          发送  x",
        "media.video.12  ok",
    ]


def test_lines_of_a_table_are_cut_to_its_limit() -> None:
    assert text.table(["JOB", "ABOUT"], [["mail.1", "x" * 100]], limit=12) == ["JOB     ABO…", "mail.1  xxx…"]


def test_a_table_without_rows_is_its_header() -> None:
    assert text.table(["JOB", "ABOUT"], []) == ["JOB  ABOUT"]


def test_a_table_into_a_pipe_is_whole_and_without_colours(capsys: pytest.CaptureFixture[str]) -> None:
    text.show_table(["JOB", "STATUS", "ABOUT"], [["mail.1", "FAILURE", "x" * 200 + "\n\x1b[31m"]])

    printed = capsys.readouterr()

    assert printed.out.splitlines()[1] == "mail.1  FAILURE  " + "x" * 200 + r"\n\x1b[31m"
    assert printed.err == ""


def test_a_table_may_go_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    text.show_table(["TASK"], [["mail"]], err=True)

    assert capsys.readouterr() == ("", "TASK\nmail\n")


def test_a_table_on_a_terminal_has_colours_and_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = terminal(monkeypatch)

    row = ["mail.FAILURE.1", "FAILURE", "[red] \x1b[2J" + "x" * 100]
    text.show_table(["JOB", "STATUS", "ABOUT"], [row], colours={"FAILURE": "red"})

    shown = watched.getvalue()

    assert shown.count("\x1b[31m") == 1
    assert "  \x1b[31mFAILURE\x1b[0m" in shown
    assert click.unstyle(shown).splitlines()[1] == r"mail.FAILURE.1  FAILURE  [red] \x1b[2Jx…"


def test_a_table_on_a_terminal_has_no_column_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = terminal(monkeypatch)

    text.show_table(["JOB", "TOOK", "ABOUT"], [["mail.1", "", "x"], ["mail.2", "", ""]])

    assert click.unstyle(watched.getvalue()).splitlines() == ["JOB     ABOUT", "mail.1  x", "mail.2"]


def test_a_narrow_terminal_loses_what_stands_last(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = terminal(monkeypatch, columns=20)

    text.show_table(["JOB", "STATUS", "ABOUT"], [["mail.1", "FAILURE", "x"], ["long.name.of.a.task.1", "FAILURE", "x"]])

    lines = click.unstyle(watched.getvalue()).splitlines()

    assert lines == ["JOB                …", "mail.1             …", "long.name.of.a.task…"]


def test_no_color_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = terminal(monkeypatch)
    monkeypatch.setenv("NO_COLOR", "1")

    text.show_table(["JOB", "STATUS"], [["mail.1", "FAILURE"]], colours={"FAILURE": "red"})

    assert watched.getvalue() == "JOB     STATUS\nmail.1  FAILURE\n"


@pytest.mark.parametrize(("term", "watched"), [("xterm", True), ("dumb", False)])
def test_a_dumb_terminal_is_none(monkeypatch: pytest.MonkeyPatch, term: str, watched: bool) -> None:
    monkeypatch.setenv("TERM", term)

    assert text.is_terminal(Terminal()) is watched
    assert not text.is_terminal(io.StringIO())


def test_fields_are_aligned_and_empty_ones_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    text.show_fields([("job", "mail.12"), ("message", ""), ("traceback", "first\n  second\x1b[2J"), ("名", "x")])

    assert capsys.readouterr().out.splitlines() == [
        "job:        mail.12",
        "traceback:  first",
        r"              second\x1b[2J",
        "名:         x",
    ]


# --- JSON --------------------------------------------------------------------------------------------


def test_json_is_printed_for_people_or_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    text.echo_json({"name": "发送"})
    text.echo_json({"name": "发送"}, one_line=True)

    assert capsys.readouterr().out == '{\n  "name": "发送"\n}\n{"name": "发送"}\n'


@given(st.text())
def test_a_line_of_json_is_one_for_any_reader_and_says_the_same(said: str) -> None:
    printed = [text.json_text({said: [said]}), text.json_text({said: [said]}, one_line=True)]

    assert [json.loads(one) for one in printed] == [{said: [said]}] * 2
    assert [one.splitlines() for one in printed] == [printed[0].split("\n"), [printed[1]]]


def test_control_characters_in_json_are_escapes() -> None:
    assert text.json_text(["\x1b\x7f\x85\x9b\u2028\u202e\ufeff\ud800"], one_line=True) == (
        r'["\u001b\u007f\u0085\u009b\u2028\u202e\ufeff\ud800"]'
    )


def test_json_stays_json_where_the_locale_is_not_utf_8(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)

    text.echo_json(["发", "\U0001f600"], one_line=True)
    stream.seek(0)

    assert json.loads(stream.read()) == ["发", "\U0001f600"]


# --- a job -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shown", "row"),
    [
        (job(), ("mail.12", "WAITING", "", "", "2026-11-22 08:00:00Z", "", '"a@example.com" 1')),
        (RUNNING, ("mail.12", "RUNNING", "30%", "1/4", "2026-11-22 08:00:00Z", "", "sent 3")),
        (FAILED, ("mail.12", "FAILURE", "", "4/4", "2026-11-22 08:00:00Z", "3.4 s", "ValueError: no [address]")),
    ],
)
def test_a_job_is_a_row(shown: dict[str, Any], row: tuple[str, ...]) -> None:
    assert views.row(shown) == row
    assert len(row) == len(views.HEADER)


@pytest.mark.parametrize(
    ("changes", "about"),
    [
        ({"error": "no", "error_type": None, "response": 1, "message": "m"}, "no"),
        ({"response": {"a": "发"}, "message": "m"}, '{"a": "发"}'),
        ({"response": 0}, "0"),
        ({"message": "m"}, "m"),
        ({"args": []}, ""),
        ({"args": [], "payload": {"to": "发"}}, '{"to": "发"}'),
        ({"args": [1], "payload": {"to": "ann"}}, '1 {"to": "ann"}'),
        ({"args": [], "payload": {"to": "x" * 200}}, '{"to": "' + "x" * 200 + '"}'),
    ],
)
def test_what_is_most_worth_knowing_of_a_job(changes: dict[str, Any], about: str) -> None:
    assert views.about(job(**changes)) == about


def test_a_job_has_fields_for_what_it_knows() -> None:
    known = {key: value for key, value in views.fields(job()) if value}

    assert known == {
        "job": "mail.12",
        "name": "Send mail",
        "status": "WAITING",
        "try": "0 of at most 4",
        "args": '"a@example.com" 1',
        "created": "2026-11-22 08:00:00Z",
        "runs at": "2026-11-22 08:00:05Z",
    }


def test_a_finished_job_says_how_it_ended() -> None:
    ended = job(
        status="FAILURE", error="no", error_type="E", traceback="T", response=0, extra_data={"a": 1}, priority=-10
    )

    known = dict(views.fields(ended))

    assert (known["error"], known["traceback"], known["response"]) == ("E: no", "T", "0")
    assert (known["extra data"], known["priority"], known["runs at"]) == ('{"a": 1}', "-10", "")


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({}, ""),
        ({"message": "m"}, "m"),
        ({"progress": 30, "current": 3, "total": 10}, "30% (3/10)"),
        ({"progress": 30, "current": 3, "total": 10, "message": "sent 3"}, "30% (3/10) sent 3"),
    ],
)
def test_a_note_of_progress_has_what_was_reported(changes: dict[str, Any], note: str) -> None:
    assert views.progress_note(job(**changes)) == note


@pytest.mark.parametrize(
    ("followed", "line"),
    [
        (job(), "mail.12 WAITING"),
        (RUNNING, "mail.12 RUNNING 30% (3/10) sent 3"),
        (FAILED, "mail.12 FAILURE ValueError: no [address]"),
        (job(status="SUCCESS", duration_ms=12), "mail.12 SUCCESS in 12 ms"),
        (job(status="SUCCESS"), "mail.12 SUCCESS"),
        (job(status="RUNNING", message="a\nb\x1b[2J"), r"mail.12 RUNNING a\nb\x1b[2J"),
    ],
)
def test_a_job_that_is_followed_is_one_line(followed: dict[str, Any], line: str) -> None:
    assert views.change(followed) == line


@pytest.mark.parametrize(
    ("milliseconds", "said"),
    [
        (None, ""),
        (0, "0 ms"),
        (12, "12 ms"),
        (999.4, "999 ms"),
        (999.6, "1.0 s"),
        (3_449, "3.4 s"),
        (59_949, "59.9 s"),
        (59_960, "1 min 0 s"),
        (306_000, "5 min 6 s"),
        (3_599_700, "1 h 0 min"),
        (7_500_000, "2 h 5 min"),
        (100 * 3_600_000, "100 h 0 min"),
    ],
)
def test_a_span_is_said_as_people_do(milliseconds: float | None, said: str) -> None:
    assert views.took(milliseconds) == said


def test_an_instant_is_said_to_the_second() -> None:
    assert views.moment("2026-11-22T08:00:00.123456Z") == "2026-11-22 08:00:00Z"
    assert views.moment(None) == ""


def test_a_bar_shows_a_message_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = terminal(monkeypatch, "stderr", columns=120)

    with pretty.Bar("mail.12") as bar:
        bar.show(RUNNING | {"message": "[bold]sent[/] \x1b]0;title\x07"})

    assert r"30% 0:00:00 3/10 [bold]sent[/] \x1b]0;title\x07" in click.unstyle(watched.getvalue())


# --- words -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("hello", "hello"),
        ("12", "12"),
        ("", ""),
        (':: {"a": 1}', {"a": 1}),
        ("::12", 12),
        ("::null", None),
        ('::"x"', "x"),
        ("\\::x", "::x"),
        ("\\\\::x", "\\\\::x"),
        ("a::b", "a::b"),
        (":x", ":x"),
    ],
)
def test_a_word_is_text_or_json_after_two_colons(word: str, value: Any) -> None:
    assert words.argument(word) == value
    assert words.arguments([word, word]) == [value, value]


def test_a_payload_is_an_object() -> None:
    assert words.payload('{"to": "a"}') == {"to": "a"}
    assert words.payload(None) == {}


@pytest.mark.parametrize(
    ("read", "says"),
    [
        (lambda: words.argument("::{a"), "ARGS: {a is not JSON: Expecting property name"),
        (lambda: words.argument("::"), "ARGS: an empty text is not JSON: Expecting value"),
        (lambda: words.argument("::NaN"), "ARGS: NaN is not JSON: NaN is no JSON number"),
        (lambda: words.argument("::" + "[" * 50_000), "ARGS: " + "[" * 60 + "... is nested too deeply to be read"),
        (lambda: words.payload("[1]"), """--payload takes a JSON object, as in '{"to": "a@example.com"}', not [1]"""),
        (lambda: words.payload("x"), "--payload: x is not JSON: Expecting value"),
    ],
)
def test_what_is_no_json_is_a_usage_error_that_says_where(read: Any, says: str) -> None:
    with pytest.raises(click.UsageError) as caught:
        read()

    assert caught.value.message.startswith(says)


def test_a_failure_without_a_message_shows_its_type() -> None:
    failed = job(status="FAILURE", error="", error_type="AssertionError")

    assert views.about(failed) == "AssertionError"
    assert ("error", "AssertionError") in list(views.fields(failed))


def test_a_job_that_was_asked_to_stop_says_so_in_its_row() -> None:
    assert views.row(job(status="RUNNING", attempt=1, cancel_requested=True))[-1] == "asked to stop"


def test_how_often_a_job_was_lost_is_shown_where_that_is_more_than_chance() -> None:
    assert ("lost", "3 times with the process that ran it") in list(views.fields(job(status="FAILURE", losses=3)))
