"""The file systems that a store lies on: not all of them can hold one."""

from __future__ import annotations

from pathlib import Path

from yaotask.errors import StorageUnavailable

# On these, locks and shared memory between processes do not work as SQLite needs them.
NETWORK_FILE_SYSTEMS = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "afs", "ceph", "glusterfs"}
)


def refuse_network(path: Path) -> None:
    """Raises StorageUnavailable for a database where locks cannot be trusted."""
    kind = file_system(path.resolve())
    if kind in NETWORK_FILE_SYSTEMS:
        raise StorageUnavailable(
            f"{path} is on a network file system ({kind}), where SQLite may lose data: put it on a local disk"
        )


def file_system(path: Path) -> str | None:
    """The kind of file system that holds a path, where the system tells."""
    try:
        mounts = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    best, kind = "", None
    for line in mounts:
        fields = line.split(" ")
        point = fields[1].encode().decode("unicode_escape")
        if len(point) >= len(best) and path.is_relative_to(point):
            best, kind = point, fields[2]
    return kind
