"""Child processes that live, but do not do what they are for: their jobs wait, or are lost, and are never kept."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
from children_support import run, until

from yaotask import App
from yaotask.runtime import children as module

pytest_plugins = ["children_fixtures"]

Apart = Callable[..., App]

GOOD = "def Send(task_id): return 'done'\n"

# What keeps a child from going on with its work, once it has run its handler.
STUMBLES = """
    from yaotask import child
    from yaotask.errors import StorageBusy

    def Send(task_id):
        def end(*whatever):
            raise StorageBusy("the disk is gone")

        child.Child._end = end
"""


async def test_a_job_that_is_refused_again_and_again_comes_back_less_and_less_often(
    apart: Apart, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.011)
    app = apart(GOOD)
    pauses: list[float] = []
    sleep = app.clock.sleep

    async def note(seconds: float) -> None:
        pauses.append(seconds)
        await sleep(seconds)

    async with app.running():
        monkeypatch.setattr(app.clock, "sleep", note)
        (app.root / "scripts" / "mail.py").write_text("def Other(task_id): ...\n")
        id = await app.acall("tasks.mail.add")
        await until(lambda: caplog.text.count("a child process could not run") > 2)
        await app.acancel(f"mail.{id}")
    taken = [seconds for seconds in pauses if seconds in (0.011, 0.022, 0.044)]

    assert taken[:2] == [0.011, 0.022]
    assert all(later == 2 * before for before, later in pairwise(taken))


async def test_a_process_that_cannot_go_on_has_lost_its_job(apart: Apart, caplog: pytest.LogCaptureFixture) -> None:
    app = apart(STUMBLES, settings="losses: 1")
    async with app.running():
        job = await run(app)

    assert (job["status"], job["error_type"]) == ("FAILURE", "PoisonedJob")
    assert "the process that ran mail.1 ends: the disk is gone" in caplog.text
