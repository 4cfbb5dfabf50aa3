"""Networks in which a server is the only other host: its lines can be taken down, and what is sent is lost then.

The server lives in a network namespace of its own, and each line to it is a pair of interfaces. Its socket in the file
system goes on, whatever becomes of the lines.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from own_server import HONEST, OwnServer
from servers import SERVERS, MariaDB, PostgreSQL
from sqlalchemy import URL, create_engine, make_url
from sqlalchemy.pool import NullPool

T = TypeVar("T")

ADVICE = "be root on Linux, and apt-get install iproute2"
CLONE_NEWNET = 0x40000000
USER, PASSWORD = "fleet", "fleet-s3cret"


class NoNetworks(Exception):
    """None can be made here; says why."""


class Network:
    """Lines to one host, by their numbers."""

    def __init__(self, name: str, lines: int) -> None:
        self._name = name
        # Of the block for tests of networks (RFC 2544); tests that run beside each other have parts of their own.
        self._part = os.getpid() % 256
        self._lines = lines

    def server_of(self, line: int) -> str:
        """The address of the host at the other end of a line."""
        return f"198.18.{self._part}.{4 * line + 2}"

    def make(self) -> None:
        """Raises NoNetworks."""
        _ip("netns", "add", self._name)
        try:
            for line in range(self._lines):
                here, there = f"{self._name}-{line}", f"line-{line}"
                _ip("link", "add", here, "type", "veth", "peer", "name", there, "netns", self._name)
                _ip("address", "add", f"198.18.{self._part}.{4 * line + 1}/30", "dev", here)
                _ip("link", "set", here, "up")
                self._there("address", "add", f"{self.server_of(line)}/30", "dev", there)
                self._there("link", "set", there, "up")
        except NoNetworks:
            self.unmake()
            raise

    def unmake(self) -> None:
        _ip("netns", "delete", self._name)

    def part(self, line: int) -> None:
        """What is sent on it is lost from now on, and nobody is told."""
        self._there("link", "set", f"line-{line}", "down")

    def heal(self, line: int) -> None:
        self._there("link", "set", f"line-{line}", "up")

    def _there(self, *words: str) -> None:
        _ip("-netns", self._name, *words)

    def inside(self, function: Callable[[], T]) -> T:
        """Call it in a thread that lives at the other end; what it starts does so too."""

        def enter() -> T:
            namespace = os.open(f"/var/run/netns/{self._name}", os.O_RDONLY)
            try:
                assert ctypes.CDLL(None, use_errno=True).setns(namespace, CLONE_NEWNET) == 0, ctypes.get_errno()
            finally:
                os.close(namespace)
            return function()

        with ThreadPoolExecutor(1) as thread:
            return thread.submit(enter).result()


def _ip(*words: str) -> None:
    """Raises NoNetworks."""
    if shutil.which("ip") is None:
        raise NoNetworks("there is no `ip`")
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise NoNetworks(f"ip {' '.join(words)}: {done.stderr.strip()}")


@contextmanager
def network(lines: int) -> Iterator[Network]:
    """With so many lines. Raises NoNetworks."""
    made = Network(f"yt{os.getpid()}", lines)
    made.make()
    try:
        yield made
    finally:
        made.unmake()


@contextmanager
def far_server(kind: str, place: Path, network: Network) -> Iterator[Callable[[int], URL]]:
    """A server at the other end with an empty database, of which it tells the address by each line."""
    server = network.inside(lambda: OwnServer(kind, place, _heard(kind, place)))
    try:
        near = make_url(server.database().url)
        far = near.set(query={}) if kind == "postgresql" else _let_in(near)
        yield lambda line: far.set(host=network.server_of(line))
    finally:
        server.close()


def _heard(kind: str, place: Path) -> type[PostgreSQL] | type[MariaDB]:
    """A server that listens at all addresses, and lets everybody in."""
    if kind == "postgresql":
        rules = place / "rules"
        rules.write_text("local all all trust\nhost all all all trust\n")
        own = {"listen_addresses": "*", "hba_file": str(rules), **HONEST[kind]}
    else:
        own = {"skip-networking": "0", "bind-address": "*", "skip-name-resolve": "1", **HONEST[kind]}
    return type("Heard", (SERVERS[kind],), {"options": {**SERVERS[kind].options, **own}})


def _let_in(near: URL) -> URL:
    """Its administrator comes from here alone; the address for somebody from elsewhere."""
    engine = create_engine(near, poolclass=NullPool, isolation_level="AUTOCOMMIT", connect_args=MariaDB.arguments)
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE USER {USER} IDENTIFIED BY '{PASSWORD}'")
        connection.exec_driver_sql(f"GRANT ALL ON {near.database}.* TO {USER}")
    return URL.create(near.drivername, USER, PASSWORD, database=near.database, query={"ssl_disabled": "true"})
