"""Hierarchical Matching: generated `word(label)` text becomes one label per input word.

Source: GNER (arXiv 2402.16602), output format and Hierarchical Matching, and the behaviour of
the authors' evaluator where the paper is silent (docs/papers/gner.md lists each case).
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from ._arguments import same_length
from .lcs import longest_common_subsequence
from .words import split_words

# The label of a pair: (B-...), (I-...) up to the next ")" on the same line, or exactly (O).
_LABEL = re.compile(r"\((B-.*?|I-.*?|O)\)")


class Parsed(NamedTuple):
    """What was read from a generated text, and what could not be used."""

    words: list[str]
    labels: list[str]
    dropped_labels: list[str]
    """Labels that had no word before them."""
    trailing_text: str
    """Text after the last label, stripped."""


class Match(NamedTuple):
    """One label per input word, and how it was found."""

    labels: list[str]
    """One BIO label per input word."""
    matching: str
    """The condition that held: `exact`, `subsequence` or `lcs`."""
    alignment: list[int]
    """For each input word the index of its generated word, or -1."""
    parsed: Parsed
    omitted: list[int]
    """Input words that were not generated."""
    added: list[int]
    """Generated words that are not in the input."""
    substituted: list[tuple[int, int]]
    """(input word, generated word that stands in its place)."""
    invalid_labels: list[int]
    """Generated words whose label is not in the label list; they count as `O`."""


def parse_generation(text: str) -> Parsed:
    """Returns the words and labels of `word_1(label_1) word_2(label_2) ...`.

    Args:
        text: what the model wrote.

    Returns:
        Words and labels of equal length, stripped; labels as they were written.

    Example:
        >>> parse_generation("EU (B-org)  rejects(O)(O) it").words
        ['EU', 'rejects']
    """
    words, labels, dropped, end = [], [], [], 0
    for found in _LABEL.finditer(text):
        word, label = text[end : found.start()].strip(), found[1].strip()
        if word:
            words.append(word)
            labels.append(label)
        else:
            dropped.append(label)
        end = found.end()
    return Parsed(words, labels, dropped, text[end:].strip())


def align_words(words: Sequence[str], generated: Sequence[str]) -> tuple[str, list[int]]:
    """Returns the condition that held and, for each word, its generated partner or -1.

    Condition 1: both are equal. Condition 2: the generated words are a subsequence of
    the words, taken greedily from the left. Condition 3: their longest common
    subsequence. Words are compared as they are: lower-case them first.

    Args:
        words: n words of the input.
        generated: m generated words.

    Returns:
        `exact`, `subsequence` or `lcs`, and n indices into `generated`.

    Example:
        >>> align_words(["a", "a", "b"], ["a", "b"])
        ('subsequence', [0, -1, 1])
    """
    if list(words) == list(generated):
        return "exact", list(range(len(words)))
    alignment = [-1] * len(words)
    matched = 0
    for i, word in enumerate(words):
        if matched == len(generated):
            break
        if word == generated[matched]:
            alignment[i] = matched
            matched += 1
    if matched == len(generated):
        return "subsequence", alignment
    return "lcs", longest_common_subsequence(words, generated)


def report_differences(
    alignment: Sequence[int], generated_count: int
) -> tuple[list[int], list[int], list[tuple[int, int]]]:
    """Returns omitted words, added words and substituted pairs of an alignment.

    Between two neighbouring matches stand p unmatched words and q unmatched generated
    words: the first min(p, q) of each are substitutions, the rest omissions or additions.

    Args:
        alignment: for each word the index of its generated word, or -1.
        generated_count: number of generated words.

    Returns:
        Indices of omitted words, indices of added generated words, and pairs of both.

    Example:
        >>> report_differences([0, -1, 2], 4)
        ([], [3], [(1, 1)])
    """
    omitted: list[int] = []
    added: list[int] = []
    substituted: list[tuple[int, int]] = []
    word, generated = 0, 0
    for i, j in [*enumerate(alignment), (len(alignment), generated_count)]:
        if j == -1:
            continue
        pairs = min(i - word, j - generated)
        substituted += [(word + k, generated + k) for k in range(pairs)]
        omitted += range(word + pairs, i)
        added += range(generated + pairs, j)
        word, generated = i + 1, j + 1
    return omitted, added, substituted


def match_labels(
    words: Sequence[str],
    generation: str,
    types: Sequence[str],
    comparison_words: Sequence[str] | None = None,
    *,
    split_generated: bool = False,
) -> Match:
    """Returns one BIO label per word, read from the generated text.

    Args:
        words: n words of the input.
        generation: the generated text, `word(B-type) word(O) ...`.
        types: entity types that may occur; any other label counts as `O`.
        comparison_words: n words to compare with instead of the lower-cased `words`:
            what a tokenizer makes of them (back tokenisation).
        split_generated: cut generated words as `split_words` cuts text; the later pieces of
            a word continue its entity.

    Returns:
        A `Match` with n labels.

    Raises:
        ValueError: `comparison_words` has another length than `words`.

    Example:
        >>> match_labels(["in", "New", "York"], "new(B-city) york(I-city)", ["city"]).labels
        ['O', 'B-city', 'I-city']
    """
    if comparison_words is not None and len(comparison_words) != len(words):
        raise ValueError(
            "comparison_words must have the same length as words: "
            f"got {len(comparison_words)} and {len(words)}"
        )
    parsed = parse_generation(generation)
    if split_generated:
        parsed = _split_generated(parsed)
    valid = {"O", *(prefix + label for label in types for prefix in ("B-", "I-"))}
    invalid = [k for k, label in enumerate(parsed.labels) if label not in valid]
    labels = [label if label in valid else "O" for label in parsed.labels]

    compared = [w.lower() for w in words] if comparison_words is None else list(comparison_words)
    matching, alignment = align_words(compared, [w.lower() for w in parsed.words])
    omitted, added, substituted = report_differences(alignment, len(parsed.words))
    return Match(
        labels=[labels[j] if j != -1 else "O" for j in alignment],
        matching=matching,
        alignment=alignment,
        parsed=parsed,
        omitted=omitted,
        added=added,
        substituted=substituted,
        invalid_labels=invalid,
    )


def match_labels_batch(
    words: Sequence[Sequence[str]],
    generations: Sequence[str],
    typess: Sequence[Sequence[str]],
    comparison_words: Sequence[Sequence[str]] | None = None,
) -> list[Match]:
    """Returns the `Match` of each sentence.

    Args:
        words: one sequence of words per sentence.
        generations: one generated text per sentence.
        typess: one list of entity types per sentence.
        comparison_words: as for `match_labels`, per sentence.

    Raises:
        ValueError: the sequences differ in length, or as for `match_labels`.

    Example:
        >>> matches = match_labels_batch([["a"], ["b"]], ["a(B-x)", "c(O)"], [["x"], ["x"]])
        >>> [match.labels for match in matches]
        [['B-x'], ['O']]
    """
    columns = {"generations": generations, "typess": typess}
    if comparison_words is not None:
        columns["comparison_words"] = comparison_words
    for name, column in columns.items():
        same_length(**{name: column, "words": words})
    matches = []
    for row, arguments in enumerate(zip(words, *columns.values(), strict=True)):
        try:
            matches.append(match_labels(*arguments))
        except ValueError as error:
            raise ValueError(f"sentence [{row}]: {error}") from None
    return matches


def _split_generated(parsed: Parsed) -> Parsed:
    """Returns the generated words cut into pieces; later pieces continue the entity."""
    words, labels = [], []
    for word, label in zip(parsed.words, parsed.labels, strict=True):
        for k, (start, end) in enumerate(split_words(word)):
            words.append(word[start:end])
            labels.append(f"I-{label[2:]}" if k and label != "O" else label)
    return parsed._replace(words=words, labels=labels)
