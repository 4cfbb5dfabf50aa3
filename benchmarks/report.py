"""The table, on the screen, in a page of the documents, and as JSON."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Sequence
from pathlib import Path

from harness import Row


def table(rows: Sequence[Row], *, aims: bool) -> str:
    """In Markdown: the median of the runs, and the least and the most of them."""
    header = ["what", "median", "range", *(["aim"] if aims else [])]
    lines = [header, ["---", "---:", "---:", *(["---:"] if aims else [])]]
    lines += [cells(row)[: len(header)] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cells(row: Row) -> list[str]:
    """What stands in one line."""
    unit = f" {row.unit}" if row.unit else ""
    least, most = figure(min(row.samples)), figure(max(row.samples))
    spread = f"{least} to {most}" if len(row.samples) > 1 else ""
    return [row.what, figure(statistics.median(row.samples)) + unit, spread, row.aim]


def figure(value: float) -> str:
    """A number with three digits that count, or all before the point."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def as_json(rows: Sequence[Row], about: str) -> str:
    """All figures, for programs."""
    listed = [
        {"what": row.what, "unit": row.unit, "median": statistics.median(row.samples), "samples": list(row.samples)}
        for row in rows
    ]
    return json.dumps({"about": about, "rows": listed}, indent=2, ensure_ascii=False)


def replace(page: Path, mark: str, text: str) -> None:
    """Put a text between the marks of a page, which stand there once: `<!-- MARK -->` and `<!-- /MARK -->`."""
    before = page.read_text(encoding="utf-8")
    begin, end = f"<!-- {mark} -->", f"<!-- /{mark} -->"
    place = re.compile(f"({re.escape(begin)}\n).*?({re.escape(end)})", re.DOTALL)
    after, places = place.subn(lambda found: f"{found[1]}{text}\n{found[2]}", before)
    assert places == 1, f"{page.name} needs {begin} and {end}, once"
    page.write_text(after, encoding="utf-8")
