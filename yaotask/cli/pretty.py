"""What is drawn with rich, where it is installed: tables and bars on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import IO

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskProgressColumn, TimeElapsedColumn
from rich.table import Column, Table
from rich.text import Text

from yaotask.cli.views import COLOURS, Job, bar_note
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
            _Field("job"),
            _Field("status"),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            _Field("note", cut=True),
            console=Console(file=sys.stderr, highlight=False),
            transient=True,
        )
        self.task = self.progress.add_task("", total=None, job=name, status="", note="")

    def __enter__(self) -> Bar:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def show(self, job: Job) -> None:
        """Move the bar to where the job is."""
        current, total = job["current"] or 0, job["total"] or None
        self.progress.update(self.task, completed=current, total=total, status=job["status"], note=bar_note(job))


class _Field(ProgressColumn):
    """A field of the bar as it is: a handler's message is neither markup nor a control sequence."""

    def __init__(self, name: str, *, cut: bool = False) -> None:
        # As in tables, what does not fit is taken from the one column that may wrap, whose text is cut instead.
        super().__init__(table_column=Column(no_wrap=not cut))
        self.name = name

    def render(self, task: Task) -> Text:
        text = escape(str(task.fields[self.name]))
        return Text(text, COLOURS.get(text, ""), no_wrap=True, overflow="ellipsis")
