"""Statements that go to PostgreSQL together, and whose answers come together: libpq's pipeline mode.

Psycopg has one too, made for programs that look at each answer as it comes. What it does for that takes longer than a
transaction of one job; so this speaks to its wrapper of libpq, and leaves to psycopg how values are written and read.
"""

from __future__ import annotations

import re
import select
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import psycopg
from psycopg import errors, pq
from psycopg.adapt import PyFormat, Transformer

from yaotask.store.direct import Answer

# A statement in the driver's style, and its values.
Call = tuple[str, Mapping[str, Any]]

# With more that are prepared all are made anew; of ours there are some dozens.
MOST_PREPARED = 200

_FAILED, _NOT_TRIED, _END = pq.ExecStatus.FATAL_ERROR, pq.ExecStatus.PIPELINE_ABORTED, pq.ExecStatus.PIPELINE_SYNC
_ANSWERS = (pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK, pq.ExecStatus.EMPTY_QUERY, _FAILED, _NOT_TRIED)
_VALUE = re.compile(r"%\((\w+)\)s|%%")
# What was prepared is of no use any more: a table has changed, or somebody has discarded it.
_STALE = ("0A000", "26000")
# A statement and the types of its values.
_Form = tuple[bytes, tuple[int, ...]]


@dataclass(slots=True)
class _Step:
    """A statement as libpq takes it, under a `name` where it is prepared, or is to be: then it `is_new`."""

    text: bytes
    values: Sequence[Any] | None
    types: tuple[int, ...]
    formats: Sequence[pq.Format] | None
    name: bytes | None = None
    is_new: bool = False

    @property
    def form(self) -> _Form:
        return self.text, self.types


class Flights:
    """Sends statements on a connection of psycopg that nobody else uses meanwhile. Belongs to one thread."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        # A statement is prepared when it comes the next time after so many.
        self.prepared_after = 0
        # Whether the last call of the last flight was certainly not tried.
        self.fell_short = False
        # Whether anything that followed has ever failed by itself.
        self.has_refused = False
        self._connection = connection
        self._names: dict[_Form, bytes] = {}
        self._uses: Counter[_Form] = Counter()
        self._named = 0
        # Whether what was prepared is of no use any more, or too much.
        self._is_stale = False

    @cached_property
    def _adapter(self) -> Any:
        # Not before all is set that the connection is to know of values.
        return Transformer(self._connection)

    def fly(self, calls: Sequence[Call], followers: Sequence[Call] = ()) -> list[Any]:
        """Do one after the other, and give what each was answered, for `read`.

        Raises the error of the first that fails: those behind it are not done. Where a value cannot be written nothing
        is done at all. After any other error the connection is closed. With `followers` the last call is a commit: it
        is of no consequence if they fail, but for their answers: None where one was not done, or it is not known.
        """
        self._discard_what_is_stale()
        self.fell_short = True
        new: dict[_Form, bytes] = {}
        steps = [self._bind(*call, new) for call in (*calls, *followers)]
        self.fell_short = False
        results: list[Any] = []
        try:
            self._exchange(steps, results)
        except BaseException as error:
            # What may still come would be taken for the answer to something else.
            self._connection.close()
            answers, _ = self._sort(steps, results)
            if isinstance(error, psycopg.Error):
                _raise_first(answers[: len(calls)], error)
                if followers and answers[len(calls) - 1] is not None:
                    # It is committed, whatever has become of the connection since.
                    return [*answers[: len(calls)], *[None] * len(followers)]
            raise
        answers, rest = self._sort(steps, results)
        answers, following = answers[: len(calls)], answers[len(calls) :]
        self.fell_short = answers[-1].status == _NOT_TRIED
        # What is no transaction of its own commits last of all; then the error of that comes behind all answers.
        _raise_first([*answers, *(() if followers else rest)])
        if _first_error([*following, *rest]) is not None:
            self.has_refused = True
            following = [None] * len(followers)
        return [*answers, *following]

    def read(self, result: Any) -> Answer:
        """An answer in Python's values."""
        if not result.nfields:
            return Answer([], (), -1 if result.command_tuples is None else result.command_tuples)
        self._adapter.set_pgresult(result)
        names = tuple([result.fname(column).decode() for column in range(result.nfields)])
        return Answer(self._adapter.load_rows(0, result.ntuples, tuple), names, result.ntuples)

    def _bind(self, statement: str, given: Mapping[str, Any], new: dict[_Form, bytes]) -> _Step:
        """A statement with its values; where it is the first to be prepared in its flight it is among the `new`."""
        text, names = _numbered(statement)
        step = _Step(text, None, (), None)
        if names:
            step.values = self._adapter.dump_sequence([given[name] for name in names], [PyFormat.AUTO] * len(names))
            step.types, step.formats = self._adapter.types or (), self._adapter.formats
        form = step.form
        step.name = self._names.get(form) or new.get(form)
        if step.name is None:
            self._uses[form] += 1
            if self._uses[form] > self.prepared_after:
                self._named += 1
                step.name = new[form] = b"yaotask_%d" % self._named
                step.is_new = True
        return step

    def _exchange(self, steps: Sequence[_Step], results: list[Any]) -> None:
        """Send them, and collect all that comes back. Raises psycopg.Error where the end of it does not come."""
        libpq = self._connection.pgconn
        if self._connection.closed:
            raise psycopg.OperationalError("the connection is closed")
        libpq.enter_pipeline_mode()
        for step in steps:
            _send(libpq, step)
        libpq.pipeline_sync()
        _land(libpq, results)
        libpq.exit_pipeline_mode()

    def _sort(self, steps: Sequence[_Step], results: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        """The answers to statements, and those that are to none. Where one has not come it is None.

        Where a statement could not even be prepared, that is its answer.
        """
        coming, answers = iter(results), []
        for step in steps:
            prepared = next(coming, None) if step.is_new else None
            answer = next(coming, None)
            if prepared is not None and prepared.status == pq.ExecStatus.COMMAND_OK:
                self._names[step.form] = step.name or b""
            answers.append(prepared if prepared is not None and prepared.status == _FAILED else answer)
        failed = _first_error(results)
        self._is_stale |= len(self._names) > MOST_PREPARED or (failed is not None and failed.sqlstate in _STALE)
        return answers, list(coming)

    def _discard_what_is_stale(self) -> None:
        """Between two transactions only: after an error a transaction takes nothing but its end."""
        if self._is_stale and self._connection.info.transaction_status == pq.TransactionStatus.IDLE:
            self._is_stale = False
            self._names.clear()
            self._uses.clear()
            self.fly([("DEALLOCATE ALL", {})])


def _send(libpq: Any, step: _Step) -> None:
    if step.is_new:
        libpq.send_prepare(step.name, step.text, param_types=step.types)
    if step.name is None:
        libpq.send_query_params(step.text, step.values, param_types=step.types, param_formats=step.formats)
    else:
        libpq.send_query_prepared(step.name, step.values, param_formats=step.formats)


def _land(libpq: Any, results: list[Any]) -> None:
    """Collect all that comes back. Raises psycopg.Error where the end of it does not come."""
    while libpq.flush():
        # The server may first want to be rid of what it has to say.
        _wait(libpq, select.POLLIN | select.POLLOUT)
    result = None
    while True:
        while libpq.is_busy():
            _wait(libpq, select.POLLIN)
        # Behind each answer comes nothing, once.
        before, result = result, libpq.get_result()
        if result is not None and result.status == _END:
            return
        if result is not None and result.status not in _ANSWERS:
            raise psycopg.InternalError(f"an answer of no use: {pq.ExecStatus(result.status).name}")
        if result is not None:
            results.append(result)
        elif before is None:
            raise psycopg.OperationalError("the connection was lost")


def _wait(libpq: Any, what: int) -> None:
    poll = select.poll()
    poll.register(libpq.socket, what)
    poll.poll()
    libpq.consume_input()


def _first_error(results: Sequence[Any]) -> psycopg.Error | None:
    failed = (result for result in results if result is not None and result.status == _FAILED)
    return next(map(errors.error_from_result, failed), None)


def _raise_first(answers: Sequence[Any], cause: psycopg.Error | None = None) -> None:
    """Raise the first error of these; whoever ends a connection may have said why."""
    error = _first_error(answers)
    if error is not None:
        raise error from cause


@cache
def _numbered(statement: str) -> tuple[bytes, tuple[str, ...]]:
    """A statement with its values by number, as the server itself has them, and their names in this order."""
    names: dict[str, int] = {}

    def number(found: re.Match[str]) -> str:
        return "%" if found[1] is None else f"${names.setdefault(found[1], len(names) + 1)}"

    text = _VALUE.sub(number, statement)
    return text.encode(), tuple(names)
