"""Scores of generated texts against their references, as the authors' logs have them.

| score | of what |
| --- | --- |
| `bleu_n` | mean of NLTK's sentence BLEU, smoothing method 4; words by `str.split` |
| `rouge_1`, `rouge_2`, `rouge_l` | mean F measure (`lmcore.diffusion.rouge`) |
| `distinct_n` | distinct n-grams in proportion to all, over all outputs |
| `repetition_n_kK` | share of outputs in which some n-gram occurs more than K times |
| `self_bleu_n` | BLEU of up to 1,000 outputs against all others, method 1; their sum / 1,000 |
| `entropy` | of the words of all outputs, in nats |
| `sacrebleu` | corpus BLEU of the package `sacrebleu` (extra `score`), with its signature |

ROUGE, distinct, repetition and entropy take the words of NLTK's `WordPunctTokenizer`: runs of
letters, digits and "_", and runs of anything else but white space. Self-BLEU takes GPT-2's tokens
(extra `score`), and a sample of its own for each n. Mauve is not built.

A text that has several references is held against all of them: BLEU, of sentences and of the
corpus, clips n-grams by the largest count in any reference and takes the nearest length; of each
ROUGE the best F measure counts, as `score_multi` of `rouge_score` has it.
"""

from __future__ import annotations

import os
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from lmcore._extras import optional_imports
from lmcore._streams import name_input
from lmcore.diffusion.generations import read_generations
from lmcore.diffusion.gpt2_tokens import load_gpt2_tokens
from lmcore.diffusion.rouge import compute_best_rouge
from lmcore.ops.ngrams import count_ngrams, self_bleu, sentence_bleu

# As the authors have them.
ORDERS = (1, 2, 3, 4)
REPEATS = (2, 4)
SELF_BLEU_ORDERS = (1, 2, 3, 4, 5)
SELF_BLEU_SAMPLE = 1000

_WORD_OR_PUNCTUATION = re.compile(r"\w+|[^\w\s]+")

Values = dict[str, float | str | None]
More = Callable[[list[str], list[list[str]]], dict[str, float]]


@dataclass(kw_only=True, slots=True, frozen=True)
class FileScores:
    """What a file of generated texts scored."""

    path: str
    """Of the file, as it was given."""
    values: Values
    """Of each score; None where it is not defined or its package is not installed."""
    rows: int
    """Rows that were scored."""
    empty_rows: int
    """Rows without output or reference, which the authors leave out, too."""
    first_empty: str | None
    """File and line of the first of them."""

    def to_dict(self) -> dict[str, Any]:
        """Returns the scores in one level, for JSON."""
        return {**self.values, "rows": self.rows}


def score_file(
    path: str | os.PathLike[str], *, threads: int | None = None, more: Sequence[More] = ()
) -> FileScores:
    r"""Returns the scores of a file of generated texts.

    The strings "[CLS]" and "[SEP]" and space around a text are removed; rows whose output or
    reference is empty then are left out and counted.

    Args:
        path: JSONL with `recover`, `reference` and `source`, and with `references` where there are
            several; `.gz` is decompressed, `-` is standard input.
        threads: number of threads; all cores if None. The result does not depend on it.
        more: other scores of outputs and their references, by name, such as those of models.

    Raises:
        OSError: the file cannot be read.
        ValueError: it holds no row that can be scored, or one that cannot be used, such as one of
            whose references some are empty.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
        ...     row = '{"recover": "[CLS] a b [SEP]", "reference": "a b c", "source": "c"}'
        ...     _ = file.write(row), file.flush()
        ...     scores = score_file(file.name)
        >>> scores.rows, round(scores.values["bleu_1"], 4), scores.values["distinct_2"]
        (1, 0.6065, 1.0)
    """
    outputs, references, first_empty, total = [], [], None, 0
    for row in read_generations(path):
        total += 1
        output, texts = row.value["recover"].strip(), [text.strip() for text in row.references]
        if output and any(texts):
            if not all(texts):
                problem = f"references[{texts.index('')}]: empty, and others are not"
                raise ValueError(f"{name_input(path)}:{row.line}: {problem}")
            outputs.append(output)
            references.append(texts)
        elif first_empty is None:
            first_empty = f"{name_input(path)}:{row.line}"
    if not outputs:
        raise ValueError(
            f"{name_input(path)}: none of {total} rows has both an output and a reference"
        )
    values = score_texts(outputs, references, threads=threads)
    for compute in more:
        values |= compute(outputs, references)
    return FileScores(
        path=os.fspath(path),
        values=values,
        rows=len(outputs),
        empty_rows=total - len(outputs),
        first_empty=first_empty,
    )


def score_texts(
    outputs: Sequence[str],
    references: Sequence[str | Sequence[str]],
    *,
    threads: int | None = None,
) -> Values:
    """Returns the scores that need no model, by name.

    Source: Bridge-Gap Diffusion (arXiv 2305.04465), its evaluator; the table above says what each
    of them is.

    Args:
        outputs: N generated texts.
        references: N times what it should be: a text, or several.
        threads: number of threads; all cores if None. The result does not depend on it.

    Raises:
        ValueError: lengths that differ, no texts, an output without references, or a lone
            surrogate.

    Example:
        >>> values = score_texts(["a b", "a c"], ["a b", "a d"])
        >>> values["bleu_1"], values["distinct_1"], round(values["entropy"], 4)
        (0.75, 0.75, 1.0397)
        >>> score_texts(["a b", "a c"], ["a b", ["a d", "c a"]])["bleu_1"]
        1.0
    """
    if not outputs:
        raise ValueError("outputs must hold at least one text")
    several = list_references(references)
    bleu = sentence_bleu(outputs, several, threads=threads)
    words = [join_words(text) for text in outputs]
    gold = [[join_words(text) for text in texts] for texts in several]
    rouge = [compute_best_rouge(*pair) for pair in zip(words, gold, strict=True)]
    means = [sum(scores) / len(rouge) for scores in zip(*rouge, strict=True)]
    return {
        # Each a row of its own, which numpy adds as it does the authors' list.
        **{f"bleu_{n}": float(bleu[:, n - 1].copy().mean()) for n in ORDERS},
        **dict(zip(("rouge_1", "rouge_2", "rouge_l"), means, strict=True)),
        **_count_diversity(words),
        **_compute_self_bleu(outputs),
        **_compute_sacrebleu(outputs, several),
    }


def list_references(references: Sequence[str | Sequence[str]]) -> list[list[str]]:
    """Returns the references of each output as a list.

    Args:
        references: of each output a text, or several.

    Example:
        >>> list_references(["a b", ("c", "d")])
        [['a b'], ['c', 'd']]
    """
    return [[texts] if isinstance(texts, str) else [*texts] for texts in references]


def join_words(text: str) -> str:
    """Returns the words and the punctuation of a text, with single spaces between them.

    Args:
        text: any text.

    Example:
        >>> join_words("don't  stop...")
        "don ' t stop ..."
    """
    return " ".join(_WORD_OR_PUNCTUATION.findall(text))


def _count_diversity(words: list[str]) -> Values:
    import numpy as np

    counts = count_ngrams(words, max(ORDERS))
    values: Values = {}
    for n, occurrences in zip(ORDERS, counts.occurrences, strict=True):
        total = int(occurrences.sum())
        values[f"distinct_{n}"] = len(occurrences) / total if total else None
    for k in REPEATS:
        for n in ORDERS:
            repeated = int((counts.most[:, n - 1] > k).sum())
            values[f"repetition_{n}_k{k}"] = repeated / len(words)
    shares = counts.occurrences[0] / counts.occurrences[0].sum()
    values["entropy"] = float(-(shares * np.log(shares)).sum()) + 0.0
    return values


def _compute_self_bleu(outputs: Sequence[str]) -> Values:
    names = [f"self_bleu_{n}" for n in SELF_BLEU_ORDERS]
    cut = load_gpt2_tokens()
    if cut is None or len(outputs) < 2:  # there is no other text
        return dict.fromkeys(names)
    scores = self_bleu([cut(text) for text in outputs], order=max(SELF_BLEU_ORDERS))
    # One generator for all orders: each has a sample of its own.
    draws = random.Random(0)
    size = min(len(outputs), SELF_BLEU_SAMPLE)
    values: Values = {}
    for name, column in zip(names, scores.T, strict=True):
        sample = draws.sample(range(len(outputs)), size)
        values[name] = sum(column[sample].tolist()) / SELF_BLEU_SAMPLE
    return values


def _compute_sacrebleu(outputs: Sequence[str], references: list[list[str]]) -> Values:
    try:
        with optional_imports():
            from sacrebleu.metrics.bleu import BLEU
    except ImportError:
        return {"sacrebleu": None, "sacrebleu_signature": None}
    metric = BLEU()
    # A stream holds the k-th reference of each output; None where an output has fewer.
    streams = [list(stream) for stream in zip_longest(*references)]
    score = metric.corpus_score(list(outputs), streams).score
    return {"sacrebleu": score, "sacrebleu_signature": str(metric.get_signature())}
