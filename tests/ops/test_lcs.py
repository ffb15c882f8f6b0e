"""`ops.lcs` against the paper's tables, the laws of an LCS, and its definition."""

import random
import re
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rapidfuzz.distance import LCSseq

from lmcore.ops.lcs import longest_common_subsequence
from lmcore.reference import lcs as reference
from parity import agree
from strategies import (
    change_block,
    edit,
    id_pairs,
    ordered_ids,
    sentences,
    similar_ids,
    surrogate_texts,
    unrelated_ids,
)

Ids = list[int]


# Golden: GNER; the alignments are those of the authors' fast matcher.


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ("a b c", "", [-1, -1, -1]),
        ("a a b", "a b", [-1, 0, 1]),
        ("a b a b", "b a b a", [-1, 0, 1, 2]),
        ("x y z", "z y x", [-1, -1, 0]),
        ("a b", "a b c", [0, 1]),
        ("a b c d", "b d x a", [-1, 0, -1, 1]),
        ("the cat the dog", "the dog the cat", [-1, -1, 0, 1]),
        ("a b b a", "b a a b", [-1, -1, 0, 1]),
    ],
)
def test_paper_alignments(a: str, b: str, expected: list[int]) -> None:
    aligned = agree(
        reference.longest_common_subsequence, longest_common_subsequence, a.split(), b.split()
    )
    assert aligned == expected


# Laws.


def count_by_table(a: Sequence[int], b: Sequence[int]) -> int:
    """Returns the length of an LCS by the textbook table, one row at a time."""
    columns = np.asarray(b)
    row = np.zeros(len(b) + 1, dtype=np.int64)
    for item in a:
        diagonal = row[:-1] + (columns == item)
        row[1:] = np.maximum.accumulate(np.maximum(row[1:], diagonal))
    return int(row[-1])


def check_alignment(a: Sequence[int], b: Sequence[int], length: int) -> None:
    """Asserts that the alignment of `a` and `b` is a common subsequence of this length."""
    aligned = longest_common_subsequence(a, b)
    assert aligned.dtype == np.int64
    assert aligned.shape == (len(a),)
    places = np.flatnonzero(aligned >= 0)
    partners = aligned[places]
    assert (aligned[aligned < 0] == -1).all()
    assert (np.diff(partners) > 0).all()
    assert len(places) == length
    if len(places):
        assert (np.asarray(a)[places] == np.asarray(b)[partners]).all()


@given(id_pairs)
def test_alignment_is_a_longest_common_subsequence(pair: tuple[Ids, Ids]) -> None:
    check_alignment(*pair, length=count_by_table(*pair))


@given(id_pairs)
def test_length_is_the_same_from_either_side(pair: tuple[Ids, Ids]) -> None:
    a, b = pair
    length = np.count_nonzero(longest_common_subsequence(a, b) >= 0)
    assert np.count_nonzero(longest_common_subsequence(b, a) >= 0) == length
    assert np.count_nonzero(longest_common_subsequence(a[::-1], b[::-1]) >= 0) == length


@given(id_pairs)
def test_equal_sequences_align_place_by_place(pair: tuple[Ids, Ids]) -> None:
    a, _ = pair
    assert longest_common_subsequence(a, a).tolist() == list(range(len(a)))


@given(id_pairs)
def test_disjoint_sequences_have_no_partners(pair: tuple[Ids, Ids]) -> None:
    a, b = pair
    assert (longest_common_subsequence(a, [-1 - value for value in b]) == -1).all()


@given(id_pairs, st.integers(-(2**63), 2**63 - 2001))
def test_only_equality_of_items_counts(pair: tuple[Ids, Ids], offset: int) -> None:
    a, b = pair
    aligned = longest_common_subsequence(a, b).tolist()
    moved = [[value + offset for value in ids] for ids in pair]
    assert longest_common_subsequence(*moved).tolist() == aligned
    assert longest_common_subsequence(*[[*map(str, ids)] for ids in pair]).tolist() == aligned


@given(id_pairs)
def test_items_without_partner_change_nothing(pair: tuple[Ids, Ids]) -> None:
    a, b = pair
    spread = [item for value in a for item in (-7, value)]
    aligned = longest_common_subsequence(spread, b)
    assert (aligned[::2] == -1).all()
    assert aligned[1::2].tolist() == longest_common_subsequence(a, b).tolist()


@pytest.mark.parametrize("kind", ["int8", "uint8", "int32", "uint32", "int64", "uint64"])
def test_integer_arrays_of_any_layout(kind: str) -> None:
    a = np.array([1, 9, 2, 9, 2, 9, 1, 9], dtype=kind)[::2]
    a.setflags(write=False)
    b = np.array([2, 1, 1, 2], dtype=kind)[::-1]
    expected = reference.longest_common_subsequence([1, 2, 2, 1], [2, 1, 1, 2])
    assert longest_common_subsequence(a, b).tolist() == expected


# Long sequences: the band widens, and states are computed again from checkpoints.

LONG = {
    "many ids, few edits": (20_000, 5_000, 0.01, ()),
    "many ids, half edited": (8_000, 2_000, 0.5, ()),
    "moved block": (20_000, 20_000, 0.005, ("move",)),
    "lost and moved blocks": (12_000, 3_000, 0.02, ("lose", "move", "insert")),
    "reversed block": (6_000, 600, 0.02, ("reverse",)),
    "thirty ids": (2_500, 30, 0.2, ()),
    "eight ids": (1_500, 8, 0.3, ("move",)),
    "two ids": (1_000, 2, 0.3, ()),
    "one id": (400, 1, 0.3, ()),
}


def long_pair(name: str) -> tuple[Ids, Ids]:
    size, distinct, rate, blocks = LONG[name]
    source = random.Random(name)
    a = [source.randrange(distinct) for _ in range(size)]
    b = edit(a, source, distinct, rate)
    for kind in blocks:
        b = change_block(b, source, distinct, kind)
    return a, b


@pytest.mark.parametrize("name", LONG)
def test_long_sequences_agree_with_the_definition(name: str) -> None:
    a, b = long_pair(name)
    aligned = agree(reference.longest_common_subsequence, longest_common_subsequence, a, b)
    assert len(a) - aligned.count(-1) == LCSseq.similarity(a, b)
    agree(reference.longest_common_subsequence, longest_common_subsequence, b, a)


@pytest.mark.parametrize(("n", "m"), [(20_000, 20_000), (100, 20_000), (20_000, 100), (9_000, 65)])
def test_unrelated_long_sequences_agree_with_the_definition(n: int, m: int) -> None:
    source = random.Random(n + m)
    a, b = ([source.randrange(2_000) for _ in range(size)] for size in (n, m))
    agree(reference.longest_common_subsequence, longest_common_subsequence, a, b)


@pytest.mark.parametrize("power", [1, 3])
def test_alignments_at_the_edge_of_the_band_agree(power: int) -> None:
    source = random.Random(power)
    both, before = (
        [int(20_000 * source.random() ** power) for _ in range(size)] for size in (16_000, 9_000)
    )
    longer = before + both
    agree(reference.longest_common_subsequence, longest_common_subsequence, both, longer)
    agree(reference.longest_common_subsequence, longest_common_subsequence, longer, both)


@pytest.mark.parametrize(("n", "m"), [(20_000, 20_000), (20_000, 14_000), (3_000, 20_000)])
@pytest.mark.parametrize("distinct", [2, 5])
def test_long_sequences_of_few_ids(n: int, m: int, distinct: int) -> None:
    source = random.Random(n * distinct + m)
    a, b = ([source.randrange(distinct) for _ in range(size)] for size in (n, m))
    check_alignment(a, b, length=LCSseq.similarity(a, b))


def test_repeated_items_need_no_memory_for_their_pairs() -> None:
    ones, twos = [1] * 20_000, [1] * 19_000
    assert longest_common_subsequence(twos, ones).tolist() == [*range(19_000)]
    aligned = longest_common_subsequence(ones, twos)
    assert aligned.tolist() == [-1] * 1_000 + [*range(19_000)]


# Parity.


@given(id_pairs)
def test_integers_agree(pair: tuple[Ids, Ids]) -> None:
    agree(reference.longest_common_subsequence, longest_common_subsequence, *pair)


@given(unrelated_ids())
def test_unrelated_integers_agree(pair: tuple[Ids, Ids]) -> None:
    agree(reference.longest_common_subsequence, longest_common_subsequence, *pair)


@given(similar_ids())
def test_similar_integers_agree(pair: tuple[Ids, Ids]) -> None:
    agree(reference.longest_common_subsequence, longest_common_subsequence, *pair)


@given(ordered_ids())
def test_orders_of_distinct_integers_agree(pair: tuple[Ids, Ids]) -> None:
    agree(reference.longest_common_subsequence, longest_common_subsequence, *pair)


@given(sentences(max_size=90), sentences(max_size=90))
def test_strings_agree(a: list[str], b: list[str]) -> None:
    agree(reference.longest_common_subsequence, longest_common_subsequence, a, b)
    agree(reference.longest_common_subsequence, longest_common_subsequence, tuple(a), a + b)


@given(surrogate_texts)
def test_lone_surrogates_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^b\[1\] holds a lone surrogate$"):
        longest_common_subsequence(["a"], ["a", text])
    with pytest.raises(ValueError, match=r"^a\[0\] holds a lone surrogate$"):
        longest_common_subsequence([text], [])


@pytest.mark.parametrize(
    ("a", "b", "name"),
    [
        ("abc", ["a"], "a"),
        (["a"], "abc", "b"),
        (None, [1], "a"),
        ([1], None, "b"),
        (["a"], [1], "a"),
        ([1], ["a"], "b"),
        (["a", 1], ["a"], "a"),
        ([1, "a"], [1], "a"),
        ([1.5], [1], "a"),
        ([1], [True], "b"),
        ([b"a"], [1], "a"),
    ],
)
def test_wrong_types_are_named(a: object, b: object, name: str) -> None:
    with pytest.raises(TypeError, match=rf"^{name}\b"):
        longest_common_subsequence(a, b)  # type: ignore[arg-type]


def test_wrong_values_are_named() -> None:
    with pytest.raises(ValueError, match=r"^a must have one dimension"):
        longest_common_subsequence(np.zeros((2, 2), dtype=np.int64), [1])
    for value in (2**63, 2**64 - 1, 2**64, -(2**63) - 1, 10**400):
        text = f"b[0] must be at least -2**63 and below 2**63: got {value}"
        for b in ([value], [value, -1], [value, 2**70], (value,)):
            with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
                longest_common_subsequence([1], b)
    with pytest.raises(ValueError, match=r"^a\[1\] .*: got 18446744073709551615$"):
        longest_common_subsequence(np.array([1, 2**64 - 1], dtype=np.uint64), [1])
