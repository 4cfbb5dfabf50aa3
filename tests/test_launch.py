"""How programs are imported: nobody looks for garbage meanwhile, and all is as it was afterwards."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from yaotask import launch


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    (tmp_path / "program_of_ours.py").write_text("import gc\n\nenabled = gc.isenabled()\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield "program_of_ours"
    sys.modules.pop("program_of_ours", None)


@pytest.mark.parametrize("enabled", [True, False])
def test_while_a_program_is_imported_nobody_looks_for_garbage(program: str, enabled: bool) -> None:
    (gc.enable if enabled else gc.disable)()
    try:
        module, after = launch.load(program), gc.isenabled()
    finally:
        gc.enable()

    assert (module.enabled, after) == (False, enabled)


def test_a_program_that_cannot_be_imported_leaves_the_collector_as_it_was() -> None:
    with pytest.raises(ModuleNotFoundError):
        launch.load("yaotask.nowhere")

    assert gc.isenabled()
