"""Opening a store: what is there is understood or refused, what is not there is made, once."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from sqlalchemy import URL, inspect
from sqlalchemy.engine import Connection
from sqlalchemy.engine.url import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

from yaotask.chance import Chance
from yaotask.clock import Clock
from yaotask.errors import StorageUnavailable
from yaotask.store import migrations, statements
from yaotask.store.dialects.base import Dialect
from yaotask.store.dialects.choice import BACKENDS, dialect_of
from yaotask.store.direct import execute
from yaotask.store.files import failed
from yaotask.store.forks import forks
from yaotask.store.moving import words
from yaotask.store.sql import SqlStore

_STATE = "yaotask keeps its state there"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a project keeps its state: the database, and the folder of this machine with the files beside it."""

    url: URL
    state: Path
    # Whether a program has named the database, for itself, instead of the project's.
    is_given: bool = False

    @property
    def file(self) -> Path | None:
        """The file of a database that is one."""
        return Path(str(self.url.database)) if self.url.get_backend_name() == "sqlite" else None

    @property
    def marker(self) -> Path:
        """Holds the id of the project's store, so that a lost database is not taken for a new one."""
        return self.state / "store"

    def dialect(self) -> Dialect:
        """How to speak to the database. Raises StorageUnavailable where its driver is not installed."""
        return dialect_of(self.url)


def place(root: Path, url: str, *, is_given: bool = False) -> Place:
    """Where the store of a project is, or one that a program has named for itself, as tests do.

    Raises StorageUnavailable for a database that is not supported.
    """
    parsed = _parsed(url)
    backend = parsed.get_backend_name()
    if backend not in BACKENDS:
        raise StorageUnavailable(
            f"store: {backend} is not supported; use sqlite:///PATH, postgresql://HOST/DATABASE or mysql://HOST/DATABASE"
        )
    if backend == "sqlite":
        if not parsed.database or parsed.database == ":memory:":
            raise StorageUnavailable("store: give a file, as in sqlite:///.yaotask/yaotask.db; memory is not durable")
        if parsed.host:
            raise StorageUnavailable(
                f"store: a file is on no host, such as {parsed.host}: write three slashes, as in"
                " sqlite:///.yaotask/yaotask.db"
            )
        # Relative to the project, not to the shell.
        parsed = parsed.set(database=str(root.absolute() / parsed.database))
    elif not parsed.database:
        raise StorageUnavailable(f"store: name the database, as in {backend}://HOST/DATABASE")
    return Place(parsed, root / ".yaotask", is_given)


def address_of(file: Path) -> str:
    """The address of a database in a file, whatever its name."""
    return URL.create("sqlite", database=str(file)).render_as_string()


def _parsed(url: str) -> URL:
    try:
        parsed = _usual(make_url(url))
        if "@" not in (parsed.host or "") and (parsed.port or 0) < 1 << 16:
            return parsed
    except (ArgumentError, ValueError):
        pass  # they quote what may be a piece of the password
    raise StorageUnavailable(
        "store: not a database address; write it as in sqlite:///.yaotask/yaotask.db or"
        " postgresql://USER:PASSWORD@HOST/DATABASE, where signs such as @, : and / in the password are %40, %3A and %2F"
    )


def _usual(url: URL) -> URL:
    """An address of PostgreSQL as hosting providers and libpq write it too, in SQLAlchemy's form."""
    scheme, plus, driver = url.drivername.partition("+")
    if scheme == "postgres":
        url = url.set(drivername=f"postgresql{plus}{driver}")
    if url.get_backend_name() != "postgresql":
        return url
    query, database, host, port = dict(url.query), url.database, url.host, url.port
    named = query.get("dbname")
    if not database and isinstance(named, str):
        database = named
        del query["dbname"]
    if host is not None and host.lower().startswith("%2f"):
        # The folder of a socket.
        query |= {"host": unquote(host)} | ({} if port is None else {"port": str(port)})
        host = port = None
    return URL.create(url.drivername, url.username, url.password, host, port, database, query)


def open_store(place: Place, clock: Clock, chance: Chance, *, upgrade: bool = False) -> SqlStore:
    """The store of a place, created empty at its first use.

    With `upgrade` an older schema is brought to the current one; without it, it is refused. Raises
    StorageUnavailable for what is newer, foreign, missing though it was here, moved away, or on a network drive.
    """
    dialect = place.dialect()
    _make_folder(place)
    dialect.database.prepare()
    store = SqlStore(dialect, clock, chance)
    try:
        # Where a store was here before, and shall stay as it is, nothing is written.
        looks_only = bool(known_id(place)) and not upgrade
        with forks.held_off(), _locked(place.state, shared=looks_only):
            _check_or_create(place, store, chance, upgrade)
            dialect.database.must_be_in_place()
            store.look_at_clock()
    except DBAPIError as error:
        store.close()
        raise dialect.errors.explain(error.orig) from error
    except BaseException:
        store.close()
        raise
    return store


def _make_folder(place: Place) -> None:
    try:
        place.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise failed(f"{error.filename} cannot be made", error, _STATE) from error


@contextmanager
def _locked(state: Path, *, shared: bool) -> Iterator[None]:
    """One process of this machine at a time creates, while nobody looks; many look at once.

    So that one that is stopped while it looks keeps nobody waiting.
    """
    try:
        handle = os.open(state / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise failed(f"{state} cannot be written", error, _STATE) from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        except OSError as error:
            raise failed(f"{state / 'lock'} cannot be locked", error, _STATE) from error
        yield
    finally:
        os.close(handle)


def _check_or_create(place: Place, store: SqlStore, chance: Chance, upgrade: bool) -> None:
    known, dialect = known_id(place), store.dialect
    database = dialect.database
    if is_missing(place, dialect, known):
        database.make()
    with store.readers.connect() as connection, _telling_why(connection):
        database.must_be_usable(connection)
        if not has_store(place, dialect, connection, known):
            database.create(connection, lambda within: migrations.create(within, chance.uuid(), database.furnish))
        _check(place, dialect, connection, known, upgrade)


@contextmanager
def _telling_why(connection: Connection) -> Iterator[None]:
    """What cannot be said any more on a connection that a server has closed shall not hide why it did."""
    try:
        yield
    except DBAPIError:
        connection.invalidate()
        raise


def is_missing(place: Place, dialect: Dialect, known: str | None) -> bool:
    """Whether there is no database yet. Raises StorageUnavailable where one was `known`, and is gone."""
    missing = dialect.database.is_missing()
    if missing and known:
        raise StorageUnavailable(
            f"{dialect.label} is not there, or empty, but this project had a store: correct `store` if it is elsewhere,"
            f" restore it from a backup, or delete {place.marker} to begin with an empty store"
        )
    return missing


def known_id(place: Place) -> str | None:
    """The id of the store that belongs here, where there was one already."""
    if place.is_given:
        return None
    try:
        return place.marker.read_text(encoding="ascii", errors="backslashreplace").strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageUnavailable(
            f"{place.marker} cannot be read: {error.strerror}; it holds the id of the store that belongs here"
        ) from error


def has_store(place: Place, dialect: Dialect, connection: Connection, known: str | None) -> bool:
    """Whether the database holds a store. Raises StorageUnavailable where it holds none, but one was `known`."""
    found = inspect(connection).has_table("yaotask_meta")
    if found and not dialect.database.undoes_tables:
        found = not migrations.is_unfinished(connection)
    if known and not found:
        raise StorageUnavailable(
            f"{dialect.label} holds no yaotask store, but this project had one: restore the right database,"
            f" or delete {place.marker} to begin with an empty store"
        )
    return found


def _check(place: Place, dialect: Dialect, connection: Connection, known: str | None, upgrade: bool) -> None:
    found = identify(place, dialect, connection, known)
    words.must_be_here(connection)
    if upgrade and migrations.version(connection) < migrations.CURRENT:
        _upgrade(dialect, connection)
    must_be_current(connection)
    if not known and not place.is_given:
        _mark(place, found)


def _mark(place: Place, store_id: str) -> None:
    try:
        handle = os.open(place.marker, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(handle, "w", encoding="ascii") as file:
            file.write(store_id + "\n")
    except OSError as error:
        raise failed(f"{place.marker} cannot be written", error, _STATE) from error


def _upgrade(dialect: Dialect, connection: Connection) -> None:
    """Take the missing steps. Nodes of several machines may come to it at once."""
    with dialect.database.alone(connection):
        execute(connection, dialect.begin)
        # Who comes second waits here, and finds nothing to do.
        execute(connection, statements.SCHEMA)
        migrations.upgrade(connection)
        execute(connection, "COMMIT")


def identify(place: Place, dialect: Dialect, connection: Connection, known: str | None) -> str:
    """The id of the store in this database. Raises StorageUnavailable where it is not ours, or another project's."""
    found = migrations.store_id(connection) if migrations.is_ours(connection) else None
    if found is None:
        raise StorageUnavailable(f"{dialect.label} has a table yaotask_meta that is not ours: choose another database")
    if known and known != found:
        raise StorageUnavailable(
            f"{dialect.label} is the store of another project (id {found}, expected {known}): restore the right one,"
            f" or delete {place.marker} to adopt this one"
        )
    return found


def must_be_current(connection: Connection) -> None:
    """Raises StorageUnavailable for a store that another version of yaotask has made, and this one cannot use."""
    version = migrations.version(connection)
    if version < migrations.CURRENT:
        raise StorageUnavailable(
            f"the store is at schema {version}, this yaotask needs {migrations.CURRENT}: stop its nodes, then run"
            " `yaotask db upgrade`"
        )


def shown(place: Place) -> str:
    """The address of a store, without what nobody shall see."""
    return place.url.render_as_string() if place.file else place.dialect().label


def describe(place: Place, connection: Connection) -> dict[str, object]:
    """What `db status` shows of a store."""
    return {
        "store": shown(place),
        "schema": migrations.version(connection),
        "current_schema": migrations.CURRENT,
        "store_id": migrations.store_id(connection),
        **place.dialect().database.facts(connection),
    }
