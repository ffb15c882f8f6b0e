"""ROUGE-1, ROUGE-2 and ROUGE-L of texts: the F measure as `rouge_score` and torchmetrics have it.

Source: Lin, "ROUGE: A Package for Automatic Evaluation of Summaries", 2004. The package
`rouge_score` has had no release since 2022 and brings NLTK and absl; its rule for words and its
order of operations are kept, and a test compares both where it is installed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from lmcore.ops.lcs import longest_common_subsequence

_WORD = re.compile("[a-z0-9]+")


class Rouge(NamedTuple):
    """F measures, from 0 to 1."""

    rouge_1: float
    """Of words."""
    rouge_2: float
    """Of pairs of words."""
    rouge_l: float
    """Of the longest common subsequence of words."""


def compute_rouge(output: str, reference: str) -> Rouge:
    """Returns the F measures of a text against its reference.

    Words are runs of the letters a to z and of digits in the lower-case text, and nothing else:
    texts in other scripts have none, and score 0.

    Args:
        output: the generated text.
        reference: what it should be.

    Example:
        >>> compute_rouge("the cat sat", "The cat, it sat.").rouge_l
        0.8571428571428571
    """
    words, gold = (_WORD.findall(text.lower()) for text in (output, reference))
    if not words or not gold:
        return Rouge(0.0, 0.0, 0.0)
    first, second = (_count_shared(words, gold, n) for n in (1, 2))
    longest = int((longest_common_subsequence(words, gold) >= 0).sum())
    return Rouge(
        _f_measure(first, len(words), len(gold)),
        _f_measure(second, len(words) - 1, len(gold) - 1),
        _f_measure(longest, len(words), len(gold)),
    )


def compute_best_rouge(output: str, references: Sequence[str]) -> Rouge:
    """Returns of each F measure the best one over several references.

    As `score_multi` of `rouge_score` has it: the three may come from three references.

    Args:
        output: the generated text.
        references: what it may be, one or more.

    Raises:
        ValueError: there are no references.

    Example:
        >>> compute_best_rouge("a b c", ["a x", "c b a"])
        Rouge(rouge_1=1.0, rouge_2=0.0, rouge_l=0.4)
    """
    if not references:
        raise ValueError("references must hold at least one text")
    scores = [compute_rouge(output, text) for text in references]
    return Rouge(*map(max, zip(*scores, strict=True)))


def _count_shared(words: Sequence[str], gold: Sequence[str], n: int) -> int:
    own, other = (
        Counter(zip(*(text[k:] for k in range(n)), strict=False)) for text in (words, gold)
    )
    return (own & other).total()


def _f_measure(shared: int, of_words: int, of_gold: int) -> float:
    precision, recall = shared / max(of_words, 1), shared / max(of_gold, 1)
    if precision + recall == 0:
        return 0.0
    return 2 * precision * recall / (precision + recall)
