"""Folders of one project, as each machine of a fleet has its own, that share one store; and what becomes of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from textwrap import dedent
from typing import Any

from run_support import WITNESS, notes, until
from server_fixtures import Database
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from yaotask import App
from yaotask.clock import SystemClock
from yaotask.store import sessions

# What another node shall notice soon.
BRISK = "lease: 1500ms\nheartbeat: 500ms\n"

HOLD = "name: Hold\nprocess: scripts.hold.Hold\nworker_nums: 2\nsize: 100000\n"

# Notes its start and its end; the first four wait in between for the file `gate`, so that each of two nodes gets two.
GATED = """
    import time
    from pathlib import Path

    from scripts.witness import note

    def Hold(task_id):
        note("start", task_id)
        while task_id <= 4 and not Path("gate").exists():
            time.sleep(0.02)
        note("end", task_id)
"""


def folder(
    tmp_path: Path,
    name: str,
    database: Database,
    *,
    tasks: Mapping[str, str] | None = None,
    scripts: Mapping[str, str] | None = None,
    settings: str = "",
) -> Path:
    """The project as one machine has it: of the task `hold`, unless other tasks are given."""
    root = tmp_path / name / "project"
    files = {f"tasks/{task}.yml": text for task, text in (tasks or {"hold": HOLD}).items()}
    files |= {f"scripts/{script}.py": text for script, text in (scripts or {"hold": GATED}).items()}
    for path, text in {**files, "scripts/witness.py": WITNESS, "yaotask.yml": database.setting + settings}.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(dedent(text))
    return root


def open_gate(*roots: Path) -> None:
    for root in roots:
        (root / "gate").touch()


def noted(word: str, *roots: Path) -> list[str]:
    """What handlers of all these machines noted after this word."""
    return [note for root in roots for note in notes(root, word)]


def statuses(app: App) -> dict[str, int]:
    """How many jobs are in each state that any is in."""
    return {state: count for state, count in app.store_status()["jobs"].items() if count}


def all_succeed(app: App, count: int, patience: float = 60) -> None:
    """Wait until there are so many jobs, and all have succeeded."""
    until(lambda: statuses(app) == {"SUCCESS": count}, patience)


class Skewed(SystemClock):
    """The clock of a machine that is so many seconds ahead of all others."""

    def __init__(self, ahead: float) -> None:
        super().__init__()
        self._skew = round(ahead * 1_000_000)

    def now(self) -> int:
        return super().now() + self._skew


class Administrator:
    """Somebody with rights on the server, and a connection of their own for each thing they do."""

    def __init__(self, database: Database) -> None:
        options: Any = {"connect_args": {"ssl_disabled": True}} if database.kind == "mariadb" else {}
        self._engine = create_engine(database.url, poolclass=NullPool, isolation_level="AUTOCOMMIT", **options)

    def ask(self, statement: str) -> list[Any]:
        """The first column of the answer."""
        with self._engine.connect() as connection:
            answer = connection.exec_driver_sql(statement)
            return list(answer.scalars()) if answer.returns_rows else []

    def end_all(self) -> None:
        """End the connections of all others to the same database."""
        with self._engine.connect() as connection:
            for number in sessions.others(connection):
                sessions.end(connection, number)


def processes(app: App, kind: str) -> list[dict[str, Any]]:
    """Those of a kind that are up."""
    return [process for process in app.workers() if process["kind"] == kind and process["alive"]]


def shown(root: Path, output: str) -> list[dict[str, Any]]:
    """What a command printed as JSON."""
    found: list[dict[str, Any]] = json.loads(output)
    return found
