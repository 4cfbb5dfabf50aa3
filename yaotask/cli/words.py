"""The words of a command line as values, in the syntax that Yao's own command line uses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click

from yaotask import values
from yaotask.errors import InvalidPayload


def argument(word: str) -> Any:
    r"""A word is text; `::{"a": 1}` is JSON; `\::x` is the text `::x`."""
    if word.startswith("\\::"):
        return word[1:]
    return json_value(word[2:], "ARGS") if word.startswith("::") else word


def arguments(words: Sequence[str]) -> list[Any]:
    """Every word as its value, in order."""
    return [argument(word) for word in words]


def payload(text: str | None) -> dict[str, Any]:
    """The object that `--payload` gave; none is an empty one."""
    if text is None:
        return {}
    value = json_value(text, "--payload")
    if not isinstance(value, dict):
        raise click.UsageError(
            f'--payload takes a JSON object, as in \'{{"to": "a@example.com"}}\', not {_brief(text)}'
        )
    return value


@contextmanager
def options() -> Iterator[None]:
    """Make a usage error, which names the option, of a value that was refused."""
    try:
        yield
    except InvalidPayload as error:
        option = error.path.removeprefix("$.").replace("_", "-")
        raise click.UsageError(f"--{option}: {_fault(error)}") from None


def json_value(text: str, where: str) -> Any:
    """The JSON value of `text`; a usage error that says `where` it was."""
    try:
        return values.parse(text)
    except InvalidPayload as error:
        raise click.UsageError(f"{where}: {_brief(text)} {_fault(error)}") from None


def _fault(error: InvalidPayload) -> str:
    return str(error).removeprefix(f"{error.path}: ")


def _brief(text: str) -> str:
    if not text:
        return "an empty text"
    return text if len(text) <= 60 else f"{text[:60]}..."
