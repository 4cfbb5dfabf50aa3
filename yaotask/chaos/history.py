"""What callers and handlers write down while it happens, a JSON object a line, and reading it back.

A line is handed to the kernel whole, before what it announces is done: the death of its writer loses none. The last
line of a disk that is full may be torn; it is left out.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from yaotask.chaos.facts import INFO, Call, JobId, Note
from yaotask.codec import decode, encode

HISTORY, WITNESS = "history.jsonl", "witness.jsonl"


class History:
    """The calls of one process, from whichever of its threads; those of the next in its folder have another `name`."""

    def __init__(self, folder: Path, name: str) -> None:
        self._name = name
        self._file = os.open(folder / HISTORY, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def write(self, call: int, phase: str, **told: Any) -> None:
        """What is about to be done, `invoke`, or what came of it."""
        os.write(self._file, encode({"who": self._name, "call": call, "phase": phase, **told}) + b"\n")

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._file)


def lines(path: Path) -> Iterator[dict[str, Any]]:
    """What was written into a file, where there is one."""
    if not path.exists():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.endswith("\n"):
                yield decode(line)


def calls(folder: Path) -> Iterator[Call]:
    """The calls of the caller of one folder. Those that it never heard of again may have happened."""
    asked: dict[tuple[str, int], dict[str, Any]] = {}
    for line in lines(folder / HISTORY):
        which = (line["who"], line["call"])
        if line["phase"] == "invoke":
            asked[which] = line
        else:
            yield _call(asked.pop(which), line)
    for line in asked.values():
        yield _call(line, {"phase": INFO})


def _call(asked: dict[str, Any], answer: dict[str, Any]) -> Call:
    id = answer.get("id", asked.get("id"))
    return Call(
        operation=asked["operation"],
        answer=answer["phase"],
        began=asked["at"],
        ended=answer.get("at"),
        job=None if id is None else JobId(asked["task"], id),
        tag=asked.get("tag"),
        key=asked.get("key"),
        seen=answer.get("seen"),
        error=answer.get("error"),
    )


def notes(folder: Path) -> Iterator[Note]:
    """What the handlers and hooks of one node did."""
    for line in lines(folder / WITNESS):
        yield Note(
            at=line["at"],
            node=folder.name,
            pid=line["pid"],
            what=line["what"],
            job=JobId(line["task"], line["id"]),
            generation=line.get("generation", 0),
            fence=line.get("fence", 0),
            tag=line.get("tag"),
            how=line.get("how"),
        )
