"""From files to definitions, and every fault of all of them at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path

import pytest
from definitions_support import TASK, all_problems, catalog, lines
from hypothesis import given, settings
from hypothesis import strategies as st

from yaotask.backoff import Backoff
from yaotask.definitions import validation
from yaotask.definitions.fault import Fault
from yaotask.definitions.loader import load
from yaotask.definitions.model import Definition, Hooks
from yaotask.errors import UnknownTask
from yaotask.settings import load_settings

Project = Callable[..., Path]
Factory = pytest.TempPathFactory

SEED = """\
    # yaml-language-server: $schema=../.yaotask/task.schema.json
    name: Send mail
    process: scripts.mail.Send
    worker_nums: 10
    attempts: 3
    attempt_after: 200
    timeout: 2
    size: 1000
    event:
      next: scripts.mail.NextID
      add: scripts.mail.OnAdd
      success: scripts.mail.OnSuccess
      error: scripts.mail.OnError
      progress: scripts.mail.OnProgress
"""


@st.composite
def _edited(draw: st.DrawFn, text: str) -> bytes:
    """A good file in which a few pieces were replaced by others."""
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(text)))
        piece = draw(
            st.sampled_from(["", " ", "\n", "\t", ":", "-", "[", "}", "'", "&a ", "*a", "${NAME}", "${", "\0", "é"])
        )
        text = text[:start] + piece + text[start + draw(st.integers(0, 4)) :]
    return text.encode()


def one(project: Project, text: str, *, settings: str | None = None, **environ: str) -> Definition:
    """The definition in tasks/mail.yml, which has no fault."""
    root = project(tasks={"mail": text}, settings=settings)

    assert all_problems(root, environ) == []
    return catalog(root, environ).get("mail")


def faults(project: Project, text: str, *, settings: str | None = None, **environ: str) -> list[str]:
    """What is wrong with tasks/mail.yml, which is then not among the tasks."""
    root = project(tasks={"mail": text}, settings=settings)

    assert catalog(root, environ).tasks == {}
    return all_problems(root, environ)


def fault(project: Project, line: str, **environ: str) -> str:
    """What is wrong with one key; its place is on the third line."""
    (found,) = faults(project, TASK + line + "\n", **environ)
    return found.removeprefix("tasks/mail.yml:3:")


# --- what keys mean ----------------------------------------------------------------------------------


def test_the_seven_keys_and_the_hooks_of_the_seed_are_read(project: Project) -> None:
    assert one(project, SEED) == Definition(
        id="mail",
        name="Send mail",
        process="scripts.mail.Send",
        worker_nums=10,
        attempts=3,
        attempt_after=timedelta(milliseconds=200),
        timeout=timedelta(seconds=2),
        size=1000,
        event=Hooks(
            next="scripts.mail.NextID",
            add="scripts.mail.OnAdd",
            success="scripts.mail.OnSuccess",
            error="scripts.mail.OnError",
            progress="scripts.mail.OnProgress",
        ),
        source=Path("tasks/mail.yml"),
    )


def test_what_is_left_out_has_a_default_and_is_noted(project: Project) -> None:
    assert one(project, TASK) == Definition(
        id="mail",
        name="Mail",
        process="scripts.mail.Send",
        worker_nums=1,
        attempts=0,
        attempt_after=timedelta(milliseconds=200),
        backoff=Backoff("fixed", None, 0.0),
        timeout=timedelta(seconds=300),
        size=1024,
        event=Hooks(),
        executor=None,
        priority=0,
        input=None,
        fail_on=(),
        ignore_on=(),
        transaction=False,
        sensitive=(),
        source=Path("tasks/mail.yml"),
        missing=("worker_nums", "attempts", "attempt_after", "timeout", "size"),
    )


@pytest.mark.parametrize(
    ("line", "key", "value"),
    [
        ("attempt_after: 0", "attempt_after", timedelta(0)),
        ("attempt_after: 1500", "attempt_after", timedelta(seconds=1.5)),
        ("attempt_after: 2s", "attempt_after", timedelta(seconds=2)),
        ("attempt_after: 1h30m", "attempt_after", timedelta(minutes=90)),
        ("timeout: 1", "timeout", timedelta(seconds=1)),
        ("timeout: 0.5", "timeout", timedelta(milliseconds=500)),
        ("timeout: 500ms", "timeout", timedelta(milliseconds=500)),
        ("timeout: 30d", "timeout", timedelta(days=30)),
        ("attempts: 010", "attempts", 10),
        ("backoff: exponential", "backoff", Backoff("exponential")),
        ("backoff: {max: 1m, jitter: 0.5}", "backoff", Backoff("fixed", timedelta(minutes=1), 0.5)),
        ("backoff: {strategy: linear, max: 500}", "backoff", Backoff("linear", timedelta(seconds=0.5))),
        ("priority: low", "priority", -10),
        ("priority: normal", "priority", 0),
        ("priority: high", "priority", 10),
        ("priority: -7", "priority", -7),
        ("executor: async", "executor", "async"),
        ("executor: thread", "executor", "thread"),
        ("transaction: true", "transaction", True),
        ("fail_on: [ValueError, scripts.mail.Bounce]", "fail_on", ("ValueError", "scripts.mail.Bounce")),
        ("ignore_on: [KeyError]", "ignore_on", ("KeyError",)),
        ("sensitive: [token]", "sensitive", ("token",)),
        ("input: {required: [to]}", "input", {"required": ["to"]}),
        ("event: {retry: a.b, cancel: a.c, ignore: a.d}", "event", Hooks(retry="a.b", cancel="a.c", ignore="a.d")),
    ],
)
def test_each_key_is_read_in_its_own_unit(project: Project, line: str, key: str, value: object) -> None:
    assert getattr(one(project, f"{TASK}{line}\n"), key) == value


@pytest.mark.parametrize("line", ["x-owner: {team: [mail]}", "$schema: ../x.json", "event: {x-note: 1}", "x-: on"])
def test_keys_that_belong_to_the_user_or_the_editor_are_not_read(project: Project, line: str) -> None:
    assert one(project, f"{TASK}{line}\n") == one(project, TASK)


@pytest.mark.parametrize("suffix", [".yao", ".jsonc", ".json"])
def test_json_with_comments_is_read_as_yao_writes_it(project: Project, suffix: str) -> None:
    text = """\
    // the mail
    {
      "name": "$ENV.TITLE", /* people see it */
      "process": "scripts.mail.Send",
      "attempts": 3,
      "event": {"add": "scripts.mail.OnAdd",},
    }
    """
    mail = catalog(project(tasks={f"mail{suffix}": text}), {"TITLE": "Mail"}).get("mail")

    assert (mail.name, mail.attempts, mail.event.add) == ("Mail", 3, "scripts.mail.OnAdd")


@pytest.mark.parametrize("suffix", [".yao", ".jsonc", ".json"])
def test_a_fault_in_json_has_its_place_too(project: Project, suffix: str) -> None:
    root = project(tasks={f"mail{suffix}": '{"name": "Mail",\n  "process": "a.b", "attempts": "3"}'})

    assert all_problems(root) == [f'tasks/mail{suffix}:2:33: attempts: must be an integer, got "3"']


# --- variables ---------------------------------------------------------------------------------------


def test_variables_are_typed_where_they_are_plain_and_text_in_quotes(project: Project) -> None:
    mail = one(project, 'name: "${N}"\nprocess: scripts.${MODULE}.Send\nattempts: ${N}\n', N="3", MODULE="mail")

    assert (mail.name, mail.process, mail.attempts) == ("3", "scripts.mail.Send", 3)


def test_a_definition_remembers_which_values_came_from_the_environment(project: Project) -> None:
    text = f"{TASK}attempts: ${{N}}\nsize: ${{S:-5}}\nsensitive: [a, x$]\nbackoff:\n  max: ${{N}}\n"
    mail = one(project, text, N="3")

    assert mail.secrets == {("attempts",), ("backoff", "max")}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("attempts: ${N}", "needs the environment variable N, which is not set; or give a default: ${N:-...}"),
        ("attempts: ${N:?how often to try}", "needs the environment variable N: how often to try"),
        ("attempts: $ENV.N", "needs the environment variable N, which is not set; or give a default: ${N:-...}"),
    ],
)
def test_a_variable_that_is_not_set_is_said_once(project: Project, line: str, said: str) -> None:
    assert fault(project, line) == f"11: attempts: {said}"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("worker_nums: ${V}", "14: worker_nums: must be an integer, got ***"),
        ("timeout: ${V}", None),
        ("backoff: ${V}", None),
        ("priority: ${V}", None),
        ("process: ${V}", None),
        ("fail_on: [$ENV.V]", None),
        ("attempt_after: ${V:-1}", None),
        ("executor: a${V}", None),
    ],
)
def test_a_value_of_the_environment_is_never_told(project: Project, line: str, said: str | None) -> None:
    text = TASK.replace("process: scripts.mail.Send\n", "") if line.startswith("process") else TASK
    (found,) = faults(project, f"{text}{line}\n", V="hunter2 high")

    assert said is None or said in found
    assert found.endswith("got ***")


def test_a_value_too_long_is_not_told_when_it_came_from_the_environment(project: Project) -> None:
    assert fault(project, "timeout: ${V}", V="40d") == "10: timeout: must be at most 30 days, got ***"


# --- faults ------------------------------------------------------------------------------------------


def test_a_problem_shows_the_line_and_a_caret(project: Project) -> None:
    root = project(tasks={"mail": f"{TASK}# few\nworker_nums: 0\n"})
    (problem,) = catalog(root).problems

    assert problem.render() == (
        "tasks/mail.yml:4:14: worker_nums: must be at least 1, got 0\n    worker_nums: 0\n                 ^"
    )


DURATION = 'or a duration such as "500ms", "2s" or "1h30m", at most 30 days'
STRATEGIES = "must be fixed, linear, quadratic, exponential or a mapping, as in {strategy: linear, max: 1h}"
PRIORITY = "must be low, normal, high, or an integer from -2147483647 to 2147483647"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("worker_nums: 0", "14: worker_nums: must be at least 1, got 0"),
        ("worker_nums: 1.0", "14: worker_nums: must be an integer, got 1.0"),
        ("worker_nums:", "13: worker_nums: must be an integer, got nothing"),
        ("attempts: -1", "11: attempts: must be at least 0, got -1"),
        ("attempts: yes", '11: attempts: must be an integer, got "yes"'),
        ("attempts: true", "11: attempts: must be an integer, got true"),
        ("attempts: [3]", "11: attempts: must be an integer, got a list"),
        ("attempts: 2147483648", "11: attempts: must be at most 2147483647, got 2147483648"),
        ("attempt_after: -1", "16: attempt_after: must be at least 0, got -1"),
        ("attempt_after: 0.5", f"16: attempt_after: must be milliseconds (a number) {DURATION}, got 0.5"),
        ("attempt_after: 2 s", f'16: attempt_after: must be milliseconds (a number) {DURATION}, got "2 s"'),
        ("attempt_after: 31d", '16: attempt_after: must be at most 30 days, got "31d"'),
        ("timeout: 0", "10: timeout: must be more than 0, got 0"),
        ("timeout: 0s", '10: timeout: must be at least 1ms, got "0s"'),
        ("timeout: 22:30", f'10: timeout: must be seconds (a number) {DURATION}, got "22:30"'),
        ("timeout: 2592001", f"10: timeout: must be seconds (a number) {DURATION}, got 2592001"),
        ("timeout: .inf", "10: timeout: is not a finite number; quote it to make it text"),
        ("size: 0", "7: size: must be at least 1, got 0"),
        ("size: 1_000", '7: size: must be an integer, got "1_000"'),
        ("backoff: exponentail", f'10: backoff: {STRATEGIES}, got "exponentail"; did you mean "exponential"?'),
        ("backoff: 2", f"10: backoff: {STRATEGIES}, got 2"),
        ("backoff: {strateg: fixed}", '11: backoff.strateg: unknown key; did you mean "strategy"?'),
        ("backoff: {jitter: 2}", "19: backoff.jitter: must be at most 1, got 2"),
        ("backoff: {max: 31d}", '16: backoff.max: must be at most 30 days, got "31d"'),
        ("event: scripts.mail.On", '8: event: must be a mapping, got "scripts.mail.On"'),
        ("event: {sucess: a.b}", '9: event.sucess: unknown key; did you mean "success"?'),
        (
            "event: {add: OnAdd}",
            '14: event.add: must be a dotted path of ASCII names such as scripts.mail.Send, got "OnAdd"',
        ),
        ("executor: fork", '11: executor: must be "async" or "thread" or "process", got "fork"'),
        (
            "executor: asynch",
            '11: executor: must be "async" or "thread" or "process", got "asynch"; did you mean "async"?',
        ),
        ("priority: hihg", f'11: priority: {PRIORITY}, got "hihg"; did you mean "high"?'),
        ("priority: 1.5", f"11: priority: {PRIORITY}, got 1.5"),
        ("input: text", '8: input: must be a mapping, got "text"'),
        (
            "input: {type: objekt}",
            "15: input.type: must be one of array, boolean, integer, null, number, object, string; "
            'did you mean "object"?',
        ),
        ("input: {pattern: '('}", "18: input.pattern: is not a regular expression"),
        ("input: {required: to}", "19: input.required: is not JSON Schema: must be a list"),
        (
            "input: {$ref: 'https://example.com/a.json'}",
            "15: input.$ref: leads nowhere: a reference must stay within this schema, as in #/$defs/address",
        ),
        ("fail_on: ValueError", '10: fail_on: must be a list, got "ValueError"'),
        (
            "fail_on: [a b]",
            '11: fail_on[0]: must name an exception, such as ValueError or scripts.mail.Bounce, got "a b"',
        ),
        ("ignore_on: [KeyError, KeyError]", "12: ignore_on: must not hold the same item twice"),
        ("transaction: yes", '14: transaction: must be true or false, got "yes"'),
        ("sensitive: [1]", "13: sensitive[0]: must be text, got 1"),
        ("$schema: 1", "10: $schema: must be text, got 1"),
        ("worker_num: 1", '1: worker_num: unknown key; did you mean "worker_nums"?'),
        ("Attempts: 1", '1: Attempts: unknown key; did you mean "attempts"?'),
        ("process: a.b", "1: process: the key is here twice; the first is on line 2"),
    ],
)
def test_a_wrong_value_is_told_with_its_place_and_its_cure(project: Project, line: str, said: str) -> None:
    assert fault(project, line) == said


@pytest.mark.parametrize(
    "key",
    ["queue", "unique", "lock", "limit", "rate", "schedules", "notify", "keep", "batch", "on", "retries"],
)
def test_a_key_that_no_feature_reads_is_refused(project: Project, key: str) -> None:
    said = fault(project, f"{key}: mail")

    assert said.startswith(f"1: {key}: unknown key; ")


@pytest.mark.parametrize(
    "path",
    ["Send", "scripts..mail.Send", "scripts.mail.", "scripts.mail.__class__", "scripts.mail.Sеnd", "a b.c", "a/b.c"],
)
def test_a_path_that_no_file_can_have_is_refused_at_load(project: Project, path: str) -> None:
    said = f'must be a dotted path of ASCII names such as scripts.mail.Send, got "{path}"'

    assert faults(project, f"name: Mail\nprocess: {path}\n") == [f"tasks/mail.yml:2:10: process: {said}"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", ["tasks/mail.yml: is empty; a definition has at least a name and a process"]),
        ("# only this\n", ["tasks/mail.yml: is empty; a definition has at least a name and a process"]),
        ("- name\n", ["tasks/mail.yml: must be a mapping of keys, as in process: scripts.mail.Send"]),
        (
            "size: 5\n",
            [
                "tasks/mail.yml: name: is missing; add it, as in name: Send mail",
                "tasks/mail.yml: process: is missing; add it, as in process: scripts.mail.Send",
            ],
        ),
        (
            "name: ''\nprocess: a.b",
            ['tasks/mail.yml:1:7: name: must not be empty, got ""'],
        ),
    ],
)
def test_a_name_and_a_process_are_required(project: Project, text: str, said: list[str]) -> None:
    assert faults(project, text) == said


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("name: !!str x\n", "1:7"),
        ("name: &a [*a]\n", "1:11"),
        ("name: [a\n", "2:1"),
        ("name: a\nevent:\n\tadd: b.c\n", "3:1"),
        ("a: 1\n---\nb: 2\n", "2:1"),
        ("name: * * *\n", "1:8"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_problem_with_its_place(project: Project, text: str, place: str) -> None:
    (found,) = faults(project, text)

    assert found.startswith(f"tasks/mail.yml:{place}: ")


def test_all_problems_of_all_files_come_at_once_and_sorted(project: Project) -> None:
    root = project(
        tasks={
            "b": f"{TASK}size: 0\nattempts: x\n",
            "a": "name: a\nevent: 1\n",
            "good": TASK,
            "c": "name: [\n",
            "A B": TASK,
        }
    )
    found = all_problems(root)

    assert [line.split(": ")[0] for line in found] == [
        *("tasks/A B.yml", "tasks/a.yml", "tasks/a.yml:2:8"),
        *("tasks/b.yml:3:7", "tasks/b.yml:4:11", "tasks/c.yml:2:1"),
    ]
    assert list(catalog(root).tasks) == ["good"]


@settings(max_examples=200)
@given(text=st.one_of(st.binary(max_size=60), _edited(SEED)))
def test_whatever_a_file_holds_it_is_a_task_or_a_problem(tmp_path_factory: Factory, text: bytes) -> None:
    root = tmp_path_factory.mktemp("any")
    (root / "tasks").mkdir()
    (root / "tasks" / "mail.yml").write_bytes(text)
    found = catalog(root, {"NAME": "x"})

    assert bool(found.tasks) != bool(found.problems)
    assert all(problem.file == "tasks/mail.yml" and problem.message for problem in found.problems)


# --- defaults of all tasks ---------------------------------------------------------------------------


def test_defaults_stand_under_what_a_file_says(project: Project) -> None:
    settings = "defaults: {attempts: 3, attempt_after: 1s, priority: high, event: {error: a.b, add: a.c}, x-a: 1}"
    mail = one(project, f"{TASK}attempts: 1\nevent: {{add: a.d}}\n", settings=settings)

    assert (mail.attempts, mail.attempt_after, mail.priority) == (1, timedelta(seconds=1), 10)
    assert mail.event == Hooks(error="a.b", add="a.d")


@pytest.mark.parametrize(
    ("default", "own", "both"),
    [
        ("quadratic", "{max: 1m}", Backoff("quadratic", timedelta(minutes=1))),
        ("{max: 1m, jitter: 0.1}", "linear", Backoff("linear", timedelta(minutes=1), 0.1)),
    ],
)
def test_a_word_and_a_mapping_of_backoff_are_merged(project: Project, default: str, own: str, both: Backoff) -> None:
    assert one(project, f"{TASK}backoff: {own}\n", settings=f"defaults: {{backoff: {default}}}").backoff == both


def test_a_default_leaves_a_key_missing_in_the_file(project: Project) -> None:
    assert "attempts" in one(project, TASK, settings="defaults: {attempts: 3}").missing


def test_a_variable_of_the_environment_can_be_a_default(project: Project) -> None:
    mail = one(project, TASK, YAOTASK_DEFAULTS__ATTEMPTS="4", YAOTASK_DEFAULTS__BACKOFF__MAX="9s")

    assert (mail.attempts, mail.backoff) == (4, Backoff(max=timedelta(seconds=9)))


def test_a_fault_in_the_defaults_is_told_once_where_it_stands_and_does_without(project: Project) -> None:
    settings = "defaults:\n  attempts: -1\n  timeout: 31d\n  name: x\n  worker_nums: ${NONE}\n  size: 7\n"
    root = project(tasks={"a": TASK, "b": TASK}, settings=settings)
    task = catalog(root).get("a")

    assert all_problems(root) == [
        "yaotask.yml:2:13: defaults.attempts: must be at least 0, got -1",
        'yaotask.yml:3:12: defaults.timeout: must be at most 30 days, got "31d"',
        "yaotask.yml:4:3: defaults.name: unknown key; known are worker_nums, attempts, attempt_after, backoff, "
        "timeout, size, event, executor, priority, fail_on, ignore_on, transaction, sensitive",
        "yaotask.yml:5:16: defaults.worker_nums: needs the environment variable NONE, which is not set; "
        "or give a default: ${NONE:-...}",
    ]
    assert (task.attempts, task.timeout, task.worker_nums, task.size) == (0, timedelta(seconds=300), 1, 7)


@pytest.mark.parametrize(
    ("settings", "environ", "said"),
    [
        ("", {"YAOTASK_DEFAULTS__SIZE": "few"}, 'environment: YAOTASK_DEFAULTS__SIZE: must be an integer, got "few"'),
        ("defaults: {size: $ENV.S}", {"S": "x"}, "yaotask.yml:1:18: defaults.size: must be an integer, got ***"),
    ],
)
def test_a_fault_in_a_default_names_its_source(
    project: Project, settings: str, environ: dict[str, str], said: str
) -> None:
    root = project(tasks={"mail": TASK}, settings=settings)

    assert lines(catalog(root, environ).problems) == [said]
    assert catalog(root, environ).get("mail").size == 1024


def test_secrets_of_defaults_are_remembered_unless_the_file_has_its_own_value(project: Project) -> None:
    settings = "defaults: {attempts: $ENV.N, event: {add: $ENV.P, error: $ENV.P}}"
    mail = one(project, f"{TASK}attempts: 1\nevent: {{add: a.b}}\n", settings=settings, N="2", P="a.c")

    assert mail.secrets == {("event", "error")}


# --- the catalog -------------------------------------------------------------------------------------


def why_unknown(root: Path, task: str) -> str:
    with pytest.raises(UnknownTask) as caught:
        catalog(root).get(task)
    return str(caught.value)


def test_an_unknown_task_is_answered_with_what_was_meant(project: Project) -> None:
    root = project(tasks={"mail": TASK, "media/video": TASK})

    assert why_unknown(root, "mial") == 'there is no task "mial"; did you mean "mail"?'
    assert why_unknown(root, "zzz") == 'there is no task "zzz"; there are mail, media.video'


def test_an_unknown_task_among_many_names_the_first(project: Project) -> None:
    root = project(tasks={f"t{number:02}": TASK for number in range(12)})

    assert why_unknown(root, "zzz").endswith("; there are t00, t01, t02, t03, t04, t05, t06, t07, t08, t09 and 2 more")


def test_a_task_whose_file_has_problems_says_so(project: Project) -> None:
    root = project(tasks={"mail": "name: x", "other": TASK, "video": TASK, "video.yaml": TASK})

    assert why_unknown(root, "mail") == (
        'the task "mail" cannot be used: tasks/mail.yml has problems; see: yaotask check'
    )
    assert why_unknown(root, "video") == (
        'the task "video" cannot be used: tasks/video.yaml has problems; see: yaotask check'
    )


def test_a_project_without_tasks_says_so(project: Project) -> None:
    assert why_unknown(project(), "mail") == 'there is no task "mail": tasks/ has no definition that can be used'


def test_what_was_found_sound_is_not_looked_at_again_and_what_was_not_is(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = project(tasks={"good": TASK, "bad": f"{TASK}tomeout: 5\n"})
    looked_at: list[object] = []
    look = validation.faults

    def watched(schema: Mapping[str, object], tree: object) -> Iterator[Fault]:
        looked_at.append(tree)
        return look(schema, tree)

    monkeypatch.setattr(validation, "faults", watched)
    given, _ = load_settings(root, {})
    first = load(root, given, {})
    del looked_at[:]
    again = load(root, given, {}, first.sound)

    assert [tree for tree in looked_at if isinstance(tree, dict)] == [
        {"name": "Mail", "process": "scripts.mail.Send", "tomeout": 5}
    ]
    assert (again.tasks, lines(again.problems)) == (first.tasks, lines(first.problems))
    assert set(again.sound) == set(first.sound)
