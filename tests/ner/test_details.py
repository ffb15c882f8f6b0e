"""Scores by type, partial matches, differences of two models, and missed entities with examples."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmcore.ner import score, score_file
from lmcore.ner.breakdown import COUNTINGS, break_down, count_partial
from lmcore.ner.comparison import compare_files
from lmcore.ner.error_report import format_errors, render_errors
from lmcore.ner.errors import KINDS, find_errors
from lmcore.ner.labelled import LabelledRow, Reading, read_labelled
from lmcore.ops.entities import SCHEMES, decode_spans
from prediction_rows import VALID, make_rows, write_rows
from strategies import bio_labels

TYPES = ["x", "y", "two words"]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(
        tmp_path_factory.mktemp("details") / "a.jsonl", make_rows(900, datasets=["one", "two"])
    )


@st.composite
def labelled(draw: st.DrawFn) -> list[LabelledRow]:
    rows = []
    for number in range(draw(st.integers(0, 4))):
        size = draw(st.integers(0, 8))
        words = [draw(st.sampled_from(["a", "b", "the"])) for _ in range(size)]
        gold, predicted = (draw(bio_labels(size, TYPES)) for _ in range(2))
        rows.append(LabelledRow("f", number, "set", words, gold, predicted, 0))
    return rows


# Rows.


@pytest.mark.parametrize("scheme", SCHEMES)
def test_details_are_of_the_rows_that_are_scored(file: Path, scheme: str) -> None:
    rows = [*read_labelled(file, Reading())]
    scores = score_file(file, scheme=scheme)
    report = find_errors(rows, scheme)
    assert {name: part.errors for name, part in scores.datasets.items()} == report.datasets
    details = break_down(rows, scheme)
    for name, part in scores.datasets.items():
        types = details[name].types.values()
        assert tuple(map(sum, zip(*(t.entities for t in types), strict=True))) == part.entities
        assert tuple(map(sum, zip(*(t.errors for t in types), strict=True))) == part.errors


def test_words_of_a_tokenizer(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "a.jsonl", [{**VALID, "prediction": "in(O) nw(B-x) york(I-x)"}])

    def drop(words: list[str]) -> list[str]:
        return [word.replace("new", "nw") for word in words]

    (row,) = read_labelled(file, Reading(back_tokenize=drop))
    assert row.predicted == VALID["labels"]
    (row,) = read_labelled(file, Reading())
    assert row.predicted != VALID["labels"]


def test_bad_rows(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "a.jsonl", [VALID, {}, VALID])
    with pytest.raises(ValueError, match=r"a\.jsonl:2: types: this key is missing"):
        [*read_labelled(file, Reading())]
    reading = Reading(skip_bad_rows=True)
    assert [row.line for row in read_labelled(file, reading)] == [1, 3]
    assert reading.bad_rows == 1
    file.write_text("\n")
    with pytest.raises(ValueError, match=r"a\.jsonl: the file holds no rows"):
        [*read_labelled(file, Reading())]


# Types and parts.


@given(labelled())
def test_types_are_those_of_seqeval(rows: list[LabelledRow]) -> None:
    from seqeval.metrics import classification_report

    if not rows:
        return
    gold, predicted = ([list(getattr(r, key)) for r in rows] for key in ("labels", "predicted"))
    expected: dict[str, Any] = {}
    if any(label != "O" for labels in (*gold, *predicted) for label in labels):
        expected = classification_report(gold, predicted, output_dict=True, zero_division=0)
    details = break_down(rows, "conll")["set"]
    for kind, scores in details.types.items():
        ours = dict(zip(("precision", "recall", "f1-score"), scores.quality, strict=True))
        theirs = expected[kind]
        assert {key: theirs[key] for key in ours} == pytest.approx(ours)
        assert theirs["support"] == scores.entities.gold
    if expected:
        macro = expected["macro avg"]
        assert details.macro == pytest.approx(
            [macro[k] for k in ("precision", "recall", "f1-score")]
        )


@given(labelled())
def test_partial_matches_are_those_of_nervaluate(rows: list[LabelledRow]) -> None:
    from nervaluate import Evaluator

    gold = [decode_spans(row.labels, "strict") for row in rows]
    predicted = [decode_spans(row.predicted, "strict") for row in rows]

    def dicts(sentences: Any) -> Any:
        return [
            [{"label": s.type, "start": s.start, "end": s.end - 1} for s in spans]
            for spans in sentences
        ]

    if not rows:
        return
    theirs = Evaluator(dicts(gold), dicts(predicted), tags=TYPES, loader="dict").evaluate()
    ours = break_down(rows, "strict")["set"].partial
    names = {"strict": "strict", "exact": "exact", "partial": "partial", "type": "ent_type"}
    for counting in COUNTINGS:
        result = theirs["overall"][names[counting]]
        for key in ("correct", "incorrect", "partial", "missed", "spurious"):
            assert getattr(ours[counting], key) == getattr(result, key), (counting, key)
        assert ours[counting].quality == pytest.approx((result.precision, result.recall, result.f1))


def test_laws_of_partial_matches(file: Path) -> None:
    for row in read_labelled(file, Reading()):
        gold, predicted = decode_spans(row.labels), decode_spans(row.predicted)
        for counts in count_partial(gold, predicted).values():
            both = counts.correct + counts.incorrect + counts.partial
            assert both + counts.missed == len(gold)
            assert both + counts.spurious == len(predicted)


def test_left_out_entities_are_spurious() -> None:
    row = LabelledRow("f", 1, "set", ["a"], ["B-x"], ["B-x"], 2)
    details = break_down([row])["set"]
    assert all(counts.spurious == 2 for counts in details.partial.values())
    assert find_errors([row]).spurious == {"(not in the text)": 2}


# Two models.


def other_model(file: Path, share: float, folder: Path) -> Path:
    generator = np.random.default_rng(0)
    rows = [json.loads(line) for line in file.read_text().strip().split("\n")]
    for row in rows:
        if generator.random() < share:
            pairs = zip(row["words"], row["labels"], strict=True)
            row["prediction"] = " ".join(f"{word}({label})" for word, label in pairs)
    return write_rows(folder / "b.jsonl", rows)


@pytest.mark.parametrize("scheme", ["gner", "strict"])
def test_a_better_model_is_told_from_a_worse_one(file: Path, tmp_path: Path, scheme: str) -> None:
    better = other_model(file, 0.5, tmp_path)
    comparison = compare_files(better, file, scheme=scheme, resamples=200)
    assert [d.name for d in comparison.differences] == ["one", "two", "mean"]
    scores = [score_file(path, scheme=scheme) for path in (better, file)]
    for difference in comparison.differences[:2]:
        assert difference.first == scores[0].datasets[difference.name].quality
        assert difference.second == scores[1].datasets[difference.name].quality
        assert 0 < difference.low < difference.f1 < difference.high
        assert difference.is_clear
    assert comparison.differences[-1].first == scores[0].mean
    back = compare_files(file, better, scheme=scheme, resamples=200)
    for one, other in zip(comparison.differences, back.differences, strict=True):
        assert (one.f1, one.low) == (-other.f1, pytest.approx(-other.high))
    assert compare_files(better, file, scheme=scheme, resamples=200) == comparison
    assert compare_files(better, file, scheme=scheme, resamples=200, seed=1) != comparison


def test_a_model_does_not_differ_from_itself(file: Path) -> None:
    for difference in compare_files(file, file, resamples=20).differences:
        assert (difference.f1, difference.low, difference.high) == (0, 0, 0)
        assert not difference.is_clear


def test_the_interval_is_that_of_the_definition(tmp_path: Path) -> None:
    """Against a bootstrap of numpy's own draws, which agrees but for chance."""
    rows = make_rows(300)
    file = write_rows(tmp_path / "a.jsonl", rows)
    other = other_model(file, 0.2, tmp_path)
    (ours,) = compare_files(other, file, scheme="strict", resamples=2000).differences
    tables = [
        np.array([score([json.loads(line)], scheme="strict").datasets["one"].entities
                  for line in path.read_text().strip().split("\n")])
        for path in (other, file)
    ]  # fmt: skip
    generator = np.random.default_rng(1)
    draws = generator.integers(300, size=(2000, 300))

    def f1(table: Any) -> Any:
        gold, predicted, correct = table[draws].sum(axis=1).T
        return 2 * correct / (gold + predicted)

    edges = np.quantile(f1(tables[0]) - f1(tables[1]), [0.025, 0.975])
    assert [ours.low, ours.high] == pytest.approx(edges, abs=0.15 * (ours.high - ours.low))


def test_rows_that_do_not_belong_together(tmp_path: Path) -> None:
    one = write_rows(tmp_path / "a.jsonl", [VALID, VALID])
    for changes, problem in (
        ({"words": ["in", "Old", "York"]}, "b.jsonl:2: the words are not those of"),
        ({"labels": ["O", "O", "O"]}, "b.jsonl:2: the labels are not those of"),
    ):
        other = write_rows(tmp_path / "b.jsonl", [VALID, {**VALID, **changes}])
        with pytest.raises(ValueError, match=problem):
            compare_files(one, other)
    other = write_rows(tmp_path / "b.jsonl", [VALID])
    for pair in ((one, other), (other, one)):
        with pytest.raises(ValueError, match=r"a\.jsonl: expected 1 rows as in .*b\.jsonl: got mo"):
            compare_files(*pair)
    with pytest.raises(ValueError, match="resamples must be at least 1: got 0"):
        compare_files(one, one, resamples=0)
    with pytest.raises(ValueError, match="bad rows cannot be skipped"):
        compare_files(one, one, reading=Reading(skip_bad_rows=True))


# Errors.


def make_report() -> Any:
    words = ["Ada", "met", "Max", "in", "New", "York", "."]
    gold = ["B-person", "O", "B-person", "O", "B-city", "I-city", "O"]
    found = ["O", "O", "B-city", "O", "O", "B-city", "B-city"]
    return find_errors([LabelledRow("a.jsonl", 3, "set", words, gold, found, 0)])


def test_kinds_and_examples() -> None:
    report = make_report()
    assert report.total == (3, 1, 1, 1)
    assert report.types == {"city": (1, 0, 0, 1), "person": (2, 1, 1, 0)}
    assert report.confusions == {("person", "city"): 1}
    (unlabelled,), (noisy,), (boundary,) = (report.examples[kind] for kind in KINDS)
    assert (unlabelled.text, unlabelled.predicted) == ("Ada", ())
    assert (noisy.text, noisy.predicted) == ("Max", (("city", "Max"),))
    assert (boundary.text, boundary.before) == ("New York", "Ada met Max in")
    assert boundary.location == "a.jsonl:3"
    text = format_errors({"a": report})
    assert "a.jsonl:3: Ada met Max in [New York] .: city, predicted: 'York" in text
    assert json.loads(json.dumps(report.to_dict()))["total"]["gold"] == 3


def test_examples_are_bounded_and_differ(file: Path) -> None:
    report = find_errors(read_labelled(file, Reading()), examples=5)
    for examples in report.examples.values():
        assert len(examples) == 5
        assert len({(e.type, e.text) for e in examples}) == 5
    none = find_errors(read_labelled(file, Reading()), examples=0)
    assert not any(none.examples.values())
    assert none.total == report.total


def test_hostile_words_in_reports() -> None:
    words = ["<script>", "\x1b[2J", "\n"]
    row = LabelledRow("<i>\x1b", 1, "<b>", words, ["B-<u>", "O", "O"], ["O"] * 3, 0)
    report = find_errors([row])
    text = format_errors({"\x1b": report})
    assert "\x1b" not in text
    page = render_errors({"<i>": report})
    assert "<script" not in page
    assert "<u>" not in page
    assert "<i>" not in page
