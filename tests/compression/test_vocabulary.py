"""Which tokens stay: OpenBA's own counts, laws of choosing, and numbers that cannot be."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from lmcore.compression import choose_tokens
from lmcore.compression.counts import read_counts
from lmcore.compression.pieces.merging import ListedMerges
from lmcore.compression.pieces.table import PieceTable
from lmcore.compression.vocabulary import measure_coverage, pad_ids
from lmcore.openba.protobuf import PieceKind
from lmcore.ops.vocabulary import rank_ids


def make_table(algorithm: str, texts: list[str], kinds: list[int], **more: Any) -> PieceTable:
    ids = more.pop("ids", np.arange(len(texts)))
    return PieceTable(
        algorithm=algorithm, ids=ids, texts=texts, kinds=np.array(kinds, np.uint8), **more
    )


def test_coverage_of_the_authors_counts(data_dir: Path) -> None:
    """The shares that the 25, 50 and 120 thousand most frequent ids have."""
    counts = read_counts(data_dir / "tok/openba_vocab_freq.txt").total
    assert (len(counts), int((counts > 0).sum()), int(counts.sum())) == (
        250_203, 245_698, 200_894_358_000,
    )  # fmt: skip
    ranked = rank_ids(counts)
    shares = [measure_coverage(counts, ranked[:kept]) for kept in (25_000, 50_000, 120_000)]
    assert [f"{share:.3%}" for share in shares] == ["95.815%", "98.803%", "99.910%"]


def test_choosing_from_the_authors_counts(data_dir: Path) -> None:
    """As specification section 5: the most frequent ids in the order of the old model."""
    counts = read_counts(data_dir / "tok/openba_vocab_freq.txt").total
    texts = [f"<{number}>" for number in range(len(counts))]
    kinds = [PieceKind.NORMAL] * len(counts)
    kinds[:3] = [PieceKind.CONTROL, PieceKind.CONTROL, PieceKind.UNKNOWN]
    kinds[-103:] = [PieceKind.CONTROL] * 103
    table = make_table("wordlevel", texts, [int(kind) for kind in kinds])
    chosen = choose_tokens(table, {"all": counts}, 100_000)
    special = {0, 1, 2, *range(len(counts) - 103, len(counts))}
    expected = [number for number in rank_ids(counts).tolist() if number not in special]
    assert chosen.ids.tolist() == sorted({*special, *expected[: 100_000 - 106]})
    padded = pad_ids(chosen.ids, 128)
    assert (len(padded), padded[99_999:].tolist()) == (100_096, [len(counts) - 1, *[-1] * 96])


def test_ties_go_to_the_smaller_id() -> None:
    table = make_table("wordlevel", list("abcdef"), [1] * 6)
    counts = {"x": np.array([1, 2, 2, 1, 2, 0])}
    kept = [choose_tokens(table, counts, number).ids.tolist() for number in range(1, 7)]
    assert kept == [[1], [1, 2], [1, 2, 4], [0, 1, 2, 4], [0, 1, 2, 3, 4], [0, 1, 2, 3, 4, 5]]


def test_ties_among_many() -> None:
    """Enough of them that a sort that is not stable mixes them up."""
    draw = random.Random(0)
    counts = np.array([draw.randint(0, 3) for _ in range(5_000)], np.int64)
    table = make_table("wordlevel", [f"<{i}>" for i in range(5_000)], [1] * 5_000)
    expected = sorted(range(5_000), key=lambda number: (-counts[number], number))[:1_000]
    assert choose_tokens(table, {"x": counts}, 1_000).ids.tolist() == sorted(expected)


def test_each_group_keeps_its_own() -> None:
    table = make_table("wordlevel", list("abcdef"), [1] * 6)
    counts = {"en": np.array([90, 80, 70, 0, 0, 0]), "zh": np.array([0, 0, 0, 3, 2, 1])}
    assert choose_tokens(table, counts, 3).ids.tolist() == [0, 1, 2]
    chosen = choose_tokens(table, counts, 3, keep_per={"zh": 2})
    assert chosen.ids.tolist() == [0, 3, 4]
    assert chosen.coverage == {"en": 90 / 240, "zh": 5 / 6}
    # What does not occur in a group is not of its most frequent.
    assert choose_tokens(table, counts, 4, keep_per={"zh": 9}).ids.tolist() == [0, 3, 4, 5]
    with pytest.raises(
        ValueError, match=r"^keep must be at least 3 for what keep_per asks of 'zh'"
    ):
        choose_tokens(table, counts, 2, keep_per={"zh": 3})


def test_characters_of_words_that_occur_stay() -> None:
    texts = ["[UNK]", "a", "b", "c", "##a", "##b", "##c", "##d", "ab", "##cd", "bc"]
    table = make_table("wordpiece", texts, [2] + [1] * 10, prefix="##")
    counts = np.zeros(11, np.int64)
    counts[[8, 9]] = 5
    chosen = choose_tokens(table, {"all": counts}, 5)
    assert [texts[number] for number in chosen.ids] == ["[UNK]", "a", "##b", "##c", "##d"]
    assert (chosen.required, chosen.characters) == (1, 4)
    with pytest.raises(ValueError, match=r"^keep must be at least 5: so many are special tokens"):
        choose_tokens(table, {"all": counts}, 4)


def test_rows_that_settings_name_stay_without_a_token() -> None:
    table = make_table("wordlevel", list("abc"), [1, 1, 1], ids=np.array([0, 2, 5]))
    counts = {"all": np.array([1, 0, 7, 0, 0, 0])}
    assert choose_tokens(table, counts, 1, named=[]).ids.tolist() == [2]
    assert choose_tokens(table, counts, 1, named=[5, 6]).ids.tolist() == [5, 6]


def test_a_piece_that_has_no_room_for_its_parts_is_passed_over() -> None:
    texts = ["a", "b", "c", "d", "ab", "cd", "abcd", "abc"]
    merges = ListedMerges([("a", "b"), ("c", "d"), ("ab", "cd")])
    table = make_table("bpe", texts, [1] * 8, merges=merges)
    counts = np.array([0, 0, 0, 0, 5, 1, 9, 99])
    # `abc` is built by nothing; four characters of what occurs come first.
    kept = [choose_tokens(table, {"all": counts}, number).ids.tolist() for number in (4, 5, 6, 7)]
    assert kept == [[0, 1, 2, 3], [0, 1, 2, 3, 4], [0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5, 6]]
    whole = make_table("bpe", texts, [1] * 8, merges=merges, takes_whole_words=True)
    assert choose_tokens(whole, {"all": counts}, 5).ids.tolist() == [0, 1, 2, 3, 7]


def test_numbers_and_counts_that_cannot_be() -> None:
    table = make_table("wordlevel", list("abc"), [1, 1, 1], ids=np.array([0, 1, 3]))
    counts = {"all": np.array([1, 2])}
    for keep in (0, -1, 4, 2**40):
        with pytest.raises(ValueError, match=r"^keep must be from 1 to 3, the number of tokens"):
            choose_tokens(table, counts, keep)
    with pytest.raises(IndexError, match=r"^counts of 'all' have the id 2, which no token has"):
        choose_tokens(table, {"all": np.array([1, 2, 3])}, 2)
    with pytest.raises(ValueError, match=r"^counts of 'all' must be one row of numbers from 0$"):
        choose_tokens(table, {"all": np.array([1, -2])}, 2)
    with pytest.raises(ValueError, match=r"^expected counts of at least one group, got none$"):
        choose_tokens(table, {}, 2)
    with pytest.raises(ValueError, match=r"^keep_per names the group 'zh': there are all$"):
        choose_tokens(table, counts, 2, keep_per={"zh": 1})
    with pytest.raises(ValueError, match=r"^keep_per must not be negative: got -1 of 'all'$"):
        choose_tokens(table, counts, 2, keep_per={"all": -1})
    with pytest.raises(ValueError, match=r"^multiple must be at least 1: got 0$"):
        pad_ids(np.arange(3), 0)
    with pytest.raises(ValueError, match=r"^two tokens have the id 1$"):
        make_table("wordlevel", list("abc"), [1] * 3, ids=np.array([0, 1, 1]))
    with pytest.raises(ValueError, match=r"^two tokens are 'a'$"):
        make_table("wordlevel", list("aba"), [1] * 3)


@st.composite
def tables(draw: st.DrawFn) -> PieceTable:
    """Pieces of BPE over four letters, some of which nothing builds."""
    texts = list("abcd")
    pairs = []
    for _ in range(draw(st.integers(0, 12))):
        left, right = draw(st.sampled_from(texts)), draw(st.sampled_from(texts))
        if left + right not in texts:
            texts.append(left + right)
            pairs.append((left, right))
    order = random.Random(draw(st.integers(0, 99)))
    order.shuffle(pairs)
    return make_table("bpe", ["<s>", *texts], [3] + [1] * len(texts), merges=ListedMerges(pairs))


@given(table=tables(), data=st.data())
def test_laws_of_choosing(table: PieceTable, data: Any) -> None:
    numbers = st.lists(st.integers(0, 9), min_size=len(table), max_size=len(table))
    counts: NDArray[np.int64] = np.array(data.draw(numbers), np.int64)
    before: set[int] = set()
    for keep in range(1, len(table) + 1):
        least = len({*table.find_required(), *table.find_characters(np.flatnonzero(counts))})
        if keep < least:
            with pytest.raises(ValueError, match=rf"^keep must be at least {least}: so many are"):
                choose_tokens(table, {"all": counts}, keep)
            continue
        kept = set(choose_tokens(table, {"all": counts}, keep).ids.tolist())
        assert len(kept) <= keep
        assert set(table.find_required().tolist()) <= kept
        assert set(table.find_characters(np.flatnonzero(counts).tolist()).tolist()) <= kept
        for place in kept:
            assert table.is_built(place)
            assert set(table.find_parents(place)) <= kept
        before = kept
    assert before == {place for place in range(len(table)) if table.is_built(place)}
