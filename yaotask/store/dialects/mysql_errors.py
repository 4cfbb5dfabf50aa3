"""What MySQL and MariaDB say when something is wrong, in our words."""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass
from typing import Any

import pymysql
from sqlalchemy.exc import DBAPIError, IntegrityError

from yaotask.errors import StorageBusy, StorageError, StorageFull, StorageUnavailable

# Deadlock, lock wait timeout, and MariaDB's "record has changed": the transaction is to be done once more.
HELD = 1205
CONFLICTS = frozenset({1213, HELD, 1020})
_KEPT = (
    "another session keeps a row or a table locked; nothing was stored: end its transaction, which"
    " `SELECT trx_mysql_thread_id, trx_started FROM information_schema.innodb_trx` finds, and try again"
)
_LOST = "the connection to {label} was lost ({text}): see that the server runs and can be reached"
_REFUSED = (
    "{label} refused the user or the password: check both in the address of the store, and whether this user has to"
    " encrypt, or to bring a certificate"
)
_UNPROVEN = (
    "{label} does not prove who it is ({text}): see that ssl_ca is the authority that signed its certificate, and that"
    " the certificate is for the host of the address"
)
_UNWRITABLE = "{label} cannot be written ({text}): use the primary server, or make this one writable"
_EXPIRED = (
    "{label}: the password of this user has expired: set another, by ALTER USER … IDENTIFIED BY, and write it into"
    " `store`"
)
_ADVICE = {
    1040: "{label} has no connection left: raise max_connections there, or run fewer processes",
    1203: "{label} has no connection left for this user: raise max_user_connections there, or run fewer processes",
    1226: "{label} has no connection left for this user: raise max_user_connections there, or run fewer processes",
    1044: "{label}: this user may not use the database: GRANT ALL ON the database TO the user",
    1045: _REFUSED,
    1698: _REFUSED,
    1049: "{label}: there is no such database: CREATE DATABASE it first, with GRANT ALL ON it for this user",
    1053: "{label} is shutting down: start it again",
    1142: "{label}: this user may not do that ({text}): GRANT ALL ON the database TO the user",
    1143: "{label}: this user may not do that ({text}): GRANT ALL ON the database TO the user",
    1227: "{label}: this user may not do that ({text}): GRANT ALL ON the database TO the user",
    1370: "{label}: this user may not do that ({text}): GRANT ALL ON the database TO the user",
    1146: "{label}: a table of the store is missing ({text}): the store was moved, or is being moved, see"
    " `yaotask db status`; if it was not, restore the database from a backup",
    1153: "{label} takes no statement as long as this one: set max_allowed_packet there to 64M",
    1290: _UNWRITABLE,
    1792: _UNWRITABLE,
    1836: _UNWRITABLE,
    1665: "{label} logs statements, which READ COMMITTED does not allow: set binlog_format there to ROW or MIXED",
    1820: _EXPIRED,
    1862: _EXPIRED,
    2002: "{label} cannot be reached ({text}): see that the server runs and that the address is right",
    2003: "{label} cannot be reached ({text}): see that the server runs and that the address is right",
    2005: "{label} cannot be reached ({text}): see that the server runs and that the address is right",
    2006: _LOST,
    2013: _LOST,
    2026: "{label}: no encrypted connection could be made ({text}): check the ssl_… options of the store's address",
    1927: _LOST,
    4031: _LOST,
}
_FULL = {
    1021: "the disk of {label} is full; nothing was stored: make room there and try again",
    1114: "{label} has no room left for a table ({text}); nothing was stored: make room there and try again",
    28: "the disk of {label} is full; nothing was stored: make room there and try again",
}
_LONGEST = 300


@dataclass(frozen=True, slots=True)
class MysqlErrors:
    """Those of the database that users know as `label`. See Errors."""

    label: str
    of_driver: type[Exception] = pymysql.Error

    def is_taken_id(self, error: IntegrityError) -> bool:
        return index_of(error.orig) == "yaotask_jobs_id"

    def is_taken_key(self, error: IntegrityError) -> bool:
        return index_of(error.orig) == "yaotask_jobs_key"

    def is_conflict(self, error: DBAPIError) -> bool:
        return code_of(error.orig) in CONFLICTS

    def is_held(self, error: DBAPIError) -> bool:
        return code_of(error.orig) == HELD

    def is_forbidden(self, error: DBAPIError) -> bool:
        return code_of(error.orig) in (1142, 1143, 1227)

    def is_unsound(self, error: DBAPIError) -> bool:
        return False  # what answers is a server

    def explain(self, error: BaseException | None) -> StorageError:
        if isinstance(error, StorageError):
            return error
        code, text, advice = code_of(error), _text(error), _advice(error)
        if code == HELD:
            return StorageBusy(f"{self.label}: {_KEPT} ({text})")
        if code in CONFLICTS:
            return StorageBusy(f"{self.label}: another transaction had the way; nothing was stored, try again ({text})")
        if code in _FULL:
            return StorageFull(_FULL[code].format(label=self.label, text=text))
        if advice is not None:
            return StorageUnavailable(advice.format(label=self.label, text=text))
        if not code and not text:
            # How the driver says that the connection was closed on our side.
            return StorageUnavailable(_LOST.format(label=self.label, text="it was closed"))
        return StorageUnavailable(f"{self.label}: {text}")


def is_lost(error: DBAPIError) -> bool:
    """Whether the connection is gone, as the driver says it."""
    return error.connection_invalidated or code_of(error.orig) in (2006, 2013)


def code_of(error: BaseException | None) -> int:
    """The server's number of an error; 0 where it has none."""
    arguments: tuple[Any, ...] = getattr(error, "args", ())
    return arguments[0] if arguments and isinstance(arguments[0], int) else 0


def _advice(error: BaseException | None) -> str | None:
    # The driver says only that it could not connect.
    match getattr(error, "original_exception", None):
        case ssl.SSLCertVerificationError():
            return _UNPROVEN
        case ssl.SSLError():
            return _ADVICE[2026]
        case _:
            return _ADVICE.get(code_of(error))


def index_of(error: BaseException | None) -> str | None:
    """The unique index that refused a row, or None."""
    if code_of(error) != 1062:
        return None
    # MySQL puts the table before it, MariaDB does not; the value that was refused comes earlier.
    found = re.search(r"'(?:[^']*\.)?([^'.]*)'[^']*$", _whole(error))
    return found and found[1]


def _whole(error: BaseException | None) -> str:
    arguments: tuple[Any, ...] = getattr(error, "args", ())
    return str(arguments[1] if len(arguments) > 1 else error)


def _text(error: BaseException | None) -> str:
    # The server quotes the end of a statement it cannot read, which may be long.
    text = _whole(error)
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"
