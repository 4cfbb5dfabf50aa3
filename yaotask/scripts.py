"""Loads the files of a project's `scripts/` folder, under a package name of our own.

They are found by their place in that folder and never by searching `sys.path`, so that `scripts/json.py`
shadows nothing and an installed package that is called `scripts` is not in the way. Among themselves the
files import each other as they would anywhere: `from scripts.mail import Send` or `from .mail import Send`.
"""

from __future__ import annotations

import ast
import importlib
import os
import sys
import traceback
from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from types import CodeType, ModuleType

from yaotask.errors import HandlerNotFound
from yaotask.jsoncheck import mend
from yaotask.spelling import FOLDER, PACKAGE, as_written
from yaotask.suggest import nearest

_INIT = "__init__.py"
# Frames from here say how a module was looked for; users want to see what went wrong inside it.
_MACHINERY = ("<frozen importlib", os.path.dirname(importlib.__file__) + os.sep, os.path.dirname(__file__) + os.sep)
_TRACE_FRAMES = 3


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a module could not be imported: the error in one line, and the last lines of its traceback."""

    summary: str
    trace: str

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        frames = [
            frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(_MACHINERY)
        ]
        ending = traceback.format_exception_only(error)
        # A syntax error begins with its place, indented; notes follow the message.
        summary = next((line for line in ending if not line.startswith(" ")), ending[-1])
        trace = "".join(traceback.format_list(frames[-_TRACE_FRAMES:]) + ending)
        # A worker has to tell its supervisor.
        return cls(mend(as_written(summary.splitlines()[0])), mend(as_written(trace.rstrip())))


class Scripts(MetaPathFinder):
    """The `scripts/` folder of one project, importable until `close()`.

    A file is executed once, also when that fails: `failures` keeps the reason by module name, and
    later imports raise ImportError with it rather than execute the file again.
    """

    def __init__(self, root: Path, failures: MutableMapping[str, Failure]) -> None:
        self.folder = Path(os.path.realpath(root / FOLDER))
        # While this finder is on sys.meta_path, no other object can have its id.
        self.package = f"{PACKAGE}{id(self):x}"
        self._failures = failures
        sys.meta_path.insert(0, self)

    def close(self) -> None:
        """Forget the folder and its modules; functions taken from them stay good but can import no more of them."""
        if self in sys.meta_path:
            sys.meta_path.remove(self)
        for name in [name for name in sys.modules if name.partition(".")[0] == self.package]:
            sys.modules.pop(name, None)

    def module_name(self, parts: Sequence[str]) -> str:
        """The name under which Python knows the module that is called `scripts.<parts>`."""
        return ".".join((self.package, *parts))

    def label(self, place: Path) -> str:
        """A file or folder as users see it: `scripts/media/video.py`, `scripts/media/`."""
        inside = place.relative_to(self.folder).parts
        return "/".join((FOLDER, *inside)) + ("" if place.suffix == ".py" else "/")

    def locate(self, parts: Sequence[str]) -> Path:
        """The file of the module `scripts.<parts>`, or the folder where it is one without an `__init__.py`.

        Raises HandlerNotFound where there is none, where it is a link that leads out of `scripts/`, and where the
        system does not let us look.
        """
        try:
            return self._locate(parts)
        except OSError as error:
            raise HandlerNotFound(f"{'.'.join((FOLDER, *parts))} cannot be looked for: {error.strerror}") from error

    def _locate(self, parts: Sequence[str]) -> Path:
        if not self.folder.is_dir():
            raise HandlerNotFound(f"there is no folder {FOLDER}/ in {self.folder.parent}")
        place = _package(self.folder) or self.folder
        for part in parts:
            folder = place if place.is_dir() else place.parent
            if place.is_file() and place.name != _INIT:
                raise HandlerNotFound(f'{self.label(place)} is a file: there can be no "{part}" below it')
            found = _entry(folder, part)
            if found is None:
                raise HandlerNotFound(self._no_such(folder, part))
            place = found
        if not place.resolve().is_relative_to(self.folder):
            raise HandlerNotFound(f"{self.label(place)} is a link that leads out of {FOLDER}/")
        return place

    def find(self, parts: Sequence[str]) -> Path | None:
        """What `locate` finds, or None."""
        try:
            return self.locate(parts)
        except HandlerNotFound:
            return None

    def _no_such(self, folder: Path, name: str) -> str:
        known = {entry.removesuffix(".py") for entry in _listed(folder) if not entry.startswith((".", "_"))}
        meant = nearest(name, known)
        hint = _entry(folder, meant) if meant else None
        missing = f"there is no {self.label(folder / f'{name}.py')}"
        return f'{missing}; did you mean "{self.label(hint)}"?' if hint else missing

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None, /
    ) -> ModuleSpec | None:
        """What Python's import asks first of all; None for names that are not in our package."""
        package, *parts = fullname.split(".")
        if package != self.package:
            return None
        try:
            place = self.locate(parts)
        except HandlerNotFound as missing:
            # Not None: the finders after us would look for it in ways that we have ruled out.
            raise ModuleNotFoundError(str(missing), name=fullname) from None
        if place.is_dir():
            spec = ModuleSpec(fullname, None, is_package=True)
            spec.submodule_search_locations = [str(place)]
            return spec
        within = [str(place.parent)] if place.name == _INIT else None
        loader = _Loader(fullname, str(place), self.package, self._failures)
        return spec_from_file_location(fullname, place, loader=loader, submodule_search_locations=within)


def _entry(folder: Path, name: str) -> Path | None:
    """What a module of this name is in a folder, in Python's order: a package, a file, a plain folder; or None."""
    # Compared with what the folder lists, so that capitals count on every system.
    listed = _listed(folder)
    if name in listed and (package := _package(folder / name)):
        return package
    if f"{name}.py" in listed and (folder / f"{name}.py").is_file():
        return folder / f"{name}.py"
    return folder / name if name in listed and (folder / name).is_dir() else None


def _package(folder: Path) -> Path | None:
    return folder / _INIT if (folder / _INIT).is_file() else None


def _listed(folder: Path) -> set[str]:
    return set(os.listdir(folder))


class _Loader(SourceFileLoader):
    """Executes one file, once, with `scripts` in its imports read as our package."""

    def __init__(self, fullname: str, path: str, package: str, failures: MutableMapping[str, Failure]) -> None:
        super().__init__(fullname, path)
        self._package = package
        self._failures = failures

    def exec_module(self, module: ModuleType) -> None:
        # Python holds this module's import lock around us, so that two threads cannot both be first.
        name = module.__name__
        if known := self._failures.get(name):
            raise ImportError(f"{as_written(name)} failed before: {known.summary}", name=name, path=self.path)
        try:
            super().exec_module(module)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            self._failures[name] = Failure.of(error)
            raise

    def get_code(self, fullname: str) -> CodeType:
        # Past __pycache__, which is for ordinary imports of the same file: those mean another `scripts`.
        tree = _OwnPackage(self._package).visit(ast.parse(self.get_data(self.path), self.path))
        return compile(ast.fix_missing_locations(tree), self.path, "exec", dont_inherit=True)


class _OwnPackage(ast.NodeTransformer):
    """Puts our package in the place of `scripts` in import statements, wherever in a file they stand."""

    def __init__(self, package: str) -> None:
        self._package = package

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.ImportFrom:
        if node.level == 0 and node.module is not None:
            node.module = self._renamed(node.module)
        return node

    def visit_Import(self, node: ast.Import) -> ast.Import:
        node.names = [renamed for alias in node.names for renamed in self._aliases(alias)]
        return node

    def _aliases(self, alias: ast.alias) -> list[ast.alias]:
        name = self._renamed(alias.name)
        if name == alias.name or alias.asname is not None:
            return [ast.alias(name, alias.asname)]
        # `import scripts.mail` imports the file and binds `scripts`: once to the file, then for good to the package.
        return [ast.alias(name, FOLDER), ast.alias(self._package, FOLDER)]

    def _renamed(self, name: str) -> str:
        first, dot, rest = name.partition(".")
        return f"{self._package}{dot}{rest}" if first == FOLDER else name
