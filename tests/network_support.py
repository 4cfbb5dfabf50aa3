"""Networks in which a server is the only other host: its lines can be taken down, and what is sent is lost then.

The server lives in a network namespace of its own, and each line to it is a pair of interfaces. Its socket in the file
system goes on, whatever becomes of the lines.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from own_server import HONEST, OwnServer
from servers import SERVERS, MariaDB, PostgreSQL
from sqlalchemy import URL, create_engine, make_url
from sqlalchemy.pool import NullPool

T = TypeVar("T")

ADVICE = "this system lets us make no networks: be root on Linux, and apt-get install iproute2"
CLONE_NEWNET = 0x40000000
USER, PASSWORD = "fleet", "fleet-s3cret"


class NoNetworks(Exception):
    """None can be made here."""


class Network:
    """Lines to one host, by their numbers."""

    def __init__(self, name: str, lines: int) -> None:
        self._name = name
        # Tests that run beside each other have addresses of their own.
        self._part = os.getpid() % 250
        self._lines = lines

    def server_of(self, line: int) -> str:
        """The address of the host at the other end of a line."""
        return f"10.{self._part}.{line}.2"

    def make(self) -> None:
        """Raises NoNetworks."""
        if shutil.which("ip") is None or not _run("ip", "netns", "add", self._name):
            raise NoNetworks
        for line in range(self._lines):
            here, there = f"{self._name}-{line}", f"line-{line}"
            made = (
                _run("ip", "link", "add", here, "type", "veth", "peer", "name", there, "netns", self._name)
                and _run("ip", "address", "add", f"10.{self._part}.{line}.1/30", "dev", here)
                and _run("ip", "link", "set", here, "up")
                and self._there("address", "add", f"{self.server_of(line)}/30", "dev", there)
                and self._there("link", "set", there, "up")
            )
            if not made:
                self.unmake()
                raise NoNetworks

    def unmake(self) -> None:
        _run("ip", "netns", "delete", self._name)

    def part(self, line: int) -> None:
        """What is sent on it is lost from now on, and nobody is told."""
        assert self._there("link", "set", f"line-{line}", "down")

    def heal(self, line: int) -> None:
        assert self._there("link", "set", f"line-{line}", "up")

    def _there(self, *words: str) -> bool:
        return _run("ip", "-netns", self._name, *words)

    def inside(self, function: Callable[[], T]) -> T:
        """Call it in a thread that lives at the other end; what it starts does so too."""
        answers: list[T] = []

        def enter() -> None:
            namespace = os.open(f"/var/run/netns/{self._name}", os.O_RDONLY)
            try:
                assert ctypes.CDLL(None, use_errno=True).setns(namespace, CLONE_NEWNET) == 0, ctypes.get_errno()
            finally:
                os.close(namespace)
            answers.append(function())

        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
        return answers[0]


def _run(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


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
