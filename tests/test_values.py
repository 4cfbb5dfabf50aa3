"""The edge between users' values and JSON text, with orjson and without it."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from typing import Any, NamedTuple
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yaotask import values
from yaotask.errors import InvalidPayload, ResultNotJson
from yaotask.jsoncheck import DEPTH, MAX_INTEGER, NODES, Rules, checked, is_plain, mend, show_path


@pytest.fixture(params=["with orjson", "without"], scope="module", autouse=True)
def codec(request: pytest.FixtureRequest) -> Iterator[None]:
    """Everything here holds for both codecs."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "without":
            patch.setitem(sys.modules, "orjson", None)
        spec = importlib.util.find_spec("yaotask.codec")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        assert hasattr(module, "orjson") == (request.param == "with orjson")
        patch.setattr(values, "encode", module.encode)
        patch.setattr(values, "decode", module.decode)
        yield


RULES = Rules(DEPTH, NODES)


def encode(value: Any, limit: int = 1_000_000, **more: Any) -> str:
    return values.encode_argument(value, limit=limit, setting="limits.args_bytes", **more)


def refusal(value: Any, **more: Any) -> InvalidPayload:
    with pytest.raises(InvalidPayload) as caught:
        encode(value, **more)
    return caught.value


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    return value


# --- what is taken -----------------------------------------------------------------------------------


class Name(str): ...


class Level(IntEnum):
    HIGH = 10


class Colour(StrEnum):
    RED = "red"


class Point(NamedTuple):
    x: int
    y: float


class Count(int): ...


class Ratio(float): ...


class Row(list[int]): ...


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        (None, None),
        (True, True),
        (MAX_INTEGER, MAX_INTEGER),
        (-MAX_INTEGER, -MAX_INTEGER),
        (1.5e300, 1.5e300),
        (-0.0, -0.0),
        ("发送 ✉ \U0001f600 \u2028 \x7f \x01", "发送 ✉ \U0001f600 \u2028 \x7f \x01"),
        ((1, (2, 3)), [1, [2, 3]]),
        ({"": {"a b": []}}, {"": {"a b": []}}),
        (Name("mail"), "mail"),
        ({Name("to"): Name("a@example.com")}, {"to": "a@example.com"}),
        ([Level.HIGH, Count(3), Ratio(0.5)], [10, 3, 0.5]),
        ({Colour.RED: Colour.RED}, {"red": "red"}),
        ([Point(1, 2.5), Row([1])], [[1, 2.5], [1]]),
        (OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
        ([defaultdict(list, a=[1]), Counter("aab")], [{"a": [1]}, {"a": 2, "b": 1}]),
    ],
)
def test_json_types_and_their_subclasses_are_stored_as_exact_types(value: Any, stored: Any) -> None:
    back = values.loads(encode(value))

    assert repr(back) == repr(stored)


def test_the_text_is_compact_and_not_escaped() -> None:
    assert encode({"name": "发送", "to": ["a", 1]}) == '{"name":"发送","to":["a",1]}'


def test_nesting_is_taken_up_to_the_depth() -> None:
    assert encode(nested(DEPTH)) == "[" * DEPTH + "]" * DEPTH


def test_values_are_taken_up_to_their_number() -> None:
    assert encode([0] * (NODES - 1)).count("0") == NODES - 1


def test_bytes_are_counted_up_to_the_limit() -> None:
    assert encode("é" * 4, limit=10) == '"éééé"'


def test_what_the_careful_check_copies_has_exact_types() -> None:
    copy = checked([Name("x"), Count(3), Ratio(0.5), Row(), OrderedDict(a=Level.HIGH)], InvalidPayload, "$", RULES)

    assert [type(item) for item in copy] == [str, int, float, list, dict]
    assert type(copy[4]["a"]) is int


def test_values_of_our_own_are_written_as_they_are() -> None:
    assert values.dumps({"at": Point(1, 2.5), "发": None}) == '{"at":[1,2.5],"发":null}'
    with pytest.raises(TypeError):
        values.dumps({"a": object()})


# --- what is refused ---------------------------------------------------------------------------------


@dataclass
class Person:
    password: str = "hunter2"


class Kind(Enum):
    SECRET = "hunter2"


@pytest.mark.parametrize(
    ("value", "path", "says"),
    [
        ("a\0b", "$", "holds a NUL character"),
        ({"a": "\0"}, "$.a", "holds a NUL character"),
        ({"x": {"a\0": 1}}, "$.x", "has a key that holds a NUL character"),
        ("\ud800", "$", "holds half of a surrogate pair"),
        (["ok", {"b": "\udfff"}], "$[1].b", "holds half of a surrogate pair"),
        ([{"\udc00": 1}], "$[0]", "has a key that holds half of a surrogate pair"),
        (float("nan"), "$", "is nan, which JSON does not have"),
        ([1, float("inf")], "$[1]", "is inf, which JSON does not have"),
        ({"a": (0, -1e999)}, "$.a[1]", "is -inf, which JSON does not have"),
        (Ratio("nan"), "$", "is nan"),
        (2**53, "$", "beyond 2**53 - 1"),
        ([-(2**53)], "$[0]", "beyond 2**53 - 1"),
        ({"a": Count(2**63)}, "$.a", "beyond 2**53 - 1"),
        ({"n": 10**5000}, "$.n", "beyond 2**53 - 1"),
        ({"a b": {1: 2}}, '$["a b"]', "has a key that is an int"),
        ({None: 1}, "$", "has a key that is a NoneType"),
        ({"a": {b"k": 1}}, "$.a", "has a key that is a bytes"),
        (b"hunter2", "$", "is a bytes, which JSON does not have; decode them to text first"),
        ([bytearray(b"hunter2")], "$[0]", "is a bytearray"),
        ({"hunter2"}, "$", "is a set, which JSON does not have; make it a list"),
        ({"who": frozenset({"hunter2"})}, "$.who", "is a frozenset"),
        ((word for word in ["hunter2"]), "$", "is a generator, which JSON does not have; make it a list"),
        (object(), "$", "is an object"),
        (Person(), "$", "Person, which JSON does not have"),
        (Kind.SECRET, "$", "Kind, which JSON does not have"),
        (Person, "$", "is a type"),
        (
            datetime(2026, 1, 1, tzinfo=UTC),
            "$",
            "is a datetime.datetime, which JSON does not have; use its isoformat()",
        ),
        (date(2026, 1, 1), "$", "is a datetime.date"),
        (Decimal("1.5"), "$", "is a decimal.Decimal"),
        (UUID(int=1), "$", "is a uuid.UUID, which JSON does not have; use str() of it"),
        (1j, "$", "is a complex"),
    ],
    ids=lambda part: part if isinstance(part, str) and part.startswith("$") else "",
)
def test_a_value_that_json_cannot_hold_is_refused_by_its_path(value: Any, path: str, says: str) -> None:
    error = refusal(value)

    assert (error.path, says in str(error)) == (path, True)
    assert "hunter2" not in str(error)


def test_the_path_goes_on_from_where_the_caller_is() -> None:
    assert refusal([{"to": b""}], path="$.args").path == "$.args[0].to"


def test_a_value_that_cannot_even_be_shown_is_refused_in_words() -> None:
    class Shy:
        def __repr__(self) -> str:
            raise AssertionError("a repr may hold a secret")

        __str__ = __repr__

    assert "Shy, which JSON does not have" in str(refusal({"a": Shy()}))


@pytest.mark.parametrize("depth", [DEPTH + 1, 1_000, 100_000])
def test_nesting_beyond_the_depth_is_refused(depth: int) -> None:
    error = refusal(nested(depth))

    assert "is nested more than 64 deep" in str(error)
    assert error.path == "$" + "[0]" * DEPTH


def test_deep_dicts_are_refused_like_lists() -> None:
    value: dict[str, Any] = {}
    for _ in range(100_000):
        value = {"a": value}

    assert refusal(value).path == "$" + ".a" * DEPTH


def test_an_empty_dict_is_a_level_too() -> None:
    value: Any = {}
    for _ in range(DEPTH):
        value = [value]

    assert refusal(value).path == "$" + "[0]" * DEPTH


def test_cycles_are_refused() -> None:
    ring: list[Any] = []
    ring.append(ring)
    loop: dict[str, Any] = {}
    loop["self"] = (loop,)

    assert "is nested more than 64 deep" in str(refusal(ring))
    assert "is nested more than 64 deep" in str(refusal(loop))


def test_cycles_that_double_at_every_turn_end_at_the_number_of_values() -> None:
    ring: list[Any] = []
    ring += [ring, ring]

    assert "more than 10,000 values" in str(refusal(ring))


@pytest.mark.parametrize("value", [[0] * NODES, [[0] * 100] * 100, dict.fromkeys(map(str, range(NODES)))])
def test_too_many_values_are_refused_however_they_are_shared(value: Any) -> None:
    assert "makes it more than 10,000 values in all" in str(refusal(value))


def test_too_many_values_are_refused_before_they_are_looked_at() -> None:
    error = refusal({"a": [object()] * NODES})

    assert error.path == "$.a"
    assert "makes it more than 10,000 values" in str(error)


def test_too_many_bytes_are_refused_with_the_setting_that_says_so() -> None:
    error = refusal("é" * 1_000, limit=2_001, path="$.args")

    assert str(error) == "$.args: is 2,002 bytes of JSON; the limit is 2,001 (limits.args_bytes)"


def test_a_project_may_set_other_bounds() -> None:
    assert encode(nested(200), depth=200)
    assert encode([0] * NODES, nodes=NODES + 1)
    assert refusal(nested(3), depth=2).path == "$[0][0]"


# --- results -----------------------------------------------------------------------------------------


def test_a_result_is_json_as_it_is() -> None:
    assert values.encode_result({"sent": (1, 2)}, limit=100) == ('{"sent":[1,2]}', False)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a\0b", '"a\u2400b"'),
        (["\ud800"], '["\ufffd"]'),
        ({"k\0": "\udfff"}, '{"k\u2400":"\ufffd"}'),
        (Name("\0"), '"\u2400"'),
    ],
)
def test_text_that_no_store_can_hold_is_mended_in_a_result(value: Any, text: str) -> None:
    assert values.encode_result(value, limit=100) == (text, True)


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({1}, "$"),
        ({"a": [b"hunter2"]}, "$.a[0]"),
        (2**53, "$"),
        ([float("nan")], "$[0]"),
        ({"\0": {1: 1}}, '$["\u2400"]'),
    ],
)
def test_a_result_that_json_cannot_hold_is_refused_by_its_path(value: Any, path: str) -> None:
    with pytest.raises(ResultNotJson) as caught:
        values.encode_result(value, limit=100)

    assert caught.value.path == path
    assert "hunter2" not in str(caught.value)


def test_a_result_of_too_many_bytes_is_refused() -> None:
    with pytest.raises(ResultNotJson, match=r"is 102 bytes of JSON; the limit is 100 \(limits.result_bytes\)"):
        values.encode_result("x" * 100, limit=100)


# --- JSON that somebody else wrote -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": [1, 2.5, null, true, "发"]}', {"a": [1, 2.5, None, True, "发"]}),
        (b'"\xe5\x8f\x91"', "发"),
        ("12345678901234567890", 12345678901234567890),
        ("-0.5e3", -500.0),
    ],
)
def test_json_of_others_is_read(text: str | bytes, value: Any) -> None:
    assert repr(values.parse(text)) == repr(value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is not JSON: Expecting value"),
        ("{'a': 1}", "is not JSON: Expecting property name"),
        ("[1,]", "is not JSON"),
        ("NaN", "NaN is no JSON number"),
        ("[-Infinity]", "-Infinity is no JSON number"),
        ("1e999", "the number 1e999 is too large"),
        ("-" + "9" * 400 + ".0", "is too large"),
        ("1" * 5_000, "an integer of 5,000 digits is too large"),
        ('{"a": 1, "b": {"c": 1, "c": 1}}', 'the key "c" is there twice'),
        ('{"a": 1, "\\u0061": 1}', 'the key "a" is there twice'),
        (b'"\xff"', "is not UTF-8 at byte 1"),
        ("[" * 100_000, "is nested too deeply to be read"),
    ],
)
def test_json_of_others_that_is_none_is_refused(text: str | bytes, says: str) -> None:
    with pytest.raises(InvalidPayload) as caught:
        values.parse(text)

    assert says in str(caught.value)


@given(st.one_of(st.binary(), st.text(st.sampled_from('{}[]",:0123456789eE.-+ \\untrealfsNI\ud800\x00'))))
def test_any_text_is_read_or_refused(text: str | bytes) -> None:
    try:
        value = values.parse(text)
    except InvalidPayload as error:
        assert error.path == "$"
    else:
        assert json.loads(json.dumps(value)) == value


# --- error texts and messages ------------------------------------------------------------------------


def test_a_text_that_fits_is_kept() -> None:
    assert values.clean_text("no address 发", 100) == "no address 发"


def test_a_text_that_is_too_long_is_cut_and_says_so() -> None:
    assert values.clean_text("x" * 1_000, 40) == "xxxxxxxxxxxxx … [cut from 1,000 bytes]"


@given(st.text(st.characters(exclude_categories=())), st.integers(0, 60))
def test_any_text_becomes_one_that_stores_can_hold(text: str, limit: int) -> None:
    cleaned = values.clean_text(text, limit)

    assert len(cleaned.encode()) <= limit
    assert "\0" not in cleaned


# --- whatever it is ----------------------------------------------------------------------------------

TEXT = st.text(st.characters(exclude_categories=()), max_size=12)
LEAF = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-MAX_INTEGER, MAX_INTEGER),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=12),
)
FAULTY_LEAF = st.one_of(LEAF, st.integers(), st.floats(), TEXT, st.binary(max_size=3))


def tree(leaf: st.SearchStrategy[Any], key: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.recursive(
        leaf,
        lambda inner: st.one_of(
            st.lists(inner, max_size=4),
            st.lists(inner, max_size=4).map(tuple),
            st.dictionaries(key, inner, max_size=4),
        ),
        max_leaves=20,
    )


GOOD = tree(
    LEAF.filter(lambda leaf: leaf is None or "\0" not in str(leaf)),
    st.text(st.characters(min_codepoint=1, codec="utf-8")),
)
ANY = tree(FAULTY_LEAF, st.one_of(TEXT, st.integers(), st.none()))


def stored(value: Any) -> Any:
    """What should come back: tuples are arrays."""
    match value:
        case list() | tuple():
            return [stored(item) for item in value]
        case dict():
            return {key: stored(member) for key, member in value.items()}
        case _:
            return value


@given(GOOD)
def test_what_json_can_hold_is_taken_and_reads_back_equal(value: Any) -> None:
    assert repr(values.loads(encode(value))) == repr(stored(value))


@given(GOOD)
def test_the_careful_check_finds_no_fault_where_the_fast_one_finds_none(value: Any) -> None:
    assert is_plain(value, DEPTH, NODES)
    assert repr(checked(value, InvalidPayload, "$", RULES)) == repr(stored(value))


@given(ANY)
def test_what_is_refused_is_found_at_its_path(value: Any) -> None:
    try:
        text = encode(value)
    except InvalidPayload as error:
        assert is_faulty(follow(value, error.path))
    else:
        assert repr(values.loads(text)) == repr(stored(value))


@given(ANY)
def test_any_result_is_stored_or_refused(value: Any) -> None:
    try:
        text, mended = values.encode_result(value, limit=1_000_000)
    except ResultNotJson as error:
        assert is_faulty(follow(value, error.path))
    else:
        assert "\0" not in text
        assert mended or repr(values.loads(text)) == repr(stored(value))


def follow(value: Any, path: str) -> Any:
    """The value that a path leads to, by the way a reader would take it."""
    for index, name, quoted in re.findall(r'\[([0-9]+)\]|\.([A-Za-z0-9_]+)|\[("(?:[^"\\]|\\.)*")\]', path):
        if index:
            value = value[int(index)]
        else:
            key = name or json.loads(quoted)
            # In a result, text has been mended by the time that it is part of a path.
            value = value[key] if key in value else {mend(str(other)): member for other, member in value.items()}[key]
    return value


def is_faulty(value: Any) -> bool:
    """Whether a value is at fault by itself, whatever it holds."""
    match value:
        case bool() | None:
            return False
        case int():
            return abs(value) > MAX_INTEGER
        case float():
            return value != value or abs(value) == float("inf")
        case str():
            return re.search("[\0\ud800-\udfff]", value) is not None
        case dict():
            return any(not isinstance(key, str) or is_faulty(key) for key in value)
        case _:
            return not isinstance(value, list | tuple)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ([], ""),
        (["args", 0, "to"], ".args[0].to"),
        (["a b", "", 'say "x"'], '["a b"][""]["say \\"x\\""]'),
        (["发送", "\n"], '["发送"]["\\n"]'),
        (["0", 0], '["0"][0]'),
        (["x" * 50], "." + "x" * 40),
    ],
)
def test_a_path_is_shown_as_users_write_it(path: list[str | int], text: str) -> None:
    assert show_path(path) == text
