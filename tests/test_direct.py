"""Statements as each driver wants them."""

from __future__ import annotations

import pytest

from yaotask.store.direct import in_style


@pytest.mark.parametrize(
    ("written", "wanted"),
    [
        ("a = :a AND b = :b_2", "a = %(a)s AND b = %(b_2)s"),
        ("CAST(:rows AS json)", "CAST(%(rows)s AS json)"),
        ("x::bigint = :x", "x::bigint = %(x)s"),
        ("minute % :hour <> 0", "minute %% %(hour)s <> 0"),
        ("a[1:2]", "a[1:2]"),
    ],
)
def test_a_value_is_written_in_the_style_of_the_driver(written: str, wanted: str) -> None:
    assert in_style(written, "postgresql") == wanted
    assert in_style(written, "sqlite") == written
