"""What a project sets about how it runs: `yaotask.yml`, then `YAOTASK_*` variables, then what an App is given.

The three are merged once, before anything is checked, so that a later one replaces an earlier value
whatever it was; every fault is reported with the place that its value came from.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

from yaotask import durations
from yaotask.converters import CONVERTERS, STORE, Converter, ceiling, mapping
from yaotask.marks import KEY, Marks
from yaotask.marks import Path as MarkPath
from yaotask.problems import Problem, sort
from yaotask.root import FILE
from yaotask.scalars import masked, scalar, storable
from yaotask.suggest import did_you_mean
from yaotask.yamlsource import read_file

PREFIX = "YAOTASK_"
ENVIRONMENT = "environment"
OF_APP = "App(settings=...)"
# Variables that say something else than a setting; those of YAOTASK_TEST_ belong to test suites.
NO_SETTINGS = ("YAOTASK_ROOT", "YAOTASK_DEBUG")
OF_TESTS = "YAOTASK_TEST_"


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on what may be stored: bytes of JSON or text, depth and number of values."""

    args_bytes: int = 256 * 1024
    result_bytes: int = 1024 * 1024
    error_bytes: int = 16 * 1024
    message_bytes: int = 1024
    depth: int = 64
    nodes: int = 10_000


@dataclass(frozen=True, slots=True)
class Settings:
    """A project's settings, checked and in typed units.

    `claim_batch` None means that the runtime decides. `defaults` are the keys that each definition
    starts from, as written: the loader of definitions checks them, and points into `marks`.
    """

    store: str
    poll: timedelta = timedelta(seconds=1)
    claim_batch: int | None = None
    # Whether processes tell each other of new jobs; without it polling alone finds them.
    hints: bool = True
    # Worker processes of a node; 0 where the file says `off`.
    processes: int = 1
    lease: timedelta = timedelta(seconds=30)
    heartbeat: timedelta = timedelta(seconds=10)
    losses: int = 3
    grace: timedelta = timedelta(seconds=25)
    cancel_grace: timedelta = timedelta(seconds=5)
    max_jobs_per_child: int = 1_000
    hook_timeout: timedelta = timedelta(seconds=30)
    hook_attempts: int = 5
    log: Literal["text", "json"] = "text"
    limits: Limits = field(default_factory=Limits)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    origins: Origins = field(default_factory=lambda: Origins(Marks(FILE)), repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Origins:
    """Where each setting came from: the file, or what replaced it: a variable, or an App's own.

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


def load_settings(
    root: Path, environ: Mapping[str, str], overrides: Mapping[str, Any] | None = None
) -> tuple[Settings, list[Problem]]:
    """The settings of the project in `root`, and all that is wrong with them.

    A setting at fault keeps its default. `overrides` are those that an App was given; None is one
    that was not. Variables reach inside a setting with two underscores:
    YAOTASK_LIMITS__ARGS_BYTES. An empty variable counts as not set.
    """
    given, marks, problems = _file(root, environ)
    unread = frozenset((problem.line, problem.column) for problem in problems if problem.line)
    origins = Origins(marks, unread=unread)
    for path, value, source in _replacements(environ, overrides or {}):
        origins.elsewhere[path] = source
        try:
            given = merge(given, _nested(path, scalar(storable(value)) if source[0] == ENVIRONMENT else value))
        except ValueError as error:
            problems.append(origins.problem(path, str(error)))
    checker = _Checker(origins, problems)
    return checker.settings(given), sort(problems)


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Both, key by key, `over` winning; mappings in both are merged likewise."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = merge(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return merged


def _file(root: Path, environ: Mapping[str, str]) -> tuple[dict[str, Any], Marks, list[Problem]]:
    # A link that leads nowhere is there, and is told of: the settings behind it name the store.
    if not os.path.lexists(root / FILE):
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
            yield (key,), value, (OF_APP, key)


def _nested(path: MarkPath, value: Any) -> dict[str, Any]:
    for name in reversed(path):
        value = {name: value}
    return dict(value)


class _Checker:
    """Turns what was given into Settings, noting faults and leaving defaults in their place."""

    def __init__(self, origins: Origins, problems: list[Problem]) -> None:
        self._origins = origins
        self._problems = problems

    def settings(self, given: Mapping[str, Any]) -> Settings:
        good = self._converted((), given, {**CONVERTERS, "limits": self._limits, "defaults": mapping})
        good.setdefault("store", STORE)
        settings = Settings(**good, origins=self._origins)
        # One of the two that is no duration at all was told of already, and has its default for now.
        if {"lease", "heartbeat"} & given.keys() <= good.keys():
            self._lease(settings)
        return settings

    def _lease(self, settings: Settings) -> None:
        """A renewal or two may fail, or come late, before a lease is lost."""
        if settings.lease >= 3 * settings.heartbeat:
            return
        lease, heartbeat = durations.show(settings.lease), durations.show(settings.heartbeat)
        if self._origins.has(("lease",)):
            self._report(("lease",), f"must be at least three times heartbeat, which is {heartbeat}; got {lease}")
        else:
            self._report(("heartbeat",), f"must be at most a third of lease, which is {lease}; got {heartbeat}")

    def _limits(self, given: Any) -> Limits:
        converters = {limit.name: ceiling(limit.name) for limit in fields(Limits)}
        return Limits(**self._converted(("limits",), mapping(given), converters))

    def _converted(
        self, above: MarkPath, given: Mapping[str, Any], converters: Mapping[str, Converter]
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
