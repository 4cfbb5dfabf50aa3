"""References to environment variables inside the values of a file."""

from __future__ import annotations

import re
from collections.abc import Mapping

_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
_WHOLE = re.compile(rf"\$ENV\.({_NAME})")
_REFERENCE = re.compile(rf"\$(\$\{{)|\$\{{({_NAME})(?:(:-|:\?)([^{{}}]*))?\}}|\$\{{")


def expand(text: str, environ: Mapping[str, str]) -> tuple[str, bool]:
    """The text with its references replaced, and whether any part came from the environment.

    `${NAME}` must be set; `${NAME:-default}` and `${NAME:?message}` take an empty variable for one
    that is not set, as shells do; `$${` is a literal `${`; `$ENV.NAME` counts as a whole value
    only. ValueError says which variable is missing, or how a reference is written.
    """
    if whole := _WHOLE.fullmatch(text):
        return _variable(environ, whole[1], None, ""), True
    if "${" not in text:
        return text, False
    used = False

    def replace(match: re.Match[str]) -> str:
        nonlocal used
        literal, name, operator, rest = match.groups()
        if literal:
            return "${"
        if not name:
            raise ValueError(
                "has a reference that is not ${NAME}, ${NAME:-default} or ${NAME:?message}; $${ is a literal ${"
            )
        used = used or bool(environ.get(name)) or operator != ":-"
        return _variable(environ, name, operator, rest)

    return _REFERENCE.sub(replace, text), used


def _variable(environ: Mapping[str, str], name: str, operator: str | None, rest: str) -> str:
    value = environ.get(name)
    match operator:
        case ":-":
            return value or rest
        case ":?" if not value:
            raise ValueError(f"needs the environment variable {name}: {rest or 'it is not set'}")
    if value is None:
        raise ValueError(
            f"needs the environment variable {name}, which is not set; or give a default: ${{{name}:-...}}"
        )
    return value
