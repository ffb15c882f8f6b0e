"""What a model shall come down to: how it is written, and what a shape has of it."""

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmcore.compression.recipes import OPENBA_V1
from lmcore.compression.targets import Conditions, Target, count_memory, measure, parse_target
from lmcore.cost import Shape, count_cache_bytes, count_parameters

SHAPE = Shape(
    encoder_layers=0, decoder_layers=3, hidden_size=8, heads=4, groups=2, head_size=2,
    inner_size=6, vocabulary_size=9,
)  # fmt: skip


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("params=3.4e9", 3.4e9), ("params=3.4B", 3.4e9), ("params=3.4b", 3.4e9),
        ("params=900M", 9e8), ("params=12k", 12e3), ("params=1T", 1e12),
        ("params=3400000000", 3.4e9), ("params=3.4E+9", 3.4e9),
        ("memory_mb=20.5", 20.5), ("ms_per_token=0.25", 0.25),
    ],
)  # fmt: skip
def test_numbers_and_their_units(text: str, value: float) -> None:
    assert parse_target(text) == Target(kind=text.partition("=")[0], value=value)


def test_shares() -> None:
    for kind in ("params", "memory_mb", "ms_per_token"):
        found = parse_target(f"{kind}=12.5%")
        assert (found.value, found.is_share) == (0.125, True)


@given(st.integers(1, 10**18))
def test_whole_numbers_are_read_as_they_are(number: int) -> None:
    assert parse_target(f"params={number}").value == float(number)


@pytest.mark.parametrize(
    "value",
    ["nan", "NaN", "inf", "-inf", "0", "0.0", "-1", "1e400", "1e99", "9" * 30, "9" * 5000, "", " ",
     " 1", "1_0", "0x10", "١٢", "1e-3", "1e", "3.4X", "3.4 B", "0%", "100%", "101%", "5M%", "1%%",
     "params=3", "1,2", "1e18B", "\x1b[31m"],
)  # fmt: skip
def test_what_is_no_target(value: str) -> None:
    for kind in ("params", "memory_mb", "ms_per_token"):
        with pytest.raises(ValueError, match=kind) as caught:
            parse_target(f"{kind}={value}")
        assert len(str(caught.value)) < 300


def test_units_are_for_parameters_alone() -> None:
    for kind in ("memory_mb", "ms_per_token"):
        with pytest.raises(ValueError, match=f"{kind} must be a number such as 20.5 or 25%"):
            parse_target(f"{kind}=3B")


@pytest.mark.parametrize("text", ["", "=", "params", "=3", "flops=3", "PARAMS=3", "params 3"])
def test_what_is_no_kind(text: str) -> None:
    with pytest.raises(ValueError, match="must be"):
        parse_target(text)


@pytest.mark.parametrize("value", [math.nan, math.inf, 0, -1, 1e19, -0.0])
def test_values_that_nothing_has(value: float) -> None:
    with pytest.raises(ValueError, match="params must be"):
        Target(kind="params", value=value)
    with pytest.raises(ValueError, match="params must be between 0% and 100%"):
        Target(kind="params", value=value, is_share=True)


@pytest.mark.parametrize("value", [True, "3", None, [3]])
def test_values_that_are_no_numbers(value: Any) -> None:
    with pytest.raises(TypeError, match="params must be a number"):
        Target(kind="params", value=value)


def test_parameters_are_those_of_cost() -> None:
    for shape in (SHAPE, OPENBA_V1):
        assert measure(shape, "params") == count_parameters(shape).distinct


def test_memory_is_weights_and_what_decoding_keeps() -> None:
    """By hand: weights in the type, and keys and values of each row and token."""
    told = Conditions(dtype="float32", batch_size=3, source_tokens=5, target_tokens=7)
    weights = 4 * count_parameters(SHAPE).total
    keys = 2 * 2 * 2 * 4 * 3  # keys and values, groups, head size, bytes, layers
    assert count_memory(SHAPE, told) == weights + 3 * 12 * keys
    assert measure(SHAPE, "memory_mb", told) == count_memory(SHAPE, told) / 1e6
    # Behind an encoder a source token's are those of cross-attention, and others are its own.
    both = replace(SHAPE, encoder_layers=2)
    source, own = count_cache_bytes(both, "float32")
    expected = 4 * count_parameters(both).total + 3 * (5 * source + 7 * own)
    assert count_memory(both, told) == expected
    # Weights of four bits do not shrink what is kept of tokens.
    small = replace(told, dtype="int4")
    assert count_memory(SHAPE, small) - count_memory(SHAPE, replace(small, batch_size=1)) == (
        2 * 12 * keys // 2
    )


def test_time_is_no_property_of_a_shape() -> None:
    with pytest.raises(ValueError, match="ms_per_token cannot be told from a shape"):
        measure(SHAPE, Target(kind="ms_per_token", value=3))


@pytest.mark.parametrize(
    ("name", "value"),
    [("dtype", "float8"), ("batch_size", 0), ("batch_size", 2**31), ("new_tokens", 1),
     ("repeats", 0), ("source_tokens", -1), ("target_tokens", 0), ("prompt_tokens", 0)],
)  # fmt: skip
def test_conditions_out_of_range(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=name):
        Conditions(**{name: value})
