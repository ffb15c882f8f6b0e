"""Texts of a task of a pipeline: read, cleaned, written for a later stage, and counted."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lmcore._extras import optional_imports
from lmcore._files import find_file, write_text
from lmcore._json import read_json
from lmcore._rows import parse_row
from lmcore.openba.cleaning import CleanConfig, RuleCount, clean_texts
from lmcore.openba.documents import find_form, read_documents
from lmcore.openba.task_files import COUNTS, TEXTS, TaskFolder

with optional_imports():
    from datatrove.data import Document
    from datatrove.pipeline.base import PipelineStep

# Texts that are cleaned together: enough that a call costs nothing beside them.
_CHARACTERS_AT_ONCE = 1 << 20
_LISTED_ROWS = 1000


class ReadTexts(PipelineStep):  # type: ignore[misc]
    """Reads the documents of a task's files, as `lmcore openba pack` does.

    A document that cannot be used is an error, or counted; datatrove's readers leave it out.

    Args:
        files: as for `make_stages`.
        counts: a folder that gets the numbers of each task.
        form: of the files.
        skip_bad_rows: count and list documents that cannot be used instead of raising.

    Raises:
        FileNotFoundError: a file or the folder does not exist.
        ValueError: there is no file.

    Example:
        >>> ReadTexts("nowhere", "counts")
        Traceback (most recent call last):
        FileNotFoundError: [Errno 2] No such file or directory: 'nowhere'
    """

    type = "reader"
    name = "lmcore texts"

    def __init__(
        self,
        files: Sequence[str | os.PathLike[str]] | str | os.PathLike[str],
        counts: str | os.PathLike[str],
        *,
        form: str = "auto",
        skip_bad_rows: bool = False,
    ) -> None:
        super().__init__()
        self.files = _list_inputs(files)
        self.forms = [find_form(file, form) for file in self.files]
        self.counts = TaskFolder(counts, COUNTS)
        self.skip_bad_rows = skip_bad_rows

    @property
    def stamps(self) -> list[list[Any]]:
        """Name, form and bytes of each file."""
        pairs = zip(self.files, self.forms, strict=True)
        return [[file, form, Path(file).stat().st_size] for file, form in pairs]

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> Iterator[Any]:
        """Yields the documents of a task.

        Args:
            data: documents of a step before, which come first.
            rank: the task.
            world_size: of how many.

        Raises:
            OSError: a file cannot be read.
            ValueError: a document cannot be used.
        """
        if data:
            yield from data
        recipe = {"files": self.stamps, "skip_bad_rows": self.skip_bad_rows}
        self.counts.begin(world_size, recipe)
        found: dict[str, Any] = {"documents": 0, "bad_rows": 0, "listed_bad_rows": []}
        for file, form in list(zip(self.files, self.forms, strict=True))[rank::world_size]:
            for document in read_documents([file], form=form):
                place = f"{document.name}:{document.line}"
                try:
                    text = document.parse()
                except ValueError as error:
                    if not self.skip_bad_rows:
                        raise ValueError(f"{place}: {error}") from None
                    found["bad_rows"] += 1
                    if found["bad_rows"] <= _LISTED_ROWS:
                        found["listed_bad_rows"].append(f"{place}: {error}")
                    continue
                found["documents"] += 1
                yield Document(text=text, id=place)
        self.counts.write_json(rank, found)


class ReadTasks(PipelineStep):  # type: ignore[misc]
    """Reads what the same task of an earlier stage wrote.

    Args:
        folder: which `WriteTexts` wrote.

    Example:
        >>> ReadTasks("cleaned").folder.path
        PosixPath('cleaned')
    """

    type = "reader"
    name = "lmcore tasks"

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        super().__init__()
        self.folder = TaskFolder(folder, TEXTS)

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> Iterator[Any]:
        """Yields the documents of a task.

        Args:
            data: documents of a step before, which come first.
            rank: the task.
            world_size: of how many.

        Raises:
            FileNotFoundError: the stage before is not done.
            ValueError: it had another number of tasks, or a row is broken.
        """
        if data:
            yield from data
        file = self.folder.list_files(world_size)[rank]
        for document in read_documents([file], form="jsonl"):
            try:
                row = parse_row(document.content)
                found = [row.get(key) for key in ("text", "id")]
                if not all(isinstance(value, str) for value in found):
                    raise ValueError(f"expected a text and an id, got {found!r:.100}")
            except ValueError as error:
                raise ValueError(f"{document.name}:{document.line}: {error}") from None
            yield Document(*found)


class CleanTexts(PipelineStep):  # type: ignore[misc]
    """Cleans documents by `lmcore.openba.cleaning.clean_texts`, and drops those that it drops.

    Args:
        config: the rules; those on duplicates are steps of their own.
        counts: a folder that gets what each rule did, by task.
        threads: of a task; executors start one for each core.

    Example:
        >>> import tempfile
        >>> documents = [Document(text="Look: <b>it rains here</b>.", id="1")]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     step = CleanTexts(CleanConfig(minimum_words=3), folder)
        ...     [document.text for document in step(documents)]
        ['Look: it rains here.']
    """

    type = "formatter"
    name = "lmcore clean"

    def __init__(
        self, config: CleanConfig, counts: str | os.PathLike[str], *, threads: int = 1
    ) -> None:
        super().__init__()
        self.config = config
        self.counts = TaskFolder(counts, COUNTS)
        self.threads = threads

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> Iterator[Any]:
        """Yields documents with clean texts.

        Args:
            data: documents.
            rank: the task.
            world_size: of how many.

        Raises:
            ValueError: a text holds a lone surrogate.
        """
        self.counts.begin(world_size, {"config": asdict(self.config)})
        found: dict[str, RuleCount] = {}
        for batch in _batched(data):
            cleaned = clean_texts(
                [document.text for document in batch], self.config, threads=self.threads
            )
            for name, count in cleaned.counts.items():
                found[name] = _add(found.get(name, RuleCount()), count)
            for document, text in zip(batch, cleaned.texts, strict=True):
                if text is not None:
                    document.text = text
                    yield document
        self.counts.write_json(rank, {name: asdict(count) for name, count in found.items()})


class WriteTexts(PipelineStep):  # type: ignore[misc]
    r"""Writes the documents of a task as JSONL (`text`, `id`), and hands them on.

    Args:
        folder: gets a file of each task.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = list(WriteTexts(folder)([Document(text="It rains.", id="a.txt:1")]))
        ...     Path(folder, "00000.jsonl").read_text()
        '{"text": "It rains.", "id": "a.txt:1"}\n'
    """

    type = "writer"
    name = "lmcore texts"

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        super().__init__()
        self.folder = TaskFolder(folder, TEXTS)

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> Iterator[Any]:
        """Yields the documents that it gets.

        Args:
            data: documents.
            rank: the task.
            world_size: of how many.

        Raises:
            OSError: the file cannot be written, or another process writes it.
        """
        self.folder.begin(world_size, {})
        with self.folder.write(rank) as file:
            for document in data or ():
                row = {"text": document.text, "id": document.id}
                file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
                yield document


class MergeRules(PipelineStep):  # type: ignore[misc]
    """Adds up what the rules did in all tasks, into one JSON file; a stage of one task.

    Args:
        read: the folder of counts of `ReadTexts`.
        rules: those of `CleanTexts` and `DropDuplicates`.
        out: the file.

    Example:
        >>> MergeRules("read", ["rules"], "clean.json").out
        PosixPath('clean.json')
    """

    type = "writer"
    name = "lmcore counts"

    def __init__(
        self,
        read: str | os.PathLike[str],
        rules: Sequence[str | os.PathLike[str]],
        out: str | os.PathLike[str],
    ) -> None:
        super().__init__()
        self.read = TaskFolder(read, COUNTS)
        self.rules = [TaskFolder(folder, COUNTS) for folder in rules]
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
            ValueError: a file is broken.
        """
        if rank:
            return
        read = {"documents": 0, "bad_rows": 0}
        listed: list[str] = []
        for file in self.read.list_files():
            part = read_json(file, "counts of a task")
            with _refusing(file):
                for name in read:
                    read[name] += int(part[name])
                listed += part["listed_bad_rows"]
        found: dict[str, RuleCount] = {}
        for folder in self.rules:
            for file in folder.list_files():
                part = read_json(file, "counts of a task")
                with _refusing(file):
                    for name, count in part.items():
                        found[name] = _add(found.get(name, RuleCount()), RuleCount(**count))
        rules = {name: asdict(count) for name, count in found.items()}
        numbers = {**read, "listed_bad_rows": listed[:_LISTED_ROWS], "rules": rules}
        write_text(find_file(self.out), json.dumps(numbers, ensure_ascii=False, indent=2) + "\n")


def _list_inputs(files: Sequence[str | os.PathLike[str]] | str | os.PathLike[str]) -> list[str]:
    """Their names; those of a folder in order, without hidden ones."""
    if isinstance(files, str | os.PathLike):
        folder = Path(files)
        if not folder.is_dir():
            folder.stat()
            return [os.fspath(files)]
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        found = [os.fspath(path) for path in paths if not _is_hidden(path.relative_to(folder))]
        if not found:
            raise ValueError(f"{folder}: there are no files in it")
        return found
    if not files:
        raise ValueError("give at least one file: got none")
    for file in files:
        Path(file).stat()
    return [os.fspath(file) for file in files]


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _batched(data: Any) -> Iterator[list[Any]]:
    batch: list[Any] = []
    size = 0
    for document in data or ():
        batch.append(document)
        size += len(document.text)
        if size >= _CHARACTERS_AT_ONCE:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _add(one: RuleCount, two: RuleCount) -> RuleCount:
    return RuleCount(
        documents=one.documents + two.documents, characters=one.characters + two.characters
    )


@contextmanager
def _refusing(file: Path) -> Iterator[None]:
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError):
        raise ValueError(f"{file}: not the counts of a task") from None
