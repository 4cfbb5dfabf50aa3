"""Send mail in the background: a handler, its own ids, and all five hooks.

Try it:

    yaotask add mail '任务-1' ann@example.com
    yaotask run --drain
"""

import json
import sqlite3
from contextlib import closing

from scripts.console import say
from yaotask import current_app, process


def Send(task_id, subject, *recipients):
    """The handler: the job's id, then what `add` was given. It prints where a real one would send."""
    # All of them before the first is sent: a try that fails is repeated from its beginning.
    for recipient in recipients:
        if "@" not in recipient:
            raise ValueError(f"{recipient} is not an address")
    for number, recipient in enumerate(recipients, start=1):
        say(f"Send: #{task_id} {subject!r} to {recipient}")
        process("tasks.mail.progress", task_id, number, len(recipients), f"Progress {number}/{len(recipients)}")
    return {"message": "ok", "sent": len(recipients)}


def NextID():
    """The id of the next job: 1025, 1026, 1027, ...

    An id must be new in its task, for ever and for every process that adds. A counter in this module
    would start again with each process, and `add` refuses an id that is taken; so it is kept in a
    file, which SQLite locks while it is read and written.
    """
    folder = current_app().root / "data"
    folder.mkdir(exist_ok=True)
    with closing(sqlite3.connect(folder / "ids.db", timeout=30, isolation_level=None)) as db:
        db.execute("CREATE TABLE IF NOT EXISTS counter (name TEXT PRIMARY KEY, last INTEGER NOT NULL)")
        db.execute("BEGIN IMMEDIATE")
        db.execute("INSERT INTO counter VALUES ('mail', 1024) ON CONFLICT DO NOTHING")
        db.execute("UPDATE counter SET last = last + 1 WHERE name = 'mail'")
        (last,) = db.execute("SELECT last FROM counter WHERE name = 'mail'").fetchone()
        db.execute("COMMIT")
    return last


def OnAdd(id):
    """Called once the job is stored."""
    say(f"OnAdd: #{id}")


def OnProgress(id, current, total, message):
    """Called for each progress call, in order."""
    say(f"OnProgress: #{id} {message} {current}/{total}")


def OnSuccess(id, res):
    """Called once the result is stored."""
    say(f"OnSuccess: #{id} {json.dumps(res)}")


def OnError(id, err):
    """Called once the job has failed for good, its retries included."""
    say(f"OnError: #{id} {err}")
