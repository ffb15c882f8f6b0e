"""BIO labels become entities, and entities become counts under a named scheme."""

from collections.abc import Sequence

from lmcore import _core
from lmcore.ops._threads import limit_threads
from lmcore.reference.entities import SCHEMES, EntityCounts, ErrorKinds, Quality, Span

__all__ = [
    "SCHEMES",
    "EntityCounts",
    "ErrorKinds",
    "Quality",
    "Span",
    "classify_errors",
    "compute_quality",
    "count_entities",
    "count_entities_batch",
    "decode_spans",
    "normalize_text",
]


def decode_spans(labels: Sequence[str], scheme: str = "gner") -> list[Span]:
    """Returns the entities that BIO labels spell, in order.

    The schemes differ in how they read an I- without its B-: `gner` lets it continue and
    rename an open entity of any type, `iob2` takes it for outside, the others start an
    entity with it.

    Args:
        labels: one of `O`, `B-<type>`, `I-<type>` per word.
        scheme: one of `SCHEMES`.

    Returns:
        Non-overlapping spans over words, end exclusive.

    Raises:
        TypeError: `labels` is not a sequence of str.
        ValueError: unknown scheme, or a label of another form.

    Example:
        >>> decode_spans(["I-per", "I-org", "O"])
        [Span(start=0, end=2, type='org')]
    """
    return [Span(*span) for span in _core.decode_spans(labels, scheme)]


def normalize_text(text: str) -> str:
    """Returns lower-case text without ASCII punctuation, articles and extra white space.

    Source: the `normalize_answer` step of the UniversalNER and GNER evaluators.

    Args:
        text: any text without lone surrogates.

    Raises:
        TypeError: `text` is not a str.
        ValueError: `text` holds a lone surrogate.

    Example:
        >>> normalize_text("The  U.S. Army")
        'us army'
    """
    return _core.normalize_text(text)


def count_entities(
    words: Sequence[str], gold: Sequence[str], predicted: Sequence[str], scheme: str = "gner"
) -> EntityCounts:
    """Returns the numbers of gold, predicted and correct entities of one sentence.

    Source: GNER (arXiv 2402.16602), the authors' scorer, and the evaluators that the schemes name.

    Args:
        words: n words.
        gold: n BIO labels.
        predicted: n BIO labels.
        scheme: one of `SCHEMES`.

    Raises:
        TypeError: an argument is not a sequence of str.
        ValueError: unknown scheme, different lengths, or a label of another form.

    Example:
        >>> count_entities(["in", "New", "York"], ["O", "B-x", "I-x"], ["O", "O", "B-x"])
        EntityCounts(gold=1, predicted=1, correct=0)
    """
    return EntityCounts(*_core.count_entities(words, gold, predicted, scheme))


def classify_errors(
    gold: Sequence[str], predicted: Sequence[str], scheme: str = "gner"
) -> ErrorKinds:
    """Returns how many gold entities were missed in each of the paper's three ways.

    Unlabelled: no predicted entity touches it. Noisy: only entities of other types touch it.
    Boundary: an entity of its type touches it, with another extent.

    Source: GNER (arXiv 2402.16602), table 1.

    Args:
        gold: n BIO labels.
        predicted: n BIO labels.
        scheme: one of `SCHEMES`; only its way of reading BIO labels matters here.

    Raises:
        TypeError: an argument is not a sequence of str.
        ValueError: unknown scheme, different lengths, or a label of another form.

    Example:
        >>> classify_errors(["B-x", "I-x", "B-y", "B-z"], ["B-x", "O", "B-z", "O"])
        ErrorKinds(gold=3, unlabelled=1, noisy=1, boundary=1)
    """
    return ErrorKinds(*_core.classify_errors(gold, predicted, scheme))


def count_entities_batch(
    gold: Sequence[Sequence[str]],
    predicted: Sequence[Sequence[str]],
    words: Sequence[Sequence[str]] | None = None,
    scheme: str = "gner",
    *,
    threads: int | None = None,
) -> tuple[EntityCounts, ErrorKinds]:
    """Returns the sums of `count_entities` and `classify_errors` over many sentences.

    Args:
        gold: one sequence of BIO labels per sentence.
        predicted: one sequence of BIO labels per sentence.
        words: one sequence of words per sentence; None will do for the schemes that compare
            positions, all but `gner` and `universalner`.
        scheme: one of `SCHEMES`.
        threads: number of threads; all cores if None. The result does not depend on it.

    Raises:
        TypeError: an argument has another type.
        ValueError: unknown scheme, different lengths, words missing, or a label of another
            form.

    Example:
        >>> gold, predicted = [["B-x", "O"]], [["B-x", "B-x"]]
        >>> counts, errors = count_entities_batch(gold, predicted, scheme="strict")
        >>> compute_quality(counts, "strict")
        Quality(precision=0.5, recall=1.0, f1=0.6666666666666666)
    """
    limit = limit_threads(threads)
    counts, errors = _core.count_entities_batch(words, gold, predicted, scheme, limit)
    return EntityCounts(*counts), ErrorKinds(*errors)


def compute_quality(counts: EntityCounts, scheme: str = "gner") -> Quality:
    """Returns precision, recall and F1 of summed counts, in [0, 1].

    `gner` and `universalner` add 1e-10 to each denominator, as their evaluators do, so that
    a perfect score is 1 - 1e-10; the others define 0 / 0 as 0.

    Args:
        counts: sums over all sentences of a data set.
        scheme: one of `SCHEMES`.

    Raises:
        ValueError: unknown scheme, or a count below 0 or not below 2**64.

    Example:
        >>> compute_quality(EntityCounts(gold=4, predicted=2, correct=2), scheme="strict")
        Quality(precision=1.0, recall=0.5, f1=0.6666666666666666)
    """
    return Quality(*_core.compute_quality(*counts, scheme))
