"""What goes to PostgreSQL in one go: what is told of each part of it, whatever happens on the way."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError, InternalError, NotSupportedError, OperationalError, ProgrammingError
from store_support import Bench

from yaotask.store.dialects import postgresql_flight
from yaotask.store.direct import execute, follow, post

pytest_plugins = ["store_fixtures"]
pytestmark = pytest.mark.only_on("postgresql")

NEW = "INSERT INTO letters (id) VALUES (:id)"
COUNT = "SELECT count(*) FROM letters"
PREPARED = "SELECT count(*) FROM pg_prepared_statements"
REFERENCE = "INSERT INTO answers (letter) VALUES (:id)"


@pytest.fixture
def connection(bench: Bench) -> Iterator[Connection]:
    """The ledger's, with letters, and answers to them: whether there is such a letter is looked at with the commit."""
    connection = bench.store.writer.connected()
    execute(connection, "CREATE TABLE letters (id BIGINT PRIMARY KEY)")
    execute(connection, "CREATE TABLE answers (letter BIGINT REFERENCES letters DEFERRABLE INITIALLY DEFERRED)")
    yield connection
    if not line_of(connection).closed:
        execute(connection, "ROLLBACK")


def line_of(connection: Connection) -> Any:
    return connection.connection.driver_connection


def count(connection: Connection, statement: str = COUNT) -> int:
    return int(execute(connection, statement).scalar_one())


# --- errors -------------------------------------------------------------------------------------------


def test_an_error_that_comes_behind_all_answers_is_raised(connection: Connection) -> None:
    with pytest.raises(IntegrityError):
        execute(connection, REFERENCE, {"id": 1})

    assert count(connection, "SELECT count(*) FROM answers") == 0


def test_what_follows_and_fails_only_at_its_own_commit_is_not_said_to_be_done(connection: Connection) -> None:
    post(connection, "BEGIN")
    post(connection, NEW, {"id": 1})
    followed = follow(connection, REFERENCE, {"id": 2})
    execute(connection, "COMMIT")

    assert followed is not None
    assert followed.answer is None
    assert count(connection) == 1
    assert follow(connection, NEW, {"id": 2}) is None


def test_what_follows_and_is_done_has_its_answer(connection: Connection) -> None:
    post(connection, "BEGIN")
    followed = follow(connection, NEW, {"id": 1})
    assert followed is not None
    assert followed.answer is None
    execute(connection, "COMMIT")

    assert followed.come().rowcount == 1


class LostAtTheEnd:
    """A wrapper of libpq whose connection is lost when all has been answered, but for the end."""

    def __init__(self, wrapper: Any) -> None:
        self._wrapper = wrapper

    def __getattr__(self, name: str) -> Any:
        return getattr(self._wrapper, name)

    def get_result(self) -> Any:
        result = self._wrapper.get_result()
        if result is not None and result.status == psycopg.pq.ExecStatus.PIPELINE_SYNC:
            raise psycopg.OperationalError("server closed the connection unexpectedly")
        return result


def test_a_commit_that_was_answered_is_done_whatever_becomes_of_what_follows_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.add()
    land = postgresql_flight._land
    runs: list[str] = []
    # By its code it is one after which a transaction is done once more.
    fails = "DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '40001'; END $$"

    def work(connection: Connection) -> None:
        runs.append("again" if runs else "once")
        post(connection, "INSERT INTO yaotask_ids VALUES (:run, 1)", {"run": runs[-1]})
        follow(connection, fails, {})

    with monkeypatch.context() as patch:
        patch.setattr(postgresql_flight, "_land", lambda wrapper, results: land(LostAtTheEnd(wrapper), results))
        bench.store.write(work)

    assert runs == ["once"]
    assert bench.value("SELECT count(*) FROM yaotask_ids WHERE task = 'once'") == 1
    # On a new connection.
    assert bench.add_one() == 2


def test_what_an_ended_connection_said_before_is_raised(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    land = postgresql_flight._land
    monkeypatch.setattr(postgresql_flight, "_land", lambda wrapper, results: land(LostAtTheEnd(wrapper), results))
    with pytest.raises(ProgrammingError, match="no_such_table"):
        execute(connection, "SELECT * FROM no_such_table")

    assert line_of(connection).closed


def test_what_has_no_answer_but_a_stream_is_refused(connection: Connection) -> None:
    with pytest.raises(InternalError, match="COPY_OUT"):
        execute(connection, "COPY letters TO STDOUT")

    assert line_of(connection).closed


def test_nothing_is_sent_on_a_connection_that_is_closed(connection: Connection) -> None:
    line_of(connection).close()

    with pytest.raises(OperationalError, match="the connection is closed"):
        execute(connection, COUNT)


# --- what is prepared -----------------------------------------------------------------------------------


def test_a_statement_is_prepared_once_however_often_it_comes_in_one_go(connection: Connection) -> None:
    post(connection, "BEGIN")
    for number in range(300):
        post(connection, NEW, {"id": number})
    execute(connection, "COMMIT")

    assert count(connection) == 300
    assert count(connection, PREPARED) == 1


def test_what_was_prepared_is_discarded_before_it_is_too_much(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql_flight, "MOST_PREPARED", 10)
    for number in range(40):
        for _ in range(8):
            assert execute(connection, f"SELECT {number} + CAST(:one AS bigint)", {"one": 1}).scalar() == number + 1

    assert 0 < count(connection, PREPARED) <= 11


def test_what_was_prepared_for_a_table_that_has_changed_since_is_prepared_anew(connection: Connection) -> None:
    execute(connection, NEW, {"id": 1})
    for _ in range(8):
        assert execute(connection, "SELECT * FROM letters").all() == [(1,)]
    execute(connection, "ALTER TABLE letters ADD COLUMN text TEXT")
    with pytest.raises(NotSupportedError, match="cached plan"):
        execute(connection, "SELECT * FROM letters")

    assert execute(connection, "SELECT * FROM letters").all() == [(1, None)]


@pytest.mark.parametrize("discard", ["DISCARD ALL", "DEALLOCATE ALL"])
def test_what_others_have_discarded_is_prepared_anew(connection: Connection, discard: str) -> None:
    for _ in range(8):
        count(connection)
    execute(connection, discard)
    with pytest.raises(ProgrammingError, match="does not exist"):
        count(connection)

    assert count(connection) == 0


# --- values -----------------------------------------------------------------------------------------------


def test_values_are_those_that_a_cursor_gives(connection: Connection) -> None:
    asked = """
        SELECT 1::int2, 7::numeric, 1.5::numeric, true, '{"a": 1}'::json, ARRAY[1, NULL], NULL, 'x'::bytea,
            1.5::float8, CAST(:value AS text) AS v, '%' AS "ä b", (SELECT sum(id) FROM letters)
    """
    execute(connection, NEW, {"id": 3})
    for value in (None, "é%s:v", "", 1, 70_000, 2**40, 2**70, 1.5, True, b"x"):
        for _ in range(8):
            flown = execute(connection, asked, {"value": value})
        line_of(connection).can_wait = False
        plain = execute(connection, asked, {"value": value})
        line_of(connection).can_wait = True

        assert repr(flown.all()) == repr(plain.all())
        assert flown.rowcount == plain.rowcount == 1


@pytest.mark.parametrize("statement", ["", "SELECT 1 WHERE false", "SELECT", "UPDATE letters SET id = 1"])
def test_how_many_rows_there_are_is_what_a_cursor_says(connection: Connection, statement: str) -> None:
    flown = execute(connection, statement)
    line_of(connection).can_wait = False
    plain = execute(connection, statement)
    line_of(connection).can_wait = True

    assert (flown.rowcount, flown.all()) == (plain.rowcount, plain.all())
