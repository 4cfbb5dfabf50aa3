"""Log lines that nobody can forge."""

from __future__ import annotations

import io
import json
import logging
import re
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yaotask.observers.logs import LOGGER, JsonFormatter, TextFormatter, configure, escape, revive

NASTY = "a\nb\rc\x1b[31m\x1b]0;title\x07\x9b2J\u202edcba\u2066\u200f\u2028\x85\x00\ud800"


@pytest.fixture(autouse=True)
def logger() -> Iterator[logging.Logger]:
    """The package's logger, given back as it was."""
    logger = logging.getLogger(LOGGER)
    handlers, level, propagate = list(logger.handlers), logger.level, logger.propagate
    yield logger
    logger.handlers[:] = handlers
    logger.setLevel(level)
    logger.propagate = propagate


def record(message: str, *args: object, **fields: Any) -> logging.LogRecord:
    made = logging.LogRecord(LOGGER, fields.pop("level", logging.INFO), __file__, 1, message, args, None)
    vars(made).update(fields)
    return made


def failure() -> Any:
    try:
        raise ValueError(NASTY)
    except ValueError as error:
        return type(error), error, error.__traceback__


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("mail.12 发送 ✉ \U0001f600 é", "mail.12 发送 ✉ \U0001f600 é"),
        ("a\nb\tc", r"a\nb\tc"),
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("\x00\x7f\x85\x9b", r"\x00\x7f\x85\x9b"),
        ("\u2028\u202e\u2066\u200e\u061c\ufeff", r"\u2028\u202e\u2066\u200e\u061c\ufeff"),
        ("\ud800", r"\ud800"),
    ],
)
def test_control_characters_are_shown_as_their_escapes(text: str, shown: str) -> None:
    assert escape(text) == shown


@given(st.text(st.characters(exclude_categories=())))
def test_whatever_is_escaped_is_one_line_that_can_be_written(text: str) -> None:
    shown = escape(text)

    assert len(f"{shown}.".splitlines()) == 1
    assert shown.encode().decode() == shown


def test_a_text_record_is_one_line() -> None:
    [line] = TextFormatter().format(record("mail.%s: %s", 12, NASTY, level=logging.WARNING)).splitlines()

    assert re.fullmatch(r"\d\d:\d\d:\d\d WARN  mail\.12: a\\nb\\rc\\x1b\[31m.*\\ud800", line)


def test_the_lines_of_a_traceback_are_indented() -> None:
    first, *rest = TextFormatter().format(record("failed", exc_info=failure(), stack_info="Stack:\n  here")).split("\n")

    assert first.endswith(" INFO  failed")
    assert rest[0] == "    Traceback (most recent call last):"
    assert rest[-1] == "      here"
    assert all(line.startswith("    ") and line.isprintable() for line in rest)


def test_a_json_record_is_one_object_on_one_line() -> None:
    made = record("mail.%s: %s", 12, NASTY, created=1_795_334_400.25, task="发送", path=object, traceback_of="x")

    [line] = JsonFormatter().format(made).splitlines()

    assert json.loads(line) == {
        "time": "2026-11-22T08:00:00.250000Z",
        "level": "info",
        "logger": "yaotask",
        "message": f"mail.12: {NASTY}",
        "task": "发送",
        "path": "<class 'object'>",
        "traceback_of": "x",
    }


def test_a_json_record_holds_its_traceback() -> None:
    [line] = JsonFormatter().format(record("failed", exc_info=failure())).splitlines()

    assert json.loads(line)["traceback"].startswith("Traceback (most recent call last):\n")


def test_fields_cannot_replace_what_every_record_says() -> None:
    made = record("true", level=logging.ERROR, time="forged", logger="forged")

    assert json.loads(JsonFormatter().format(made))["time"] != "forged"
    assert json.loads(JsonFormatter().format(made))["logger"] == "yaotask"


def test_a_second_configure_replaces_the_first_and_nothing_else(logger: logging.Logger) -> None:
    theirs = logging.NullHandler()
    logger.addHandler(theirs)
    first, second = io.StringIO(), io.StringIO()

    configure("text", first)
    ours = configure("json", second)
    logging.getLogger(f"{LOGGER}.store").info("hello")

    assert [handler for handler in logger.handlers if handler is not theirs] == [ours]
    assert theirs in logger.handlers
    assert first.getvalue() == ""
    assert json.loads(second.getvalue())["message"] == "hello"


def test_the_log_goes_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    configure("text")
    logging.getLogger(LOGGER).info("hello")
    logging.getLogger(LOGGER).debug("too much")

    printed = capsys.readouterr()

    assert printed.err.splitlines()[0].endswith(" INFO  hello")
    assert (len(printed.err.splitlines()), printed.out) == (1, "")


def test_what_is_logged_is_not_logged_again_by_the_root(caplog: pytest.LogCaptureFixture) -> None:
    configure("text", io.StringIO())
    logging.getLogger(LOGGER).warning("once")

    assert caplog.records == []


def test_a_stream_that_was_closed_is_nobodys_error(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    handler = configure("text")
    stream.close()
    handler.handle(logging.makeLogRecord({"name": "yaotask", "levelno": logging.ERROR, "msg": "late"}))


def test_loggers_that_users_code_disabled_speak_again() -> None:
    ours, theirs = logging.getLogger(f"{LOGGER}.revived"), logging.getLogger(f"{LOGGER}s")
    # As `logging.config.dictConfig` does, unless it is told not to.
    ours.disabled = theirs.disabled = True
    revive()

    assert (ours.disabled, theirs.disabled) == (False, True)
