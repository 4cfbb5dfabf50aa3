"""A fault in a user's file, with its place and its cure, as `check` prints it."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing wrong in one place.

    `line` and `column` count from 1; 0 means the file as a whole. `key` is the YAML key the fault is
    about, `message` what is wrong and what was expected, `snippet` the line of the file, `detail`
    further lines such as the end of a traceback.
    """

    file: str
    line: int
    column: int
    key: str
    message: str
    snippet: str | None = field(default=None, compare=False)
    detail: str | None = field(default=None, compare=False)

    def __str__(self) -> str:
        return f"{self.place}: {self.key}: {self.message}" if self.key else f"{self.place}: {self.message}"

    @property
    def place(self) -> str:
        """`tasks/mail.yml:4:14`, as editors and terminals link it."""
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file

    def render(self) -> str:
        """The message with the line of the file, a caret under the place, and any detail."""
        lines = [str(self)]
        if self.snippet is not None and self.line:
            margin = "".join(map(_blank, self.snippet[: self.column - 1]))
            lines += [f"    {self.snippet}", f"    {margin}^"]
        if self.detail:
            lines += [f"    {line}" for line in self.detail.splitlines()]
        return "\n".join(lines)


def _blank(character: str) -> str:
    """As much room as a character takes, so that the caret stands under the one at fault."""
    if character == "\t":
        return "\t"
    return "  " if unicodedata.east_asian_width(character) in ("W", "F") else " "


def sort(problems: Iterable[Problem]) -> list[Problem]:
    """In the order of files and lines, without repeats."""
    return sorted(set(problems))
