"""JSON Schema in words: our own schemas, the users' schemas of payloads, and the payloads."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from yaotask.definitions.payload import validator
from yaotask.definitions.schema import DEFAULTS, TASK
from yaotask.definitions.validation import faults, schema_faults
from yaotask.errors import InvalidPayload

GOOD = {"name": "Mail", "process": "scripts.mail.Send"}

# Keys that exist and one that does not, with values that are right, nearly right and wrong.
KEYS = st.sampled_from([*TASK["properties"], "nmae", "x-mine"])
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([0.5, 2**40, "", "2s", "low", "fixed", "scripts.mail.Send", "async", ["OSError"], [1], {}]),
    st.fixed_dictionaries({}, optional={"add": st.just("a.b"), "max": st.just("1s"), "odd": st.just(1)}),
)


# --- our own schemas ---------------------------------------------------------------------------------


@given(st.dictionaries(KEYS, VALUES, max_size=6))
def test_what_an_editor_would_mark_is_a_fault_and_nothing_else_is(keys: dict[str, Any]) -> None:
    tree = {**GOOD, **keys}

    assert bool(list(faults(TASK, tree))) == (not Draft202012Validator(TASK).is_valid(tree))


@pytest.mark.parametrize("value", [1.0, True, "1"])
def test_only_integers_are_integers(value: object) -> None:
    (fault,) = faults(TASK, {**GOOD, "size": value})

    assert (fault.path, fault.message, fault.bad) == (("size",), "must be an integer", True)


def test_a_fault_about_a_key_is_at_the_key_and_has_no_value() -> None:
    (fault,) = faults(TASK, {**GOOD, "sise": 1})

    assert (str(fault.path), fault.bad) == ("('sise', KEY)", False)


def test_a_missing_key_is_named_once_with_an_example() -> None:
    found = [(fault.name, fault.path, fault.message) for fault in faults(TASK, {})]

    assert found == [
        ("name", (), "is missing; add it, as in name: Send mail"),
        ("process", (), "is missing; add it, as in process: scripts.mail.Send"),
    ]


def test_defaults_need_nothing_and_take_no_key_of_a_single_task() -> None:
    assert list(faults(DEFAULTS, {})) == []
    assert {fault.path[0] for fault in faults(DEFAULTS, {**GOOD, "input": {}, "$schema": "x"})} == {
        *("name", "process", "input", "$schema")
    }


# --- users' schemas ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "object", "properties": {"to": {"type": "string", "format": "email"}}},
        {"$schema": "https://json-schema.org/draft/2020-12/schema"},
        {"$schema": "https://json-schema.org/draft/2020-12/schema#"},
        {"$ref": "#/$defs/a", "$defs": {"a": {"type": "object"}}},
        {"properties": {"$ref": {"type": "string"}}},
        {"$ref": "#here", "$defs": {"a": {"$anchor": "here"}}},
        {"allOf": [{"$ref": "#"}]},
    ],
)
def test_a_good_schema_has_no_fault(schema: dict[str, Any]) -> None:
    assert list(schema_faults(schema)) == []


@pytest.mark.parametrize(
    ("schema", "path", "said"),
    [
        ({"type": "strin"}, ("type",), 'did you mean "string"?'),
        ({"properties": {"a": {"minimum": "1"}}}, ("properties", "a", "minimum"), "must be a number"),
        ({"required": "to"}, ("required",), "must be a list"),
        ({"properties": {"a": 5}}, ("properties", "a"), "must be a mapping or true or false"),
        ({"pattern": "("}, ("pattern",), "is not a regular expression"),
        ({"$schema": "http://json-schema.org/draft-07/schema#"}, ("$schema",), "or be left out"),
        ({"$schema": 5}, ("$schema",), "or be left out"),
        ({"$ref": "#/$defs/none"}, ("$ref",), "leads nowhere"),
        ({"$ref": "https://example.com/schema.json"}, ("$ref",), "leads nowhere"),
        ({"$ref": "file:///etc/passwd"}, ("$ref",), "leads nowhere"),
        ({"$dynamicRef": "https://example.com/a"}, ("$dynamicRef",), "leads nowhere"),
        ({"items": {"$ref": "other.json#/a"}}, ("items", "$ref"), "leads nowhere"),
        ({"$ref": "#/title", "title": "abc"}, ("$ref",), "leads nowhere"),
        ({"$ref": "#/allOf/x", "allOf": [{}]}, ("$ref",), "leads nowhere"),
        ({"$ref": "#/minProperties/x", "minProperties": 1}, ("$ref",), "leads nowhere"),
        ({"properties": {"default": {"$ref": "#/none"}}}, ("properties", "default", "$ref"), "leads nowhere"),
        (
            {"properties": {"a": {"$ref": "#/properties/b/const"}, "b": {"const": {"type": "nonsense"}}}},
            ("properties", "a", "$ref"),
            "leads nowhere",
        ),
        ({"definitions": {"default": {"$ref": "#/none"}}}, ("definitions", "default", "$ref"), "leads nowhere"),
        ({"pattern": "a{99999999999}"}, ("pattern",), "is not a regular expression"),
        ({"pattern": "(" * 6_000 + ")" * 6_000}, ("pattern",), "is not a regular expression"),
    ],
)
def test_a_bad_schema_is_told_at_its_place(schema: dict[str, Any], path: tuple[str, ...], said: str) -> None:
    (fault,) = schema_faults(schema)

    assert fault.path == path
    assert said in fault.message


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"a": {"const": {"$ref": "nowhere"}, "default": {"$ref": "nowhere"}}}},
        {"$id": "https://example.com/", "properties": {"a": {"$ref": "b"}}, "$defs": {"b": {"$id": "b"}}},
    ],
)
def test_what_is_no_reference_or_stays_within_is_no_fault(schema: dict[str, Any]) -> None:
    assert list(schema_faults(schema)) == []


# --- payloads ----------------------------------------------------------------------------------------

ADDRESS = {
    "type": "object",
    "required": ["to", "subject"],
    "additionalProperties": False,
    "properties": {
        "to": {"type": "string", "format": "ipv4"},
        "subject": {"type": "string", "maxLength": 5},
        "copies": {"type": "array", "items": {"type": "integer", "minimum": 1}},
        "kind": {"enum": ["letter", 7]},
        "odd name": {"const": 1},
    },
    "patternProperties": {"^x-": True},
}


@pytest.mark.parametrize(
    "more", [{}, {"copies": [1, 2]}, {"kind": 7}, {"kind": "letter"}, {"x-any": []}, {"copies": [1.0]}]
)
def test_a_payload_that_fits_passes(more: dict[str, Any]) -> None:
    validator(ADDRESS)({"to": "127.0.0.1", "subject": "hi", **more})


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        ({}, '$: lacks "to" and "subject"'),
        ({"to": 5, "subject": ""}, "$.to: must be text"),
        ({"to": "nowhere", "subject": ""}, '$.to: must fit format: "ipv4"'),
        ({"to": "127.0.0.1", "subject": "secret"}, "$.subject: must be at most 5 characters long"),
        ({"to": "127.0.0.1", "subject": "", "copies": [1, 0]}, "$.copies[1]: must be at least 1"),
        ({"to": "127.0.0.1", "subject": "", "kind": "leter"}, '$.kind: must be "letter" or 7'),
        ({"to": "127.0.0.1", "subject": "", "odd name": 2}, '$["odd name"]: must be 1'),
        (
            {"to": "127.0.0.1", "subject": "", "subjct": ""},
            '$: has an unknown member "subjct"; did you mean "subject"?',
        ),
    ],
)
def test_a_payload_that_does_not_fit_is_refused_with_its_path(payload: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidPayload) as caught:
        validator(ADDRESS)(payload)

    assert str(caught.value) == said


def test_a_path_can_begin_elsewhere() -> None:
    with pytest.raises(InvalidPayload) as caught:
        validator({"properties": {"n": {"type": "integer"}}}, path="$.payload")({"n": "x"})

    assert caught.value.path == "$.payload.n"


@pytest.mark.parametrize("rule", [{"enum": ["a"]}, {"type": "null"}, {"pattern": "^a"}, {"not": {}}])
def test_the_value_of_a_payload_is_never_told(rule: dict[str, Any]) -> None:
    with pytest.raises(InvalidPayload) as caught:
        validator({"properties": {"key": rule}})({"key": "hunter2"})

    assert "hunter2" not in str(caught.value)


def test_a_schema_that_refers_to_itself_without_end_refuses_the_payload() -> None:
    with pytest.raises(InvalidPayload, match="refers to itself without end"):
        validator({"allOf": [{"$ref": "#"}]})({})


def test_a_reference_that_is_found_to_lead_nowhere_refuses_the_payload() -> None:
    schema = {"$defs": {"a": {}}, "properties": {"a": {"$id": "https://example.com/", "$ref": "#/$defs/a"}}}

    assert list(schema_faults(schema)) == []
    with pytest.raises(InvalidPayload, match="a reference in the `input` schema leads nowhere"):
        validator(schema)({"a": 1})


def test_a_long_schema_makes_no_long_message() -> None:
    with pytest.raises(InvalidPayload) as caught:
        validator({"properties": {"a": {"not": {"enum": list(range(1000))}}}})({"a": 1})

    assert len(json.dumps(str(caught.value))) < 200


@pytest.mark.parametrize(
    ("schema", "payload", "said"),
    [
        ({"properties": {"p": {"format": "regex"}}}, {"p": "a{99999999999}"}, "format"),
        ({"properties": {"p": False}}, {"p": 1}, "must not be there"),
    ],
)
def test_odd_schemas_and_payloads_are_refused_in_words(
    schema: dict[str, Any], payload: dict[str, Any], said: str
) -> None:
    with pytest.raises(InvalidPayload, match=said):
        validator(schema)(payload)
