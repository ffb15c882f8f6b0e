"""`ops.ngrams`: NLTK's numbers, laws, and agreement with the definition to the last bit."""

import math
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmcore.ops import ngrams
from lmcore.ops.ngrams import choose_candidates, count_ngrams, self_bleu, sentence_bleu
from lmcore.reference import ngrams as reference
from parity import agree
from strategies import characters, surrogate_texts

# Few words, so that n-grams recur; white space of all kinds between and around them.
_words = st.sampled_from(["a", "a", "a", "b", "b", "c", "é", "北", "'s", "\u200b", "👍🏽"])
_spaces = st.sampled_from([" ", " ", "  ", "\t", "\n", "\x1c", "\x85", "\xa0", "\u3000"])
sentences = st.one_of(
    st.lists(st.one_of(_words, _words, _spaces), max_size=18).map(" ".join),
    st.lists(st.one_of(_words, _spaces), max_size=12).map("".join),
    st.text(characters, max_size=12),
)
orders = st.sampled_from([1, 2, 3, 4, 4, 5, 16])
smoothings = st.sampled_from(reference.SMOOTHINGS)


def chosen(*args: Any, **kwargs: Any) -> Any:
    best, sums = choose_candidates(*args, **kwargs)
    return best.tolist(), sums.tolist()


def counted(*args: Any, **kwargs: Any) -> Any:
    occurrences, most = count_ngrams(*args, **kwargs)
    return [counts.tolist() for counts in occurrences], most.tolist()


# NLTK.


@given(sentences, st.lists(sentences, min_size=1, max_size=4), orders)
def test_bleu_is_that_of_nltk(hypothesis: str, references: list[str], order: int) -> None:
    bleu = pytest.importorskip("nltk.translate.bleu_score")
    words = [text.split() for text in references]
    for name in reference.SMOOTHINGS:
        method = getattr(bleu.SmoothingFunction(), name)
        expected = [
            bleu.sentence_bleu(words, hypothesis.split(), (1 / n,) * n, method)
            for n in range(1, order + 1)
        ]
        got = sentence_bleu([hypothesis], [references], order=order, smoothing=name)
        assert got.tolist() == [expected]


def test_smoothing_by_hand() -> None:
    """Four words, one shared: precisions 1/4, and smoothed 0/3, 0/2, 0/1."""
    text, other = "a b c d", "x a y z"
    first, fourth = (
        sentence_bleu([text], [[other]], smoothing=name)[0] for name in ngrams.SMOOTHINGS
    )
    tenths = [1 / 4, 0.1 / 3, 0.1 / 2, 0.1 / 1]
    small = math.log(4) / 5
    halves = [1 / 4, small / 2 / 3, small / 4 / 2, small / 8 / 1]
    for got, precisions in ((first, tenths), (fourth, halves)):
        expected = [math.prod(precisions[:n]) ** (1 / n) for n in range(1, 5)]
        assert got == pytest.approx(expected, rel=1e-14)


def test_lengths_by_hand() -> None:
    # Shorter than its reference: exp(1 - 4 / 2); of 1 and 3 words the nearest to 2 is 1.
    assert sentence_bleu(["a b"], [["a b c d"]], order=2).tolist() == [[math.exp(-1)] * 2]
    assert sentence_bleu(["a b"], [["a b c", "b"]], order=1).tolist() == [[1.0]]
    # Clipped by the largest count in any reference: two of three.
    assert sentence_bleu(["a a a"], [["a a b", "a b c"]], order=1).tolist() == [[2 / 3]]
    # A single word: method 4 has no logarithm for it, and leaves longer n-grams out.
    assert sentence_bleu(["a"], [["a"]]).tolist() == [[1.0] * 4]
    assert sentence_bleu(["a"], [["a"]], smoothing="method1").tolist() == [
        pytest.approx([0.1 ** (1 - 1 / n) for n in range(1, 5)])
    ]
    # Nothing shared, or nothing at all.
    texts = ["a b", "", " \t"]
    assert sentence_bleu(texts, [["c"], ["c"], [""]]).tolist() == [[0.0] * 4] * 3


# Laws.


@given(st.lists(sentences, max_size=6), orders, smoothings)
def test_bleu_of_a_text_with_itself_is_one(texts: list[str], order: int, smoothing: str) -> None:
    texts = [text for text in texts if len(text.split()) >= order]
    found = sentence_bleu(texts, [[text] for text in texts], order=order, smoothing=smoothing)
    assert (found == 1).all()


@given(st.lists(sentences, min_size=2, max_size=8), orders, smoothings)
def test_self_bleu_is_bleu_against_the_others(texts: list[str], order: int, smoothing: str) -> None:
    others = [texts[:k] + texts[k + 1 :] for k in range(len(texts))]
    expected = sentence_bleu(texts, others, order=order, smoothing=smoothing)
    assert (self_bleu(texts, order=order, smoothing=smoothing) == expected).all()


@given(st.lists(st.lists(sentences, min_size=1, max_size=12), max_size=3))
def test_sums_are_those_of_numpy(groups: list[list[str]]) -> None:
    best, sums = choose_candidates(groups)
    expected = []
    for group in groups:
        pairs = [sentence_bleu([text] * len(group), [[other] for other in group])[:, -1]
                 for text in group]  # fmt: skip
        for k, row in enumerate(pairs):
            row[k] = 0
        expected.append(np.sum(pairs, -1))
    assert sums.tolist() == [value for row in expected for value in row]
    assert best.tolist() == [row.argmax() for row in expected]


@pytest.mark.parametrize("size", [1, 7, 8, 9, 127, 128, 129, 136, 137, 300])
def test_sums_of_many_candidates_are_those_of_numpy(size: int) -> None:
    source = random.Random(size)
    group = [" ".join(source.choices("abcdefg", k=source.randrange(9))) for _ in range(size)]
    pairs = sentence_bleu(
        [text for text in group for _ in group], [[other] for _ in group for other in group]
    )[:, -1].reshape(size, size)
    np.fill_diagonal(pairs, 0)
    best, sums = choose_candidates([group])
    assert (sums == np.sum(pairs, -1)).all()
    assert best.tolist() == [np.sum(pairs, -1).argmax()]


def test_the_first_of_equal_candidates_wins() -> None:
    assert choose_candidates([["x", "a b", "a  b ", "y"], ["", ""], ["a"]]).best.tolist() == [
        1,
        0,
        0,
    ]


def test_counts_by_hand() -> None:
    found = count_ngrams(["a b a b", "b a", "", "c"], order=3)
    assert [counts.tolist() for counts in found.occurrences] == [[3, 3, 1], [2, 2], [1, 1]]
    assert found.most.tolist() == [[2, 2, 1], [1, 1, 0], [0, 0, 0], [1, 0, 0]]
    assert found.most.dtype == found.occurrences[0].dtype == np.int64
    empty = count_ngrams([], order=2)
    assert (empty.most.shape, [len(counts) for counts in empty.occurrences]) == ((0, 2), [0, 0])


def test_results_do_not_depend_on_threads() -> None:
    source = random.Random(0)

    def text() -> str:
        return " ".join(source.choices("abcdef", k=source.randrange(12)))

    groups = [[text() for _ in range(5)] for _ in range(700)]  # more than two chunks
    hypotheses = [text() for _ in groups]
    expected = chosen(groups, threads=1)
    scores = sentence_bleu(hypotheses, groups, threads=1)
    for threads in (2, 3):
        assert chosen(groups, threads=threads) == expected
        assert (sentence_bleu(hypotheses, groups, threads=threads) == scores).all()
    assert expected == reference.choose_candidates(groups)
    # A worker's tables are filled by rows before: what is known changes nothing.
    assert scores.tolist() == reference.sentence_bleu(hypotheses, groups)


@pytest.mark.parametrize("length", [62, 63, 64, 65, 66])
def test_numbers_that_are_kept_and_that_are_not(length: int) -> None:
    source = random.Random(length)
    texts = [" ".join(source.choices("abc", k=length + extra)) for extra in (0, -1, 1, 2)]
    agree(reference.self_bleu, self_bleu, texts, range(4))
    agree(reference.choose_candidates, chosen, [texts])


# Parity.


@given(
    st.lists(st.tuples(sentences, st.lists(sentences, max_size=3)), max_size=4), orders, smoothings
)
def test_sentence_bleu_agrees(
    rows: list[tuple[str, list[str]]], order: int, smoothing: str
) -> None:
    hypotheses, references = [row[0] for row in rows], [row[1] for row in rows]
    agree(
        reference.sentence_bleu, sentence_bleu, hypotheses, references,
        order=order, smoothing=smoothing,
    )  # fmt: skip


@given(
    st.lists(sentences, max_size=6), st.lists(st.integers(-1, 6), max_size=5), orders, smoothings
)
def test_self_bleu_agrees(texts: list[str], rows: list[int], order: int, smoothing: str) -> None:
    agree(reference.self_bleu, self_bleu, texts, rows, order=order, smoothing=smoothing)


@given(st.lists(st.lists(sentences, max_size=10), max_size=3), orders, smoothings)
def test_choices_agree(groups: list[list[str]], order: int, smoothing: str) -> None:
    agree(reference.choose_candidates, chosen, groups, order=order, smoothing=smoothing)


@given(st.lists(sentences, max_size=6), orders)
def test_counts_agree(texts: list[str], order: int) -> None:
    agree(reference.count_ngrams, counted, texts, order=order)


@pytest.mark.parametrize("order", [0, -1, 17, 2**31, 2**64, -(2**70)])
@pytest.mark.parametrize(
    "name", ["sentence_bleu", "self_bleu", "choose_candidates", "count_ngrams"]
)
def test_orders_that_do_not_exist(name: str, order: int) -> None:
    arguments: dict[str, list[Any]] = {
        "sentence_bleu": [["a"], [["a"]]], "self_bleu": [["a", "b"], [0]],
        "choose_candidates": [[["a"]]], "count_ngrams": [["a"]],
    }  # fmt: skip
    op: Callable[..., Any] = getattr(ngrams, name)
    text = f"^order must be at least 1 and at most 16: got {order}$"
    with pytest.raises(ValueError, match=text):
        op(*arguments[name], order=order)
    with pytest.raises(ValueError, match=text):
        getattr(reference, name)(*arguments[name], order=order)


# Arguments.


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match=r"^smoothing must be one of method1, method4: got 'm'$"):
        sentence_bleu(["a"], [["a"]], smoothing="m")
    with pytest.raises(IndexError, match=rf"^rows\[1\] must be .* below 2: got {2**63}$"):
        self_bleu(["a", "b"], [0, 2**63])
    with pytest.raises(TypeError, match=r"^hypotheses must be a sequence of str: got str$"):
        sentence_bleu("ab", [["a"], ["b"]])
    with pytest.raises(TypeError, match=r"^groups\[0\] must be a sequence of str: got str$"):
        choose_candidates(["ab"])
    with pytest.raises(TypeError, match=r"^texts\[1\] must be a str: got int$"):
        count_ngrams(["a", 1])  # type: ignore[list-item]
    with pytest.raises(TypeError, match=r"^order must be an int: got float$"):
        count_ngrams(["a"], order=1.0)  # type: ignore[arg-type]


@given(surrogate_texts)
def test_lone_surrogates_are_refused(text: str) -> None:
    for call in (
        lambda: sentence_bleu([text], [["a"]]),
        lambda: self_bleu(["a", text]),
        lambda: choose_candidates([["a", text]]),
        lambda: count_ngrams([text]),
    ):
        with pytest.raises(ValueError, match=r"holds a lone surrogate$"):
            call()


def test_more_pairs_than_memory_holds() -> None:
    for row in (0, np.array([0], dtype=object)):
        rows = np.broadcast_to(row, (2**40,))
        with pytest.raises(MemoryError, match=rf"^not enough memory for {2**40} values$"):
            self_bleu(["a", "b"], rows)
    with pytest.raises(MemoryError):
        choose_candidates([[""] * 2**21])


def test_self_bleu_of_many_texts() -> None:
    """Twenty thousand of them: four hundred million pairs."""
    source = random.Random(0)
    texts = [" ".join(source.choices("abcdefgh", k=12)) for _ in range(20_000)]
    scores = self_bleu(texts, order=2)
    assert scores[7:8].tolist() == reference.self_bleu(texts, [7], order=2)
    assert scores.mean() > 0.99
