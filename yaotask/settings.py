"""What a project sets about how it runs: `yaotask.yml`, then `YAOTASK_*` variables, then flags.

The three are merged once, before anything is checked, so that a later one replaces an earlier value
whatever it was; every fault is reported with the place that its value came from.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

from yaotask import durations
from yaotask.errors import BadDefinitions
from yaotask.marks import KEY, Marks
from yaotask.marks import Path as MarkPath
from yaotask.problems import Problem, sort
from yaotask.scalars import masked, scalar, shown
from yaotask.suggest import did_you_mean
from yaotask.yamlsource import read_file

FILE = "yaotask.yml"
FOLDER = "tasks"
STORE = "sqlite:///.yaotask/yaotask.db"
PREFIX = "YAOTASK_"
ENVIRONMENT = "environment"
# Variables that say something else than a setting; those of YAOTASK_TEST_ belong to test suites.
NO_SETTINGS = ("YAOTASK_ROOT", "YAOTASK_DEBUG")
OF_TESTS = "YAOTASK_TEST_"

_RELATIVE_SQLITE = re.compile(r"(sqlite(?:\+\w+)?:///)(?!/|:memory:|file:)(.+)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on what may be stored: bytes of JSON or text, depth and number of values."""

    args_bytes: int = 256 * 1024
    result_bytes: int = 1024 * 1024
    error_bytes: int = 16 * 1024
    message_bytes: int = 1024
    depth: int = 64
    nodes: int = 10_000


# The most each limit may be raised to. JSON writers in C give up at a depth of about 250.
_CEILINGS = {"depth": 200, "nodes": 10_000_000}
_BYTES_CEILING = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Settings:
    """A project's settings, checked and in typed units.

    `claim_batch` None means that the runtime decides. `defaults` are the keys that each definition
    starts from, as written: the loader of definitions checks them, and points into `marks`.
    """

    store: str
    poll: timedelta = timedelta(seconds=1)
    claim_batch: int | None = None
    losses: int = 3
    grace: timedelta = timedelta(seconds=25)
    hook_timeout: timedelta = timedelta(seconds=30)
    hook_attempts: int = 5
    log: Literal["text", "json"] = "text"
    limits: Limits = field(default_factory=Limits)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    origins: Origins = field(default_factory=lambda: Origins(Marks(FILE)), repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Origins:
    """Where each setting came from: the file, or a variable or flag that replaced it.

    `unread` are the lines and columns of values that could not be read: they have been reported, and
    are no values to complain about.
    """

    marks: Marks
    elsewhere: dict[MarkPath, tuple[str, str]] = field(default_factory=dict)
    unread: frozenset[tuple[int, int]] = frozenset()

    def problem(self, path: MarkPath, message: str) -> Problem:
        """A problem with the value at a path, in the place it came from."""
        for end in range(len(path), 0, -1):
            if source := self.elsewhere.get(path[:end]):
                return Problem(source[0], 0, 0, source[1], message)
        return self.marks.problem(path, message)

    def has(self, path: MarkPath) -> bool:
        """Whether this value was given, by whatever source."""
        return path in self.elsewhere or path in self.marks.places

    def is_reported(self, problem: Problem) -> bool:
        """Whether the problem is about a value that could not be read, which has been said already."""
        return (problem.line, problem.column) in self.unread

    def is_secret(self, path: MarkPath) -> bool:
        """Whether the file took this value from the environment, so that it is masked when shown."""
        return path in self.marks.secrets and path not in self.elsewhere


def find_root(app: str | Path | None, environ: Mapping[str, str], cwd: Path) -> Path:
    """The project's folder, absolute: `app`, else YAOTASK_ROOT, else the nearest upward that looks like one.

    BadDefinitions where it does not exist, or where nothing upward has `yaotask.yml` or `tasks/`.
    """
    if named := app or environ.get("YAOTASK_ROOT"):
        root = (cwd / named).resolve()
        if root.is_dir():
            return root
        raise BadDefinitions(
            [Problem(str(named), 0, 0, "", "there is no such folder; make one with: yaotask init DIR")]
        )
    for folder in (cwd.resolve(), *cwd.resolve().parents):
        if (folder / FILE).is_file() or (folder / FOLDER).is_dir():
            return folder
    message = f"neither this folder nor one above it has {FILE} or {FOLDER}/; make a project with: yaotask init"
    raise BadDefinitions([Problem(str(cwd), 0, 0, "", message)])


def load_settings(
    root: Path, environ: Mapping[str, str], overrides: Mapping[str, Any] | None = None
) -> tuple[Settings, list[Problem]]:
    """The settings of the project in `root`, and all that is wrong with them.

    A setting at fault keeps its default. `overrides` are flags: values by the names of settings;
    None is a flag that was not given. Variables reach inside a setting with two underscores:
    YAOTASK_LIMITS__ARGS_BYTES. An empty variable counts as not set.
    """
    given, marks, problems = _file(root, environ)
    unread = frozenset((problem.line, problem.column) for problem in problems if problem.line)
    origins = Origins(marks, unread=unread)
    for path, value, source in _replacements(environ, overrides or {}):
        origins.elsewhere[path] = source
        try:
            given = merge(given, _nested(path, scalar(value) if source[0] == ENVIRONMENT else value))
        except ValueError as error:
            problems.append(origins.problem(path, str(error)))
    checker = _Checker(root, origins, problems)
    return checker.settings(given), sort(problems)


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Both, key by key, `over` winning; mappings in both are merged likewise."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = merge(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return merged


def _file(root: Path, environ: Mapping[str, str]) -> tuple[dict[str, Any], Marks, list[Problem]]:
    if not (root / FILE).exists():
        return {}, Marks(FILE), []
    tree, marks, problems = read_file(root / FILE, FILE, environ=environ)
    if isinstance(tree, dict):
        return tree, marks, problems
    if tree is not None:
        problems.append(marks.problem((), "must be a mapping of settings, as in: poll: 1s"))
    return {}, marks, problems


def _replacements(
    environ: Mapping[str, str], overrides: Mapping[str, Any]
) -> Iterator[tuple[MarkPath, Any, tuple[str, str]]]:
    """Each value that replaces one of the file: its path, itself, and how a problem names its source."""
    for name in sorted(environ):
        if name.startswith(PREFIX) and not name.startswith(OF_TESTS) and name not in NO_SETTINGS and environ[name]:
            path = tuple(name.removeprefix(PREFIX).lower().split("__"))
            yield path, environ[name], (ENVIRONMENT, name)
    for key, value in overrides.items():
        if value is not None:
            yield (key,), value, ("command line", key)


def _nested(path: MarkPath, value: Any) -> dict[str, Any]:
    for name in reversed(path):
        value = {name: value}
    return dict(value)


class _Checker:
    """Turns what was given into Settings, noting faults and leaving defaults in their place."""

    def __init__(self, root: Path, origins: Origins, problems: list[Problem]) -> None:
        self._root = root
        self._origins = origins
        self._problems = problems

    def settings(self, given: Mapping[str, Any]) -> Settings:
        good = self._converted((), given, {**_CONVERTERS, "limits": self._limits, "defaults": _mapping})
        good["store"] = _beneath(self._root, good.get("store", STORE))
        return Settings(**good, origins=self._origins)

    def _limits(self, given: Any) -> Limits:
        converters = {limit.name: _ceiling(limit.name) for limit in fields(Limits)}
        return Limits(**self._converted(("limits",), _mapping(given), converters))

    def _converted(
        self, above: MarkPath, given: Mapping[str, Any], converters: Mapping[str, _Converter]
    ) -> dict[str, Any]:
        good: dict[str, Any] = {}
        for key, value in given.items():
            path = (*above, key)
            convert = converters.get(key)
            if convert is None and not (key.startswith("x-") or key == "$schema"):
                self._report((*path, KEY), f"unknown setting{did_you_mean(key, converters)}")
            elif convert is not None:
                try:
                    good[key] = convert(value)
                except ValueError as error:
                    self._report(path, masked(error) if self._origins.is_secret(path) else str(error))
        return good

    def _report(self, path: MarkPath, message: str) -> None:
        problem = self._origins.problem(path, message)
        if not self._origins.is_reported(problem):
            self._problems.append(problem)


# --- what each setting may be ------------------------------------------------------------------------

_Converter = Callable[[Any], Any]


def _store(value: Any) -> str:
    if isinstance(value, str) and re.match(r"[a-z][a-z0-9+]*://", value):
        return value
    raise ValueError(f"must be a database URL such as {STORE}, got {shown(value, secret=True)}")


def _beneath(root: Path, store: str) -> str:
    """The URL with the path of a SQLite file made absolute: it is relative to the project, not to the shell."""
    return _RELATIVE_SQLITE.sub(lambda match: f"{match[1]}{root.absolute()}/{match[2]}", store, count=1)


def _mapping(value: Any) -> Mapping[str, Any]:
    if isinstance(value, Mapping):
        return value
    raise ValueError(f"must be a mapping, got {shown(value)}")


def _whole(least: int, most: int) -> _Converter:
    def convert(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(f"must be an integer, got {shown(value)}")
        if not least <= value <= most:
            raise ValueError(f"must be {f'at least {least}' if value < least else f'at most {most}'}, got {value}")
        return value

    return convert


def _ceiling(limit: str) -> _Converter:
    return _whole(1, _CEILINGS.get(limit, _BYTES_CEILING))


def _duration(least: timedelta) -> _Converter:
    def convert(value: Any) -> timedelta:
        duration = durations.parse(value, "s")
        if duration < least:
            raise ValueError(f"must be at least {durations.show(least)}, got {value}")
        return duration

    return convert


def _batch(value: Any) -> int | None:
    if value == "auto":
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        return int(_whole(1, 10_000)(value))
    raise ValueError(f'must be "auto" or an integer, got {shown(value)}')


def _log(value: Any) -> str:
    if value in ("text", "json"):
        return str(value)
    raise ValueError(f'must be "text" or "json", got {shown(value)}')


_CONVERTERS: Mapping[str, _Converter] = {
    "store": _store,
    "poll": _duration(timedelta(milliseconds=10)),
    "claim_batch": _batch,
    "losses": _whole(1, 1_000),
    "grace": _duration(timedelta(0)),
    "hook_timeout": _duration(timedelta(milliseconds=1)),
    "hook_attempts": _whole(1, 1_000),
    "log": _log,
}
