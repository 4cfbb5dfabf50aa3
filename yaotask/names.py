"""Jobs by the names that users write: 12, "12", "mail.12"."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from yaotask.definitions.files import ID, LONGEST_ID
from yaotask.errors import InvalidPayload, JobNotFound, UnknownName
from yaotask.jobs import MAX_ID

LONGEST = len(str(MAX_ID))


def integer(task: str, id: object) -> int:
    """The number of a job of this task. Raises JobNotFound for what can be no job of it."""
    match id:
        case bool():
            raise JobNotFound(task, id)
        case int():
            number = id
        case str():
            head, dot, tail = id.rpartition(".")
            if head != (task if dot else "") or not _is_number(tail):
                raise JobNotFound(task, id)
            number = int(tail)
        case _:
            raise JobNotFound(task, id)
    if not 1 <= number <= MAX_ID:
        raise JobNotFound(task, id)
    return number


def integers(task: str, ids: object) -> list[int]:
    """The numbers of jobs of this task. Raises as `integer`, and InvalidPayload for what is no list of ids."""
    if not isinstance(ids, Iterable) or isinstance(ids, str | bytes | Mapping):
        raise InvalidPayload("must be a list of ids", "$.ids")
    return [integer(task, id) for id in ids]


def split(name: object) -> tuple[str, int]:
    """The task and the number of a job that is named in full. Raises UnknownName for anything else."""
    task, _, tail = name.rpartition(".") if isinstance(name, str) else ("", "", "")
    if not (_is_task(task) and _is_number(tail)):
        shown = f'"{name}"' if isinstance(name, str | int) else f"a {type(name).__name__}"
        raise UnknownName(f"{shown} is no job: a job is named by its task and its id, as in mail.12")
    return task, integer(task, tail)


def _is_task(text: str) -> bool:
    # Nothing else gets to a database, of which not all take every text.
    return len(text) <= LONGEST_ID and ID.fullmatch(text) is not None


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= LONGEST
