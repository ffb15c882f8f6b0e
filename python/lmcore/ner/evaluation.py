"""Predictions to scores: precision, recall, F1, and how the generated texts were matched."""

import os
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lmcore.ner.sources import Source
from lmcore.ops.entities import EntityCounts, ErrorKinds, Quality, compute_quality
from lmcore.ops.predictions import (
    BackTokenize,
    DatasetCounts,
    Evaluation,
    WorstSentence,
    score_examples,
)
from lmcore.ops.predictions import score_files as sum_files

_LISTED_ROWS = 1000


@dataclass(kw_only=True, slots=True, frozen=True)
class DatasetScores:
    """Scores of one data set under one scheme."""

    name: str
    file: str
    """The file that all its rows come from; empty for several files and for rows in memory."""
    scheme: str
    """How entities were compared, one of `lmcore.ops.entities.SCHEMES`."""
    types: tuple[str, ...]
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
    first_empty: str | None
    """Where the first of them that has words stands."""
    omitted: int
    """Input words that were not generated."""
    added: int
    """Generated words that are not in the input."""
    substituted: int
    """Input words with another generated word in their place."""
    invalid_labels: int
    """Generated labels outside the row's types; they count as `O`."""
    named_invalid_labels: dict[str, int]
    """The first 1000 of them by name, and how often each stood there."""
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
    forms: dict[str, str] = field(default_factory=dict)
    """The form of each file, one of `lmcore.ner.sources.FORMS`."""
    left_out: int = 0
    """Predicted entities of JSON that labels of words cannot hold: they count as wrong."""
    unreadable: int = 0
    """Predictions among JSON that are no JSON of a known form: they count as empty."""
    compares: bool = False
    """Whether a data set stands in several files, as of several models."""

    @property
    def means(self) -> dict[str, Quality]:
        """The mean of each file, where files are compared."""
        if not self.compares:
            return {}
        files = dict.fromkeys(dataset.file for dataset in self.datasets.values())
        return {
            file: _mean([d.quality for d in self.datasets.values() if d.file == file])
            for file in files
        }

    @property
    def mean(self) -> Quality:
        """The unweighted mean over the data sets, as the paper reports it."""
        return _mean([dataset.quality for dataset in self.datasets.values()])

    def to_dict(self) -> dict[str, Any]:
        """Returns what `lmcore ner score --json` prints.

        `bad_rows` is there only where rows were skipped, and `means` where files are compared.
        """
        result: dict[str, Any] = {
            "scheme": self.scheme,
            "datasets": {name: scores.to_dict() for name, scores in self.datasets.items()},
            "mean": self.mean._asdict(),
        }
        if self.compares:
            result["means"] = {file: mean._asdict() for file, mean in self.means.items()}
        if self.bad_rows:
            result["bad_rows"] = {"count": self.bad_rows, "rows": list(self.listed_bad_rows)}
        return result


def _mean(parts: Sequence[Quality]) -> Quality:
    if not parts:
        return Quality(0.0, 0.0, 0.0)
    return Quality(*(sum(values) / len(parts) for values in zip(*parts, strict=True)))


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
        examples: dicts with `types`, `prediction`, and `words` and `labels` at the top or
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
        ...     "types": ["city"],
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
        ...     row = '{"types": ["x"], "words": ["a"], "labels": ["O"], "prediction": ""}'
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
    form: str = "auto",
    merge: bool = False,
) -> Scores:
    """Returns the scores of files of predictions, read in blocks of constant memory.

    Rows without `dataset` go under the stem of their file. Data sets of one name in two files are
    kept apart, as `file: name`, unless they are merged.

    Args:
        paths: files of one JSON object per line, as for `score`, or of another form
            (`lmcore.ner.sources`); `.gz` is decompressed, and `-` is standard input.
        scheme: one of `lmcore.ops.entities.SCHEMES`.
        threads: number of threads; all cores if None. The result does not depend on it.
        worst: how many of the worst sentences to keep, per data set.
        skip_bad_rows: count and list bad rows instead of raising.
        back_tokenize: as for `score`.
        progress: called with the number of bytes done so far, of all files together.
        form: one of `lmcore.ner.sources.FORMS`; `auto` looks at the first row of each file.
        merge: let rows of one data set stand in several files.

    Raises:
        OSError: a file cannot be read.
        TypeError: a row or a value in it has the wrong type.
        ValueError: no rows, unknown scheme or form, a file that is given twice, or a row that
            cannot be used; the text names file, line and key.

    Example:
        >>> score_files([], scheme="strict").datasets
        {}
    """
    if isinstance(paths, str | bytes | os.PathLike):
        raise TypeError(f"paths must be a sequence of paths: got {type(paths).__name__}")
    _refuse_repeated(paths)
    compute_quality(EntityCounts(0, 0, 0), scheme)  # an unknown scheme is named before a file
    options: dict[str, Any] = {
        "threads": threads,
        "worst": worst,
        "skip_bad_rows": skip_bad_rows,
        "back_tokenize": back_tokenize,
    }
    sources = [Source(path, form) for path in paths]
    groups = [sources] if merge else [[source] for source in sources]
    parts = []
    before = 0
    for group in groups:
        report = None if progress is None else _Progress(progress, group, before)
        parts.append(_score_sources(group, scheme, report, options))
        before = 0 if report is None else report.done
    return _join(sources, parts, scheme, merge=merge)


def _score_sources(
    sources: Sequence[Source], scheme: str, progress: Any, options: Mapping[str, Any]
) -> Evaluation:
    """Returns the sums over files whose data sets are merged."""
    names = [(source.name, source.dataset) for source in sources]
    with ExitStack() as stack:
        stack.enter_context(_explained(sources))
        opened = [stack.enter_context(source.open_name()) for source in sources]
        sums = sum_files(opened, scheme, names=names, progress=progress, **options)
    datasets = {
        name: _add_left_out(counts, sum(source.left_out[name] for source in sources))
        for name, counts in sums.datasets.items()
    }
    listed = tuple(_explain(sources, problem) for problem in sums.listed_bad_rows)
    return Evaluation(datasets, sums.bad_rows, listed)


def _add_left_out(counts: DatasetCounts, left_out: int) -> DatasetCounts:
    """Counts predicted entities that labels of words could not hold: they are wrong."""
    gold, predicted, correct = counts.entities
    return counts._replace(entities=EntityCounts(gold, predicted + left_out, correct))


@contextmanager
def _explained(sources: Sequence[Source]) -> Iterator[None]:
    """Lets errors call a source and its problem as the user knows them."""
    try:
        yield
    except OSError as error:
        if error.errno is None or not os.fspath(error.filename or "").startswith("/dev/fd/"):
            raise
        raise OSError(error.errno, error.strerror, sources[0].name) from None
    except (TypeError, ValueError) as error:
        text = _explain(sources, str(error))
        if text == str(error):
            raise
        raise ValueError(text) from None


def _explain(sources: Sequence[Source], text: str) -> str:
    for source in sources:
        text = source.explain(text)
    return text


class _Progress:
    """Bytes of several files, of which some are read by a thread of ours."""

    def __init__(
        self, progress: Callable[[int], None], sources: Sequence[Source], before: int
    ) -> None:
        self._progress, self._sources, self._before = progress, sources, before
        self.done = before

    def __call__(self, done: int) -> None:
        if len(self._sources) == 1:
            done = self._sources[0].count_bytes(done)
        self.done = self._before + done
        self._progress(self.done)


def _join(
    sources: Sequence[Source], parts: Sequence[Evaluation], scheme: str, *, merge: bool
) -> Scores:
    """Returns the scores of files; a name that stands in several is written behind its file's."""
    seen = Counter(name for part in parts for name in part.datasets)
    paths = [os.fspath(source.name) for source in sources]
    stems = [Path(path).name for path in paths]
    shown = stems if len(set(stems)) == len(stems) else paths
    datasets: dict[str, DatasetScores] = {}
    for number, part in enumerate(parts):
        file = "" if merge and len(sources) > 1 else shown[number]
        for dataset, counts in part.datasets.items():
            name = dataset if seen[dataset] == 1 else f"{file}: {dataset}"
            datasets[name] = _dataset_scores(name, scheme, counts, file=file)
    listed = tuple(problem for part in parts for problem in part.listed_bad_rows)
    return Scores(
        scheme=scheme,
        datasets=datasets,
        bad_rows=sum(part.bad_rows for part in parts),
        listed_bad_rows=listed[:_LISTED_ROWS],
        forms={source.name: source.form for source in sources},
        left_out=sum(sum(source.left_out.values()) for source in sources),
        unreadable=sum(source.unreadable for source in sources),
        compares=any(count > 1 for count in seen.values()),
    )


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


def _dataset_scores(
    name: str, scheme: str, counts: DatasetCounts, *, file: str = ""
) -> DatasetScores:
    first = None
    if counts.first_empty is not None:
        path, row = counts.first_empty
        first = f"{path}:{row}" if path else f"examples[{row}]"
    return DatasetScores(
        name=name,
        file=file,
        scheme=scheme,
        types=counts.types,
        rows=counts.rows,
        words=counts.words,
        entities=counts.entities,
        quality=compute_quality(counts.entities, scheme),
        errors=counts.errors,
        **counts.conditions._asdict(),
        **counts.differences._asdict(),
        empty_predictions=counts.empty_predictions,
        first_empty=first,
        invalid_labels=counts.invalid_labels,
        named_invalid_labels=counts.named_invalid_labels,
        worst=counts.worst,
    )
