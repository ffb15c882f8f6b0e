"""The number of threads: any is taken, too many are said to be, and the result is the same."""

import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lmcore import _core
from lmcore.ops._threads import limit_threads, most_threads
from lmcore.ops.cleaning import clean_texts
from lmcore.ops.duplicates import Duplicates, hash_texts
from lmcore.ops.entities import count_entities_batch
from lmcore.ops.examples import write_examples_batch
from lmcore.ops.interactions import read_columns
from lmcore.ops.matching import match_labels_batch
from lmcore.ops.negatives import SequenceSampler
from lmcore.ops.ngrams import choose_candidates, sentence_bleu
from lmcore.ops.predictions import align_file, score_examples, score_files
from lmcore.ops.ranking import rank_targets
from lmcore.ops.segments import mask_segments
from lmcore.ops.vocabulary import count_ids, remap_ids
from prediction_rows import VALID, write_rows

ROWS = 300  # more than one chunk of rows
Call = Callable[[Any], Any]


@pytest.fixture
def calls(tmp_path: Path) -> dict[str, Call]:
    """Every public function that takes a number of threads."""
    file = write_rows(tmp_path / "a.jsonl", [VALID] * ROWS)
    labels = [["B-x", "O"]] * ROWS
    words, texts, types = [["a", "b"]] * ROWS, ["a(B-x) b(O)"] * ROWS, [["x"]] * ROWS
    scores = np.arange(2.0 * ROWS).reshape(ROWS, 2)

    def sample(threads: Any) -> Any:
        sampler = SequenceSampler([0, 3], [1, 2, 3], 9, batch_size=1, threads=threads)
        return sampler.sample(epoch=0, step=0).negatives.tolist()

    return {
        "score_examples": lambda threads: score_examples([VALID] * ROWS, threads=threads),
        "score_files": lambda threads: score_files([file], threads=threads),
        "align_file": lambda threads: align_file(file, tmp_path / "b.jsonl", threads=threads),
        "match_labels_batch": lambda threads: match_labels_batch(
            words, texts, types, threads=threads
        ),
        "write_examples_batch": lambda threads: write_examples_batch(
            texts, types, words, labels, [], threads=threads
        ),
        "count_entities_batch": lambda threads: count_entities_batch(
            labels, labels, scheme="strict", threads=threads
        ),
        "rank_targets": lambda threads: rank_targets(
            scores, [0] * ROWS, threads=threads
        ).ranks.tolist(),
        "SequenceSampler": sample,
        "count_ids": lambda threads: count_ids([1, 0, 1], 2, threads=threads).counts.tolist(),
        "remap_ids": lambda threads: remap_ids([1, 0, 1], [1, 0], threads=threads).ids.tolist(),
        "read_columns": lambda threads: (
            read_columns(b"ann,lamp\nbob,lamp\n", ",", 2, [0, 1], threads=threads)
            .labels[0]
            .codes.tolist()
        ),
        "mask_segments": lambda threads: mask_segments(
            [1, 2, 3], [0, 3], [0, 1], 9, threads=threads
        ).ids.tolist(),
        "clean_texts": lambda threads: clean_texts(texts, minimum_words=0, threads=threads),
        "hash_texts": lambda threads: hash_texts(texts, threads=threads).tolist(),
        "Duplicates.add": lambda threads: Duplicates().add(texts, threads=threads).tolist(),
        "Duplicates.remove": lambda threads: Duplicates().remove(texts, threads=threads),
        "sentence_bleu": lambda threads: sentence_bleu(
            texts, [[*row] for row in words], threads=threads
        ).tolist(),
        "choose_candidates": lambda threads: choose_candidates(
            words, threads=threads
        ).sums.tolist(),
    }


NAMES = [
    "score_examples",
    "score_files",
    "align_file",
    "match_labels_batch",
    "write_examples_batch",
    "count_entities_batch",
    "rank_targets",
    "SequenceSampler",
    "count_ids",
    "remap_ids",
    "read_columns",
    "mask_segments",
    "clean_texts",
    "hash_texts",
    "Duplicates.add",
    "Duplicates.remove",
    "sentence_bleu",
    "choose_candidates",
]


@pytest.mark.parametrize("name", NAMES)
def test_any_number_of_threads(calls: dict[str, Call], name: str) -> None:
    call = calls[name]
    expected = call(1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert call(None) == call(most_threads()) == call(np.int64(2)) == expected
    for many in (most_threads() + 1, 100_000, 2**31, 2**63, 2**64, 2**70):
        text = rf"^threads: {many} are more than 4 for each core: {most_threads()} are started$"
        with pytest.warns(RuntimeWarning, match=text) as raised:
            assert call(many) == expected
        assert len(raised) == 1
        assert raised[0].filename == __file__
    for wrong in (0, -1, -(2**70)):
        with pytest.raises(ValueError, match=f"^threads must be at least 1: got {wrong}$"):
            call(wrong)
    for wrong in ("2", 1.5):
        with pytest.raises(TypeError, match=f"^threads must be an int: got {type(wrong).__name__}"):
            call(wrong)


@pytest.mark.parametrize("asked", [0, -1, 2**70, -(2**70)])
def test_core_bounds_them_too(asked: int) -> None:
    """Who calls the core past the facade cannot start more, nor none."""

    def call() -> Any:
        return _core.score_examples([VALID], "gner", asked, 0, False, None)

    if asked > 0:
        assert call()[0]["examples"][0] == score_examples([VALID]).datasets["examples"].rows == 1
    else:
        with pytest.raises(ValueError, match=f"^threads must be at least 1: got {asked}$"):
            call()


def test_no_more_threads_than_work() -> None:
    """A thread is started when there is a block for it."""
    most = 0
    done = threading.Event()

    def count_threads() -> None:
        nonlocal most
        while not done.is_set():
            most = max(most, len(list(Path("/proc/self/task").iterdir())))
            time.sleep(0.0005)

    words = [f"w{k}" for k in range(20_000)]
    row = {
        "label_list": [],
        "words": words,
        "labels": ["O"] * len(words),
        "prediction": " ".join(f"{word}(O)" for word in reversed(words)),
    }
    before = len(list(Path("/proc/self/task").iterdir()))
    watcher = threading.Thread(target=count_threads)
    watcher.start()
    with pytest.warns(RuntimeWarning, match="100000"):
        score_examples([row] * 129, threads=100_000)  # two tables of 128 rows at most
    done.set()
    watcher.join()
    assert before < most <= before + 1 + min(2, most_threads())


def test_limit() -> None:
    assert limit_threads(None) is None
    assert limit_threads(1) == 1
    with pytest.warns(RuntimeWarning):
        assert limit_threads(10**9) == most_threads()
