"""N-grams of words: BLEU of sentences, the candidate that others agree with most, and counts.

Sources: Papineni et al. (ACL 2002) for BLEU, Chen and Cherry (WMT 2014) for its smoothing, both as
NLTK computes them; the evaluator of Bridge-Gap Diffusion (arXiv 2305.04465) for the rest.

Letters follow Papineni: a candidate of c words, the reference length r, the modified precisions
p_n with weights w_n = 1 / N, the brevity penalty BP. `s_n` are the clipped matches, so that
p_n = s_n / max(1, c - n + 1). The words of a text are what `str.split` makes of it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from lmcore.reference._arguments import id_in_range, in_range, one_of, same_length

MOST_ORDER = 16
SMOOTHINGS = ("method1", "method4")

Grams = Counter[tuple[str, ...]]


def sentence_bleu(
    hypotheses: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    order: int = 4,
    smoothing: str = "method4",
) -> list[list[float]]:
    """Returns BLEU-1 to BLEU-N of each hypothesis against its references.

    Args:
        hypotheses: texts.
        references: of each hypothesis one text or more.
        order: N.
        smoothing: one of `SMOOTHINGS`.

    Raises:
        ValueError: lengths that differ, a hypothesis without references, or a setting that does
            not exist.

    Example:
        >>> sentence_bleu(["a b c d"], [["a b c d"]])
        [[1.0, 1.0, 1.0, 1.0]]
    """
    _check(order, smoothing)
    same_length(hypotheses=hypotheses, references=references)
    for row, texts in enumerate(references):
        _check_texts("references", row, texts)
    return [
        _bleu(hypothesis.split(), [text.split() for text in texts], order, smoothing)
        for hypothesis, texts in zip(hypotheses, references, strict=True)
    ]


def self_bleu(
    texts: Sequence[str], rows: Sequence[int], *, order: int = 5, smoothing: str = "method1"
) -> list[list[float]]:
    """Returns BLEU-1 to BLEU-N of some of the texts, each against all others.

    Args:
        texts: two or more.
        rows: which of them.
        order: N.
        smoothing: one of `SMOOTHINGS`.

    Raises:
        IndexError: a row that does not exist.
        ValueError: fewer than two texts, or a setting that does not exist.

    Example:
        >>> self_bleu(["a", "a", "b"], [0, 2], order=1)
        [[1.0], [0.0]]
    """
    _check(order, smoothing)
    in_range("the number of texts", len(texts), 2)
    for index, row in enumerate(rows):
        id_in_range("rows", index, row, 0, len(texts))
    words = [text.split() for text in texts]
    return [_bleu(words[k], words[:k] + words[k + 1 :], order, smoothing) for k in rows]


def choose_candidates(
    groups: Sequence[Sequence[str]], *, order: int = 4, smoothing: str = "method4"
) -> tuple[list[int], list[float]]:
    """Returns the candidate of each group that the others agree with most, and all sums.

    The sum of a candidate is that of its BLEU-N against each of the others as the only reference,
    added as numpy adds a row in which its own place is zero. The first of the largest wins.

    Args:
        groups: of each source the candidates.
        order: N.
        smoothing: one of `SMOOTHINGS`.

    Raises:
        ValueError: a group without candidates, or a setting that does not exist.

    Example:
        >>> choose_candidates([["a b", "a c", "a b c"]], order=1)
        ([2], [1.1065306597126334, 1.1065306597126334, 1.3333333333333333])
    """
    import numpy as np

    _check(order, smoothing)
    best, sums = [], []
    for group, texts in enumerate(groups):
        _check_texts("groups", group, texts)
        words = [text.split() for text in texts]
        agreement = [
            [0.0 if i == j else _bleu(c, [r], order, smoothing)[-1] for j, r in enumerate(words)]
            for i, c in enumerate(words)
        ]
        row = [float(np.sum(scores)) for scores in agreement]
        best.append(row.index(max(row)))
        sums += row
    return best, sums


def count_ngrams(texts: Sequence[str], order: int = 4) -> tuple[list[list[int]], list[list[int]]]:
    """Returns how often each n-gram occurs for n = 1 to N, and the most frequent of each text.

    Args:
        texts: any number.
        order: N.

    Returns:
        For each n the occurrences of n-grams in the order of first appearance, and for each text
        and n the occurrences in it of its most frequent n-gram.

    Raises:
        ValueError: an order that does not exist.

    Example:
        >>> count_ngrams(["a b a", "b"], order=2)
        ([[2, 2], [1, 1]], [[2, 1], [1, 0]])
    """
    _check(order)
    counts = [[_grams(text.split(), n) for n in range(1, order + 1)] for text in texts]
    totals: list[Grams] = [Counter() for _ in range(order)]
    for row in counts:
        for total, grams in zip(totals, row, strict=True):
            total.update(grams)
    most = [[max(grams.values(), default=0) for grams in row] for row in counts]
    return [list(total.values()) for total in totals], most


def _grams(words: Sequence[str], n: int) -> Grams:
    return Counter(tuple(words[k : k + n]) for k in range(len(words) - n + 1))


def _bleu(
    candidate: list[str], references: list[list[str]], order: int, smoothing: str
) -> list[float]:
    c = len(candidate)
    r = min((len(words) for words in references), key=lambda length: (abs(length - c), length))
    p = []
    for n in range(1, order + 1):
        most: Grams = Counter()
        for words in references:
            most |= _grams(words, n)
        s_n = (_grams(candidate, n) & most).total()
        p.append((s_n, max(1, c - n + 1)))
    if p[0][0] == 0:
        return [0.0] * order
    penalty = 1.0 if c > r else math.exp(1 - r / c)
    logs = [math.log(p_n) if p_n > 0 else None for p_n in _smooth(p, c, smoothing)]
    return [
        penalty * math.exp(math.fsum(1 / n * log for log in logs[:n] if log is not None))
        for n in range(1, order + 1)
    ]


def _smooth(p: list[tuple[int, int]], c: int, smoothing: str) -> list[float]:
    """The precisions with a value in place of zero: Chen and Cherry, methods 1 and 4."""
    smoothed, zeros = [], 0
    for s_n, total in p:
        if s_n == 0 and smoothing == "method1":
            smoothed.append(0.1 / total)
        elif s_n == 0 and c > 1:
            zeros += 1
            smoothed.append(1 / (2**zeros * 5 / math.log(c)) / total)
        else:
            smoothed.append(s_n / total)
    return smoothed


def _check(order: int, smoothing: str = SMOOTHINGS[0]) -> None:
    in_range("order", order, 1, most=MOST_ORDER)
    one_of("smoothing", smoothing, SMOOTHINGS)


def _check_texts(name: str, row: int, texts: Sequence[str]) -> None:
    if not texts:
        raise ValueError(f"{name}[{row}] must hold at least one text")
