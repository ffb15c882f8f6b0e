"""`ops.segments`: the authors' masks, laws, and agreement with the definition."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmcore.ops.segments import list_segments, mask_segments
from lmcore.reference import segments as reference
from parity import agree

MASK = 3
# Few ids, so that segments recur, and masks stand in texts.
ids = st.sampled_from([0, 1, 1, 2, 2, MASK, -(2**63), 2**63 - 1])
texts = st.lists(st.lists(ids, max_size=9), max_size=6)
sizes = st.sampled_from([1, 2, 2, 3, 4, 16])


def flat(rows: list[list[int]]) -> tuple[list[int], list[int]]:
    return [token for row in rows for token in row], np.cumsum([0, *map(len, rows)]).tolist()


def listed(*args: Any) -> Any:
    return tuple(array.tolist() for array in list_segments(*args))


def masked(*args: Any, **kwargs: Any) -> Any:
    return tuple(array.tolist() for array in mask_segments(*args, **kwargs))


# The authors'.


def test_masks_are_those_of_the_authors(golden_dir: Path) -> None:
    """Their loops over strings, on ids: what is not masked stands as it was, one mask for a run."""
    rows = json.loads(Path(golden_dir, "detox/masking.json").read_text(encoding="utf-8"))
    texts, labels = [row["token_ids"] for row in rows], [row["span_labels"] for row in rows]
    found, offsets = masked(*flat(texts), flat(labels)[0], -1)
    assert len(rows) > 100
    for row, (start, end) in zip(rows, pairwise(offsets), strict=True):
        assert found[start:end].count(-1) == row["masked"].count("<MASK>")
        toxic = {j + k for j, label in enumerate(row["span_labels"]) if label for k in (0, 1)}
        kept = [token for place, token in enumerate(row["token_ids"]) if place not in toxic]
        assert [token for token in found[start:end] if token != -1] == kept


# By hand.


def test_segments_by_hand() -> None:
    assert listed([5, 6, 5, 6, 7], [0, 4, 4, 5]) == ([[5, 6], [6, 5]], [0, 1, 0], [0, 3, 3, 3])
    assert listed([5, 6, 5], [0, 2, 3], 1) == ([[5], [6]], [0, 1, 0], [0, 2, 3])
    assert list_segments([], [0], 3).distinct.shape == (0, 3)


def test_masks_by_hand() -> None:
    text = [5, 6, 7, 8, 9]
    assert masked(text, [0, 5], [1, 0, 0, 1], MASK) == ([MASK, 7, MASK], [0, 3])
    assert masked(text, [0, 5], [1, 0, 1, 0], MASK) == ([MASK, 9], [0, 2])
    assert masked(text, [0, 5], [0, 1, 0], MASK, size=3) == ([5, MASK, 9], [0, 3])
    assert masked(text, [0, 5], [0, 1, 0, 1, 1], MASK, size=1) == ([5, MASK, 7, MASK], [0, 4])
    # One token has no pair; a mask that stood there joins what is masked beside it.
    assert masked([5, 5, MASK, 6, 7], [0, 1, 5], [0, 0, 1], MASK) == ([5, 5, MASK], [0, 1, 3])


# Laws.


@given(texts, sizes)
def test_distinct_segments_and_their_inverse_give_all_segments(
    rows: list[list[int]], size: int
) -> None:
    distinct, inverse, offsets = list_segments(*flat(rows), size)
    expected = [row[j : j + size] for row in rows for j in range(len(row) - size + 1)]
    assert distinct[inverse].tolist() == expected
    assert len({tuple(segment) for segment in distinct.tolist()}) == len(distinct)
    assert np.diff(offsets).tolist() == [max(0, len(row) - size + 1) for row in rows]


@given(texts, sizes, st.data())
def test_a_masked_text_holds_what_is_not_toxic(
    rows: list[list[int]], size: int, data: st.DataObject
) -> None:
    total = sum(max(0, len(row) - size + 1) for row in rows)
    labels = data.draw(st.lists(st.booleans(), min_size=total, max_size=total))
    found, offsets = masked(*flat(rows), np.array(labels, bool), MASK, size=size)
    first = 0
    for row, (start, end) in zip(rows, pairwise(offsets), strict=True):
        own = found[start:end]
        assert not any(a == b == MASK for a, b in pairwise(own))
        toxic: set[int] = set()
        for j in range(len(row) - size + 1):
            if labels[first]:
                toxic |= set(range(j, j + size))
            first += 1
        kept = [token for t, token in enumerate(row) if t not in toxic and token != MASK]
        assert [token for token in own if token != MASK] == kept


def test_results_do_not_depend_on_threads() -> None:
    source = np.random.default_rng(0)
    lengths = source.integers(0, 9, 700)  # more than two chunks of rows
    offsets = np.append(0, np.cumsum(lengths))
    tokens = source.integers(0, 9, offsets[-1])
    labels = source.integers(0, 2, np.maximum(lengths - 1, 0).sum())
    expected = reference.mask_segments(tokens.tolist(), offsets.tolist(), labels.tolist(), MASK)
    for threads in (1, 2, 3):
        assert masked(tokens, offsets, labels, MASK, threads=threads) == expected


# Parity.

wild_offsets = st.lists(st.integers(-1, 7), max_size=5)


@given(texts, st.one_of(st.none(), wild_offsets), st.sampled_from([-1, 0, 1, 2, 3, 16, 17, 2**64]))
def test_segments_agree(rows: list[list[int]], wild: list[int] | None, size: int) -> None:
    tokens, offsets = flat(rows)
    agree(reference.list_segments, listed, tokens, offsets if wild is None else wild, size)


@given(
    texts, st.one_of(st.none(), wild_offsets), sizes, st.lists(st.integers(-1, 2), max_size=9),
    st.booleans(),
)  # fmt: skip
def test_masks_agree(
    rows: list[list[int]], wild: list[int] | None, size: int, labels: list[int], fits: bool
) -> None:
    tokens, offsets = flat(rows)
    if fits:
        total = sum(max(0, len(row) - size + 1) for row in rows)
        labels = ([abs(label) % 2 for label in labels] + [1, 0, 0, 1] * total)[:total]
    agree(
        reference.mask_segments, masked, tokens, offsets if wild is None else wild, labels, MASK,
        size=size,
    )  # fmt: skip


# Arguments.


def test_wrong_arguments() -> None:
    with pytest.raises(TypeError, match=r"^ids must be integers: got float64$"):
        list_segments([0.5], [0, 1])
    with pytest.raises(TypeError, match=r"^size must be an int: got float$"):
        list_segments([1], [0, 1], 2.0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^offsets must have the shape \[R \+ 1\]: got \[\]$"):
        list_segments([1], 1)
    with pytest.raises(ValueError, match=r"^labels must be 1 values long: got 3$"):
        mask_segments([1, 2], [0, 2], [0, 0, 0], MASK)
    with pytest.raises(TypeError, match=r"^labels must be integers: got float64$"):
        mask_segments([1, 2], [0, 2], [0.5], MASK)
    with pytest.raises(ValueError, match=r"^mask_id must be at least .* below 2\*\*63: got "):
        mask_segments([1, 2], [0, 2], [0], 2**63)


def test_views_of_any_size() -> None:
    view = np.broadcast_to(np.ones(1, np.int64), (2**40,))
    for call in (
        lambda: list_segments(view, [0, 1]),
        lambda: list_segments([1], view),
        lambda: mask_segments([1, 2], [0, 2], view, MASK),
    ):
        with pytest.raises(MemoryError):
            call()
