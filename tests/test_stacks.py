"""What threads do, cut to the frames that say something to users."""

from __future__ import annotations

import sys
import sysconfig
import threading
from pathlib import Path
from types import FrameType

import anyio
from store_support import in_thread

import yaotask
from yaotask.runtime.stacks import MOST_FRAMES, stack_of, users_stacks

ROOT = "/srv/app"
HEAD = "Thread 0x00007f01 (most recent call first):"
CURRENT = "Current thread 0x00007f02 (most recent call first):"
STANDARD = f'  File "{sysconfig.get_path("stdlib")}/threading.py", line 320 in wait'
OURS = f'  File "{Path(yaotask.__file__).parent}/store/ledger_thread.py", line 50 in run'
ANYIO = f'  File "{Path(anyio.__file__).parent}/_backends/_asyncio.py", line 1000 in run'
FROZEN = '  File "<frozen runpy>", line 88 in _run_code'
USERS = f'  File "{ROOT}/scripts/mail.py", line 3 in Send'
INSTALLED = '  File "/opt/packages/requests/api.py", line 73 in get'


def frame_of(thread: threading.Thread) -> FrameType:
    assert thread.ident is not None
    return sys._current_frames()[thread.ident]


def dump(*threads: list[str]) -> str:
    return "\n\n".join("\n".join(thread) for thread in threads) + "\n"


def test_only_threads_that_run_something_of_users_are_shown() -> None:
    busy, idle = [HEAD, STANDARD, USERS, OURS], [CURRENT, STANDARD, OURS, FROZEN]

    assert users_stacks(dump(busy, idle), ROOT) == "\n".join(busy)


def test_what_users_have_installed_is_theirs() -> None:
    busy = [HEAD, STANDARD, INSTALLED, OURS]

    assert users_stacks(dump([CURRENT, OURS], busy), ROOT) == "\n".join(busy)


def test_a_loop_that_turns_is_not_what_users_do() -> None:
    busy, idle = [HEAD, USERS, OURS], [CURRENT, STANDARD, ANYIO, OURS]

    assert users_stacks(dump(busy, idle), ROOT) == "\n".join(busy)


def test_a_package_beside_the_standard_library_is_users() -> None:
    busy = [HEAD, f'  File "{sysconfig.get_path("stdlib")}/site-packages/requests/api.py", line 73 in get', OURS]

    assert users_stacks(dump([CURRENT, OURS], busy), ROOT) == "\n".join(busy)


def test_a_folder_whose_name_begins_like_ours_is_users() -> None:
    busy = [HEAD, f'  File "{Path(yaotask.__file__).parent}-jobs/scripts/mail.py", line 3 in Send']

    assert users_stacks(dump([CURRENT, OURS], busy), ROOT) == "\n".join(busy)


def test_a_project_below_a_library_folder_is_still_users() -> None:
    root = f"{sysconfig.get_path('stdlib')}/app"
    busy = [HEAD, f'  File "{root}/scripts/mail.py", line 3 in Send']

    assert users_stacks(dump(busy, [CURRENT, STANDARD]), root) == "\n".join(busy)


def test_all_threads_are_shown_where_none_is_of_users() -> None:
    idle = [[HEAD, STANDARD, OURS], [CURRENT, OURS]]

    assert users_stacks(dump(*idle), ROOT) == "\n".join(line for thread in idle for line in thread)


def test_of_a_deep_stack_the_innermost_frames_are_shown() -> None:
    frames = [f'  File "{ROOT}/scripts/deep.py", line {number} in deeper' for number in range(MOST_FRAMES * 2)]

    assert users_stacks(dump([HEAD, *frames]), ROOT).splitlines() == [HEAD, *frames[:MOST_FRAMES]]


def test_nothing_is_made_of_nothing() -> None:
    assert users_stacks("", ROOT) == ""


def test_the_stack_of_a_running_thread_ends_with_what_it_does_now() -> None:
    here, over = threading.Event(), threading.Event()

    def work() -> None:
        here.set()
        over.wait()

    thread = threading.Thread(target=work)
    thread.start()
    here.wait()
    shown = stack_of(frame_of(thread))
    over.set()
    thread.join()

    assert "in work\n    over.wait()" in shown
    assert shown.index("in work") < shown.index("in wait")


def test_the_stack_of_a_loop_begins_where_users_code_does() -> None:
    shown = []

    async def handler() -> None:
        shown.append(stack_of(sys._getframe()))

    in_thread(lambda: anyio.run(handler))

    first, *_ = shown[0].splitlines()
    assert first.startswith(f'  File "{__file__}"')
    assert "anyio" not in first


def test_a_thread_without_users_code_is_shown_as_it_is() -> None:
    over = threading.Event()
    thread = threading.Thread(target=over.wait)
    thread.start()
    shown = stack_of(frame_of(thread))
    over.set()
    thread.join()

    assert "in _bootstrap" in shown
