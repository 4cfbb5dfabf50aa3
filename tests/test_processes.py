"""Processes of ours: what they are told, how they end, and that they never outlive who started them."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from textwrap import dedent, indent
from typing import IO

import pytest
from children_support import children
from run_support import until

from yaotask import processes, requests
from yaotask.processes import Spawned, describe, is_stopped, reap_strays, spawn, why

# Begins as our own programs do.
BEGIN = """
import os, signal, subprocess, sys
from yaotask import processes

def main(arguments):
    channel, hello = processes.adopted(arguments)
"""
Start = Callable[..., Spawned]


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Writes a program that processes can be started with; its name."""
    folder = tmp_path / "modules"
    folder.mkdir()
    monkeypatch.setenv("PYTHONPATH", str(folder))

    def write(body: str) -> str:
        (folder / "program.py").write_text(BEGIN + indent(dedent(body), "    "))
        return "program"

    return write


@pytest.fixture
def start(module: Callable[[str], str]) -> Iterator[Start]:
    """Starts a process that does this; what is left of it at the end is killed."""
    started: list[Spawned] = []

    def start_one(body: str, **hello: object) -> Spawned:
        started.append(spawn(module(body), "a child", hello))
        return started[-1]

    yield start_one
    for spawned in started:
        spawned.kill()
        until(spawned.ended)
        spawned.close()


class Lifeline:
    """A pipe for processes to hold."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self._path = path
        self.hold = f"line = os.open({str(path)!r}, os.O_WRONLY)\n"

    def taken(self) -> IO[bytes]:
        """What to read from, once a process holds it; the end comes when none does any more."""
        return self._path.open("rb")


@pytest.fixture
def lifeline(tmp_path: Path) -> Lifeline:
    return Lifeline(tmp_path / "lifeline")


# --- birth -----------------------------------------------------------------------------------------


def test_requests_to_end_that_come_while_a_process_is_imported_do_not_end_it(
    module: Callable[[str], str], tmp_path: Path
) -> None:
    begun, gate = tmp_path / "begun", tmp_path / "gate"
    os.mkfifo(begun)
    os.mkfifo(gate)
    program = tmp_path / "modules" / f"{module('channel.send(hello)')}.py"
    program.write_text(f"open({str(begun)!r}, 'w').close()\nopen({str(gate)!r}).read()\n{program.read_text()}")
    spawned = spawn("program", "a child", {"number": 1})
    # As soon as there is a process, and when it is in the middle of its imports.
    for wait in (int, begun.read_bytes):
        wait()
        for number in requests.REQUESTS:
            os.kill(spawned.pid, number)
    gate.write_bytes(b"")
    told = spawned.channel.receive()
    until(spawned.ended)
    spawned.close()

    assert told == {"number": 1}


def test_a_handler_of_signals_that_raises_at_a_start_leaves_none_blocked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that are due are called before the call returns that blocks them."""
    plain = signal.pthread_sigmask

    def block(how: int, mask: Iterable[int]) -> set[int | signal.Signals]:
        before = plain(how, mask)
        if how == signal.SIG_BLOCK and mask:
            raise KeyboardInterrupt
        return before

    before = plain(signal.SIG_BLOCK, ())
    with monkeypatch.context() as patch:
        patch.setattr(signal, "pthread_sigmask", block)
        with pytest.raises(KeyboardInterrupt), requests.not_heard():
            raise AssertionError

    assert plain(signal.SIG_SETMASK, before) == before


def test_a_process_is_told_its_hello(start: Start) -> None:
    spawned = start("channel.send({'heard': hello})", number=1)

    assert spawned.channel.receive() == {"heard": {"number": 1}}


def test_a_process_imports_what_its_parent_can(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend("/opt/ours")
    monkeypatch.setattr(sys, "path", [*sys.path, Path("/opt/no-text")])
    spawned = start("channel.send({'path': sys.path})")
    told = spawned.channel.receive()

    assert told is not None
    assert "/opt/ours" in told["path"]


def test_a_folder_whose_name_is_no_text_is_imported_from_too(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = os.fsdecode(b"/opt/\xff")
    monkeypatch.setattr(sys, "path", [*sys.path, folder, "/opt/\ud800"])
    spawned = start("channel.send({'path': ascii(sys.path[-2:])})")

    assert spawned.channel.receive() == {"path": ascii([folder, "/opt/\ud800"])}


def test_a_process_that_cannot_be_told_its_hello_is_not_left_behind(module: Callable[[str], str]) -> None:
    with pytest.raises(TypeError):
        spawn(module(""), "a child", {"number": object()})

    assert children() == []


def test_the_folder_that_we_are_in_hides_no_module(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "anyio.py").write_text("raise SystemExit('not this one')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    spawned = start("channel.send({'up': True})")

    assert spawned.channel.receive() == {"up": True}


def test_what_a_process_prints_fails_for_no_character(
    start: Start, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    spawned = start("print('\\u4f60'); channel.send({'printed': True}); channel.receive()")

    assert spawned.channel.receive() == {"printed": True}
    assert capfd.readouterr().out == "\\u4f60\n"


# Where nothing can be written: a pipe whose reader has left, a terminal that was closed, and a full disk.
NOWHERE = """
    left, pipe = os.pipe()
    os.close(left)
    screen, terminal = os.openpty()
    os.close(screen)
    for outlet in (os.open("/dev/full", os.O_WRONLY), pipe, terminal):
        for stream in (sys.stdout, sys.stderr):
            os.dup2(outlet, stream.fileno())
            print("a line", file=stream)
            print("the beginning of one", file=stream, end="")
            print("the end", file=stream, flush=True)
            stream.writelines(["some\\n", "more\\n"])
            stream.buffer.write(b"bytes" * 10_000)
            stream.flush()
    channel.send({"printed": True})
"""


UNBUFFERED = pytest.mark.parametrize("unbuffered", ["", "1"])


@UNBUFFERED
def test_what_a_process_prints_fails_for_no_reader_and_no_room(
    start: Start, monkeypatch: pytest.MonkeyPatch, unbuffered: str
) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    spawned = start(NOWHERE)

    assert spawned.channel.receive() == {"printed": True}
    until(spawned.ended)
    assert spawned.fate == "exit status 0"


def test_it_fails_for_any_other_reason(start: Start) -> None:
    spawned = start("""
        os.dup2(os.open(os.devnull, os.O_RDONLY), 1)
        try:
            print("a line", flush=True)
        except OSError as error:
            channel.send({"failed": error.errno})
            os._exit(0)
    """)

    assert spawned.channel.receive() == {"failed": errno.EBADF}


# What libraries ask a stream.
TELL = """
    import io

    def tell(stream):
        kinds = [kind.__name__ for kind in (io.BufferedWriter, io.FileIO) if isinstance(stream.buffer, kind)]
        kept = [stream.name, stream.mode, stream.encoding, stream.fileno(), stream.isatty(), stream.write_through]
        return [type(stream).__name__, *kinds, *kept, stream.writable(), stream.readable(), stream.closed]
"""
USED = """
    import faulthandler

    told = [tell(sys.stdout), tell(sys.stderr)]
    faulthandler.enable()
    sys.stdout.reconfigure(line_buffering=False)
    sys.stdout.buffer.write(b"bytes, ")
    sys.stdout.write("text")
    sys.stdout.reconfigure(line_buffering=True)
    channel.send({"told": told, "same": sys.stdout is sys.__stdout__ and sys.stderr is sys.__stderr__})
    channel.receive()
"""
PLAIN = """
    import json
    import sys

    print(json.dumps([tell(sys.stdout), tell(sys.stderr)]))
"""


@UNBUFFERED
def test_libraries_find_the_streams_of_a_process_as_they_know_them(
    start: Start, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], unbuffered: str
) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    plain = subprocess.run([sys.executable, "-c", dedent(TELL) + dedent(PLAIN)], stdout=subprocess.PIPE, check=True)
    spawned = start(dedent(TELL) + dedent(USED))

    assert spawned.channel.receive() == {"told": json.loads(plain.stdout), "same": True}
    assert capfd.readouterr().out == "bytes, text"


def test_a_process_that_cannot_be_started_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/no/such/python")

    with pytest.raises(FileNotFoundError):
        spawn("program", "a child", {})


# --- what it does ----------------------------------------------------------------------------------


def test_a_process_writes_down_what_it_does_whatever_that_is(start: Start) -> None:
    spawned = start("channel.send({'up': True})\nwhile True: pass")
    spawned.channel.receive()
    spawned.ask_for_stacks()
    until(lambda: "program.py" in spawned.stacks_told())
    spawned.ask_for_stacks()
    second = until(spawned.stacks_told)

    assert second.startswith("Current thread")
    assert second.count("Current thread") == 1


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="only /proc tells that a process is stopped")
def test_a_process_that_was_stopped_is_not_asked_so_that_it_survives_going_on(start: Start) -> None:
    spawned = start("channel.send({'up': True})\nchannel.receive()\nchannel.send({'on': True})\nchannel.receive()")
    spawned.channel.receive()
    os.kill(spawned.pid, signal.SIGSTOP)
    until(lambda: is_stopped(spawned.pid))
    spawned.ask_for_stacks()
    os.kill(spawned.pid, signal.SIGCONT)
    spawned.channel.send({"go": "on"})

    assert spawned.channel.receive() == {"on": True}
    assert spawned.stacks_told() == ""


# --- end -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "fate"),
    [
        ("sys.exit(3)", "exit status 3"),
        ("os._exit(0)", "exit status 0"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV"),
    ],
)
def test_how_a_process_ended_is_said_in_words(start: Start, body: str, fate: str) -> None:
    spawned = start(body)
    until(spawned.ended)

    assert spawned.fate == fate


def test_a_signal_without_a_name_is_a_number() -> None:
    assert describe(-99) == "signal 99"


def test_a_process_lives_until_it_is_killed(start: Start) -> None:
    spawned = start("channel.send({'up': True}); channel.receive()")
    spawned.channel.receive()
    before = spawned.is_dead(), spawned.ended()
    spawned.kill()
    until(spawned.is_dead)

    assert before == (False, False)
    assert spawned.ended()
    assert spawned.fate == "SIGKILL"


def test_one_that_was_waited_for_is_killed_no_more(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    spawned = start("sys.exit(0)")
    until(spawned.ended)
    killed: list[int] = []
    monkeypatch.setattr(os, "killpg", lambda group, number: killed.append(group))
    spawned.kill()

    assert spawned.ended()
    assert killed == []


SLEEPER = "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], pass_fds=[line])\n"


@pytest.mark.parametrize("end", ["", "os._exit(1)", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_what_a_process_started_does_not_outlive_it(start: Start, lifeline: Lifeline, end: str) -> None:
    spawned = start(lifeline.hold + SLEEPER + end)
    with lifeline.taken() as line:
        until(spawned.ended)

        assert line.read() == b""


def test_where_one_cannot_look_without_waiting_ends_are_noticed_too(
    start: Start, lifeline: Lifeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "waitid")
    spawned = start(lifeline.hold + SLEEPER + "channel.receive(); sys.exit(3)")
    with lifeline.taken() as line:
        before = spawned.is_dead(), spawned.ended()
        spawned.channel.send({"go": "on"})
        until(spawned.ended)

        assert line.read() == b""
    assert before == (False, False)
    assert spawned.fate == "exit status 3"


def test_a_process_whose_end_users_code_has_waited_for_has_ended(start: Start) -> None:
    spawned = start("sys.exit(3)")
    os.waitpid(spawned.pid, 0)

    assert spawned.is_dead()
    assert spawned.ended()
    assert spawned.fate == "a status that something else has taken"


# --- the parent's death ----------------------------------------------------------------------------

PARENT = """
import sys
from yaotask.processes import spawn
spawned = spawn("program", "a child", {})
sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a process notices by its channel alone")
def test_a_process_dies_with_its_parent_whatever_it_does(module: Callable[[str], str], lifeline: Lifeline) -> None:
    module(lifeline.hold + "while True: pass")
    with subprocess.Popen([sys.executable, "-c", PARENT], stdin=subprocess.PIPE) as parent, lifeline.taken() as line:
        parent.kill()

        assert line.read() == b""


def test_a_process_whose_parent_died_before_does_not_begin(
    module: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    program = module("sys.exit(7)")
    monkeypatch.setattr(os, "getpid", lambda: 1)
    spawned = spawn(program, "a child", {})
    until(spawned.ended)
    spawned.close()

    assert spawned.fate == "exit status 1"


# --- the first process of a container --------------------------------------------------------------


@pytest.fixture
def stray() -> Iterator[subprocess.Popen[bytes]]:
    """A child that has ended, and that nobody has waited for."""
    process = subprocess.Popen(["true"])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    yield process
    process.wait()


def is_waited_for(process: subprocess.Popen[bytes]) -> bool:
    try:
        return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    except ChildProcessError:
        return True


def test_strays_are_let_go(stray: subprocess.Popen[bytes]) -> None:
    reap_strays([])

    assert is_waited_for(stray)


def test_what_we_started_is_left_for_who_will_ask_for_it(stray: subprocess.Popen[bytes]) -> None:
    reap_strays([stray.pid])

    assert not is_waited_for(stray)


def test_one_that_was_buried_meanwhile_tells_no_stacks() -> None:
    spawned = spawn("yaotask.services", "for a test", {"root": "/nowhere"})
    spawned.kill()
    spawned.process.wait()
    spawned.close()
    spawned.ask_for_stacks()

    assert spawned.stacks_told() == ""


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.EMFILE, "Too many open files: raise their limit (ulimit -n)"),
        (errno.ENOMEM, "Cannot allocate memory"),
    ],
)
def test_why_no_process_can_be_started_is_said_with_what_to_do(number: int, said: str) -> None:
    assert why(OSError(number, os.strerror(number))) == said


def test_nobody_forks_while_a_process_is_started() -> None:
    """What was forked then would keep the start waiting until it ends."""
    order: list[str] = []

    def fork() -> None:
        forked = os.fork()
        if not forked:
            os._exit(0)
        order.append("forked")
        os.waitpid(forked, 0)

    thread = threading.Thread(target=fork)
    with processes.starting:
        thread.start()
        # It cannot end, or it does at once.
        thread.join(0.3)
        order.append("started")
    thread.join()

    assert order == ["started", "forked"]
