"""From the address of a store to what psycopg needs to connect to it, and what of it says where the store is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote_plus, urlencode

from psycopg import pq
from sqlalchemy import URL
from sqlalchemy.exc import ArgumentError

from yaotask.errors import StorageUnavailable
from yaotask.masking import MASK

# What may say behind the `?` where a store is, beside the search_path in `options`.
_WHERE = ("host", "hostaddr", "port", "dbname", "service")
_SEARCH_PATH = re.compile(r"(?:-c\s*|--)search[_-]path=((?:\\.|\S)*)")
# What psycopg takes from programs alone. All else libpq knows, or refuses by its name.
_OF_PROGRAMS = frozenset({"autocommit", "conninfo", "context", "cursor_factory", "row_factory"})
# The last three came with libpq 18.
_SECRETS = ("password", "sslpassword", "oauth_client_secret", "scram_client_key", "scram_server_key")
# What libpq does not mark as something to show, or does not know.
_HARMLESS = {"prepare_threshold", "sslkeylogfile"}
_SECONDS = re.compile(r"-?\d+(\.\d+)?")


def label(url: URL) -> str:
    """The address as it is told: without secrets, and masked what may be a misspelt one."""
    # What libpq would not show, it marks.
    known = {option.keyword.decode() for option in pq.Conninfo.get_defaults() if not option.dispchar}
    told = url.difference_update_query(_SECRETS)
    masked = dict.fromkeys(told.query.keys() - known - _HARMLESS, MASK)
    written = told.update_query_dict(masked).render_as_string(hide_password=True)
    return written.replace(f"={quote_plus(MASK)}", f"={MASK}")


def address(url: URL) -> URL:
    """The address as SQLAlchemy wants it for psycopg. Raises StorageUnavailable for what psycopg would not take."""
    own = _with_ports(url.set(drivername="postgresql+psycopg").difference_update_query(["prepare_threshold"]))
    for name, value in own.query.items():
        if name in _OF_PROGRAMS:
            raise StorageUnavailable(f"store: {name} is no option of a PostgreSQL address: leave it out")
        if not isinstance(value, str) and name not in ("host", "port"):
            raise StorageUnavailable(f"store: {name} is in the address twice: give it once")
    if not _SECONDS.fullmatch(_text(own, "connect_timeout") or "0"):
        raise StorageUnavailable("store: connect_timeout must be a number of seconds, such as 10")
    # SQLAlchemy would refuse its hosts and ports only later.
    driver_options(own)
    return own


def driver_options(own: URL) -> dict[str, Any]:
    """What psycopg is given for such an address."""
    try:
        return dict(own.get_dialect()().create_connect_args(own)[1])
    except ArgumentError as error:
        raise StorageUnavailable(
            "store: host and port in the address do not fit together: give as many ports as hosts, or one for all of"
            " them, as in ?host=one,other&port=5432"
        ) from error


def prepare_threshold(url: URL) -> int | None:
    """How often a statement comes before it is prepared, where the address says so."""
    given = _text(url, "prepare_threshold")
    if given is None:
        return None
    if not given.isdigit():
        raise StorageUnavailable("store: prepare_threshold in the address must be a whole number, such as 5")
    return int(given)


def whereabouts(url: URL) -> str:
    """What stands behind the `?` of where the store is, and nothing else: a place is written down."""
    where = {name: _text(url, name) for name in _WHERE if name in url.query}
    paths = _SEARCH_PATH.findall(_text(url, "options") or "")
    # Of several the last one counts.
    return urlencode({**where, "search_path": paths[-1]} if paths else where)


def _with_ports(url: URL) -> URL:
    """Libpq lets one port be that of all hosts, SQLAlchemy does not."""
    hosts, ports = (_text(url, name) or "" for name in ("host", "port"))
    if "," not in hosts or not ports or "," in ports:
        return url
    return url.update_query_dict({"host": hosts, "port": ",".join([ports] * len(hosts.split(",")))})


def _text(url: URL, name: str) -> str | None:
    """An option of an address; where it is there several times, as hosts may be, all that is said."""
    given: str | Sequence[str] | None = url.query.get(name)
    return given if given is None or isinstance(given, str) else ",".join(given)
