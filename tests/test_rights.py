"""The rights that docs/databases.md lets somebody else give are all that yaotask needs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from moving_support import filled
from run_support import command
from server_fixtures import Database
from store_support import Bench, EvenChance, ManualClock, connected

from yaotask.store import scripting
from yaotask.store.opening import Place, open_store, place

pytestmark = [pytest.mark.only_on("postgresql", "mariadb"), pytest.mark.timeout(60)]

DOCS = (Path(__file__).parent.parent / "docs" / "databases.md").read_text(encoding="utf-8")
GRANTS = re.findall(
    r"^GRANT .*;$", DOCS.partition("## When somebody else makes the tables")[2].partition("\n## ")[0], re.M
)
# Of each server how its user is made and removed, and which of the grants are for it.
USERS: Mapping[str, tuple[str, tuple[str, ...], str]] = {
    "postgresql": ("CREATE ROLE {} LOGIN", ("DROP OWNED BY {}", "DROP ROLE {}"), " IN SCHEMA "),
    "mariadb": ("CREATE USER {} IDENTIFIED BY 'secret'", ("DROP USER {}",), " ON jobs."),
}


@pytest.fixture(autouse=True)
def no_other_transition() -> None:
    """What is carried is stored in the state that it has."""


@pytest.fixture
def made(database: Database, tmp_path: Path) -> Iterator[Place]:
    """An empty store that somebody else has made, as yaotask's own user comes to it."""
    there = place(tmp_path, database.url)
    # The users of a server are of all its databases.
    user = f"yaotask_{there.url.database}"
    create, drop, ours = USERS[database.kind]
    granted = [
        grant.replace("jobs.", f"{there.url.database}.").replace("TO yaotask", f"TO {user}")
        for grant in GRANTS
        if ours in grant
    ]
    with connected(there) as connection:
        for statement in (*scripting.script(there, EvenChance()).split(";\n"), create.format(user), *granted):
            connection.exec_driver_sql(statement or "SELECT 1")
    url = there.url.set(username=user, password="secret")
    yield place(tmp_path, url.render_as_string(hide_password=False))
    with connected(there) as connection:
        for statement in drop:
            connection.exec_driver_sql(statement.format(user))


def test_they_suffice_to_move_a_store_there_and_to_work_in_it(made: Place) -> None:
    root = made.state.parent
    filled(place(root, "sqlite:///old.db"), 20)
    (root / "yaotask.yml").touch()
    moved = command(root, "db", "move", "sqlite:///old.db", made.url.render_as_string(hide_password=False))
    assert moved.returncode == 0, moved.stderr
    bench = Bench(open_store(made, ManualClock(), EvenChance()), ManualClock())
    bench.add_one(task="new")
    won = bench.finish(bench.claim_one(task="new"))
    bench.store.close()

    assert won
