"""The default scorer: what it learns, says of words, writes and refuses."""

import json
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from commands import check_line, run_here
from lmcore._files import FolderLock
from lmcore.detox import NgramScorer, train_scorer
from lmcore.detox.calibration import compute_auroc
from lmcore.detox.ngram_features import find_words, hash_texts
from strategies import characters
from tiny_scorers import TOXIC, make_texts, write_jsonl, write_labelled


@pytest.fixture(scope="module")
def scorer() -> NgramScorer:
    return train_scorer(*make_texts(), bits=14)


@pytest.fixture(scope="module")
def folder(scorer: NgramScorer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("scorer") / "own"
    scorer.save(place)
    return place


# Words.


@given(st.text(characters, max_size=40))
def test_words_stand_in_the_text(text: str) -> None:
    words = find_words(text)
    ends = [0, *(word.end for word in words)]
    assert all(before <= word.start < word.end for before, word in zip(ends, words, strict=False))
    covered = {place for word in words for place in range(word.start, word.end)}
    assert all(text[place].isspace() for place in {*range(len(text))} - covered)


def test_forms() -> None:
    forms = [word.form for word in find_words("ＢＬＡＰ bl\u200bap blaaaaap bl*p $nib 坏人")]
    assert forms == ["blap", "blap", "blaap", "bl*p", "$nib", "坏", "人"]


def test_long_words_take_linear_time() -> None:
    text = "a" * 10**5 + "*" * 10**5 + "-a" * 10**5
    assert sum(word.end - word.start for word in find_words(text)) == len(text)


def test_features_are_distinct_and_sorted() -> None:
    offsets, features = hash_texts(["b a b a", "", "a"], 18)
    assert offsets[1] == offsets[2]
    for begin, end in pairwise(offsets):
        part = features[begin:end].tolist()
        assert part == sorted(set(part))
    assert set(features[offsets[2] :]) < set(features[: offsets[1]])


# What is learned.


def test_planted_words_are_found(scorer: NgramScorer) -> None:
    texts = ["the new thing", f"the {TOXIC[0]} thing", f"an old {TOXIC[1].upper()}!"]
    scores = scorer(texts).tolist()
    assert scores[0] < 0.5 < min(scores[1:])
    for text, word in zip(texts[1:], TOXIC, strict=False):
        best = max(scorer.explain(text), key=lambda found: found.weight)
        assert best.word.lower() == word
        assert text[best.start : best.end] == best.word
    assert scorer.report["auroc"] == 1.0
    assert scorer.report["rows"] == 200
    assert scorer.report["train_rows"] + scorer.report["held_out_rows"] == 200


def test_chinese_is_read_by_character() -> None:
    plain, toxic = "今天我们去公园看花", "你这个笨蛋真讨厌"
    texts = [f"{side[number % 4 :]}{number}" for number in range(60) for side in (plain, toxic)]
    scorer = train_scorer(texts, [0, 1] * 60, bits=14)
    scores = scorer(["他去公园", "他是笨蛋"])
    assert scores[0] < 0.5 < scores[1]
    weights = {word.word: word.weight for word in scorer.explain("他是笨蛋")}
    assert min(weights["笨"], weights["蛋"]) > max(weights["他"], weights["是"])


@given(st.text(characters, max_size=40))
def test_weights_add_up_to_the_score(scorer: NgramScorer, text: str) -> None:
    total = sum(word.weight for word in scorer.explain(text)) + scorer.intercept
    assert scorer([text])[0] == pytest.approx(1 / (1 + np.exp(-total)), abs=1e-9)


@given(st.lists(st.text(characters, max_size=20), max_size=5), st.integers(0, 5))
def test_scores_do_not_depend_on_what_stands_beside(
    scorer: NgramScorer, texts: list[str], place: int
) -> None:
    text = "a blap\ud800 here"
    alone = scorer([text])[0]
    assert scorer([*texts[:place], text, *texts[place:]])[min(place, len(texts))] == alone
    assert scorer([]).shape == (0,)


def test_soft_labels_are_learned_and_calibrated() -> None:
    """Texts of one kind are toxic in one case of four: their score is about that."""
    texts = [f"{'maybe' if number % 2 else 'never'} word{number}" for number in range(800)]
    labels = [float(number % 2 and number % 8 == 1) for number in range(800)]
    scorer = train_scorer(texts, labels, bits=14)
    new = range(801, 1000)
    assert scorer([f"maybe word{n}" for n in new]).mean() == pytest.approx(0.25, abs=0.08)
    assert scorer([f"never word{n}" for n in new]).mean() < 0.05
    assert scorer.report["expected_calibration_error"] < 0.08


def test_a_text_stands_on_one_side_alone() -> None:
    """Copies of texts say nothing about others: noise is not ranked by those who saw it."""
    texts = [f"{number % 40}x{number * 7919 % 40}" for number in range(40)] * 10
    labels = [number * 31 % 7 < 3 for number in range(40)] * 10
    scorer = train_scorer(texts, labels, bits=12)
    assert 0.1 < scorer.report["auroc"] < 0.9


def test_default_scorer_on_real_pairs(data_dir: Path) -> None:
    """Pairs of words that Perspective scored; texts of one comment are all on one side."""
    rows = [
        json.loads(line)
        for line in (data_dir / "tox/segmentcnn_jigsaw_scored.jsonl").read_text().splitlines()
    ]
    parts = [
        [pair for row in rows[start::2] for pair in zip(row["span"], row["score"], strict=True)]
        for start in (0, 1)
    ]
    texts, labels = zip(*parts[0], strict=True)
    scorer = train_scorer(texts, labels, bits=16, steps=60)
    texts, labels = zip(*parts[1], strict=True)
    auroc = compute_auroc(scorer(texts), np.array(labels) == 1)
    assert auroc is not None
    assert auroc > 0.93


# Bad input.


@pytest.mark.parametrize(
    ("texts", "labels", "text"),
    [
        (["a"], [0.5, 1], r"labels must be \[1\]"),
        (["a", "b"], [0, 2], r"labels\[1\] must be from 0 to 1: got 2"),
        (["a", "b"], [0, float("nan")], r"labels\[1\] must be from 0 to 1: got nan"),
        ([], [], "too few texts"),
        (["a", "b"], [0, 1], "too few texts"),
        ([f"{n}" for n in range(100)], [0] * 100, r"0 of .* are toxic: both kinds are needed"),
    ],
)
def test_texts_that_nothing_is_learned_of(texts: list[str], labels: list[float], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        train_scorer(texts, labels)


def test_bad_settings() -> None:
    texts, labels = make_texts(50)
    for settings in ({"bits": 0}, {"bits": 25}, {"penalty": 0.0}, {"steps": 0}):
        with pytest.raises(ValueError, match=f"^{next(iter(settings))} must be "):
            train_scorer(texts, labels, **settings)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^labels must be numbers"):
        train_scorer(["a"], ["x"])


# Folders.


def test_a_saved_scorer_is_the_same(scorer: NgramScorer, folder: Path) -> None:
    other = NgramScorer.load(folder)
    texts = make_texts(20)[0]
    assert other(texts).tolist() == scorer(texts).tolist()
    assert (other.key, other.report) == (scorer.key, scorer.report)
    assert sorted(path.suffix for path in folder.iterdir()) == [".json", ".npy"]


def test_training_writes_the_same_bytes(tmp_path: Path) -> None:
    source = write_labelled(tmp_path / "rows.jsonl")
    for name in ("one", "two"):
        given = ["--out", tmp_path / name, "--bits", 12, "--json"]
        code, output, errors = run_here("detox", "train-scorer", source, *given)
        assert (code, errors) == (0, "")
        assert json.loads(output)["auroc"] == 1
    files = [
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}
        for name in ("one", "two")
    ]
    assert files[0] == files[1]


def test_a_folder_is_replaced_by_a_new_scorer_and_nothing_else(tmp_path: Path) -> None:
    source = write_labelled(tmp_path / "rows.jsonl")
    out = tmp_path / "out"
    keys = []
    for bits in (12, 13):
        assert run_here("detox", "train-scorer", source, "--out", out, "--bits", bits)[0] == 0
        keys.append(NgramScorer.load(out).key)
        assert len(list(out.iterdir())) == 2
    assert keys[0] != keys[1]
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text("{}")
    for place in (tmp_path / "model", source):
        check_line(run_here("detox", "train-scorer", source, "--out", place), str(place))
    assert (tmp_path / "model/config.json").read_text() == "{}"


def test_a_kill_before_the_settings_leaves_the_old_scorer(
    tmp_path: Path, scorer: NgramScorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer.save(tmp_path / "out")
    other = train_scorer(*make_texts(), bits=12)

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("lmcore.detox.ngram_scorer.write_text", die)
        with pytest.raises(KeyboardInterrupt):
            other.save(tmp_path / "out")
    assert NgramScorer.load(tmp_path / "out").key == scorer.key
    other.save(tmp_path / "out")
    assert NgramScorer.load(tmp_path / "out").key == other.key


def test_flipped_bits_are_refused(folder: Path, tmp_path: Path) -> None:
    for suffix in (".json", ".npy"):
        for place in (5, 40, 130, 1000, -30):
            copy = tmp_path / f"copy{suffix}{place}"
            shutil.copytree(folder, copy)
            (file,) = copy.glob(f"*{suffix}")
            content = bytearray(file.read_bytes())
            if place < len(content):
                content[place] ^= 4
                file.write_bytes(content)
                with pytest.raises(ValueError, match=str(copy)):
                    NgramScorer.load(copy)


def test_foreign_files_are_refused(folder: Path, tmp_path: Path) -> None:
    def copy(name: str) -> Path:
        place = tmp_path / name
        shutil.copytree(folder, place)
        return place

    cut, missing, other, old = (copy(name) for name in ("cut", "missing", "other", "old"))
    (weights,) = cut.glob("*.npy")
    weights.write_bytes(weights.read_bytes()[:-4])
    next(missing.glob("*.npy")).unlink()
    (other / "config.json").write_text('{"format": "lmcore-ngram-scorer", "bits": 1e3}')
    (old / "config.json").write_text('{"format": "lmcore-ngram-scorer", "version": 99}')
    texts = write_jsonl(tmp_path / "texts.jsonl", [{"text": "a"}])
    for place in (cut, missing, other, old):
        check_line(run_here("detox", "score", texts, "--scorer", place), str(place))
    (old / "config.json").write_text('"lmcore-ngram-scorer"' + "[" * 10**5)
    check_line(run_here("detox", "score", texts, "--scorer", old), "config.json")


def test_two_processes_do_not_write_one_folder(tmp_path: Path, scorer: NgramScorer) -> None:
    scorer.save(tmp_path / "out")
    source = write_labelled(tmp_path / "rows.jsonl")
    with FolderLock(tmp_path / "out", doing="writing a scorer").hold():
        given = ["detox", "train-scorer", source, "--out", tmp_path / "out", "--bits", 12]
        check_line(run_here(*given), "another process is writing a scorer into it")
        assert NgramScorer.load(tmp_path / "out").key == scorer.key
    assert run_here(*given)[0] == 0


def test_progress_counts_steps() -> None:
    seen: list[tuple[int, int]] = []
    train_scorer(*make_texts(40), bits=4, steps=3, progress=lambda *pair: seen.append(pair))
    assert seen == [(step, 18) for step in range(1, 19)]
