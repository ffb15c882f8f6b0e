"""Windows of long sentences: each word is there, in order, and no entity is cut without need."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmcore.ner.windows import cut_windows, repair_window

sizes = st.integers(1, 9).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n - 1)))
entities = st.lists(
    st.one_of(st.just(["O"]), st.integers(1, 7).map(lambda n: ["B-x"] + ["I-x"] * (n - 1))),
    max_size=12,
)


def check_cover(windows: list[tuple[int, int]], count: int, most: int) -> None:
    assert windows[0][0] == 0
    assert windows[-1][1] == count
    for start, stop in windows:
        assert 0 < stop - start <= most or count == 0
    for (start, stop), (begin, end) in pairwise(windows):
        assert start < begin <= stop < end


@given(st.integers(0, 60), sizes)
def test_without_labels(count: int, size: tuple[int, int]) -> None:
    most, overlap = size
    windows = cut_windows(count, most, overlap)
    check_cover(windows, count, most)
    for (_, stop), (begin, _) in pairwise(windows):
        assert stop - begin == overlap
    if count > most:
        assert all(stop - start == most for start, stop in windows[:-1])


@given(entities, sizes)
def test_with_labels(parts: list[list[str]], size: tuple[int, int]) -> None:
    most, overlap = size
    labels = [label for part in parts for label in part]
    windows = cut_windows(len(labels), most, overlap, labels)
    check_cover(windows, len(labels), most)
    if all(len(part) <= most for part in parts):
        for start, stop in windows:
            assert not labels[start : start + 1] or labels[start] != "I-x"
            assert stop == len(labels) or labels[stop] != "I-x"


def test_an_entity_is_not_cut() -> None:
    labels = ["O", "O", "O", "B-x", "I-x", "I-x", "O"]
    assert cut_windows(7, 4, 0, labels) == [(0, 3), (3, 7)]
    assert cut_windows(7, 4, 1, labels) == [(0, 3), (2, 6), (3, 7)]
    assert cut_windows(7, 4, 1) == [(0, 4), (3, 7)]


def test_an_entity_that_is_longer_than_a_window() -> None:
    labels = ["B-x", "I-x", "I-x", "I-x", "O"]
    assert cut_windows(5, 2, 1, labels) == [(0, 2), (1, 3), (2, 4), (4, 5)]
    assert repair_window(labels[1:3]) == ["B-x", "I-x"]


@pytest.mark.parametrize(
    ("most", "overlap", "problem"),
    [(0, 0, "max_words must be at least 1: got 0"), (3, 3, "below max_words, 3: got 3"),
     (3, -1, "below max_words, 3: got -1")],
)  # fmt: skip
def test_sizes_are_checked(most: int, overlap: int, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        cut_windows(5, most, overlap)
