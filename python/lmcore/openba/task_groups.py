"""Groups of tokens of a task of a pipeline, and those of all tasks in one token file."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lmcore._extras import optional_imports
from lmcore._files import naming_errors
from lmcore._json import read_json
from lmcore._partial import Partial, State
from lmcore.openba.documents import RawDocument
from lmcore.openba.indexed import IndexedDataset, choose_dtype
from lmcore.openba.packing import PackEncoder, PackOutputs, PackRun, PackSummary
from lmcore.openba.task_files import COUNTS, GROUPS, TaskFolder

with optional_imports():
    from datatrove.pipeline.base import PipelineStep

_COPIED_BYTES = 1 << 24


class PackTexts(PipelineStep):  # type: ignore[misc]
    """Packs the documents of a task into groups of tokens, as `lmcore openba pack` does.

    Each task writes a token file of its own, `00000.bin`, `00000.idx` and `00000.json`; the ids
    behind its last group stand in the last one, for `MergeGroups`. A task that was killed goes on
    within its documents.

    Args:
        tokenizer: a SentencePiece file, or the folder of a tokenizer.
        folder: gets a token file of each task.
        length: tokens of a group.

    Raises:
        OSError: the tokenizer cannot be read.
        ValueError: it is none.

    Example:
        >>> PackTexts("nowhere.model", "groups")
        Traceback (most recent call last):
        FileNotFoundError: [Errno 2] No such file or directory: 'nowhere.model'
    """

    type = "writer"
    name = "lmcore groups"

    def __init__(
        self,
        tokenizer: str | os.PathLike[str],
        folder: str | os.PathLike[str],
        *,
        length: int = 568,
    ) -> None:
        super().__init__()
        self.tokenizer = os.fspath(tokenizer)
        self.folder = TaskFolder(folder, GROUPS)
        self.length = length
        self.digest = self._load().digest

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> None:
        """Packs the documents.

        Args:
            data: documents.
            rank: the task.
            world_size: of how many.

        Raises:
            OSError: a file cannot be written, or another process writes it.
            ValueError: the tokenizer has changed.
        """
        encoder = self._load()
        recipe = {"tokenizer": self.digest, "length": self.length}
        if encoder.digest != self.digest:
            raise ValueError(f"{self.tokenizer}: has changed since the pipeline was made")
        self.folder.begin(world_size, recipe)
        outputs = PackOutputs(os.fspath(self.folder.find(rank).with_suffix("")), [])
        with Partial(os.fspath(self.folder.find(rank)), outputs.tokens) as partial:
            run = PackRun(partial, encoder, {**recipe, "tasks": world_size}, True)
            try:
                run.pack(_to_raw(data), False)
                summary = run.summarize(self.length, [], least=0)
            except BaseException:
                run.keep()
                raise
            outputs.write(partial, summary, encoder.dtype)

    def _load(self) -> PackEncoder:
        from lmcore.openba.tokenization_openba import load_tokenizer

        return PackEncoder(load_tokenizer(self.tokenizer))


class MergeGroups(PipelineStep):  # type: ignore[misc]
    """Joins the token files of all tasks, in their order, to one; a stage of one task.

    Behind the groups of all tasks come those that the rests of all tasks make together. What is
    then left is no group: it is counted, and its ids stand in `PREFIX.json`.

    Args:
        folder: which `PackTexts` wrote.
        prefix: name of the outputs.

    Example:
        >>> MergeGroups("groups", "corpus").prefix
        'corpus'
    """

    type = "writer"
    name = "lmcore merge"

    def __init__(self, folder: str | os.PathLike[str], prefix: str | os.PathLike[str]) -> None:
        super().__init__()
        self.folder = TaskFolder(folder, GROUPS)
        self.prefix = os.fspath(prefix)

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> None:
        """Joins the files.

        Args:
            data: not used.
            rank: the task; the first one works.
            world_size: of how many.

        Raises:
            FileNotFoundError: a task is not done.
            OSError: a file cannot be read or written.
            ValueError: there is not one group, or a file is damaged.
        """
        if rank:
            return
        files = self.folder.list_files()
        parts = [_read_summary(file.with_suffix(COUNTS)) for file in files]
        first, rest = parts[0], [token for part in parts for token in part.remainder]
        more = len(rest) // first.length
        groups = sum(part.groups for part in parts) + more
        if not groups:
            raise ValueError(
                f"{self.folder.path}: expected {first.length} tokens for a group, got {len(rest)}"
            )
        summary = replace(
            first, groups=groups, tokens=groups * first.length,
            documents=sum(part.documents for part in parts), remainder=rest[more * first.length :],
        )  # fmt: skip
        outputs = PackOutputs(self.prefix, [])
        dtype = np.dtype(first.dtype)
        with Partial(f"{self.prefix}.bin", outputs.tokens) as partial:
            partial.cut(State(recipe=None))
            for file, part in zip(files, parts, strict=True):
                _check_part(file, part, first)
                with open(file, "rb") as source, naming_errors(partial.name):
                    shutil.copyfileobj(source, partial.file, _COPIED_BYTES)
            with naming_errors(partial.name):
                partial.file.write(np.array(rest[: more * first.length], dtype).tobytes())
                partial.file.flush()
            outputs.write(partial, summary, dtype)


def _to_raw(data: Any) -> Iterator[RawDocument]:
    """Documents as packing takes them: texts that are as they are."""
    for number, document in enumerate(data or (), 1):
        yield RawDocument(document.id, number, document.text.encode(), "text")


def _read_summary(file: Path) -> PackSummary:
    content = read_json(file, "the numbers of a packed text")
    try:
        found = PackSummary(**content, resumed_documents=0)
        numbers = [getattr(found, name) for name in ("documents", "groups", "tokens", "length")]
        tokens = found.remainder
        is_sound = (
            all(type(number) is int and number >= 0 for number in [*numbers, *tokens])
            and len(tokens) < found.length < 1 << 31
            and max(tokens, default=0) < found.vocabulary_size
            and found.dtype == choose_dtype(found.vocabulary_size).name
        )
    except (TypeError, ValueError):
        is_sound = False
    if not is_sound:
        raise ValueError(f"{file}: not the numbers of a packed text")
    return found


def _check_part(file: Path, part: PackSummary, first: PackSummary) -> None:
    """The file of a task, whose index is whole, and which is like the first one."""
    data = IndexedDataset(file.with_suffix(""))
    same = ("length", "dtype", "vocabulary_size")
    is_same = all(getattr(part, name) == getattr(first, name) for name in same)
    if not is_same or (len(data), data.dtype.name) != (part.groups, part.dtype):
        raise ValueError(f"{file}: its tokens are not those that its numbers speak of")
