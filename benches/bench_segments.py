"""Distinct segments decoded once, and masks, against a decode per pair and masks in strings.

The texts are those of SemEval-2021 where `LMCORE_DATA` names them, and else made here.
"""

from __future__ import annotations

import csv
import os
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import authors_detox as authors
from lmcore.detox.tokenization import SegmentTokenizer, load_tokenizer, make_tokenizer
from lmcore.ops.philox import random_uniform
from lmcore.ops.segments import list_segments, mask_segments
from timing import Row, compare, print_conditions, save, scale

TEXTS, WORDS = 8000, 40
PART = 20


def find_texts() -> tuple[list[str], SegmentTokenizer, str]:
    """Returns texts, their tokenizer, and where they are from."""
    folder = Path(os.environ.get("LMCORE_DATA", "."))
    file, vocabulary = (
        folder / "tox/semeval2021_tsd_train.csv",
        folder / "tok/bert_base_uncased_vocab.txt",
    )
    if file.is_file() and vocabulary.is_file():
        with file.open(encoding="utf-8", newline="") as source:
            texts = [row["text"] for row in csv.DictReader(source)]
        return texts, load_tokenizer(vocabulary), "SemEval-2021"
    words = np.exp(random_uniform(1, 1, range(TEXTS), WORDS) * np.log(20_000)).astype(int)
    texts = [" ".join(f"w{word}" for word in row) for row in words]
    return texts, make_tokenizer([f"w{word}" for word in range(20_001)]), "made"


def list_rows(rows: list[list[int]], tokenizer: SegmentTokenizer, case: str) -> list[Row]:
    """Times the texts of all pairs, mapped back to each."""
    theirs = authors.make_tokenizer(tokenizer)
    flat, offsets = flatten(rows)

    def ours() -> NDArray[np.object_]:
        found = list_segments(flat, offsets)
        texts = tokenizer.decode_segments(found.distinct, skip_special_tokens=True)
        return np.array(texts, object)[found.inverse]

    def decode() -> list[str]:
        return [text for row in rows[::PART] for text in authors.list_pairs(theirs, row)]

    starts = list_segments(flat, offsets).offsets
    every = ours()
    expected = [
        text for k in range(0, len(rows), PART) for text in every[starts[k] : starts[k + 1]]
    ]
    assert decode() == expected
    name = f"a decode per pair, scaled from every {PART}th text"
    found = compare("segments", case, (name, decode), ("each distinct pair once", ours, "15"))
    share = len(every) / len(expected)
    return [scale(row, share) for row in found]


def mask_rows(rows: list[list[int]], tokenizer: SegmentTokenizer, case: str) -> list[Row]:
    """Times masks, from labels to ids without runs of masks, and to text."""
    theirs = authors.make_tokenizer(tokenizer)
    flat, offsets = flatten(rows)
    draws = random_uniform(1, 2, range(len(rows)), max(map(len, rows)))
    labels = [
        (draw[: max(0, len(row) - 1)] < 0.1).astype(int)
        for row, draw in zip(rows, draws, strict=True)
    ]
    together = np.concatenate(labels)

    def ours(threads: int) -> list[str]:
        ids, starts = mask_segments(flat, offsets, together, tokenizer.mask, threads=threads)
        found = [part.tolist() for part in np.split(ids, starts[1:-1])]
        return [text.replace("[MASK]", "<MASK>") for text in tokenizer.decode(found)]

    def strings() -> list[str]:
        pairs = zip(rows[::PART], labels[::PART], strict=True)
        return [authors.mask(theirs, row, own) for row, own in pairs]

    assert strings() == ours(1)[::PART]
    name = f"strings, scaled from every {PART}th text"
    found = compare("segments", case, (name, strings), ("1 thread", lambda: ours(1), ""), rounds=3)
    return [scale(row, len(rows) / len(rows[::PART])) for row in found]


def flatten(rows: list[list[int]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns the ids of all texts, and where each text starts."""
    return np.concatenate(rows).astype(np.int64), np.cumsum([0, *map(len, rows)])


def main() -> None:
    """Runs all cases."""
    try:
        import transformers
    except ModuleNotFoundError:
        print("transformers is not installed: pip install 'lmcore-research[train]'")
        return
    print_conditions()
    print(f"transformers {transformers.__version__}")
    texts, tokenizer, origin = find_texts()
    rows = [tokens.ids for tokens in tokenizer.encode(texts) if tokens.ids]
    pairs = sum(len(row) - 1 for row in rows)
    kept = list_rows(rows, tokenizer, f"{pairs} pairs of {len(rows)} {origin} texts")
    kept += mask_rows(rows, tokenizer, f"masks of {len(rows)} {origin} texts")
    if "--dry" not in sys.argv[1:]:
        save("segments", kept)


if __name__ == "__main__":
    main()
