"""The project at the top of the repository, run as its scripts say that it can be run."""

from __future__ import annotations

import hashlib
import json
import shutil
import sysconfig
from pathlib import Path
from typing import Any

import pytest
from run_support import command, drained, running, until

from yaotask import App

pytestmark = pytest.mark.timeout(120)

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A copy of the example project."""
    root = tmp_path / "example"
    for folder in ("tasks", "scripts"):
        shutil.copytree(REPOSITORY / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))
    return root


def said(root: Path, *words: str) -> str:
    """What a command printed; it must succeed."""
    run = command(root, *words)
    assert run.returncode == 0, run.stderr
    return run.stdout


def called(root: Path, name: str, /, *args: object, **payload: object) -> Any:
    """What a process call answered."""
    with App(root) as app:
        return app.call(name, *args, **payload)


def shown(root: Path, id: str) -> Any:
    with App(root) as app:
        return app.get(id)


def test_check_finds_nothing_to_complain_about(root: Path) -> None:
    assert said(root, "check", "--strict").splitlines()[-1] == "3 tasks, no problems"


# --- mail --------------------------------------------------------------------------------------------


def test_mail_is_sent_with_ids_of_its_own_and_all_five_hooks_are_called(root: Path) -> None:
    names = [said(root, "add", "mail", f"任务-{n}", "ann@example.com", "bob@example.com").strip() for n in (1, 2)]
    printed = drained(root).output.splitlines()

    assert names == ["mail.1025", "mail.1026"]
    assert [line for line in printed if "#1025" in line] == [
        "OnAdd: #1025",
        "Send: #1025 '任务-1' to ann@example.com",
        "OnProgress: #1025 Progress 1/2 1/2",
        "Send: #1025 '任务-1' to bob@example.com",
        "OnProgress: #1025 Progress 2/2 2/2",
        'OnSuccess: #1025 {"message": "ok", "sent": 2}',
    ]
    assert shown(root, "mail.1026")["response"] == {"message": "ok", "sent": 2}


def test_mail_to_a_bad_address_fails_after_four_tries_and_is_told_once(root: Path) -> None:
    called(root, "tasks.mail.add", "任务-1", "ann@example.com", "nowhere")
    printed = drained(root).output.splitlines()
    job = shown(root, "mail.1025")

    assert printed == ["OnAdd: #1025", "OnError: #1025 nowhere is not an address"]
    assert (job["status"], job["attempt"], job["error_type"]) == ("FAILURE", 4, "ValueError")
    assert [one["outcome"] for one in called(root, "tasks.mail.attempts", 1025)] == [*["retry"] * 3, "failure"]


# --- server ------------------------------------------------------------------------------------------


def fill_the_rack(root: Path) -> None:
    for number in range(1, 6):
        called(root, "tasks.server.add", name=f"web-{number}", cpus=2)


def test_a_server_that_finds_no_place_is_tried_again_after_longer_and_longer_waits(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SERVER_RETRY_AFTER", "10ms")
    fill_the_rack(root)
    printed = [line for line in drained(root).output.splitlines() if line.startswith("server.5:")]

    why = "no place for web-5: 4 servers are there"
    assert [line.partition("; the next")[0] for line in printed] == [
        *(f"server.5: try {attempt} failed: {why}" for attempt in (1, 2, 3)),
        f"server.5: gave up: {why}",
    ]
    waits = [float(line.split()[-2]) for line in printed[:3]]
    assert all(waited >= wait for waited, wait in zip(waits, (0.01, 0.02, 0.04), strict=True))
    assert shown(root, "server.4")["response"]["server"] == {"name": "web-4", "cpus": 2, "memory_gb": 1, "job": 4}


def test_room_that_is_made_meanwhile_lets_the_next_try_succeed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVER_RETRY_AFTER", "2s")
    fill_the_rack(root)
    with App(root) as app, running(root, "--drain") as run:
        until(lambda: app.get("server.5")["status"] == "RETRYING")
        left = json.loads(said(root, "call", "-s", "scripts.server.Remove", "web-1"))
        assert run.status() == 0
        job = app.get("server.5")

    assert left == ["web-2", "web-3", "web-4"]
    assert job["status"] == "SUCCESS"
    assert job["attempt"] >= 2


def test_a_name_that_is_taken_is_not_tried_again(root: Path) -> None:
    for _ in range(2):
        called(root, "tasks.server.add", name="web-1")
    # Hooks of different jobs come in any order.
    printed = sorted(drained(root).output.splitlines())
    job = shown(root, "server.2")

    assert (job["status"], job["attempt"], job["error_type"]) == ("FAILURE", 1, "scripts.server.NameTaken")
    assert printed == ["server.1: web-1 is there", "server.2: gave up: there is a server web-1 already"]


def test_a_payload_that_is_not_like_the_definition_says_is_refused(root: Path) -> None:
    run = command(root, "add", "server", "--payload", '{"name": "web-1", "cpus": 65}')

    assert run.returncode == 1
    assert "$.payload.cpus" in run.stderr


# --- digest ------------------------------------------------------------------------------------------


def test_files_of_pythons_own_library_are_digested_and_can_be_looked_up(root: Path) -> None:
    added = add_library(root, 1_000)
    drained(root)
    first, table = json.loads(said(root, "get", "digest.1", "--json")), said(root, "list", "digest")
    report = json.loads(said(root, "call", "-s", "scripts.digest.Report"))
    failed = called(root, "tasks.digest.list", status="FAILURE", page=1)["total"]

    path = Path(first["response"]["path"])
    assert added >= 1_000
    # A file that Python rewrote between the two steps may be gone.
    assert report["files"] + failed == added
    assert first["response"]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert f"digest.{added}" in table
    assert len(table.splitlines()) == 1 + 20


def add_library(root: Path, enough: int) -> int:
    """Add the files of Python's own packages until there are enough; what is installed besides may be huge."""
    added = 0
    with App(root) as app:
        for folder in sorted(Path(sysconfig.get_path("stdlib")).iterdir()):
            if added < enough and folder.is_dir() and folder.name not in ("site-packages", "dist-packages"):
                added += app.call("scripts.digest.AddFolder", str(folder))
    return added


def test_folders_of_a_name_can_be_left_out(root: Path, tmp_path: Path) -> None:
    for name in ("kept", "left", "kept/left"):
        (tmp_path / "files" / name).mkdir(parents=True)
        (tmp_path / "files" / name / "file").write_text("one")

    assert called(root, "scripts.digest.AddFolder", str(tmp_path / "files"), "left") == 1


def test_the_report_sums_up_each_file_once(root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "files"
    (folder / "below").mkdir(parents=True)
    for name in ("a", "b", "below/c"):
        (folder / name).write_text("one\ntwo\n" if name != "b" else "three")
    (folder / "link").symlink_to(folder / "a")
    (folder / "large").write_bytes(b"\n" * 3_000_000)
    for _ in range(2):
        assert called(root, "scripts.digest.AddFolder", str(folder)) == 4
    drained(root)
    report = called(root, "scripts.digest.Report")
    large = next(job for job in called(root, "tasks.digest.list")["items"] if job["payload"]["path"].endswith("large"))

    assert (report["files"], report["bytes"], report["lines"], report["copies"]) == (4, 3_000_021, 3_000_004, 1)
    assert report["largest"] == large["response"]
    assert (large["current"], large["total"]) == (3_000_000, 3_000_000)
