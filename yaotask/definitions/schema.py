"""The one description of a definition file: the loader checks by it, editors and docs show it.

It is JSON Schema 2020-12. `errorMessage` says what a value must be where the keywords alone would not
tell a person; editors show it too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from yaotask import durations

DIALECT = "https://json-schema.org/draft/2020-12/schema"
FILE = Path(".yaotask") / "task.schema.json"

# Any store keeps integers up to this.
_MOST = 2**31 - 1

_NAME = "(?!__)[A-Za-z_][A-Za-z0-9_]*"
# `$` alone would let a trailing newline through.
_END = r"(?!\n)$"

PRIORITIES = {"low": -10, "normal": 0, "high": 10}

# Seed 002 calls these seven required. Defaults stand in for all but the first two.
SEVEN = ("name", "process", "worker_nums", "attempts", "attempt_after", "timeout", "size")
REQUIRED = ("name", "process")

# What belongs to one task and cannot be a default of all.
_NOT_DEFAULTED = ("$schema", "name", "process", "input")


def _object(properties: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "type": "object",
        **more,
        "properties": dict(properties),
        "patternProperties": {"^x-": {"description": "Yours: yaotask does not look at it."}},
        "additionalProperties": False,
    }


def _integer(title: str, description: str, least: int, default: int) -> dict[str, Any]:
    return {
        "title": title,
        "description": description,
        "type": "integer",
        "minimum": least,
        "maximum": _MOST,
        "default": default,
    }


def _path(title: str, description: str) -> dict[str, Any]:
    return {
        "title": title,
        "description": description,
        "type": "string",
        "pattern": rf"^{_NAME}(?:\.{_NAME})+{_END}",
        "errorMessage": "must be a dotted path of ASCII names such as scripts.mail.Send",
        "examples": ["scripts.mail.Send"],
    }


def _duration(title: str, description: str, unit: durations.Unit, **more: Any) -> dict[str, Any]:
    milliseconds = unit == "ms"
    number = "milliseconds" if milliseconds else "seconds"
    return {
        "title": title,
        "description": description,
        "type": ["integer" if milliseconds else "number", "string"],
        "maximum": durations.LONGEST_MS if milliseconds else durations.LONGEST_MS // 1000,
        "pattern": durations.PATTERN,
        "errorMessage": f'must be {number} (a number) or a duration such as "500ms", "2s" or "1h30m", at most 30 days',
        **more,
    }


def _exceptions(title: str, description: str) -> dict[str, Any]:
    return {
        "title": title,
        "description": description,
        "type": "array",
        "uniqueItems": True,
        "items": {
            "type": "string",
            "pattern": rf"^{_NAME}(?:\.{_NAME})*{_END}",
            "errorMessage": "must name an exception, such as ValueError or scripts.mail.Bounce",
        },
    }


_EVENT = _object(
    {
        "next": _path("Next id", "Called with nothing by every add; the integer it returns is the job's id."),
        "add": _path("Added", "Called with the id once the job is stored."),
        "success": _path("Succeeded", "Called with the id and the response once SUCCESS is stored."),
        "error": _path("Failed", "Called with the id and the error once FAILURE is stored: no retry is left."),
        "progress": _path("Progress", "Called with the id, current, total and message, where progress is reported."),
        "retry": _path("Retry", "Called with the id, the error, the attempt and the wait in ms before each retry."),
        "cancel": _path("Cancelled", "Called with the id once the job is cancelled."),
        "ignore": _path("Ignored", "Called with the id and the reason once the job is ignored."),
    },
    title="Hooks",
    description="Functions that are called as a job moves on. None of them can change the job.",
)

_STRATEGY = {
    "title": "Strategy",
    "description": "Retry n waits a, a*n, a*n*n or a*2**(n-1), where a is attempt_after.",
    "enum": ["fixed", "linear", "quadratic", "exponential"],
    "default": "fixed",
}

_BACKOFF = {
    "title": "Backoff",
    "description": "How the wait before a retry grows, as one word or with `max` and `jitter`. Default: fixed.",
    "if": {"type": "object"},
    "then": _object(
        {
            "strategy": _STRATEGY,
            "max": _duration("Longest wait", "No wait before a retry is longer: milliseconds, or a duration.", "ms"),
            "jitter": {
                "title": "Jitter",
                "description": "How much of a wait chance may add to it: 0.5 adds up to half of it.",
                "type": "number",
                "minimum": 0,
                "maximum": 1,
                "default": 0,
            },
        }
    ),
    "else": {
        "enum": _STRATEGY["enum"],
        "errorMessage": "must be fixed, linear, quadratic, exponential or a mapping, as in {strategy: linear, max: 1h}",
    },
}

_PROPERTIES: dict[str, Any] = {
    "$schema": {"title": "Schema", "description": "Where editors find this schema.", "type": "string"},
    "name": {
        "title": "Name",
        "description": "What people see.",
        "type": "string",
        "minLength": 1,
        "maxLength": 200,
        "examples": ["Send mail"],
    },
    "process": _path("Handler", "The function that does the work: scripts.mail.Send is Send in scripts/mail.py."),
    "worker_nums": _integer("Workers", "Jobs of this task that run at once on one node.", 1, 1),
    "attempts": _integer("Retries", "Retries after a first try that failed: 3 means at most 4 executions.", 0, 0),
    "attempt_after": _duration(
        "Wait before a retry",
        "At least this long: milliseconds, or a duration. 0 retries at once.",
        "ms",
        minimum=0,
        default=200,
    ),
    "backoff": _BACKOFF,
    "timeout": _duration(
        "Timeout",
        "How long one attempt may take, from its start: seconds, or a duration.",
        "s",
        exclusiveMinimum=0,
        default=300,
    ),
    "size": _integer("Queue size", "Jobs that may wait; one more is refused at once.", 1, 1024),
    "event": _EVENT,
    "executor": {
        "title": "Executor",
        "description": "Where the handler runs: on the loop, in a thread, or in a child process that a timeout kills."
        " Default: async for `async def`, else thread.",
        "enum": ["async", "thread", "process"],
    },
    "priority": {
        "title": "Priority",
        "description": "Larger runs first: an integer, or low (-10), normal (0), high (10).",
        "anyOf": [{"type": "integer", "minimum": -_MOST, "maximum": _MOST}, {"enum": list(PRIORITIES)}],
        "errorMessage": f"must be low, normal, high, or an integer from -{_MOST} to {_MOST}",
        "default": 0,
    },
    "input": {
        "title": "Payload",
        "description": "JSON Schema (2020-12) of the payload; an add with another is refused.",
        "type": "object",
    },
    "fail_on": _exceptions("Fail on", "Exceptions after which the job fails at once, without retries."),
    "ignore_on": _exceptions("Ignore on", "Exceptions after which the job ends as IGNORED."),
    "transaction": {
        "title": "Transaction",
        "description": "Run the handler inside `job.transaction()`. Not for `async def`.",
        "type": "boolean",
        "default": False,
    },
    "sensitive": {
        "title": "Sensitive arguments",
        "description": "Names of arguments that are masked in every view, log and message.",
        "type": "array",
        "uniqueItems": True,
        "items": {"type": "string", "minLength": 1},
    },
}


TASK: Mapping[str, Any] = {
    "$schema": DIALECT,
    "title": "yaotask definition",
    "description": "One task: a file under tasks/, whose path is the task's id.",
    **_object(_PROPERTIES, required=list(REQUIRED)),
}

# What `defaults` in yaotask.yml may hold.
DEFAULTS: Mapping[str, Any] = {
    "$schema": DIALECT,
    **_object({key: value for key, value in _PROPERTIES.items() if key not in _NOT_DEFAULTED}),
}


def text() -> str:
    """The schema as a file for editors."""
    return json.dumps(TASK, indent=2, ensure_ascii=False) + "\n"


def write_schema(root: Path) -> Path:
    """Write the schema where the modelines of definitions point; returns the path of the file.

    Makes `.yaotask/` for its owner alone where it is missing; replaces the file in one step.
    """
    path = root / FILE
    path.parent.mkdir(mode=0o700, exist_ok=True)
    fresh = path.with_suffix(".new")
    fresh.write_text(text(), encoding="utf-8")
    fresh.replace(path)
    return path
