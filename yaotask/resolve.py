"""From a dotted path in a definition to the function it names.

Paths come from YAML files, whose authors are trusted to run code; nothing that arrives with a job is
ever resolved here. Still a path leads only where its author can see it leads: one file or installed
module, one name in it.
"""

from __future__ import annotations

import importlib
import sys
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from yaotask.errors import HandlerNotFound
from yaotask.scripts import Failure, Scripts
from yaotask.spelling import FOLDER
from yaotask.suggest import did_you_mean

_MISSING = object()


class _Wanted(NamedTuple):
    """What the last name of a path has to be, in words and as a test."""

    article: str
    noun: str
    fits: Callable[[object], bool]


# By their types alone: a proxy, such as Flask's `current_app`, may raise whatever else it is asked.
_FUNCTION = _Wanted("a", "function", lambda found: callable(found) and not issubclass(type(found), (type, ModuleType)))
_EXCEPTION = _Wanted(
    "an",
    "exception class",
    lambda found: issubclass(type(found), type) and isinstance(found, type) and issubclass(found, BaseException),
)


class Resolver:
    """Finds the functions and exception classes that one project's files name.

    `scripts.media.video.Transcode` is the function `Transcode` of `scripts/media/video.py`; any other
    path names something in an installed module, with the project's folder last on `sys.path`.
    Modules are imported once; one that fails to import stays failed for the life of the Resolver.
    Safe to use from many threads.
    """

    def __init__(self, root: Path | str) -> None:
        self._failures: dict[str, Failure] = {}
        self._scripts = Scripts(Path(root), self._failures)
        folder = str(Path(root).resolve())
        if folder not in sys.path:
            sys.path.append(folder)

    def close(self) -> None:
        """Let go of the project's modules. Functions resolved before stay good."""
        self._scripts.close()

    def resolve(self, path: str) -> Callable[..., Any]:
        """The function, or other callable, that `path` names.

        Raises HandlerNotFound: the path is malformed, leads nowhere, leads to a class, a module or a
        value, or its module cannot be imported (`trace` then holds the end of the traceback).
        """
        function: Callable[..., Any] = self._find(path, _FUNCTION)
        return function

    def exception(self, path: str) -> type[BaseException]:
        """The exception class that `path` names; Python's own need no module: `ValueError`.

        Raises HandlerNotFound as `resolve` does.
        """
        exception: type[BaseException] = self._find(path if "." in path else f"builtins.{path}", _EXCEPTION)
        return exception

    def _find(self, path: str, wanted: _Wanted) -> Any:
        parts = _split(path)
        module, label = self._script(parts) if parts[0] == FOLDER else self._installed(parts)
        found = _member(module, parts[-1], label)
        if found is _MISSING:
            raise self._absent(parts, module, label, wanted)
        if not wanted.fits(found):
            raise HandlerNotFound(f"{path} is {_kind(found)}, not {wanted.article} {wanted.noun}")
        return found

    def _script(self, parts: Sequence[str]) -> tuple[ModuleType, str]:
        """The module of `scripts.*` that should hold the last name, and what users call it."""
        above = parts[1:-1]
        label = self._scripts.label(self._scripts.locate(above))
        return self._import(self._scripts.module_name(above), label), label

    def _installed(self, parts: Sequence[str]) -> tuple[ModuleType, str]:
        name = ".".join(parts[:-1])
        return self._import(name, name), name

    def _absent(self, parts: Sequence[str], module: ModuleType, label: str, wanted: _Wanted) -> HandlerNotFound:
        name = parts[-1]
        if parts[0] == FOLDER and (place := self._scripts.find(parts[1:])):
            below = "a file" if place.is_dir() else f"{wanted.article} {wanted.noun}"
            return HandlerNotFound(f"{'.'.join(parts)} is {self._scripts.label(place)}; add the name of {below} in it")
        members = tuple(vars(module).items())
        known = [other for other, value in members if wanted.fits(value) and not other.startswith("_")]
        return HandlerNotFound(f'{label} has no {wanted.noun} "{name}"{did_you_mean(name, known)}')

    def _import(self, name: str, label: str) -> ModuleType:
        if failure := self._failures.get(name):
            raise _broken(label, failure)
        try:
            return importlib.import_module(name)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            if isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}."):
                raise HandlerNotFound(_no_such_module(str(error.name))) from None
            # Where two threads were at it, the loader has noted the reason of the first.
            raise _broken(label, self._failures.setdefault(name, Failure.of(error))) from error


def _split(path: str) -> list[str]:
    """The names of a well-formed path: at least a module and something in it."""
    parts = path.split(".")
    for part in parts:
        if odd := next((sign for sign in part if not sign.isascii()), None):
            raise HandlerNotFound(f'"{path}": {odd!r} is {unicodedata.name(odd, "no letter")}; names are ASCII only')
        if not part.isidentifier():
            raise HandlerNotFound(f'"{path}": {f"{part!r} is not a name" if part else "there is nothing between dots"}')
        if part.startswith("__"):
            raise HandlerNotFound(f'"{path}": names that begin with __ are Python\'s own and cannot be used')
    if len(parts) < 2:
        raise HandlerNotFound(f'"{path}" must name a module and a function in it, as in scripts.mail.Send')
    return parts


def _member(module: ModuleType, name: str, label: str) -> object:
    try:
        return getattr(module, name, _MISSING)
    except Exception as error:  # a module may compute its names, and fail in any way
        raise _broken(f"{name} of {label}", Failure.of(error)) from error


def _kind(found: object) -> str:
    match found:
        case ModuleType():
            return "a module"
        case type():
            return "a class"
        case _ if callable(found):
            return "a function"
        case _:
            return f"a value ({type(found).__name__})"


def _broken(label: str, failure: Failure) -> HandlerNotFound:
    return HandlerNotFound(f"{label} cannot be imported: {failure.summary}", failure.trace)


def _no_such_module(missing: str) -> str:
    above = missing.rpartition(".")[0]
    if above:
        return f'there is no module "{missing}": a path names a module and one thing in it, as in {above}.name'
    return f'there is no module "{missing}"{did_you_mean(missing, [FOLDER])}'
