"""What the tests of the door share: a project of a few tasks, and its App."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from yaotask import App

TASKS = {
    "mail": """
        name: Send mail
        process: scripts.mail.Send
        size: 5
    """,
    "numbered": """
        name: Numbered
        process: scripts.mail.Send
        event: {next: scripts.mail.Next}
    """,
    "anumbered": """
        name: Numbered on a loop
        process: scripts.mail.Send
        event: {next: scripts.mail.ANext}
    """,
    "checked": """
        name: Checked
        process: scripts.mail.Send
        input:
          type: object
          required: [to]
          properties: {to: {type: string}, n: {type: integer}}
    """,
    "strict": """
        name: Strict
        process: scripts.mail.Strict
    """,
    "bulk": """
        name: Many
        process: scripts.mail.Send
        size: 100000
    """,
    "media/video": """
        name: Video
        process: scripts.mail.Send
    """,
}

SCRIPTS = {
    "mail": """
        from yaotask import current_app, process

        # What `next` answers, one after the other; an exception is raised.
        answers = []

        def Send(task_id, *args, **payload):
            return {"args": args, "payload": payload}

        def Strict(task_id, to, *, subject=""):
            return to

        def Next():
            answer = answers.pop(0)
            if isinstance(answer, BaseException):
                raise answer
            return answer

        async def ANext():
            return Next()

        def Answer(*given):
            answers[:] = given

        def Add(*args, **payload):
            return process("tasks.mail.add", *args, **payload)

        async def Where():
            return str(current_app().root)

        def Here():
            return str(current_app().root)

        def Upper(text):
            return text.upper()
    """,
}


@pytest.fixture
def root(project: Callable[..., Path]) -> Path:
    return project(tasks=TASKS, scripts=SCRIPTS)


@pytest.fixture
def app(root: Path) -> Iterator[App]:
    with App(root) as app:
        assert not app.problems
        yield app
