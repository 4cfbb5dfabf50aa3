"""How a node leaves its store."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from store_support import EvenChance, ManualClock

from yaotask import App
from yaotask.errors import StorageUnavailable
from yaotask.runtime.membership import Membership
from yaotask.store import presence

LEASE = timedelta(seconds=15)


@pytest.mark.parametrize(("failures", "patience", "is_left"), [(2, 5.0, True), (1, 0.0, False), (99, 5.0, False)])
async def test_a_store_that_is_away_as_a_node_leaves_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failures: int, patience: float, is_left: bool
) -> None:
    leaves, asked = presence.leave, list[int]()

    def leave(*arguments: Any) -> None:
        asked.append(1)
        if len(asked) <= failures:
            raise StorageUnavailable("away")
        leaves(*arguments)

    with App(tmp_path) as app:
        app.upgrade_store()
        lock = presence.Lock.take(app.root / ".yaotask" / presence.FOLDER, "one")
        member = Membership(app.works.access, lock, LEASE, ManualClock(), EvenChance())
        await member.enter_node()
        monkeypatch.setattr(presence, "leave", leave)
        try:
            if is_left:
                await member.leave(patience)
            else:
                with pytest.raises(StorageUnavailable):
                    await member.leave(patience)
        finally:
            lock.release()
        with app.works.access.reading() as connection:
            left = connection.execute(text("SELECT count(*) FROM yaotask_workers")).scalar()

    assert left == (0 if is_left else 1)


async def test_a_node_that_leaves_is_not_entered_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with App(tmp_path) as app:
        app.upgrade_store()
        lock = presence.Lock.take(app.root / ".yaotask" / presence.FOLDER, "one")
        member = Membership(app.works.access, lock, LEASE, ManualClock(), EvenChance())
        await member.enter_node()
        await member.leave(0.0)
        missing = await member.renew({}, {})
        lock.release()
        with app.works.access.reading() as connection:
            left = connection.execute(text("SELECT count(*) FROM yaotask_workers")).scalar()

    assert (missing, left, caplog.messages) == (set(), 0, [])
