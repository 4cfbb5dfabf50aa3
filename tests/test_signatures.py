"""Which calls a handler's signature takes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest

from yaotask.signatures import Parameters


def id_only(task_id: int) -> None: ...
def seed(task_id: int, *args: Any, **payload: Any) -> None: ...
def no_id(subject: str) -> None: ...
def named(task_id: int, to: str, *, subject: str = "") -> None: ...
def whole(task_id: int, payload: dict[str, Any]) -> None: ...
def whole_by_name(task_id: int, *args: Any, payload: dict[str, Any] | None = None) -> None: ...
def rest(task_id: int, *payload: Any) -> None: ...


@pytest.mark.parametrize(
    ("function", "positional", "names"),
    [
        (id_only, 1, []),
        (seed, 1, []),
        (seed, 5, ["to", "subject", "not a name"]),
        (named, 2, []),
        (named, 1, ["to"]),
        (named, 2, ["subject"]),
        (whole, 1, []),
        (whole, 1, ["to", "subject"]),
        (whole, 2, []),
        (whole_by_name, 3, ["to"]),
        (rest, 4, []),
        (print, 3, []),
        (dict.fromkeys, 1, []),
    ],
)
def test_a_call_that_fits(function: Callable[..., Any], positional: int, names: list[str]) -> None:
    assert Parameters.of(function).misfit(positional, names) is None


@pytest.mark.parametrize(
    ("function", "positional", "names", "why"),
    [
        (id_only, 2, [], "too many positional arguments; the handler takes (task_id: 'int') -> 'None'"),
        (no_id, 2, [], "the handler takes (subject: 'str') -> 'None', and is given the job's id first"),
        (id_only, 1, ["to"], "got an unexpected keyword argument 'to'"),
        (seed, 1, ["task_id"], "multiple values for argument 'task_id'"),
        (named, 1, [], "missing a required argument: 'to'"),
        (named, 2, ["to"], "multiple values for argument 'to'"),
        (whole, 2, ["to"], "multiple values for argument 'payload'"),
        (rest, 1, ["to"], "got an unexpected keyword argument 'to'"),
    ],
)
def test_a_call_that_does_not_fit_says_why(
    function: Callable[..., Any], positional: int, names: list[str], why: str
) -> None:
    assert why in str(Parameters.of(function).misfit(positional, names))


def test_a_parameter_called_payload_gets_the_whole() -> None:
    payload = {"to": "me", "subject": "hello"}

    assert Parameters.of(named).keywords(1, payload) == payload
    assert Parameters.of(seed).keywords(1, payload) == payload
    assert Parameters.of(whole).keywords(1, payload) == {"payload": payload}
    assert Parameters.of(whole).keywords(1, {}) == {"payload": {}}
    assert Parameters.of(whole_by_name).keywords(3, payload) == {"payload": payload}


def test_an_argument_that_comes_to_payload_by_position_stays_there() -> None:
    assert Parameters.of(whole).keywords(2, {}) == {}


def test_a_signature_that_cannot_be_read_is_taken_to_fit() -> None:
    class Opaque:
        __signature__ = "not one"

        def __call__(self, *args: Any) -> None: ...

    assert Parameters.of(Opaque()).misfit(9, ["anything"]) is None


def test_what_a_decorator_gives_need_not_be_given() -> None:
    def with_session(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(task_id: int, *args: Any, **named: Any) -> Any:
            return function(task_id, *args, session=1, **named)

        return call

    @with_session
    def send(task_id: int, payload: dict[str, Any], *, session: int) -> None: ...

    parameters = Parameters.of(send)

    assert parameters.misfit(2, []) is None
    assert parameters.keywords(1, {"to": "me"}) == {"payload": {"to": "me"}}
    assert "missing a required argument: 'task_id'" in str(parameters.misfit(0, []))


def test_what_is_cached_keeps_its_parameters() -> None:
    @functools.cache
    def send(task_id: int, payload: str) -> None: ...

    parameters = Parameters.of(send)

    assert parameters.keywords(1, {"to": "me"}) == {"payload": {"to": "me"}}
    assert "too many positional" in str(parameters.misfit(5, []))
