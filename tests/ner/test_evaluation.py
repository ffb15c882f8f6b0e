"""`lmcore.ner.score` and its kin: the numbers, their names, and the JSON of the command."""

import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmcore.ner import DatasetScores, Scores, score, score_file, score_files
from lmcore.ops.entities import SCHEMES, EntityCounts, ErrorKinds, Quality
from lmcore.reference.entities import compute_quality
from lmcore.reference.predictions import score_examples
from prediction_rows import VALID, make_rows, rows, write_rows

Plain = dict[str, Any]
_NUMBERS = ["precision", "recall", "f1"]


@pytest.fixture(scope="module")
def made() -> list[Plain]:
    return make_rows(400, datasets=["one", "two", "北"])


# Laws.


@pytest.mark.parametrize("scheme", SCHEMES)
def test_dict_has_the_documented_keys_and_no_others(made: list[Plain], scheme: str) -> None:
    result = score(made, scheme=scheme).to_dict()
    assert list(result) == ["scheme", "datasets", "mean"]
    assert result["scheme"] == scheme
    assert list(result["mean"]) == _NUMBERS
    assert list(result["datasets"]) == list(dict.fromkeys(row["dataset"] for row in made))
    for part in result["datasets"].values():
        assert list(part) == ["rows", *_NUMBERS, "counts", "matching", "words", "invalid_labels"]
        assert list(part["counts"]) == ["gold", "predicted", "correct"]
        assert list(part["matching"]) == ["exact", "subsequence", "lcs"]
        assert list(part["words"]) == ["omitted", "added", "substituted"]
        counts = [*part["counts"].values(), *part["matching"].values(), *part["words"].values()]
        assert all(type(n) is int for n in [part["rows"], part["invalid_labels"], *counts])
        assert all(type(part[key]) is float for key in _NUMBERS)
        assert sum(part["matching"].values()) == part["rows"]
    assert json.loads(json.dumps(result)) == result


@given(st.lists(rows(), min_size=1, max_size=5), st.sampled_from(SCHEMES))
def test_numbers_are_those_of_the_definition(made: list[Plain], scheme: str) -> None:
    scores = score(made, scheme=scheme)
    expected = score_examples(made, scheme).datasets
    assert list(scores.datasets) == list(expected)
    result = scores.to_dict()
    for name, counts in expected.items():
        quality = compute_quality(counts.entities, scheme)
        assert result["datasets"][name] == {
            "rows": counts.rows,
            **quality._asdict(),
            "counts": counts.entities._asdict(),
            "matching": dict(zip(["exact", "subsequence", "lcs"], counts.conditions, strict=True)),
            "words": dict(
                zip(["omitted", "added", "substituted"], counts.differences, strict=True)
            ),
            "invalid_labels": counts.invalid_labels,
        }
        part = scores.datasets[name]
        assert (part.words, part.empty_predictions) == (counts.words, counts.empty_predictions)
        assert part.errors == counts.errors


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_score_says_what_it_is(made: list[Plain], scheme: str) -> None:
    scores = score(made, scheme=scheme)
    assert scores.scheme == scheme
    for name, part in scores.datasets.items():
        assert (part.name, part.scheme) == (name, scheme)
        assert part.types == ("unused", "x", "y")
        assert isinstance(part.entities, EntityCounts)
        assert isinstance(part.errors, ErrorKinds)
        assert part.quality == Quality(*compute_quality(part.entities, scheme))
        assert part.rows == sum(row["dataset"] == name for row in made)
        assert part.exact + part.subsequence + part.lcs == part.rows
        assert part.worst == ()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_mean_is_that_of_the_data_sets(made: list[Plain], scheme: str) -> None:
    scores = score(made, scheme=scheme)
    parts = [part.quality for part in scores.datasets.values()]
    assert len({part.f1 for part in parts}) == 3
    for key in _NUMBERS:
        mean = sum(getattr(part, key) for part in parts) / 3
        assert getattr(scores.mean, key) == pytest.approx(mean, rel=1e-15)
    assert scores.to_dict()["mean"] == scores.mean._asdict()


def test_files_and_lists_score_the_same(made: list[Plain], tmp_path: Path) -> None:
    def read() -> Iterator[Plain]:
        yield from made

    file = write_rows(tmp_path / "a.jsonl", made)
    whole = score(made, scheme="strict", worst=3)
    assert score(read(), scheme="strict", worst=3) == whole
    from_file = score_file(file, scheme="strict", worst=3)
    assert from_file.to_dict() == whole.to_dict()
    assert score_files([str(file)], scheme="strict", worst=3, threads=1) == from_file
    halves = [
        write_rows(tmp_path / "b.jsonl", made[:100]),
        write_rows(tmp_path / "c", made[100:]),
    ]
    assert score_files(halves, scheme="strict", merge=True).to_dict() == whole.to_dict()
    for one, other in zip(from_file.datasets.values(), whole.datasets.values(), strict=True):
        assert len(one.worst) == 3
        for sentence, same in zip(one.worst, other.worst, strict=True):
            assert sentence == dataclasses.replace(same, path=str(file), row=same.row + 1)
            row = made[same.row]
            assert list(same.words) == row["words"]
            assert list(same.labels) == row["labels"]
            assert same.prediction == row["prediction"]


def test_scores_are_values(made: list[Plain]) -> None:
    scores = score(made)
    assert scores == score(made)
    assert scores != score(made, scheme="strict")
    part = next(iter(scores.datasets.values()))
    for value, field in ((scores, "scheme"), (part, "rows")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(value, field, None)
    assert isinstance(part, DatasetScores)


# Cases.


def test_a_perfect_and_an_empty_data_set() -> None:
    outside = {**VALID, "labels": ["O"] * 3, "prediction": "in(O) New(O) York(O)"}
    for scheme, best in [("gner", 1 - 1e-10), ("strict", 1.0)]:
        scores = score([{**VALID, "dataset": "p"}, {**outside, "dataset": "e"}], scheme=scheme)
        assert scores.datasets["p"].quality == pytest.approx((best,) * 3, rel=0, abs=1e-9)
        assert scores.datasets["e"].quality == (0, 0, 0)
        assert scores.mean.f1 == pytest.approx(best / 2, rel=0, abs=1e-9)


def test_error_kinds_reach_the_scores() -> None:
    row = {
        "label_list": ["x", "y"],
        "words": ["a", "b", "c", "d"],
        "labels": ["B-x", "B-x", "B-x", "I-x"],
        "prediction": "a(O) b(B-y) c(B-x) d(O)",
    }
    part = score([row], scheme="strict").datasets["examples"]
    assert part.errors == ErrorKinds(gold=3, unlabelled=1, noisy=1, boundary=1)
    assert part.entities == EntityCounts(gold=3, predicted=2, correct=0)


def test_skipped_rows_are_counted_and_listed() -> None:
    scores = score([VALID, {}, VALID, {**VALID, "words": 1}], skip_bad_rows=True)
    assert scores.bad_rows == 2
    assert scores.listed_bad_rows == (
        "examples[1]: types: this key is missing",
        "examples[3]: words: must be a sequence of str: got int",
    )
    result = scores.to_dict()
    assert list(result) == ["scheme", "datasets", "mean", "bad_rows"]
    assert result["bad_rows"] == {"count": 2, "rows": list(scores.listed_bad_rows)}
    assert result["datasets"]["examples"]["rows"] == 2


def test_words_of_a_tokenizer() -> None:
    row = {**VALID, "prediction": "in(O) nw(B-x) york(I-x)"}
    assert score([row]).datasets["examples"].exact == 0

    def drop_vowels(words: list[str]) -> list[str]:
        return [word.replace("new", "nw") for word in words]

    assert score([row], back_tokenize=drop_vowels).datasets["examples"].exact == 1


def test_no_rows() -> None:
    empties: list[Iterable[Plain]] = [[], iter(())]
    for empty in empties:
        with pytest.raises(ValueError, match=r"^examples: there are no rows$"):
            score(empty)
    assert score_files([]) == Scores(scheme="gner", datasets={})
    assert score_files([]).to_dict() == {
        "scheme": "gner",
        "datasets": {},
        "mean": {"precision": 0.0, "recall": 0.0, "f1": 0.0},
    }
    calls: list[Callable[[], Scores]] = [
        lambda: score([], scheme="other"),
        lambda: score_files([], scheme="other"),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="scheme must be one of"):
            call()


def test_a_path_is_not_a_list_of_paths(tmp_path: Path) -> None:
    """A str is a sequence of str: its letters must not be taken for files."""
    file = write_rows(tmp_path / "a.jsonl", [VALID])
    with pytest.raises(TypeError, match="paths"):
        score_files(str(file))
