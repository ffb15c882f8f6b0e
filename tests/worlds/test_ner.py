"""`worlds.ner`: what is planted can be found again, and the damage is what was asked for."""

import hashlib
import json
import math
import re
import statistics
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmcore.ops.entities import (
    compute_quality,
    count_entities_batch,
    decode_spans,
    normalize_text,
)
from lmcore.ops.matching import match_labels_batch, parse_generation
from lmcore.ops.words import split_words
from lmcore.worlds import draws
from lmcore.worlds.ner import (
    LANGUAGES,
    LLAMA_MIX,
    T5_MIX,
    DamageMix,
    Sentence,
    World,
    WrittenWord,
    corrupt_generation,
    corrupt_sentences,
    damage,
    generate_sentences,
    make_world,
    write_generation,
)

ONLY = {
    "omission": DamageMix(omission=1.0, addition=0.0, substitution=0.0),
    "addition": DamageMix(omission=0.0, addition=1.0, substitution=0.0),
    "substitution": DamageMix(omission=0.0, addition=0.0, substitution=1.0),
}
MIXES = {"llama": LLAMA_MIX, "t5": T5_MIX}

languages = pytest.mark.parametrize("language", LANGUAGES)
mixes = pytest.mark.parametrize("mix", MIXES.values(), ids=MIXES)


# The first 32 digits of SHA-256 of 300 rows: claims and benches are measured on these very words.
ROWS = {
    ("en", "llama"): "8f22009d70e66d5b4944ab39070304ce",
    ("en", "t5"): "feaf4fb3200878e6d305792ebc2230ad",
    ("zh", "llama"): "836024061f65747e890486117ad34927",
    ("zh", "t5"): "19a2054f7c2ff20b16fb85e2db74894c",
}


@pytest.mark.parametrize(("language", "mix"), ROWS)
def test_rows_stay_the_same(language: str, mix: str) -> None:
    world = make_world(7, language=language, sentences=300, rate=0.1, mix=MIXES[mix])
    text = json.dumps(world.rows, ensure_ascii=False)
    assert hashlib.sha256(text.encode()).hexdigest()[:32] == ROWS[language, mix]


@languages
@given(seed=st.integers(0, 2**64 - 1), count=st.integers(0, 12), more=st.integers(0, 12))
def test_a_row_depends_on_its_seed_and_index_alone(
    language: str, seed: int, count: int, more: int
) -> None:
    arguments: dict[str, Any] = {"seed": seed, "rate": 0.2, "mix": LLAMA_MIX}
    rows = make_world(language=language, sentences=count, **arguments).rows
    assert len(rows) == count
    assert make_world(language=language, sentences=count + more, **arguments).rows[:count] == rows


@languages
def test_rows_do_not_depend_on_how_many_are_made_at_once(
    language: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = make_world(language=language, sentences=30, seed=5, rate=0.1, mix=T5_MIX).rows
    for at_once in (1, 29, 30, 31):
        monkeypatch.setattr(draws, "ITEMS_AT_ONCE", at_once)
        monkeypatch.setattr(damage, "ITEMS_AT_ONCE", at_once)
        assert (
            make_world(language=language, sentences=30, seed=5, rate=0.1, mix=T5_MIX).rows == rows
        )


@languages
def test_rows_do_not_depend_on_how_many_draws_are_made_at_once(
    language: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sentences = generate_sentences(language, 30, seed=5)
    monkeypatch.setattr(draws, "DRAWS_AT_ONCE", 3)
    assert generate_sentences(language, 30, seed=5) == sentences


@languages
def test_another_seed_gives_other_rows(language: str) -> None:
    assert generate_sentences(language, 20, seed=0) != generate_sentences(language, 20, seed=1)


@languages
def test_sentences_are_as_documented(language: str) -> None:
    sentences = generate_sentences(language, 5_000, seed=1)
    lengths = [len(sentence.words) for sentence in sentences]
    assert min(lengths) >= 8
    assert max(lengths) <= 45
    assert statistics.fmean(lengths) == pytest.approx(22, abs=4)
    vocabulary = {word.lower() for sentence in sentences for word in sentence.words}
    assert len(vocabulary) >= 1_000
    repeating = sum(len(set(s.words)) < len(s.words) for s in sentences)
    assert repeating > len(sentences) / 2


@languages
def test_labels_are_bio_and_spell_the_planted_entities(language: str) -> None:
    counts = set()
    for sentence in generate_sentences(language, 2_000, seed=2):
        assert len(sentence.words) == len(sentence.labels)
        for before, label in zip(("O", *sentence.labels), sentence.labels, strict=False):
            if label.startswith("I-"):
                assert before[2:] == label[2:]
        spans = decode_spans(sentence.labels, "iob2")
        assert spans == decode_spans(sentence.labels, "gner")
        assert {span.type for span in spans} <= set(sentence.label_list)
        assert len(spans) == sum(label.startswith("B-") for label in sentence.labels)
        for span in spans:
            # A text that normalises to nothing would make any two such entities equal.
            assert normalize_text(" ".join(sentence.words[span.start : span.end]))
            if language == "en":
                assert span.end - span.start <= 4
        counts.add(len(spans))
    assert counts == {0, 1, 2, 3, 4}


def test_chinese_words_are_those_of_split_words() -> None:
    for sentence in generate_sentences("zh", 500, seed=3):
        text = "".join(sentence.words)
        assert tuple(text[start:end] for start, end in split_words(text)) == sentence.words


def test_english_words_hold_no_space() -> None:
    for sentence in generate_sentences("en", 500, seed=3):
        assert " ".join(sentence.words).split() == list(sentence.words)


@languages
@mixes
def test_no_damage_gives_the_planted_entities_back(language: str, mix: DamageMix) -> None:
    rows = make_world(language=language, sentences=300, seed=4, rate=0.0, mix=mix).rows
    words = [row["instance"]["words"] for row in rows]
    gold = [row["instance"]["labels"] for row in rows]
    predictions = [row["prediction"] for row in rows]
    matches = match_labels_batch(words, predictions, [row["label_list"] for row in rows])
    predicted = [match.labels for match in matches]
    assert predicted == gold
    assert {match.matching for match in matches} == {"exact"}
    counts, _ = count_entities_batch(gold, predicted, words, "strict")
    assert compute_quality(counts, "strict").f1 == 1.0


@languages
@mixes
@pytest.mark.parametrize("rate", [0.01, 0.1, 1.0])
def test_damage_has_the_rate_and_the_mix(language: str, mix: DamageMix, rate: float) -> None:
    sentences = generate_sentences(language, 3_000, seed=5)
    written = corrupt_sentences(sentences, rate, mix, seed=6)
    total = sum(len(sentence.words) for sentence in sentences)
    kept = sum(word.origin >= 0 for row in written for word in row)
    found = {
        "omission": total - kept,
        "addition": sum(word.damage == "addition" for row in written for word in row),
        "substitution": sum(word.damage == "substitution" for row in written for word in row),
    }
    hits = sum(found.values())
    assert abs(hits - rate * total) <= 5 * math.sqrt(total * rate * (1 - rate))
    for kind, share in (
        ("omission", mix.omission),
        ("addition", mix.addition),
        ("substitution", mix.substitution),
    ):
        assert abs(found[kind] - share * hits) <= 5 * math.sqrt(hits * share * (1 - share))


@languages
@mixes
def test_the_matcher_reports_the_mix(language: str, mix: DamageMix) -> None:
    sentences = generate_sentences(language, 4_000, seed=5)
    generations = [
        write_generation([w.word for w in row], [w.label for w in row])
        for row in corrupt_sentences(sentences, 0.01, mix, seed=6)
    ]
    matches = match_labels_batch(
        [s.words for s in sentences], generations, [s.label_list for s in sentences]
    )
    omitted = sum(len(match.omitted) for match in matches)
    added = sum(len(match.added) for match in matches)
    substituted = sum(len(match.substituted) for match in matches)
    total = omitted + added + substituted
    # Neighbouring damages of two kinds read as others; at this rate they are few.
    assert omitted / total == pytest.approx(mix.omission, abs=0.04)
    assert added / total == pytest.approx(mix.addition, abs=0.02)
    assert substituted / total == pytest.approx(mix.substitution, abs=0.04)


@languages
@given(seed=st.integers(0, 2**32), rate=st.floats(0, 1))
def test_written_words_follow_the_sentence(language: str, seed: int, rate: float) -> None:
    sentences = generate_sentences(language, 3, seed)
    for sentence, row in zip(
        sentences, corrupt_sentences(sentences, rate, LLAMA_MIX, seed), strict=True
    ):
        origins = [word.origin for word in row if word.origin >= 0]
        assert origins == sorted(set(origins))
        for word in row:
            if word.origin < 0:
                assert word.damage == "addition"
            else:
                source = sentence.words[word.origin]
                assert word.label == sentence.labels[word.origin]
                assert (word.word == source) == (word.damage == "")
                assert (word.word.lower() == source.lower()) == (word.damage == "")


@languages
@pytest.mark.parametrize("rate", [0.3, 1.0])
def test_a_generation_reads_back_as_it_was_written(language: str, rate: float) -> None:
    sentences = generate_sentences(language, 300, seed=7)
    for mix in ONLY.values():
        for row in corrupt_sentences(sentences, rate, mix, seed=8):
            words, labels = [w.word for w in row], [w.label for w in row]
            parsed = parse_generation(write_generation(words, labels))
            assert parsed.words == words
            assert parsed.labels == labels
            assert parsed.dropped_labels == []
            assert parsed.trailing_text == ""


def test_each_kind_does_what_it_says() -> None:
    sentence = Sentence("generated-en", ("Zoë", "Müller", "ran"), ("B-p", "I-p", "O"), ("p",))
    written = {
        kind: {corrupt_generation(sentence, 1.0, mix, seed=0, item=item) for item in range(300)}
        for kind, mix in ONLY.items()
    }
    assert written["omission"] == {""}
    assert "Zoë(B-p) Zoë(B-p) Müller(I-p) Müller(I-p) ran(O) ran(O)" in written["addition"]
    firsts = {text.partition("(")[0] for text in written["substitution"]}
    assert {"Zo", "Zë", "oë", "Zoe", "the"} <= firsts
    assert any(re.search(r"\bM üller\(I-p\)", text) for text in written["substitution"])


def test_a_lower_rate_hits_some_of_the_same_words() -> None:
    sentences = generate_sentences("en", 200, seed=0)
    low, high = (corrupt_sentences(sentences, rate, ONLY["substitution"], 1) for rate in (0.1, 0.4))
    for few, many in zip(low, high, strict=True):
        assert {w for w in few if w.damage} <= {w for w in many if w.damage}


def test_a_single_generation_is_that_of_the_batch() -> None:
    sentences = generate_sentences("zh", 20, seed=0)
    rows = make_world(language="zh", sentences=20, seed=0, rate=0.2, mix=T5_MIX).rows
    for item, (sentence, row) in enumerate(zip(sentences, rows, strict=True)):
        prediction = corrupt_generation(sentence, 0.2, T5_MIX, seed=0, item=item)
        assert row == sentence.to_row(prediction)


def test_true_labels_are_those_of_undamaged_words() -> None:
    sentence = Sentence("d", ("Bo", "de", "la", "ran"), ("B-p", "I-p", "I-p", "O"), ("p",))
    written = [
        WrittenWord("Bo", "B-p", 0, ""),
        WrittenWord("Bo", "B-p", -1, "addition"),
        WrittenWord("the", "I-p", 1, "substitution"),
        WrittenWord("ran", "O", 3, ""),
    ]
    world = World(sentences=[sentence], written=[written])
    assert world.true_labels(0) == ["B-p", "O", "O", "O"]
    assert world.generations == ["Bo(B-p) Bo(B-p) the(I-p) ran(O)"]
    assert world.rows == [sentence.to_row(world.generations[0])]


def test_rows_are_json() -> None:
    rows = make_world(language="zh", sentences=3, seed=0, rate=0.1, mix=LLAMA_MIX).rows
    assert json.loads(json.dumps(rows)) == rows
    assert list(rows[0]) == ["dataset", "label_list", "instance", "prediction"]


def test_arguments_out_of_range_raise() -> None:
    with pytest.raises(ValueError, match="language must be one of en, zh: got 'de'"):
        generate_sentences("de", 1, seed=0)
    with pytest.raises(ValueError, match="count must be at least 0: got -1"):
        generate_sentences("en", -1, seed=0)
    for rate in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match=r"rate must be in \[0, 1\]"):
            make_world(language="en", sentences=1, seed=0, rate=rate, mix=T5_MIX)
    with pytest.raises(ValueError, match="add up to 1"):
        DamageMix(omission=0.5, addition=0.5, substitution=0.5)
    with pytest.raises(ValueError, match="at least 0"):
        DamageMix(omission=-0.5, addition=0.5, substitution=1.0)
    with pytest.raises(ValueError, match="got 1 and 2"):
        write_generation(["a", "b"], ["O"])
