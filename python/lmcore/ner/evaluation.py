"""Predictions to scores: precision, recall, F1, and how the generated texts were matched."""

import os
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmcore.ops.entities import EntityCounts, ErrorKinds, Quality, compute_quality
from lmcore.ops.predictions import (
    BackTokenize,
    DatasetCounts,
    Evaluation,
    WorstSentence,
    score_examples,
)
from lmcore.ops.predictions import score_files as sum_files


@dataclass(kw_only=True, slots=True, frozen=True)
class DatasetScores:
    """Scores of one data set under one scheme."""

    name: str
    scheme: str
    """How entities were compared, one of `lmcore.ops.entities.SCHEMES`."""
    label_list: tuple[str, ...]
    """Every entity type that a row allowed, sorted."""
    rows: int
    words: int
    entities: EntityCounts
    """Gold, predicted and correct entities."""
    quality: Quality
    """Precision, recall, F1 in [0, 1]."""
    errors: ErrorKinds
    """Gold entities missed, by the paper's three kinds and by position."""
    exact: int
    """Rows whose generated words equal the input words."""
    subsequence: int
    """Rows whose generated words are a subsequence of the input words."""
    lcs: int
    """Rows that needed the longest common subsequence."""
    empty_predictions: int
    """Rows whose generated text holds no labelled word; every word counts as `O`."""
    omitted: int
    """Input words that were not generated."""
    added: int
    """Generated words that are not in the input."""
    substituted: int
    """Input words with another generated word in their place."""
    invalid_labels: int
    """Generated labels outside the row's label list; they count as `O`."""
    worst: tuple[WorstSentence, ...]
    """The sentences with the most wrong entities, if they were asked for."""

    def to_dict(self) -> dict[str, Any]:
        """Returns the data set's part of `Scores.to_dict`."""
        return {
            "rows": self.rows,
            **self.quality._asdict(),
            "counts": self.entities._asdict(),
            "matching": {"exact": self.exact, "subsequence": self.subsequence, "lcs": self.lcs},
            "words": {
                "omitted": self.omitted,
                "added": self.added,
                "substituted": self.substituted,
            },
            "invalid_labels": self.invalid_labels,
        }


@dataclass(kw_only=True, slots=True, frozen=True)
class Scores:
    """Scores of several data sets under one scheme, and their mean."""

    scheme: str
    """How entities were compared, one of `lmcore.ops.entities.SCHEMES`."""
    datasets: dict[str, DatasetScores]
    """By name, in the order of their first rows."""
    bad_rows: int = 0
    """Rows that were skipped because they could not be used."""
    listed_bad_rows: tuple[str, ...] = ()
    """Place and problem of the first 1000 of them."""

    @property
    def mean(self) -> Quality:
        """The unweighted mean over the data sets, as the paper reports it."""
        parts = [dataset.quality for dataset in self.datasets.values()]
        if not parts:
            return Quality(0.0, 0.0, 0.0)
        return Quality(*(sum(values) / len(parts) for values in zip(*parts, strict=True)))

    def to_dict(self) -> dict[str, Any]:
        """Returns what `lmcore ner score --json` prints.

        `bad_rows` is there only where rows were skipped.
        """
        result: dict[str, Any] = {
            "scheme": self.scheme,
            "datasets": {name: scores.to_dict() for name, scores in self.datasets.items()},
            "mean": self.mean._asdict(),
        }
        if self.bad_rows:
            result["bad_rows"] = {"count": self.bad_rows, "rows": list(self.listed_bad_rows)}
        return result


def score(
    examples: Iterable[Mapping[str, Any]],
    *,
    scheme: str = "gner",
    threads: int | None = None,
    worst: int = 0,
    skip_bad_rows: bool = False,
    back_tokenize: BackTokenize | None = None,
) -> Scores:
    """Returns the scores of predictions in memory.

    Source: GNER (arXiv 2402.16602); the numbers of the authors' evaluator.

    Args:
        examples: dicts with `label_list`, `prediction`, and `words` and `labels` at the top or
            in `instance`; rows without `dataset` go under `examples`.
        scheme: one of `lmcore.ops.entities.SCHEMES`.
        threads: number of threads; all cores if None. The result does not depend on it.
        worst: how many sentences with the most wrong entities to keep, per data set.
        skip_bad_rows: count and list bad rows instead of raising.
        back_tokenize: for example a `BackTokenizer`; called with distinct lower-case words.

    Raises:
        TypeError: a row or a value in it has the wrong type.
        ValueError: no rows, unknown scheme, or a row that cannot be used.

    Example:
        >>> rows = [{
        ...     "label_list": ["city"],
        ...     "words": ["in", "York"],
        ...     "labels": ["O", "B-city"],
        ...     "prediction": "in(O) York(B-city)",
        ... }]
        >>> score(rows, scheme="strict").mean.f1
        1.0
    """
    sums = score_examples(
        examples,
        scheme,
        threads=threads,
        worst=worst,
        skip_bad_rows=skip_bad_rows,
        back_tokenize=back_tokenize,
    )
    if not sums.datasets and not sums.bad_rows:
        raise ValueError("examples: there are no rows")
    return _scores(sums, scheme)


def score_file(
    path: str | os.PathLike[str],
    *,
    scheme: str = "gner",
    threads: int | None = None,
    worst: int = 0,
    skip_bad_rows: bool = False,
    back_tokenize: BackTokenize | None = None,
    progress: Callable[[int], None] | None = None,
) -> Scores:
    """Returns the scores of one JSONL file of predictions; see `score_files`.

    Args:
        path: one JSON object per line, as for `score`.
        scheme: one of `lmcore.ops.entities.SCHEMES`.
        threads: number of threads; all cores if None.
        worst: how many of the worst sentences to keep, per data set.
        skip_bad_rows: count and list bad rows instead of raising.
        back_tokenize: as for `score`.
        progress: called with the number of bytes done so far.

    Raises:
        OSError: the file cannot be read.
        TypeError: a row or a value in it has the wrong type.
        ValueError: no rows, unknown scheme, or a row that cannot be used.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
        ...     row = '{"label_list": ["x"], "words": ["a"], "labels": ["O"], "prediction": ""}'
        ...     _ = file.write(row), file.flush()
        ...     scores = score_file(file.name, scheme="conll")
        >>> scores.mean
        Quality(precision=0.0, recall=0.0, f1=0.0)
    """
    return score_files(
        [path],
        scheme=scheme,
        threads=threads,
        worst=worst,
        skip_bad_rows=skip_bad_rows,
        back_tokenize=back_tokenize,
        progress=progress,
    )


def score_files(
    paths: Sequence[str | os.PathLike[str]],
    *,
    scheme: str = "gner",
    threads: int | None = None,
    worst: int = 0,
    skip_bad_rows: bool = False,
    back_tokenize: BackTokenize | None = None,
    progress: Callable[[int], None] | None = None,
) -> Scores:
    """Returns the scores of JSONL files of predictions, read in blocks of constant memory.

    Rows without `dataset` go under the stem of their file; rows of one data set may stand in
    several files.

    Args:
        paths: files of one JSON object per line, as for `score`.
        scheme: one of `lmcore.ops.entities.SCHEMES`.
        threads: number of threads; all cores if None. The result does not depend on it.
        worst: how many of the worst sentences to keep, per data set.
        skip_bad_rows: count and list bad rows instead of raising.
        back_tokenize: as for `score`.
        progress: called with the number of bytes done so far, of all files together.

    Raises:
        OSError: a file cannot be read.
        TypeError: a row or a value in it has the wrong type.
        ValueError: no rows, unknown scheme, a file that is given twice, or a row that cannot be
            used; the text names file, line and key.

    Example:
        >>> score_files([], scheme="strict").datasets
        {}
    """
    _refuse_repeated(paths)
    sums = sum_files(
        paths,
        scheme,
        threads=threads,
        worst=worst,
        skip_bad_rows=skip_bad_rows,
        back_tokenize=back_tokenize,
        progress=progress,
    )
    return _scores(sums, scheme)


def _refuse_repeated(paths: Sequence[str | os.PathLike[str]]) -> None:
    """ValueError for a file that is given twice, by whatever name: its rows would count twice."""
    if isinstance(paths, str | os.PathLike):
        return  # refused where the files are read
    seen: dict[tuple[int, int], str] = {}
    for path in paths:
        try:
            status = Path(path).stat()
        except (OSError, ValueError):
            continue  # said where the file is read
        if not stat.S_ISREG(status.st_mode):
            continue
        key = status.st_dev, status.st_ino
        if key in seen:
            raise ValueError(f"{os.fspath(path)}: the file is given twice, first as {seen[key]}")
        seen[key] = os.fspath(path)


def _scores(sums: Evaluation, scheme: str) -> Scores:
    return Scores(
        scheme=scheme,
        datasets={
            name: _dataset_scores(name, scheme, counts) for name, counts in sums.datasets.items()
        },
        bad_rows=sums.bad_rows,
        listed_bad_rows=sums.listed_bad_rows,
    )


def _dataset_scores(name: str, scheme: str, counts: DatasetCounts) -> DatasetScores:
    return DatasetScores(
        name=name,
        scheme=scheme,
        label_list=counts.label_list,
        rows=counts.rows,
        words=counts.words,
        entities=counts.entities,
        quality=compute_quality(counts.entities, scheme),
        errors=counts.errors,
        **counts.conditions._asdict(),
        **counts.differences._asdict(),
        empty_predictions=counts.empty_predictions,
        invalid_labels=counts.invalid_labels,
        worst=counts.worst,
    )
