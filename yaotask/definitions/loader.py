"""Reads every definition of a project, and reports everything that is wrong with all of them at once.

Here a definition is checked by itself. Whether the functions that it names exist is for `check`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from yaotask.backoff import Backoff
from yaotask.definitions import files
from yaotask.definitions.catalog import Catalog
from yaotask.definitions.convert import typed
from yaotask.definitions.fault import Fault
from yaotask.definitions.files import Source
from yaotask.definitions.model import Definition, Hooks
from yaotask.definitions.schema import DEFAULTS, SEVEN, TASK
from yaotask.marks import Marks
from yaotask.marks import Path as MarkPath
from yaotask.problems import Problem, sort
from yaotask.scalars import shown
from yaotask.settings import Settings, merge
from yaotask.yamlsource import read_file

_EMPTY = "is empty; a definition has at least a name and a process"
_NO_MAPPING = "must be a mapping of keys, as in process: scripts.mail.Send"


def load(root: Path, settings: Settings, environ: Mapping[str, str], sound: Collection[str] = ()) -> Catalog:
    """The definitions below `tasks/`, each with the project's defaults under it and `${NAME}` taken from `environ`.

    Nothing that is at fault is in the catalog's `tasks`, and nothing is raised. A fault of the defaults
    is reported once, where they stand, and the tasks do without that default. What a catalog of before calls `sound`
    is not looked at again.
    """
    check = _Check(sound)
    sources, problems = files.find(root)
    defaults = _defaults(settings, problems, check)
    tasks, faulty, marks = {}, {}, {}
    for source in sources:
        keys, good, marks[source.id] = _read(source, environ, problems, check)
        if good:
            tasks[source.id] = _definition(source, keys, marks[source.id], defaults)
        elif "process" in keys:
            faulty[source.id] = _definition(source, {"name": source.id, **keys}, marks[source.id], defaults)
    return Catalog(tasks, sort(problems), marks, settings.origins, faulty, check.sound)


class _Check:
    """Finds what is wrong with trees, and remembers those with which nothing is."""

    def __init__(self, sound: Collection[str]) -> None:
        self.sound = set(sound)

    def faults(self, schema: Mapping[str, Any], tree: Mapping[str, Any]) -> list[Fault]:
        digest = sha256(repr((schema, tree)).encode("utf-8", "surrogatepass")).hexdigest()
        if digest in self.sound:
            return []
        found = _faults(schema, tree)
        if not found:
            self.sound.add(digest)
        return found


def _faults(schema: Mapping[str, Any], tree: Mapping[str, Any]) -> list[Fault]:
    # jsonschema costs a tenth of a second, which no process shall pay for what another has looked at.
    from yaotask.definitions.validation import faults, schema_faults  # noqa: PLC0415

    own = tree.get("input")
    wrong = schema_faults(own) if isinstance(own, dict) else ()
    return [*faults(schema, tree), *(fault._replace(path=("input", *fault.path)) for fault in wrong)]


# --- one file ----------------------------------------------------------------------------------------


def _read(
    source: Source, environ: Mapping[str, str], problems: list[Problem], check: _Check
) -> tuple[dict[str, Any], bool, Marks]:
    """The typed keys of one file that have no fault, whether nothing in it has one, and the places in it."""
    keys: dict[str, Any] = {}
    tree, marks, found = read_file(source.path, source.name, source.json, environ=environ)
    if isinstance(tree, dict):
        unread = {(problem.line, problem.column) for problem in found}
        keys, wrong = _checked(TASK, tree, check)
        told = [
            marks.problem(fault.path, _told(fault, tree, fault.path in marks.secrets), name=fault.name)
            for fault in wrong
        ]
        found += [problem for problem in told if (problem.line, problem.column) not in unread or not problem.line]
    elif not found:
        found = [marks.problem((), _EMPTY if tree is None else _NO_MAPPING)]
    problems += found
    return keys, not found, marks


def _checked(schema: Mapping[str, Any], tree: Mapping[str, Any], check: _Check) -> tuple[dict[str, Any], list[Fault]]:
    """The typed keys of a tree that have no fault, and all faults."""
    found = check.faults(schema, tree)
    late: list[Fault] = []
    keys = typed(_without(found, tree), late)
    return _without(late, keys), found + late


def _without(found: Iterable[Fault], keys: Mapping[str, Any]) -> dict[str, Any]:
    bad = {fault.path[0] for fault in found if fault.path}
    return {key: value for key, value in keys.items() if key not in bad}


def _told(fault: Fault, tree: Mapping[str, Any], secret: bool) -> str:
    """The message of a fault, with the value that is at fault unless it is a secret."""
    if not fault.bad:
        return fault.message
    value: Any = tree
    for name in fault.path:
        value = value[name]
    return f"{fault.message}, got {shown(value, secret=secret)}{'' if secret else fault.hint}"


def _definition(source: Source, keys: Mapping[str, Any], marks: Marks, defaults: _Defaults) -> Definition:
    whole = merge(defaults.keys, keys)
    return Definition(
        **{
            **whole,
            "id": source.id,
            "event": Hooks(**whole.get("event", {})),
            "backoff": Backoff(**whole.get("backoff", {})),
            "source": Path(source.name),
            "missing": tuple(key for key in SEVEN if key not in keys and (key,) not in marks.places),
            "secrets": frozenset(marks.secrets | {path for path in defaults.secrets if path not in marks.places}),
        }
    )


# --- the defaults of all -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Defaults:
    """What yaotask.yml and the environment say of every task, typed, and the paths of secrets in it."""

    keys: Mapping[str, Any]
    secrets: frozenset[MarkPath]


def _defaults(settings: Settings, problems: list[Problem], check: _Check) -> _Defaults:
    origins, given = settings.origins, settings.defaults
    keys, wrong = _checked(DEFAULTS, given, check)
    for fault in wrong:
        path = ("defaults", *fault.path)
        problem = origins.problem(path, _told(fault, given, origins.is_secret(path)))
        if not origins.is_reported(problem):
            problems.append(problem)
    secrets = {path[1:] for path in origins.marks.secrets if path[:1] == ("defaults",) and origins.is_secret(path)}
    return _Defaults(keys, frozenset(secrets))
