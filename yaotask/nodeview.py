"""The processes that run jobs as users get them from every door: one dict each."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from yaotask.clock import SECOND, rfc3339
from yaotask.definitions import digest
from yaotask.definitions.model import Definition
from yaotask.phrases import listed

Row = Mapping[str, Any]
View = dict[str, Any]

# What a supervisor tells of a process.
TOLD = {
    "version": str,
    "state": str,
    "beat": int | float,
    "memory": int,
    "zombies": dict,
    "ended": dict,
    "tasks": list,
    "broken": list,
    "digests": str,
}
# So many jobs of a process are named, the oldest first; the others are counted.
MOST_NAMED = 100


def views(processes: Iterable[Row], claims: Iterable[Row], now: int) -> list[View]:
    """Each process and what it has in hand; `now` is what ages are told by."""
    held: dict[int, list[Row]] = defaultdict(list)
    for claim in claims:
        held[claim["worker"]].append(claim)
    shown = [_view(process, held[process["key"]], now) for process in processes]
    told = differing(shown)
    for process in shown:
        process["differs"] = [task for task, groups in told.items() if any(process in group for group in groups)]
    return shown


def differing(processes: Iterable[View]) -> dict[str, list[list[View]]]:
    """The tasks that nodes which are up define in different ways: of each the nodes, those together that agree."""
    told: dict[str, dict[str, list[View]]] = defaultdict(lambda: defaultdict(list))
    for process in processes:
        for task, word in (process["definitions"] or {}).items() if process["alive"] else ():
            told[task][word].append(process)
    return {task: list(words.values()) for task, words in sorted(told.items()) if len(words) > 1}


def disagreements(processes: Iterable[View]) -> list[str]:
    """The same in words: `mail differs between node 1 on a, node 4 on b and node 7 on c`."""
    tasks_of: dict[str, list[str]] = defaultdict(list)
    for task, groups in differing(processes).items():
        tasks_of[" and ".join(", ".join(map(name, group)) for group in groups)].append(task)
    return [
        f"{listed(tasks)} {'differs' if len(tasks) == 1 else 'differ'} between {nodes}"
        for nodes, tasks in tasks_of.items()
    ]


def name(process: Row) -> str:
    """`node 5 on build-1`, of a supervisor; `embedded 9 on build-1`."""
    kind = "node" if process["kind"] == "supervisor" else process["kind"]
    return f"{kind} {process['key']} on {process['host']}"


def can_run(process: Row) -> set[str] | None:
    """The tasks whose jobs a node can run, of which its supervisor or embedded worker tells; None: nothing was told."""
    return None if process["tasks"] is None else set(process["tasks"]) - set(process["broken"])


def told_of(tasks: Mapping[str, Definition], broken: Iterable[str]) -> dict[str, Any]:
    """What a node tells of the tasks that it runs, or would if they were not `broken`: small, for it tells it often."""
    names = sorted(tasks)
    digests = "".join(digest.digest(tasks[name]) for name in names)
    return {"tasks": names, "digests": digests, "broken": sorted(broken)}


def can_work(process: View) -> bool:
    """Whether jobs may be claimed by it: it lives, and is no supervisor or the like."""
    return bool(process["alive"] and process["kind"] in ("worker", "embedded"))


def _view(process: Row, held: Sequence[Row], now: int) -> View:
    return {
        **{name: process[name] for name in ("key", "kind", "node")},
        "number": process["number"] + 1 if process["kind"] == "worker" and process["number"] is not None else None,
        **{name: process[name] for name in ("incarnation", "host", "pid")},
        **_life(process, now),
        **_heard(process, now),
        **_work(held, now),
    }


def _life(process: Row, now: int) -> View:
    return {
        "alive": not process["is_gone"],
        "started_at": rfc3339(process["started_at"]),
        "age": _seconds(process["started_at"], now),
        "renewed_at": rfc3339(process["renewed_at"]),
        "lease_ends_at": rfc3339(process["expires_at"]),
        "lease_age": _seconds(process["renewed_at"], now),
        "lease_left": None if process["expires_at"] is None else _seconds(now, process["expires_at"]),
    }


def _heard(process: Row, now: int) -> View:
    """What its supervisor has told of it; as that is written now and then, its last beat is older by now."""
    info = _info(process["info"])
    beat, renewed_at = info.get("beat"), process["renewed_at"]
    if beat is not None and renewed_at is not None:
        beat = round(beat + max(0, now - renewed_at) / SECOND, 3)
    return {
        "version": info.get("version"),
        "state": _state(process, info),
        "beat": beat,
        "memory": info.get("memory"),
        "zombies": info.get("zombies", {}),
        "ended": info.get("ended", {}),
        "tasks": info.get("tasks"),
        "broken": info.get("broken", []),
        "definitions": _definitions(info),
    }


def _definitions(info: Mapping[str, Any]) -> dict[str, str] | None:
    """The digest of each task; they are told as one text, in the order of the tasks."""
    tasks, text = info.get("tasks", []), info.get("digests", "")
    if not tasks or len(text) != len(tasks) * digest.LENGTH:
        return None
    starts = range(0, len(text), digest.LENGTH)
    return {str(task): text[start : start + digest.LENGTH] for task, start in zip(tasks, starts, strict=True)}


def _info(text: str | None) -> dict[str, Any]:
    """What was told, as far as it is understood: it may be from another version of yaotask."""
    try:
        info = json.loads(text or "{}")
    except ValueError:
        return {}
    if not isinstance(info, dict):
        return {}
    told = {name: info[name] for name, kind in TOLD.items() if isinstance(info.get(name), kind)}
    return {name: value for name, value in told.items() if not isinstance(value, list) or _are_names(value)}


def _are_names(values: Sequence[Any]) -> bool:
    return all(isinstance(value, str) for value in values)


def _state(process: Row, info: Mapping[str, Any]) -> str:
    if process["is_gone"]:
        return "dead"
    # It is entered once it can work; its supervisor tells more of it now and then.
    return str(info.get("state", "working"))


def _work(held: Sequence[Row], now: int) -> View:
    running = sum(claim["started_at"] is not None for claim in held)
    return {
        "running": running,
        "claimed": len(held) - running,
        "jobs": [
            {
                "task_id": f"{claim['task']}.{claim['id']}",
                "started": claim["started_at"] is not None,
                "seconds": _seconds(claim["started_at"] or claim["claimed_at"], now),
            }
            for claim in held[:MOST_NAMED]
        ],
    }


def _seconds(since: int | None, until: int) -> float | None:
    return None if since is None else round((until - since) / SECOND, 3)
