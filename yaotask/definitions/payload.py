"""Checks a job's payload by the `input` schema of its definition."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from yaotask.errors import InvalidPayload
from yaotask.jsoncheck import show_path


def validator(schema: Mapping[str, Any], *, path: str = "$") -> Callable[[Mapping[str, Any]], None]:
    """A function that raises InvalidPayload, with the path of what is wrong, for a payload the schema refuses.

    `path` is what the payload itself is called in messages. No reference is ever fetched.
    """
    # jsonschema costs a tenth of a second, which only tasks with an `input` shall pay.
    from yaotask.definitions.validation import payload_check  # noqa: PLC0415

    check = payload_check(schema)

    def validate(payload: Mapping[str, Any]) -> None:
        try:
            fault = check(payload)
        except RecursionError:
            raise InvalidPayload("cannot be checked: the `input` schema refers to itself without end", path) from None
        if fault is not None:
            where, message = fault
            raise InvalidPayload(message, path + show_path(where))

    return validate
