"""Log lines of a run: text for people, or one JSON object a line for machines.

What is logged holds names, messages and errors that users and their callers chose. None of them may
forge a line or move the cursor of a terminal, so every control character is written as its escape.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from contextlib import suppress
from typing import Any, Literal, TextIO

from yaotask import context
from yaotask.clock import SECOND, rfc3339
from yaotask.spelling import as_written

LOGGER = "yaotask"

# C0 and C1 controls, DEL, the line separators of Unicode, and the marks that turn the direction of
# writing: a terminal or a viewer acts on each of them. Half a surrogate pair cannot be written at all.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")

_LEVELS = {"WARNING": "WARN", "CRITICAL": "FATAL"}

# What every record has by itself; all else came from `extra=`.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def escape(text: str) -> str:
    """The text on one line, with its control characters made visible: `\\n`, `\\x1b`."""
    return _CONTROL.sub(lambda match: ascii(match[0])[1:-1], text)


def escape_json(text: str) -> str:
    """The same of JSON, which stays what it was: `\\u0085`. Its line feeds, which only indent, are kept."""
    return _CONTROL.sub(lambda match: match[0] if match[0] == "\n" else f"\\u{ord(match[0]):04x}", text)


class TextFormatter(logging.Formatter):
    """`12:00:01 WARN  mail.12 will run again in 5 s`; lines of a traceback follow, indented.

    What users' code says begins with the job that says it, or else with the name of its logger.
    """

    def __init__(self) -> None:
        super().__init__(datefmt="%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        level = _LEVELS.get(record.levelname, record.levelname)
        said = "" if _is_ours(record.name) else f"{getattr(record, 'job', None) or as_written(record.name)}: "
        line = f"{self.formatTime(record, self.datefmt)} {level:<5} {escape(said + record.getMessage())}"
        return "\n".join([line, *(f"    {escape(rest)}" for rest in _traceback(self, record))])


class JsonFormatter(logging.Formatter):
    """One object a line: time (RFC 3339, UTC), level, logger, message, and the fields of `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = {
            "time": rfc3339(int(record.created * SECOND)),
            "level": record.levelname.lower(),
            "logger": as_written(record.name),
            "message": record.getMessage(),
        }
        known = {*_STANDARD, *fields, "stack"}
        fields |= {key: value for key, value in vars(record).items() if key not in known}
        if trace := _traceback(self, record):
            fields["traceback"] = "\n".join(trace)
        return json.dumps(fields, default=str)


def configure(log: Literal["text", "json"], stream: TextIO | None = None) -> logging.Handler:
    """Send yaotask's log to `stream` (standard error); a second call replaces the first."""
    logger = logging.getLogger(LOGGER)
    for handler in [handler for handler in logger.handlers if isinstance(handler, _Handler)]:
        logger.removeHandler(handler)
    handler = _Handler(stream if stream is not None else sys.stderr)
    handler.setFormatter(JsonFormatter() if log == "json" else TextFormatter())
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    return handler


def take_in_users() -> None:
    """In a process that runs users' code: what it logs, and has named no place for, goes where our log goes."""
    ours = next(handler for handler in logging.getLogger(LOGGER).handlers if isinstance(handler, _Handler))
    theirs = _Handler(ours.stream)
    theirs.setFormatter(ours.formatter)
    theirs.addFilter(_name_the_job)
    logging.lastResort = theirs


def revive() -> None:
    """Once users' code is imported, which may have configured logging: by default that disables all other loggers.

    Ours speak again, and its own from INFO on, as ours do, where it has configured none.
    """
    for name in [LOGGER, *logging.root.manager.loggerDict]:
        if _is_ours(name):
            logging.getLogger(name).disabled = False
    theirs = logging.lastResort
    if isinstance(theirs, _Handler) and not logging.root.handlers:
        # Else a mere `logging.info("...")` would configure it.
        logging.root.addHandler(theirs)
        if logging.root.level == logging.WARNING:
            logging.root.setLevel(logging.INFO)


def _name_the_job(record: logging.LogRecord) -> bool:
    job = context.current.get()
    if job is not None and not hasattr(record, "job"):
        record.job = job.name
    return True


def _is_ours(logger: str) -> bool:
    return logger == LOGGER or logger.startswith(f"{LOGGER}.")


class _Handler(logging.StreamHandler[TextIO]):
    """Ours, so that a second `configure` finds it and leaves the user's handlers alone."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's own name
        """Users' code may have closed the stream: then there is nobody to tell, and nothing else to end by that."""
        with suppress(ValueError):
            super().handleError(record)


def _traceback(formatter: logging.Formatter, record: logging.LogRecord) -> list[str]:
    # What a thread is doing, where it is the message that is about it.
    lines: list[str] = getattr(record, "stack", "").splitlines()
    if record.exc_info and record.exc_info[0] is not None:
        lines += formatter.formatException(record.exc_info).splitlines()
    if record.stack_info:
        lines += formatter.formatStack(record.stack_info).splitlines()
    return lines
