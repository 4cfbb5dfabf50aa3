"""What `import yaotask` offers, and what it costs."""

from __future__ import annotations

import copy
import importlib.resources
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest

import yaotask
from yaotask import errors

DOCS = Path(__file__).parent.parent / "docs"
PAGES = [(DOCS / name).read_text(encoding="utf-8") for name in ("calls.md", "handlers.md")]


def _imported_names() -> set[str]:
    """What the pages say can be imported from yaotask."""
    statements = [found for page in PAGES for found in re.findall(r"^from yaotask import (.+)$", page, re.M)]
    return {name.strip() for statement in statements for name in statement.split(",")}


def _documented_errors() -> set[str]:
    section = PAGES[0].split("## Errors", 1)[1]
    return set(re.findall(r"`([A-Z]\w+)`", section))


@pytest.mark.parametrize("name", yaotask.__all__)
def test_every_public_name_is_there_and_in_the_docs(name: str) -> None:
    assert getattr(yaotask, name).__name__ == name
    assert any(re.search(rf"\b{name}\b", page) for page in PAGES), f"{name} is in no page"


def test_every_name_that_the_docs_import_is_public() -> None:
    assert {"App", "process", "current_job", "Retry"} <= _imported_names() <= set(yaotask.__all__)


def test_the_errors_of_the_docs_are_those_that_are_public() -> None:
    public = {name for name in yaotask.__all__ if issubclass(getattr(errors, name, object), errors.YaotaskError)}

    assert _documented_errors() == public


def test_every_error_is_public() -> None:
    kinds = {name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, Exception)}

    assert kinds <= set(yaotask.__all__)


def test_dir_shows_what_was_not_used_yet() -> None:
    assert set(yaotask.__all__) <= set(dir(yaotask))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        _ = yaotask.Nothing


def test_importing_it_loads_nothing_heavy() -> None:
    program = "import sys, yaotask; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()

    assert not {"sqlalchemy", "anyio", "jsonschema", "yaml", "click", "orjson", "logging"} & set(loaded)


def test_it_ships_its_types() -> None:
    assert importlib.resources.files(yaotask).joinpath("py.typed").is_file()


ERRORS = [
    errors.QueueFull("mail", 5, [1, 2]),
    errors.DuplicateJobId("mail", 7),
    errors.InvalidPayload("is a set", "$.args[0]"),
    errors.JobNotFound("mail", 12),
    errors.ResultNotJson("is a set", "$.a"),
    errors.HandlerNotFound("no function", "trace"),
    errors.BadDefinitions(["a fault"]),
    errors.StorageBusy("locked"),
    errors.Retry("later", after="5m"),
    errors.Fail("bad", response={"a": 1}),
    errors.Ignore("done"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_crosses_processes_whole(error: Exception) -> None:
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):  # noqa: S301 - our own bytes
        assert type(again) is type(error)
        assert (str(again), vars(again)) == (str(error), vars(error))
