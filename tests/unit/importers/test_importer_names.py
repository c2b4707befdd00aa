"""Names that OpenDSS can read, one for each element."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from cosim.importers.draft import Names, number


@given(wanted=st.lists(st.text(max_size=6), max_size=12))
def test_names_are_readable_and_differ_by_more_than_case(wanted: list[str]) -> None:
    names = Names("head")
    given_out = [names.take(text, f"B{k}") for k, text in enumerate(wanted)]
    assert all(re.fullmatch(r"[A-Za-z0-9_-]+", name) for name in given_out)
    assert len({name.lower() for name in given_out} | {"head"}) == len(wanted) + 1


@given(value=st.floats(-1e300, 1e300))
def test_numbers_keep_ten_digits(value: float) -> None:
    assert abs(float(number(value)) - value) <= 1e-9 * abs(value)
