"""`ops.entities` against the paper, other people's scorers, the laws, and its definition."""

import random
import sys
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nervaluate import Evaluator
from seqeval.metrics import f1_score, precision_score, recall_score
from seqeval.metrics.sequence_labeling import get_entities
from seqeval.scheme import IOB2, Entities

from lmcore.ops.entities import (
    SCHEMES,
    EntityCounts,
    ErrorKinds,
    Quality,
    classify_errors,
    compute_quality,
    count_entities,
    count_entities_batch,
    decode_spans,
    normalize_text,
)
from lmcore.reference import entities as reference
from parity import agree
from strategies import (
    TYPES,
    bio_labels,
    labelled_sentences,
    labels,
    sentences,
    surrogate_texts,
    texts,
)

TEXT_SCHEMES = ("gner", "universalner")
PLACE_SCHEMES = ("strict", "conll", "iob2")
LENIENT_SCHEMES = ("gner", "universalner", "strict", "conll")
Labels = list[str]
Sentence = tuple[list[str], Labels, Labels]

schemes = st.sampled_from(SCHEMES)
label_pairs = st.integers(0, 16).flatmap(lambda n: st.tuples(bio_labels(n), bio_labels(n)))


# Golden: GNER. Entities as the authors' scorer reads them.


@pytest.mark.parametrize(
    ("words", "labels", "entities"),
    [
        (
            "The Beatles and Beatles and U.S. U S x",
            "B-band I-band O B-band O B-loc B-loc I-loc I-per",
            [("beatles", "band"), ("us", "loc"), ("u s x", "per")],
        ),
        ("a b c", "I-x I-y B-x", [("b", "y"), ("c", "x")]),
        ("! ?", "B-x O", [("", "x")]),
    ],
)
def test_paper_entities(words: str, labels: str, entities: list[tuple[str, str]]) -> None:
    spans = agree(reference.decode_spans, decode_spans, labels.split(), "gner")
    found = {
        (normalize_text(" ".join(words.split()[span.start : span.end])), normalize_text(span.type))
        for span in spans
    }
    assert found == set(entities)
    same = words.split(), labels.split(), labels.split()
    counts = agree(reference.count_entities, count_entities, *same, scheme="gner")
    assert counts == EntityCounts(len(entities), len(entities), len(entities))
    # One sentence with each entity as gold finds that one entity again.
    for text, kind in entities:
        counts = count_entities(
            [*words.split(), text],
            ["O"] * len(words.split()) + [f"B-{kind}"],
            [*labels.split(), "O"],
            "gner",
        )
        assert counts == EntityCounts(gold=1, predicted=len(entities), correct=1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("U.S.", "us"),
        ("The  U.S. Army", "us army"),
        ("!?", ""),
        ("a an the", ""),
        ("A.n answer", "answer"),
        ("the_end of-the x", "theend ofthe x"),
        ("a\u0301 the\u0301", "\u0301 \u0301"),
        ("İstanbul\u2009ΑΣ ", "i\u0307stanbul ας"),
        ("北 a 京", "北 京"),
        ("北a京", "北a京"),
        ("«the»", "« »"),
        ("\x1cthe\x1dx\x85y\u200b", "x y\u200b"),
    ],
)
def test_normal_form(text: str, expected: str) -> None:
    assert agree(reference.normalize_text, normalize_text, text) == expected


def test_gner_compares_texts_and_not_places() -> None:
    words = ["Bonn", "Rome", "Bonn"]
    gold, predicted = ["B-city", "O", "B-city"], ["O", "O", "B-City"]
    for scheme, expected in (
        ("gner", (1, 1, 1)),
        ("universalner", (1, 1, 0)),
        ("strict", (2, 1, 0)),
    ):
        given = words, gold, predicted, scheme
        assert agree(reference.count_entities, count_entities, *given) == expected


def test_i_of_another_type() -> None:
    labels = ["I-per", "I-org", "O", "B-x", "I-y", "I-x"]
    assert decode_spans(labels, "gner") == [(0, 2, "org"), (3, 6, "x")]
    pieces = [(0, 1, "per"), (1, 2, "org"), (3, 4, "x"), (4, 5, "y"), (5, 6, "x")]
    for scheme in ("universalner", "strict", "conll"):
        assert decode_spans(labels, scheme) == pieces
    assert decode_spans(labels, "iob2") == [(3, 4, "x")]


def test_error_kinds_of_the_paper() -> None:
    gold = ["B-x", "I-x", "O", "B-y", "O", "B-z", "I-z", "O", "B-w"]
    predicted = ["B-x", "O", "O", "B-z", "O", "O", "O", "O", "B-w"]
    for scheme in SCHEMES:
        kinds = agree(reference.classify_errors, classify_errors, gold, predicted, scheme)
        assert kinds == ErrorKinds(gold=4, unlabelled=1, noisy=1, boundary=1)


# Golden: seqeval and nervaluate.


def test_one_sentence_that_the_schemes_score_differently() -> None:
    gold, predicted = ["B-PER", "I-PER", "O", "B-LOC"], ["I-PER", "I-PER", "O", "B-LOC"]
    scores = {
        scheme: compute_quality(count_entities_batch([gold], [predicted], None, scheme)[0], scheme)
        for scheme in PLACE_SCHEMES
    }
    assert scores["strict"] == scores["conll"] == Quality(1.0, 1.0, 1.0)
    assert scores["iob2"] == pytest.approx((1, 0.5, 0.667), abs=4e-4)
    assert scores["conll"].f1 == f1_score([gold], [predicted])
    assert scores["iob2"].f1 == pytest.approx(
        f1_score([gold], [predicted], mode="strict", scheme=IOB2)
    )


corpora = st.lists(
    st.integers(1, 12).flatmap(
        lambda n: st.tuples(*[bio_labels(n, ["PER", "LOC", "x-y", "a b"])] * 2)
    ),
    min_size=1,
    max_size=6,
)


def total_counts(corpus: Sequence[tuple[Labels, Labels]], scheme: str) -> EntityCounts:
    gold, predicted = zip(*corpus, strict=True)
    return count_entities_batch(gold, predicted, scheme=scheme)[0]


@given(corpora)
def test_strict_counts_are_those_of_nervaluate(corpus: list[tuple[Labels, Labels]]) -> None:
    gold, predicted = map(list, zip(*corpus, strict=True))
    tags = ["PER", "LOC", "x-y", "a b"]
    result = Evaluator(gold, predicted, tags=tags, loader="list").evaluate()["overall"]["strict"]
    counts = total_counts(corpus, "strict")
    both = result.correct + result.incorrect
    assert counts.gold == both + result.missed
    assert counts.predicted == both + result.spurious
    assert counts.correct == result.correct
    quality = compute_quality(counts, "strict")
    assert quality == pytest.approx((result.precision, result.recall, result.f1))


def seqeval_quality(corpus: Sequence[tuple[Labels, Labels]], **mode: Any) -> list[float]:
    gold, predicted = map(list, zip(*corpus, strict=True))
    scores = (precision_score, recall_score, f1_score)
    return [score(gold, predicted, zero_division=0, **mode) for score in scores]


@given(corpora)
def test_conll_scores_are_those_of_seqeval(corpus: list[tuple[Labels, Labels]]) -> None:
    for gold, _ in corpus:
        spans = [(span.start, span.end - 1, span.type) for span in decode_spans(gold, "conll")]
        assert spans == [(start, end, kind) for kind, start, end in get_entities(gold)]
        assert decode_spans(gold, "strict") == decode_spans(gold, "conll")
    quality = compute_quality(total_counts(corpus, "conll"), "conll")
    assert quality == pytest.approx(seqeval_quality(corpus))


@given(corpora)
def test_iob2_scores_are_those_of_strict_seqeval(corpus: list[tuple[Labels, Labels]]) -> None:
    for gold, _ in corpus:
        expected = [entity.to_tuple()[1:] for entity in Entities([gold], IOB2).entities[0]]
        assert [(s.type, s.start, s.end) for s in decode_spans(gold, "iob2")] == expected
    counts = total_counts(corpus, "iob2")
    if counts.gold + counts.predicted == 0:
        return  # seqeval's strict mode cannot average over no types
    quality = compute_quality(counts, "iob2")
    assert quality == pytest.approx(seqeval_quality(corpus, mode="strict", scheme=IOB2))


# Laws.


def encode(spans: Sequence[tuple[int, int, str]], size: int) -> Labels:
    labels = ["O"] * size
    for start, end, kind in spans:
        labels[start:end] = [f"B-{kind}"] + [f"I-{kind}"] * (end - start - 1)
    return labels


@given(bio_labels(types=TYPES), schemes)
def test_spans_are_ordered_and_apart(labels: Labels, scheme: str) -> None:
    spans = decode_spans(labels, scheme)
    bounds = [bound for span in spans for bound in (span.start, span.end)]
    assert bounds == sorted(bounds)
    assert all(span.start < span.end <= len(labels) for span in spans)
    covered = {i for span in spans for i in range(span.start, span.end)}
    labelled = {i for i, label in enumerate(labels) if label != "O"}
    assert covered == labelled if scheme in LENIENT_SCHEMES else covered <= labelled
    starts = {span.start for span in spans}
    assert {i for i, label in enumerate(labels) if label[0] == "B"} <= starts
    assert all(labels[span.end - 1][2:] == span.type for span in spans)


@given(bio_labels(types=TYPES), schemes)
def test_decoding_what_was_encoded_changes_nothing(labels: Labels, scheme: str) -> None:
    spans = decode_spans(labels, scheme)
    written = encode(spans, len(labels))
    for other in SCHEMES:  # all schemes read well-formed labels alike
        assert decode_spans(written, other) == spans


@given(labelled_sentences(), schemes)
def test_swapping_gold_and_predicted_swaps_the_counts(sentence: Sentence, scheme: str) -> None:
    words, gold, predicted = sentence
    counts = count_entities(words, gold, predicted, scheme)
    swapped = count_entities(words, predicted, gold, scheme)
    assert swapped == (counts.predicted, counts.gold, counts.correct)
    assert counts.correct <= min(counts.gold, counts.predicted)
    quality, other = compute_quality(counts, scheme), compute_quality(swapped, scheme)
    assert (other.precision, other.recall) == (quality.recall, quality.precision)
    assert other.f1 == quality.f1
    assert all(0 <= value <= 1 for value in quality)


@given(labelled_sentences(), schemes)
def test_gold_as_prediction_is_perfect(sentence: Sentence, scheme: str) -> None:
    words, gold, _ = sentence
    counts = count_entities(words, gold, gold, scheme)
    assert counts.gold == counts.predicted == counts.correct
    assert classify_errors(gold, gold, scheme)[1:] == (0, 0, 0)
    f1 = compute_quality(counts, scheme).f1
    assert f1 == pytest.approx(1 if counts.gold else 0, abs=1e-9)


@given(label_pairs, schemes)
def test_every_gold_entity_is_found_or_missed_in_one_way(
    pair: tuple[Labels, Labels], scheme: str
) -> None:
    gold, predicted = pair
    kinds = classify_errors(gold, predicted, scheme)
    assert kinds.gold == len(decode_spans(gold, scheme))
    found = set(decode_spans(gold, scheme)) & set(decode_spans(predicted, scheme))
    assert kinds.gold - kinds.unlabelled - kinds.noisy - kinds.boundary == len(found)
    if scheme in PLACE_SCHEMES:
        assert count_entities([""] * len(gold), gold, predicted, scheme).correct == len(found)


@given(labelled_sentences(), st.sampled_from(PLACE_SCHEMES), sentences())
def test_places_do_not_depend_on_words(sentence: Sentence, scheme: str, other: list[str]) -> None:
    words, gold, predicted = sentence
    replaced = (other * len(words) or ["x"] * len(words))[: len(words)]
    counts = count_entities(words, gold, predicted, scheme)
    assert count_entities(replaced, gold, predicted, scheme) == counts
    assert count_entities_batch([gold], [predicted], None, scheme)[0] == counts


@given(st.lists(labelled_sentences(), max_size=6), schemes)
def test_batch_is_the_sum_of_its_sentences(corpus: list[Sentence], scheme: str) -> None:
    words, gold, predicted = zip(*corpus, strict=True) if corpus else ((), (), ())
    counts, kinds = count_entities_batch(gold, predicted, words, scheme)
    rows = [count_entities(*sentence, scheme=scheme) for sentence in corpus]
    assert counts == tuple(map(sum, zip(*rows, strict=True))) if rows else (0, 0, 0)
    errors = [classify_errors(g, p, scheme) for _, g, p in corpus]
    assert kinds == tuple(map(sum, zip(*errors, strict=True))) if errors else (0, 0, 0, 0)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_any_number_of_threads_gives_the_same_counts(scheme: str) -> None:
    source = random.Random(scheme)
    kinds_of_label = ["O", "O", "B-x", "I-x", "B-y", "I-y"]
    gold = [source.choices(kinds_of_label, k=i % 9) for i in range(1_500)]
    predicted = [
        [label if source.random() < 0.8 else source.choice(kinds_of_label) for label in row]
        for row in gold
    ]
    words = [[f"W{(i * k) % 5}" for k in range(len(row))] for i, row in enumerate(gold)]
    results = {
        count_entities_batch(gold, predicted, words, scheme, threads=threads)
        for threads in (1, 2, 3, 8, None)
    }
    ((counts, kinds),) = results
    assert counts.gold > counts.correct > 0
    assert min(kinds) > 0


@given(texts)
def test_normal_form_is_final(text: str) -> None:
    normal = normalize_text(text)
    assert normalize_text(normal) == normal
    assert normal == " ".join(normal.split())
    assert not set(normal) & set("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")
    assert not {"a", "an", "the"} & set(normal.split())


def test_many_entities_in_one_sentence() -> None:
    words = [f"w{i % 40}" for i in range(120)]
    gold = ["B-x" if i % 3 else "B-y" for i in range(120)]
    predicted = ["B-x"] * 120
    for scheme in SCHEMES:
        agree(reference.count_entities, count_entities, words, gold, predicted, scheme)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_quality_of_nothing_is_zero(scheme: str) -> None:
    for counts in ((0, 0, 0), (3, 0, 0), (0, 3, 0), (3, 3, 0)):
        assert compute_quality(EntityCounts(*counts), scheme) == (0, 0, 0)


# Laws: every character that this interpreter knows is read as Python reads it.


def test_normal_form_of_every_character() -> None:
    wrong = []
    for character in map(chr, range(sys.maxunicode + 1)):
        if unicodedata.category(character) in ("Cn", "Cs"):
            continue
        text = f"x{character}a{character} {character}x"
        if normalize_text(text) != reference.normalize_text(text):
            wrong.append(f"U+{ord(character):04X}")
    assert wrong == []


# Parity.


@given(st.integers(0, 12).flatmap(labels), schemes)
def test_spans_agree(row: Labels, scheme: str) -> None:
    agree(reference.decode_spans, decode_spans, row, scheme)


@given(bio_labels(types=TYPES), schemes)
def test_spans_of_valid_labels_agree(row: Labels, scheme: str) -> None:
    agree(reference.decode_spans, decode_spans, row, scheme)


@given(texts)
def test_normal_forms_agree(text: str) -> None:
    agree(reference.normalize_text, normalize_text, text)


@given(labelled_sentences(), schemes)
def test_counts_agree(sentence: Sentence, scheme: str) -> None:
    agree(reference.count_entities, count_entities, *sentence, scheme)
    _, gold, predicted = sentence
    agree(reference.classify_errors, classify_errors, gold, predicted, scheme)


@given(
    sentences(max_size=3),
    st.integers(0, 3).flatmap(labels),
    st.integers(0, 3).flatmap(labels),
    schemes,
)
def test_refusals_agree(words: list[str], gold: Labels, predicted: Labels, scheme: str) -> None:
    agree(reference.count_entities, count_entities, words, gold, predicted, scheme)
    agree(reference.classify_errors, classify_errors, gold, predicted, scheme)


@given(st.one_of(texts, st.sampled_from(["", "GNER", "gner ", "bio", "it's", 'a"b', "'\""])))
def test_unknown_schemes_agree(scheme: str) -> None:
    agree(reference.decode_spans, decode_spans, ["no label"], scheme)
    agree(reference.count_entities, count_entities, ["a"], [], ["O"], scheme)
    agree(reference.classify_errors, classify_errors, ["a"], [], scheme)
    agree(reference.compute_quality, compute_quality, EntityCounts(1, 1, 1), scheme)


@given(
    st.tuples(*[st.integers(0, 50) | st.integers(0, 2**63)] * 3).map(lambda c: EntityCounts(*c)),
    schemes,
)
def test_qualities_agree(counts: EntityCounts, scheme: str) -> None:
    agree(reference.compute_quality, compute_quality, counts, scheme)


@given(st.lists(labelled_sentences(), max_size=5), schemes)
def test_batches_agree(corpus: list[Sentence], scheme: str) -> None:
    words, gold, predicted = zip(*corpus, strict=True) if corpus else ((), (), ())
    counts, kinds = count_entities_batch(gold, predicted, words, scheme)
    rows = [reference.count_entities(*sentence, scheme) for sentence in corpus]
    errors = [reference.classify_errors(g, p, scheme) for _, g, p in corpus]
    assert counts == EntityCounts(*(sum(row[k] for row in rows) for k in range(3)))
    assert kinds == ErrorKinds(*(sum(row[k] for row in errors) for k in range(4)))


@pytest.mark.parametrize("scheme", TEXT_SCHEMES)
def test_text_schemes_need_words(scheme: str) -> None:
    with pytest.raises(ValueError, match=r"^words are needed"):
        count_entities_batch([["O"]], [["O"]], None, scheme)


def test_lengths_of_a_batch_must_agree() -> None:
    with pytest.raises(ValueError, match=r"^gold and predicted .* got 1 and 0$"):
        count_entities_batch([["O"]], [])
    with pytest.raises(ValueError, match=r"^words and gold .* got 2 and 1$"):
        count_entities_batch([["O"]], [["O"]], [["a"], ["b"]], "gner")


@pytest.mark.parametrize(
    ("gold", "predicted", "text"),
    [
        ([["O"], ["O"]], [["O"], ["O", "O"]], "got 1 and 2"),
        ([["O"], ["x"]], [["O"], ["O"]], "got 'x'"),
        ([["O"], ["O"]], [["O"], ["y"]], "got 'y'"),
    ],
)
def test_error_in_a_batch_names_its_row(
    gold: list[Labels], predicted: list[Labels], text: str
) -> None:
    with pytest.raises(ValueError, match=text) as raised:
        count_entities_batch(gold, predicted, scheme="strict")
    assert "[1]" in str(raised.value)


def test_rows_may_be_iterated_only_once() -> None:
    once: Callable[..., Any] = iter
    counts, _ = count_entities_batch([once(["B-x", "O"])], [["B-x", "O"]], scheme="strict")
    assert counts == (1, 1, 1)
    with pytest.raises(TypeError, match=r"^gold\[0\]"):
        count_entities_batch([once(["B-x", 5, "O"])], [["B-x", "O"]])
    with pytest.raises(ValueError, match=r"^gold\[0\].* lone surrogate"):
        count_entities_batch([once(["B-x", "\ud800", "O"])], [["B-x", "O"]])


@given(surrogate_texts)
def test_lone_surrogates_are_refused(text: str) -> None:
    def refuse(name: str) -> Any:
        return pytest.raises(ValueError, match=f"^{name} holds a lone surrogate$")

    with refuse("text"):
        normalize_text(text)
    with refuse(r"labels\[1\]"):
        decode_spans(["O", text])
    with refuse(r"words\[0\]"):
        count_entities([text], ["O"], ["O"])
    with refuse(r"gold\[0\]"):
        count_entities(["a"], [text], ["O"])
    with refuse(r"predicted\[0\]"):
        classify_errors(["O"], [text])
    with refuse(r"words\[0\]\[1\]"):
        count_entities_batch([["O"]], [["O"]], [["a", text]])
    with refuse(r"gold\[1\]\[0\]"):
        count_entities_batch([["O"], [text]], [["O"]])
    with refuse(r"predicted\[0\]\[0\]"):
        count_entities_batch([["O"]], [[text]])
    with pytest.raises(ValueError, match="surrogate"):
        decode_spans([], text)


@pytest.mark.parametrize(
    ("op", "arguments", "name"),
    [
        (normalize_text, (3,), "text"),
        (decode_spans, ("O",), "labels"),
        (decode_spans, (None,), "labels"),
        (decode_spans, (["O", 1],), r"labels\[1\]"),
        (count_entities, ("a", ["O"], ["O"]), "words"),
        (count_entities, (["a"], "O", ["O"]), "gold"),
        (count_entities, (["a"], ["O"], [b"O"]), r"predicted\[0\]"),
        (classify_errors, (["O"], 3), "predicted"),
        (count_entities_batch, (3, []), "gold"),
        (count_entities_batch, (["O"], [["O"]]), r"gold\[0\]"),
        (count_entities_batch, ([["O"]], [["O", None]]), r"predicted\[0\]\[1\]"),
        (count_entities_batch, ([["O"]], [["O"]], [[3]]), r"words\[0\]\[0\]"),
    ],
)
def test_wrong_types_are_named(op: Callable[..., Any], arguments: Any, name: str) -> None:
    with pytest.raises(TypeError, match=rf"^{name} must be"):
        op(*arguments)


def test_wrong_options_are_named() -> None:
    with pytest.raises(TypeError, match="scheme"):
        decode_spans([], 5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="threads"):
        count_entities_batch([], [], threads="2")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="threads"):
        count_entities_batch([], [], threads=-1)
    with pytest.raises(ValueError, match="threads must be at least 1: got 0"):
        count_entities_batch([], [], threads=0)
