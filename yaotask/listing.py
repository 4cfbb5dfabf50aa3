"""Which jobs to list, and the page that is answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from yaotask.errors import InvalidPayload, UnknownName
from yaotask.jobs import STATUS_WORDS, STATUSES
from yaotask.jobview import View
from yaotask.jsoncheck import mend
from yaotask.options import moment
from yaotask.store import reads
from yaotask.suggest import did_you_mean

if TYPE_CHECKING:
    from sqlalchemy import Connection

FILTERS = ("status", "since", "until", "text", "page", "page_size", "cursor")
USUAL_PAGE = 20
# The largest integer of a database.
LAST_KEY = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Listing:
    """A filter, and which page of what it lets through. With `page` all are counted; a cursor is faster."""

    filter: reads.Filter
    page: int | None
    page_size: int

    @classmethod
    def of(cls, task: str | None, given: Mapping[str, Any]) -> Listing:
        """From filters as users give them. Raises UnknownName, InvalidPayload."""
        for name in given:
            if name not in FILTERS:
                raise UnknownName(
                    f'there is no filter "{name}"{did_you_mean(name, FILTERS)}; known are {", ".join(FILTERS)}'
                )
        given = {name: value for name, value in given.items() if value is not None}
        chosen = reads.Filter(
            task=task,
            statuses=_statuses(given["status"]) if "status" in given else (),
            since=moment(given["since"], "since") if "since" in given else None,
            until=moment(given["until"], "until") if "until" in given else None,
            text=_text(given.get("text")),
            before=_cursor(given.get("cursor")),
        )
        if "page" in given and "cursor" in given:
            raise InvalidPayload("give either page or cursor", "$.page")
        size = _number(given.get("page_size", USUAL_PAGE), "page_size", reads.LARGEST_PAGE)
        page = _number(given["page"], "page", 10**9) if "page" in given else None
        return cls(chosen, page, size)

    def read(self, connection: Connection) -> tuple[list[reads.Row], int | None]:
        """The rows of the page and one more, if there is one; and how many there are in all, if that was asked."""
        offset = (self.page - 1) * self.page_size if self.page else 0
        rows = reads.page(connection, self.filter, self.page_size + 1, offset)
        return rows, reads.count(connection, self.filter) if self.page else None

    def page_of(self, items: Sequence[View], rows: Sequence[reads.Row], total: int | None) -> View:
        """The answer."""
        more, shown = len(rows) > self.page_size, items[: self.page_size]
        place = "id" if self.filter.task is not None else "key"
        cursor = str(rows[self.page_size - 1][place]) if more else None
        return {
            "items": list(shown),
            "total": total,
            "page": self.page,
            "page_size": self.page_size,
            "next_cursor": cursor,
        }


def _statuses(given: Any) -> tuple[str, ...]:
    """The statuses that a filter names, by one word or a list of them, each once."""
    words = given if isinstance(given, list | tuple | set | frozenset) else [given]
    if not words:
        raise InvalidPayload("must name a status, or some of them", "$.status")
    names = dict.fromkeys(map(status_named, words))
    if "SUCCESS" in names:
        # Which finds these too.
        names.pop("PARTIAL", None)
    return tuple(names)


def status_named(word: object) -> str:
    """A status by its name in any case, or by another word or number for it. Raises InvalidPayload."""
    text = str(word)
    name = STATUS_WORDS.get(text.lower(), text.upper())
    if name not in STATUSES:
        known = [*STATUSES, *STATUS_WORDS]
        raise InvalidPayload(
            f'there is no status "{text}"{did_you_mean(text, known)}; there are {", ".join(STATUSES)}', "$.status"
        )
    return name


def _cursor(text: Any) -> int | None:
    if text is None:
        return None
    digits = str(text)
    if not (digits.isascii() and digits.isdigit() and len(digits) <= len(str(LAST_KEY)) and int(digits) <= LAST_KEY):
        raise InvalidPayload("is no cursor: take it from `next_cursor` of the page before", "$.cursor")
    return int(digits)


def _text(text: Any) -> str | None:
    if text is not None and (not isinstance(text, str) or mend(text) != text):
        raise InvalidPayload("must be text", "$.text")
    return text


def _number(value: Any, name: str, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise InvalidPayload(f"must be an integer from 1 to {most:,}", f"$.{name}")
    return value
