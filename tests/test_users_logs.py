"""What handlers and hooks log is to be read in the log of the node, each line with the job that said it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from run_support import drained, started

from yaotask import App

pytestmark = pytest.mark.timeout(60)

Project = Callable[..., Path]

HANDLERS = """
    import logging

    log = logging.getLogger(__name__)

    def Thread(task_id):
        log.info("in a thread")
        # By itself this would have logging configured.
        logging.info("by the root")

    async def Loop(task_id):
        log.debug("never")
        try:
            1 / 0
        except ZeroDivisionError:
            log.exception("on the loop\\nforged", extra={"division": 3})

    def Child(task_id):
        logging.getLogger("a.library").warning("in a child")

    def Hook(*arguments):
        log.info("in a hook")
"""
TASKS = {
    "thread": "name: T\nprocess: scripts.some.Thread\nevent:\n  success: scripts.some.Hook\n",
    "loop": "name: L\nprocess: scripts.some.Loop\n",
    "child": "name: C\nprocess: scripts.some.Child\nexecutor: process\n",
}


def logged(root: Path) -> list[str]:
    """The log of a node that has run a job of each task."""
    with App(root) as app:
        for task in app.tasks:
            app.tasks[task].add()
    return drained(root).errors.splitlines()


def test_each_line_begins_with_its_job_or_its_logger(project: Project) -> None:
    lines = logged(project(tasks=TASKS, scripts={"some": HANDLERS}))
    said = {line[len("12:00:01 ") :] for line in lines if not line.startswith(" ")}

    assert {
        "INFO  thread.1: in a thread",
        "INFO  thread.1: by the root",
        "INFO  scripts.some: in a hook",
        "ERROR loop.1: on the loop\\nforged",
        "WARN  child.1: in a child",
    } <= said
    assert "    ZeroDivisionError: division by zero" in lines
    assert not any("never" in line for line in lines)


def test_each_line_is_an_object_with_its_job_and_fields(project: Project) -> None:
    lines = logged(project(tasks=TASKS, scripts={"some": HANDLERS}, settings="log: json\n"))
    told: list[dict[str, Any]] = [json.loads(line) for line in lines]
    said = {one["message"]: one for one in told}

    assert said["in a thread"].items() >= {"logger": "scripts.some", "level": "info", "job": "thread.1"}.items()
    assert said["by the root"].items() >= {"logger": "root", "job": "thread.1"}.items()
    assert said["on the loop\nforged"].items() >= {"job": "loop.1", "division": 3, "level": "error"}.items()
    assert said["on the loop\nforged"]["traceback"].endswith("ZeroDivisionError: division by zero")
    assert said["in a child"].items() >= {"logger": "a.library", "job": "child.1"}.items()
    assert "job" not in said["in a hook"]


@pytest.mark.parametrize("level", ["WARNING", "INFO"])
def test_who_configures_logging_has_it_so(project: Project, level: str) -> None:
    configured = f"""
    import logging

    logging.basicConfig(format="MINE %(message)s", level="{level}")
    """
    lines = logged(project(tasks=TASKS, scripts={"some": configured + HANDLERS}))

    assert "MINE in a child" in lines
    assert ("MINE in a thread" in lines) == (level == "INFO")
    assert not any("thread.1: " in line for line in lines)


ODD = """
    import logging

    log = logging.getLogger("odd")

    class Bounce(Exception): ...

    class Mute:
        def __str__(self):
            raise ValueError("mute")

    circle = []
    circle.append(circle)

    def Thread(task_id):
        log.info("%s and %s", 1)
        log.info("%s", Mute())
        log.info("with extras", extra={"job": "mail.7", "mute": Mute(), "circle": circle})
        try:
            raise Bounce("no such address")
        except Bounce:
            log.exception("bounced")
"""


def test_what_cannot_be_written_is_said_in_a_line_and_no_job_is_another(project: Project) -> None:
    root = project(tasks={"thread": "name: T\nprocess: scripts.some.Thread\n"}, scripts={"some": ODD})
    lines = logged(root)
    said = [line[len("12:00:01 ") :] for line in lines if " thread.1: " in line or " odd: " in line]

    assert said == [
        "INFO  odd: what is logged at some.py:16 cannot be written: TypeError: not enough arguments for format string",
        "INFO  odd: what is logged at some.py:17 cannot be written: ValueError: mute",
        "INFO  thread.1: with extras",
        "ERROR thread.1: bounced",
    ]
    assert "    scripts.some.Bounce: no such address" in lines


def test_extras_of_any_kind_are_fields_of_one_object(project: Project) -> None:
    root = project(
        tasks={"thread": "name: T\nprocess: scripts.some.Thread\n"}, scripts={"some": ODD}, settings="log: json\n"
    )
    told: list[dict[str, Any]] = [json.loads(line) for line in logged(root)]
    said = {one["message"]: one for one in told}

    assert said["with extras"]["job"] == "thread.1"
    assert said["with extras"]["mute"] == "<Mute: ValueError>"
    assert said["with extras"]["circle"] == "[[...]]"


NAMED = """
    import logging

    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("MINE %(message)s"))
    logging.getLogger("named").addHandler(handler)
    logging.getLogger("named").setLevel("INFO")
    logging.getLogger("library").addHandler(logging.NullHandler())
    logging.getLogger("errors").addHandler(logging.StreamHandler())
    logging.getLogger("errors").handlers[0].setLevel("ERROR")
    LEVEL

    def Thread(task_id):
        logging.getLogger("named.inner").info("heard by mine")
        logging.getLogger("another").info("more")
        logging.getLogger("library.pool").warning("full")
        logging.getLogger("errors").warning("no error")
"""


@pytest.mark.parametrize("level", ["", "logging.getLogger().setLevel('WARNING')"])
def test_what_a_script_has_named_a_place_for_is_there_alone(project: Project, level: str) -> None:
    root = project(
        tasks={"thread": "name: T\nprocess: scripts.some.Thread\n"}, scripts={"some": NAMED.replace("LEVEL", level)}
    )
    lines = logged(root)

    assert [line for line in lines if "heard by mine" in line] == ["MINE heard by mine"]
    # What has a handler that does not write it is no other's.
    assert {"thread.1: full", "thread.1: no error"} <= {line[len("12:00:01 WARN  ") :] for line in lines}
    # And at no other level than it wants.
    assert any("thread.1: more" in line for line in lines) == (not level)


def test_a_program_that_runs_jobs_itself_has_its_logging_as_it_was(project: Project) -> None:
    root = project(tasks={"thread": TASKS["thread"]}, scripts={"some": HANDLERS.replace("logging.info", "log.debug")})
    program = """
import asyncio, logging
from yaotask import App

async def main():
    async with App(".") as app, app.running():
        name = f"thread.{await app.tasks['thread'].aadd()}"
        async for view in app.afollow(name):
            pass
    print(logging.root.handlers, logging.root.level, view["status"])

asyncio.run(main())
"""
    with started(root, ["-c", program]) as ran:
        assert ran.status() == 0, ran.errors
        assert ran.output.splitlines()[-1] == "[] 30 SUCCESS"
        assert "in a thread" not in ran.errors
