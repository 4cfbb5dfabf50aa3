"""What is drawn with rich, where it is installed: tables and bars on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import IO, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from yaotask.cli.views import COLOURS, progress_note
from yaotask.observers.logs import escape


def show_table(header: Sequence[str], rows: Sequence[Sequence[str]], stream: IO[str]) -> None:
    """Print a table that fits the terminal; a cell that is a status has its colour."""
    drawn = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    # What does not fit is taken from columns that may wrap: the last one alone, whose cells are cut instead.
    for number, title in enumerate(header, start=1):
        drawn.add_column(title, no_wrap=number < len(header))
    for row in rows:
        drawn.add_row(*(Text(cell, COLOURS.get(cell, ""), no_wrap=True, overflow="ellipsis") for cell in row))
    Console(file=stream, highlight=False).print(drawn)


class Bar:
    """A progress bar on standard error that goes away at the end."""

    def __init__(self, name: str) -> None:
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            console=Console(file=sys.stderr, highlight=False),
            transient=True,
        )
        self.task = self.progress.add_task(_literal(name), total=None, note="")

    def __enter__(self) -> Bar:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def show(self, job: dict[str, Any]) -> None:
        """Move the bar to where the job is."""
        note = _literal(progress_note(job))
        self.progress.update(self.task, completed=job["current"] or 0, total=job["total"] or None, note=note)


def _literal(text: str) -> str:
    """Text that rich shows as it is: a handler's message is neither markup nor a control sequence."""
    return Text(escape(text)).markup
