"""The bars that are drawn with rich, where it is installed."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskProgressColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

from yaotask.cli.views import COLOURS, Job, bar_note
from yaotask.observers.logs import escape
from yaotask.store.moving.move import Step


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


class Meter:
    """How far something is that has so many rows, on standard error; it goes away at the end."""

    def __init__(self) -> None:
        self.progress = Progress(
            _Field("what"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(file=sys.stderr, highlight=False),
            transient=True,
        )
        self.task = self.progress.add_task("", total=None, what="")

    def __enter__(self) -> Meter:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def show(self, step: Step) -> None:
        """Move the bar."""
        self.progress.update(self.task, completed=step.done, total=step.total, what=step.what)


class _Field(ProgressColumn):
    """A field of the bar as it is: a handler's message is neither markup nor a control sequence."""

    def __init__(self, name: str, *, cut: bool = False) -> None:
        # What does not fit is taken from columns that may wrap: from this one alone, whose text is cut instead.
        super().__init__(table_column=Column(no_wrap=not cut))
        self.name = name

    def render(self, task: Task) -> Text:
        text = escape(str(task.fields[self.name]))
        return Text(text, COLOURS.get(text, ""), no_wrap=True, overflow="ellipsis")
