"""Encrypted ways to a server: who it is is looked at where the address wants that, and refused in words that help.

PostgreSQL of pip is built without TLS; what encrypts before it is pgbouncer, as it is for many users.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from fleet_folders import folder
from pooler_support import PASSWORD, pooling
from run_support import command, drained, job, notes
from server_fixtures import Database
from servers import MariaDB, Missing, Servers
from sqlalchemy import URL, create_engine
from sqlalchemy.pool import NullPool
from tls_support import Authority, Certificate, free_port

from yaotask import App
from yaotask.errors import StorageUnavailable

pytestmark = pytest.mark.timeout(120)

KINDS = ("postgresql", "mariadb")
# What users write who want to know whom they speak to, and who bring a certificate of their own; {authority}, {file}
# and {key} are files.
VERIFIED = {
    "postgresql": {"sslmode": "verify-full", "sslrootcert": "{authority}"},
    "mariadb": {"ssl_ca": "{authority}"},
}
OWN = {
    "postgresql": {"sslcert": "{file}", "sslkey": "{key}"},
    "mariadb": {"ssl_cert": "{file}", "ssl_key": "{key}"},
}
AUTHORITY = {"postgresql": "sslrootcert is", "mariadb": "ssl_ca is"}
UNVERIFIED = {"postgresql": {"sslmode": "require"}, "mariadb": {"ssl_verify_cert": "false"}}
PLAIN = {"postgresql": {"sslmode": "disable"}, "mariadb": {"ssl_disabled": "true"}}


@dataclass(frozen=True)
class Secured:
    """A server for `localhost` that speaks to nobody who does not encrypt and has no certificate of its authority."""

    kind: str
    url: URL
    ours: Authority
    theirs: Authority
    client: Certificate

    @property
    def files(self) -> Mapping[str, Path]:
        """What a client has who is right in all."""
        return {"authority": self.ours.file, "file": self.client.file, "key": self.client.key}

    def address(self, options: Mapping[str, Mapping[str, str]], host: str = "localhost", /, **files: Path) -> str:
        query = {name: value.format(**files) for name, value in options[self.kind].items()}
        return self.url.set(host=host).update_query_dict(query).render_as_string(hide_password=False)

    def refusal(self, tmp_path: Path, address: str) -> str:
        """What a command says whose store is there."""
        root = folder(tmp_path, "refused", Database(self.kind, address))
        done = command(root, "db", "status")
        assert (done.returncode, done.stdout) == (4, "")
        assert done.stderr.count("\n") == 1
        assert PASSWORD not in done.stderr
        with App(root) as app, pytest.raises(StorageUnavailable) as caught:
            app.store_status()
        assert PASSWORD not in str(caught.value)
        return done.stderr


@pytest.fixture(params=KINDS)
def secured(request: pytest.FixtureRequest, servers: Servers, monkeypatch: pytest.MonkeyPatch) -> Iterator[Secured]:
    if request.param not in request.config.getoption("--databases").split(","):
        pytest.skip(f"not among the databases of this run: {request.param}")
    place = Path(tempfile.mkdtemp(prefix="tls-", dir=servers.folder))
    place.chmod(0o711)
    try:
        with _started(request.param, servers, place, monkeypatch) as secured:
            yield secured
    except Missing as missing:
        pytest.skip(str(missing))
    finally:
        shutil.rmtree(place)


@contextmanager
def _started(kind: str, servers: Servers, place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Secured]:
    ours, theirs, port = Authority(place, "ours"), Authority(place, "theirs"), free_port()
    host, client = ours.sign("localhost"), ours.sign("client")
    host.key.chmod(0o644)  # the server may run as another user
    where = (
        _pgbouncer(servers, ours, host, port)
        if kind == "postgresql"
        else _mariadb(place, host, ours, port, monkeypatch)
    )
    with where as url:
        yield Secured(kind, url, ours, theirs, client)


@contextmanager
def _pgbouncer(servers: Servers, ours: Authority, host: Certificate, port: int) -> Iterator[URL]:
    tls = {"client_tls_sslmode": "verify-ca", "client_tls_cert_file": host.file, "client_tls_key_file": host.key}
    servers.url("postgresql")
    with servers.database("postgresql") as direct:
        database = Database("postgresql", direct.render_as_string(hide_password=False))
        own = {"listen_addr": "127.0.0.1", "client_tls_ca_file": ours.file, **tls}
        with pooling(database, servers.folder, own, port=port) as pooler:
            yield pooler.url.set(host="localhost", port=port, query={})


@contextmanager
def _mariadb(
    place: Path, host: Certificate, ours: Authority, port: int, monkeypatch: pytest.MonkeyPatch
) -> Iterator[URL]:
    options = {
        "skip-networking": "0",
        "bind-address": "127.0.0.1",
        "port": port,
        "ssl-ca": ours.file,
        "ssl-cert": host.file,
        "ssl-key": host.key,
        "require-secure-transport": "1",
    }
    for name, value in options.items():
        monkeypatch.setitem(MariaDB.options, name, str(value))
    process = MariaDB.start(place)
    try:
        at = MariaDB.url(place).set(database=MariaDB.first)
        engine = create_engine(at, poolclass=NullPool, isolation_level="AUTOCOMMIT", connect_args=MariaDB.arguments)
        with engine.connect() as connection:
            connection.exec_driver_sql("CREATE DATABASE jobs")
            connection.exec_driver_sql(f"CREATE USER shop IDENTIFIED BY '{PASSWORD}' REQUIRE X509")
            connection.exec_driver_sql("GRANT ALL ON jobs.* TO shop")
        yield URL.create("mysql", "shop", PASSWORD, "localhost", port, "jobs")
    finally:
        process.kill()
        process.wait(30)


def test_a_node_works_where_the_certificate_is_right(tmp_path: Path, secured: Secured) -> None:
    options = {kind: {**VERIFIED[kind], **OWN[kind]} for kind in KINDS}
    root = folder(tmp_path, "a", Database(secured.kind, secured.address(options, **secured.files)))
    (root / "gate").touch()
    with App(root) as app:
        app.tasks["hold"].add_many([[]] * 10)
    node = drained(root)

    assert sorted(map(int, notes(root, "end"))) == list(range(1, 11))
    assert job(root, 10)["status"] == "SUCCESS"
    assert PASSWORD not in node.errors


def test_a_certificate_of_another_authority_is_refused(tmp_path: Path, secured: Secured) -> None:
    said = secured.refusal(tmp_path, secured.address(VERIFIED, authority=secured.theirs.file))

    assert "does not prove who it is" in said
    assert "certificate verify failed" in said
    assert AUTHORITY[secured.kind] in said


def test_a_certificate_for_another_host_is_refused(tmp_path: Path, secured: Secured) -> None:
    said = secured.refusal(tmp_path, secured.address(VERIFIED, "127.0.0.1", authority=secured.ours.file))

    assert "does not prove who it is" in said
    assert "match" in said
    assert "'127.0.0.1'" in said.replace('"', "'")


def test_an_authority_whose_file_is_not_there_is_refused(tmp_path: Path, secured: Secured) -> None:
    said = secured.refusal(tmp_path, secured.address(VERIFIED, authority=tmp_path / "nowhere.pem"))

    # It stands in the address too, where it is written in another way.
    assert str(tmp_path / "nowhere.pem") in said


def test_who_has_no_certificate_of_their_own_is_refused_where_one_is_wanted(tmp_path: Path, secured: Secured) -> None:
    said = secured.refusal(tmp_path, secured.address(VERIFIED, authority=secured.ours.file))

    assert {"postgresql": "certificate required", "mariadb": "bring a certificate"}[secured.kind] in said


def test_encrypting_alone_is_enough_where_the_address_wants_no_more(tmp_path: Path, secured: Secured) -> None:
    options = {kind: {**UNVERIFIED[kind], **OWN[kind]} for kind in KINDS}
    root = folder(tmp_path, "a", Database(secured.kind, secured.address(options, "127.0.0.1", **secured.files)))

    assert command(root, "db", "status").returncode == 0


def test_who_does_not_encrypt_is_told_to(tmp_path: Path, secured: Secured) -> None:
    said = secured.refusal(tmp_path, secured.address(PLAIN))

    assert {"postgresql": "SSL required", "mariadb": "has to encrypt"}[secured.kind] in said
