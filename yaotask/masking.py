"""Arguments that nobody shall see: named by `sensitive` in the definition of their task."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from inspect import Parameter
from typing import Any

from yaotask.signatures import Parameters

MASK = "***"
# Shorter texts would be found by chance in messages that say nothing.
SHORTEST_FOUND = 4


def positions(sensitive: Collection[str], parameters: Parameters | None, count: int) -> set[int]:
    """Which of so many positional arguments are sensitive; all of them where the handler is not known here."""
    if parameters is None or parameters.signature is None:
        return set(range(count))
    # The first parameter is the job's id.
    names = list(parameters.signature.parameters.values())
    rest = next((one for one in names if one.kind is Parameter.VAR_POSITIONAL), None)
    plain = [one.name for one in names if one.kind in (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)][1:]
    return {
        index
        for index in range(count)
        if (plain[index] if index < len(plain) else rest.name if rest is not None else "") in sensitive
    }


def args(values: Sequence[Any], sensitive: Collection[str], parameters: Parameters | None) -> list[Any]:
    """The positional arguments, the sensitive ones masked."""
    hidden = positions(sensitive, parameters, len(values))
    return [MASK if index in hidden else members(value, sensitive) for index, value in enumerate(values)]


def members(value: Any, sensitive: Collection[str]) -> Any:
    """A payload or a value inside one: members with a sensitive name are masked, however deep they are."""
    if isinstance(value, Mapping):
        return {key: MASK if key in sensitive else members(inner, sensitive) for key, inner in value.items()}
    if isinstance(value, list):
        return [members(inner, sensitive) for inner in value]
    return value


def in_text(
    text: str, given: Sequence[Any], payload: Mapping[str, Any], hidden: Collection[str], parameters: Parameters
) -> str:
    """A message or traceback without the sensitive values of its job."""
    secrets = [given[index] for index in positions(hidden, parameters, len(given))]
    secrets += _named(payload, hidden)
    for secret in sorted(filter(_is_findable, map(str, secrets)), key=len, reverse=True):
        text = text.replace(secret, MASK)
    return text


def _named(value: Any, names: Collection[str]) -> list[Any]:
    if isinstance(value, Mapping):
        found = [inner for key, inner in value.items() if key in names and not isinstance(inner, Mapping | list)]
        return found + [one for inner in value.values() for one in _named(inner, names)]
    if isinstance(value, list):
        return [one for inner in value for one in _named(inner, names)]
    return []


def _is_findable(text: str) -> bool:
    return len(text) >= SHORTEST_FOUND
