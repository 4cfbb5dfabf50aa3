"""Durable background tasks from YAML files and plain functions.

Names are imported when they are first used: `import yaotask` alone costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from yaotask.ambient import aprocess, current_app, process
    from yaotask.app import App
    from yaotask.context import Job, current_job
    from yaotask.errors import (
        AddRefused,
        AlreadyFinished,
        BadDefinitions,
        BlockingCall,
        ClaimLost,
        DuplicateJobId,
        Fail,
        HandlerNotFound,
        Ignore,
        InvalidPayload,
        JobNotFound,
        NoCurrentJob,
        NoProject,
        OutcomeUnknown,
        QueueFull,
        ResultNotJson,
        Retry,
        StorageBusy,
        StorageError,
        StorageFull,
        StorageUnavailable,
        TransactionError,
        TransactionTooLong,
        UnknownName,
        UnknownTask,
        WrongState,
        YaotaskError,
    )

__all__ = [
    "AddRefused",
    "AlreadyFinished",
    "App",
    "BadDefinitions",
    "BlockingCall",
    "ClaimLost",
    "DuplicateJobId",
    "Fail",
    "HandlerNotFound",
    "Ignore",
    "InvalidPayload",
    "Job",
    "JobNotFound",
    "NoCurrentJob",
    "NoProject",
    "OutcomeUnknown",
    "QueueFull",
    "ResultNotJson",
    "Retry",
    "StorageBusy",
    "StorageError",
    "StorageFull",
    "StorageUnavailable",
    "TransactionError",
    "TransactionTooLong",
    "UnknownName",
    "UnknownTask",
    "WrongState",
    "YaotaskError",
    "aprocess",
    "current_app",
    "current_job",
    "process",
]

_HOMES = {
    **dict.fromkeys(("aprocess", "current_app", "process"), "yaotask.ambient"),
    "App": "yaotask.app",
    **dict.fromkeys(("Job", "current_job"), "yaotask.context"),
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'yaotask' has no attribute {name!r}")
    found = globals()[name] = getattr(importlib.import_module(_HOMES.get(name, "yaotask.errors")), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
