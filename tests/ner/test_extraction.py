"""`lmcore.ner.extract`: entities stand where they say, and agree with an aligned row."""

import unicodedata
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmcore.ner import Entity, align_row, extract
from lmcore.ner.normalization import fold, fold_labels
from lmcore.ops.entities import SCHEMES
from lmcore.reference.entities import decode_spans
from lmcore.reference.matching import match_labels
from lmcore.reference.words import locate_words, split_words
from strategies import (
    TYPES,
    characters,
    generations,
    sentences,
    surrogate_texts,
    texts,
    write_generation,
)

# One character, or several that are shown as one; none of them is a plain letter.
GRAPHEMES = [
    "👍🏽",
    "👩\u200d👩\u200d👧",
    "🇪🇺",
    "e\u0301",
    "北",
    "東京",
    "カ",
    "𠀀",
    "❤\ufe0f",
    "क्षि",
]


NAMES = st.lists(
    st.one_of(st.sampled_from(TYPES), st.text(max_size=4)).filter(
        lambda name: not set("()") & set(name) and name[:2] not in ("B-", "I-")
    ),
    min_size=1,
    max_size=4,
)
EXACT: dict[str, Any] = {"normalize": False, "strict": False}
"""The rule of `align_row`."""


def as_tuples(entities: Sequence[Entity]) -> list[tuple[int, int, str, str]]:
    return [(e.start, e.end, e.type, e.text) for e in entities]


def aligned_entities(row: dict[str, Any], scheme: str = "gner") -> list[tuple[int, int, str, str]]:
    return as_tuples(align_row(row, scheme).entities)


# Laws.


@given(texts, NAMES, st.sampled_from(SCHEMES), st.data())
def test_entities_stand_where_they_say(
    text: str, types: list[str], scheme: str, data: st.DataObject
) -> None:
    pieces = [text[start:end] for start, end in split_words(text)]
    generation = data.draw(generations(pieces, types))
    entities = extract(text, generation, types, scheme=scheme, **EXACT)
    end = 0
    for entity in entities:
        assert end <= entity.start < entity.end <= len(text)
        assert text[entity.start : entity.end] == entity.text
        assert entity.type in types
        end = entity.end
    row = {"text": text, "label_list": types, "prediction": generation}
    assert as_tuples(entities) == aligned_entities(row, scheme)


@given(texts, NAMES, st.data())
def test_faithful_text_gives_its_entities(text: str, types: list[str], data: st.DataObject) -> None:
    places = split_words(text)
    pieces = [text[start:end] for start, end in places]
    label = st.sampled_from(["O", *(p + t for p in ("B-", "I-") for t in types)])
    labels = data.draw(st.lists(label, min_size=len(pieces), max_size=len(pieces)))
    # What would be read as another label, or breaks off a label, is not faithful.
    faithful = all(not set("()") & set(piece) for piece in [*pieces, *types]) and all(
        t == t.strip() and "\n" not in t for t in types
    )
    if faithful:
        entities = extract(
            text, write_generation(list(zip(pieces, labels, strict=True))), types, **EXACT
        )
        assert as_tuples(entities) == [
            (start, end, kind, text[start:end])
            for start, end, kind in (
                (places[span.start][0], places[span.end - 1][1], span.type)
                for span in decode_spans(labels)
            )
        ]


@given(sentences(), NAMES, st.sampled_from(SCHEMES), st.data())
def test_given_words(words: list[str], types: list[str], scheme: str, data: st.DataObject) -> None:
    """Words of the caller's are not cut again, whatever stands between them."""
    between = st.sampled_from(["", " ", "\n", "\u3000", *GRAPHEMES])
    text = "".join(data.draw(between) + word for word in words) + data.draw(between)
    generation = data.draw(generations(words, types))
    places = locate_words(text, words)
    spans = decode_spans(match_labels(words, generation, types).labels, scheme)
    expected = [(places[s.start][0], places[s.end - 1][1], s.type) for s in spans]
    entities = extract(text, generation, types, words=words, scheme=scheme, **EXACT)
    assert as_tuples(entities) == [(a, b, kind, text[a:b]) for a, b, kind in expected]
    row = {"text": text, "words": words, "label_list": types, "prediction": generation}
    assert as_tuples(entities) == aligned_entities(row, scheme)
    assert extract(text, generation, types, words=tuple(words), scheme=scheme, **EXACT) == entities


@given(st.lists(st.one_of(st.sampled_from(GRAPHEMES), st.text(characters, max_size=3))))
def test_offsets_count_characters(before: list[str]) -> None:
    text = " ".join([*before, "York", *before])
    start = text.index("York")
    (entity,) = extract(text, "York(B-city)", ["city"])
    if "York" not in "".join(before):
        assert as_tuples([entity]) == [(start, start + 4, "city", "York")]


# Cases.


def test_generated_words_that_cover_several_pieces() -> None:
    text = "我爱北京天安门。"
    assert as_tuples(extract(text, "我(O) 爱(O) 北京(B-地) 天安门(B-楼)。(O)", ["地", "楼"])) == [
        (2, 4, "地", "北京"),
        (4, 7, "楼", "天安门"),
    ]
    # A continued entity goes on, and its pieces do not start new ones.
    assert as_tuples(extract(text, "我爱(O) 北京(B-地) 天安门(I-地)", ["地"])) == [
        (2, 7, "地", "北京天安门")
    ]
    text = "Its U.S. office, in Baden-Württemberg's capital"
    generation = "Its(O) U.S.(B-loc) office,(O) in(O) Baden-Württemberg's(B-loc) capital(O)"
    assert as_tuples(extract(text, generation, ["loc"])) == [
        (4, 8, "loc", "U.S."),
        (20, 39, "loc", "Baden-Württemberg's"),
    ]


def test_words_that_the_model_lost_added_or_changed() -> None:
    text = "EU rejects German call to boycott British lamb ."
    generation = "EU(B-org) reject(O) the(B-misc) german(B-misc) call(O) british(B-misc) lamb(O)"
    assert as_tuples(extract(text, generation, ["org", "misc"])) == [
        (0, 2, "org", "EU"),
        (11, 17, "misc", "German"),
        (34, 41, "misc", "British"),
    ]


@pytest.mark.parametrize("grapheme", GRAPHEMES)
def test_characters_that_are_several(grapheme: str) -> None:
    text = f"{grapheme} {grapheme}a York {grapheme}"
    start = text.index("York")
    for words in (None, [grapheme, f"{grapheme}a", "York"]):
        (entity,) = extract(text, f"{grapheme}(O) York(B-c)", ["c"], words=words)
        assert text[entity.start : entity.end] == entity.text
        assert entity.start == start
        (first,) = extract(text, f"{grapheme}(B-c)", ["c"], words=words)
        assert (first.start, first.end, first.text) == (0, len(grapheme), grapheme)


def test_the_scheme_reads_labels() -> None:
    def read(scheme: str) -> list[tuple[str, str]]:
        entities = extract("a b c", "a(B-x) b(I-y) c(I-y)", ["x", "y"], scheme=scheme)
        return [(e.text, e.type) for e in entities]

    assert read("gner") == [("a b c", "y")]
    assert read("conll") == read("strict") == read("universalner") == [("a", "x"), ("b c", "y")]
    assert read("iob2") == [("a", "x")]


@pytest.mark.parametrize("generation", ["", "nothing labelled", "(B-x)", "other(B-x) words(O)"])
def test_nothing_found(generation: str) -> None:
    for words in (None, ["in", "New", "York"]):
        with pytest.raises(ValueError, match=r"^generation: "):
            extract("in New York", generation, ["x"], words=words)
        assert extract("in New York", generation, ["x"], words=words, strict=False) == []
    assert extract("", generation, ["x"]) == []
    assert extract("", generation, ["x"], words=[]) == []


def test_labels_that_were_not_asked_for_count_as_outside() -> None:
    generation = "in(O) New(B-city) York(I-city)"
    assert extract("in New York", generation, ["person"]) == []
    assert extract("in New York", generation, ["City"], normalize=False) == []
    assert len(extract("in New York", generation, ["City"])) == 1


# Normalisation.


@pytest.mark.parametrize(
    ("text", "generation", "expected"),
    [
        ("He is “O’Neil”.", 'He(O) is(O) "(O) O\'Neil(B-person) "(O)', [(7, 13, "O’Neil")]),
        ('He is "O\'Neil".', "He(O) is(O) “(O) O’Neil(B-person) ”(O)", [(7, 13, "O'Neil")]),
        ("``Ada''", '"(O) Ada(B-person) "(O)', [(2, 5, "Ada")]),
        ("in Zürich", "in(O) Zu\u0308rich(B-city)", [(3, 9, "Zürich")]),
        ("in Zu\u0308rich", "in(O) Zürich(B-city)", [(3, 10, "Zu\u0308rich")]),
        ("我爱北京。", "我（O） 爱（O） 北京（B-city）", [(2, 4, "北京")]),
        ("ＥＵ（London）", "EU(O) ((O) London(B-city) )(O)", [(3, 9, "London")]),
        ("Ada met Max", "Ada(B-PERSON) met(o) Max(b-Person)", [(0, 3, "Ada"), (8, 11, "Max")]),
        (
            "Ada – London",
            "Ada( B - person ) -(O) London(B-city)",
            [(0, 3, "Ada"), (6, 12, "London")],
        ),
        ("ﬁn ﬂag", "fin(B-city) flag(O)", [(0, 2, "ﬁn")]),
        ("ｶﾞ", "ガ(B-city)", [(0, 2, "ｶﾞ")]),
        ("\u1112\u1161\u11ab", "한(B-city)", [(0, 3, "\u1112\u1161\u11ab")]),
    ],
)
def test_what_models_change(text: str, generation: str, expected: list[Any]) -> None:
    """Each is what models do; offsets are those of the text as it is."""
    entities = extract(text, generation, ["person", "city"])
    assert [(e.start, e.end, e.text) for e in entities] == expected


def test_normalisation_of_given_words() -> None:
    words = ["He", "is", "“", "O’Neil", "”", "of", "Zu\u0308rich"]
    text = " ".join(words)
    generation = 'He(O) is(O) "(O) O\'Neil(B-person) "(O) of(O) zürich(B-city)'
    entities = extract(text, generation, ["person", "city"], words=words)
    assert [e.text for e in entities] == ["O’Neil", "Zu\u0308rich"]


@given(texts, NAMES, st.data())
def test_normalisation_changes_no_faithful_text(
    text: str, types: list[str], data: st.DataObject
) -> None:
    pieces = [text[start:end] for start, end in split_words(text)]
    generation = data.draw(generations(pieces, types))
    end = 0
    for entity in extract(text, generation, types, strict=False):
        assert end <= entity.start < entity.end <= len(text)
        assert text[entity.start : entity.end] == entity.text
        end = entity.end


@given(st.text(characters, max_size=30))
def test_folding_keeps_places(text: str) -> None:
    folded = fold(text)
    assert len(folded.text) == len(folded.ends) == len(folded.starts) - 1
    assert list(folded.starts) == sorted(folded.starts)
    assert list(folded.ends) == sorted(folded.ends)
    assert all(a < b for a, b in zip(folded.starts, folded.ends, strict=False))
    assert set(folded.starts) <= set(range(len(text) + 1))


@given(st.text(st.sampled_from("ab ,.'\"-`“”’–éü\u0301（）ＡＢ北ｶﾞ"), max_size=12))
def test_equal_texts_fold_alike(text: str) -> None:
    forms = [unicodedata.normalize(form, text) for form in ("NFC", "NFD", "NFKC", "NFKD")]
    straight = text.translate({ord("“"): '"', ord("”"): '"', ord("’"): "'", ord("–"): "-"})
    if "´" not in text and "``" not in straight and "''" not in straight.replace("`", "'"):
        assert {fold(form).text for form in [*forms, straight]} == {fold(text).text}


def test_labels_of_the_types_as_they_are_written() -> None:
    generation = "a(b-The City) b(B-other) c( o ) d(B-the city)"
    assert fold_labels(generation, ["the city"]) == ("a(B-the city) b(B-other) c(O) d(B-the city)")
    # A type that differs in case alone is another one.
    assert fold_labels("a(B-x) b(B-X)", ["x", "X"]) == "a(B-x) b(B-X)"


def test_report() -> None:
    aligned = extract("Ada met Max", "Ada(B-person) saw(O) Max(B-Person) x(B-y) tail", ["person"],
                      report=True)  # fmt: skip
    assert aligned.labels == ["B-person", "O", "B-person"]
    assert [entity.text for entity in aligned.entities] == ["Ada", "Max"]
    assert (aligned.matching, aligned.trailing_text) == ("lcs", "tail")
    assert [word.word for word in aligned.added] == ["x"]
    assert [word.label for word in aligned.invalid_labels] == ["B-y"]
    assert [pair.word for pair in aligned.substituted] == ["met"]
    exact = extract("Ada met", "Ada(B-x)", ["x"], report=True, normalize=False)
    assert exact == align_row({"text": "Ada met", "types": ["x"], "prediction": "Ada(B-x)"})


# Errors.


@pytest.mark.parametrize(
    ("types", "problem"),
    [
        ([], "types: expected at least one type of entities: got none"),
        (
            ["x", "B-person"],
            r"types: \[1\] expected the name of a type without a prefix, such as 'p",
        ),
        (["I-x"], "got the label 'I-x'"),
        (["x (y)"], r"types: \[0\] expected a name without parentheses"),
    ],
)
def test_types_that_cannot_be_generated(types: list[str], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        extract("a", "a(O)", types)


def test_words_that_are_not_in_the_text() -> None:
    with pytest.raises(ValueError, match=r"^words\[1\] 'b' is not in text after character 1$"):
        extract("a c", "a(O)", ["x"], words=["a", "b"])
    with pytest.raises(ValueError, match=r"^words\[1\] 'a' is not in text after character 2$"):
        extract("👍a", "a(O)", ["x"], words=["a", "a"])


@pytest.mark.parametrize(
    "arguments",
    [
        (b"a", "a(O)", ["x"]),
        ("a", None, ["x"]),
        ("a", "a(O)", "x"),
        ("a", "a(O)", [1]),
        ("a", "a(O)", None),
    ],
)
def test_arguments_of_the_wrong_type(arguments: tuple[Any, ...]) -> None:
    with pytest.raises(TypeError):
        extract(*arguments)
    with pytest.raises(TypeError):
        extract("a", "a(O)", ["x"], words="a")


def test_unknown_scheme() -> None:
    with pytest.raises(ValueError, match="scheme must be one of"):
        extract("a", "a(B-x)", ["x"], scheme="other")


@given(surrogate_texts)
def test_lone_surrogates(text: str) -> None:
    for arguments in ((text, "a(O)", ["x"]), ("a", text, ["x"]), ("a", "a(O)", [text])):
        with pytest.raises(ValueError, match="lone surrogate"):
            extract(*arguments)
    with pytest.raises(ValueError, match="lone surrogate"):
        extract("a", "a(O)", ["x"], words=[text])
