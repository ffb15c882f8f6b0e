"""Candidates chosen and self-BLEU, against the authors' routine on NLTK.

The texts are the published generations where `LMCORE_DATA` names them, and else made here: 1,091
sources with ten candidates each. Self-BLEU of the authors runs on a part of the outputs, against
all others, and its time is scaled.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np

import authors_mbr as authors
from lmcore.diffusion import remove_marks
from lmcore.diffusion.scoring import join_words
from lmcore.ops.ngrams import choose_candidates, self_bleu
from lmcore.ops.philox import random_below, random_uniform
from timing import Row, compare, print_conditions, save, scale

SOURCES, CANDIDATES, ORDER = 1091, 10, 5
PART = 10


def find_groups() -> tuple[list[list[str]], str]:
    """Returns the candidates of each source, and where they are from."""
    folder = Path(os.environ.get("LMCORE_DATA", "."), "text/bridge_gap_generations/qqp_20")
    files = sorted(folder.glob("seed*.json"))
    if not files:
        return make_groups(), "made"
    texts = [
        [remove_marks(json.loads(line)["recover"]) for line in file.read_text().splitlines()]
        for file in files
    ]
    return [list(group) for group in zip(*texts, strict=True)], "published"


def make_groups() -> list[list[str]]:
    """Returns candidates that have two words in three in common, of words as Zipf has them."""
    shape = (SOURCES, CANDIDATES, 9)
    own = random_uniform(1, 1, range(SOURCES * CANDIDATES), 9).reshape(shape)
    shared = random_uniform(1, 2, range(SOURCES), 9)[:, None]
    is_own = random_below(1, 3, range(SOURCES * CANDIDATES), 9, 3).reshape(shape) == 0
    words = np.exp(np.where(is_own, own, shared) * np.log(5000)).astype(int)
    return [[" ".join(f"w{word}" for word in text) for text in group] for group in words]


def choose_rows(groups: list[list[str]], case: str) -> list[Row]:
    """Times the choice, from texts to indices."""
    chosen = choose_candidates(groups, threads=1).best.tolist()
    assert chosen == [authors.choose(group) for group in groups]
    return compare(
        "ngrams", case,
        ("NLTK for each pair", lambda: [authors.choose(group) for group in groups]),
        ("1 thread", lambda: choose_candidates(groups, threads=1), "400"),
        ("2 threads", lambda: choose_candidates(groups, threads=2), ""),
        rounds=3,
    )  # fmt: skip


def self_bleu_rows(outputs: list[str], case: str) -> list[Row]:
    """Times BLEU-1 to BLEU-5 of each output against all others."""
    texts = [join_words(text) for text in outputs]
    words = [text.split() for text in texts]
    rows = range(0, len(texts), len(texts) // PART)[:PART]

    def compute() -> list[float]:
        return [authors.self_bleu(words, rows, order) for order in range(1, ORDER + 1)]

    expected = self_bleu(texts, rows, order=ORDER).sum(axis=0)
    assert np.allclose(compute(), expected, rtol=1e-12, atol=0)
    part = compare(
        "ngrams", case, (f"NLTK, scaled from {PART} of them", compute),
        ("lmcore", lambda: self_bleu(texts, order=ORDER), "200"), rounds=3,
    )  # fmt: skip
    return [scale(row, len(texts) / PART) for row in part]


def main() -> None:
    """Runs all cases."""
    try:
        import nltk
    except ModuleNotFoundError:
        print("nltk is not installed: pip install nltk")
        return
    print_conditions()
    print(f"nltk {nltk.__version__}")
    groups, origin = find_groups()
    outputs = [group[0] for group in groups]
    case = f"{len(groups)} groups of {len(groups[0])} {origin} texts"
    rows = choose_rows(groups, f"choose, {case}")
    rows += self_bleu_rows(outputs, f"self-BLEU-1 to 5 of {len(outputs)} {origin} texts")
    if "--dry" not in sys.argv[1:]:
        save("ngrams", rows)


if __name__ == "__main__":
    main()
