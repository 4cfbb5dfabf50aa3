"""Files of YAML, read to plain values with places."""

from __future__ import annotations

import os
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yaotask.marks import KEY, Marks, show_path
from yaotask.nodes import DEPTH
from yaotask.treereader import NODES
from yaotask.values import encode_argument
from yaotask.yamlsource import BYTES, read, read_file

FILE = "tasks/mail.yml"
TAGS = "tags such as !!str are not used here; remove it, and quote what shall be text"
INTEGER = "is an integer beyond 2**53 - 1, which many readers cannot keep; quote it to make it text"


def load(text: str | bytes, **environ: str) -> tuple[Any, Marks, list[str]]:
    value, marks, problems = read(text, FILE, environ=environ)
    return value, marks, [str(problem).removeprefix(f"{FILE}:") for problem in problems]


def value_of(text: str | bytes, **environ: str) -> Any:
    value, _, problems = load(text, **environ)
    assert problems == []
    return value


def problems_of(text: str | bytes, **environ: str) -> list[str]:
    return load(text, **environ)[2]


# --- what is read ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("on: off", {"on": "off"}),
        ("yes: no", {"yes": "no"}),
        ("y: n", {"y": "n"}),
        ("at: 22:30", {"at": "22:30"}),
        ("1: 010", {"1": 10}),
        ("a: 1_000", {"a": "1_000"}),
        ("a: 2026-11-22", {"a": "2026-11-22"}),
        ("a: 2026-11-22 08:00:00Z", {"a": "2026-11-22 08:00:00Z"}),
        ("a: 0o17", {"a": 15}),
        ("a: 0x1F", {"a": 31}),
        ("a: 1e3", {"a": 1000.0}),
        ("a:", {"a": None}),
        ("~: ~", {"~": None}),
        ("[true, True, 'true', null]", [True, True, "true", None]),
        ('"010"', "010"),
        ("a: 'null'", {"a": "null"}),
        ("a: |\n  010\n", {"a": "010\n"}),
        ("a: >-\n  one\n  two\n", {"a": "one two"}),
        ("<<: 1", {"<<": 1}),
        ("=: =", {"=": "="}),
        ("a: 0 2 * * *", {"a": "0 2 * * *"}),
        ('a: "* * * * *"', {"a": "* * * * *"}),
        ("base: &b {x: 1}\nother: *b", {"base": {"x": 1}, "other": {"x": 1}}),
        ("&k name: 1\nb: {*k : 2}", {"name": 1, "b": {"name": 2}}),
        ('"\\uD83D\\uDE00": "\\uD83D\\uDE00"', {"\U0001f600": "\U0001f600"}),
        ("%YAML 1.2\n---\na: 1\n...\n", {"a": 1}),
        ("发: 送", {"发": "送"}),
        ("", None),
        ("# nothing\n", None),
        (b"a: \xe5\x8f\x91", {"a": "发"}),
    ],
)
def test_plain_text_means_what_the_core_schema_of_yaml_1_2_says(text: str | bytes, value: Any) -> None:
    assert repr(value_of(text)) == repr(value)


def test_every_key_and_value_has_its_place() -> None:
    text = dedent("""\
        # who
        name: 发送
        event: {add: a.b, 送: c}
        fail_on:
          - X
          -   - Y
        """)

    places = load(text)[1].places

    assert places == {
        (): (2, 1),
        ("name", KEY): (2, 1),
        ("name",): (2, 7),
        ("event", KEY): (3, 1),
        ("event",): (3, 8),
        ("event", "add", KEY): (3, 9),
        ("event", "add"): (3, 14),
        ("event", "送", KEY): (3, 19),
        ("event", "送"): (3, 22),
        ("fail_on", KEY): (4, 1),
        ("fail_on",): (5, 3),
        ("fail_on", 0): (5, 5),
        ("fail_on", 1): (6, 7),
        ("fail_on", 1, 0): (6, 9),
    }


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_are_counted_whatever_ends_them(end: str) -> None:
    _, marks, _ = load(end.join(["a: 1", "", "b: 2", ""]))

    assert marks.places["b",] == (3, 4)
    assert marks.lines[2] == "b: 2"


# --- what is refused ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: 1\nb: 2\na: 3", "3:1: a: the key is here twice; the first is on line 1"),
        ("x:\n  a: 1\n  'a': 2", "3:3: x.a: the key is here twice; the first is on line 2"),
        ("{&k a: 1, *k : 2}", "1:2: a: the key is here twice; the first is on line 1"),
        ('"\\uD83D\\uDE00": 1\n\U0001f600: 2', "2:1: \U0001f600: the key is here twice; the first is on line 1"),
        ("a: !!str 1", f"1:4: {TAGS}"),
        ("!!python/object/apply:os.system [ls]", f"1:1: {TAGS}"),
        ("a: ! 1", f"1:4: {TAGS}"),
        ("&a [*a]", "1:5: *a is inside of what it stands for, which would never end"),
        ("a: &x\n  b: [1, *x]", "2:10: *x is inside of what it stands for, which would never end"),
        ("a: *b", "1:4: there is no anchor &b before this; put text that begins with * in quotes"),
        ("a: 1\n---\nb: 2", "2:1: a second document begins here; one document a file"),
        ("? [a]\n: b", "1:3: a key must be text"),
        ("{a: 1}: b", "1:1: a key must be text"),
        ("x: &x [1]\n*x : 2", "1:4: a key must be text"),
        ("\ufeffa: 1", "1:1: begins with a byte order mark; save the file as UTF-8 without one"),
        (b"a: 1\nb: \xe5\x8f\x91 \xff", "2:6: is not UTF-8 here; save the file as UTF-8"),
        (b"\xff\xfea\x00", "1:1: is not UTF-8 here; save the file as UTF-8"),
        ("a: \ud800", "1:4: is not UTF-8 here; save the file as UTF-8"),
        ("a: \x01", "1:4: U+0001 is not allowed in YAML"),
        ("a: 1\nb: 发\0", "2:5: U+0000 is not allowed in YAML"),
        ('a: "\\0"', "1:4: a: holds a NUL character, which databases cannot store as text"),
        ('a: ["\\uD800"]', "1:5: a[0]: holds half of a surrogate pair, which is no character"),
        ('x: {"\\0": 1}', "1:5: x: a key here holds a NUL character, which databases cannot store as text"),
        ("a: .nan", "1:4: a: is not a finite number; quote it to make it text"),
        ("a: 1e999", "1:4: a: is not a finite number; quote it to make it text"),
        ("a: " + "9" * 5_000, f"1:4: a: {INTEGER}"),
    ],
)  # fmt: skip
def test_what_definitions_have_no_use_for_is_refused_with_its_place(text: str | bytes, problem: str) -> None:
    assert problems_of(text) == [problem]


@pytest.mark.parametrize(
    ("text", "place", "cure"),
    [
        ("cron: * * * * *", "1:8", 'text that begins with * needs quotes, as in "* * * * *"'),
        ("a: 1\ncron: */5 * * * *", "2:8", 'text that begins with * needs quotes, as in "* * * * *"'),
        ("a: & b", "1:5", "text that begins with & needs quotes"),
        ("a: b: c", "1:5", "put text that holds a colon and a space in quotes, or mend the indentation"),
        ("a:\n\tb: 1", "2:1", "use spaces to indent, not tabs"),
        ("a: %d", "1:4", "text that begins with % needs quotes"),
        ("a: @b", "1:4", "text that begins with @ needs quotes"),
        ("a: `b`", "1:4", "text that begins with ` needs quotes"),
        ("a: [${B}]", "1:6", "inside [ ] and { }, put ${...} in quotes"),
    ],
)
def test_text_that_yaml_cannot_read_is_told_with_the_cure(text: str, place: str, cure: str) -> None:
    [problem] = problems_of(text)

    assert problem.startswith(f"{place}: is not YAML: ")
    assert problem.endswith(f"; {cure}")


@pytest.mark.parametrize(
    "text",
    ["a: [1, 2", "a: 'b", '"\\x"', 'a: "\\UFFFFFFFF"', "- a\nb: 1", "%TAG ! a\n%TAG ! b\n--- c", "a: |x"],
)
def test_other_text_that_yaml_cannot_read_is_one_problem(text: str) -> None:
    [problem] = problems_of(text)

    assert "is not YAML: " in problem


def test_values_at_fault_are_told_together_and_the_others_are_read() -> None:
    value, _, problems = load("a: .inf\nb: 2\nb: 3\nc: [1e999, ok]\n")

    assert value == {"a": None, "b": 2, "c": [None, "ok"]}
    assert [problem.partition(":")[0] for problem in problems] == ["1", "3", "4"]


def test_the_line_of_a_problem_is_shown_with_a_caret() -> None:
    [problem] = read("a: 1\nb: {a: .nan}\n", FILE)[2]

    assert problem.render().splitlines()[1:] == ["    b: {a: .nan}", "           ^"]


# --- bounds ------------------------------------------------------------------------------------------


def test_nesting_is_bounded() -> None:
    assert value_of("[" * DEPTH + "]" * DEPTH)
    assert problems_of("[" * (DEPTH + 1) + "]" * (DEPTH + 1)) == ["1:33: nested more than 32 deep"]
    assert problems_of("[" * 100_000) == ["1:33: nested more than 32 deep"]
    assert problems_of("".join(f"{' ' * depth}a:\n" for depth in range(100))) == ["33:33: nested more than 32 deep"]


def test_aliases_do_not_get_around_the_bound_on_nesting() -> None:
    text = "a: &a " + "[" * 20 + "]" * 20 + "\nb: " + "[" * 20 + "*a" + "]" * 20

    assert problems_of(text) == ["1:18: nested more than 32 deep"]


def test_values_are_counted_as_often_as_aliases_use_them() -> None:
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]\n" for level in range(1, 10)
    )

    [problem] = problems_of(bomb)

    assert problem.endswith("holds more than 10,000 values, counting aliases as often as they are used")


def test_as_many_values_are_read_as_the_bound_says() -> None:
    assert len(value_of("[" + "1," * (NODES - 1) + "]")) == NODES - 1
    assert "holds more than 10,000 values" in problems_of("[" + "1," * NODES + "]")[0]


def test_a_file_has_at_most_256_kib() -> None:
    full = b"a: " + b"x" * (BYTES - 3)

    assert value_of(full)
    assert read(full + b"x", FILE)[2][0].render() == f"{FILE}: is larger than 256 KiB, the most a file may have"


# --- the environment ---------------------------------------------------------------------------------


def test_references_to_the_environment_are_typed_where_they_are_plain() -> None:
    text = "a: ${N}\nb: '${N}'\nc: x${N}\nd: ${M:-2}\ne: $${N}\nf: $ENV.N\n${N}: 1\n"

    value, marks, problems = load(text, N="10")

    assert problems == []
    assert value == {"a": 10, "b": "10", "c": "x10", "d": 2, "e": "${N}", "f": 10, "${N}": 1}
    assert marks.secrets == {("a",), ("b",), ("c",), ("f",)}


def test_without_an_environment_references_are_text() -> None:
    assert read("a: ${N}", FILE)[0] == {"a": "${N}"}


def test_a_value_from_the_environment_cannot_add_structure() -> None:
    assert value_of("a: ${N}", N="[1, {b: 2}] # *x") == {"a": "[1, {b: 2}] # *x"}


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({}, "1:4: a: needs the environment variable N, which is not set; or give a default: ${N:-...}"),
        ({"N": "hunter2\0"}, "1:4: a: holds a NUL character, which databases cannot store as text"),
        ({"N": "\udcff"}, "1:4: a: holds half of a surrogate pair, which is no character"),
        ({"N": "1e999"}, "1:4: a: is not a finite number; quote it to make it text"),
    ],
)
def test_a_variable_at_fault_is_told_without_its_value(environ: dict[str, str], says: str) -> None:
    assert problems_of("a: ${N}", **environ) == [says]


# --- files -------------------------------------------------------------------------------------------


def test_a_file_is_read_under_the_name_it_is_given(tmp_path: Path) -> None:
    (tmp_path / "x.yml").write_bytes(b"a: [1\n")

    [problem] = read_file(tmp_path / "x.yml", FILE)[2]

    assert problem.place == f"{FILE}:2:1"


def test_a_file_that_cannot_be_read_is_a_problem(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yml")
    (tmp_path / "loop.yml").symlink_to("loop.yml")
    (tmp_path / "large.yml").write_bytes(b"#" * (BYTES + 1))

    def said(name: str) -> str:
        return str(read_file(tmp_path / name, name)[2][0])

    assert said("missing.yml") == "missing.yml: cannot be read: No such file or directory"
    assert said(".") == ".: is not a regular file"
    assert said("pipe.yml") == "pipe.yml: is not a regular file"
    assert said("loop.yml") == "loop.yml: cannot be read: Too many levels of symbolic links"
    assert said("large.yml") == "large.yml: is larger than 256 KiB, the most a file may have"


# --- marks -------------------------------------------------------------------------------------------


def test_a_problem_stands_at_the_nearest_place_that_is_known() -> None:
    marks = load("name: x\nevent:\n  add: y\n")[1]

    assert str(marks.problem(("event", "add"), "m")) == f"{FILE}:3:8: event.add: m"
    assert str(marks.problem(("event", "add", KEY), "m")) == f"{FILE}:3:3: event.add: m"
    assert str(marks.problem(("event", "gone", 0), "m")) == f"{FILE}:3:3: event.gone[0]: m"
    assert str(marks.problem(("gone",), "m", name="other")) == f"{FILE}: other: m"
    assert str(marks.problem((), "m")) == f"{FILE}: m"


def test_a_line_that_is_very_long_is_not_shown() -> None:
    marks = load(f"a: {'x' * 300}\nb: 1\n")[1]

    assert marks.problem(("a",), "m").snippet is None
    assert marks.problem(("b",), "m").snippet == "b: 1"


def test_a_path_is_shown_as_users_write_it() -> None:
    assert show_path(("fail_on", 0, "a b", KEY)) == "fail_on[0].a b"
    assert show_path((0, "a")) == "[0].a"


# --- whatever it is ----------------------------------------------------------------------------------

PIECES = [
    *"\n\n\n    :-?,[]{}#&*!|>%@`'\"\\abx019.~=<\t\r\x00\x85\u2028\ufeff发\ud800\U0001f600",
    *("---", "...", ": ", "- ", "&a ", "*a", "!!str ", "%YAML 1.2\n", '"\\u', '"\\U', "${A}", "${", "\n  ", "0x"),
]
YAMLISH = st.lists(st.sampled_from(PIECES), max_size=60).map("".join)


@given(st.one_of(st.binary(), st.text(), YAMLISH, YAMLISH.map(lambda text: text.encode("utf-8", "replace"))))
def test_any_text_is_told_about_or_is_a_value_that_can_be_stored(text: str | bytes) -> None:
    value, marks, problems = read(text, FILE, environ={"A": "1"})

    assert problems or encode_argument(value, limit=1_000_000, setting="")
    # Of text that is not even UTF-8 there are no lines.
    assert not marks.lines or all(problem.line <= len(marks.lines) for problem in problems)
