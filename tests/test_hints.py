"""Hints to workers: they arrive, they are short, and nobody depends on them."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from yaotask import App
from yaotask.store import lookout
from yaotask.store.hints import EVERYWHERE, LONGEST_ADDRESS, SUFFIX, Ear, hint


def an_ear(folder: Path, name: str = "a") -> Ear:
    return Ear(folder / f"{name}{SUFFIX}")


async def heard(ear: Ear) -> frozenset[str]:
    with anyio.fail_after(5):
        return await ear.hear()


async def test_a_hint_reaches_every_worker(tmp_path: Path) -> None:
    ears = [an_ear(tmp_path, name) for name in ("a", "b")]

    hint(tmp_path, EVERYWHERE)

    for ear in ears:
        await heard(ear)
        ear.close()


async def test_hints_that_have_come_count_as_one(tmp_path: Path) -> None:
    ear = an_ear(tmp_path)
    for _ in range(5):
        hint(tmp_path, EVERYWHERE)

    await heard(ear)

    with anyio.move_on_after(0.05) as waited:
        await ear.hear()
    assert waited.cancelled_caught
    ear.close()


async def test_hints_say_of_which_tasks_there_are_jobs(tmp_path: Path) -> None:
    ear = an_ear(tmp_path)
    hint(tmp_path, {"mail", "任务"})
    hint(tmp_path, {"mail", "media/video"})

    assert await heard(ear) == {"mail", "任务", "media/video"}
    ear.close()


async def test_where_one_says_everywhere_all_do(tmp_path: Path) -> None:
    ear = an_ear(tmp_path)
    for tasks in ({"mail"}, EVERYWHERE, {"video"}):
        hint(tmp_path, tasks)

    assert await heard(ear) == EVERYWHERE
    ear.close()


async def test_of_more_tasks_than_a_hint_can_hold_it_says_everywhere(tmp_path: Path) -> None:
    ear = an_ear(tmp_path)
    hint(tmp_path, {f"{number:0128}" for number in range(16)})

    assert await heard(ear) == EVERYWHERE
    ear.close()


@pytest.mark.parametrize("words", [b"\xff\xfe", b"\0", b"\n\n", b"x" * 10_000])
async def test_words_that_nobody_understands_name_no_task(tmp_path: Path, words: bytes) -> None:
    ear = an_ear(tmp_path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as mouth:
        mouth.sendto(words, str(tmp_path / f"a{SUFFIX}"))

    assert await heard(ear)
    ear.close()


async def test_more_hints_than_a_worker_takes_block_nobody(tmp_path: Path) -> None:
    ear = an_ear(tmp_path)

    for _ in range(10_000):
        hint(tmp_path, EVERYWHERE)

    await heard(ear)
    ear.close()


async def test_a_worker_that_died_is_passed_over(tmp_path: Path) -> None:
    dead, alive = an_ear(tmp_path), an_ear(tmp_path, "b")
    dead._socket.close()

    hint(tmp_path, EVERYWHERE)

    await heard(alive)
    alive.close()
    dead.close()


def test_a_hint_where_nobody_ever_worked_is_nothing(tmp_path: Path) -> None:
    hint(tmp_path / "none", EVERYWHERE)

    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc; elsewhere such a worker polls")
async def test_a_folder_may_be_deeper_than_the_address_of_a_socket_is_long(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 40)
    folder.mkdir()
    assert len(str(folder)) > LONGEST_ADDRESS
    ear = an_ear(folder)

    hint(folder, EVERYWHERE)

    await heard(ear)
    ear.close()


def test_an_ear_leaves_nothing_behind(tmp_path: Path) -> None:
    ear = an_ear(tmp_path)
    ear.close()
    ear.close()

    assert list(tmp_path.iterdir()) == []


async def test_a_job_that_another_process_adds_is_found_without_polling(
    project: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("EAGER_LOOK", "LAZY_LOOK"):
        monkeypatch.setattr(lookout, name, 3_600.0)
    root = project(
        tasks={"mail": "name: Mail\nprocess: scripts.mail.Send"},
        scripts={"mail": "def Send(id): return id"},
        settings="poll: 1h",
    )
    async with App(root) as worker, App(root) as adder, worker.running():
        # Whatever the worker's own start has written is behind it.
        assert await how_it_ends(worker) == "SUCCESS"

        assert await how_it_ends(adder) == "SUCCESS"


async def how_it_ends(app: App) -> object:
    id = await app.tasks["mail"].aadd()
    return [job["status"] async for job in app.afollow(f"mail.{id}")][-1]
