"""Create servers in a rack that may be full: a failure that time can mend, so it is tried again.

A server here is a file `data/rack/<name>.json`, and the rack has four places. When all are taken,
`Create` fails and yaotask tries again after 60, 120 and 240 seconds; whoever makes room meanwhile
lets the next try succeed:

    yaotask add server --payload '{"name": "web-1", "cpus": 2}' --priority 10
    yaotask run
    yaotask call scripts.server.Remove web-1
"""

import json
import os

from scripts.console import say
from yaotask import current_app

PLACES = 4


class RackFull(Exception):
    """All places are taken; later there may be one."""


class NameTaken(Exception):
    """Another job created a server of this name. `fail_on` names this class: it is not retried."""


def Create(task_id, name, cpus=1, memory_gb=1):
    """The handler. A second try of a job whose first one did its work finds that work, and is done."""
    server = {"name": name, "cpus": cpus, "memory_gb": memory_gb, "job": task_id}
    place = rack() / f"{name}.json"
    if place.exists():
        if json.loads(place.read_text())["job"] != task_id:
            raise NameTaken(f"there is a server {name} already")
    elif len(servers()) >= PLACES:
        raise RackFull(f"no place for {name}: {PLACES} servers are there")
    else:
        # Written whole or not at all, so that a try that is killed leaves no half a server.
        draft = place.with_suffix(f".{task_id}.draft")
        draft.write_text(json.dumps(server))
        os.replace(draft, place)
    return {"server": server}


def Remove(name):
    """Make room: `yaotask call scripts.server.Remove web-1`."""
    (rack() / f"{name}.json").unlink()
    return servers()


def servers():
    """The names of the servers in the rack."""
    return sorted(place.stem for place in rack().glob("*.json"))


def rack():
    """The folder of the servers."""
    folder = current_app().root / "data" / "rack"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def OnRetry(id, error, attempt, after_ms):
    """Called when a try failed and another will follow."""
    say(f"server.{id}: try {attempt} failed: {error}; the next one in {after_ms / 1000:g} s")


def OnSuccess(id, response):
    """Called once the result is stored."""
    say(f"server.{id}: {response['server']['name']} is there")


def OnError(id, error):
    """Called once the job has failed for good."""
    say(f"server.{id}: gave up: {error}")
