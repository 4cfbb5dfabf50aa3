"""Loss of power at any moment: what was acknowledged is on the disk, whatever else is."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from disk_support import Disk, Told, broken_promises

pytest_plugins = ["disk_fixtures"]
pytestmark = pytest.mark.timeout(120)

CUTS = 200
# Of so many cuts one is looked at with parts of what was not synced, too.
TORN_ONE_IN = 10


def test_after_each_of_200_losses_of_power_all_that_was_acknowledged_is_there(disk: Disk, powerloss: Path) -> None:
    disk.run(powerloss, cuts=CUTS)
    random = Random(1)  # noqa: S311 - the same disks each time
    broken: list[tuple[int, str, str]] = []
    for number, cut in enumerate(disk.cuts, 1):
        told = Told.read(cut / "told")
        disk.power_on(cut / "kept")
        broken += [(number, "kept", what) for what in broken_promises(disk.root, told)]
        if number % TORN_ONE_IN == 0:
            disk.power_on_torn(cut, random)
            broken += [(number, "torn", what) for what in broken_promises(disk.root, told)]

    assert len(disk.cuts) == CUTS
    assert broken == []
    assert min(len(ids) for ids in told.ended.values()) > 20  # or there was little to lose


@pytest.mark.parametrize("synchronous", ["NORMAL", "OFF"])
def test_a_store_that_syncs_less_is_seen_to_lose_what_was_acknowledged(
    disk: Disk, powerloss: Path, synchronous: str
) -> None:
    disk.run(powerloss, cuts=CUTS, rounds=1, synchronous=synchronous)
    lost = []
    # Without any sync there is no cut but the end of the program.
    for cut in disk.cuts or [disk.folder]:
        disk.power_on(cut / "kept")
        lost += [what for what in broken_promises(disk.root, Told.read(cut / "told")) if what.endswith("is missing")]

    assert lost
