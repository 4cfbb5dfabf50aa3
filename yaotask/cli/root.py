"""`yaotask`: the table of commands, and the one place where a command line starts and ends."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence

import click

from yaotask.cli import exits
from yaotask.cli.base import LazyGroup, Session, common_options

SECTIONS = {
    "Project": {
        "init": ("yaotask.cli.init", "Write a small working project."),
        "check": ("yaotask.cli.check", "Report every problem of the definitions and settings."),
        "show": ("yaotask.cli.show", "Show a task's definition."),
        "schema": ("yaotask.cli.show", "Print the JSON Schema of task files, for editors."),
    },
    "Work": {
        "run": ("yaotask.cli.run", "Run the project's tasks until SIGTERM or Ctrl-C."),
        "add": ("yaotask.cli.add", "Add a job; prints its name, as in mail.12."),
        "call": ("yaotask.cli.call", "Call a process by name: tasks.mail.add, scripts.mail.Send."),
        "workers": ("yaotask.cli.workers", "Show the nodes, their processes, and what each runs."),
    },
    "Jobs": {
        "list": ("yaotask.cli.jobs", "List jobs, the newest first."),
        "get": ("yaotask.cli.jobs", "Show a job, or follow it to its end."),
        "cancel": ("yaotask.cli.jobs", "Cancel jobs that wait or run; give up failed ones."),
        "retry": ("yaotask.cli.jobs", "Run failed or cancelled jobs again."),
    },
    "Upkeep": {
        "doctor": ("yaotask.cli.doctor", "Look for what is wrong, and say what to do."),
        "db": ("yaotask.cli.db", "Show, upgrade, verify or move the store."),
        "chaos": ("yaotask.cli.chaos", "Break a scratch store on purpose, and see that no job is lost."),
    },
}


@click.group(
    "yaotask",
    cls=LazyGroup,
    sections=SECTIONS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="yaotask", message="%(prog)s %(version)s", help="Print the version and exit.")
def cli() -> None:
    """Durable tasks from YAML files and plain Python functions."""


cli.params += common_options()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit status; errors are printed, never raised."""
    session = Session(debug=os.environ.get("YAOTASK_DEBUG", "").lower() not in ("", "0", "false", "no", "off"))
    _never_fail_to_print()
    try:
        status = cli.main(
            arguments,
            prog_name="yaotask",
            standalone_mode=False,
            obj=session,
            color=False if os.environ.get("NO_COLOR") else None,
        )
        sys.stdout.flush()
    except BrokenPipeError:
        return _reader_left()
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - whatever it is, a person gets a line and a status
        return exits.report(error, debug=session.debug)
    return status if isinstance(status, int) else exits.DONE


def _never_fail_to_print() -> None:
    """Let a terminal that cannot show a character see its escape, whatever the locale; and do without one."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
        elif stream is None:  # closed by whoever started us
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - open as long as the process lives


def _reader_left() -> int:
    """End quietly when the reader of a pipe had enough, as in `yaotask list | head`."""
    # Python flushes standard output once more as it ends; that must not fail again.
    exits.let_go(sys.stdout)
    return exits.FAILED  # as click says it, where it meets this first
