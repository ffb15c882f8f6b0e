"""How similar two texts are: by their character n-grams, or as an encoder sees them."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Sequence

Similarity = Callable[[Sequence[str], Sequence[str]], Sequence[float]]
"""Texts and others to a number for each pair, 1 for equal ones."""

_SIZES = (2, 3)


def ngram_similarity(texts: Sequence[str], others: Sequence[str]) -> list[float]:
    """Returns the cosine of the counts of character bigrams and trigrams of each pair of texts.

    Letters are compared in small form and runs of white space as one space; each text has a space
    at both ends. Needs no model, reads any language, and knows no synonyms.

    Args:
        texts: N texts.
        others: N texts.

    Raises:
        ValueError: lengths that differ.

    Example:
        >>> ngram_similarity(["You fool!", "a"], ["you  fool!", "b"])
        [1.0, 0.0]
    """
    _check_lengths(texts, others)
    # A prompt has many samples: what comes again is counted once.
    counts = {text: _count(text) for text in dict.fromkeys(others)}
    return [_cosine(_count(one), counts[other]) for one, other in zip(texts, others, strict=True)]


def load_similarity(
    folder: str | os.PathLike[str], *, device: str = "auto", batch_size: int = 32
) -> Similarity:
    """Returns the similarity of an encoder: the cosine of the means of its last hidden states.

    Where the folder is one of sentence-transformers whose pooling takes the first token, that
    token's state is taken.

    Args:
        folder: of a model and its tokenizer.
        device: as for `lmcore.training.processes.find_device`.
        batch_size: texts at once; values do not depend on it but for rounding.

    Raises:
        ImportError: transformers is not installed.
        ValueError: the folder holds no such model.

    Example:
        >>> load_similarity("nowhere")
        Traceback (most recent call last):
        ValueError: nowhere: no such folder of a model
    """
    from lmcore.detox.model_scores import embed_texts, load_encoder

    encoder = load_encoder(folder, device)

    def compare(texts: Sequence[str], others: Sequence[str]) -> list[float]:
        _check_lengths(texts, others)
        if not texts:
            return []
        distinct = list(dict.fromkeys([*texts, *others]))
        states = embed_texts(distinct, encoder, batch_size=batch_size)
        place = {text: index for index, text in enumerate(distinct)}
        one = states[[place[text] for text in texts]]
        other = states[[place[text] for text in others]]
        values: list[float] = (one * other).sum(-1).clip(-1, 1).tolist()
        return values

    return compare


def _check_lengths(texts: Sequence[str], others: Sequence[str]) -> None:
    if len(texts) != len(others):
        raise ValueError(
            f"texts and others must have the same length: got {len(texts)} and {len(others)}"
        )


def _count(text: str) -> Counter[str]:
    spaced = f" {' '.join(text.lower().split())} "
    counts: Counter[str] = Counter()
    for size in _SIZES:
        counts.update([spaced[start : start + size] for start in range(len(spaced) - size + 1)])
    return counts


def _cosine(one: Counter[str], other: Counter[str]) -> float:
    if one == other:
        return 1.0
    shared = sum(one[ngram] * other[ngram] for ngram in one.keys() & other.keys())
    lengths = (sum([count * count for count in counts.values()]) for counts in (one, other))
    return shared / math.sqrt(math.prod(lengths))
