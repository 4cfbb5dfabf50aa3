"""What an add may say about its job besides the arguments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeGuard

from yaotask import durations
from yaotask.clock import MILLISECOND, Clock, microseconds
from yaotask.definitions.schema import PRIORITIES
from yaotask.errors import InvalidPayload, UnknownName
from yaotask.jsoncheck import mend
from yaotask.suggest import did_you_mean

if TYPE_CHECKING:
    from sqlalchemy import Connection

LARGEST = 2**31 - 1
LONGEST_TEXT = 255


@dataclass(frozen=True, slots=True)
class Options:
    """Checked options; None where the definition, or nothing, counts.

    `timeout` is milliseconds, `delay` microseconds from the add, `run_at` microseconds since 1970.
    """

    key: str | None = None
    priority: int | None = None
    attempts: int | None = None
    timeout: int | None = None
    delay: int | None = None
    run_at: int | None = None
    created_by: str | None = None
    connection: Connection | None = None

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Options:
        """Options as users give them; None is an option that was not given.

        Raises UnknownName for one that does not exist, InvalidPayload for a value at fault.
        """
        given = {name: value for name, value in given.items() if value is not None}
        for name in given:
            if name not in NAMES:
                raise UnknownName(
                    f'there is no option "{name}"{did_you_mean(name, NAMES)}; known are {", ".join(NAMES)}'
                )
        return cls(
            key=_text(given, "key"),
            priority=_priority(given.get("priority")),
            attempts=_attempts(given.get("attempts")),
            timeout=_timeout(given.get("timeout")),
            delay=_delay(given),
            run_at=moment(given["run_at"], "run_at") if "run_at" in given else None,
            created_by=_text(given, "created_by"),
            connection=given.get("connection"),
        )

    def but(self, given: Mapping[str, Any]) -> Options:
        """These options with others in place of some. Raises as `of`."""
        new = Options.of(given)
        changes = {field.name: getattr(new, field.name) for field in fields(new)}
        changes = {name: value for name, value in changes.items() if value is not None}
        if "delay" in changes or "run_at" in changes:
            changes = {"delay": None, "run_at": None, **changes}
        return replace(self, **changes)

    def ready_at(self, clock: Clock) -> int | None:
        """When a job that is added now may run, in microseconds; None means at once."""
        return self.run_at if self.delay is None else clock.now() + self.delay


NAMES = tuple(field.name for field in fields(Options))


def _text(given: Mapping[str, Any], name: str) -> str | None:
    value = given.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or not 0 < len(value) <= LONGEST_TEXT or mend(value) != value:
        raise InvalidPayload(f"must be text of 1 to {LONGEST_TEXT} characters", f"$.{name}")
    return value


def _priority(value: Any) -> int | None:
    if isinstance(value, str):
        try:
            value = PRIORITIES.get(value) if value in PRIORITIES else int(value)
        except ValueError:
            value = "?"
    if value is None or _is_integer(value, -LARGEST):
        return value
    raise InvalidPayload("must be an integer, or low, normal or high", "$.priority")


def _attempts(value: Any) -> int | None:
    if value is None or _is_integer(value, 0):
        return value
    raise InvalidPayload("must be an integer, at least 0: how many retries the job may have", "$.attempts")


def _is_integer(value: Any, least: int) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= LARGEST


def _timeout(value: Any) -> int | None:
    if value is None:
        return None
    timeout = _milliseconds(value, "timeout")
    if timeout < 1:
        raise InvalidPayload("must be longer than nothing", "$.timeout")
    return timeout


def _delay(given: Mapping[str, Any]) -> int | None:
    if "delay" not in given:
        return None
    if "run_at" in given:
        raise InvalidPayload("give either delay or run_at", "$.delay")
    return _milliseconds(given["delay"], "delay") * MILLISECOND


def _milliseconds(value: Any, name: str) -> int:
    try:
        if isinstance(value, timedelta):
            return durations.milliseconds(value.total_seconds(), unit="s")
        return durations.milliseconds(_number(value), unit="s")
    except ValueError as error:
        raise InvalidPayload(str(error), f"$.{name}") from None


def _number(value: Any) -> Any:
    """Text that is a bare number counts as seconds, as it does on a command line."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def moment(value: Any, name: str) -> int:
    """An instant that a user gave, in microseconds: a datetime with a time zone, or RFC 3339 text.

    Raises InvalidPayload.
    """
    try:
        return microseconds(_datetime(value))
    except ValueError as error:
        raise InvalidPayload(f"must be a time such as 2026-11-22T08:00:00Z: {error}", f"$.{name}") from None


def _datetime(value: Any) -> datetime:
    if isinstance(value, datetime):
        return value
    try:
        # RFC 3339 takes small letters too.
        return datetime.fromisoformat(value.upper())
    except (AttributeError, TypeError, ValueError):
        raise ValueError(f"not {value!r}") from None
