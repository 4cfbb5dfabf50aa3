"""What the figures depend on: the machine and the versions, without anything that names it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sqlite3
from pathlib import Path

from yaotask.store.mounts import file_system


def describe(folder: Path, server: str | None) -> str:
    """One sentence; `server` is what is to be said of a database that is none of ours to ask."""
    parts = [
        f"{os.cpu_count()} cores",
        _processor(),
        f"{platform.system()} on {file_system(folder.resolve()) or 'an unknown file system'}",
        f"{platform.python_implementation()} {platform.python_version()}",
        server or f"SQLite {sqlite3.sqlite_version}",
        f"yaotask {importlib.metadata.version('yaotask')}",
    ]
    return ", ".join(parts) + "."


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()
