"""What a database must bring of its own to be a store."""

from __future__ import annotations

from typing import Protocol

from sqlalchemy import Engine
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from yaotask.errors import StorageError


class Dialect(Protocol):
    """The statements and habits of one database.

    A statement takes a batch as one JSON text: one parse on the other side is cheaper than binding
    each value, and the same text works everywhere.
    """

    name: str
    begin: str
    insert_jobs: str
    select_claims: str
    take_claims: str
    finish_success: str
    finish_other: str
    store_started: str
    insert_events: str
    insert_attempts: str
    add_rollups: str
    add_sizes: str
    promote: str
    select_deliveries: str
    take_deliveries: str
    insert_add_events: str
    delete_events: str
    release_held: str

    def engine(self, *, writer: bool) -> Engine:
        """An engine on this store: for the ledger (`writer`) or for readers."""
        ...

    def change_mark(self, connection: Connection) -> int:
        """A number that changes when another connection has committed; constant where there is none."""
        ...

    def translate(self, error: DBAPIError) -> StorageError:
        """The database's error in our words."""
        ...
