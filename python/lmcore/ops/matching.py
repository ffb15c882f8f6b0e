"""Hierarchical Matching: generated `word(label)` text becomes one label per input word."""

from collections.abc import Sequence
from typing import Any

from lmcore import _core
from lmcore.ops._threads import limit_threads
from lmcore.reference.matching import Match, Parsed

__all__ = [
    "Match",
    "Parsed",
    "align_words",
    "match_labels",
    "match_labels_batch",
    "parse_generation",
]


def parse_generation(text: str) -> Parsed:
    """Returns the words and labels of `word_1(label_1) word_2(label_2) ...`.

    A label is `(B-...)` or `(I-...)` up to the next `)` on the same line, or exactly `(O)`;
    the word is the stripped text since the label before. A label without a word is dropped.

    Source: GNER (arXiv 2402.16602), its output format; details of the authors' parser in
    docs/papers/gner.md.

    Args:
        text: what the model wrote.

    Returns:
        Words and labels of equal length, the labels that were dropped, and the text after
        the last label.

    Raises:
        TypeError: `text` is not a str.
        ValueError: `text` holds a lone surrogate.

    Example:
        >>> parse_generation("EU (B-org)  rejects(O)(O) it").words
        ['EU', 'rejects']
    """
    return Parsed(*_core.parse_generation(text))


def align_words(words: Sequence[str], generated: Sequence[str]) -> tuple[str, list[int]]:
    """Returns the condition that held and, for each word, its generated partner or -1.

    Condition 1: both are equal. Condition 2: the generated words are a subsequence of the
    words, taken greedily from the left. Condition 3: their longest common subsequence.
    Words are compared as they are: lower-case them first.

    Source: GNER (arXiv 2402.16602), Hierarchical Matching.

    Args:
        words: n words of the input.
        generated: m generated words.

    Returns:
        `exact`, `subsequence` or `lcs`, and n indices into `generated`.

    Raises:
        TypeError: an argument is not a sequence of str.
        ValueError: a word holds a lone surrogate.

    Example:
        >>> align_words(["a", "a", "b"], ["a", "b"])
        ('subsequence', [0, -1, 1])
    """
    return _core.align_words(words, generated)


def match_labels(
    words: Sequence[str],
    generation: str,
    types: Sequence[str],
    comparison_words: Sequence[str] | None = None,
    *,
    split_generated: bool = False,
) -> Match:
    """Returns one BIO label per word, read from the generated text.

    Source: GNER (arXiv 2402.16602), Hierarchical Matching.

    Args:
        words: n words of the input.
        generation: the generated text, `word(B-type) word(O) ...`.
        types: entity types that may occur; any other label counts as `O`.
        comparison_words: n words to compare with instead of the lower-cased `words`: what a
            tokenizer makes of them (back tokenisation).
        split_generated: cut generated words as `split_words` cuts text; the later pieces of
            a word continue its entity. For words that came from `split_words`.

    Returns:
        A `Match` with n labels and a report of what did not match.

    Raises:
        TypeError: an argument is not a str or sequence of str.
        ValueError: `comparison_words` has another length than `words`, or a text holds a
            lone surrogate.

    Example:
        >>> match_labels(["in", "New", "York"], "new(B-city) york(I-city)", ["city"]).labels
        ['O', 'B-city', 'I-city']
    """
    return _match(_core.match_labels(words, generation, types, comparison_words, split_generated))


def match_labels_batch(
    words: Sequence[Sequence[str]],
    generations: Sequence[str],
    types: Sequence[Sequence[str]],
    comparison_words: Sequence[Sequence[str]] | None = None,
    *,
    threads: int | None = None,
) -> list[Match]:
    """Returns the `Match` of each sentence; the result is the same for any number of threads.

    Args:
        words: one sequence of words per sentence.
        generations: one generated text per sentence.
        types: one list of entity types per sentence.
        comparison_words: as for `match_labels`, per sentence.
        threads: number of threads; all cores if None.

    Raises:
        TypeError: an argument has another type.
        ValueError: the sequences differ in length, or as for `match_labels`.

    Example:
        >>> matches = match_labels_batch([["a"], ["b"]], ["a(B-x)", "c(O)"], [["x"], ["x"]])
        >>> [match.labels for match in matches]
        [['B-x'], ['O']]
    """
    limit = limit_threads(threads)
    rows = _core.match_labels_batch(words, generations, types, comparison_words, limit)
    return [_match(row) for row in rows]


def _match(row: tuple[Any, ...]) -> Match:
    labels, matching, alignment, parsed, *report = row
    return Match(labels, matching, alignment, Parsed(*parsed), *report)
