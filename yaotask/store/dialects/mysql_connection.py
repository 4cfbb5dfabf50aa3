"""PyMySQL's connection, which does not read the system's certificates anew for each connection."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from typing import Any

import pymysql
from pymysql.constants import CR

# Its stubs leave out what a subclass needs.
Plain: Any = pymysql.connections.Connection


class TlsOnceConnection(Plain):  # type: ignore[misc]
    """A connection whose TLS settings are made once in a process: that takes a hundred times as long as the rest."""

    def _create_ssl_ctx(self, settings: Any) -> Any:
        if not isinstance(settings, Mapping):
            return super()._create_ssl_ctx(settings)
        try:
            return _context(tuple(sorted(settings.items())))
        except OSError as error:
            # Python does not say which file it is about.
            given = [str(settings[name]) for name in _FILES if settings.get(name)]
            files = [file for file in given if not os.path.exists(file)] or given
            raise pymysql.OperationalError(CR.CR_SSL_CONNECTION_ERROR, f"{', '.join(files)}: {error}") from error


_FILES = ("ca", "capath", "cert", "key")


# There are as many as the process uses addresses of stores.
@cache
def _context(settings: tuple[tuple[str, Any], ...]) -> Any:
    return Plain._create_ssl_ctx(None, dict(settings))
