"""Exit statuses, the one place where an error becomes a line on standard error, and what is read by nobody."""

from __future__ import annotations

import contextlib
import io
import os
import traceback
from typing import IO

import click

from yaotask.errors import (
    BadDefinitions,
    HandlerNotFound,
    InvalidPayload,
    NoProject,
    StorageError,
    UnknownName,
    YaotaskError,
)
from yaotask.observers.logs import escape
from yaotask.phrases import counted as counted

DONE = 0
FAILED = 1  # the job or the call failed, or was refused
USAGE = 2
DEFINITIONS = 3  # definitions or settings are wrong
STORE = 4  # the store cannot be reached or used
INTERRUPTED = 130  # Ctrl-C, as shells say it


class CallFailed(click.ClickException):
    """The user's own function raised, or returned what cannot be shown; `--debug` shows where."""

    exit_code = FAILED


def status_of(error: BaseException) -> int:
    """The exit status that stands for an error."""
    match error:
        case click.ClickException():
            return error.exit_code
        case KeyboardInterrupt() | click.Abort():
            return INTERRUPTED
        case UnknownName():
            return USAGE
        case BadDefinitions():
            return DEFINITIONS
        case StorageError():
            return STORE
        case _:
            return FAILED


def report(error: BaseException, *, debug: bool) -> int:
    """Say on standard error what went wrong and what to do; return the exit status."""
    if debug:
        click.echo("".join(traceback.format_exception(error)), err=True, nl=False)
    match error:
        case click.UsageError():
            _show_usage(error)
        case KeyboardInterrupt() | click.Abort():
            click.echo("interrupted", err=True)
        case NoProject():
            complain(str(error))
        case BadDefinitions():
            show_problems(error)
        case InvalidPayload(path="$"):
            complain(str(error).removeprefix("$: "))
        case HandlerNotFound(trace=str(trace)):
            complain(f"{error}\n{trace}")
        case YaotaskError() | click.ClickException():
            complain(str(error))
        case OSError(strerror=str(why)):
            complain(f"{error.filename}: {why}" if error.filename else why)
        case _:
            complain(f"yaotask itself failed: {describe(error)}\nPlease report it with what --debug shows.")
    return status_of(error)


def let_go(stream: IO[str]) -> None:
    """Of a stream that nobody reads any more: what is written to it is lost from now on, and fails nothing."""
    with contextlib.suppress(OSError, ValueError), open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())


def _show_usage(error: click.UsageError) -> None:
    """What click says of it, with what came from the command line escaped."""
    said = io.StringIO()
    error.show(said)
    click.echo("\n".join(map(escape, said.getvalue().splitlines())), err=True)


def complain(message: str) -> None:
    """One error on standard error; control characters in it are escaped."""
    click.echo("Error: " + "\n".join(escape(line) for line in message.splitlines()), err=True)


def show_problems(error: BadDefinitions) -> None:
    """Every problem with its place, and how many there are."""
    for problem in error.problems:
        click.echo(problem.render(), err=True)
    complain(counted(len(error.problems), "problem") + " in the definitions or settings; nothing was done")


def describe(error: BaseException) -> str:
    """`ValueError: no address`, or the type alone where there is no message."""
    name = type(error).__name__
    return f"{name}: {error}" if str(error) else name
