"""What the files of a project say, as one process has read them: its settings, its tasks and their functions."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from yaotask.definitions import check, loader
from yaotask.handlers import Handlers
from yaotask.problems import Problem, sort
from yaotask.resolve import Resolver
from yaotask.root import find_root
from yaotask.settings import load_settings


class Project:
    """A project without its store. Raises NoProject where there is none.

    `sound` is what another process has found so in its catalog.
    """

    def __init__(
        self, root: str | Path | None, settings: Mapping[str, Any] | None, sound: Collection[str] = ()
    ) -> None:
        self.root = find_root(root, os.environ)
        # What is given to its other processes, too.
        self.given = dict(settings or {})
        self.settings, self.faults = load_settings(self.root, os.environ, settings)
        self.catalog = loader.load(self.root, self.settings, os.environ, sound)
        self.problems: list[Problem] = sort([*self.faults, *self.catalog.problems])
        self.resolver = Resolver(self.root)
        self.handlers = Handlers(self.resolver)

    def broken(self) -> dict[str, list[Problem]]:
        """The tasks whose handlers cannot be used, with the reasons. Imports the scripts."""
        return check.broken(self.catalog, self.resolver)

    def close(self) -> None:
        """Let go of the project's modules."""
        self.resolver.close()
