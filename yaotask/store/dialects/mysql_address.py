"""From the address of a store to what the driver needs to connect to it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from typing import Any

import pymysql
from sqlalchemy import URL

from yaotask.errors import StorageUnavailable

# The first versions with SKIP LOCKED and JSON_TABLE.
OLDEST_MYSQL, OLDEST_MARIADB = (8, 0, 17), (10, 6, 0)
# A cycle's texts may be 4 MiB; quoted inside JSON that becomes at most twice as much.
SMALLEST_PACKET = 16 * 1024 * 1024

# What SQLAlchemy itself makes of an address.
_OF_SQLALCHEMY = frozenset(f"ssl_{name}" for name in ("ca", "key", "cert", "capath", "cipher", "check_hostname"))
_FILES = frozenset({"ssl_ca", "ssl_cert", "ssl_key"})
_VERIFYING = frozenset({"ssl_verify_cert", "ssl_verify_identity"})
_SWITCHES = _VERIFYING | {"ssl_disabled", "local_infile"}
_SECONDS = frozenset({"connect_timeout", "read_timeout", "write_timeout"})
# The driver's own limit.
_MOST_SECONDS = 31_536_000
# What the driver takes from programs alone, does not take at all, or would not connect with.
_NO_OPTIONS = frozenset(
    {"self", "auth_plugin_map", "compress", "conv", "cursorclass", "defer_connect", "named_pipe", "ssl"}
)
_WORDS = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}


def address(url: URL) -> URL:
    """The address as SQLAlchemy wants it for PyMySQL, on MySQL and MariaDB alike."""
    # A name that the server shows beside the connection, and the character set that all of ours is in, as text.
    named = {"program_name": "yaotask", **url.query, "charset": "utf8mb4", "use_unicode": "1"}
    own = {name: value for name, value in named.items() if name not in _SWITCHES}
    return url.set(drivername="mysql+pymysql", query=own)


def driver_options(url: URL) -> dict[str, Any]:
    """What SQLAlchemy would not hand on right: options that are yes or no, and the password's other letters."""
    given = {name: _word(value) for name, value in url.query.items() if name in _SWITCHES}
    # What stays inside the machine gains nothing by being encrypted, and reading certificates takes its time.
    plain = {"ssl_disabled": True} if "unix_socket" in url.query else {}
    # Where PyMySQL is told how to verify, it forgets the files that SQLAlchemy hands it in another way.
    files = {name: value for name, value in url.query.items() if name in _FILES and given.keys() & _VERIFYING}
    # PyMySQL takes text for Latin-1, where the server's other clients send UTF-8.
    secret = {} if url.password is None or url.password.isascii() else {"password": url.password.encode()}
    return {**plain, **{name: _WORDS.get(value, True) for name, value in given.items()}, **files, **secret}


def refuse_unfit_options(url: URL) -> None:
    """Raises StorageUnavailable for what the driver would not understand."""
    known = set(inspect.signature(pymysql.connections.Connection.__init__).parameters) | _OF_SQLALCHEMY
    for name, value in url.query.items():
        if name not in known - _NO_OPTIONS:
            raise StorageUnavailable(
                f"store: {name} is no option of a MySQL address; of use are connect_timeout, read_timeout,"
                " write_timeout, unix_socket, ssl_ca, ssl_cert, ssl_key, ssl_verify_cert and ssl_verify_identity"
            )
        if not isinstance(value, str):
            raise StorageUnavailable(f"store: {name} is in the address twice: give it once")
        if fault := _fault(name, value):
            raise StorageUnavailable(f"store: {fault}")


def _fault(name: str, value: str) -> str | None:
    if name in _SWITCHES and _word(value) not in _WORDS:
        return f"{name} must be true or false"
    if name in _SECONDS and not (value.isdecimal() and 1 <= int(value) <= _MOST_SECONDS):
        return f"{name} must be a whole number of seconds from 1 to {_MOST_SECONDS}"
    if name == "client_flag" and not value.isdecimal():
        return f"{name} must be a whole number"
    if name == "port":
        return "the port stands behind the host, as in mysql://HOST:3306/DATABASE"
    return None


def _word(value: str | Sequence[str]) -> str:
    return (value if isinstance(value, str) else value[-1]).lower()


def is_mariadb(version: str) -> bool:
    """Whether it is MariaDB that says this of its version."""
    return "mariadb" in version.lower()


def engine_of(version: str) -> str:
    """A server's version as people know it."""
    number = ".".join(map(str, _numbers(version)))
    return f"MariaDB {number}" if is_mariadb(version) else f"MySQL {number}"


def refuse_old(version: str, label: str) -> None:
    """Raises StorageUnavailable for a server that lacks what our statements use."""
    oldest = OLDEST_MARIADB if is_mariadb(version) else OLDEST_MYSQL
    if _numbers(version) < oldest:
        raise StorageUnavailable(
            f"{label} is {engine_of(version)}, yaotask needs MySQL {_dotted(OLDEST_MYSQL)} or MariaDB"
            f" {_dotted(OLDEST_MARIADB)} or newer: use a newer server"
        )


def _dotted(numbers: Sequence[int]) -> str:
    return ".".join(map(str, numbers))


def _numbers(version: str) -> tuple[int, ...]:
    # MariaDB put 5.5.5 before its own version, so that old replicas would take it.
    found = re.search(r"(\d+)\.(\d+)\.(\d+)", version.removeprefix("5.5.5-"))
    return tuple(map(int, found.groups())) if found else (0,)
