"""What would be done to a database, as a script for those who may do it: nothing is changed here."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy.engine import Connection
from sqlalchemy.engine import Dialect as Sqlalchemys
from sqlalchemy.exc import DBAPIError

from yaotask.chance import Chance
from yaotask.errors import StorageUnavailable
from yaotask.store import migrations, opening
from yaotask.store.dialects.base import Dialect
from yaotask.store.forks import forks
from yaotask.store.moving import words
from yaotask.store.opening import Place
from yaotask.store.tables import meta

# What cannot be said in a transaction, and stays with the database.
_BEFORE = {"sqlite": "PRAGMA journal_mode = WAL"}


def script(place: Place, chance: Chance) -> str:
    """The statements that make a store in an empty database, or those that an older store lacks; or nothing.

    Raises StorageUnavailable where the database cannot be reached, or holds what is not ours.
    """
    dialect = place.dialect()
    engine = dialect.engine(writer=False)
    try:
        if dialect.database.is_missing():
            return _creation(dialect, engine.dialect, chance)
        dialect.database.prepare()
        with forks.held_off(), engine.connect() as connection:
            dialect.database.must_be_usable(connection)
            # An empty one may be where the store of this project is to be moved.
            if not opening.has_store(place, dialect, connection, None):
                if left := dialect.database.left_over(connection):
                    raise StorageUnavailable(_unfinished(dialect, left))
                return _creation(dialect, connection.dialect, chance)
            opening.identify(place, dialect, connection, None)
            words.must_be_here(connection)
            return _text(dialect, _missing_steps(connection))
    except DBAPIError as error:
        raise dialect.errors.explain(error.orig) from error
    finally:
        engine.dispose()


def _creation(dialect: Dialect, sqlalchemys: Sqlalchemys, chance: Chance) -> str:
    before = f"{_BEFORE[dialect.name]};\n" if dialect.name in _BEFORE else ""
    return before + _text(dialect, creation(dialect, sqlalchemys, chance.uuid()))


def creation(dialect: Dialect, sqlalchemys: Sqlalchemys, store_id: str) -> list[str]:
    """What makes an empty store. SQLAlchemy's dialect is one that has been connected, where there is a server."""
    recorder: Any = _Recorder(sqlalchemys)
    migrations.create(recorder, store_id, dialect.database.furnish)
    return list(recorder.statements)


def indexes(statements: Sequence[str]) -> dict[str, str]:
    """Of each index that these leave behind its name, and what makes it."""
    made: dict[str, str] = {}
    # Some are several in one.
    for statement in (part.strip() for whole in statements for part in whole.split(";")):
        if found := re.match(r"CREATE (?:UNIQUE )?INDEX (\w+)", statement):
            made[found[1]] = statement
        for name in re.findall(r"\bDROP INDEX (\w+)", statement):
            made.pop(name, None)
        for added, name in re.findall(r"\b(ADD INDEX (\w+) \([^)]*\))", statement):
            made[name] = f"ALTER TABLE {statement.split()[2]} {added}"
    return made


def _unfinished(dialect: Dialect, left: Sequence[str]) -> str:
    return (
        f"{dialect.label} holds tables of a store that was never finished: see that nobody is just making it, let"
        f" somebody who may run `{'; '.join(left)};`, and print the script again"
    )


def _missing_steps(connection: Connection) -> list[str]:
    recorder = _Recorder(connection.dialect)
    for step in range(migrations.version(connection) + 1, migrations.CURRENT + 1):
        for statement in migrations.STEPS[step]:
            if not migrations.is_done(connection, statement):
                recorder.exec_driver_sql(statement)
        recorder.execute(meta.update().where(meta.c.name == "schema").values(value=str(step)))
    return recorder.statements


def _text(dialect: Dialect, statements: Sequence[str]) -> str:
    whole = ["BEGIN", *statements, "COMMIT"] if statements and dialect.database.undoes_tables else statements
    return "".join(f"{statement};\n" for statement in whole)


class _Recorder:
    """Stands for a connection, and notes what it is to execute."""

    def __init__(self, dialect: Sqlalchemys) -> None:
        self.dialect = dialect
        self.statements: list[str] = []
        # Where statements go that are for the driver alone.
        self.connection = self

    def execute(self, statement: Any, values: Any = None) -> None:
        """A statement of SQLAlchemy's, or the driver's own."""
        if isinstance(statement, str):
            self._note(statement)
            return
        whole = statement if values is None else statement.values(values)
        self._note(str(whole.compile(dialect=self.dialect, compile_kwargs={"literal_binds": True})))

    def exec_driver_sql(self, statement: str, values: Mapping[str, Any] | None = None) -> None:
        self._note(statement)

    def cursor(self) -> _Recorder:
        return self

    driver_connection = None
    description = None
    rowcount = 0

    def close(self) -> None:
        """There is nothing to let go of."""

    def _note(self, statement: str) -> None:
        # Drivers with values in their statements want each percent sign twice.
        plain = statement if self.dialect.paramstyle in ("named", "qmark") else statement.replace("%%", "%")
        self.statements.append(plain.strip())
