"""The inputs of all Python benches, made anew from seeds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmcore.ops.philox import random_below, random_uniform
from lmcore.worlds import ner

SENTENCES = 10_000


def noisy_rows(count: int = SENTENCES) -> list[dict[str, Any]]:
    """Returns rows in the authors' form whose generations differ from the input almost always.

    Damage hits a tenth of the words with the mix of LLaMA (GNER, its analysis of mismatches);
    rows that are still whole are left out.
    """
    rows = ner.make_world(seed=1, sentences=2 * count, rate=0.1).rows
    damaged = [row for row in rows if row["prediction"] != _whole(row)]
    # Rows read from a file share no objects: neither do these.
    return [json.loads(json.dumps(row)) for row in damaged[:count]]


def mostly_exact_rows(count: int = SENTENCES) -> list[dict[str, Any]]:
    """Returns rows of which four in five are generated without damage."""
    rows = ner.make_world(seed=2, sentences=count, rate=0.01).rows
    return [json.loads(json.dumps(row)) for row in rows]


def write_rows(rows: list[dict[str, Any]], path: Path) -> Path:
    """Writes rows as JSONL and returns the path."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def document(words: int, noise: float, seed: int = 3) -> tuple[list[str], list[str]]:
    """Returns a text of that many words, and the same with a share of its words damaged.

    Damaged words are left out, doubled or replaced, a third each.
    """
    sentences = ner.generate_sentences("en", words // 10 + 10, seed=seed)
    text = [word.lower() for sentence in sentences for word in sentence.words][:words]
    hits = random_uniform(seed, 1, range(words), 1)[:, 0] < noise
    kinds = random_below(seed, 2, range(words), 1, 3)[:, 0]
    damaged: list[str] = []
    for word, hit, kind in zip(text, hits, kinds, strict=True):
        if not hit:
            damaged.append(word)
        elif kind == 1:
            damaged += [word, word]
        elif kind == 2:
            damaged.append(word + "x")
    return text, damaged


def tag_sequences(count: int = SENTENCES) -> tuple[list[list[str]], list[list[str]]]:
    """Returns gold and predicted BIO labels; the predicted ones are damaged generations."""
    from lmcore.ops.matching import match_labels

    rows = noisy_rows(count)
    gold = [row["instance"]["labels"] for row in rows]
    predicted = [
        match_labels(row["instance"]["words"], row["prediction"], row["label_list"]).labels
        for row in rows
    ]
    return gold, predicted


def interactions(
    users: int, item_count: int, shortest: int, mean: float, seed: int = 4
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns offsets `[U + 1]` and items of histories without repeats, both int64.

    Lengths are at least `shortest` and fall off exponentially; some items are far more
    frequent than others.
    """
    tail = -np.log1p(-random_uniform(seed, 1, range(users), 1)[:, 0]) * (mean - shortest + 0.5)
    lengths = np.minimum(shortest + tail.astype(np.int64), item_count // 2)
    draws = random_uniform(seed, 2, range(users), int(lengths.max()) * 3)
    ranks = np.floor(draws**2 * item_count).astype(np.int64) + 1
    rows = []
    for length, row in zip(lengths, ranks, strict=True):
        kept = np.sort(np.unique(row, return_index=True)[1])[:length]
        rows.append(row[kept])
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    return offsets, np.concatenate(rows)


def _whole(row: dict[str, Any]) -> str:
    instance = row["instance"]
    return ner.write_generation(instance["words"], instance["labels"])
