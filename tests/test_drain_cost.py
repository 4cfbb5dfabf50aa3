"""What a drain may cost whatever the machine: commits and statements, counted."""

from __future__ import annotations

from collections import Counter
from typing import Any

import anyio
import pytest
from runtime_support import PATIENCE, StageApp

from yaotask.store import direct

pytest_plugins = ["runtime_fixtures"]

JOBS = 3_000


@pytest.mark.timeout(60)
async def test_a_commit_is_shared_by_at_least_fifty_jobs_of_a_drain(
    stage: StageApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def handler(task_id: int, number: int) -> None:
        return None

    app = stage(handler, worker_nums=10, size=JOBS)
    await app.tasks["mail"].aadd_many([number] for number in range(JOBS))
    counted: Counter[str] = Counter()

    def run(cursor: Any, statement: str, values: Any) -> None:
        counted[statement.split(maxsplit=1)[0]] += 1
        cursor.execute(statement, values)

    monkeypatch.setattr(direct, "run", run)
    runner = app.works.embedded()
    with anyio.fail_after(PATIENCE * 2):
        async with runner.running(grace=1):
            await runner.drained()

    assert (await app.alist("mail", status="SUCCESS", page=1))["total"] == JOBS
    assert 0 < counted["COMMIT"] <= JOBS // 50
    assert sum(counted.values()) <= JOBS // 4
