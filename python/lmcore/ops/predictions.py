"""Files and lists of predictions: from rows to counts, or to aligned rows."""

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from lmcore import _core
from lmcore._files import find_output
from lmcore.ops._threads import limit_threads
from lmcore.reference._rows import Row, read_row, select_keys
from lmcore.reference.entities import EntityCounts, ErrorKinds
from lmcore.reference.predictions import (
    AlignedRow,
    ConditionCounts,
    DatasetCounts,
    DifferenceCounts,
    Entity,
    Evaluation,
    GeneratedWord,
    Substitution,
    Word,
    WorstSentence,
)

__all__ = [
    "AlignSummary",
    "AlignedRow",
    "BackTokenize",
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
    "align_file",
    "align_row",
    "read_row",
    "score_examples",
    "score_files",
]

BackTokenize = Callable[[list[str]], list[str]]
"""Maps distinct lower-case words to what a tokenizer makes of them."""


class AlignSummary(NamedTuple):
    """What became of the rows of a file."""

    rows: int
    """Aligned rows."""
    bad_rows: int
    """Rows that were skipped because they could not be used."""
    listed_bad_rows: list[str]
    """Place and problem of the first 1000 of them."""


def score_examples(
    examples: Iterable[Mapping[str, Any]],
    scheme: str = "gner",
    *,
    threads: int | None = None,
    worst: int = 0,
    skip_bad_rows: bool = False,
    back_tokenize: BackTokenize | None = None,
) -> Evaluation:
    """Returns the sums over rows in memory, per data set.

    Args:
        examples: dicts with `types` (`label_list` to the authors), `prediction`, and `words` and
            `labels` at the top or in `instance`, not in both; rows without `dataset` go under
            `examples`. What code of theirs raises comes out unchanged, after the error of an
            earlier row.
        scheme: one of `lmcore.ops.entities.SCHEMES`.
        threads: number of threads; all cores if None. The result does not depend on it.
        worst: how many sentences with the most wrong entities to keep, per data set.
        skip_bad_rows: count and list bad rows instead of raising.
        back_tokenize: called with distinct lower-case words; what it returns is compared
            with the generated words (back tokenisation).

    Returns:
        An `Evaluation`: the sums of each data set, and the rows that were skipped.

    Raises:
        TypeError: a row or a value in it has the wrong type.
        ValueError: unknown scheme, a number out of its range, or a row that cannot be used.

    Example:
        >>> row = {"types": ["x"], "words": ["a"], "labels": ["B-x"], "prediction": "a(B-x)"}
        >>> score_examples([row]).datasets["examples"].entities
        EntityCounts(gold=1, predicted=1, correct=1)
    """
    rows = examples if isinstance(examples, list) else list(examples)
    limit = limit_threads(threads)
    sums = _core.score_examples(rows, scheme, limit, worst, skip_bad_rows, back_tokenize)
    return _evaluation(*sums)


def score_files(
    paths: Sequence[str | os.PathLike[str]],
    scheme: str = "gner",
    *,
    threads: int | None = None,
    worst: int = 0,
    skip_bad_rows: bool = False,
    back_tokenize: BackTokenize | None = None,
    progress: Callable[[int], None] | None = None,
    names: Sequence[tuple[str, str]] | None = None,
) -> Evaluation:
    """Returns the sums over the rows of JSONL files, per data set.

    The files are read in blocks: memory does not grow with their length.

    Args:
        paths: files of one JSON object per line, as `score_examples`; rows without `dataset`
            go under the file's stem. Blank lines are skipped. A key that stands twice in a row
            makes it a bad one, if it is a key that is read.
        scheme: one of `lmcore.ops.entities.SCHEMES`.
        threads: number of threads; all cores if None. The result does not depend on it.
        worst: how many sentences with the most wrong entities to keep, per data set.
        skip_bad_rows: count and list bad rows instead of raising.
        back_tokenize: as for `score_examples`.
        progress: called with the number of bytes done so far, of all files together.
        names: for each path what errors call it and the data set of rows that name none; the
            path and its stem if None.

    Returns:
        As `score_examples`.

    Raises:
        OSError: a file cannot be read.
        TypeError: a row or a value in it has the wrong type.
        ValueError: unknown scheme, a file without rows, or a row that cannot be used; the
            text names file, line and key.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
        ...     row = '{"types": ["x"], "words": ["a"], "labels": ["O"], "prediction": ""}'
        ...     _ = file.write(row), file.flush()
        ...     sums = score_files([file.name])
        >>> [dataset.rows for dataset in sums.datasets.values()]
        [1]
    """
    if isinstance(paths, str | bytes | os.PathLike):
        raise TypeError(f"paths must be a sequence of paths: got {type(paths).__name__}")
    # A name that is no UTF-8 is a str with what stands for its bytes, and comes back as bytes.
    places: list[str | os.PathLike[str]] = [os.fsdecode(path) for path in paths]
    if names is not None and len(names) != len(places):
        raise ValueError(f"names: expected one for each of {len(places)} paths: got {len(names)}")
    shown = None if names is None else list(names)
    limit = limit_threads(threads)
    return _evaluation(
        *_core.score_files(
            places, shown, scheme, limit, worst, skip_bad_rows, back_tokenize, progress
        )
    )


def align_file(
    input_path: str | os.PathLike[str],
    output_path: str | os.PathLike[str],
    scheme: str = "gner",
    *,
    threads: int | None = None,
    skip_bad_rows: bool = False,
    back_tokenize: BackTokenize | None = None,
    progress: Callable[[int], None] | None = None,
) -> AlignSummary:
    """Returns how many rows went from one JSONL file to another, and which were skipped.

    The output appears under its name when it is whole; a device or a pipe is written directly,
    and of a symbolic link the target is written.

    Args:
        input_path: rows as for `align_row`.
        output_path: one aligned row per row, in the same order.
        scheme: how BIO labels are read as entities.
        threads: number of threads; all cores if None. The result does not depend on it.
        skip_bad_rows: leave bad rows out and list them instead of raising.
        back_tokenize: as for `score_examples`.
        progress: called with the number of bytes done so far.

    Returns:
        An `AlignSummary`, which counts aligned and skipped rows.

    Raises:
        OSError: a file cannot be read or written.
        TypeError: a row or a value in it has the wrong type.
        ValueError: unknown scheme, a file without rows, a row that cannot be used, or an output
            that is the input.

    Example:
        >>> import tempfile, pathlib
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     source, target = pathlib.Path(folder, "in"), pathlib.Path(folder, "out")
        ...     _ = source.write_text('{"words": ["a"], "types": [], "prediction": ""}')
        ...     align_file(source, target)
        AlignSummary(rows=1, bad_rows=0, listed_bad_rows=[])
    """
    return AlignSummary(
        *_core.align_file(
            os.fsdecode(input_path),
            find_output(os.fsdecode(output_path), [input_path]),
            scheme,
            limit_threads(threads),
            skip_bad_rows,
            back_tokenize,
            progress,
        )
    )


def align_row(row: Mapping[str, Any], scheme: str = "gner") -> AlignedRow:
    """Returns one row aligned: labels, entities with offsets, and what did not match.

    Args:
        row: `types`, `prediction`, and `words` or `text` or both. Offsets are characters
            of `text`, or of the words joined with spaces. Without `words`, the text is cut
            with `split_words`, and so are the generated words.
        scheme: how BIO labels are read as entities.

    Returns:
        An `AlignedRow`; its `to_dict` is what `align_file` writes.

    Raises:
        TypeError: a value has the wrong type.
        ValueError: unknown scheme, a missing key, or a word that is not in the text.

    Example:
        >>> row = {"text": "in York", "types": ["city"], "prediction": "York(B-city)"}
        >>> align_row(row).entities
        [Entity(start=3, end=7, type='city', text='York')]
    """
    read = select_keys(row) if isinstance(row, Mapping) else row
    aligned = json.loads(_core.align_row(json.dumps(read), scheme))
    return AlignedRow(
        labels=aligned["labels"],
        entities=[Entity(**entity) for entity in aligned["entities"]],
        matching=aligned["matching"],
        omitted=[Word(**word) for word in aligned["omitted"]],
        added=[GeneratedWord(**word) for word in aligned["added"]],
        substituted=[
            Substitution(index=pair["index"], word=pair["word"], generated=_generated(pair))
            for pair in aligned["substituted"]
        ],
        invalid_labels=[GeneratedWord(**word) for word in aligned["invalid_labels"]],
        dropped_labels=aligned["dropped_labels"],
        trailing_text=aligned["trailing_text"],
    )


def _generated(pair: dict[str, Any]) -> GeneratedWord:
    return GeneratedWord(**pair["generated"])


def _evaluation(
    datasets: dict[str, tuple[Any, ...]], bad_rows: int, listed: list[str]
) -> Evaluation:
    counts = {name: _dataset_counts(sums) for name, sums in datasets.items()}
    return Evaluation(counts, bad_rows, tuple(listed))


def _dataset_counts(sums: tuple[Any, ...]) -> DatasetCounts:
    (
        rows, words, conditions, empty, first_empty, differences, invalid, named, entities, errors,
        types, worst,
    ) = sums  # fmt: skip
    return DatasetCounts(
        rows=rows,
        words=words,
        conditions=ConditionCounts(*conditions),
        empty_predictions=empty,
        first_empty=first_empty,
        differences=DifferenceCounts(*differences),
        invalid_labels=invalid,
        named_invalid_labels=named,
        entities=EntityCounts(*entities),
        errors=ErrorKinds(*errors),
        types=tuple(types),
        worst=tuple(map(_worst_sentence, worst)),
    )


def _worst_sentence(row: tuple[Any, ...]) -> WorstSentence:
    wrong, path, number, words, labels, predicted, prediction, matching, alignment = row
    return WorstSentence(
        wrong=wrong,
        path=path,
        row=number,
        words=tuple(words),
        labels=tuple(labels),
        predicted=tuple(predicted),
        prediction=prediction,
        matching=matching,
        alignment=tuple(alignment),
    )
