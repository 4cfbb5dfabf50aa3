"""Libraries in C that are preloaded into programs, where they stand for something that goes wrong."""

from __future__ import annotations

import platform
import shutil
import subprocess
from pathlib import Path

import pytest
from servers import Missing

ADVICE = "no C compiler is installed for the tests: apt-get install gcc libc6-dev"
HERE = Path(__file__).parent


def library(name: str, folder: Path) -> Path:
    """One of them, compiled into this folder. Raises Missing where that cannot be done."""
    if not Path("/proc/self/fd").is_dir() or platform.libc_ver()[0] != "glibc":
        raise Missing("needs Linux with glibc: libraries are preloaded into programs, and look into /proc")
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise Missing(ADVICE)
    made = folder / f"{name}.so"
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-Wall", "-Werror", "-o", made, HERE / f"{name}.c", "-ldl"], check=True
    )
    return made


def compiled(name: str, folder: Path) -> Path:
    """The same for a test, which is skipped where that cannot be done."""
    try:
        return library(name, folder)
    except Missing as missing:
        pytest.skip(str(missing))
