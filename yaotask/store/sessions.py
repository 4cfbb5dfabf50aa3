"""The server of a store, seen from outside: where it listens, another way to it, and who is connected."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import make_url
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

# Of each kind of server: its port, and the part of an address that names a socket in the file system.
_PORTS: Mapping[str, int] = {"postgresql": 5432, "mysql": 3306, "mariadb": 3306}
_SOCKETS: Mapping[str, str] = {"postgresql": "host", "mysql": "unix_socket", "mariadb": "unix_socket"}

_OTHERS: Mapping[str, str] = {
    "postgresql": "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
    " AND pid <> pg_backend_pid() AND backend_type = 'client backend'",
    "mysql": "SELECT id FROM information_schema.processlist WHERE db = database() AND id <> connection_id()",
}
_END: Mapping[str, str] = {
    "postgresql": "SELECT pg_terminate_backend(%(number)s)",
    "mysql": "KILL %(number)s",
}
# MySQL's error of a KILL that comes too late (ER_NO_SUCH_THREAD); to PostgreSQL that is none.
_GONE = 1094


def is_server(url: str) -> bool:
    """Whether the store is on a server, and not a file."""
    return make_url(url).get_backend_name() in _PORTS


def where(url: str) -> tuple[str, int]:
    """Where the server listens: a host and its port, or the path of a socket and 0."""
    parsed = make_url(url)
    kind = parsed.get_backend_name()
    socket = parsed.query.get(_SOCKETS[kind])
    port = parsed.port or _PORTS[kind]
    if isinstance(socket, str) and socket.startswith("/"):
        return (f"{socket}/.s.PGSQL.{port}" if kind == "postgresql" else socket), 0
    return parsed.host or "localhost", port


def by_way_of(url: str, host: str, port: int) -> str:
    """The same store, where something that listens there passes on to its server."""
    parsed = make_url(url)
    direct = parsed.difference_update_query([_SOCKETS[parsed.get_backend_name()]])
    return direct.set(host=host, port=port).render_as_string(hide_password=False)


def others(connection: Connection) -> list[int]:
    """The other sessions in the same database, by the server's numbers for them."""
    return [int(number) for number in connection.exec_driver_sql(_OTHERS[_kind(connection)]).scalars()]


def end(connection: Connection, number: int) -> None:
    """End a session, which may be in the middle of anything, unless it has gone by itself."""
    try:
        connection.exec_driver_sql(_END[_kind(connection)], {"number": number})
    except DBAPIError as error:
        if error.orig is None or error.orig.args[:1] != (_GONE,):
            raise


def _kind(connection: Connection) -> str:
    return "postgresql" if connection.dialect.name == "postgresql" else "mysql"
