"""Files of examples, made of files of sentences."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from lmcore._rows import RowWriter
from lmcore.ner.example_lines import write_lines
from lmcore.ner.examples import ExampleConfig, ExampleReport
from lmcore.ner.reading import ReadReport, SentenceReader, read_sentences
from lmcore.ner.sampling import SampleConfig, Sampler
from lmcore.ner.sentences import Sentence


@dataclass(slots=True)
class InputSummary:
    """What became of an input."""

    name: str
    """As it was given."""
    report: ReadReport
    """What its reader met."""
    read: dict[str, int] = field(default_factory=dict)
    """Sentences by data set."""
    taken: dict[str, int] = field(default_factory=dict)
    """How many of them were taken, with copies."""
    types: tuple[str, ...] = ()
    """The types of its first sentence."""


@dataclass(slots=True)
class DataSummary:
    """What became of sentences."""

    inputs: list[InputSummary] = field(default_factory=list)
    """In the order in which they were given."""
    report: ExampleReport = field(default_factory=ExampleReport)
    """What was written."""

    @property
    def bad_rows(self) -> int:
        """Sentences that could not be used."""
        return sum(part.report.bad_rows for part in self.inputs)


def write_examples(
    sources: Sequence[str | os.PathLike[str]],
    target: str | os.PathLike[str],
    config: ExampleConfig | None = None,
    *,
    sample: SampleConfig | None = None,
    **reading: Any,
) -> DataSummary:
    r"""Writes the examples of files and folders into a JSONL file, and returns what became of them.

    A row holds dataset, id where there is one, types in the order of the instruction, words and
    labels, instruction and target; a window its place. It depends on the configs, the inputs and
    its number alone, so that the same call writes the same bytes. The file appears under its name
    when it is whole. At most the sentences of a data set that are taken are held in memory, and
    none if all are taken or the first ones.

    Args:
        sources: as for `read_sentences`.
        target: the file; a name that ends with `.gz` is compressed, `-` is standard output.
        config: how examples are written; `ExampleConfig()` if None.
        sample: which sentences are taken; `SampleConfig()` if None.
        reading: options of `read_sentences`, for all sources.

    Raises:
        OSError: a file cannot be read or written.
        ValueError: a sentence cannot be used, the target is a source, or there are no sources.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     source, target = Path(folder, "letters.txt"), Path(folder, "letters.jsonl")
        ...     _ = source.write_text("New\tB-city\nYork\tI-city\n\n")
        ...     summary = write_examples([source], target)
        ...     "New(B-city) York(I-city)" in target.read_text(), summary.report.rows
        (True, 1)
    """
    if not sources:
        raise ValueError("sources must name at least one file or folder: got none")
    summary = DataSummary()
    readers = [read_sentences(source, **reading) for source in sources]
    sampler = Sampler(SampleConfig() if sample is None else sample)
    # The files of a folder are read, not the folder.
    inputs = [path for reader in readers for path in reader.files]
    with RowWriter(target, inputs) as rows:
        sentences = _take(readers, sampler, summary)
        for lines in write_lines(sentences, config or ExampleConfig(), summary.report):
            rows.write_lines(lines)
        if not summary.report.rows:
            raise ValueError("there are no sentences")
    return summary


def _take(
    readers: list[SentenceReader], sampler: Sampler, summary: DataSummary
) -> Iterator[Sentence]:
    """The sentences that are taken of all inputs, which are counted one by one."""
    for reader in readers:
        part = InputSummary(reader.name, reader.report)
        summary.inputs.append(part)
        read, taken = sampler.read.copy(), sampler.taken.copy()
        for sentence in sampler.sample(reader):
            part.types = part.types or (*sentence.types,)
            yield sentence
        part.read = dict(sampler.read - read)
        part.taken = dict(sampler.taken - taken)
