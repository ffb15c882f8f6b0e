"""Rows of predictions: what a usable row is, the counts that rows add up to, and aligned rows.

A row is a JSON object with `types` (`label_list` to the authors), `prediction`, and `words` and
`labels` in its `instance` or at its top; `dataset` names its data set. This is the form of the
authors' prediction files (GNER, arXiv 2402.16602).
"""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ._rows import Row, read_example, read_row, read_row_to_align
from .entities import EntityCounts, ErrorKinds, classify_errors, count_entities, decode_spans
from .matching import match_labels
from .words import locate_words, split_words

__all__ = [
    "AlignedRow",
    "ConditionCounts",
    "DatasetCounts",
    "DifferenceCounts",
    "Entity",
    "Evaluation",
    "GeneratedWord",
    "Row",
    "Substitution",
    "Word",
    "WorstSentence",
    "align_row",
    "read_example",
    "read_row",
    "score_examples",
    "score_files",
]

_LISTED_BAD_ROWS = 1000
_NAMED_LABELS = 1000
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class ConditionCounts(NamedTuple):
    """Rows by the condition that matched them."""

    exact: int
    """The generated words equal the input words."""
    subsequence: int
    """They are a subsequence of the input words."""
    lcs: int
    """Neither: the longest common subsequence was taken."""


class DifferenceCounts(NamedTuple):
    """Words that found no partner."""

    omitted: int
    """Input words that were not generated."""
    added: int
    """Generated words that are not in the input."""
    substituted: int
    """Input words with another generated word in their place."""


@dataclass(kw_only=True, slots=True, frozen=True)
class WorstSentence:
    """A sentence with wrong entities."""

    wrong: int
    """Gold entities that were missed plus predicted ones that are wrong."""
    path: str
    """The file it came from; empty for rows in memory."""
    row: int
    """Line of the file, from 1, or place in the list, from 0."""
    words: tuple[str, ...]
    labels: tuple[str, ...]
    """Gold BIO labels, one per word."""
    predicted: tuple[str, ...]
    """Predicted BIO labels, one per word."""
    prediction: str
    """The generated text."""
    matching: str
    """`exact`, `subsequence` or `lcs`."""
    alignment: tuple[int, ...]
    """For each word the index of its generated word, or -1."""


class DatasetCounts(NamedTuple):
    """The sums over the rows of one data set."""

    rows: int
    words: int
    conditions: ConditionCounts
    empty_predictions: int
    """Rows whose generated text holds no labelled word; every word counts as `O`."""
    first_empty: tuple[str, int] | None
    """The first of them that has words: its file, or nothing, and its line or place in the list."""
    differences: DifferenceCounts
    invalid_labels: int
    """Generated labels outside the row's types; they count as `O`."""
    named_invalid_labels: dict[str, int]
    """The first 1000 of them by name, sorted, with how often each stood there."""
    entities: EntityCounts
    """Gold, predicted and correct entities."""
    errors: ErrorKinds
    """Gold entities missed, by the paper's three kinds and by position."""
    types: tuple[str, ...]
    """Every entity type that a row allowed, sorted."""
    worst: tuple[WorstSentence, ...]
    """The sentences with the most wrong entities; of equal ones those that came first."""


class Evaluation(NamedTuple):
    """The sums over rows, per data set."""

    datasets: dict[str, DatasetCounts]
    """By name, in the order of their first rows."""
    bad_rows: int
    """Rows that were skipped because they could not be used."""
    listed_bad_rows: tuple[str, ...]
    """Place and problem of the first 1000 of them."""


@dataclass(kw_only=True, slots=True, frozen=True)
class Entity:
    """Part of a text that names something: `text == source[start:end]`."""

    start: int
    """First character."""
    end: int
    """Character after the last."""
    type: str
    """Entity type, one of the given types."""
    text: str
    """The characters from start to end."""


@dataclass(kw_only=True, slots=True, frozen=True)
class Word:
    """A word of the input."""

    index: int
    word: str


@dataclass(kw_only=True, slots=True, frozen=True)
class GeneratedWord:
    """A generated word with its label."""

    index: int
    word: str
    label: str
    """As it was written; a later piece of a word that was cut continues with I-."""


@dataclass(kw_only=True, slots=True, frozen=True)
class Substitution:
    """A word of the input with another generated word in its place."""

    index: int
    word: str
    generated: GeneratedWord


@dataclass(kw_only=True, slots=True, frozen=True)
class AlignedRow:
    """One label per word, entities with offsets, and what did not match."""

    labels: list[str]
    """One BIO label per word."""
    entities: list[Entity]
    """In the order of the text, without overlap."""
    matching: str
    """`exact`, `subsequence` or `lcs`."""
    omitted: list[Word]
    """Words of the input that were not generated."""
    added: list[GeneratedWord]
    """Generated words that are not in the input."""
    substituted: list[Substitution]
    invalid_labels: list[GeneratedWord]
    """Generated words whose label is not among the types; they count as `O`."""
    dropped_labels: list[str]
    """Labels that had no word before them."""
    trailing_text: str
    """Text after the last label."""

    def to_dict(self) -> dict[str, Any]:
        """Returns the object that `align_file` writes for the row."""
        return asdict(self)


def score_examples(
    examples: Iterable[object],
    scheme: str = "gner",
    *,
    worst: int = 0,
    skip_bad_rows: bool = False,
    back_tokenize: Callable[[list[str]], list[str]] | None = None,
) -> Evaluation:
    """Returns the sums over rows in memory, per data set.

    Args:
        examples: dicts; those without `dataset` go under `examples`.
        scheme: one of `lmcore.reference.entities.SCHEMES`.
        worst: how many sentences with the most wrong entities to keep, per data set.
        skip_bad_rows: count and list bad rows instead of raising.
        back_tokenize: maps lower-case words to what is compared in their place.

    Raises:
        ValueError, TypeError: unknown scheme, or as `read_row`.

    Example:
        >>> row = {"types": ["x"], "words": ["a"], "labels": ["B-x"], "prediction": "a(B-x)"}
        >>> score_examples([row]).datasets["examples"].entities
        EntityCounts(gold=1, predicted=1, correct=1)
    """
    sums = _Sums(scheme, worst, skip_bad_rows, back_tokenize)
    for index, row in enumerate(examples):
        sums.add(lambda row=row: read_example(row), f"examples[{index}]", "examples", "", index)  # type: ignore[misc]
    return sums.evaluation()


def score_files(
    paths: Sequence[str | os.PathLike[str]],
    scheme: str = "gner",
    *,
    worst: int = 0,
    skip_bad_rows: bool = False,
    back_tokenize: Callable[[list[str]], list[str]] | None = None,
) -> Evaluation:
    """Returns the sums over the rows of files, per data set.

    Args:
        paths: files of a row per line, blank lines aside; rows without `dataset` go under the
            file's stem.
        scheme: one of `lmcore.reference.entities.SCHEMES`.
        worst: how many sentences with the most wrong entities to keep, per data set.
        skip_bad_rows: count and list bad rows instead of raising.
        back_tokenize: as for `score_examples`.

    Raises:
        ValueError, TypeError: unknown scheme, a file without rows, or as `read_row`.

    Example:
        >>> score_files([]).datasets
        {}
    """
    sums = _Sums(scheme, worst, skip_bad_rows, back_tokenize)
    for path in map(Path, paths):
        lines = path.read_bytes().removeprefix(_BYTE_ORDER_MARK).split(b"\n")
        rows = [(number, line) for number, line in enumerate(lines, 1) if line.strip(b" \t\r")]
        if not rows:
            raise ValueError(f"{path}: the file holds no rows")
        for number, line in rows:
            sums.add(
                lambda line=line: read_row(line),  # type: ignore[misc]
                f"{path}:{number}",
                path.stem,
                str(path),
                number,
            )
    return sums.evaluation()


def align_row(row: Mapping[str, Any], scheme: str = "gner") -> AlignedRow:
    """Returns one row aligned: labels, entities with offsets, and what did not match.

    Args:
        row: `types`, `prediction`, and `words` or `text` or both. Offsets are characters
            of `text`, or of the words joined with spaces. Without `words`, the text is cut
            with `split_words`, and so are the generated words.
        scheme: how BIO labels are read as entities.

    Raises:
        TypeError: a value has the wrong type.
        ValueError: unknown scheme, a missing key, or a word that is not in the text.

    Example:
        >>> row = {"text": "in York", "types": ["city"], "prediction": "York(B-city)"}
        >>> align_row(row).entities
        [Entity(start=3, end=7, type='city', text='York')]
    """
    decode_spans([], scheme)  # an unknown scheme is named before a row
    words, text, types, prediction = read_row_to_align(row)
    cut = words is None
    if words is None:
        ranges = split_words(text or "")
        words = [(text or "")[start:end] for start, end in ranges]
    if text is None:
        text = " ".join(words)
        ends = [sum(map(len, words[: k + 1])) + k for k in range(len(words))]
        ranges = [(end - len(word), end) for word, end in zip(words, ends, strict=True)]
    elif not cut:
        try:
            ranges = locate_words(text, words)
        except ValueError as error:
            raise ValueError(f"words: {error}") from None

    match = match_labels(words, prediction, types, split_generated=cut)
    parsed = match.parsed

    def generated(index: int) -> GeneratedWord:
        return GeneratedWord(index=index, word=parsed.words[index], label=parsed.labels[index])

    entities = []
    for span in decode_spans(match.labels, scheme):
        start, end = ranges[span.start][0], ranges[span.end - 1][1]
        entities.append(Entity(start=start, end=end, type=span.type, text=text[start:end]))
    return AlignedRow(
        labels=match.labels,
        entities=entities,
        matching=match.matching,
        omitted=[Word(index=i, word=words[i]) for i in match.omitted],
        added=[generated(k) for k in match.added],
        substituted=[
            Substitution(index=i, word=words[i], generated=generated(k))
            for i, k in match.substituted
        ],
        invalid_labels=[generated(k) for k in match.invalid_labels],
        dropped_labels=parsed.dropped_labels,
        trailing_text=parsed.trailing_text,
    )


class _Sums:
    """Sums that grow row by row."""

    def __init__(
        self,
        scheme: str,
        worst: int,
        skip_bad_rows: bool,
        back_tokenize: Callable[[list[str]], list[str]] | None,
    ) -> None:
        decode_spans([], scheme)  # an unknown scheme is named before a row
        self.scheme, self.worst, self.skip_bad_rows = scheme, worst, skip_bad_rows
        self.back_tokenize = back_tokenize
        self.datasets: dict[str, DatasetCounts] = {}
        self.problems: list[str] = []

    def add(
        self, read: Callable[[], Row], where: str, default: str, path: str, number: int
    ) -> None:
        """Adds one row, or its problem."""
        try:
            row = read()
        except (TypeError, ValueError) as error:
            problem = type(error)(f"{where}: {error}")
            if not self.skip_bad_rows:
                raise problem from None
            self.problems.append(str(problem))
            return
        counts = self.count(row, path, number)
        name = default if row.dataset is None else row.dataset
        if name in self.datasets:
            counts = self.merge(self.datasets[name], counts)
        self.datasets[name] = counts

    def count(self, row: Row, path: str, number: int) -> DatasetCounts:
        """Returns what one row adds to its data set."""
        compared = None
        if self.back_tokenize is not None:
            compared = self.back_tokenize([word.lower() for word in row.words])
        match = match_labels(row.words, row.prediction, row.types, compared)
        entities = count_entities(row.words, row.labels, match.labels, self.scheme)
        wrong = entities.gold + entities.predicted - 2 * entities.correct
        sentence = WorstSentence(
            wrong=wrong,
            path=path,
            row=number,
            words=tuple(row.words),
            labels=tuple(row.labels),
            predicted=tuple(match.labels),
            prediction=row.prediction,
            matching=match.matching,
            alignment=tuple(match.alignment),
        )
        conditions = (int(match.matching == name) for name in ConditionCounts._fields)
        return DatasetCounts(
            rows=1,
            words=len(row.words),
            conditions=ConditionCounts(*conditions),
            empty_predictions=int(not match.parsed.words),
            first_empty=(path, number) if row.words and not match.parsed.words else None,
            differences=DifferenceCounts(
                len(match.omitted), len(match.added), len(match.substituted)
            ),
            invalid_labels=len(match.invalid_labels),
            named_invalid_labels=_count_names(match.parsed.labels[k] for k in match.invalid_labels),
            entities=entities,
            errors=classify_errors(row.labels, match.labels, self.scheme),
            types=tuple(sorted(set(row.types))),
            worst=(sentence,) if wrong and self.worst else (),
        )

    def merge(self, one: DatasetCounts, two: DatasetCounts) -> DatasetCounts:
        """Returns the sums of both."""
        worst = sorted([*one.worst, *two.worst], key=lambda sentence: -sentence.wrong)
        return DatasetCounts(
            rows=one.rows + two.rows,
            words=one.words + two.words,
            conditions=_add(one.conditions, two.conditions),
            empty_predictions=one.empty_predictions + two.empty_predictions,
            first_empty=one.first_empty or two.first_empty,
            differences=_add(one.differences, two.differences),
            invalid_labels=one.invalid_labels + two.invalid_labels,
            named_invalid_labels=_add_names(one.named_invalid_labels, two.named_invalid_labels),
            entities=_add(one.entities, two.entities),
            errors=_add(one.errors, two.errors),
            types=tuple(sorted({*one.types, *two.types})),
            worst=tuple(worst[: self.worst]),
        )

    def evaluation(self) -> Evaluation:
        """Returns the sums of all rows."""
        listed = tuple(self.problems[:_LISTED_BAD_ROWS])
        datasets = {
            name: counts._replace(
                named_invalid_labels=dict(sorted(counts.named_invalid_labels.items()))
            )
            for name, counts in self.datasets.items()
        }
        return Evaluation(datasets, len(self.problems), listed)


def _add(one: Any, two: Any) -> Any:
    """Adds named tuples of numbers field by field."""
    return type(one)(*map(int.__add__, one, two))


def _count_names(labels: Iterable[str]) -> dict[str, int]:
    """Counts names in the order in which they come."""
    return dict(list(Counter(labels).items())[:_NAMED_LABELS])


def _add_names(one: dict[str, int], two: dict[str, int]) -> dict[str, int]:
    """Adds what is counted by name; of new names those that come first, while there is room."""
    sums = dict(one)
    for name, count in two.items():
        if name in sums or len(sums) < _NAMED_LABELS:
            sums[name] = sums.get(name, 0) + count
    return sums
