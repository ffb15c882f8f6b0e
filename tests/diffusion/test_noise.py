"""Noise of the device's integers is the core's, draw for draw; rows have it for themselves."""

import math

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lmcore.diffusion import SamplingNoise
from lmcore.diffusion.noise import draw_normals, draw_words
from lmcore.ops.philox import Stream, random_bits, random_uniform


@settings(max_examples=30)
@given(
    st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1),
    st.lists(st.integers(0, 2**63 - 1), max_size=4), st.integers(0, 5),
)  # fmt: skip
@example(2**64 - 1, 2**32 - 1, [0, 2**63 - 1], 40)
def test_words_are_those_of_the_core(seed: int, stream: int, items: list[int], blocks: int) -> None:
    rows = torch.tensor(items, dtype=torch.int64)
    words = [part.numpy().astype(np.uint64) for part in draw_words(seed, stream, rows, blocks)]
    found = np.stack([words[1] << 32 | words[0], words[3] << 32 | words[2]], -1)
    expected = random_bits(seed, stream, np.array(items, np.uint64), 2 * blocks)
    assert np.array_equal(found.reshape(expected.shape), expected)


@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_normals_are_those_of_the_core_s_uniforms(count: int) -> None:
    items = torch.tensor([3, 2**40 + 1])
    uniform = random_uniform(9, 183, items.numpy().astype(np.uint64), 8)
    radius = np.sqrt(-2 * np.log(1 - uniform[:, ::2]))
    angle = 2 * math.pi * uniform[:, 1::2]
    expected = np.stack([radius * np.cos(angle), radius * np.sin(angle)], -1).reshape(2, 8)
    found = draw_normals(9, 183, items, count)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double().numpy(), expected[:, :count], atol=1e-6, rtol=1e-6)


def test_normals_have_their_distribution() -> None:
    numbers = draw_normals(1, 183, torch.arange(40), 5000).flatten().double()
    assert abs(numbers.mean()) < 4 / 200_000**0.5
    assert abs(numbers.var() - 1) < 4 * (2 / 200_000) ** 0.5
    ordered = numbers.sort().values
    expected = torch.erf(ordered / 2**0.5) / 2 + 0.5
    steps = torch.arange(1, len(ordered) + 1) / len(ordered)
    assert (expected - steps).abs().max() < 1.95 / 200_000**0.5  # Kolmogorov, 0.1 %
    first, second = numbers.view(-1, 2).T  # of one pair of uniforms
    assert abs((first * second).mean()) < 4 / 100_000**0.5


def test_a_row_has_its_noise_whatever_stands_beside_it() -> None:
    """A longer row goes on where a shorter one ends."""
    whole = SamplingNoise(5, [7, 2, 2**31 - 1], length=6, size=4)
    for place, row in enumerate((7, 2, 2**31 - 1)):
        alone = SamplingNoise(5, [row], length=4, size=4)
        assert torch.equal(whole.start()[place, :4], alone.start()[0])
        assert torch.equal(whole(19)[place, :4], alone(19)[0])


def test_rows_steps_seeds_and_streams_have_noise_of_their_own() -> None:
    made = [
        noise(step) for noise in (SamplingNoise(seed, [0, 1], 3, 4) for seed in (0, 1, 2**64 - 1))
        for step in (0, 1, 2**31 - 1)
    ]  # fmt: skip
    made.append(SamplingNoise(0, [0, 1], 3, 4).start())
    rows = torch.cat(made).flatten(1)
    assert len(rows) == 20
    equal = (rows[:, None] == rows[None]).any(-1)
    assert torch.equal(equal, torch.eye(20, dtype=torch.bool))
    assert (Stream.SAMPLING_NOISE, Stream.START_NOISE) == (183, 184)


@pytest.mark.parametrize(
    ("seed", "rows", "text"),
    [
        (-1, [0], "seed must be at least 0 and below 2**64: got -1"),
        (2**64, [0], f"seed must be at least 0 and below 2**64: got {2**64}"),
        (0, [0, -1], "rows must be at least 0 and below 2**31: got -1"),
        (0, [2**31], f"rows must be at least 0 and below 2**31: got {2**31}"),
    ],
)
def test_numbers_that_there_are_not(seed: int, rows: list[int], text: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011
        SamplingNoise(seed, rows, 3, 4)
    assert str(error.value) == text


def test_no_rows() -> None:
    assert SamplingNoise(0, [], 3, 4).start().shape == (0, 3, 4)
