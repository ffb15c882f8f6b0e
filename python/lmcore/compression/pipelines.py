"""Tokens counted by many tasks at once, as steps of datatrove's pipelines.

`CountTokens` counts the documents that pass, for instance between the reading and the packing of
`lmcore.openba.pipelines.make_stages`; `MergeCounts` adds up what all tasks counted, to the file of
`lmcore compression count`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lmcore._extras import optional_imports
from lmcore._files import find_file
from lmcore.compression.backends import hash_tokenizer, load_backend
from lmcore.compression.counting import BY, count_rows
from lmcore.compression.counts import ALL, Counts, read_counts, write_counts
from lmcore.compression.languages import LANGUAGES, find_languages
from lmcore.openba.encoding import TextEncoder
from lmcore.openba.task_files import TaskFolder

with optional_imports():
    from datatrove.pipeline.base import PipelineStep

_COUNTS = ".counts"
_CHARACTERS_AT_ONCE = 1 << 19


class CountTokens(PipelineStep):  # type: ignore[misc]
    """Counts how often each token of a tokenizer occurs in a task's documents, and hands them on.

    Args:
        tokenizer: its folder, or file; see `lmcore.compression.backends`.
        folder: gets a file of counts of each task.
        by: `group`, all documents together, or `language`, each by its script.

    Raises:
        OSError: there is no tokenizer, or it cannot be read.
        ValueError: it is none, or `by` is something else.

    Example:
        >>> import tempfile
        >>> from datatrove.data import Document
        >>> from lmcore.worlds.openba import write_piece_file
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = write_piece_file(Path(folder, "spiece.model"))
        ...     step = CountTokens(folder, Path(folder, "counts"))
        ...     _ = list(step([Document(text="Ada met Otto.", id="1")]))
        ...     read_counts(Path(folder, "counts/00000.counts")).tokens
        4
    """

    type = "counter"
    name = "lmcore tokens"

    def __init__(
        self,
        tokenizer: str | os.PathLike[str],
        folder: str | os.PathLike[str],
        *,
        by: str = "group",
    ) -> None:
        super().__init__()
        if by not in BY:
            raise ValueError(f"by must be one of {', '.join(BY)}: got {by!r:.60}")
        self.tokenizer = os.fspath(tokenizer)
        self.digest = load_backend(tokenizer).digest
        self.folder = TaskFolder(folder, _COUNTS)
        self.by = by

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> Iterator[Any]:
        """Yields the documents that it gets.

        Args:
            data: documents.
            rank: the task.
            world_size: of how many.

        Raises:
            OSError: a file cannot be read or written.
            ValueError: the tokenizer has changed.
        """
        if hash_tokenizer(self.tokenizer) != self.digest:
            raise ValueError(f"{self.tokenizer}: has changed since the pipeline was made")
        backend = load_backend(self.tokenizer)
        self.folder.begin(world_size, {"tokenizer": self.digest, "by": self.by})
        groups = list(LANGUAGES) if self.by == "language" else [ALL]
        counts = np.zeros((len(groups), backend.vocabulary_size), np.int64)
        encoder: TextEncoder[_Batch] = TextEncoder(backend.tokenizer)
        for batch, found in encoder.encode_ahead(_batched(data)):
            places = np.zeros(len(batch.texts), np.intp)
            if self.by == "language":
                places = find_languages(batch.texts)
            count_rows([encoding.ids for encoding in found], places, counts)
            yield from batch.documents
        found_counts = Counts(groups=dict(zip(groups, counts, strict=True)), tokenizer=self.digest)
        write_counts(self.folder.find(rank), found_counts)


class MergeCounts(PipelineStep):  # type: ignore[misc]
    """Adds up the counts of all tasks, into one file; a stage of one task.

    Args:
        folder: which `CountTokens` wrote.
        out: the file; see `lmcore.compression.counts`.

    Example:
        >>> MergeCounts("counts", "corpus.counts").out
        PosixPath('corpus.counts')
    """

    type = "writer"
    name = "lmcore counts"

    def __init__(self, folder: str | os.PathLike[str], out: str | os.PathLike[str]) -> None:
        super().__init__()
        self.folder = TaskFolder(folder, _COUNTS)
        self.out = Path(out)

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> None:
        """Adds them up.

        Args:
            data: not used.
            rank: the task; the first one works.
            world_size: of how many.

        Raises:
            FileNotFoundError: a task is not done.
            OSError: a file cannot be read or written.
            ValueError: a file is damaged, or all are empty.
        """
        if rank:
            return
        files = self.folder.list_files()
        whole = read_counts(files[0])
        for file in files[1:]:
            part = read_counts(file, vocabulary_size=whole.vocabulary_size)
            if (list(part.groups), part.tokenizer) != (list(whole.groups), whole.tokenizer):
                raise ValueError(f"{file}: counts of other groups, or of another tokenizer")
            for name, counts in part.groups.items():
                whole.groups[name][:] += counts
        if not whole.tokens:
            raise ValueError(f"{self.folder.path}: there are no tokens in it")
        write_counts(find_file(self.out), whole)


@dataclass(slots=True)
class _Batch:
    """Documents that are cut together."""

    documents: list[Any] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)


def _batched(data: Any) -> Iterator[_Batch]:
    batch, size = _Batch(), 0
    for document in data or ():
        batch.documents.append(document)
        batch.texts.append(document.text)
        size += len(document.text)
        if size >= _CHARACTERS_AT_ONCE:
            yield batch
            batch, size = _Batch(), 0
    if batch.documents:
        yield batch


__all__ = ["CountTokens", "MergeCounts"]
