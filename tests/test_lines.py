"""What is posted travels with what comes next: the same is done, in fewer ways to the server."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from server_fixtures import Database
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError, IntegrityError
from store_support import END, SESSION, WAITS, Bench, EvenChance, ManualClock
from wire_support import Wire, wired

from yaotask.errors import StorageUnavailable
from yaotask.store import writer
from yaotask.store.dialects import mysql_line
from yaotask.store.direct import Line, execute, follow, forget, in_style, post, settle
from yaotask.store.ids import IdBlocks
from yaotask.store.opening import open_store, place
from yaotask.store.sizes import Owed
from yaotask.store.work import Work
from yaotask.store.writer import Refused

pytest_plugins = ["store_fixtures"]

ON_SERVERS = pytest.mark.only_on("postgresql", "mariadb")
NEW = "INSERT INTO letters (id) VALUES (:id)"
COUNT = "SELECT count(*) FROM letters WHERE id >= :least"
REPEAT = "SELECT repeat('x', :length)"


@pytest.fixture
def connection(bench: Bench) -> Iterator[Connection]:
    """The ledger's, with a table that holds each number once."""
    connection = bench.store.writer.connected()
    execute(connection, "CREATE TABLE letters (id BIGINT PRIMARY KEY)")
    yield connection
    forget(connection)
    with suppress(DBAPIError):  # SQLite refuses that where nothing was begun
        execute(connection, "ROLLBACK")


def known(connection: Connection) -> int:
    return int(execute(connection, COUNT, {"least": 0}).scalar_one())


# --- the same is done ---------------------------------------------------------------------------------


def test_what_was_posted_is_done_before_what_comes_next(connection: Connection) -> None:
    # So often that it is prepared meanwhile, where it is.
    for number in range(12):
        post(connection, "BEGIN")
        post(connection, NEW, {"id": 2 * number})
        post(connection, NEW, {"id": 2 * number + 1})
        assert known(connection) == 2 * number + 2
        execute(connection, "COMMIT")


def test_an_answer_is_of_what_was_executed_and_not_of_what_was_posted(connection: Connection) -> None:
    post(connection, NEW, {"id": 1})
    found = execute(connection, "SELECT id AS number FROM letters WHERE id = :id", {"id": 1})
    post(connection, NEW, {"id": 2})
    changed = execute(connection, "UPDATE letters SET id = id + 10")

    assert (found.one().number, changed.rowcount) == (1, 2)


def test_an_error_of_what_was_posted_is_raised_and_what_comes_next_is_not_done(connection: Connection) -> None:
    post(connection, NEW, {"id": 7})
    settle(connection)
    with pytest.raises(IntegrityError):
        for id in (8, 7, 9):
            post(connection, NEW, {"id": id})
        execute(connection, NEW, {"id": 10})

    assert execute(connection, COUNT, {"least": 9}).scalar() == 0


def test_a_transaction_goes_on_behind_the_savepoint_of_an_error(connection: Connection) -> None:
    post(connection, "BEGIN")
    post(connection, NEW, {"id": 1})
    post(connection, "SAVEPOINT one")
    with pytest.raises(IntegrityError):
        post(connection, NEW, {"id": 1})
        settle(connection)
    execute(connection, "ROLLBACK TO SAVEPOINT one")
    post(connection, NEW, {"id": 2})
    settle(connection)
    execute(connection, "COMMIT")

    assert known(connection) == 2


@ON_SERVERS
def test_what_was_posted_and_forgotten_is_not_done(connection: Connection) -> None:
    post(connection, NEW, {"id": 1})
    forget(connection)
    settle(connection)

    assert known(connection) == 0


def test_there_may_be_nothing_to_settle(connection: Connection, caplog: pytest.LogCaptureFixture) -> None:
    settle(connection)
    post(connection, "BEGIN")
    forget(connection)
    with pytest.raises(DBAPIError):
        execute(connection, "no statement")

    assert known(connection) == 0
    assert not caplog.records


@ON_SERVERS
def test_an_error_is_told_once_and_the_driver_logs_nothing(
    connection: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    post(connection, NEW, {"id": 1})
    post(connection, NEW, {"id": 1})
    with pytest.raises(IntegrityError):
        execute(connection, REPEAT, {"length": 10})

    assert not caplog.records


@pytest.mark.only_on("mariadb")
def test_what_would_be_a_long_text_with_others_is_sent_at_once(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mysql_line, "MOST_LETTERS", 100)
    line: Any = connection.connection.driver_connection
    for number in range(0, 8, 2):
        post(connection, NEW + ", (:more)", {"id": number, "more": number + 1})
    left = len(line.take())

    assert left < 4
    assert known(connection) == 2 * (4 - left)


def test_texts_of_megabytes_travel_together(connection: Connection) -> None:
    for more in range(3):
        post(connection, "INSERT INTO letters (id) VALUES (length(:text))", {"text": "x" * (2_000_000 + more)})

    assert known(connection) == 3
    assert execute(connection, COUNT, {"least": 2_000_000}).scalar() == 3


@ON_SERVERS
def test_the_first_error_is_told_however_the_answers_arrive(connection: Connection) -> None:
    execute(connection, NEW, {"id": 1})
    for number in range(100):
        post(connection, "BEGIN")
        post(connection, NEW, {"id": number + 2})
        post(connection, NEW, {"id": 1})
        post(connection, REPEAT, {"length": 100_000})
        with pytest.raises(IntegrityError):
            settle(connection)
        execute(connection, "ROLLBACK")

    assert known(connection) == 1


@pytest.mark.only_on("mariadb")
def test_an_error_of_what_is_sent_at_once_is_told_as_any_other(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mysql_line, "MOST_LETTERS", 10)
    post(connection, NEW, {"id": 1})

    with pytest.raises(IntegrityError):
        post(connection, NEW, {"id": 1})


@pytest.mark.only_on("mariadb")
def test_nothing_waits_behind_a_proxy(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    line: Any = connection.connection.driver_connection
    monkeypatch.setattr(line, "thread_id", lambda: 4711)
    line.allow_waiting()

    assert not line.can_wait


@ON_SERVERS
def test_what_is_done_for_many_rows_comes_after_what_was_posted(connection: Connection) -> None:
    post(connection, "BEGIN")
    connection.exec_driver_sql(in_style(NEW, connection.dialect.name), [{"id": 1}, {"id": 2}])
    execute(connection, "ROLLBACK")

    assert known(connection) == 0


@ON_SERVERS
def test_what_was_not_run_behind_an_error_can_be_run_later(connection: Connection) -> None:
    # The second statement would be prepared sooner or later, but comes behind an error each time.
    for number in range(12):
        post(connection, "BEGIN")
        post(connection, NEW, {"id": number % 2})
        post(connection, NEW, {"id": number % 2})
        with pytest.raises(IntegrityError):
            known(connection)
        execute(connection, "ROLLBACK")
    for number in range(12):
        execute(connection, "ROLLBACK")
        assert known(connection) == number
        execute(connection, NEW, {"id": number})


@ON_SERVERS
def test_a_savepoint_is_undone_though_what_was_posted_in_it_fails(bench: Bench, connection: Connection) -> None:
    class Unrelated(Exception):
        pass

    def work(connection: Connection) -> int:
        cycle = Work(connection, bench.store.dialect, IdBlocks(), Owed(connection), 1, None)
        cycle.post(NEW, id=1)
        with pytest.raises(Unrelated), cycle.savepoint():
            cycle.post(NEW, id=2)
            cycle.post(NEW, id=1)
            raise Unrelated
        return known(connection)

    assert bench.store.write(work) == 1


@pytest.mark.only_on("mariadb")
def test_what_fails_where_little_is_waited_for_leaves_the_session_as_patient_as_it_was(bench: Bench) -> None:
    _, ask, answered = WAITS["mysql"]

    def work(connection: Connection) -> object:
        cycle = Work(connection, bench.store.dialect, IdBlocks(), Owed(connection), 1, None)
        with pytest.raises(IntegrityError), cycle.briefly():
            cycle.post("INSERT INTO yaotask_ids VALUES ('one', 1)")
            cycle.post("INSERT INTO yaotask_ids VALUES ('one', 1)")
        return execute(connection, ask).scalar()

    assert bench.store.write(work) == answered


@ON_SERVERS
def test_a_transaction_is_done_once_more_only_where_its_connection_is_gone(bench: Bench) -> None:
    bench.add()
    tries = []

    def work(connection: Connection) -> None:
        tries.append(1)
        execute(connection, "SELECT * FROM nowhere")

    with pytest.raises(StorageUnavailable):
        bench.store.write(work)
    assert len(tries) == 1


@ON_SERVERS
@pytest.mark.parametrize("waits", [True, False])
def test_a_connection_that_was_ended_while_idle_is_made_anew_whether_or_not_its_begin_waits(
    bench: Bench, waits: bool
) -> None:
    bench.add()
    idle, name = bench.store.writer.connected(), bench.store.dialect.name
    line: Any = idle.connection.driver_connection
    line.can_wait = waits
    session = execute(idle, SESSION[name]).scalar_one()
    with bench.store.reading() as other:
        execute(other, END[name], {"session": session})

    assert bench.add_one() == 2


@ON_SERVERS
def test_each_statement_goes_by_itself_where_none_may_wait(connection: Connection) -> None:
    line: Any = connection.connection.driver_connection
    direct = line.can_wait
    line.can_wait = False
    post(connection, NEW, {"id": 1})
    with pytest.raises(IntegrityError):
        post(connection, NEW, {"id": 1})

    assert isinstance(line, Line)
    assert direct


# --- in fewer ways ------------------------------------------------------------------------------------


@pytest.fixture
def wire(database: Database) -> Iterator[tuple[Wire, Database]]:
    # Not in `tmp_path`: the path of a socket has to be short.
    with tempfile.TemporaryDirectory(prefix="yt-") as folder, wired(database, Path(folder)) as pair:
        yield pair


@pytest.fixture
def far(tmp_path: Path, wire: tuple[Wire, Database]) -> Iterator[Bench]:
    clock = ManualClock()
    store = open_store(place(tmp_path, wire[1].url), clock, EvenChance())
    yield Bench(store, clock)
    store.close()


@ON_SERVERS
def test_an_add_and_a_claim_are_few_ways_to_the_server(far: Bench, wire: tuple[Wire, Database]) -> None:
    def ways(do: Any) -> int:
        before = wire[0].ways
        do()
        return wire[0].ways - before

    for _ in range(8):  # connects, takes ids for more, and prepares what is prepared
        far.add(20, size=1_000)
        far.add()
        far.claim(1, due=False)
    sized, unsized, claimed = ways(lambda: far.add(size=1_000)), ways(far.add), ways(lambda: far.claim(1, due=False))

    # A commit goes along with what has no answer of interest, where the server tells whether it came to it; else one
    # more. And what was found is taken by a statement of its own where it cannot be by the same.
    assert (sized, unsized, claimed) == ((1, 1, 2) if wire[1].kind == "postgresql" else (2, 1, 4))


@pytest.mark.only_on("postgresql")
def test_claims_of_many_tasks_are_as_few_ways_as_of_one(far: Bench, wire: tuple[Wire, Database]) -> None:
    tasks = {f"task{number}": 2 for number in range(20)}
    for task in tasks:
        far.add(9, task=task)
    for _ in range(8):
        far.claim(1, due=False)
    before = wire[0].ways
    claims = far.cycle(worker=1, demands=tasks).claims

    assert wire[0].ways - before == 2
    assert {task: len(batch.read()) for task, batch in claims.items()} == tasks


@ON_SERVERS
def test_a_commit_waits_for_a_first_answer_of_a_server_that_was_silent_for_long(
    far: Bench, wire: tuple[Wire, Database], monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(8):
        far.add(20)
    monkeypatch.setattr(writer, "FRESH", 0.0)
    before = wire[0].ways
    far.add()

    assert wire[0].ways - before == 2


@ON_SERVERS
def test_a_server_that_has_answered_a_look_is_not_silent(far: Bench, wire: tuple[Wire, Database]) -> None:
    for _ in range(8):
        far.add(20)
    ways = []
    for looks in (False, True):
        far.clock.advance(10)
        if looks:
            far.store.glance(1, ["mail"], [])
        before = wire[0].ways
        far.add()
        ways.append(wire[0].ways - before)

    assert ways == [2, 1]


@ON_SERVERS
def test_what_fails_on_its_way_with_the_commit_is_not_stored_and_the_connection_goes_on(bench: Bench) -> None:
    bench.add()
    line: Any = bench.store.writer.connected().connection.driver_connection

    def work(connection: Connection) -> None:
        post(connection, "INSERT INTO yaotask_ids VALUES ('one', 1)")
        post(connection, "SELECT * FROM no_such_table")
        post(connection, "INSERT INTO yaotask_ids VALUES ('two', 1)")

    with pytest.raises(Refused, match="no_such_table"):
        bench.store.write(work)
    assert bench.value("SELECT count(*) FROM yaotask_ids WHERE task IN ('one', 'two')") == 0
    assert bench.add_one() == 2
    assert line is bench.store.writer.connected().connection.driver_connection


@pytest.mark.only_on("postgresql")
def test_what_follows_a_commit_is_done_where_that_is_and_is_of_no_consequence(connection: Connection) -> None:
    def commit(first: int, then: str) -> None:
        post(connection, "BEGIN")
        post(connection, NEW, {"id": first})
        assert follow(connection, then, {"id": first + 1})
        execute(connection, "COMMIT")

    commit(1, NEW)
    assert known(connection) == 2
    with pytest.raises(IntegrityError):
        commit(2, NEW)
    execute(connection, "ROLLBACK")
    assert known(connection) == 2
    # What follows is refused: from then on nothing does.
    commit(4, "SELECT 1 / (CAST(:id AS bigint) - 5)")

    assert known(connection) == 3
    assert not follow(connection, NEW, {"id": 6})


@pytest.mark.only_on("postgresql")
def test_what_was_to_follow_a_transaction_that_is_given_up_follows_no_other(connection: Connection) -> None:
    assert follow(connection, NEW, {"id": 1})
    forget(connection)
    execute(connection, "COMMIT")

    assert known(connection) == 0


def test_where_nothing_travels_nothing_follows(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        line: Any = connection.connection.driver_connection
        line.can_wait = False

    assert not follow(connection, NEW, {"id": 1})
    assert known(connection) == 0


@pytest.mark.only_on("postgresql")
@pytest.mark.parametrize(("text", "error"), [("\0", Refused), ("\ud800", UnicodeEncodeError)])
def test_what_cannot_be_sent_takes_no_commit_along(bench: Bench, text: str, error: type[Exception]) -> None:
    bench.add()

    def work(connection: Connection) -> None:
        post(connection, "INSERT INTO yaotask_ids VALUES ('one', 1)")
        post(connection, "INSERT INTO yaotask_ids VALUES (CAST(:text AS text), 1)", {"text": text})

    with pytest.raises(error):
        bench.store.write(work)
    assert bench.add_one() == 2
    assert bench.value("SELECT count(*) FROM yaotask_ids") == 1
