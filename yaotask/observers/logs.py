"""Log lines of a run: text for people, or one JSON object a line for machines.

What is logged holds names, messages and errors that users and their callers chose. None of them may
forge a line or move the cursor of a terminal, so every control character is written as its escape.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Literal, TextIO

from yaotask.clock import SECOND, rfc3339
from yaotask.spelling import as_written

LOGGER = "yaotask"

# C0 and C1 controls, DEL, the line separators of Unicode, and the marks that turn the direction of
# writing: a terminal or a viewer acts on each of them. Half a surrogate pair cannot be written at all.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")

_LEVELS = {"WARNING": "WARN", "CRITICAL": "FATAL"}

# What every record has by itself; all else came from `extra=`.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

# What ours say besides, under names that nobody else gives: a job, and what a thread is doing.
_JOB, _STACK = "yaotask_job", "yaotask_stack"

# The level of a root logger that nobody has touched while users' code was imported: it lets through what WARNING does.
_UNTOUCHED = logging.WARNING - 1


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
        said = "" if _is_ours(record.name) else f"{getattr(record, _JOB, None) or as_written(record.name)}: "
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
        if job := getattr(record, _JOB, None):
            fields["job"] = job
        if trace := _traceback(self, record):
            fields["traceback"] = "\n".join(trace)
        known = {*_STANDARD, *fields, _JOB, _STACK}
        extra = {key: value for key, value in vars(record).items() if key not in known}
        try:
            return json.dumps({**fields, **extra}, default=_shown)
        except (ValueError, TypeError, RecursionError):  # it goes in circles, or has keys that are no text
            return json.dumps({**fields, **{key: _shown(value) for key, value in extra.items()}})


def _shown(value: object) -> str:
    try:
        return str(value)
    except Exception as error:  # noqa: BLE001 - whatever users' values do
        return f"<{type(value).__name__}: {type(error).__name__}>"


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


def take_in_users(job: Callable[[], str | None]) -> None:
    """In a process that runs users' code: what it logs, and has named no place for, goes where our log goes.

    `job` tells the name of the one that is run where this is asked. To be called before users' code is imported.
    """
    ours = next(handler for handler in logging.getLogger(LOGGER).handlers if isinstance(handler, _Handler))
    theirs = _UsersHandler(ours.stream, job)
    theirs.setFormatter(ours.formatter)
    logging.lastResort = theirs
    if logging.root.level == logging.WARNING:
        logging.root.setLevel(_UNTOUCHED)


def revive() -> None:
    """Once users' code is imported, which may have configured logging: by default that disables all other loggers.

    Ours speak again, and its own from INFO on, as ours do, where it has configured none.
    """
    for name in [LOGGER, *logging.root.manager.loggerDict]:
        if _is_ours(name):
            logging.getLogger(name).disabled = False
    theirs, root = logging.lastResort, logging.root
    is_ours = isinstance(theirs, _UsersHandler) and not root.handlers
    if is_ours and theirs is not None:
        # Else a mere `logging.info("...")` would configure it.
        root.addHandler(theirs)
    if root.level == _UNTOUCHED:
        root.setLevel(logging.INFO if is_ours else logging.WARNING)


def _is_ours(logger: str) -> bool:
    return logger == LOGGER or logger.startswith(f"{LOGGER}.")


class _Handler(logging.StreamHandler[TextIO]):
    """Ours, so that a second `configure` finds it and leaves the user's handlers alone."""

    def format(self, record: logging.LogRecord) -> str:
        try:
            return super().format(record)
        except Exception as error:  # noqa: BLE001 - what was to be said may be anything of users'
            place = f"{record.filename}:{record.lineno}"
            said = f"what is logged at {place} cannot be written: {type(error).__name__}: {_shown(error)}"
            return super().format(logging.makeLogRecord({**_place_of(record), "msg": said}))

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's own name
        """Users' code may have closed the stream: then there is nobody to tell, and nothing else to end by that."""
        with suppress(ValueError):
            super().handleError(record)


class _UsersHandler(_Handler):
    """Of the root: for what users' code logs, but where it has named another place for that."""

    def __init__(self, stream: TextIO, job: Callable[[], str | None]) -> None:
        super().__init__(stream)
        self._job = job

    def filter(self, record: logging.LogRecord) -> bool:
        if _is_taken(record):
            return False
        if job := self._job():
            setattr(record, _JOB, job)
        return bool(super().filter(record))


def _is_taken(record: logging.LogRecord) -> bool:
    """Whether its logger, or one above it but for the root, has a handler that writes it."""
    logger: logging.Logger | None = logging.getLogger(record.name)
    while logger is not None and logger is not logging.root:
        for handler in logger.handlers:
            # Libraries have one that does nothing.
            if not isinstance(handler, logging.NullHandler) and handler.level <= record.levelno:
                return True
        logger = logger.parent if logger.propagate else None
    return False


def _place_of(record: logging.LogRecord) -> dict[str, Any]:
    """From where, when and how loud, and nothing that users' code has to say."""
    return {name: vars(record)[name] for name in ("name", "levelno", "levelname", "created", "msecs")}


def _traceback(formatter: logging.Formatter, record: logging.LogRecord) -> list[str]:
    # What a thread is doing, where it is the message that is about it.
    lines: list[str] = getattr(record, _STACK, "").splitlines()
    if record.exc_info and record.exc_info[0] is not None:
        lines += as_written(formatter.formatException(record.exc_info)).splitlines()
    if record.stack_info:
        lines += formatter.formatStack(record.stack_info).splitlines()
    return lines
