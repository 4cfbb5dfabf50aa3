"""Everything yaotask raises, and the three things a handler may raise to steer its job.

One root, `YaotaskError`, so that a caller can catch all of it; one class for each thing a caller
might want to handle on its own. Data travels as fields; the message names the value and the way out.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any


class YaotaskError(Exception):
    """The root of every error that yaotask raises."""

    def __reduce__(self) -> tuple[Any, ...]:
        # Python would call `__init__` with the message alone; errors cross processes and are copied.
        return _again, (type(self), self.args, self.__dict__)


def _again(kind: type[YaotaskError], args: tuple[Any, ...], fields: dict[str, Any]) -> YaotaskError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(fields)
    return error


# --- the job and its arguments -------------------------------------------------------------------


class AddRefused(YaotaskError):
    """An add was refused before anything was stored; the process call `add` answers 0.

    `ids` are the jobs that a bulk add had stored before it.
    """

    ids: Sequence[int] = ()


class QueueFull(AddRefused):
    """As many jobs of the task wait as its `size` allows."""

    def __init__(self, task: str, size: int, ids: Sequence[int] = ()) -> None:
        super().__init__(
            f"the queue of {task} is full: {size} jobs wait already; add later, or raise `size` in its definition"
        )
        self.task = task
        self.size = size
        self.ids = list(ids)


class DuplicateJobId(AddRefused):
    """`event.next` returned an id that a job of the task has already, or that no job can have."""

    def __init__(self, task: str, id: object, why: str | None = None) -> None:
        super().__init__(why or f"{task}.{id} exists already: `event.next` must return an id that is new in its task")
        self.task = task
        self.id = id


class InvalidPayload(AddRefused):
    """Arguments or payload are not what the task takes, or cannot be stored as JSON.

    `path` points at the value, as in `$.args[0].to`.
    """

    def __init__(self, message: str, path: str = "$") -> None:
        super().__init__(f"{path}: {message}")
        self.path = path


class JobNotFound(YaotaskError):
    """No such job: it was never added."""

    def __init__(self, task: str, id: object) -> None:
        super().__init__(f"there is no job {task}.{id}: it was never added")
        self.task = task
        self.id = id


class WrongState(YaotaskError):
    """The job is in a state in which this cannot be done to it."""


class AlreadyFinished(WrongState):
    """The job had ended before the request reached it."""


class ClaimLost(YaotaskError):
    """The attempt is no longer ours: its job was given to another worker, or was ended."""


class ResultNotJson(YaotaskError):
    """What a handler returned cannot be stored as JSON; `path` points at the value."""

    def __init__(self, message: str, path: str = "$") -> None:
        super().__init__(f"{path}: {message}")
        self.path = path


# --- names -----------------------------------------------------------------------------------------


class UnknownName(YaotaskError):
    """A task, group, method or option that does not exist; says what was probably meant."""


class UnknownTask(UnknownName):
    """No definition has this id."""


class HandlerNotFound(YaotaskError):
    """A dotted path leads to nothing that can be called.

    `trace` holds the last lines of the traceback where importing the module failed.
    """

    def __init__(self, message: str, trace: str | None = None) -> None:
        super().__init__(message)
        self.trace = trace


class BadDefinitions(YaotaskError):
    """Task files or settings have faults; `problems` lists them all, each with its place."""

    def __init__(self, problems: Sequence[Any]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = list(problems)


class NoProject(BadDefinitions):
    """There is no project where one was looked for; its one problem says where, and what to do."""


# --- the caller ------------------------------------------------------------------------------------


class BlockingCall(YaotaskError):
    """A call that waits was made on a running event loop; the message names its async twin."""


class NoCurrentJob(YaotaskError):
    """`current_job()` was called outside a handler."""


class TransactionError(YaotaskError):
    """`job.transaction()` cannot be used here or a second time."""


class TransactionTooLong(TransactionError):
    """`job.transaction()` held the store longer than it may; it was rolled back."""


# --- the store -------------------------------------------------------------------------------------


class StorageError(YaotaskError):
    """The store could not do what it was asked.

    `ids` are the jobs that a bulk add had certainly stored before it.
    """

    ids: Sequence[int] = ()


class StorageBusy(StorageError):
    """Others were in the way for too long. Nothing was stored; try again.

    In a transaction of the caller's own that means: roll it back, and do all of it again.
    """


class StorageFull(StorageError):
    """The disk of the store is full. Nothing was stored; make room and try again."""


class StorageUnavailable(StorageError):
    """The store cannot be reached, opened or understood; the message says what to do."""


class OutcomeUnknown(StorageError):
    """The store failed while it was committing, so that the change may or may not have happened.

    On a server an add is tried again for 5 to 10 s before it raises this. One that was given a `key` can be repeated
    safely: a used key answers the first job.
    """


# --- what a handler may raise ----------------------------------------------------------------------


class Retry(Exception):
    """Raised by a handler: this try failed, follow with another while retries are left.

    `after` overrides the definition's `attempt_after` and `backoff`: seconds, a duration such as
    "5m", or a timedelta; `at` is an instant instead.
    """

    def __init__(
        self,
        message: str = "the handler asked for a retry",
        *,
        after: float | str | timedelta | None = None,
        at: datetime | None = None,
    ) -> None:
        super().__init__(message)
        self.after = after
        self.at = at


class Fail(Exception):
    """Raised by a handler: the job has failed and no retry can help. `response` is kept with it."""

    def __init__(self, message: str = "the handler gave up", *, response: Any = None) -> None:
        super().__init__(message)
        self.response = response


class Ignore(Exception):
    """Raised by a handler: there is nothing to do; the job ends as IGNORED."""

    def __init__(self, message: str = "nothing to do") -> None:
        super().__init__(message)
