"""Claims that were delivered, and wait for a place."""

from __future__ import annotations

from collections import UserList
from collections.abc import Iterator

import pytest
from runtime_support import CLAIM

from yaotask.jobs import Claim
from yaotask.runtime.backlog import Backlog


class ReadAtTheSecondTry(UserList[Claim]):
    """A batch for which there is no memory at first."""

    tries = 0

    def __iter__(self) -> Iterator[Claim]:
        self.tries += 1
        if self.tries == 1:
            raise MemoryError
        return iter(self.data)


def test_claims_that_could_not_be_read_are_there_at_the_next_try() -> None:
    backlog = Backlog(for_threads=False)
    backlog.add([CLAIM._replace(id=1)])
    backlog.add(ReadAtTheSecondTry([CLAIM._replace(id=2)]))
    backlog.add([CLAIM._replace(id=3)])
    with pytest.raises(MemoryError):
        backlog.unpack()

    assert backlog.unpack() == 3
    assert [claim.id for claim in iter(backlog.next, None)] == [1, 2, 3]
