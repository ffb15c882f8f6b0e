"""BIO labels become entities, and entities become counts under a named scheme.

Source: GNER (arXiv 2402.16602), the authors' scorer, for `gner`; the
UniversalNER evaluator for `universalner`; conlleval and seqeval for `conll` and `iob2`.

| scheme        | I- without a B- before it    | I- of another type          | an entity is       |
| ------------- | ---------------------------- | --------------------------- | ------------------ |
| `gner`        | starts an entity             | continues and renames it    | (text, type), set  |
| `universalner`| starts an entity             | starts an entity            | text per type, set |
| `strict`      | starts an entity             | starts an entity            | (start, end, type) |
| `conll`       | the same as `strict`: conlleval and seqeval's default mode      |||
| `iob2`        | is outside                   | is outside, ends the entity | (start, end, type) |

Texts are compared after `normalize_text`; `gner` normalises the types too.
"""

import re
import string
from collections.abc import Sequence
from typing import NamedTuple

from lmcore.reference._arguments import in_range, one_of, same_length

SCHEMES = ("gner", "universalner", "strict", "conll", "iob2")

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_EPSILON = 1e-10


class Span(NamedTuple):
    """Words start to end (exclusive) are an entity of this type."""

    start: int
    end: int
    type: str


class EntityCounts(NamedTuple):
    """How many entities are in the gold labels, in the predicted ones, and in both."""

    gold: int
    predicted: int
    correct: int


class ErrorKinds(NamedTuple):
    """What became of the gold entities, by position (GNER, table 1)."""

    gold: int
    unlabelled: int
    """No predicted entity touches it."""
    noisy: int
    """Only entities of other types touch it."""
    boundary: int
    """An entity of its type touches it, but with another extent."""


class Quality(NamedTuple):
    """Precision, recall and their harmonic mean, each in [0, 1]."""

    precision: float
    recall: float
    f1: float


def decode_spans(labels: Sequence[str], scheme: str = "gner") -> list[Span]:
    """Returns the entities that BIO labels spell, in order.

    Args:
        labels: one of `O`, `B-<type>`, `I-<type>` per word.
        scheme: one of `SCHEMES`; says how an I- without its B- is read.

    Returns:
        Non-overlapping spans over words, end exclusive.

    Raises:
        ValueError: unknown scheme, or a label of another form.

    Example:
        >>> decode_spans(["I-per", "I-org", "O"])
        [Span(start=0, end=2, type='org')]
        >>> decode_spans(["I-per", "I-org", "O"], scheme="conll")
        [Span(start=0, end=1, type='per'), Span(start=1, end=2, type='org')]
    """
    one_of("scheme", scheme, SCHEMES)
    return _decode(labels, scheme, "labels")


def normalize_text(text: str) -> str:
    """Returns lower-case text without ASCII punctuation, articles and extra white space.

    Source: the `normalize_answer` step of the UniversalNER and GNER evaluators.

    Args:
        text: any text.

    Example:
        >>> normalize_text("The  U.S. Army")
        'us army'
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def count_entities(
    words: Sequence[str], gold: Sequence[str], predicted: Sequence[str], scheme: str = "gner"
) -> EntityCounts:
    """Returns the numbers of gold, predicted and correct entities of one sentence.

    Args:
        words: n words.
        gold: n BIO labels.
        predicted: n BIO labels.
        scheme: one of `SCHEMES`.

    Raises:
        ValueError: unknown scheme, different lengths, or a label of another form.

    Example:
        >>> count_entities(["in", "New", "York"], ["O", "B-x", "I-x"], ["O", "O", "B-x"])
        EntityCounts(gold=1, predicted=1, correct=0)
    """
    one_of("scheme", scheme, SCHEMES)
    same_length(words=words, gold=gold)
    same_length(words=words, predicted=predicted)
    wanted = _entities(words, gold, scheme, "gold")
    found = _entities(words, predicted, scheme, "predicted")
    return EntityCounts(len(wanted), len(found), sum(entity in wanted for entity in found))


def classify_errors(
    gold: Sequence[str], predicted: Sequence[str], scheme: str = "gner"
) -> ErrorKinds:
    """Returns how many gold entities were missed in each of the paper's three ways.

    Args:
        gold: n BIO labels.
        predicted: n BIO labels.
        scheme: one of `SCHEMES`; only its way of reading BIO labels matters here.

    Raises:
        ValueError: unknown scheme, different lengths, or a label of another form.

    Example:
        >>> classify_errors(["B-x", "I-x", "B-y", "B-z"], ["B-x", "O", "B-z", "O"])
        ErrorKinds(gold=3, unlabelled=1, noisy=1, boundary=1)
    """
    one_of("scheme", scheme, SCHEMES)
    same_length(gold=gold, predicted=predicted)
    wanted = _decode(gold, scheme, "gold")
    found = _decode(predicted, scheme, "predicted")
    unlabelled = noisy = boundary = 0
    for entity in wanted:
        touching = [s for s in found if s.start < entity.end and entity.start < s.end]
        if entity in touching:
            continue
        if not touching:
            unlabelled += 1
        elif any(s.type == entity.type for s in touching):
            boundary += 1
        else:
            noisy += 1
    return ErrorKinds(len(wanted), unlabelled, noisy, boundary)


def count_entities_batch(
    gold: Sequence[Sequence[str]],
    predicted: Sequence[Sequence[str]],
    words: Sequence[Sequence[str]] | None = None,
    scheme: str = "gner",
) -> tuple[EntityCounts, ErrorKinds]:
    """Returns the sums of `count_entities` and `classify_errors` over many sentences.

    Args:
        gold: BIO labels of each sentence.
        predicted: BIO labels of each sentence.
        words: words of each sentence; schemes that compare positions alone need none.
        scheme: one of `SCHEMES`.

    Raises:
        ValueError: unknown scheme, different lengths, a label of another form, or a scheme
            that compares texts without words.

    Example:
        >>> count_entities_batch([["B-x"], ["O"]], [["B-x"], ["B-x"]], [["a"], ["b"]])[0]
        EntityCounts(gold=1, predicted=2, correct=1)
    """
    one_of("scheme", scheme, SCHEMES)
    same_length(gold=gold, predicted=predicted)
    if words is not None:
        same_length(words=words, gold=gold)
    elif scheme in ("gner", "universalner"):
        raise ValueError("words are needed: this scheme compares the texts of entities")
    counts, kinds = [(0, 0, 0)], [(0, 0, 0, 0)]
    for row, (wanted, found) in enumerate(zip(gold, predicted, strict=True)):
        given = [""] * len(wanted) if words is None else words[row]
        try:
            counts.append(count_entities(given, wanted, found, scheme))
            kinds.append(classify_errors(wanted, found, scheme))
        except ValueError as error:
            raise ValueError(f"sentence [{row}]: {error}") from None
    sums = (map(sum, zip(*column, strict=True)) for column in (counts, kinds))
    return EntityCounts(*next(sums)), ErrorKinds(*next(sums))


def compute_quality(counts: EntityCounts, scheme: str = "gner") -> Quality:
    """Returns precision, recall and F1 of summed counts.

    `gner` and `universalner` add 1e-10 to each denominator, as their evaluators do, so
    that a perfect score is 1 - 1e-10; the others define 0 / 0 as 0.

    Args:
        counts: sums over all sentences of a data set.
        scheme: one of `SCHEMES`.

    Raises:
        ValueError: unknown scheme, or a count below 0 or not below 2**64.

    Example:
        >>> compute_quality(EntityCounts(gold=4, predicted=2, correct=2), scheme="strict")
        Quality(precision=1.0, recall=0.5, f1=0.6666666666666666)
    """
    one_of("scheme", scheme, SCHEMES)
    for name, count in counts._asdict().items():
        in_range(name, count, 0, 1 << 64)
    epsilon = _EPSILON if scheme in ("gner", "universalner") else 0.0

    def ratio(part: float, whole: float) -> float:
        return part / (whole + epsilon) if whole + epsilon else 0.0

    precision, recall = ratio(counts.correct, counts.predicted), ratio(counts.correct, counts.gold)
    return Quality(precision, recall, ratio(2 * precision * recall, precision + recall))


def _decode(labels: Sequence[str], scheme: str, name: str) -> list[Span]:
    spans: list[Span] = []
    start, kind = -1, ""
    for i, label in enumerate([*labels, "O"]):
        if label != "O" and label[:2] not in ("B-", "I-"):
            raise ValueError(f"{name}[{i}] must be O, B-<type> or I-<type>: got {label!r}")
        inside = label[:2] == "I-"
        renames = inside and scheme == "gner"
        if start >= 0 and not (inside and (label[2:] == kind or renames)):
            spans.append(Span(start, i, kind))
            start = -1
        if label == "O":
            continue
        if start < 0 and not (inside and scheme == "iob2"):
            start = i
        if start >= 0:
            kind = label[2:]
    return spans


def _entities(
    words: Sequence[str], labels: Sequence[str], scheme: str, name: str
) -> list[tuple[object, ...]]:
    """Returns the comparable entities of one sentence, without repetition, in order."""
    entities: dict[tuple[object, ...], None] = {}
    for span in _decode(labels, scheme, name):
        text = normalize_text(" ".join(words[span.start : span.end]))
        if scheme == "gner":
            entities[text, normalize_text(span.type)] = None
        elif scheme == "universalner":
            entities[text, span.type] = None
        else:
            entities[span] = None
    return list(entities)
