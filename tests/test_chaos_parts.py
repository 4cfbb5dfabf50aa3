"""The parts of a run of chaos, each by itself: histories, the line, the nemesis, programs, the report, the command."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
from chaos_support import Story, whole
from run_support import command, until

from yaotask import App
from yaotask.chance import Dice
from yaotask.chaos import caller, history, scratch
from yaotask.chaos.check import judge
from yaotask.chaos.conduct import Order, Run
from yaotask.chaos.facts import FAIL, INFO, OK, Fault, JobId
from yaotask.chaos.history import History
from yaotask.chaos.killing import WEIGHTS, Killing
from yaotask.chaos.line import HERE, Address, Line
from yaotask.chaos.nemesis import Deck, Nemesis, Strike
from yaotask.chaos.programs import BIRTH, Node, Nursery, Program, descendants, table
from yaotask.chaos.report import Report
from yaotask.chaos.serving import Serving
from yaotask.cli.chaos import restart_by
from yaotask.cli.exits import CallFailed
from yaotask.clock import SystemClock
from yaotask.store import sessions
from yaotask.store.access import Access

# --- histories ------------------------------------------------------------------------------------------


def test_a_call_that_was_never_answered_may_have_happened(tmp_path: Path) -> None:
    told = History(tmp_path, "a")
    told.write(1, "invoke", at=5, operation="add", task="quick", tag="a-1", key="k")
    told.write(2, "invoke", at=6, operation="get", task="quick", id=3)
    told.write(2, OK, at=7, seen={"status": "SUCCESS"})
    told.close()
    answered, unknown = history.calls(tmp_path)

    assert (answered.answer, answered.job, answered.seen) == (OK, JobId("quick", 3), {"status": "SUCCESS"})
    assert (unknown.answer, unknown.ended, unknown.tag, unknown.key) == (INFO, None, "a-1", "k")


def test_processes_that_follow_each_other_in_a_folder_are_known_apart(tmp_path: Path) -> None:
    for name, answer in (("a", None), ("b", FAIL)):
        told = History(tmp_path, name)
        told.write(1, "invoke", at=5, operation="add", task="quick", tag=name)
        if answer:
            told.write(1, answer, at=6, error="QueueFull")
        told.close()

    assert {(call.tag, call.answer) for call in history.calls(tmp_path)} == {("a", INFO), ("b", FAIL)}


def test_a_line_that_was_torn_by_a_full_disk_is_left_out(tmp_path: Path) -> None:
    (tmp_path / history.WITNESS).write_text(
        '{"at": 1, "pid": 2, "what": "start", "task": "quick", "id": 3, "generation": 0, "fence": 1}\n{"at": 2, "pi'
    )

    assert [note.job for note in history.notes(tmp_path)] == [JobId("quick", 3)]


# --- the line -------------------------------------------------------------------------------------------


@pytest.fixture
def echo() -> Iterator[Address]:
    """A server that says what it hears."""
    server = socket.create_server((HERE, 0))

    def answer(client: socket.socket) -> None:
        with client:
            while some := client.recv(100):
                client.sendall(some)

    def serve() -> None:
        while True:
            try:
                client, _ = server.accept()
            except OSError:
                return
            threads.append(threading.Thread(target=answer, args=(client,)))
            threads[-1].start()

    threads: list[threading.Thread] = []
    serving = threading.Thread(target=serve)
    serving.start()
    yield Address(*server.getsockname())
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    serving.join()
    for thread in threads:
        thread.join()


@pytest.fixture
def line(echo: Address) -> Iterator[Line]:
    line = Line(echo)
    yield line
    line.close()


@pytest.fixture
def client(line: Line) -> Iterator[socket.socket]:
    with socket.create_connection((HERE, line.port), 10) as client:
        client.sendall(b"hello")
        assert client.recv(100) == b"hello"
        yield client


def test_a_line_keeps_nothing_back(line: Line, client: socket.socket) -> None:
    """What a driver says in several pieces waited for 40 ms again and again: MariaDB had a tenth of the adds."""
    ends = [end for pair in line._pairs for end in pair if end.family == socket.AF_INET]

    assert client.getpeername() in [end.getsockname() for end in ends]
    assert all(end.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) for end in ends)


def test_a_line_that_is_cut_tells_both_ends(line: Line, client: socket.socket) -> None:
    assert line.cut() == 1
    assert client.recv(100) == b""
    with socket.create_connection((HERE, line.port), 10) as another:
        another.sendall(b"again")
        assert another.recv(100) == b"again"


def test_a_line_that_loses_answers_passes_on_what_is_said(line: Line, client: socket.socket) -> None:
    line.lose_answers()
    client.sendall(b"COMMIT")
    client.settimeout(0.2)
    with pytest.raises(TimeoutError):
        client.recv(100)
    line.cut()

    assert client.recv(100) == b""
    assert line.lost == 1


def test_a_line_that_is_held_passes_everything_on_later(line: Line, client: socket.socket) -> None:
    line.hold()
    client.sendall(b"late")
    client.settimeout(0.2)
    with pytest.raises(TimeoutError):
        client.recv(100)
    line.go_on()
    client.settimeout(10)

    assert client.recv(100) == b"late"


class Moments(SystemClock):
    """A clock of a strike, in whose pauses something happens."""

    def __init__(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        super().__init__()
        self.pause = lambda seconds: meanwhile()


def serving(line: Line, meanwhile: Callable[[], None] = lambda: None) -> Mapping[str, Strike]:
    """The strikes at one line, whose store is not touched."""
    return Serving([("node-1", line)], cast(Access, None), None, Moments(meanwhile)).faults


def struck(strike: Strike) -> str | None:
    fault = strike(Dice(1))
    return fault.kind if fault else None


def test_answers_are_lost_where_something_was_answered(line: Line, client: socket.socket) -> None:
    def ask() -> None:
        client.sendall(b"COMMIT")
        assert until(lambda: line.lost)

    assert struck(serving(line, ask)["lose-answers"]) == "lose-answers"


def test_a_line_on_which_nobody_was_answered_is_only_cut(line: Line, client: socket.socket) -> None:
    assert struck(serving(line)["lose-answers"]) == "cut-line"
    assert client.recv(100) == b""


@pytest.mark.parametrize("name", ["cut-line", "lose-answers", "hold-line"])
def test_what_befalls_a_line_that_nobody_uses_is_no_fault(line: Line, name: str) -> None:
    assert struck(serving(line)[name]) is None


def test_a_line_is_held_where_somebody_uses_it(line: Line, client: socket.socket) -> None:
    assert struck(serving(line)["hold-line"]) == "hold-line"

    client.sendall(b"on")
    assert client.recv(100) == b"on"


@pytest.mark.parametrize("name", ["lose-answers", "hold-line"])
def test_two_hands_do_not_hold_one_line(line: Line, client: socket.socket, name: str) -> None:
    with line.busy:
        assert struck(serving(line)[name]) is None


def test_a_line_to_a_server_that_is_away_ends_at_once(tmp_path: Path) -> None:
    line = Line(Address(str(tmp_path / "nobody")))
    with socket.create_connection((HERE, line.port), 10) as client:
        assert client.recv(100) == b""
    line.close()


@pytest.mark.parametrize(
    ("url", "address", "by_way"),
    [
        (
            "postgresql://me:secret@db.example.com/jobs",
            ("db.example.com", 5432),
            "postgresql://me:secret@127.0.0.1:99/jobs",
        ),
        ("postgresql://me@/jobs?host=/run/pg", ("/run/pg/.s.PGSQL.5432", 0), "postgresql://me@127.0.0.1:99/jobs"),
        (
            "mysql://root@localhost/jobs?unix_socket=/run/my.sock",
            ("/run/my.sock", 0),
            "mysql://root@127.0.0.1:99/jobs",
        ),
        ("mysql://root@localhost:3307/jobs", ("localhost", 3307), "mysql://root@127.0.0.1:99/jobs"),
    ],
)
def test_a_store_is_reached_by_way_of_a_line(url: str, address: tuple[str, int], by_way: str) -> None:
    assert sessions.where(url) == address
    assert sessions.by_way_of(url, HERE, 99) == by_way


# --- the nemesis ----------------------------------------------------------------------------------------


def drawn(seed: str) -> list[str]:
    """The first faults that one hand draws."""
    enough, names = threading.Event(), list[str]()

    def strike(name: str, dice: Dice) -> Fault:
        names.append(name)
        if len(names) >= 5:
            enough.set()
        return Fault(name, 1, 2, "nothing")

    strikes = {name: (lambda dice, name=name: strike(name, dice)) for name in "abcdef"}
    nemesis = Nemesis(strikes, dict.fromkeys("abcdef", 1), seed, hands=1)
    nemesis.start()
    assert enough.wait(30)
    assert [fault.kind for fault in nemesis.stop()] == names
    return names[:5]


@pytest.mark.parametrize("seed", ["1"])
def test_a_seed_draws_the_same_faults_again(seed: str) -> None:
    assert drawn(seed) == drawn(seed)


@pytest.mark.parametrize("seed", ["1", "2"])
def test_each_fault_comes_as_often_as_its_weight_says_soon(seed: str) -> None:
    deck = Deck({"often": 3, "rare": 1, "never": 0}, Dice(seed))

    for _ in range(20):
        assert sorted(deck.draw() for _ in range(4)) == ["often", "often", "often", "rare"]


def test_hands_that_draw_at_once_share_a_deck() -> None:
    deck = Deck({"a": 700, "b": 300}, Dice("1"))
    with ThreadPoolExecutor(4) as pool:
        drawn = list(pool.map(lambda _: deck.draw(), range(1000)))

    assert (drawn.count("a"), drawn.count("b")) == (700, 300)


def test_what_a_hand_cannot_do_ends_the_run() -> None:
    tried = threading.Event()

    def strike(dice: Dice) -> Fault:
        tried.set()
        raise OSError("no such thing here")

    nemesis = Nemesis({"a": strike}, {"a": 1}, "1", hands=1)
    nemesis.start()
    assert tried.wait(30)
    until(lambda: nemesis.has_failed)
    with pytest.raises(OSError, match="no such thing here"):
        nemesis.stop()


def test_a_nemesis_that_can_do_nothing_does_nothing() -> None:
    nemesis = Nemesis({}, {}, "1", hands=2)
    nemesis.start()

    assert nemesis.stop() == []


# --- programs -------------------------------------------------------------------------------------------

PARENT = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])"


@pytest.fixture
def nursery() -> Iterator[Nursery]:
    nursery = Nursery()
    yield nursery
    nursery.close()


def test_what_a_program_has_started_is_known_and_killed_with_it(tmp_path: Path, nursery: Nursery) -> None:
    program = Program(tmp_path, ["-c", PARENT], "", SystemClock(), nursery)
    program.start()
    (child,) = until(lambda: descendants(program.pid))
    os.kill(child.pid, signal.SIGKILL)
    assert program.status() == 0

    assert child.pid not in table() or table()[child.pid].is_dead


# Starts one from a thread that does not last, and is killed.
KILLED = """
import os, signal, sys, threading
from pathlib import Path
from yaotask.chaos.programs import Nursery, Program
from yaotask.clock import SystemClock

LASTING = "print('up', flush=True); import time; time.sleep(600)"

def begin():
    program = Program(Path(sys.argv[1]), ["-c", LASTING], "up", SystemClock(), nursery)
    program.start()
    print(program.pid, program.has_ended(), flush=True)

nursery = Nursery()
thread = threading.Thread(target=begin)
thread.start()
thread.join()
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a process die with its parent")
def test_programs_die_with_who_started_them_and_not_with_its_threads(tmp_path: Path) -> None:
    started = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], capture_output=True, text=True, check=False)
    pid, has_ended = started.stdout.split()

    assert has_ended == "False"
    until(lambda: int(pid) not in table() or table()[int(pid)].is_dead)


STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
BAD = STUBBORN.replace("signal.SIG_IGN", "lambda *_: sys.exit(3)").replace("import ", "import sys, ")
GOOD = BAD.replace("exit(3)", "exit(0)")


@pytest.fixture
def begun(tmp_path: Path, nursery: Nursery) -> Iterator[Callable[[str], Node]]:
    """Starts something in place of a node."""
    nodes = []

    def begin(code: str, *, far: bool = False) -> Node:
        node = Node(tmp_path, 1, SystemClock(), nursery, far=far)
        node._command[1:] = ["-c", code]
        node._ready = "up"
        nodes.append(node)
        node.start()
        return node

    yield begin
    for node in nodes:
        node.clear_away()


def test_one_that_does_not_end_when_it_is_asked_to_is_ended_all_the_same(begun: Callable[[str], Node]) -> None:
    node = begun(STUBBORN)
    node.signal(signal.SIGTERM)

    assert node.must_end(0.2) == "went on for 0.2 s after it was asked to end, and was killed"
    assert node.has_ended()


@pytest.mark.parametrize(("code", "wrong"), [(BAD, "ended with 3 when it was asked to"), (GOOD, "")])
def test_one_that_ends_badly_says_so(begun: Callable[[str], Node], code: str, wrong: str) -> None:
    node = begun(code)
    node.signal(signal.SIGTERM)

    assert node.must_end() == wrong


def test_a_node_may_give_up_for_its_store_where_that_is_on_a_server_as_it_begins(begun: Callable[..., Node]) -> None:
    def falls(code: str, *, far: bool) -> list[str]:
        node = begun(code, far=far)
        until(node.has_ended)
        node.note_fall()
        return node.falls

    gone, gone_later = "import sys; sys.exit(4)", "import sys; print('up', flush=True); sys.exit(4)"

    assert len(falls(gone, far=False)) == 1
    assert falls(gone, far=True) == []
    (fall,) = falls(gone_later, far=True)
    assert fall.endswith("ended by itself with 4: see its log")


def test_a_ledger_that_died_is_a_defect_of_its_program(begun: Callable[[str], Node]) -> None:
    node = begun("print('up')\nprint('12:00:00 FATAL the ledger has died')")
    node.status()

    assert node.defects() == [f"a ledger of {node.folder.name} died: see its log"]


TASK = "name: Mail\nprocess: scripts.mail.Send\nexecutor: process\n"
SLEEPER = "import time\n\n\ndef Send(task_id):\n    time.sleep(600)\n"


def test_the_processes_of_a_node_are_known_and_each_kind_can_be_killed(tmp_path: Path, nursery: Nursery) -> None:
    for name, text in {"tasks/mail.yml": TASK, "scripts/mail.py": SLEEPER}.items():
        path = tmp_path / name
        path.parent.mkdir()
        path.write_text(text)
    with App(tmp_path) as app:
        app.tasks["mail"].add()
    node = Node(tmp_path, 1, SystemClock(), nursery)
    node.start()
    try:
        for kind in ("services", "child", "worker"):
            until(lambda kind=kind: node.members(kind))  # type: ignore[misc]
            fault = Killing([node], [], SystemClock()).faults[f"kill-{kind}"](Dice(1))

            assert fault is not None
            assert fault.kind == f"kill-{kind}"
    finally:
        node.clear_away()


def killing(node: Node) -> Mapping[str, Strike]:
    """The strikes at one node, which is the only caller too."""
    return Killing([node], [node], Moments()).faults


def test_a_node_that_is_stopped_and_ends_badly_is_a_fault_that_says_so(begun: Callable[[str], Node]) -> None:
    fault = killing(begun(BAD))["stop-node"](Dice(1))

    assert fault is not None
    assert (fault.kind, fault.wrong) == ("stop-node", "ended with 3 when it was asked to")


@pytest.mark.parametrize("name", WEIGHTS)
def test_what_befalls_the_dead_is_no_fault(begun: Callable[[str], Node], name: str) -> None:
    node = begun("print('up')")
    assert node.status() == 0

    assert struck(killing(node)[name]) is None


@pytest.mark.parametrize("name", WEIGHTS)
def test_what_befalls_one_that_is_not_up_yet_is_no_fault(begun: Callable[[str], Node], name: str) -> None:
    """It could not end in order."""
    node = begun(STUBBORN)
    node._ready = "not yet"

    assert struck(killing(node)[name]) is None
    assert not node.has_ended()


def test_one_that_ended_before_it_was_up_is_not_waited_for_when_it_begins_again(begun: Callable[[str], Node]) -> None:
    node = begun("import os; os._exit(1)")
    node._command[2] = GOOD
    before = node.clock.monotonic()
    node.start()

    assert node.clock.monotonic() - before < BIRTH / 2


@pytest.mark.parametrize(
    ("code", "falls"),
    [
        ("import sys; sys.exit('worker 1 has ended 5 times in a row before it was ready')", 0),
        ("import sys; sys.exit(1)", 1),
        ("import os; os.kill(os.getpid(), 11)", 1),
    ],
)
def test_a_node_may_end_by_itself_where_it_can_do_nothing_and_is_begun_again(
    begun: Callable[[str], Node], code: str, falls: int
) -> None:
    node = begun(code)
    node.status()
    node._command[2] = STUBBORN
    with node.busy:
        node.revive()
    was_left = node.has_ended()
    for _ in range(2):
        node.revive()
        node.come_up()

    assert was_left
    assert node.is_up()
    assert len(node.falls) == falls


# Another thread is told: as with a signal just before it begins to wait, the main one is not woken.
CALLER = """
import signal, sys, threading, time
from pathlib import Path
from yaotask.chaos import caller

def tell():
    while signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        time.sleep(0.05)
    time.sleep(0.5)
    signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

threading.Thread(target=tell, daemon=True).start()
caller.main(Path(sys.argv[1]), "1")
"""


@pytest.mark.timeout(90)
def test_a_caller_ends_when_it_is_asked_to_although_nobody_wakes_it(tmp_path: Path, nursery: Nursery) -> None:
    folder = tmp_path / "caller-1"
    scratch.furnish(folder, f"sqlite:///{tmp_path / 'store.db'}")
    program = Program(folder, ["-c", CALLER, str(folder)], caller.READY, SystemClock(), nursery)
    program.start()
    try:
        assert program.status() == 0, program.said()
    finally:
        program.clear_away()

    assert any(call.answer == OK for call in history.calls(folder))


def test_the_project_that_is_broken_is_a_good_one(tmp_path: Path) -> None:
    scratch.furnish(tmp_path / "project", "sqlite:///store.db")
    checked = command(tmp_path / "project", "check", "--strict")

    assert (checked.returncode, checked.stderr) == (0, "")


@pytest.fixture
def generous() -> Iterator[None]:
    """What is made without a mode may be read and written by everybody."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("generous")
def test_the_address_of_the_store_is_for_nobody_else_to_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(run: Run) -> None:
        raise OSError("far enough")

    monkeypatch.setattr(Run, "_furnish", stop)
    folder = tmp_path / "above" / "run"
    order = Order(store=f"sqlite:///{tmp_path / 'store.db'}", folder=folder, seed=1, seconds=1)
    with pytest.raises(OSError, match="far enough"):
        Run(order, SystemClock(), lambda moment: None).report()
    places = (folder.parent, folder, folder / "judge-1" / "yaotask.yml")

    # A server whose user is another one may have its files above.
    assert [stat.S_IMODE(place.stat().st_mode) for place in places] == [0o777, 0o700, 0o600]


# --- what is shown --------------------------------------------------------------------------------------


def reported() -> Report:
    story, _ = whole("told")
    return Report.of(story.facts, judge(story.facts), store="sqlite:///s.db", seed=7, seconds=61.25)


def test_a_report_is_one_page() -> None:
    assert list(reported().lines()) == [
        "store       sqlite:///s.db",
        "seed        7, 61.2 s",
        "jobs        1: 1 SUCCESS",
        "adds        1 acknowledged, 0 refused, 0 unknown, 0 unknown and stored",
        "ran         3 starts of handlers, 4 calls of hooks",
        "changes     1 T1, 3 T2, 1 T4, 1 T5, 1 T7",
        "faults      1 kill-worker",
        "kills       1 by SIGKILL, of which 1 process died",
        "recoveries  1 job of dead processes could run again after",
        "            0.00 s in the median, 0.00 s at worst",
        "            up to 0.5 s  ######################################## 1",
        "",
        "verdict     nothing was lost, nothing ran without a claim, all promises were kept",
    ]


def test_a_report_names_what_was_broken() -> None:
    story, _ = whole()
    story.call("add", job=JobId("quick", 99), tag="tag-99")
    lines = list(Report.of(story.facts, judge(story.facts), store="s", seed=7, seconds=1).lines())

    assert lines[-2:] == [
        "verdict     BROKEN: 1 violation (1 I1)",
        "            I1: quick.99 was acknowledged and is not there",
    ]


def test_a_report_in_which_nothing_was_tried_proves_nothing() -> None:
    report = Report.of(Story().facts, [], store="s", seed=7, seconds=1, wanted=["kill-worker", "stop-node"])

    assert not report.holds
    assert list(report.lines())[-1] == (
        "verdict     NOTHING IS PROVED: no add was acknowledged, no handler started,"
        " no fault was made, of kill-worker, stop-node"
    )
    assert report.as_json()["verdict"] == "nothing is proved"


def test_a_report_without_faults_proves_nothing_unless_none_were_wanted() -> None:
    story, _ = whole()
    faults = replace(story.facts, faults=[])

    assert Report.of(faults, [], store="s", seed=7, seconds=1).holds
    assert not Report.of(faults, [], store="s", seed=7, seconds=1, wanted=["kill-worker"]).holds


def test_a_report_names_the_faults_that_were_wanted_and_never_came_about() -> None:
    story, _ = whole()
    wanted = ["kill-worker", "kill-child", "stop-node"]
    report = Report.of(story.facts, [], store="s", seed=7, seconds=1, wanted=wanted)

    assert report.holds
    lines = list(report.lines())
    (place,) = (number for number, line in enumerate(lines) if line.startswith("faults"))
    assert lines[place : place + 2] == [
        "faults      1 kill-worker",
        "not made    kill-child, stop-node: of these the run says nothing",
    ]
    assert report.as_json()["unmade"] == ["kill-child", "stop-node"]


def test_a_report_of_a_broken_run_in_which_little_was_tried_says_both() -> None:
    story, _ = whole()
    story.notes.clear()
    report = Report.of(story.facts, judge(story.facts), store="s", seed=7, seconds=1)

    assert [line.split()[1] for line in report.lines() if line.startswith("verdict")] == ["NOTHING", "BROKEN:"]
    assert report.as_json()["verdict"] == "broken"


def test_a_report_can_be_read_by_programs() -> None:
    told = json.loads(json.dumps(reported().as_json()))

    assert (told["verdict"], told["violations"], told["kills"]) == ("nothing was lost", [], 1)
    assert reported().holds


# --- the command ----------------------------------------------------------------------------------------


@pytest.mark.timeout(120)
def test_the_command_breaks_a_store_of_its_own_and_tells_what_came_of_it(tmp_path: Path) -> None:
    run = command(tmp_path, "chaos", "--minutes", "0.05", "--seed", "3", "--json", "--keep", str(tmp_path / "kept"))
    told = json.loads(run.stdout)

    assert (run.returncode, told["verdict"], told["seed"]) == (0, "nothing was lost", 3)
    assert told["jobs"] > 0
    assert "breaks things" in run.stderr
    assert (tmp_path / "kept" / "seed-3" / "node-1" / "log.txt").exists()


@pytest.mark.timeout(120)
def test_the_command_fails_where_nothing_was_tried(tmp_path: Path) -> None:
    # Over before any hand strikes.
    run = command(tmp_path, "chaos", "--minutes", "0.0001", "--seed", "3", "--nodes", "1", "--faults", "kill-child")

    assert run.returncode == 1
    assert "verdict     NOTHING IS PROVED: " in run.stdout
    assert "no fault was made, of kill-child" in run.stdout
    assert "logs, histories and the store stay in" in run.stderr


def test_a_store_that_is_not_empty_is_refused(tmp_path: Path) -> None:
    assert command(tmp_path, "init", ".").returncode == 0
    assert command(tmp_path, "add", "hello", "you").returncode == 0
    run = command(tmp_path, "chaos", "--store", f"sqlite:///{tmp_path}/.yaotask/yaotask.db", "--minutes", "0.01")

    assert run.returncode == 4
    assert "is not empty" in run.stderr
    assert "give a database that has nothing in it" in run.stderr


def test_a_fault_that_is_not_known_is_refused_with_those_that_are(tmp_path: Path) -> None:
    run = command(tmp_path, "chaos", "--faults", "kill-worker,flood")

    assert run.returncode == 2
    assert "there is no fault 'flood'; there are kill-worker, kill-child" in run.stderr


@pytest.mark.parametrize(
    ("words", "needed"),
    [
        (("--faults", "cut-line"), "cut-line needs --store with the address of a server"),
        (
            ("--faults", "restart-server", "--store", "postgresql://localhost/scratch"),
            "restart-server needs --restart COMMAND",
        ),
    ],
)
def test_a_fault_that_cannot_be_made_says_what_it_needs(tmp_path: Path, words: tuple[str, ...], needed: str) -> None:
    run = command(tmp_path, "chaos", *words)

    assert run.returncode == 2
    assert needed in run.stderr


@pytest.mark.parametrize(("restart", "said"), [("a 'b", "No closing quotation"), ("", "it is empty")])
def test_a_restart_that_is_no_command_is_refused(tmp_path: Path, restart: str, said: str) -> None:
    run = command(tmp_path, "chaos", "--store", "postgresql://localhost/scratch", "--restart", restart)

    assert run.returncode == 2
    assert f"Invalid value for '--restart': not a command: {said}" in run.stderr


@pytest.mark.parametrize(
    ("restart", "said"),
    [
        (["false"], "--restart: false ended with exit status 1; it must restart the server"),
        (["./not-there", "now"], "--restart: ./not-there now cannot be started: No such file or directory;"),
        (["sleep", "600"], "--restart: sleep 600 has not come back after 0.1 s;"),
    ],
)
def test_a_server_that_is_not_restarted_is_an_error_in_a_line(restart: list[str], said: str) -> None:
    with pytest.raises(CallFailed) as told:
        restart_by(restart, patience=0.1 if "sleep" in restart else 30)

    assert said in str(told.value)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("store", "status", "said"),
    [
        ("nonsense", 2, "Invalid value for '--store': not a database address"),
        ("oracle://localhost/scratch", 2, "Invalid value for '--store': oracle is not supported"),
        ("postgresql://127.0.0.1:1/scratch", 4, "nobody answers there"),
    ],
)
def test_a_store_that_cannot_be_used_is_refused_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: str, status: int, said: str
) -> None:
    (tmp_path / "scratch").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "scratch"))
    run = command(tmp_path, "chaos", "--store", store)

    assert (run.returncode, run.stdout) == (status, "")
    assert said in run.stderr
    assert "Traceback" not in run.stderr
    assert list((tmp_path / "scratch").iterdir()) == []
