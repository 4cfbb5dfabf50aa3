"""What only the code of a project can tell about its definitions."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from definitions_support import TASK, catalog, lines

from yaotask.definitions.check import broken, check
from yaotask.problems import Problem
from yaotask.resolve import Resolver

Project = Callable[..., Path]
Check = Callable[..., list[Problem]]

SEND = "def Send(task_id, *args, **payload): ...\n"


@pytest.fixture
def resolver() -> Iterator[Callable[[Path], Resolver]]:
    """Makes the Resolver of a project, and closes it at the end."""
    path, made = list(sys.path), []

    def make(root: Path) -> Resolver:
        made.append(Resolver(root))
        return made[-1]

    yield make
    sys.path[:] = path
    for one in made:
        one.close()


@pytest.fixture
def checked(resolver: Callable[[Path], Resolver]) -> Check:
    """Every problem of a project whose files have none by themselves."""

    def run(root: Path, *, strict: bool = False) -> list[Problem]:
        good = catalog(root)
        assert good.problems == []
        return check(good, resolver(root), strict=strict)

    return run


@pytest.fixture
def broken_tasks(resolver: Callable[[Path], Resolver]) -> Callable[[Path], dict[str, list[str]]]:
    """The tasks that are broken, each with its problems on a line."""

    def run(root: Path) -> dict[str, list[str]]:
        return {id: lines(problems) for id, problems in broken(catalog(root), resolver(root)).items()}

    return run


def test_a_project_whose_functions_are_there_has_no_problems(project: Project, checked: Check) -> None:
    root = project(
        tasks={"mail": f"{TASK}event: {{add: scripts.mail.OnAdd}}\nfail_on: [scripts.mail.Bounce, OSError]\n"},
        scripts={"mail": f"{SEND}def OnAdd(id): ...\nclass Bounce(Exception): ...\n"},
    )

    assert checked(root) == []


def test_a_function_that_is_not_there_is_told_at_its_key(project: Project, checked: Check) -> None:
    root = project(tasks={"mail": "name: Mail\nprocess: scripts.mail.Sned\n"}, scripts={"mail": SEND})
    (problem,) = checked(root)

    assert problem.render() == (
        'tasks/mail.yml:2:10: process: scripts/mail.py has no function "Sned"; did you mean "Send"?\n'
        "    process: scripts.mail.Sned\n"
        "             ^"
    )


def test_a_file_with_other_faults_is_looked_through_all_the_same(
    project: Project, resolver: Callable[[Path], Resolver]
) -> None:
    text = "name: Mail\nprocess: scripts.mail.Sned\nworker_nums: 0\nsize: 1\n"
    root = project(tasks={"mail": text}, scripts={"mail": SEND})
    found = catalog(root)

    assert lines(found.problems) == ["tasks/mail.yml:3:14: worker_nums: must be at least 1, got 0"]
    assert lines(check(found, resolver(root))) == [
        'tasks/mail.yml:2:10: process: scripts/mail.py has no function "Sned"; did you mean "Send"?'
    ]
    strict = lines(check(found, resolver(root), strict=True))
    assert [line.split(": ")[1] for line in strict] == ["attempt_after", "attempts", "timeout", "process"]
    assert (dict(found.tasks), broken(found, resolver(root))) == ({}, {})


@pytest.mark.parametrize(
    ("line", "place"),
    [
        *(
            (f"event: {{{hook}: scripts.mail.No}}", f"3:{11 + len(hook)}: event.{hook}")
            for hook in (*("next", "add", "success", "error", "progress", "retry", "cancel", "ignore"),)
        ),
        ("fail_on: [ValueError, scripts.mail.No]", "3:23: fail_on[1]"),
        ("ignore_on: [scripts.mail.No]", "3:13: ignore_on[0]"),
    ],
)
def test_every_key_that_names_code_is_looked_up(project: Project, checked: Check, line: str, place: str) -> None:
    (problem,) = checked(project(tasks={"mail": f"{TASK}{line}\n"}, scripts={"mail": SEND}))

    assert str(problem).startswith(f"tasks/mail.yml:{place}: scripts/mail.py has no ")


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("scripts.mail.Class", "scripts.mail.Class is a class, not a function"),
        ("scripts.mail.VALUE", "scripts.mail.VALUE is a value (int), not a function"),
        ("scripts.mail.os", "scripts.mail.os is a module, not a function"),
        ("scripts.mail", "scripts.mail is scripts/mail.py; add the name of a function in it"),
        ("nowhere.Send", 'there is no module "nowhere"'),
    ],
)
def test_what_is_no_function_is_refused(project: Project, checked: Check, path: str, said: str) -> None:
    root = project(
        tasks={"mail": f"name: Mail\nprocess: {path}\n"},
        scripts={"mail": "import os\nVALUE = 1\nclass Class: ...\n"},
    )

    assert lines(checked(root)) == [f"tasks/mail.yml:2:10: process: {said}"]


def test_a_file_that_cannot_be_imported_shows_the_end_of_its_traceback_once(project: Project, checked: Check) -> None:
    root = project(
        tasks={"mail": f"{TASK}event: {{add: scripts.mail.OnAdd}}\n"},
        scripts={"mail": "def boom():\n    raise ValueError('no key')\n\nboom()\n"},
    )
    process, hook = checked(root)

    assert process.message == hook.message == "scripts/mail.py cannot be imported: ValueError: no key"
    assert process.detail is not None
    assert process.detail.endswith("raise ValueError('no key')\nValueError: no key")
    assert hook.detail is None


@pytest.mark.parametrize("source", ["import nowhere_at_all", "def Send(:", "raise SystemExit(3)", "1 / 0"])
def test_whatever_fails_while_importing_is_a_problem(project: Project, checked: Check, source: str) -> None:
    (problem,) = checked(project(tasks={"mail": TASK}, scripts={"mail": source}))

    assert problem.message.startswith("scripts/mail.py cannot be imported: ")
    assert problem.detail


# --- the handler as it is asked to be ----------------------------------------------------------------

ASYNC_SEND = "async def Send(task_id): ...\n"
CALLABLE = "class Sender:\n    async def __call__(self, id): ...\n\nSend = Sender()\n"


@pytest.mark.parametrize(
    ("keys", "source", "said"),
    [
        (
            "executor: async",
            SEND,
            "3:11: executor: async needs an `async def`, and scripts.mail.Send is none; leave it out, or use thread",
        ),
        ("executor: async", ASYNC_SEND, None),
        ("executor: async", CALLABLE, None),
        ("executor: thread", SEND, None),
        ("executor: thread", ASYNC_SEND, None),
        ("transaction: true", SEND, None),
        (
            "transaction: true",
            ASYNC_SEND,
            "3:14: transaction: is not for handlers on a loop; make scripts.mail.Send a plain `def`",
        ),
        ("transaction: false", ASYNC_SEND, None),
        ("executor: process", SEND, None),
        ("executor: process", ASYNC_SEND, None),
        ("executor: process\ntransaction: true", SEND, None),
        (
            "executor: process\ntransaction: true",
            ASYNC_SEND,
            "4:14: transaction: is not for handlers on a loop; make scripts.mail.Send a plain `def`",
        ),
    ],
)
def test_executor_and_transaction_must_suit_the_handler(
    project: Project, checked: Check, keys: str, source: str, said: str | None
) -> None:
    found = lines(checked(project(tasks={"mail": f"{TASK}{keys}\n"}, scripts={"mail": source})))

    assert found == ([f"tasks/mail.yml:{said}"] if said else [])


def test_a_transaction_is_refused_with_executor_async(project: Project, checked: Check) -> None:
    root = project(tasks={"mail": f"{TASK}executor: async\ntransaction: true\n"}, scripts={"mail": SEND})

    assert [problem.key for problem in checked(root)] == ["executor", "transaction"]


@pytest.mark.parametrize(
    ("parameters", "fits"),
    [
        ("", False),
        ("*, task_id", False),
        ("**payload", False),
        ("task_id", True),
        ("task_id, /", True),
        ("*args", True),
        ("task_id, to, subject", True),
        ("task_id, *, payload", True),
    ],
)
def test_a_handler_must_take_the_id(project: Project, checked: Check, parameters: str, fits: bool) -> None:
    root = project(tasks={"mail": TASK}, scripts={"mail": f"def Send({parameters}): ...\n"})
    said = "scripts.mail.Send takes no argument by position; a handler is given the job's id first"

    assert lines(checked(root)) == ([] if fits else [f"tasks/mail.yml:2:10: process: {said}"])


def test_a_default_that_does_not_suit_names_each_handler(project: Project, checked: Check) -> None:
    root = project(
        tasks={"a": TASK, "b": "name: b\nprocess: scripts.mail.Other\n", "c": "name: c\nprocess: scripts.mail.Later\n"},
        scripts={"mail": f"{SEND}def Other(id): ...\nasync def Later(id): ...\n"},
        settings="defaults: {executor: async}",
    )
    said = (
        "yaotask.yml:1:22: defaults.executor: async needs an `async def`, and {} is none; leave it out, or use thread"
    )

    assert lines(checked(root)) == [said.format("scripts.mail.Other"), said.format("scripts.mail.Send")]


# --- defaults, secrets, strictness -------------------------------------------------------------------


def test_a_path_from_the_defaults_is_told_once_where_it_stands(project: Project, checked: Check) -> None:
    root = project(
        tasks={"a": TASK, "b": TASK},
        scripts={"mail": SEND},
        settings="defaults:\n  fail_on: [scripts.mail.No]\n",
    )

    assert lines(checked(root)) == [
        'yaotask.yml:2:13: defaults.fail_on[0]: scripts/mail.py has no exception class "No"'
    ]


def test_a_path_from_the_environment_is_not_told(project: Project, resolver: Callable[[Path], Resolver]) -> None:
    root = project(tasks={"mail": "name: Mail\nprocess: ${WHERE}\n"}, scripts={"mail": SEND})
    (problem,) = check(catalog(root, {"WHERE": "scripts.mail.Secret"}), resolver(root))

    assert problem.message == "names nothing that can be found or imported; got *** from the environment"
    assert "Secret" not in problem.render()


def test_strict_reports_each_of_the_seven_keys_that_a_file_leaves_out(project: Project, checked: Check) -> None:
    root = project(tasks={"mail": f"{TASK}attempts: 2\n"}, scripts={"mail": SEND}, settings="defaults: {size: 9}")

    assert checked(root) == []
    assert lines(checked(root, strict=True)) == [
        "tasks/mail.yml: attempt_after: is left to its default; write it out, as in attempt_after: 200ms",
        "tasks/mail.yml: size: is left to its default; write it out, as in size: 9",
        "tasks/mail.yml: timeout: is left to its default; write it out, as in timeout: 5m",
        "tasks/mail.yml: worker_nums: is left to its default; write it out, as in worker_nums: 1",
    ]


def test_problems_of_many_tasks_come_sorted(project: Project, checked: Check) -> None:
    root = project(tasks={"b": TASK, "a": TASK, "c": "name: c\nprocess: scripts.x.Y\n"}, scripts={"mail": "x = 1"})

    assert [problem.file for problem in checked(root)] == ["tasks/a.yml", "tasks/b.yml", "tasks/c.yml"]


# --- broken tasks ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "keys",
    [
        "process: scripts.mail.No",
        "process: scripts.bad.Send",
        "process: scripts.mail.Nothing",
        "process: scripts.mail.Send\nexecutor: async",
        "process: scripts.mail.Later\ntransaction: true",
        "process: scripts.mail.Send\nfail_on: [scripts.mail.No]",
        "process: scripts.mail.Send\nignore_on: [scripts.mail.No]",
    ],
)
def test_a_handler_that_cannot_run_breaks_its_own_task_alone(
    project: Project, broken_tasks: Callable[[Path], dict[str, list[str]]], keys: str
) -> None:
    root = project(
        tasks={"mail": f"name: Mail\n{keys}\n", "other": TASK},
        scripts={"mail": f"{SEND}async def Later(id): ...\ndef Nothing(): ...\n", "bad": "1 / 0"},
    )

    assert {id: len(found) for id, found in broken_tasks(root).items()} == {"mail": 1}


def test_a_hook_that_is_not_there_breaks_no_task(
    project: Project, checked: Check, broken_tasks: Callable[[Path], dict[str, list[str]]]
) -> None:
    root = project(tasks={"mail": f"{TASK}event: {{error: scripts.mail.No}}\n"}, scripts={"mail": SEND})

    assert broken_tasks(root) == {}
    assert len(checked(root)) == 1


def test_a_default_that_leads_nowhere_breaks_every_task_that_has_it(
    project: Project, broken_tasks: Callable[[Path], dict[str, list[str]]]
) -> None:
    root = project(
        tasks={"a": TASK, "b": f"{TASK}fail_on: [OSError]\n", "c": TASK},
        scripts={"mail": SEND},
        settings="defaults: {fail_on: [NoSuch]}",
    )

    assert list(broken_tasks(root)) == ["a", "c"]
