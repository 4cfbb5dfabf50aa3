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
from functools import cache
from typing import Any

import psycopg
from psycopg import errors, pq
from psycopg.adapt import PyFormat, Transformer

from yaotask.store.direct import Answer

# A statement in the driver's style, and its values.
Call = tuple[str, Mapping[str, Any]]

# So many statements of a connection are prepared; of ours there are some dozens.
MOST_PREPARED = 200

_FAILED, _NOT_TRIED, _END = pq.ExecStatus.FATAL_ERROR, pq.ExecStatus.PIPELINE_ABORTED, pq.ExecStatus.PIPELINE_SYNC
_VALUE = re.compile(r"%\((\w+)\)s|%%")
# What was prepared is of no use any more: a table has changed, or somebody has discarded it.
_STALE = ("0A000", "26000")


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
    def form(self) -> tuple[bytes, tuple[int, ...]]:
        return self.text, self.types


class Flights:
    """Sends statements on a connection of psycopg that nobody else uses meanwhile. Belongs to one thread."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        # A statement is prepared when it comes the next time after so many.
        self.prepared_after = 0
        self._connection = connection
        self._adapter = Transformer(connection)
        self._names: dict[tuple[bytes, tuple[int, ...]], bytes] = {}
        self._uses: Counter[tuple[bytes, tuple[int, ...]]] = Counter()
        self._named = 0
        # Whether the last call of the last flight was certainly not tried.
        self.fell_short = False
        # Whether anything that followed has ever failed by itself.
        self.has_refused = False

    def fly(self, calls: Sequence[Call], followers: Sequence[Call] = ()) -> list[Any]:
        """Do one after the other, and give what each was answered, for `read`.

        Raises the error of the first that fails: those behind it are not done. Where a value cannot be written nothing
        is done at all. After any other error the connection is closed. With `followers` it is of no consequence if they
        fail.
        """
        self.fell_short = True
        steps = [self._bind(*call) for call in (*calls, *followers)]
        self.fell_short = False
        libpq = self._connection.pgconn
        try:
            libpq.enter_pipeline_mode()
            for step in steps:
                _send(libpq, step)
            libpq.pipeline_sync()
            results = _land(libpq)
            libpq.exit_pipeline_mode()
        except BaseException:
            # What may still come would be taken for the answer to something else.
            self._connection.close()
            raise
        answers = self._sort(steps, results)
        answers, following = answers[: len(calls)], answers[len(calls) :]
        self.fell_short = answers[-1].status == _NOT_TRIED
        error = _first_error(answers)
        if error is not None:
            raise error
        self.has_refused |= _first_error(following) is not None
        return answers

    def read(self, result: Any) -> Answer:
        """An answer in Python's values."""
        if not result.nfields:
            return Answer([], (), -1 if result.command_tuples is None else result.command_tuples)
        self._adapter.set_pgresult(result)
        names = tuple([result.fname(column).decode() for column in range(result.nfields)])
        return Answer(self._adapter.load_rows(0, result.ntuples, tuple), names, result.ntuples)

    def _bind(self, statement: str, given: Mapping[str, Any]) -> _Step:
        text, names = _numbered(statement)
        if names:
            values = self._adapter.dump_sequence([given[name] for name in names], [PyFormat.AUTO] * len(names))
            step = _Step(text, values, self._adapter.types or (), self._adapter.formats)
        else:
            step = _Step(text, None, (), None)
        step.name = self._names.get(step.form)
        if step.name is None and self._comes_often(step):
            self._named += 1
            step.name, step.is_new = b"yaotask_%d" % self._named, True
        return step

    def _comes_often(self, step: _Step) -> bool:
        self._uses[step.form] += 1
        return self._uses[step.form] > self.prepared_after and len(self._names) < MOST_PREPARED

    def _sort(self, steps: Sequence[_Step], results: Sequence[Any]) -> list[Any]:
        """The answers to statements, out of these and those to what prepared some."""
        coming, answers = iter(results), []
        for step in steps:
            prepared, result = next(coming) if step.is_new else None, next(coming)
            if prepared is not None and prepared.status == pq.ExecStatus.COMMAND_OK:
                self._names[step.form] = step.name or b""
            # Where it could not even be prepared, that says why.
            answers.append(prepared if prepared is not None and prepared.status == _FAILED else result)
        error = _first_error(results)
        if error is not None and error.sqlstate in _STALE:
            self._names.clear()
        return answers


def _send(libpq: Any, step: _Step) -> None:
    if step.is_new:
        libpq.send_prepare(step.name, step.text, param_types=step.types)
    if step.name is None:
        libpq.send_query_params(step.text, step.values, param_types=step.types, param_formats=step.formats)
    else:
        libpq.send_query_prepared(step.name, step.values, param_formats=step.formats)


def _land(libpq: Any) -> list[Any]:
    """All that comes back. Raises psycopg.Error where the end of it does not come."""
    results: list[Any] = []
    try:
        while libpq.flush():
            # The server may first want to be rid of what it has to say.
            _wait(libpq, select.POLLIN | select.POLLOUT)
        while True:
            while libpq.is_busy():
                _wait(libpq, select.POLLIN)
            result = libpq.get_result()
            if result is not None and result.status == _END:
                return results
            if result is not None:
                results.append(result)
            elif libpq.status == pq.ConnStatus.BAD:
                raise psycopg.OperationalError("the connection was lost")
    except psycopg.Error as lost:
        # Whoever ends a connection may have said why.
        raise _first_error(results) or lost from lost


def _wait(libpq: Any, what: int) -> None:
    poll = select.poll()
    poll.register(libpq.socket, what)
    poll.poll()
    libpq.consume_input()


def _first_error(results: Sequence[Any]) -> psycopg.Error | None:
    return next((errors.error_from_result(result) for result in results if result.status == _FAILED), None)


@cache
def _numbered(statement: str) -> tuple[bytes, tuple[str, ...]]:
    """A statement with its values by number, as the server itself has them, and their names in this order."""
    names: dict[str, int] = {}

    def number(found: re.Match[str]) -> str:
        return "%" if found[1] is None else f"${names.setdefault(found[1], len(names) + 1)}"

    text = _VALUE.sub(number, statement)
    return text.encode(), tuple(names)
