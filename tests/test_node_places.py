"""A node in places that are not like a desk: a container, no terminal, no home, odd modes, names and folders."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from node_support import members, nothing_left
from run_support import ON_THE_LOOP, PATIENCE, TASK, WITNESS, add, command, drained, job, notes, running, started, until

from yaotask import App

pytest_plugins = ["run_fixtures"]
pytestmark = pytest.mark.timeout(90)

Hold = Callable[..., Path]

NAMESPACES = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]


def may_unshare() -> bool:
    """Whether we may have a process number 1 of our own."""
    if os.geteuid() != 0 or not (shutil.which("unshare") and shutil.which("pgrep")):
        return False
    return subprocess.run([*NAMESPACES, "true"], capture_output=True).returncode == 0


@contextmanager
def environment(monkeypatch: pytest.MonkeyPatch, **variables: str | None) -> Iterator[None]:
    with monkeypatch.context() as patch:
        for name, value in variables.items():
            if value is None:
                patch.delenv(name, raising=False)
            else:
                patch.setenv(name, value)
        yield


# --- surroundings ---------------------------------------------------------------------------------------


@pytest.mark.skipif(not may_unshare(), reason="needs root, namespaces of processes, and pgrep")
def test_as_process_number_one_it_works_and_waits_for_strays(hold: Hold) -> None:
    root = hold("""
        import os
        import subprocess
        import time

        def Hold(task_id):
            # What the shell leaves running is a stray: whoever is process 1 has to wait for it.
            subprocess.run(["sh", "-c", "sleep 0.05 &"], check=True)
            while subprocess.run(["pgrep", "-x", "sleep"], stdout=subprocess.DEVNULL).returncode == 0:
                time.sleep(0.02)
            return os.getppid()
    """)
    add(root)
    run = subprocess.run(
        [*NAMESPACES, sys.executable, "-m", "yaotask", "run", "--drain"],
        cwd=root,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
    )

    assert run.returncode == 0, run.stderr
    assert job(root)["response"] == 1
    assert "stopped; 1 succeeded" in run.stderr
    nothing_left(root)


def test_without_home_locale_or_terminal_names_are_what_they_are(
    hold: Hold, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = """
        def Hold(task_id, wer):
            print("grüß", wer)
            return wer
    """
    root = hold(script, task="name: 发送邮件\nprocess: scripts.hold.Hold\n").rename(tmp_path / "项目")
    with environment(monkeypatch, HOME=None, LANG="C", LC_ALL="C"):
        with App(root) as app:
            app.tasks["hold"].add("Jürgen")
        run = drained(root)

    assert job(root)["response"] == "Jürgen"
    assert "stopped; 1 succeeded" in run.errors
    assert "Traceback" not in run.errors
    nothing_left(root)


def test_a_folder_whose_name_is_no_text_is_refused_with_a_way_out(
    hold: Hold, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = hold(ON_THE_LOOP).rename(tmp_path / "项目")
    with environment(monkeypatch, LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0"):
        run = command(root, "run", "--drain")

    assert run.returncode == 3
    assert "the name of the folder is no text here" in run.stderr
    assert "LANG=C.UTF-8" in run.stderr


def test_a_home_that_cannot_be_written_is_not_needed(
    hold: Hold, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = hold(ON_THE_LOOP)
    (root / "gate").touch()
    add(root)
    nowhere = tmp_path / "file"
    nowhere.touch()
    with environment(monkeypatch, HOME=str(nowhere), TMPDIR=str(nowhere), XDG_CACHE_HOME=str(nowhere)):
        drained(root)

    assert job(root)["status"] == "SUCCESS"


def test_with_a_umask_of_nothing_state_is_for_its_owner_alone(hold: Hold) -> None:
    root = hold(ON_THE_LOOP)
    program = (
        "import os, sys; os.umask(0); from yaotask.cli import main; sys.argv = ['yaotask', 'run']; sys.exit(main())"
    )
    with started(root, ["-c", program]) as run:
        run.says("running;")
        add(root)
        until(lambda: notes(root, "start"))
        found = [root / ".yaotask", *(root / ".yaotask").rglob("*")]
        modes = {path.relative_to(root): stat.S_IMODE(path.stat().st_mode) for path in found}
        (root / "gate").touch()
        run.signal()
        assert run.status() == 0

    assert any(path.suffix == ".lock" for path in modes)
    assert {path: oct(mode) for path, mode in modes.items() if mode & 0o077} == {}
    nothing_left(root)


def test_from_another_folder_with_a_option_it_is_the_same_project(hold: Hold, tmp_path: Path) -> None:
    root = hold("""
        from pathlib import Path

        from scripts.witness import note

        def Hold(task_id):
            return str(Path.cwd())
    """)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    add(root)
    with started(elsewhere, ["-m", "yaotask", "-a", str(root), "run", "--drain"]) as run:
        assert run.status() == 0

    assert job(root)["status"] == "SUCCESS"
    nothing_left(root)


# --- how many -------------------------------------------------------------------------------------------

COUNTED = """
    import os
    import time
    from pathlib import Path

    from scripts.witness import note

    def Hold(task_id):
        note("in", os.getpid())
        time.sleep(0.02)
        note("out", os.getpid())
"""


def most_at_once(root: Path) -> int:
    """The most handlers that were inside at once, as they noted it themselves."""
    inside, most = 0, 0
    for line in (root / "witness").read_text().splitlines():
        inside += 1 if line.startswith("in ") else -1
        most = max(most, inside)
    return most


@pytest.mark.parametrize("worker_nums", [1, 2, 3])
def test_two_workers_together_run_no_more_than_worker_nums(hold: Hold, worker_nums: int) -> None:
    root = hold(COUNTED, task=f"{TASK}worker_nums: {worker_nums}\n")
    add(root, 60)
    with running(root, "--processes", "2", "--drain") as run:
        assert run.status() == 0

    assert len(notes(root, "out")) == 60
    assert most_at_once(root) <= worker_nums
    assert len(set(notes(root, "in"))) == min(worker_nums, 2)


def test_no_processes_are_services_alone(hold: Hold) -> None:
    root = hold(ON_THE_LOOP)
    add(root)
    with running(root, "--processes", "0") as run:
        run.says("services is up")
        names = set(members(run))
        run.signal()
        assert run.status() == 0

    assert names == {"services"}
    assert job(root)["status"] == "WAITING"
    nothing_left(root)


def test_only_the_tasks_that_are_named_run(project: Callable[..., Path]) -> None:
    root = project(
        tasks={name: f"name: N\nprocess: scripts.note.{name.title()}\n" for name in ("one", "two", "three")},
        scripts={
            "note": "from scripts.witness import note\n\n"
            + "".join(f"def {name}(id): note('ran', '{name}')\n\n" for name in ("One", "Two", "Three")),
            "witness": WITNESS,
        },
        settings="processes: 2",
    )
    with App(root) as app:
        for task in ("one", "two", "three"):
            app.tasks[task].add()
        with running(root, "--only", "one", "--only", "three", "--drain") as run:
            assert run.status() == 0

        assert app.get("two.1")["status"] == "WAITING"
    assert sorted(notes(root, "ran")) == ["One", "Three"]
    nothing_left(root)
