"""Arguments that nobody shall see: named by `sensitive` in the definition of their task."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import reduce
from inspect import Parameter, Signature
from typing import Any

from yaotask.signatures import Parameters

MASK = "***"
# Shorter texts are found by chance inside of words, so they are looked for as words of their own.
SHORTEST_FOUND = 4
# So few are looked for one by one first, since most are not there.
FEW = 100
# All texts of such a length that could be one, though they overlap.
_WORDS = {length: re.compile(rf"(?s)(?<!\w)(?=(.{{{length}}})(?!\w))") for length in range(1, SHORTEST_FOUND)}


def positions(sensitive: Collection[str], parameters: Parameters | None, count: int) -> set[int]:
    """Which of so many positional arguments are sensitive; all of them where the handler is not known here."""
    if parameters is None or parameters.signature is None:
        return set(range(count))
    names, rest = _by_position(parameters.signature)
    hidden = {index for index in range(count) if (names[index] if index < len(names) else rest) in sensitive}
    if parameters.called in (None, parameters.signature) or not sensitive:
        return hidden
    # A decorator may move what it gets, to which place nobody can say.
    taken, _ = _by_position(parameters.called)
    return hidden | {index for index in range(count) if index >= len(taken) or taken[index] in sensitive}


def _by_position(signature: Signature) -> tuple[list[str], str]:
    """The parameters that arguments come to, after the first, which is the job's id; and that for all others, or ""."""
    known = list(signature.parameters.values())
    rest = next((one.name for one in known if one.kind is Parameter.VAR_POSITIONAL), "")
    plain = [one.name for one in known if one.kind in (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)]
    return plain[1:], rest


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


def everything(values: Sequence[Any], payload: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """Arguments and payload of a job of which nobody can say here what is sensitive."""
    return [MASK] * len(values), dict.fromkeys(payload, MASK)


def hider(
    given: Sequence[Any], payload: Mapping[str, Any], sensitive: Collection[str], parameters: Parameters | None
) -> Callable[[str], str]:
    """A function that masks the sensitive values of a job in a text, as they are or as Python and JSON quote them.

    It knows them as they are now: a handler may change what it was given.
    """
    hidden = positions(sensitive, parameters, len(given))
    secrets = [leaf for index in hidden for leaf in _leaves(given[index])]
    secrets += [leaf for value in (*given, payload) for leaf in _named(value, sensitive)]
    spelled = {spelling for secret in secrets for spelling in _spellings(secret)}
    short = {spelling for spelling in spelled if len(spelling) < SHORTEST_FOUND}
    long = sorted(spelled - short, key=len, reverse=True)
    return lambda text: _without_words(reduce(_without, long, text), short)


def _named(value: Any, names: Collection[str]) -> list[Any]:
    """All that stands under a sensitive name, however deep it is."""
    if isinstance(value, Mapping):
        return [
            leaf for key, inner in value.items() for leaf in (_leaves(inner) if key in names else _named(inner, names))
        ]
    return [leaf for inner in value for leaf in _named(inner, names)] if isinstance(value, list | tuple) else []


def _leaves(value: Any) -> list[Any]:
    if isinstance(value, Mapping):
        return [leaf for inner in value.values() for leaf in _leaves(inner)]
    return [leaf for inner in value for leaf in _leaves(inner)] if isinstance(value, list | tuple) else [value]


def _spellings(secret: Any) -> set[str]:
    if secret is None or isinstance(secret, bool):
        return set()
    if not isinstance(secret, str):
        return {str(secret)}
    quoted = (repr(secret), ascii(secret), json.dumps(secret), json.dumps(secret, ensure_ascii=False))
    return {secret, *(text[1:-1] for text in quoted)} if secret else set()


def _without(text: str, secret: str) -> str:
    return text.replace(secret, MASK)


def _without_words(text: str, secrets: Collection[str]) -> str:
    """Mask those that stand as words of their own, the longer ones first; many cost no more than one."""
    if len(secrets) <= FEW:
        secrets = [secret for secret in secrets if secret in text]
    for length in sorted(set(map(len, secrets)), reverse=True):
        told, end = "", 0
        for found in _WORDS[length].finditer(text):
            if found[1] in secrets and found.start() >= end:
                told += text[end : found.start()] + MASK
                end = found.start() + length
        text = told + text[end:]
    return text
