"""Hints to workers: they arrive, they are short, and nobody depends on them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from yaotask.store.hints import LONGEST_ADDRESS, Ear, Mouth


@pytest.fixture
def mouth(tmp_path: Path) -> Iterator[Mouth]:
    made = Mouth(tmp_path)
    yield made
    made.close()


async def heard(ear: Ear) -> None:
    with anyio.fail_after(5):
        await ear.hear()


async def test_a_hint_reaches_every_worker(tmp_path: Path, mouth: Mouth) -> None:
    ears = [Ear(tmp_path, name) for name in ("a", "b")]

    mouth.hint()

    for ear in ears:
        await heard(ear)
        ear.close()


async def test_hints_that_have_come_count_as_one(tmp_path: Path, mouth: Mouth) -> None:
    ear = Ear(tmp_path, "a")
    for _ in range(5):
        mouth.hint()

    await heard(ear)

    with anyio.move_on_after(0.05) as waited:
        await ear.hear()
    assert waited.cancelled_caught
    ear.close()


async def test_more_hints_than_a_worker_takes_block_nobody(tmp_path: Path, mouth: Mouth) -> None:
    ear = Ear(tmp_path, "a")

    for _ in range(10_000):
        mouth.hint()

    await heard(ear)
    ear.close()


async def test_a_worker_that_died_is_passed_over(tmp_path: Path, mouth: Mouth) -> None:
    dead, alive = Ear(tmp_path, "a"), Ear(tmp_path, "b")
    dead._socket.close()

    mouth.hint()

    await heard(alive)
    alive.close()
    dead.close()


def test_a_hint_where_nobody_ever_worked_is_nothing(tmp_path: Path) -> None:
    mouth = Mouth(tmp_path / "none")

    mouth.hint()

    mouth.close()


async def test_a_folder_may_be_deeper_than_the_address_of_a_socket_is_long(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 40)
    folder.mkdir()
    assert len(str(folder)) > LONGEST_ADDRESS
    ear, mouth = Ear(folder, "a"), Mouth(folder)

    mouth.hint()

    await heard(ear)
    ear.close()
    mouth.close()


def test_an_ear_leaves_nothing_behind(tmp_path: Path) -> None:
    ear = Ear(tmp_path, "a")
    ear.close()
    ear.close()

    assert list(tmp_path.iterdir()) == []
