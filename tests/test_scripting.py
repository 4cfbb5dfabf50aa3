"""What somebody else is to run: cut off where a server undoes nothing, it can be begun again."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from sqlalchemy import Column, Integer, MetaData, Table
from sqlalchemy.engine import Connection
from sqlalchemy.schema import CreateTable
from store_support import EvenChance, ManualClock, connected

from yaotask.errors import StorageUnavailable
from yaotask.store import scripting
from yaotask.store.opening import Place, open_store

pytest_plugins = ["store_fixtures"]
pytestmark = pytest.mark.only_on("mariadb")


@pytest.fixture(autouse=True)
def no_other_transition() -> None:
    """A script is of yaotask's own statements alone."""


@pytest.fixture
def admin(here: Place) -> Iterator[Connection]:
    with connected(here) as connection:
        yield connection


def run(connection: Connection, statements: list[str]) -> None:
    for statement in filter(str.strip, statements):
        connection.exec_driver_sql(statement)


@pytest.mark.parametrize("done", [1, 5, 20, -3, -2])
def test_one_that_was_cut_off_says_what_to_drop_before_the_next(here: Place, admin: Connection, done: int) -> None:
    run(admin, scripting.script(here, EvenChance()).split(";\n")[:done])
    with pytest.raises(StorageUnavailable, match="was never finished") as refused:
        scripting.script(here, EvenChance())
    (drop,) = re.findall(r"`(DROP .*;)`", str(refused.value))
    run(admin, drop.split(";"))
    run(admin, scripting.script(here, EvenChance()).split(";\n"))

    open_store(here, ManualClock(), EvenChance()).close()


def test_tables_have_transactions_whatever_the_server_would_make(here: Place, admin: Connection) -> None:
    admin.exec_driver_sql("SET SESSION default_storage_engine = Aria")
    script = scripting.script(here, EvenChance())
    run(admin, script.split(";\n"))
    engines = admin.exec_driver_sql(
        "SELECT DISTINCT engine, row_format FROM information_schema.tables"
        " WHERE table_schema = database() AND engine IS NOT NULL"
    ).all()

    assert engines == [("InnoDB", "Dynamic")]
    assert script.count("CREATE TABLE") == script.count("ENGINE=InnoDB ROW_FORMAT=DYNAMIC;")


def test_a_programs_own_tables_stay_as_it_makes_them(admin: Connection) -> None:
    own = Table("own", MetaData(), Column("a", Integer))

    assert "ENGINE" not in str(CreateTable(own).compile(admin))


def test_what_is_done_is_left_out(here: Place, admin: Connection) -> None:
    open_store(here, ManualClock(), EvenChance()).close()
    admin.exec_driver_sql("UPDATE yaotask_meta SET value = '3' WHERE name = 'schema'")

    assert scripting.script(here, EvenChance()).startswith("UPDATE yaotask_meta SET value='4'")
