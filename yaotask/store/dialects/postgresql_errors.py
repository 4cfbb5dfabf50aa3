"""PostgreSQL's errors in our words, each with what to do: without passwords and without statements."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psycopg
from sqlalchemy import URL
from sqlalchemy.exc import DBAPIError, IntegrityError

from yaotask.errors import StorageBusy, StorageError, StorageFull, StorageUnavailable

# What ended the whole transaction for the sake of another one, or would have it wait for too long.
HELD = "55P03"
CONFLICTS = ("40001", "40P01", HELD)
# Said by servers that speak PostgreSQL's language, but not all of it.
UNKNOWN_STATEMENT = ("0A000", "42601")
UNKNOWN_FUNCTION = "42883"

READ_ONLY = (
    "it can only be read: connect to the primary (target_session_attrs=read-write picks it among several hosts), or"
    " set default_transaction_read_only = off there"
)
# By the code of the error, or by how codes of its kind begin.
_BY_CODE: dict[str, tuple[type[StorageError], str]] = {
    "40001": (StorageBusy, "another transaction was in the way; nothing was stored, try again"),
    "40P01": (StorageBusy, "another transaction was in the way; nothing was stored, try again"),
    "55P03": (
        StorageBusy,
        "another session keeps a row or a table locked for longer than lock_timeout; nothing was stored: end its"
        " transaction, which `SELECT pid, xact_start, query FROM pg_stat_activity` finds, and try again",
    ),
    "57014": (StorageBusy, "a statement was cancelled, or took longer than statement_timeout; nothing was stored"),
    "53100": (StorageFull, "the server's disk is full; nothing was stored: make room there and try again"),
    "53300": (
        StorageUnavailable,
        "the server has no connection left: raise its max_connections, or put a pooler such as PgBouncer before it",
    ),
    # Of one user or one database, by the code of a server that has none left for anybody.
    "limit": (
        StorageUnavailable,
        "this user, or this database, has no connection left: raise its limit there, by ALTER ROLE or ALTER DATABASE …"
        " CONNECTION LIMIT, or run fewer processes",
    ),
    "53200": (StorageUnavailable, "the server is out of memory"),
    "57P05": (
        StorageUnavailable,
        "the server ended the connection, which was idle for longer than idle_session_timeout: set that to 0 for this"
        " user, by ALTER ROLE",
    ),
    "57P01": (
        StorageUnavailable,
        "the server has ended this connection: it shuts down, or somebody has ended the session",
    ),
    "57P": (StorageUnavailable, "the server is shutting down or starting: try again when it is up"),
    "25006": (StorageUnavailable, READ_ONLY),
    "25P02": (StorageUnavailable, "a statement of this transaction has failed: roll it back and begin again"),
    "25P03": (StorageUnavailable, "the server ended the connection, whose transaction was idle for too long"),
    "28P01": (StorageUnavailable, "the user or the password is wrong: correct the address in `store`"),
    "28": (StorageUnavailable, "the server does not let this user in: see its pg_hba.conf"),
    "3D000": (StorageUnavailable, "there is no such database: create it, or correct the address in `store`"),
    "42501": (StorageUnavailable, "this user lacks a right: GRANT it, or let the user own yaotask's tables"),
    "42P01": (
        StorageUnavailable,
        "a table is missing: the store was moved, or is being moved, see `yaotask db status`; if it was not, the"
        " search_path is another, or the store was dropped",
    ),
    # Found by the driver, which has no code for it.
    "certificate": (
        StorageUnavailable,
        "the server does not prove who it is: see that sslrootcert is the authority that signed its certificate, and"
        " that the certificate is for the host of the address",
    ),
    "no TLS": (
        StorageUnavailable,
        "the server has no TLS: switch `ssl` on there, or ask for less by sslmode where the way to it is safe",
    ),
    "option": (StorageUnavailable, "an option behind the `?` of the address cannot be used: correct it in `store`"),
    "service": (
        StorageUnavailable,
        "no service file has this service: correct the address, or see that PGSERVICEFILE names the right file",
    ),
    "gone": (StorageUnavailable, "the server, or a pooler before it, has hung up: see its log, and that it runs"),
    # Of PgBouncer, which has no code for it that means nothing else.
    "pooling": (
        StorageUnavailable,
        "a pooler before it takes one statement for a transaction: set its pool_mode to transaction",
    ),
    "pool": (
        StorageUnavailable,
        "a pooler before it had no connection left for this one: let its pool (default_pool_size) be larger, or set its"
        " pool_mode to transaction",
    ),
    "startup": (
        StorageUnavailable,
        "a pooler before it does not take this parameter of the address: leave it out; a search_path can be set by"
        " ALTER ROLE",
    ),
    "3F000": (StorageUnavailable, "there is no schema to make the tables in: create it, or set the search_path"),
}

# Who is not let in has no code, only words.
_BY_WORDS = (
    ("password authentication failed", "28P01"),
    ("no pg_hba.conf entry", "28"),
    ("authentication failed", "28"),
    ("too many connections for", "limit"),
    ("too many clients", "53300"),
    ("too many connections", "53300"),
    ("remaining connection slots", "53300"),
    ("role ", "28P01"),
    ("is starting up", "57P"),
    ("is shutting down", "57P"),
    ("not yet accepting connections", "57P"),
    ("in recovery mode", "57P"),
    ("no such database", "3D000"),
    ("unsupported startup parameter", "startup"),
)
# The driver's own.
_BY_DRIVERS_WORDS = (
    ("certificate verify failed", "certificate"),
    ("does not match host name", "certificate"),
    ("does not support ssl", "no TLS"),
    ("invalid connection option", "option"),
    ("connection is bad: invalid", "option"),
    ("definition of service", "service"),
    ("no password supplied", "28P01"),
    ("server closed the connection unexpectedly", "gone"),
)
# PgBouncer has one code for all that it says.
_BY_POOLER = "08P01"
_BY_POOLERS_WORDS = (
    ("statement pooling mode", "pooling"),
    ("query_wait_timeout", "pool"),
    ("database removed", "57P"),
)
_UNREACHED = (
    "connection refused",
    "no such file",
    "timeout",
    "timed out",
    "could not translate",
    "failed to resolve",
    "unreachable",
)
_NOBODY = "nobody answers there: see that the server runs, and that host and port are right"


@dataclass(frozen=True, slots=True)
class PostgresqlErrors:
    """Those of the database at `url`. See Errors."""

    url: URL
    label: str
    of_driver: type[Exception] = psycopg.Error

    def is_taken_id(self, error: IntegrityError) -> bool:
        return _constraint_of(error.orig) == "yaotask_jobs_id"

    def is_taken_key(self, error: IntegrityError) -> bool:
        return _constraint_of(error.orig) == "yaotask_jobs_key"

    def is_conflict(self, error: DBAPIError) -> bool:
        return code_of(error) in CONFLICTS

    def is_held(self, error: DBAPIError) -> bool:
        return code_of(error) == HELD

    def is_forbidden(self, error: DBAPIError) -> bool:
        return code_of(error) == "42501"

    def is_unsound(self, error: DBAPIError) -> bool:
        return False  # what answers is a server

    def explain(self, error: BaseException | None) -> StorageError:
        text = self._redacted(_said(error))
        code = getattr(error, "sqlstate", None)
        if code is None:
            code = _code_in(text)
        elif code == _BY_POOLER:
            code = next((known for words, known in _BY_POOLERS_WORDS if words in text), code)
        known = code and (_BY_CODE.get(code) or _BY_CODE.get(code[:3]) or _BY_CODE.get(code[:2]))
        if known:
            kind, advice = known
            return kind(f"{self.label}: {advice} ({text})")
        if getattr(error, "sqlstate", None) is None and any(words in text.lower() for words in _UNREACHED):
            return StorageUnavailable(f"{self.label}: {_NOBODY} ({text})")
        return StorageUnavailable(f"{self.label}: {text}")

    def _redacted(self, text: str) -> str:
        password = self.url.password
        return text.replace(password, "***") if password else text


def code_of(error: DBAPIError) -> str | None:
    """PostgreSQL's own code of an error; None where the driver alone has found it."""
    code: str | None = getattr(error.orig, "sqlstate", None)
    return code


def _constraint_of(error: BaseException | None) -> str | None:
    """The name of the rule that a row broke."""
    diagnosis: Any = getattr(error, "diag", None)
    name: str | None = getattr(diagnosis, "constraint_name", None)
    return name


def _said(error: BaseException | None) -> str:
    # The server's own text goes on with the statement; the driver's, where several hosts were tried, with each.
    diagnosis: Any = getattr(error, "diag", None)
    primary = getattr(diagnosis, "message_primary", None)
    return primary or " ".join(str(error).split()) or type(error).__name__


def _code_in(text: str) -> str | None:
    lowered = text.lower()
    # A host may have other addresses, at which nobody answers.
    for words, code in _BY_DRIVERS_WORDS:
        if words in lowered:
            return code
    if 'database "' in lowered and "does not exist" in lowered:
        return "3D000"
    return next((code for words, code in _BY_WORDS if words in lowered and "fatal" in lowered), None)
