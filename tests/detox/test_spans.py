"""Spans of texts: characters of the text as it was given, windows, batches."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmcore.detox import SpanFinder
from lmcore.detox.spans import Span, cut_windows, list_characters
from strategies import characters
from tiny_detox import TOXIC, make_finder, make_model, make_oracle, make_words


@pytest.fixture(scope="module")
def finder() -> SpanFinder:
    return make_finder()


@pytest.fixture(scope="module")
def narrow() -> SpanFinder:
    """One token, so that a span is that of a word alone."""
    return make_finder(segment_size=1)


def found(finder: SpanFinder, text: str) -> list[str]:
    (one,) = finder.find([text])
    for span in one.spans:
        assert one.text[span.start : span.end] == span.text
    return [span.text for span in one.spans]


# Offsets.


def test_spans_by_hand(finder: SpanFinder) -> None:
    (one,) = finder.find(["You are a FOOL, you!"])
    assert one.spans == (Span(start=8, end=15, text="a FOOL,", score=one.spans[0].score),)
    assert one.labels.tolist() == [0, 0, 1, 1, 0, 0]
    assert one.scores.shape == (6,)
    assert one.spans[0].score == pytest.approx(one.scores.max(), abs=1e-6)
    # Segments that touch are one span, as one mask stands for them; others are not.
    assert found(finder, "bad so so bad you") == ["bad so so bad you"]
    text = "bad so so so bad you are a bad"
    assert found(finder, text) == ["bad so", "so bad you", "a bad"]
    # A text of one token has no pair, and one of none no window.
    assert found(finder, "bad") == []
    assert [one.windows for one in finder.find(["", " \t\x00", "bad"])] == [0, 0, 1]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("FOOL", ["FOOL"]),
        ("foolish", ["fool"]),
        # Lower-cased this is two characters, and without its dot one again.
        ("İstanbul İ bad", ["bad"]),
        ("İİİ BAD İ", ["BAD"]),
        # Accents are taken off, composed or not; a mark that follows belongs to its character.
        ("bád so", ["bád"]),
        ("ba\u0301d\u0302\u0323 so", ["ba\u0301d\u0302\u0323"]),
        ("bad\ufe0f\u200d so", ["bad\ufe0f\u200d"]),
        ("北京坏人", ["坏"]),
        ("👍🏽 bad 👩‍👩‍👧 fool!", ["bad", "fool"]),
        ("so\u00a0bad\u3000fool", ["bad", "fool"]),
        ("\u0000bad\ufffd\n\r\nfool", ["bad\ufffd\n\r\nfool"]),
    ],
)
def test_offsets_are_those_of_the_given_text(
    narrow: SpanFinder, text: str, expected: list[str]
) -> None:
    joined = found(narrow, text)
    # Toxic tokens beside each other are one span.
    assert joined == expected or joined == [text[text.index(expected[0]) :][: len(joined[0])]]
    assert all(word in " ".join(joined) for word in expected)


@given(
    st.lists(
        st.one_of(
            st.sampled_from(["bad", "FOOL", "坏", "İ", "é"]), st.text(characters, max_size=4)
        ),
        max_size=8,
    )
)
def test_spans_lie_in_order_in_any_text(narrow: SpanFinder, parts: list[str]) -> None:
    text = " ".join(parts)
    (one,) = narrow.find([text])
    behind = 0
    for span in one.spans:
        assert behind <= span.start < span.end <= len(text)
        assert span.text == text[span.start : span.end]
        behind = span.end
    toxic = [token for token in one.tokens.ids if token in narrow.tokenizer.find_ids(TOXIC)]
    assert one.labels.sum() == len(toxic)
    assert list_characters(one.spans) == sorted(set(list_characters(one.spans)))


# Batches and windows.


def test_batches_change_nothing() -> None:
    tokenizer = make_words()
    model = make_model(tokenizer, max_position_embeddings=64)
    source = np.random.default_rng(0)
    words = ["you", "bad", "a", "北", "fool", "?"]
    texts = [" ".join(source.choice(words, source.integers(0, 40))) for _ in range(50)]
    alone = SpanFinder(model, tokenizer, batch_tokens=1)
    together = SpanFinder(model, tokenizer, batch_tokens=500)
    one = [alone.find([text])[0] for text in texts]
    for expected, got in zip(one, together.find(texts), strict=True):
        assert np.allclose(got.scores, expected.scores, atol=1e-6)
        assert got.toxicity == pytest.approx(expected.toxicity, abs=1e-6)
        assert got.text == expected.text


@given(
    st.integers(0, 60), st.integers(2, 9), st.integers(0, 7), st.sampled_from([1, 2, 3])
)  # fmt: skip
def test_windows_hold_every_segment(count: int, room: int, overlap: int, size: int) -> None:
    overlap = max(size - 1, min(overlap, room - 1))
    if overlap >= room:
        return
    windows = cut_windows(count, room, overlap)
    held = {place for start, end in windows for place in range(start, end - size + 1)}
    assert held == set(range(count - size + 1))
    assert all(0 <= start < end <= count and end - start <= room for start, end in windows)


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize(("window", "overlap"), [(9, None), (9, 6), (7, 2), (12, 4)])
def test_windows_find_what_one_pass_finds(size: int, window: int, overlap: int | None) -> None:
    """The model judges segments by their own tokens, so that windows must not change them."""
    source = np.random.default_rng(1)
    words = ["you", "bad", "a", "北", "fool", "?", "so", "and"]
    texts = [" ".join(source.choice(words, length)) for length in range(0, 60, 3)]
    whole = make_finder(segment_size=size)
    narrow_ids = set(whole.tokenizer.find_ids(TOXIC))
    cut = make_finder(segment_size=size, window=window, overlap=overlap)
    for expected, got in zip(whole.find(texts), cut.find(texts), strict=True):
        assert got.labels.tolist() == expected.labels.tolist()
        assert got.spans == expected.spans
        assert (got.windows > 1) == (len(got.tokens.ids) > window - 2)
        toxic = [token in narrow_ids for token in got.tokens.ids]
        count = max(0, len(toxic) - size + 1)
        assert got.labels.tolist() == [int(any(toxic[k : k + size])) for k in range(count)]


def test_the_threshold_decides(finder: SpanFinder) -> None:
    tokenizer = make_words()
    model = make_oracle(tokenizer)
    (one,) = finder.find(["you are bad"])
    most = float(one.scores.max())
    for threshold, labels in ((most - 1e-3, [0, 1]), (most + 1e-3, [0, 0]), (0.0, [1, 1])):
        (got,) = SpanFinder(model, tokenizer, threshold=threshold).find(["you are bad"])
        assert got.labels.tolist() == labels


def test_a_model_that_is_broken() -> None:
    tokenizer = make_words()
    model = make_model(tokenizer)
    model.span_classifier.bias.data.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match=r"^the model gives scores that are no numbers$"):
        SpanFinder(model, tokenizer).find(["you are"])


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"threshold": 1.0}, "threshold must be at least 0 and below 1: got 1.0"),
        ({"threshold": float("nan")}, "threshold must be at least 0 and below 1: got nan"),
        ({"window": 4}, "window must be at least 5: got 4"),
        ({"window": 65}, "max_length must be at most the 64 positions of the model: got 65"),
        ({"overlap": 0}, "overlap must be at least 1 and below 62: got 0"),
        ({"overlap": 62}, "overlap must be at least 1 and below 62: got 62"),
        ({"batch_tokens": 0}, "batch_tokens must be at least 1: got 0"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, float], text: str) -> None:
    with pytest.raises(ValueError, match=f"^{text}$"):
        make_finder(**settings)
    with pytest.raises(ValueError, match="the tokenizer has ids up to 30, and the model knows"):
        SpanFinder(make_model(make_words(), vocab_size=9), make_words())
