"""Sentences from files: columns, rows, entity lists, the authors' folders and `datasets`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from lmcore._rows import Progress, RowReader
from lmcore._streams import is_standard, name_input, open_input
from lmcore.ner import folders
from lmcore.ner.columns import (
    ColumnCounts,
    Columns,
    Paragraph,
    find_columns,
    read_lines,
    read_paragraphs,
)
from lmcore.ner.labels import LabelReader, check_types
from lmcore.ner.rows import RowParser, read_types, types_in
from lmcore.ner.sentences import Sentence, check_words, make_sentence

FORMATS = ("auto", "columns", "rows", "datasets")

_LISTED_SENTENCES = 1000
_LOOKED_AT = 200
_SPLITS = ("train", "dev", "valid", "validation", "test")


def read_sentences(
    path: str | os.PathLike[str],
    *,
    format: str = "auto",  # noqa: A002 - the word that callers expect
    types: Sequence[str] = (),
    dataset: str | None = None,
    split: str | None = None,
    word_column: int | None = None,
    label_column: int | None = None,
    skip_bad_rows: bool = False,
    progress: Progress | None = None,
) -> SentenceReader:
    r"""Returns a reader of the sentences of a file or folder; iterating reads them one by one.

    Formats, all UTF-8:

    - `columns`: a word and its label in each line, an empty line behind each sentence; tabs
      separate columns, or white space where a line has no tab. The label stands in the last
      column or in the first one.
    - `rows`: JSONL with rows as `parse_sentence` reads them.
    - `datasets`: a folder that `save_to_disk` of the library `datasets` wrote (extra `data`).
    - a folder with `label.txt` and `train.txt`, `dev.txt` and `test.txt`, as the authors have it.
    - `auto`: looks at the folder, or at the first character of the file.

    Args:
        path: the file, one of gzip (`.gz`), `-` for standard input, or the folder.
        format: one of `FORMATS`.
        types: what entities may be, added to those that the file names. A file that names none
            has the types of its labels, for which it is read twice.
        dataset: the name of the data set, for sentences without one; otherwise the name of the
            file, or of the folder of a `train.txt` and its like.
        split: which part of a folder; None for `train`.
        word_column: the column of words, from 1.
        label_column: that of labels.
        skip_bad_rows: count and list sentences that cannot be used instead of raising.
        progress: called with the bytes read so far.

    Raises:
        ValueError: an argument is outside of its range.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        ...     _ = file.write("New\tB-city\nYork\tI-city\n\nHi\tO\n"), file.flush()
        ...     reader = read_sentences(file.name, dataset="letters")
        ...     sentences = list(reader)
        >>> [sentence.words for sentence in sentences], reader.report.sentences
        ([['New', 'York'], ['Hi']], 2)
    """
    if format not in FORMATS:
        raise ValueError(f"format must be one of {', '.join(FORMATS)}: got {format!r:.60}")
    for name, column in (("word_column", word_column), ("label_column", label_column)):
        if column is not None and column < 1:
            raise ValueError(f"{name} must be at least 1: got {column}")
    if word_column is not None and word_column == label_column:
        raise ValueError(f"word_column and label_column must differ: got {word_column} for both")
    if types:
        check_types(types)
    return SentenceReader(
        path, format, [*types], dataset, split, (word_column, label_column), skip_bad_rows, progress
    )


class SentenceReader:
    """The sentences of a file; see `read_sentences`. It is iterated once."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        format: str,  # noqa: A002
        types: list[str],
        dataset: str | None,
        split: str | None,
        columns: tuple[int | None, int | None],
        skip_bad_rows: bool,
        progress: Progress | None,
    ) -> None:
        self.path = path
        self.name = name_input(path)
        self.report = ReadReport()
        self._format, self._types, self._split = format, types, split or "train"
        self._is_split_given = split is not None
        self._columns, self._skips, self._progress = columns, skip_bad_rows, progress
        self._dataset = dataset

    @property
    def files(self) -> list[str | os.PathLike[str]]:
        """The files that are read, as far as they are named."""
        if is_standard(self.path):
            return ["/dev/stdin"]
        path = Path(self.path)
        if (path / folders.LABELS).is_file():
            return [path / folders.LABELS, path / f"{self._split}.txt"]
        return folders.list_files(path) if path.is_dir() else [self.path]

    def __iter__(self) -> Iterator[Sentence]:
        """Yields the sentences.

        Raises:
            ImportError: the library `datasets` is needed and not installed.
            OSError: the file cannot be read.
            ValueError: it holds no sentences, or one that cannot be used; the text names file and
                line.
        """
        for sentence in self._read():
            self.report.sentences += 1
            yield sentence
        if not self.report.sentences:
            first = self.report.listed_bad_rows[:1]
            tail = f" that can be used; the first: {first[0]}" if first else ""
            raise ValueError(f"{self.name}: there are no sentences{tail}")

    def _read(self) -> Iterator[Sentence]:
        folder = None if is_standard(self.path) else Path(self.path)
        if folder is None or not folder.is_dir():
            yield from self._read_file()
        elif self._format in ("auto", "columns") and (folder / folders.LABELS).is_file():
            self._types = [*dict.fromkeys([*folders.read_labels(folder), *self._types])]
            self.report.types_from = folders.LABELS
            self._dataset = self._dataset or folder.resolve().name
            self.path = folder / f"{self._split}.txt"
            self.name, self._format = os.fspath(self.path), "columns"
            yield from self._read_file()
        else:
            yield from self._read_dataset(folder)

    # A file.

    def _read_file(self) -> Iterator[Sentence]:
        kind = self._format
        if kind == "datasets":
            raise ValueError(f"{self.name}: format datasets reads a folder: got a file")
        if self._is_split_given and not Path(self.path).name == f"{self._split}.txt":
            raise ValueError(f"{self.name}: split goes with a folder: got a file")
        if kind == "auto":
            kind = self._guess()
        dataset = self._dataset or name_dataset(self.path)
        self._dataset = dataset
        yield from self._read_columns() if kind == "columns" else self._read_rows()

    def _guess(self) -> str:
        """The format by the name, or by the first character where the name says nothing."""
        name = self.name.removesuffix(".gz")
        if name.endswith((".jsonl", ".json", ".ndjson")):
            return "rows"
        if is_standard(self.path) or not Path(self.path).is_file():
            # What comes through a pipe is read once.
            return "columns"
        with open_input(self.path) as source:
            start = source.read().lstrip(b"\xef\xbb\xbf \t\r\n")
        return "rows" if start.startswith(b"{") else "columns"

    def _check_twice(self) -> None:
        """Raises ValueError unless the file can be read twice."""
        path = None if is_standard(self.path) else Path(self.path)
        if path is None or (path.exists() and not path.is_file()):
            raise ValueError(
                f"{self.name}: the types of what is read once must be named: give them as types"
            )

    def _refuse(self, error: ValueError | TypeError, line: int) -> None:
        problem = str(error).removeprefix(f"{self.name}:")
        if problem == str(error):
            problem = f"{line}: {problem}"
        if not self._skips:
            raise ValueError(f"{self.name}:{problem}") from None
        self.report.note(f"{self.name}:{problem}")

    # Columns.

    def _read_columns(self) -> Iterator[Sentence]:
        types = self._types or self._types_of_columns()
        if not types:
            raise ValueError(f"{self.name}: the labels name no entity type: give them as types")
        labels = LabelReader(types)
        dataset = self._dataset or ""
        report = self.report
        for number, paragraph, words, given in self._read_words():
            try:
                if not paragraph.is_plain:
                    check_words(words)
                read = labels.read(given)
            except ValueError as error:
                self._refuse(error, paragraph.line)
                continue
            report.repaired_labels = labels.repaired
            yield Sentence(words, read, types, dataset, str(number))

    def _read_words(self) -> Iterator[tuple[int, Paragraph, list[str], list[str]]]:
        """Number, lines, words and labels of each sentence."""
        counts = ColumnCounts()
        with open_input(self.path) as source:
            paragraphs = read_paragraphs(source)
            first = list(islice(paragraphs, _LOOKED_AT))
            columns = self._find_columns(first)
            number = 0
            for paragraph in _chain(first, paragraphs):
                if self._progress is not None:
                    self._progress(source.read_bytes)
                try:
                    words, labels = read_lines(self.name, paragraph, columns, counts)
                except ValueError as error:
                    self._refuse(error, paragraph.line)
                    continue
                if words:
                    yield number, paragraph, words, labels
                    number += 1
        self.report.comments, self.report.documents = counts.comments, counts.documents

    def _find_columns(self, paragraphs: list[Paragraph]) -> Columns:
        return find_columns(self.name, paragraphs, *self._columns)

    def _types_of_columns(self) -> list[str]:
        """The types of a file's labels, in the order of the alphabet."""
        self._check_twice()
        found: set[str] = set()
        counts = ColumnCounts()
        with open_input(self.path) as source:
            paragraphs = read_paragraphs(source)
            first = list(islice(paragraphs, _LOOKED_AT))
            columns = self._find_columns(first)
            for paragraph in _chain(first, paragraphs):
                try:
                    found.update(read_lines(self.name, paragraph, columns, counts)[1])
                except ValueError:
                    if not self._skips:
                        raise
        if not found and not self._skips:
            raise ValueError(f"{self.name}: there are no sentences")
        self.report.types_from = "labels"
        return _names(found)

    # Rows.

    def _read_rows(self) -> Iterator[Sentence]:
        reader = RowReader(self.path, skip_bad_rows=self._skips, progress=self._progress)
        parser = RowParser(self._types, self._dataset or "")
        found: dict[str, list[str]] | None = None
        report = self.report
        for line, row in reader:
            report.add_bad_rows(reader)
            try:
                if found is None and not self._types and not read_types(row):
                    found = self._types_of_rows(parser)
                sentence = parser.parse(row, found)
            except (TypeError, ValueError) as error:
                self._refuse(error, line)
                continue
            report.repaired_labels, report.cut_words = parser.labels.repaired, parser.cut_words
            yield sentence
        report.add_bad_rows(reader)

    def _types_of_rows(self, parser: RowParser) -> dict[str, list[str]]:
        """The types of the labels of each data set, in the order of the alphabet."""
        self._check_twice()
        found: dict[str, set[str]] = {}
        for _, row in RowReader(self.path, skip_bad_rows=True):
            try:
                found.setdefault(parser.name_dataset(row), set()).update(types_in(row))
            except TypeError:
                continue  # it is refused when the sentences are read
        self.report.types_from = "labels"
        return {dataset: sorted(types) for dataset, types in found.items()}

    # A folder of the library `datasets`.

    def _read_dataset(self, folder: Path) -> Iterator[Sentence]:
        if self._format not in ("auto", "datasets"):
            raise ValueError(f"{self.name}: format {self._format} reads a file: got a folder")
        table = folders.open_dataset(folder, self._split)
        dataset = self._dataset or folder.resolve().name
        types = [*dict.fromkeys([*table.types, *self._types])]
        if not types:
            types = _names(label for _, labels in table for label in labels)
            self.report.types_from = "labels"
        labels = LabelReader()
        for number, (words, given) in enumerate(table):
            try:
                sentence = make_sentence(
                    words, given, types, dataset=dataset, id=str(number), reader=labels
                )
            except (TypeError, ValueError) as error:
                self._refuse(error, number + 1)
                continue
            self.report.repaired_labels = labels.repaired
            yield sentence


class ReadReport:
    """What a reader met.

    Example:
        >>> ReadReport().sentences
        0
    """

    def __init__(self) -> None:
        self.sentences = 0
        self.bad_rows = 0
        """Sentences that could not be used."""
        self.listed_bad_rows: list[str] = []
        """Place and problem of the first 1000 of them."""
        self.repaired_labels = 0
        """Labels that go on with an entity where none of their type is open, and begin one."""
        self.cut_words = 0
        """Words that were cut at the edge of an entity of a list."""
        self.comments = 0
        self.documents = 0
        self.types_from = ""
        """Where types come from that neither rows nor arguments name: `labels`, `label.txt`."""
        self._added = 0

    def note(self, problem: str) -> None:
        """Counts and lists a sentence that cannot be used.

        Args:
            problem: what is wrong with it, and where it stands.
        """
        self.bad_rows += 1
        if len(self.listed_bad_rows) < _LISTED_SENTENCES:
            self.listed_bad_rows.append(problem)

    def add_bad_rows(self, reader: RowReader) -> None:
        """Adds the rows that are none, which the reader of rows left out.

        Args:
            reader: it.
        """
        new = reader.bad_rows - self._added
        if new:
            self.listed_bad_rows += reader.listed_bad_rows[self._added :]
            del self.listed_bad_rows[_LISTED_SENTENCES:]
            self.bad_rows += new
            self._added = reader.bad_rows


def name_dataset(path: str | os.PathLike[str]) -> str:
    """Returns the name of the data set of a file: that of the file, or of its folder.

    Args:
        path: the file.

    Example:
        >>> [name_dataset(path) for path in ("ner/music/train.txt", "letters.jsonl.gz", "-")]
        ['music', 'letters', 'input']
    """
    if is_standard(path):
        return "input"
    file = Path(os.fspath(path).removesuffix(".gz"))
    if file.stem in _SPLITS:
        return file.resolve().parent.name or file.stem
    return file.stem


def _names(labels: Iterator[str] | set[str]) -> list[str]:
    """The types of labels; labels that are none are refused when the sentences are read."""
    return sorted({label[2:] for label in labels if label[1:2] == "-" and label[2:]})


def _chain(first: list[Paragraph], rest: Iterator[Paragraph]) -> Iterator[Paragraph]:
    yield from first
    first.clear()
    yield from rest
