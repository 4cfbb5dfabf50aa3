"""The one description of definition files: for the loader, for editors, and as the documents have it."""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from yaotask import durations
from yaotask.definitions.loader import load
from yaotask.definitions.model import Definition, Hooks
from yaotask.definitions.schema import DEFAULTS, SEVEN, TASK, text, write_schema
from yaotask.settings import Limits, Settings, load_settings

DOCS = Path(__file__).parent.parent / "docs"
# What yaotask adds to a definition by itself.
OURS = {"id", "source", "missing", "secrets"}


def documented(file: str) -> set[str]:
    """The names in the first column of the tables of a document."""
    return set(re.findall(r"^\| `([^`]+)` \|", (DOCS / file).read_text(encoding="utf-8"), re.MULTILINE))


def nodes(schema: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(schema, dict):
        yield schema
    for member in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ():
        yield from nodes(member)


@pytest.mark.parametrize("schema", [TASK, DEFAULTS])
def test_it_is_good_json_schema(schema: Mapping[str, Any]) -> None:
    Draft202012Validator.check_schema(schema)

    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_it_has_the_keys_of_a_definition_and_no_other() -> None:
    assert set(TASK["properties"]) == {field.name for field in fields(Definition)} - OURS | {"$schema"}
    assert set(TASK["properties"]["event"]["properties"]) == {field.name for field in fields(Hooks)}


def test_the_seven_keys_of_the_seed_come_first() -> None:
    assert SEVEN == ("name", "process", "worker_nums", "attempts", "attempt_after", "timeout", "size")
    assert TASK["required"] == ["name", "process"]


def test_what_it_calls_a_default_is_the_default() -> None:
    definition = Definition("a", "a", "a.b")
    units = {"attempt_after": "ms", "timeout": "s"}
    defaults = {key: about["default"] for key, about in TASK["properties"].items() if "default" in about}

    assert set(defaults) == {"worker_nums", "attempts", "attempt_after", "timeout", "size", "priority", "transaction"}
    for key, default in defaults.items():
        told = durations.parse(default, units[key]) if key in units else default  # type: ignore[arg-type]
        assert getattr(definition, key) == told


def test_every_key_says_what_it_is() -> None:
    event, backoff = TASK["properties"]["event"], TASK["properties"]["backoff"]["then"]
    described = {**TASK["properties"], **event["properties"], **backoff["properties"]}

    assert [key for key, about in described.items() if not (about.get("title") and about.get("description"))] == []


def test_its_examples_and_defaults_fit_it() -> None:
    for node in nodes(TASK):
        examples = [*node.get("examples", ()), *([node["default"]] if "default" in node else ())]
        if isinstance(node.get("properties", {}), dict):
            assert all(Draft202012Validator(node).is_valid(example) for example in examples)


def test_its_patterns_are_understood_by_javascript_too() -> None:
    patterns = [node["pattern"] for node in nodes(TASK) if isinstance(node.get("pattern"), str)]

    assert patterns
    assert not [pattern for pattern in patterns if re.search(r"\(\?P|\\[AZz]|\(\?<|\(\?#|[*+?}]\+", pattern)]


# --- the file for editors ----------------------------------------------------------------------------


def test_it_is_written_where_modelines_point(tmp_path: Path) -> None:
    path = write_schema(tmp_path)

    assert path == tmp_path / ".yaotask" / "task.schema.json"
    assert json.loads(path.read_text(encoding="utf-8")) == TASK
    assert path.read_text(encoding="utf-8") == text()


def test_the_folder_of_the_state_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = write_schema(tmp_path)

    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_writing_it_again_replaces_it(tmp_path: Path) -> None:
    path = write_schema(tmp_path)
    path.write_text("old")

    assert write_schema(tmp_path).read_text(encoding="utf-8") == text()
    assert [entry.name for entry in path.parent.iterdir()] == ["task.schema.json"]


# --- the documents -----------------------------------------------------------------------------------


def test_every_key_of_a_definition_is_documented() -> None:
    hooks = {f"event.{hook}" for hook in TASK["properties"]["event"]["properties"]}
    strategies = set(TASK["properties"]["backoff"]["else"]["enum"])

    assert documented("definitions.md") == {*TASK["properties"], *hooks, *strategies, "x-..."}


def test_the_keys_of_backoff_are_documented() -> None:
    page = (DOCS / "definitions.md").read_text(encoding="utf-8")

    assert [key for key in TASK["properties"]["backoff"]["then"]["properties"] if f"`{key}`" not in page] == []


def test_every_setting_is_documented_with_its_variable() -> None:
    settings = {field.name for field in fields(Settings)} - {"origins"}
    limits = {f"limits.{field.name}" for field in fields(Limits)}
    page = (DOCS / "settings.md").read_text(encoding="utf-8")

    assert documented("settings.md") == settings | limits
    for name in (settings | limits) - {"limits", "defaults"}:
        assert f"| `{name}` | `YAOTASK_{name.upper().replace('.', '__')}` |" in page


def test_the_examples_of_the_documents_have_no_fault(tmp_path: Path) -> None:
    definition, settings = (
        re.findall(r"```yaml\n(.*?)```", (DOCS / file).read_text(encoding="utf-8"), re.DOTALL)[0]
        for file in ("definitions.md", "settings.md")
    )
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "mail.yml").write_text(definition, encoding="utf-8")
    (tmp_path / "yaotask.yml").write_text(settings, encoding="utf-8")
    loaded, problems = load_settings(tmp_path, {})
    catalog = load(tmp_path, loaded, {})

    assert (problems, catalog.problems, list(catalog.tasks)) == ([], [], ["mail"])


def test_the_settings_in_the_documents_are_the_defaults(tmp_path: Path) -> None:
    example = re.findall(r"```yaml\n(.*?)```", (DOCS / "settings.md").read_text(encoding="utf-8"), re.DOTALL)[0]
    unset, _ = load_settings(tmp_path, {})
    (tmp_path / "yaotask.yml").write_text(example.partition("defaults:")[0], encoding="utf-8")

    assert load_settings(tmp_path, {}) == (unset, [])
