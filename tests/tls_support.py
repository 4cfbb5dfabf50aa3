"""Certificates for servers of the tests, made by openssl when they are needed."""

from __future__ import annotations

import shutil
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path

from servers import Missing

ADVICE = "openssl is not installed for the tests: apt-get install openssl"
# What Python 3.13 wants of an authority, and of what it has signed.
_OF_AUTHORITY = "keyUsage=critical,keyCertSign,cRLSign"
_SIGNED = "basicConstraints=CA:FALSE\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\nsubjectAltName=DNS:{}\n"
_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


@dataclass(frozen=True)
class Certificate:
    """A certificate and its key, in files."""

    file: Path
    key: Path


class Authority:
    """Signs certificates; `folder` is where all of them are, and readable by others where servers are others."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._own = Certificate(folder / f"{name}.pem", folder / f"{name}.key")
        own = ("-keyout", self._own.key, "-out", self._own.file)
        _openssl("req", "-x509", *_KEY, *own, "-days", "2", "-subj", f"/CN={name}", "-addext", _OF_AUTHORITY)

    @property
    def file(self) -> Path:
        """The certificate that clients must know."""
        return self._own.file

    def sign(self, name: str) -> Certificate:
        """A new certificate for a host, or a user, of this name."""
        made = Certificate(self._folder / f"{name}.pem", self._folder / f"{name}.key")
        request, wanted = self._folder / f"{name}.csr", self._folder / f"{name}.ext"
        wanted.write_text(_SIGNED.format(name))
        _openssl("req", "-new", *_KEY, "-keyout", made.key, "-out", request, "-subj", f"/CN={name}")
        signing = ("-CA", self._own.file, "-CAkey", self._own.key, "-CAcreateserial", "-extfile", wanted, "-days", "2")
        _openssl("x509", "-req", "-in", request, "-out", made.file, *signing)
        return made


def _openssl(*words: str | Path) -> None:
    program = shutil.which("openssl")
    if program is None:
        raise Missing(ADVICE)
    done = subprocess.run([program, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def free_port() -> int:
    """One that nobody listens at, just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
