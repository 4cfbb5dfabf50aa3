"""JSON Schema at work: what is wrong with a value, in words for people.

Importing jsonschema takes a tenth of a second, so this module is imported where the first value has
to be checked, not before.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from jsonschema import Draft202012Validator, FormatChecker
from jsonschema.exceptions import best_match
from jsonschema.validators import extend
from referencing import Registry
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

from yaotask.definitions.fault import Fault
from yaotask.definitions.schema import DIALECT
from yaotask.marks import KEY, Path
from yaotask.suggest import did_you_mean

# A ValidationError. Its type admits fields that are unset, which those of a validator never are.
_Error = Any

_ARTICLES = {
    "array": "a list",
    "boolean": "true or false",
    "integer": "an integer",
    "null": "null",
    "number": "a number",
    "object": "a mapping",
    "string": "text",
}
_BOUNDS = {
    "minimum": "at least",
    "maximum": "at most",
    "exclusiveMinimum": "more than",
    "exclusiveMaximum": "less than",
}


_FORMATS = FormatChecker()
_FORMATS.checkers = dict(Draft202012Validator.FORMAT_CHECKER.checkers)


@_FORMATS.checks("regex", raises=(re.error, OverflowError, RecursionError))
def _is_regex(value: object) -> bool:
    """Jsonschema's own lets through what Python refuses in other ways than with `re.error`."""
    return not isinstance(value, str) or bool(re.compile(value))


# Definitions are strict where JSON Schema is not: 1.0 is no integer.
_Strict = extend(  # type: ignore[no-untyped-call]
    Draft202012Validator,
    type_checker=Draft202012Validator.TYPE_CHECKER.redefine(
        "integer", lambda _, value: isinstance(value, int) and not isinstance(value, bool)
    ),
)


def faults(schema: Mapping[str, Any], value: Any) -> Iterator[Fault]:
    """Everything that is wrong with a value by one of yaotask's own schemas."""
    seen = set()
    for error in _Strict(schema, registry=Registry()).iter_errors(value):
        for fault in _faults(error):
            if fault not in seen:
                seen.add(fault)
                yield fault


def _faults(error: _Error) -> Iterator[Fault]:
    path = tuple(error.absolute_path)
    match error.validator:
        case "additionalProperties":
            known = [key for key in error.schema["properties"] if key != "$schema"]
            for key in error.instance:
                if key not in error.schema["properties"] and not key.startswith("x-"):
                    cure = did_you_mean(key, known) or f"; known are {', '.join(known)}"
                    yield Fault((*path, key, KEY), f"unknown key{cure}")
        case "required":
            for key in error.validator_value:
                if key not in error.instance:
                    example = error.schema["properties"][key]["examples"][0]
                    yield Fault(path, f"is missing; add it, as in {key}: {example}", name=key)
        case "uniqueItems":
            yield Fault(path, expected(error))
        case _:
            yield Fault(path, expected(error), bad=True, hint=_hint(error))


def expected(error: _Error) -> str:
    """What a value must be, without the value itself: it may be a secret."""
    own = error.schema.get("errorMessage") if isinstance(error.schema, Mapping) else None
    wanted = error.validator_value
    match error.validator:
        case "type" | "pattern" | "anyOf" | "enum" | "maximum" if isinstance(own, str):
            return own
        case "type":
            kinds = [wanted] if isinstance(wanted, str) else wanted
            return f"must be {' or '.join(_ARTICLES[kind] for kind in kinds)}"
        case "enum":
            return f"must be {' or '.join(_brief(choice) for choice in wanted)}"
        case "const":
            return f"must be {_brief(wanted)}"
        case "minLength" if wanted == 1:
            return "must not be empty"
        case "maxLength":
            return f"must be at most {wanted} characters long"
        case "uniqueItems":
            return "must not hold the same item twice"
        case None:
            return "must not be there"
        case str() as keyword if keyword in _BOUNDS:
            return f"must be {_BOUNDS[keyword]} {wanted}"
        case keyword:
            return f"must fit {keyword}: {_brief(wanted)}"


def _hint(error: _Error) -> str:
    """Which of the words that are allowed was meant."""
    if not isinstance(error.instance, str):
        return ""
    match error.validator:
        case "enum":
            return did_you_mean(error.instance, error.validator_value)
        case "anyOf":
            return did_you_mean(
                error.instance, [word for choice in error.validator_value for word in choice.get("enum", ())]
            )
        case _:
            return ""


def _brief(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else f"{text[:80]}..."


# --- the payload -------------------------------------------------------------------------------------


def schema_faults(schema: Mapping[str, Any]) -> Iterator[Fault]:
    """What is wrong with a schema that a user wrote for the payload."""
    dialect = schema.get("$schema", DIALECT)
    if not isinstance(dialect, str) or dialect.rstrip("#") != DIALECT:
        yield Fault(("$schema",), f"must be {DIALECT}, or be left out")
        return
    # The vocabularies of the meta-schema find some faults several times.
    found = dict.fromkeys(
        Fault(tuple(error.absolute_path), _schema_fault(error)) for error in _META.iter_errors(schema)
    )
    yield from found or _reference_faults(schema)


_META = Draft202012Validator(Draft202012Validator.META_SCHEMA, format_checker=_FORMATS)


def _schema_fault(error: _Error) -> str:
    if error.absolute_path and error.absolute_path[-1] == "type" and isinstance(error.instance, str):
        return f"must be one of {', '.join(_ARTICLES)}{did_you_mean(error.instance, _ARTICLES)}"
    if error.validator == "format" and error.validator_value == "regex":
        return "is not a regular expression"
    return f"is not JSON Schema: {expected(error)}"


def _reference_faults(schema: Mapping[str, Any]) -> Iterator[Fault]:
    """References that lead nowhere; none is ever fetched."""
    resolver = Registry().resolver_with_root(DRAFT202012.create_resource(dict(schema)))
    for path, reference in _references(schema, ()):
        try:
            found = resolver.lookup(reference).contents
        except (Unresolvable, LookupError, TypeError, ValueError):
            # A pointer that goes on below what has no members is refused in words of Python's.
            found = None
        if not isinstance(found, Mapping | bool) or not _META.is_valid(found):
            yield Fault(path, "leads nowhere: a reference must stay within this schema, as in #/$defs/address")


# What is below these is no schema, and below those each member is one, whatever its name.
_DATA = ("const", "enum", "default", "examples")
_NAMED = (("properties",), ("patternProperties",), ("$defs",), ("definitions",), ("dependentSchemas",))


def _references(value: Any, path: Path) -> Iterator[tuple[Path, str]]:
    members = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for key, member in members:
        if key in ("$ref", "$dynamicRef") and isinstance(member, str):
            yield (*path, key), member
        elif key not in _DATA or path[-1:] in _NAMED:
            # Members of `properties` and the like are named by users.
            yield from _references(member, (*path, key))


def payload_check(schema: Mapping[str, Any]) -> Callable[[Any], tuple[tuple[str | int, ...], str] | None]:
    """A function that tells where a payload does not fit a schema, and what was expected there.

    The value is never told: payloads hold secrets.
    """
    validator = Draft202012Validator(schema, registry=Registry(), format_checker=_FORMATS)

    def check(payload: Any) -> tuple[tuple[str | int, ...], str] | None:
        try:
            error: _Error = best_match(validator.iter_errors(payload))
        except Unresolvable:  # below an `$id` of its own, a reference may mean what was not looked up before
            return (), "cannot be checked: a reference in the `input` schema leads nowhere"
        return None if error is None else (tuple(error.absolute_path), _payload_fault(error))

    return check


def _payload_fault(error: _Error) -> str:
    match error.validator:
        case "required":
            missing = [key for key in error.validator_value if key not in error.instance]
            return f"lacks {' and '.join(_brief(key) for key in missing)}"
        case "additionalProperties" if error.validator_value is False:
            known = tuple(error.schema.get("properties", ()))
            patterns = error.schema.get("patternProperties", {})
            odd = [key for key in error.instance if key not in known and not any(re.search(p, key) for p in patterns)]
            return f"has an unknown member {_brief(odd[0])}{did_you_mean(odd[0], known)}"
        case _:
            return expected(error)
