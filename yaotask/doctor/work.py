"""Those who work, and what waits for them in vain."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

from yaotask import nodeview
from yaotask.clock import SECOND
from yaotask.definitions.catalog import Catalog
from yaotask.doctor.contents import Contents, Row
from yaotask.doctor.finding import Findings, fault, ok, span, warn
from yaotask.phrases import counted

START = "start one with: yaotask run"
# Clocks that are set by the network differ by less.
CLOSE = 2 * SECOND
# So much later than its lease runs out, a dead process is noticed at the latest.
NOTICED = 5 * SECOND


def clock(contents: Contents) -> Findings:
    """This machine's clock against the times that were written."""
    ahead = contents.latest - contents.now
    if ahead <= CLOSE:
        yield ok("clock", "in step with the store")
        return
    what = f"the store has times that are {span(ahead)} ahead of this machine's clock"
    find = fault if ahead > contents.lease else warn
    yield find("clock", what, "set the clocks of all machines by the network: leases and delays go by them")


def workers(contents: Contents, version: str) -> Findings:
    """The processes that are up: of one version, each of them heard of, and none held up by handlers."""
    alive = [process for process in contents.processes if process["alive"]]
    up = f"{counted(len(alive), 'process', 'processes')} of {counted(_nodes(alive), 'node')}"
    yield ok("workers", f"{up} up" if alive else "none is up")
    for process in alive:
        yield from _troubles(process, f"{process['kind']} {process['key']} on {process['host']}", version)


def _troubles(process: Row, name: str, version: str) -> Findings:
    if process["version"] not in (None, version):
        what = f"{name} is yaotask {process['version']}, this is {version}"
        yield warn("workers", what, "start that node again, with the same version")
    if process["state"] == "silent":
        advice = "its stacks are in its log; use a thread, or `executor: process`, for what blocks"
        yield fault("workers", f"{name} is silent: a handler blocks it", advice)
    for task, number in sorted(process["zombies"].items()):
        what = f"{name} has {counted(number, 'handler')} of {task} that did not stop at the timeout or cancellation"
        yield warn("workers", what, f"let {task} look at `job.cancelled`, or use `executor: process`")


def claims(contents: Contents) -> Findings:
    """Jobs whose worker is gone, and that nobody takes over."""
    alive = {process["key"] for process in contents.processes if process["alive"]}
    lost = [claim for claim in contents.claims if claim["worker"] not in alive]
    if not lost:
        yield ok("claims", f"{counted(len(contents.claims), 'job')} in hand")
        return
    since = contents.now - min(claim["claimed_at"] or contents.now for claim in lost)
    what = f"{counted(len(lost), 'job')} of workers that are gone, {_first(lost)} for {span(since)}"
    if contents.is_worked_on and since <= contents.lease + NOTICED:
        yield warn("claims", what, "nothing: they are taken over within seconds")
    elif contents.is_worked_on:
        yield fault("claims", what, "they should have been taken over: see what the log of `yaotask run` says")
    else:
        yield fault("claims", what, f"they run again once a worker is up: {START}")


def definitions(contents: Contents) -> Findings:
    """Tasks that nodes define in different ways."""
    for what in nodeview.disagreements(contents.processes):
        advice = (
            "bring the same files to all nodes, and start them again; until then a job goes by the node that runs it"
        )
        yield warn("definitions", what, advice)


def waiting(contents: Contents, catalog: Catalog, broken: Collection[str]) -> Findings:
    """Jobs that wait although they could run, and jobs that nobody could run."""
    whole = catalog.tasks.keys() - broken
    ready = [row for row in contents.waiting if row["ready"] and row["task"] in whole]
    if ready and not contents.is_worked_on:
        oldest = span(contents.now - min(row["since"] for row in ready))
        could_run = counted(sum(row["ready"] for row in ready), "job")
        yield fault("jobs", f"no worker is up, and {could_run} could run, the oldest for {oldest}", START)
    else:
        yield ok("jobs", f"{counted(sum(map(_size, contents.waiting)), 'job')} waiting")
    able, held_up = _able(contents.processes), _held_up(contents.processes)
    for row in contents.waiting:
        if able is not None and row["task"] in able:
            continue
        task, jobs = row["task"], counted(_size(row), "waiting job")
        if able is not None and task in held_up:
            nodes = ", ".join(held_up[task])
            what = f"{jobs} of {task}, which no node that is up can run: its handler is broken on {nodes}"
            yield warn("jobs", what, "see what `yaotask check` says there, mend it, and start that node again")
        elif task in broken:
            yield warn("jobs", f"{jobs} of {task}, whose handler is broken", "mend it, as said above")
        elif task not in catalog.tasks:
            advice = f"bring tasks/{task.replace('.', '/')}.yml back, or cancel them"
            yield warn("jobs", f"{jobs} of {task}, {_why(catalog, task)}", advice)
        elif able is not None:
            what = (
                f"{jobs} of {task}, which no node that is up runs: none was started since the task is there, or for it"
            )
            yield warn("jobs", what, "stop `yaotask run`, and start it again")


def events(contents: Contents) -> Findings:
    """Hooks that are not called, and those that failed for good."""
    undelivered, given_up = contents.undelivered, contents.given_up
    if undelivered["events"] and not contents.is_worked_on:
        late = span(contents.now - undelivered["since"])
        what = f"no worker is up, and {counted(undelivered['events'], 'event')} undelivered for {late}"
        yield fault("hooks", what, START)
    if given_up["events"]:
        last = f"{given_up['task']}.{given_up['id']}"
        what = f"{counted(given_up['events'], 'event')} given up, the last of {last}: {given_up['error']}"
        yield warn("hooks", what, "mend the hook; what was given up is kept, and not tried again")
    if not given_up["events"] and not undelivered["events"]:
        yield ok("hooks", "all delivered")


def _able(processes: Sequence[Row]) -> set[str] | None:
    """The tasks that the nodes which are up can run; None where that is not known of all, or none is up."""
    known = [nodeview.can_run(node) for node in _heads(processes)]
    if not known or None in known:
        return None
    return {task for tasks in known if tasks is not None for task in tasks}


def _held_up(processes: Sequence[Row]) -> Mapping[str, list[str]]:
    """Of each task the nodes which are up, and on which it is broken."""
    found: dict[str, list[str]] = defaultdict(list)
    for node in _heads(processes):
        for task in node["broken"]:
            found[task].append(nodeview.name(node))
    return found


def _heads(processes: Sequence[Row]) -> list[Row]:
    """Of those that are up, the ones that tell what their node runs."""
    return [process for process in processes if process["alive"] and process["kind"] in ("supervisor", "embedded")]


def _size(row: Row) -> int:
    return int(row["ready"] + row["later"])


def _nodes(processes: Sequence[Row]) -> int:
    return len({process["node"] or process["key"] for process in processes})


def _first(claims: Sequence[Row]) -> str:
    return f"{claims[0]['task']}.{claims[0]['id']}"


def _why(catalog: Catalog, task: str) -> str:
    return "whose file has problems" if catalog.faults(task) else "which has no file any more"
