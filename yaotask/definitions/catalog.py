"""The tasks of a project: those that can be used, and what is wrong with the others."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from yaotask.definitions import files
from yaotask.definitions.model import Definition
from yaotask.errors import UnknownTask
from yaotask.marks import Marks, Path
from yaotask.problems import Problem
from yaotask.settings import Origins
from yaotask.suggest import did_you_mean

_LISTED = 10


@dataclass(frozen=True, slots=True)
class Catalog:
    """The definitions of one project, as they were when they were loaded.

    `tasks` are the good ones by id; `problems` are the faults of YAML and schema of all of them and
    of the defaults, sorted. `marks` has the places in each task's file, `origins` those of settings.
    `faulty` is what is left of the others without their faults, for who looks for more; never to be run. `sound` tells
    other processes what need not be looked at again.
    """

    tasks: Mapping[str, Definition]
    problems: list[Problem]
    marks: Mapping[str, Marks] = field(default_factory=dict, repr=False)
    origins: Origins = field(default_factory=lambda: Origins(Marks("")), repr=False)
    faulty: Mapping[str, Definition] = field(default_factory=dict, repr=False)
    sound: Collection[str] = field(default=(), repr=False)

    def get(self, task: str) -> Definition:
        """The definition of a task; UnknownTask says what was meant, or that its file has problems."""
        if not isinstance(task, str):
            raise UnknownTask(f"a {type(task).__name__} is no task: a task is named by its id, as in mail")
        if definition := self.tasks.get(task):
            return definition
        raise UnknownTask(self._why_not(task))

    def problem(self, task: str, path: Path, message: str, detail: str | None = None) -> Problem:
        """A problem with a value of a definition, at its key: in the task's file, or in the defaults it came from."""
        marks, default = self.marks[task], ("defaults", *path)
        if path not in marks.places and self.origins.has(default):
            return replace(self.origins.problem(default, message), detail=detail)
        return replace(marks.problem(path, message), detail=detail)

    def faults(self, task: str) -> list[Problem]:
        """What keeps the file that stands for this task from being used; empty if there is no such file."""
        return [problem for problem in self.problems if _stands_for(problem.file, task)]

    def _why_not(self, task: str) -> str:
        if faults := self.faults(task):
            return f'the task "{task}" cannot be used: {faults[0].file} has problems; see: yaotask check'
        if not self.tasks:
            return f'there is no task "{task}": {files.FOLDER}/ has no definition that can be used'
        return f'there is no task "{task}"{did_you_mean(task, self.tasks) or self._known()}'

    def _known(self) -> str:
        known = sorted(self.tasks)
        more = f" and {len(known) - _LISTED:,} more" if len(known) > _LISTED else ""
        return f"; there are {', '.join(known[:_LISTED])}{more}" if len(known) > 1 else f"; there is only {known[0]}"


def _stands_for(file: str, task: str) -> bool:
    return file.startswith(f"{files.FOLDER}/") and files.id_of(file) == task
