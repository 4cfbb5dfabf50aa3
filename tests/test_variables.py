"""References to environment variables inside values."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yaotask.variables import expand

ENVIRON = {"A": "one", "B_2": "two", "EMPTY": "", "NESTED": "${A}"}


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("${A}", "one"),
        ("x${A}y${B_2}z", "xoneytwoz"),
        ("${A:-else}", "one"),
        ("${A:?must be}", "one"),
        ("${EMPTY}", ""),
        ("$ENV.A", "one"),
        ("$ENV.EMPTY", ""),
        ("${NESTED}", "${A}"),
        ("$${A} is ${A}", "${A} is one"),
    ],
)
def test_a_reference_is_replaced_and_known_to_be_secret(text: str, expanded: str) -> None:
    assert expand(text, ENVIRON) == (expanded, True)


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("${NONE:-}", ""),
        ("${NONE:-else where}", "else where"),
        ("${EMPTY:-else}", "else"),
        ("${NONE:-a:-b}", "a:-b"),
        ("$${A}", "${A}"),
        ("$$${A}", "$${A}"),
        ("$A", "$A"),
        ("costs $5", "costs $5"),
        ("see $ENV.A", "see $ENV.A"),
        ("$ENV.A ", "$ENV.A "),
        ("$ENV.", "$ENV."),
        ("$env.A", "$env.A"),
        ("{A}", "{A}"),
        ("", ""),
    ],
)
def test_what_does_not_come_from_the_environment_is_no_secret(text: str, expanded: str) -> None:
    assert expand(text, ENVIRON) == (expanded, False)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("${NONE}", "needs the environment variable NONE, which is not set; or give a default: ${NONE:-...}"),
        ("$ENV.NONE", "needs the environment variable NONE, which is not set; or give a default: ${NONE:-...}"),
        ("${NONE:?set it to a key}", "needs the environment variable NONE: set it to a key"),
        ("${EMPTY:?set it to a key}", "needs the environment variable EMPTY: set it to a key"),
        ("${NONE:?}", "needs the environment variable NONE: it is not set"),
    ],
)
def test_a_missing_variable_is_named_with_its_cure(text: str, said: str) -> None:
    with pytest.raises(ValueError, match="needs") as caught:
        expand(text, ENVIRON)

    assert str(caught.value) == said


@pytest.mark.parametrize(
    "text", ["${}", "${1A}", "${A", "${A-x}", "${A:x}", "${A:-${B_2}}", "${ A }", "${A.b}", "${é}"]
)
def test_a_reference_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="has a reference that is not"):
        expand(text, ENVIRON)


@given(st.text())
def test_text_without_references_is_left_as_it_is(text: str) -> None:
    plain = text.replace("$", "")

    assert expand(plain, ENVIRON) == (plain, False)


@given(st.text())
def test_a_value_of_the_environment_is_not_expanded_again(value: str) -> None:
    assert expand("<${V}>", {"V": value}) == (f"<{value}>", True)
