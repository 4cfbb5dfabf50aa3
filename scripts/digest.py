"""Digest every file below a folder, one job a file.

Try it:

    yaotask call scripts.digest.AddFolder /usr/lib/python3 __pycache__
    yaotask run --drain
    yaotask list digest
    yaotask call scripts.digest.Report
"""

import hashlib
import os

from yaotask import current_app, current_job

CHUNK = 1024 * 1024


def Digest(task_id, path):
    """The handler: SHA-256, bytes and lines of one file; a large file reports how far it is."""
    digest, size, lines = hashlib.sha256(), 0, 0
    with open(path, "rb") as file:
        total = os.fstat(file.fileno()).st_size
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            size += len(chunk)
            lines += chunk.count(b"\n")
            if total > CHUNK:
                current_job().progress(size, total, f"{lines} lines so far")
    return {"path": path, "sha256": digest.hexdigest(), "bytes": size, "lines": lines}


def AddFolder(folder, *without):
    """Add a job for every regular file below `folder`; returns how many were added.

    Folders whose names are in `without` are left out.
    """
    if not os.path.isdir(folder):
        raise NotADirectoryError(f"{folder} is not a folder")
    jobs = ({"path": path} for path in sorted(files(os.path.abspath(folder), without)))
    return len(current_app().tasks["digest"].add_many(jobs))


def files(folder, without=()):
    """The regular files below a folder; links are left out, and folders of these names."""
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in without]
        for path in (os.path.join(parent, name) for name in names):
            if os.path.isfile(path) and not os.path.islink(path) and is_text(path):
                yield path


def is_text(path):
    """Whether a file's name can be JSON; on Unix it may be bytes that are no text."""
    return path == path.encode(errors="replace").decode()


def Report():
    """Sum up the jobs that succeeded: files, bytes, lines, and files that are the same as another."""
    # The newest job of a file is the first in the list, and the one that counts.
    latest = {}
    for job in succeeded():
        latest.setdefault(job["response"]["path"], job["response"])
    results = latest.values()
    return {
        "files": len(results),
        "bytes": sum(result["bytes"] for result in results),
        "lines": sum(result["lines"] for result in results),
        "copies": len(results) - len({result["sha256"] for result in results}),
        "largest": max(results, key=lambda result: result["bytes"], default=None),
    }


def succeeded():
    """Every job of the task that succeeded, the newest first, page by page."""
    cursor = None
    while True:
        page = current_app().list("digest", status="SUCCESS", page_size=200, cursor=cursor)
        yield from page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            return
