"""Which files are definitions, and what ids they stand for."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from definitions_support import TASK

from yaotask.definitions.files import LONGEST_ID, find, id_of

Project = Callable[..., Path]


def ids(root: Path) -> list[str]:
    sources, problems = find(root)

    assert problems == []
    return [source.id for source in sources]


def faults(root: Path) -> list[str]:
    sources, problems = find(root)

    assert sources == []
    return sorted(str(problem) for problem in problems)


@pytest.mark.parametrize(
    ("file", "id"),
    [
        ("tasks/mail.yml", "mail"),
        ("tasks/mail.yaml", "mail"),
        ("tasks/mail.json", "mail"),
        ("tasks/mail.jsonc", "mail"),
        ("tasks/mail.yao", "mail"),
        ("tasks/mail.YML", "mail"),
        ("tasks/mail.task.yao", "mail"),
        ("tasks/media/video.yml", "media.video"),
        ("tasks/media/video.task.yml", "media.video"),
        ("tasks/task.yml", "task"),
        ("tasks/media.old/video.yml", "media.old.video"),
        ("tasks/send-mail_2.yml", "send-mail_2"),
    ],
)
def test_an_id_is_the_path_of_the_file(project: Project, file: str, id: str) -> None:
    root = project(tasks={file.removeprefix("tasks/"): TASK})

    assert ids(root) == [id]
    assert id_of(file) == id


@pytest.mark.parametrize("file", ["notes.txt", ".hidden.yml", ".git/mail.yml", "mail.yml~", "mail.py"])
def test_other_files_are_not_looked_at(project: Project, file: str) -> None:
    root = project()
    path = root / "tasks" / file
    path.parent.mkdir(parents=True)
    path.write_text(TASK)

    assert ids(root) == []


def test_a_project_without_the_folder_has_no_tasks(project: Project) -> None:
    assert ids(project()) == []


def test_tasks_that_is_no_folder_is_a_problem(project: Project) -> None:
    root = project()
    (root / "tasks").write_text("")

    assert faults(root) == ["tasks: cannot be read: Not a directory"]


def test_a_link_to_a_folder_is_not_followed_and_says_so(project: Project) -> None:
    root = project(tasks={"media/video": TASK})
    (root / "tasks" / "again").symlink_to(root / "tasks")
    sources, problems = find(root)

    assert [source.id for source in sources] == ["media.video"]
    assert [str(problem) for problem in problems] == [
        "tasks/again: is a link to a folder, which is not followed; put the folder itself here"
    ]


def test_links_to_files_and_to_the_whole_folder_are_followed(project: Project, tmp_path: Path) -> None:
    root = project()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "real.yml").write_text(TASK)
    (tmp_path / "elsewhere" / "link.yml").symlink_to("real.yml")
    (root / "tasks").symlink_to(tmp_path / "elsewhere")

    assert ids(root) == ["link", "real"]


def test_files_come_in_a_fixed_order(project: Project) -> None:
    root = project(tasks={"b": TASK, "a": TASK, "c/a": TASK, "a2": TASK})

    assert ids(root) == ["a", "a2", "b", "c.a"]


def test_only_the_kinds_that_yao_uses_are_json(project: Project) -> None:
    root = project(tasks={f"t{suffix[1:]}{suffix}": TASK for suffix in (".yml", ".yaml", ".json", ".jsonc", ".yao")})
    sources, _ = find(root)

    assert [source.id for source in sources if source.json] == ["tjson", "tjsonc", "tyao"]


# --- ids that cannot be ------------------------------------------------------------------------------


@pytest.mark.parametrize(("first", "second"), [("mail.yml", "mail.yaml"), ("mail.task.yml", "mail.yml")])
def test_two_files_with_one_id_are_both_named_and_neither_is_used(project: Project, first: str, second: str) -> None:
    root = project(tasks={first: TASK, second: TASK})

    assert faults(root) == sorted(
        [
            f'tasks/{first}: stands for the id "mail", and so does tasks/{second}; rename or remove one of them',
            f'tasks/{second}: stands for the id "mail", and so does tasks/{first}; rename or remove one of them',
        ]
    )


def test_a_folder_and_a_dot_can_give_one_id(project: Project) -> None:
    root = project(tasks={"a/b.yml": TASK, "a.b.yml": TASK})

    assert len(faults(root)) == 2


def test_ids_that_differ_in_capitals_alone_are_refused(project: Project) -> None:
    root = project(tasks={"mail": TASK, "Mail": TASK})

    assert faults(root) == [
        'tasks/Mail.yml: stands for the id "Mail", which differs from that of tasks/mail.yml in capitals alone; '
        "rename one of them",
        'tasks/mail.yml: stands for the id "mail", which differs from that of tasks/Mail.yml in capitals alone; '
        "rename one of them",
    ]


def test_two_spellings_of_one_name_are_both_refused(project: Project) -> None:
    composed, decomposed = unicodedata.normalize("NFC", "é"), unicodedata.normalize("NFD", "é")
    root = project(tasks={composed: TASK, decomposed: TASK})

    assert [fault.partition(":")[0] for fault in faults(root)] == ["tasks/é.yml", "tasks/é.yml"]


@pytest.mark.parametrize(
    "name", ["a b", "a..b", "a.", "mail!", "邮件", "ｍail", "a\nb", "a\x1b[31m", "C:\\x", "'", "a;b"]
)
def test_a_name_that_is_no_id_is_refused(project: Project, name: str) -> None:
    root = project(tasks={f"{name}.yml": TASK})
    (fault,) = faults(root)

    assert 'an id is letters A to Z, digits, "_" and "-", with single dots between' in fault
    assert fault.isprintable()


def test_a_name_that_is_not_text_is_shown_escaped(project: Project) -> None:
    root = project(tasks={"good": TASK})
    (root / "tasks" / os.fsdecode(b"b\xffd.yml")).write_text(TASK)
    _, problems = find(root)

    assert [problem.file for problem in problems] == ["tasks/b\\udcffd.yml"]


@pytest.mark.parametrize(("length", "fits"), [(LONGEST_ID, True), (LONGEST_ID + 1, False)])
def test_an_id_has_a_longest_length(project: Project, length: int, fits: bool) -> None:
    root = project(tasks={"a" * length: TASK})
    sources, problems = find(root)

    assert (len(sources), len(problems)) == ((1, 0) if fits else (0, 1))
