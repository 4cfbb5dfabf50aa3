"""Sessions of a server, as somebody beside them sees them and ends them."""

from __future__ import annotations

import pytest
from run_support import until
from sqlalchemy.exc import DBAPIError
from store_support import Bench

from yaotask.store import sessions

pytest_plugins = ["store_fixtures"]
pytestmark = pytest.mark.only_on("postgresql", "mariadb")


def test_others_are_seen_until_they_are_ended_and_one_that_has_gone_is_ended_without_a_word(bench: Bench) -> None:
    engine = bench.store.dialect.engine(writer=False)
    with engine.connect() as one, engine.connect() as other:
        before = sessions.others(one)
        with engine.connect() as ended:
            (number,) = set(sessions.others(one)) - set(before)
            sessions.end(one, number)
            until(lambda: number not in sessions.others(one))
            with pytest.raises(DBAPIError):
                ended.exec_driver_sql("SELECT 1")
            ended.invalidate()
        sessions.end(one, number)

        assert other.exec_driver_sql("SELECT 1").scalar_one() == 1
        assert set(sessions.others(one)) <= set(before)
    engine.dispose()
