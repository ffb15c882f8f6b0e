"""`ops.philox` against the published vectors, the laws of draws, and its definition."""

import ast
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import lmcore
from lmcore.ops.philox import Stream, philox4x32, random_below, random_bits, random_uniform
from lmcore.reference import philox as reference
from parity import agree

seeds = st.integers(0, 2**64 - 1)
streams = st.integers(0, 2**32 - 1)
item_lists = st.lists(st.integers(0, 2**64 - 1), max_size=5)
positions = st.one_of(st.integers(0, 9), st.integers(0, 2**33 - 20))
counts = st.integers(0, 9)
bounds = st.one_of(st.integers(1, 9), st.integers(1, 2**63 - 1))
DRAWING = {"random_bits", "random_uniform", "random_below"}
word = st.one_of(st.integers(0, 2**32 - 1), st.sampled_from([0, 1, 2**31, 2**32 - 1]))


def as_items(items: list[int]) -> NDArray[np.uint64]:
    return np.array(items, dtype=np.uint64)


# Golden: the vectors published with the Random123 library.


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        (
            "00000000 00000000 00000000 00000000",
            "00000000 00000000",
            "6627e8d5 e169c58d bc57ac4c 9b00dbd8",
        ),
        (
            "ffffffff ffffffff ffffffff ffffffff",
            "ffffffff ffffffff",
            "408f276d 41c83b0e a20bc7c6 6d5451fd",
        ),
        (
            "243f6a88 85a308d3 13198a2e 03707344",
            "a4093822 299f31d0",
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
    ids=["zeros", "ones", "pi"],
)
def test_published_vectors(counter: str, key: str, expected: str) -> None:
    made = agree(reference.philox4x32, philox4x32, parse(counter), parse(key))
    assert made == parse(expected)


def parse(words: str) -> tuple[int, ...]:
    return tuple(int(text, 16) for text in words.split())


@given(seeds, streams, st.integers(0, 2**64 - 1), st.integers(0, 2**33 - 1))
def test_draws_are_words_of_the_block(seed: int, stream: int, item: int, position: int) -> None:
    counter = (position >> 1, item & 0xFFFFFFFF, item >> 32, stream)
    block = philox4x32(counter, (seed & 0xFFFFFFFF, seed >> 32))
    low, high = block[2:] if position % 2 else block[:2]
    drawn = random_bits(seed, stream, as_items([item]), 1, position=position)
    assert drawn.tolist() == [[high * 2**32 + low]]


# Laws.


@given(seeds, streams, item_lists, positions, counts, st.integers(0, 9))
def test_draws_do_not_depend_on_how_they_are_asked_for(
    seed: int, stream: int, items: list[int], position: int, count: int, split: int
) -> None:
    split = min(split, count)
    whole = random_bits(seed, stream, as_items(items), count, position=position)
    assert whole.dtype == np.uint64
    assert whole.shape == (len(items), count)
    parts = (
        random_bits(seed, stream, as_items(items), split, position=position),
        random_bits(seed, stream, as_items(items), count - split, position=position + split),
    )
    assert np.array_equal(np.concatenate(parts, axis=1), whole)
    backwards = random_bits(seed, stream, as_items(items[::-1]), count, position=position)
    assert np.array_equal(backwards[::-1], whole)
    for item, row in zip(items, whole, strict=True):
        alone = random_bits(seed, stream, np.uint64(item), count, position=position)
        assert np.array_equal(alone, row)


@given(seeds, streams, item_lists, positions, counts, bounds)
def test_all_kinds_of_draws_come_from_the_same_bits(
    seed: int, stream: int, items: list[int], position: int, count: int, bound: int
) -> None:
    where = seed, stream, as_items(items), count
    bits = random_bits(*where, position=position)
    uniform = random_uniform(*where, position=position)
    below = random_below(*where, bound, position=position)
    assert uniform.dtype == np.float64
    assert below.dtype == np.uint64
    assert uniform.tolist() == [[(b >> 11) / 2**53 for b in row] for row in bits.tolist()]
    assert below.tolist() == [[b * bound >> 64 for b in row] for row in bits.tolist()]


@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3), (2, 0, 3), (1, 2, 3)])
def test_items_keep_their_shape(shape: tuple[int, ...]) -> None:
    items = np.arange(np.prod(shape, dtype=int)).reshape(shape)
    for count in (0, 1, 2, 5):
        drawn = random_bits(1, 2, items, count)
        assert drawn.shape == (*shape, count)
        flat = random_bits(1, 2, items.ravel(), count)
        assert np.array_equal(drawn.reshape(-1, count) if drawn.size else flat, flat)
        transposed = random_bits(1, 2, items.T, count)
        order = (*reversed(range(len(shape))), len(shape))
        assert np.array_equal(transposed, drawn.transpose(order))


@pytest.mark.parametrize("kind", ["int8", "uint8", "int32", "int64", "uint64"])
def test_items_of_any_integer_kind(kind: str) -> None:
    expected = random_bits(3, 0, [1, 3, 5], 2)
    assert np.array_equal(random_bits(3, 0, np.arange(1, 7, dtype=kind)[::2], 2), expected)
    assert np.array_equal(random_bits(3, 0, (1, 3, 5), 2), expected)


def test_no_items_need_no_kind() -> None:
    assert random_bits(1, 0, [], 3).shape == (0, 3)
    assert random_uniform(1, 0, np.zeros((0, 2)), 3).shape == (0, 2, 3)


def test_neighbouring_arguments_give_unrelated_draws() -> None:
    drawn = [
        random_bits(seed, stream, as_items([0, 1, 2**32, 2**63]), 8, position=position)
        for seed in (0, 1, 2**32, 2**63)
        for stream in (0, 1, 2**31)
        for position in (0, 8, 2**32, 2**33 - 8)
    ]
    values = np.concatenate([block.ravel() for block in drawn])
    assert len(np.unique(values)) == len(values)
    ones = np.unpackbits(values.view(np.uint8)).mean()
    assert abs(ones - 0.5) < 5 * 0.5 / np.sqrt(values.size * 64)


def test_uniform_draws_are_uniform() -> None:
    drawn = random_uniform(seed=7, stream=1, items=np.arange(1_000), count=200).ravel()
    assert drawn.min() >= 0
    assert drawn.max() < 1
    assert abs(drawn.mean() - 1 / 2) < 5 * np.sqrt(1 / 12 / drawn.size)
    assert abs(drawn.var() - 1 / 12) < 5 * np.sqrt(1 / 180 / drawn.size)
    observed = np.histogram(drawn, bins=100, range=(0, 1))[0]
    expected = drawn.size / 100
    chi_squared = ((observed - expected) ** 2 / expected).sum()
    assert abs(chi_squared - 99) < 5 * np.sqrt(2 * 99)


def test_draws_below_a_bound_take_each_value_as_often() -> None:
    drawn = random_below(seed=7, stream=2, items=np.arange(1_000), count=60, bound=6).ravel()
    observed = np.bincount(drawn.astype(np.int64), minlength=6)
    assert len(observed) == 6
    chi_squared = ((observed - 10_000) ** 2 / 10_000).sum()
    assert chi_squared < 5 + 5 * np.sqrt(2 * 5)


# The table of streams.


def test_streams_differ_and_stand_in_both_tables() -> None:
    """Two uses of randomness with one number would draw the same."""
    source = Path(__file__).parents[2].joinpath("rust/philox.rs").read_text(encoding="utf-8")
    table = re.search(r"pub enum Stream \{\n(.*?)\n\}", source, re.DOTALL)
    assert table is not None
    numbers = re.findall(r"^    (\w+) = (\w+),$", table[1], re.MULTILINE)
    core = {re.sub(r"(?<!^)([A-Z])", r"_\1", name).upper(): int(n, 0) for name, n in numbers}
    assert core == {stream.name: stream.value for stream in Stream}
    assert len(core) == len(Stream.__members__) == len(set(core.values())) > 10


def test_no_stream_stands_elsewhere() -> None:
    """Modules that draw take their streams from the table."""
    package = Path(lmcore.__file__).parent
    for path in sorted(package.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in DRAWING:
                given = [a for a in node.args[1:2] if not isinstance(a, ast.Starred)]
                given += [word.value for word in node.keywords if word.arg == "stream"]
                assert not any(isinstance(stream, ast.Constant) for stream in given), path


# Parity.

Draw = Callable[..., Any]


def draw_each(
    draw: Draw, seed: int, stream: int, items: list[int], count: int, *bound: int, position: int
) -> list[list[Any]]:
    return [
        [draw(seed, stream, item, position + p, *bound) for p in range(count)] for item in items
    ]


@given(st.tuples(word, word, word, word), st.tuples(word, word))
def test_blocks_agree(counter: tuple[int, ...], key: tuple[int, ...]) -> None:
    agree(reference.philox4x32, philox4x32, counter, key)


@given(seeds, streams, item_lists, positions, counts, bounds)
def test_draws_agree(
    seed: int, stream: int, items: list[int], position: int, count: int, bound: int
) -> None:
    where = seed, stream, as_items(items), count
    args = seed, stream, items, count
    bits = draw_each(reference.random_bits, *args, position=position)
    uniform = draw_each(reference.random_uniform, *args, position=position)
    below = draw_each(reference.random_below, *args, bound, position=position)
    assert random_bits(*where, position=position).tolist() == bits
    assert random_uniform(*where, position=position).tolist() == uniform
    assert random_below(*where, bound, position=position).tolist() == below


@pytest.mark.parametrize(
    "change",
    [
        {"seed": -1},
        {"seed": 2**64},
        {"stream": -1},
        {"stream": 2**32},
        {"position": -1},
        {"position": 2**33},
        {"bound": 0},
        {"bound": -1},
        {"bound": 2**63},
        {},
    ],
    ids=str,
)
def test_arguments_out_of_range_agree(change: dict[str, int]) -> None:
    arguments = {"seed": 1, "stream": 2, "position": 3, "bound": 4} | change

    def expected(**given: int) -> int:
        return reference.random_below(item=5, **given)

    def got(**given: int) -> int:
        return int(random_below(items=5, count=1, **given)[0])

    agree(expected, got, **arguments)
    if "bound" not in change:
        del arguments["bound"]
        for definition, op in (
            (reference.random_bits, random_bits),
            (reference.random_uniform, random_uniform),
        ):
            agree(
                lambda d=definition, **given: d(item=5, **given),
                lambda o=op, **given: o(items=5, count=1, **given)[0].item(),
                **arguments,
            )


@pytest.mark.parametrize("items", [[-1], [0, -1], [2**64], [0, 2**64], [2**63, -1]], ids=str)
def test_items_out_of_range_are_named(items: list[int]) -> None:
    with pytest.raises(ValueError, match=r"^items must be at least 0 and below 2\*\*64: got "):
        random_bits(1, 0, items, 1)


def test_largest_items_and_last_positions() -> None:
    last = 2**33 - 1
    for item in (0, 2**63, 2**64 - 1):
        drawn = random_bits(2**64 - 1, 2**32 - 1, [item], 1, position=last)
        expected = reference.random_bits(2**64 - 1, 2**32 - 1, item, last)
        assert drawn.tolist() == [[expected]]
    assert random_bits(0, 0, [0], 0, position=last).shape == (1, 0)
    message = r"^position must be at least 0 and below 2\*\*33: got 8589934592$"
    with pytest.raises(ValueError, match=message):
        random_bits(0, 0, [0], 2, position=last)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (("1", 0, [0], 1), "seed"),
        ((1.0, 0, [0], 1), "seed"),
        ((1, None, [0], 1), "stream"),
        ((1, 0, [0.5], 1), "items"),
        ((1, 0, ["a"], 1), "items"),
        ((1, 0, None, 1), "items"),
        ((1, 0, [True], 1), "items"),
        ((1, 0, [0], 1.5), "count"),
        ((1, 0, [0], "1"), "count"),
    ],
    ids=str,
)
def test_wrong_types_are_named(arguments: Any, name: str) -> None:
    seed, stream, items, count = arguments
    for op in (random_bits, random_uniform):
        with pytest.raises(TypeError, match=name):
            op(seed, stream, items, count)
    with pytest.raises(TypeError, match=name):
        random_below(seed, stream, items, count, 3)


def test_wrong_bounds_and_counters_are_named() -> None:
    with pytest.raises(TypeError, match="bound"):
        random_below(1, 0, [0], 1, 2.5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="position"):
        random_bits(1, 0, [0], 1, position="0")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("counter", "key", "kind", "text"),
    [
        (
            (0, 0, 0, -1),
            (0, 0),
            ValueError,
            "counter[3] must be at least 0 and below 2**32: got -1",
        ),
        ((2**32, 0, 0, 0), (0, 0), ValueError, None),
        ((0, 0, 0, 0), (0, 2**64), ValueError, None),
        ((0, 0, 0), (0, 0), ValueError, "counter must hold 4 words: got 3"),
        ((0, 0, 0, 0), (0, 0, 0), ValueError, "key must hold 2 words: got 3"),
        ((0, 0, 0, 0.5), (0, 0), TypeError, "counter[3] must be an int: got float"),
        ((0, 0, 0, 0), ("a", 0), TypeError, "key[0] must be an int: got str"),
    ],
)
def test_wrong_words_are_named(counter: Any, key: Any, kind: type[Exception], text: str) -> None:
    error = agree(reference.philox4x32, philox4x32, counter, key)
    assert type(error) is kind
    assert text in (None, str(error))
