"""JSON that is written quickly is what the library writes, with what acts on a terminal escaped."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmcore._text import _HIDDEN, to_json

texts = st.text(st.sampled_from('ab\\n"\n\r\t\x00\x7f\x1b\x9b北\u2028\u202eé😀/,'), max_size=6)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=8,
)  # fmt: skip
rows = st.dictionaries(texts, values | st.lists(texts, max_size=5), max_size=5)


def write_plainly(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    return _HIDDEN.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


@given(rows | values)
def test_json_is_that_of_the_library(value: Any) -> None:
    text = to_json(value)
    assert text == write_plainly(value)
    assert json.loads(text) == value


@pytest.mark.parametrize("value", [{1: "a"}, {"a": ("b", "c")}, {"a": ["b", 1]}, {"a": [1, "b"]}])
def test_rows_of_other_kinds(value: Any) -> None:
    assert to_json(value) == json.dumps(value)


@pytest.mark.parametrize("value", [float("nan"), {"a": float("inf")}, {"a": ["b", float("nan")]}])
def test_numbers_that_json_has_not(value: Any) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        to_json(value)
