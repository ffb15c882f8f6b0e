"""`ops.matching` against the authors' outputs, the laws of matching, and its definition."""

import gzip
import json
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmcore.ops.entities import EntityCounts, compute_quality, count_entities, count_entities_batch
from lmcore.ops.lcs import longest_common_subsequence
from lmcore.ops.matching import (
    Match,
    align_words,
    match_labels,
    match_labels_batch,
    parse_generation,
)
from lmcore.ops.words import split_words
from lmcore.reference import matching as reference
from lmcore.reference.words import split_words as split_by_definition
from parity import agree
from strategies import (
    bio_labels,
    generations,
    label_lists,
    sentences,
    surrogate_texts,
    texts,
    words,
    write_generation,
)

FILES = ["GNER-IT-vllm/ADG", "GNER-IT-vllm/FIC", "GNER-IT-vllm/WN", "corrupted"]
ROWS = {"ADG": 521, "FIC": 1517, "WN": 2088, "corrupted": 2114}


def read_rows(golden_dir: Path, name: str) -> list[dict[str, Any]]:
    with gzip.open(golden_dir / "gner" / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    assert len(rows) == ROWS[name.rpartition("/")[2]]
    return rows


# Golden: the authors' evaluator on real and on damaged predictions.


@pytest.mark.parametrize("name", FILES)
def test_authors_labels(golden_dir: Path, name: str) -> None:
    rows = read_rows(golden_dir, name)
    arguments = [(row["words"], row["prediction"], row["label_list"]) for row in rows]
    matches = [match_labels(*given) for given in arguments]
    assert [match.labels for match in matches] == [row["expected_labels"] for row in rows]
    assert match_labels_batch(*zip(*arguments, strict=True)) == matches
    if name == "corrupted":
        assert [reference.match_labels(*given) for given in arguments] == matches


@pytest.mark.parametrize("name", FILES)
def test_authors_scores(golden_dir: Path, name: str) -> None:
    scores: dict[str, dict[str, Any]] = {}
    for file in ("scores", "corrupted_scores"):
        scores |= json.loads((golden_dir / "gner" / f"{file}.json").read_text(encoding="utf-8"))
    datasets: dict[str, list[dict[str, Any]]] = {}
    for row in read_rows(golden_dir, name):
        datasets.setdefault(row["dataset"], []).append(row)
    for dataset, rows in datasets.items():
        matches = [match_labels(r["words"], r["prediction"], r["label_list"]) for r in rows]
        predicted = [match.labels for match in matches]
        triples = [(r["words"], r["labels"], p) for r, p in zip(rows, predicted, strict=True)]
        counts = [count_entities(*triple, scheme="gner") for triple in triples]
        total = EntityCounts(*map(sum, zip(*counts, strict=True)))
        all_words, gold, _ = zip(*triples, strict=True)
        assert count_entities_batch(gold, predicted, all_words, "gner")[0] == total

        expected = scores[dataset]
        quality = compute_quality(total, "gner")._asdict()
        assert quality == pytest.approx({k: expected[k] for k in quality}, rel=0, abs=1e-9)
        if "conditions" in expected:
            conditions = Counter(match.matching for match in matches)
            assert {k: conditions[k] for k in expected["conditions"]} == expected["conditions"]


# Golden: GNER, the output format.


@pytest.mark.parametrize(
    ("text", "generated", "labels"),
    [
        (
            "EU(B-org) rejects(O) German(B-misc) call(O)",
            ["EU", "rejects", "German", "call"],
            ["B-org", "O", "B-misc", "O"],
        ),
        ("EU (B-org)  rejects(O)(O)", ["EU", "rejects"], ["B-org", "O"]),
        ("x(B-a (b)) y(O)", ["x", ") y"], ["B-a (b", "O"]),
        ("(O) hi(O)", ["hi"], ["O"]),
        ("hi(B-) yo(I-per)", ["hi", "yo"], ["B-", "I-per"]),
        ("a(b)(O) c(O )d(O)", ["a(b)", "c(O )d"], ["O", "O"]),
    ],
)
def test_paper_extraction(text: str, generated: list[str], labels: list[str]) -> None:
    parsed = agree(reference.parse_generation, parse_generation, text)
    assert (parsed.words, parsed.labels) == (generated, labels)


def test_what_extraction_drops_is_reported() -> None:
    parsed = agree(reference.parse_generation, parse_generation, " (B-x) a(O)(I-x ) b(B-\n) it ")
    assert parsed == (["a"], ["O"], ["B-x", "I-x"], "b(B-\n) it")


# Golden: GNER, Hierarchical Matching.


@pytest.mark.parametrize(
    ("a", "b", "condition", "alignment"),
    [
        ("a b c", "", "subsequence", [-1, -1, -1]),
        ("a a b", "a b", "subsequence", [0, -1, 1]),
        ("a b a b", "b a b a", "lcs", [-1, 0, 1, 2]),
        ("x y z", "z y x", "lcs", [-1, -1, 0]),
        ("a b", "a b c", "lcs", [0, 1]),
        ("a b c d", "b d x a", "lcs", [-1, 0, -1, 1]),
        ("the cat the dog", "the dog the cat", "lcs", [-1, -1, 0, 1]),
        ("a b b a", "b a a b", "lcs", [-1, -1, 0, 1]),
        ("a b", "a b", "exact", [0, 1]),
        ("", "", "exact", []),
        ("", "a", "lcs", []),
    ],
)
def test_paper_conditions(a: str, b: str, condition: str, alignment: list[int]) -> None:
    aligned = agree(reference.align_words, align_words, a.split(), b.split())
    assert aligned == (condition, alignment)


def test_paper_example() -> None:
    match = agree(
        reference.match_labels,
        match_labels,
        ["EU", "rejects", "German", "call", "."],
        "EU(B-org) rejects(O) German(B-misc) lamb(O) .(O)",
        ["org"],
    )
    assert match.labels == ["B-org", "O", "O", "O", "O"]
    assert (match.matching, match.substituted) == ("lcs", [(3, 3)])
    assert match.invalid_labels == [2]


# Golden: GNER, table 9. What the paper calls omission, addition and substitution.

TABLE_9: dict[int, tuple[str, list[int], list[int], list[tuple[int, int]]]] = {
    1: ("subsequence", [3, 4], [], []),
    2: ("subsequence", [6], [], []),
    3: ("lcs", [], [3], []),
    4: ("lcs", [], [], [(6, 6)]),
    5: ("lcs", [], [5], [(3, 3), (4, 4)]),
    6: ("lcs", [8, 15], [], [(14, 13)]),
    7: ("subsequence", [9], [], []),
    8: ("lcs", [], [8], []),
    9: ("lcs", [], [11], []),
    10: ("lcs", [], [], [(6, 6), (13, 13), (19, 19)]),
}


@pytest.mark.parametrize("case", TABLE_9)
def test_paper_mismatches(data_dir: Path, case: int) -> None:
    path = data_dir / "ner" / "gner_predictions" / "gner_paper_tables_9_10.json"
    table = json.loads(path.read_text(encoding="utf-8"))["table9_word_level_issues"]
    assert [row["case"] for row in table] == list(TABLE_9)
    row = table[case - 1]
    generation = write_generation([(word, "O") for word in row["pred"].split()])
    match = agree(reference.match_labels, match_labels, row["raw"].split(), generation, [])
    assert match.parsed.words == row["pred"].split()
    condition, omitted, added, substituted = TABLE_9[case]
    assert match.matching == condition
    assert (match.omitted, match.added, match.substituted) == (omitted, added, substituted)
    kinds = {"omission": omitted, "addition": added, "substitution": substituted}
    assert kinds[row["issue"]]


def test_paper_generations_read_and_write_back(data_dir: Path) -> None:
    path = data_dir / "ner" / "gner_predictions" / "gner_paper_tables_9_10.json"
    table = json.loads(path.read_text(encoding="utf-8"))["table10_generations"]
    assert len(table) == 10
    for row in table:
        parsed = agree(reference.parse_generation, parse_generation, row["prediction"])
        pairs = list(zip(parsed.words, parsed.labels, strict=True))
        assert write_generation(pairs) == row["prediction"]
        assert (parsed.dropped_labels, parsed.trailing_text) == ([], "")


# Laws.

matchable = st.tuples(sentences(), label_lists).flatmap(
    lambda both: st.tuples(st.just(both[0]), generations(*both), st.just(both[1]))
)
plain_words = words.filter(
    lambda w: w != "" and w == w.strip() and not any(p in w for p in ("(B-", "(I-", "(O"))
)
PLAIN_TYPES = ["x", "y", "musical artist", "x-y", "é"]
faithful = st.lists(plain_words, max_size=20).flatmap(
    lambda sentence: st.tuples(st.just(sentence), bio_labels(len(sentence), PLAIN_TYPES))
)


@given(matchable)
def test_every_word_gets_a_listed_label(arguments: tuple[list[str], str, list[str]]) -> None:
    sentence, _, label_list = arguments
    match = match_labels(*arguments)
    assert len(match.labels) == len(match.alignment) == len(sentence)
    assert set(match.labels) <= {"O", *(p + t for p in ("B-", "I-") for t in label_list)}
    for k, label in enumerate(match.parsed.labels):
        listed = label == "O" or (label[:2] in ("B-", "I-") and label[2:] in label_list)
        assert (k in match.invalid_labels) == (not listed)


@given(matchable)
def test_report_adds_up(arguments: tuple[list[str], str, list[str]]) -> None:
    sentence, _, _ = arguments
    match = match_labels(*arguments)
    matched = [(i, j) for i, j in enumerate(match.alignment) if j != -1]
    generated = match.parsed.words
    rows = [i for i, _ in matched] + match.omitted + [i for i, _ in match.substituted]
    columns = [j for _, j in matched] + match.added + [j for _, j in match.substituted]
    assert sorted(rows) == list(range(len(sentence)))
    assert sorted(columns) == list(range(len(generated)))
    assert [j for _, j in matched] == sorted(j for _, j in matched)
    assert all(sentence[i].lower() == generated[j].lower() for i, j in matched)
    assert all(sentence[i].lower() != generated[j].lower() for i, j in match.substituted)
    if match.matching == "exact":
        assert len(matched) == len(sentence) == len(generated)
    elif match.matching == "subsequence":
        assert len(matched) == len(generated) < len(sentence)
    else:
        assert len(matched) < len(generated)


@given(faithful)
def test_faithful_generation_gives_its_labels_back(pair: tuple[list[str], list[str]]) -> None:
    sentence, labels = pair
    generation = write_generation(list(zip(sentence, labels, strict=True)))
    match = match_labels(sentence, generation, PLAIN_TYPES)
    assert match == Match(
        labels=labels,
        matching="exact",
        alignment=list(range(len(sentence))),
        parsed=reference.Parsed(sentence, labels, [], ""),
        omitted=[],
        added=[],
        substituted=[],
        invalid_labels=[],
    )


@given(faithful, st.data())
def test_omissions_lose_only_their_own_labels(
    pair: tuple[list[str], list[str]], data: st.DataObject
) -> None:
    sentence, labels = pair
    distinct = {word.lower(): (word, label) for word, label in zip(sentence, labels, strict=True)}
    pairs = list(distinct.values())
    size = len(pairs)
    keep = data.draw(st.lists(st.booleans(), min_size=size, max_size=size))
    kept = [pair for pair, k in zip(pairs, keep, strict=True) if k]
    match = match_labels([word for word, _ in pairs], write_generation(kept), PLAIN_TYPES)
    assert match.matching == ("exact" if all(keep) else "subsequence")
    expected = [label if k else "O" for (_, label), k in zip(pairs, keep, strict=True)]
    assert match.labels == expected
    assert match.omitted == [i for i, k in enumerate(keep) if not k]


@given(st.lists(plain_words, max_size=20), matchable)
def test_matching_its_own_result_changes_nothing(
    sentence: list[str], arguments: tuple[list[str], str, list[str]]
) -> None:
    _, generation, _ = arguments
    labels = match_labels(sentence, generation, PLAIN_TYPES).labels
    again = write_generation(list(zip(sentence, labels, strict=True)))
    assert match_labels(sentence, again, PLAIN_TYPES).labels == labels


@given(sentences(), sentences())
def test_alignment_is_the_lcs_unless_generated_is_a_subsequence(a: list[str], b: list[str]) -> None:
    condition, alignment = align_words(a, b)
    longest = longest_common_subsequence(a, b).tolist()
    assert alignment.count(-1) == longest.count(-1)
    if condition == "lcs":
        assert alignment == longest
    assert (align_words(b, a)[0] == "exact") == (condition == "exact") == (a == b)


@given(matchable)
def test_lower_case_words_are_what_is_compared(arguments: tuple[list[str], str, list[str]]) -> None:
    sentence, generation, label_list = arguments
    lower = [word.lower() for word in sentence]
    match = match_labels(sentence, generation, label_list)
    assert match_labels(sentence, generation, label_list, lower) == match
    assert match_labels(lower, generation, label_list) == match


@given(matchable)
def test_split_generated_equals_splitting_by_hand(
    arguments: tuple[list[str], str, list[str]],
) -> None:
    sentence, generation, label_list = arguments
    pairs = []
    parsed = parse_generation(generation)
    for word, label in zip(parsed.words, parsed.labels, strict=True):
        for start, end in split_by_definition(word):
            continued = label if label == "O" or start == 0 else f"I-{label[2:]}"
            pairs.append((word[start:end], continued))
    split = match_labels(sentence, generation, label_list, split_generated=True)
    by_hand = match_labels(sentence, write_generation(pairs), label_list)
    parsed = by_hand.parsed._replace(
        dropped_labels=parsed.dropped_labels, trailing_text=parsed.trailing_text
    )
    assert split == by_hand._replace(parsed=parsed)


def test_split_generated_finds_words_that_were_written_together() -> None:
    text = "New York, EU-wide"
    sentence = [text[start:end] for start, end in split_words(text)]
    generation = "New York,(B-city) EU-wide(O)"
    assert match_labels(sentence, generation, ["city"]).labels == ["O"] * 4
    match = match_labels(sentence, generation, ["city"], split_generated=True)
    assert match.labels == ["B-city", "I-city", "I-city", "O"]
    assert match.matching == "exact"


@pytest.mark.parametrize("threads", [1, 2, 3, 8, None])
def test_batch_equals_rows_for_any_number_of_threads(threads: int | None) -> None:
    rows = [
        (
            [f"w{i % 7}", "a", f"É{i % 3}"] * (i % 5),
            f"w{i % 6}(B-x{i % 4}) a(I-y)é{i % 3}(O) z(",
            [f"x{(i + k) % 11}" for k in range(i % 3)],  # more lists than are remembered
        )
        for i in range(1_100)
    ]
    expected = [match_labels(*row) for row in rows]
    sentence, generation, label_list = zip(*rows, strict=True)
    assert match_labels_batch(sentence, generation, label_list, threads=threads) == expected
    compared = [["a"] * len(row) for row in sentence]
    expected = [match_labels(*row, c) for row, c in zip(rows, compared, strict=True)]
    batch = match_labels_batch(sentence, generation, label_list, compared, threads=threads)
    assert batch == expected


def test_words_that_begin_alike_are_told_apart() -> None:
    alike = [
        "",
        *("abcdefghij"[:k] for k in (7, 8, 9, 10)),
        "abcdefghik",
        "abcdefgh\0",
        "abcdefg\0",
    ]
    for word in alike:
        for other in alike:
            expected = ("exact", [0]) if word == other else ("lcs", [-1])
            assert align_words([word], [other]) == expected
    agree(reference.align_words, align_words, alike, alike[::-1])
    agree(reference.align_words, align_words, alike * 9, (alike[3:] + alike[:3]) * 9)


def test_no_rows_give_no_matches() -> None:
    assert match_labels_batch([], [], []) == []
    assert match_labels_batch([], [], [], []) == []


# Laws: every character that this interpreter knows is read as Python reads it.


def assigned_characters() -> Iterator[list[str]]:
    """Yields the assigned characters of this interpreter in blocks."""
    known = [
        character
        for character in map(chr, range(sys.maxunicode + 1))
        if unicodedata.category(character) not in ("Cn", "Cs")
    ]
    for start in range(0, len(known), 4_096):
        yield known[start : start + 4_096]


# The lower case of a sigma depends on its neighbours: on whether they have a case or are passed
# over. That is no part of Unicode's promise of stable case mappings: it follows the category.
CHANGED_CATEGORY = {
    "\u0295": "Ll",  # pharyngeal fricative: a lower-case letter once, a caseless letter now
    "\U0001171e": "Mn",  # Ahom medial RA: a non-spacing mark once, a spacing mark now
}


@pytest.mark.parametrize(
    ("before", "after"), [("", ""), ("a", "Σ"), ("aΣ", ""), ("aΣ", "b"), ("Σ", "a"), ("A.", "Σ.")]
)
def test_lower_case_of_every_character(before: str, after: str) -> None:
    wrong = set()
    for block in assigned_characters():
        spaced = [c for c in block if (before and after) or not c.isspace()]
        generated = [before + character + after for character in spaced]
        lower = [word.lower() for word in generated]
        generation = write_generation([(word, "O") for word in generated])
        for match in (
            match_labels(generated, generation, [], lower),  # lower-cases what was generated
            match_labels(generated, write_generation([(w, "O") for w in lower]), []),  # the words
        ):
            wrong |= {spaced[i] for i in match.omitted}
            wrong |= {spaced[i] for i, _ in match.substituted}
    changed = {c for c, old in CHANGED_CATEGORY.items() if unicodedata.category(c) == old}
    assert wrong <= changed


def test_white_space_of_every_character() -> None:
    for block in assigned_characters():
        around = [character + "x" + character for character in block]
        parsed = parse_generation("".join(f"{word}(O)" for word in around))
        assert parsed.words == [word.strip() for word in around]
        parsed = parse_generation("".join(f"{character}(O)" for character in block))
        assert parsed.words == [character for character in block if not character.isspace()]
        assert len(parsed.dropped_labels) == sum(map(str.isspace, block))
        types = [f"B-{word}{character}" for word, character in zip(around, block, strict=True)]
        types = [label for label in types if ")" not in label and "\n" not in label]
        parsed = parse_generation("".join(f"x({label})" for label in types))
        assert parsed.labels == [label.strip() for label in types]


# Parity.


@given(texts)
def test_extraction_agrees_on_any_text(text: str) -> None:
    agree(reference.parse_generation, parse_generation, text)


@given(st.text("(BI-O) \nx", max_size=40))
def test_extraction_agrees_on_brackets(text: str) -> None:
    agree(reference.parse_generation, parse_generation, text)


@given(sentences(max_size=80), sentences(max_size=80))
def test_alignments_agree(a: list[str], b: list[str]) -> None:
    agree(reference.align_words, align_words, a, b)


@given(matchable)
def test_matches_agree(arguments: tuple[list[str], str, list[str]]) -> None:
    agree(reference.match_labels, match_labels, *arguments)


@given(sentences(), texts, label_lists)
def test_matches_with_any_text_agree(sentence: list[str], text: str, label_list: list[str]) -> None:
    agree(reference.match_labels, match_labels, sentence, text, label_list)


@given(matchable, sentences())
def test_matches_with_comparison_words_agree(
    arguments: tuple[list[str], str, list[str]], comparison: list[str]
) -> None:
    sentence, generation, label_list = arguments
    agree(reference.match_labels, match_labels, sentence, generation, label_list, comparison)
    size = min(len(sentence), len(comparison))
    shorter = sentence[:size], generation, label_list, comparison[:size]
    agree(reference.match_labels, match_labels, *shorter)


@given(st.lists(matchable, max_size=8))
def test_batches_agree(rows: list[tuple[list[str], str, list[str]]]) -> None:
    sentence, generation, label_list = zip(*rows, strict=True) if rows else ((), (), ())
    batch = match_labels_batch(sentence, generation, label_list)
    assert batch == [reference.match_labels(*row) for row in rows]


def test_lengths_of_a_batch_must_agree() -> None:
    with pytest.raises(ValueError, match=r"^generations and words must have the same length"):
        match_labels_batch([["a"]], [], [["x"]])
    with pytest.raises(ValueError, match=r"^types and words must have the same length"):
        match_labels_batch([["a"]], [""], [])
    with pytest.raises(ValueError, match=r"^comparison_words and words must have the same length"):
        match_labels_batch([["a"]], [""], [["x"]], [])


def test_error_in_a_batch_names_its_row() -> None:
    with pytest.raises(ValueError, match=r"comparison_words.* got 2 and 1") as raised:
        match_labels_batch([["a"], ["b"]], ["", ""], [[], []], [["a"], ["b", "c"]])
    assert "[1]" in str(raised.value)


@given(surrogate_texts)
def test_lone_surrogates_are_refused(text: str) -> None:
    def refuse(name: str) -> Any:
        return pytest.raises(ValueError, match=f"^{name} holds a lone surrogate$")

    with refuse("text"):
        parse_generation(text)
    with refuse(r"words\[1\]"):
        align_words(["a", text], [])
    with refuse(r"generated\[0\]"):
        align_words([], [text])
    with refuse(r"words\[0\]"):
        match_labels([text], "", [])
    with refuse("generation"):
        match_labels([], text, [])
    with refuse(r"types\[0\]"):
        match_labels([], "", [text])
    with refuse(r"comparison_words\[0\]"):
        match_labels(["a"], "", [], [text])
    with refuse(r"words\[1\]\[0\]"):
        match_labels_batch([["a"], [text]], ["", ""], [[], []])
    with refuse(r"generations\[0\]"):
        match_labels_batch([["a"]], [text], [[]])
    with refuse(r"types\[0\]\[1\]"):
        match_labels_batch([["a"]], [""], [["x", text]])
    with refuse(r"comparison_words\[0\]\[0\]"):
        match_labels_batch([["a"]], [""], [[]], [[text]])


WRONG: list[tuple[Any, tuple[Any, ...], str]] = [
    (parse_generation, (None,), "text"),
    (parse_generation, (b"a",), "text"),
    (align_words, ("ab", []), "words"),
    (align_words, ([], [1]), r"generated\[0\]"),
    (match_labels, ("ab", "", []), "words"),
    (match_labels, (3, "", []), "words"),
    (match_labels, (["a", None], "", []), r"words\[1\]"),
    (match_labels, ([], ["a"], []), "generation"),
    (match_labels, ([], "", "x"), "types"),
    (match_labels, ([], "", [1]), r"types\[0\]"),
    (match_labels, ([], "", [], "x"), "comparison_words"),
    (match_labels_batch, (None, [], []), "words"),
    (match_labels_batch, (["a"], [""], [[]]), r"words\[0\]"),
    (match_labels_batch, ([["a", 1]], [""], [[]]), r"words\[0\]\[1\]"),
    (match_labels_batch, ([["a"]], "", [[]]), "generations"),
    (match_labels_batch, ([["a"]], [1], [[]]), r"generations\[0\]"),
    (match_labels_batch, ([["a"]], [""], [3]), r"types\[0\]"),
    (match_labels_batch, ([["a"]], [""], [[]], [[None]]), r"comparison_words\[0\]\[0\]"),
]


@pytest.mark.parametrize(("op", "arguments", "name"), WRONG)
def test_wrong_types_are_named(op: Any, arguments: tuple[Any, ...], name: str) -> None:
    with pytest.raises(TypeError, match=rf"^{name} must be"):
        op(*arguments)


def test_wrong_options_are_named() -> None:
    with pytest.raises(TypeError, match="split_generated"):
        match_labels([], "", [], split_generated=3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="threads"):
        match_labels_batch([], [], [], threads="2")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="threads"):
        match_labels_batch([], [], [], threads=-1)
