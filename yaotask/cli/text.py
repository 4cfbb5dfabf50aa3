"""Text on a terminal: columns that line up in any script, JSON that any reader takes."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import IO, Any

import click

from yaotask.observers.logs import escape, escape_json

GAP = "  "
# A value of more characters than this is shown member by member.
SHORT = 100


def is_terminal(stream: IO[str]) -> bool:
    """Whether a person watches: colours, bars and cut lines are for them alone."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def has_rich(stream: IO[str]) -> bool:
    """Whether rich is installed and `stream` is a terminal it can draw on."""
    return is_terminal(stream) and importlib.util.find_spec("rich") is not None


def echo_json(value: Any, *, one_line: bool = False) -> None:
    """Print a value as JSON."""
    click.echo(json_text(value, one_line=one_line))


def json_text(value: Any, *, one_line: bool = False) -> str:
    """A value as JSON for standard output: ASCII only where the locale is not UTF-8, so that it stays JSON.

    No character in it moves the cursor of a terminal, or ends a line for any reader but where one ends. Raises
    TypeError, ValueError or RecursionError for what JSON cannot hold.
    """
    ascii_only = not (sys.stdout.encoding or "").lower().replace("-", "").startswith("utf")
    text = json.dumps(value, ensure_ascii=ascii_only, allow_nan=False, indent=None if one_line else 2)
    return escape_json(text)


def compact(value: Any) -> str:
    """A value as JSON on one line, as it stands in a table."""
    return json.dumps(value, ensure_ascii=False)


def spread(value: Any) -> str:
    """A value as JSON for people: on one line where that is short, else indented."""
    line = compact(value)
    return line if len(line) <= SHORT else json.dumps(value, ensure_ascii=False, indent=2)


def width(text: str) -> int:
    """The columns that a text takes: two for each wide character, none for one that combines."""
    return sum(_columns(character) for character in text)


def cut(text: str, columns: int) -> str:
    """The text if it fits, else its beginning and `…`."""
    # A cell may hold a megabyte, of which the first line or two are looked at.
    kept = used = 0
    for end, character in enumerate(text, start=1):
        used += _columns(character)
        if used > columns:
            return text[:kept] + "…"
        if used < columns:
            kept = end
    return text


def pad(text: str, columns: int) -> str:
    """The text with spaces after it, up to so many columns."""
    return text + " " * (columns - width(text))


def show_table(
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    colours: Mapping[str, str] | None = None,
    err: bool = False,
) -> None:
    """Print rows under a header: into a pipe whole, on a terminal cut to its width and without empty columns.

    There a cell that is a word of `colours` has its colour.
    """
    safe = [[escape(cell) for cell in row] for row in rows]
    if not is_terminal(sys.stderr if err else sys.stdout):
        for line in table(header, safe):
            click.echo(line, err=err)
        return
    header, safe = _without_empty(header, safe)
    heading, *lines = table(header, safe, shutil.get_terminal_size().columns)
    plain = bool(os.environ.get("NO_COLOR"))
    click.echo(heading if plain else click.style(heading, bold=True), err=err)
    for line, row in zip(lines, safe, strict=True):
        click.echo(line if plain else _coloured(line, row, colours or {}), err=err)


def _without_empty(header: Sequence[str], rows: list[list[str]]) -> tuple[Sequence[str], list[list[str]]]:
    """A table without those columns that say nothing in any row."""
    kept = [column for column in range(len(header)) if not rows or any(row[column] for row in rows)]
    return [header[column] for column in kept], [[row[column] for column in kept] for row in rows]


def _coloured(line: str, row: Sequence[str], colours: Mapping[str, str]) -> str:
    for cell in row:
        if colours.get(cell):
            line = line.replace(GAP + cell, GAP + click.style(cell, fg=colours[cell]), 1)
    return line


def table(header: Sequence[str], rows: Sequence[Sequence[str]], limit: int | None = None) -> list[str]:
    """The lines of a table, each at most `limit` columns wide if there is a limit."""
    every = [header, *rows]
    widths = [max(width(row[column]) for row in every) for column in range(len(header) - 1)]
    lines = [
        GAP.join([*(pad(cell, columns) for cell, columns in zip(row, widths, strict=False)), row[-1]]).rstrip()
        for row in every
    ]
    return [cut(line, limit) for line in lines] if limit else lines


def show_fields(fields: Iterable[tuple[str, str]], *, err: bool = False) -> None:
    """Print `key: value` lines with the values aligned; further lines of a value are indented."""
    known = [(key, value) for key, value in fields if value]
    margin = max((width(key) for key, _ in known), default=0) + 1 + len(GAP)
    for key, value in known:
        first, *rest = value.splitlines() or [""]
        click.echo(pad(f"{key}:", margin) + escape(first), err=err)
        for line in rest:
            click.echo(" " * margin + escape(line), err=err)


def _columns(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in ("W", "F") else 1
