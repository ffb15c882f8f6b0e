"""Calls that last end soon after a signal whose handler raises, as that of Ctrl-C does."""

import itertools
import json
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from lmcore.ops.entities import decode_spans
from lmcore.ops.examples import write_examples_batch
from lmcore.ops.lcs import longest_common_subsequence
from lmcore.ops.matching import align_words, match_labels, match_labels_batch
from lmcore.ops.predictions import align_file, align_row, score_examples, score_files
from lmcore.ops.words import locate_words
from prediction_rows import VALID, write_rows

pytestmark = pytest.mark.alone

DELAY = 0.3
# Half a second is what users are promised; other processes take their part of the machine here.
LATE = 1.5
SIZE = 600_000

_source = random.Random(0)
WORDS = [f"w{k}" for k in range(SIZE)]
SHUFFLED = _source.sample(WORDS, SIZE)
HOSTILE = {
    "label_list": ["x"],
    "words": WORDS,
    "labels": ["O"] * SIZE,
    "prediction": " ".join(f"{word}(O)" for word in SHUFFLED),
}


class Alarm(BaseException):
    """Stands for KeyboardInterrupt, which pytest keeps for itself."""


@pytest.fixture
def alarm() -> Iterator[Callable[[Callable[[], Any]], None]]:
    """Asserts that a call is ended by a signal, and soon."""

    def ring(number: int, frame: FrameType | None) -> None:
        raise Alarm

    def check(call: Callable[[], Any]) -> None:
        began = time.monotonic()
        signal.setitimer(signal.ITIMER_REAL, DELAY)
        with pytest.raises(Alarm):
            call()
        assert time.monotonic() - began < DELAY + LATE

    before = signal.signal(signal.SIGALRM, ring)
    yield check
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def test_lcs(alarm: Callable[[Callable[[], Any]], None]) -> None:
    numbers = _source.sample(range(SIZE), SIZE)
    alarm(lambda: longest_common_subsequence(range(SIZE), numbers))
    alarm(lambda: longest_common_subsequence(WORDS, SHUFFLED))


def test_matching(alarm: Callable[[Callable[[], Any]], None]) -> None:
    text, types = HOSTILE["prediction"], HOSTILE["label_list"]
    alarm(lambda: align_words(WORDS, SHUFFLED))
    alarm(lambda: match_labels(WORDS, text, types))
    for threads in (1, 2):
        alarm(lambda t=threads: match_labels_batch([WORDS] * 2, [text] * 2, [types] * 2, threads=t))


def test_examples(alarm: Callable[[Callable[[], Any]], None]) -> None:
    words, labels = [WORDS * 10] * 9, [["O"] * (10 * len(WORDS))] * 9
    for threads in (1, 2):
        alarm(
            lambda t=threads: write_examples_batch(
                [""] * 9, [["x"]] * 9, words, labels, ["", "sentence"], threads=t
            )
        )


@pytest.mark.parametrize("threads", [1, 2])
def test_one_hostile_row(
    alarm: Callable[[Callable[[], Any]], None], tmp_path: Path, threads: int
) -> None:
    made = [VALID] * 3 + [HOSTILE] + [VALID] * 20_000 + [HOSTILE]
    file = write_rows(tmp_path / "a.jsonl", made)
    alarm(lambda: score_examples(made, threads=threads))
    alarm(lambda: score_files([file], threads=threads))
    alarm(lambda: align_file(file, tmp_path / "b.jsonl", threads=threads))
    # The tokenizer's answers are waited for by the thread that reads.
    alarm(lambda: score_files([file], threads=threads, back_tokenize=lambda words: words))
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]


def test_one_row(alarm: Callable[[Callable[[], Any]], None]) -> None:
    row = json.loads(json.dumps({**HOSTILE, "unread": 0}))
    alarm(lambda: align_row(row))


def test_sequences_without_end(alarm: Callable[[Callable[[], Any]], None]) -> None:
    alarm(lambda: decode_spans(itertools.repeat("O")))  # type: ignore[arg-type]
    alarm(lambda: locate_words("", itertools.repeat("a")))  # type: ignore[arg-type]
    alarm(lambda: match_labels_batch(itertools.repeat(["a"]), [], []))  # type: ignore[arg-type]
