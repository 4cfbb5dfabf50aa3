"""What somebody else is to run: cut off where a server undoes nothing, it can be begun again."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from sqlalchemy.engine import Connection
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


def test_what_is_done_is_left_out(here: Place, admin: Connection) -> None:
    open_store(here, ManualClock(), EvenChance()).close()
    admin.exec_driver_sql("UPDATE yaotask_meta SET value = '3' WHERE name = 'schema'")

    assert scripting.script(here, EvenChance()).startswith("UPDATE yaotask_meta SET value='4'")
