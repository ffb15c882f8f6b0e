"""Rows of tasks, checked once and kept in a file without a name until they are written.

In memory a row is 16 bytes: where it lies, how long it is, and of which task and language.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from json import loads
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from lmcore._files import naming_errors
from lmcore._rows import Progress, RowReader, parse_row
from lmcore._streams import is_standard
from lmcore.openba.templates import Choices, PairTemplate, check_language, find_text
from lmcore.ops.philox import Stream, random_bits

_ROWS_AT_ONCE = 4096
_MOST_BYTES = 2**32 - 1
_LISTED_ROWS = 1000


class Group(NamedTuple):
    """The rows of a task in one language."""

    task: str
    language: str
    templates: tuple[int, ...]
    """Which of the task's templates they may become instructions by."""


@dataclass(slots=True)
class BadRows:
    """Rows that cannot be used, of all files."""

    count: int = 0
    listed: list[str] = field(default_factory=list)
    """Place and problem of the first 1000 of them."""


class RowPool:
    """The rows of files, by task and language.

    Args:
        templates: those of each task.
        named: how errors call the templates.
        language: of rows that name none, where their templates name none either.
        seed: of the choice of a language, where templates of both fit a row.
        folder: where the rows are kept meanwhile; None for the system's own.

    Attributes:
        groups: what there is, in the order in which it came.
        bad_rows: what could not be used.

    Example:
        >>> import tempfile
        >>> from lmcore.openba.templates import Template
        >>> templates = {"qa": [PairTemplate(Template("{q}?"), Template("{a}"), "en")]}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder, "qa.jsonl")
        ...     _ = file.write_text('{"q": "Why", "a": "So."}')
        ...     with RowPool(templates, named="t.json") as pool:
        ...         pool.read([file])
        ...         pool.groups, pool.take([0])
        ([Group(task='qa', language='en', templates=(0,))], [{'q': 'Why', 'a': 'So.'}])
    """

    def __init__(
        self,
        templates: Mapping[str, Sequence[PairTemplate]],
        *,
        named: str,
        language: str | None = None,
        seed: int = 0,
        folder: Path | None = None,
    ) -> None:
        self.groups: list[Group] = []
        self.bad_rows = BadRows()
        self._tasks = {name: _Task(items, language) for name, items in templates.items()}
        self._named = named
        self._seed = seed
        self._folder = folder
        self._numbers: dict[tuple[str, str], int] = {}
        self._offsets, self._lengths, self._of_group = array("q"), array("I"), array("I")
        self._stack = ExitStack()
        self._file: IO[bytes] | None = None

    def __enter__(self) -> Self:
        self._file = self._stack.enter_context(TemporaryFile(dir=self._folder))
        return self

    def __exit__(self, *_: object) -> None:
        with self._stack:
            pass

    def __len__(self) -> int:
        return len(self._offsets)

    @property
    def numbers(self) -> NDArray[np.uint32]:
        """`[rows]`: the number of each row's group."""
        return np.frombuffer(self._of_group, np.uint32) if len(self) else np.zeros(0, np.uint32)

    @property
    def lengths(self) -> NDArray[np.uint32]:
        """`[rows]`: bytes of each row."""
        return np.frombuffer(self._lengths, np.uint32) if len(self) else np.zeros(0, np.uint32)

    def read(
        self,
        files: Sequence[str | os.PathLike[str]],
        *,
        skip_bad_rows: bool = False,
        progress: Progress | None = None,
    ) -> None:
        """Reads the rows of files.

        Args:
            files: JSONL; `.gz` is decompressed, `-` is standard input. A row's task stands under
                `task`, or else is the name of its file.
            skip_bad_rows: count and list rows that cannot be used instead of raising.
            progress: called with the bytes read so far, of all files.

        Raises:
            OSError: a file cannot be read, or the rows cannot be kept.
            ValueError: a row cannot be used; the text names file and line.
        """
        before = 0
        for path in files:
            read = 0

            def count(done: int) -> None:
                nonlocal read
                read = done
                if progress is not None:
                    progress(before + done)  # noqa: B023 - called within this turn alone

            reader = RowReader(path, skip_bad_rows=skip_bad_rows, progress=count)
            rows = self._check(reader, name_task(path))
            while block := list(islice(rows, _ROWS_AT_ONCE)):
                self._add(block)
            self.bad_rows.count += reader.bad_rows
            room = _LISTED_ROWS - len(self.bad_rows.listed)
            self.bad_rows.listed += reader.listed_bad_rows[:room]
            before += read
        with naming_errors(self._folder or "a temporary file"):
            self._kept.flush()

    def take(self, rows: Sequence[int] | NDArray[np.integer[Any]]) -> list[dict[str, Any]]:
        """Returns rows by their numbers.

        Args:
            rows: `[rows]` integers.

        Raises:
            OSError: they cannot be read.
        """
        descriptor = self._kept.fileno()
        numbers = np.asarray(rows, np.int64)
        offsets = np.frombuffer(self._offsets, np.int64)[numbers]
        lengths = np.frombuffer(self._lengths, np.uint32)[numbers]
        starts, sizes = offsets.tolist(), lengths.tolist()
        found: list[dict[str, Any]] = [{}] * len(numbers)
        # In the order of the file, so that the disk is gone over once.
        for place in np.argsort(offsets, kind="stable").tolist():
            # They were looked at when they were read.
            found[place] = loads(os.pread(descriptor, sizes[place], starts[place]))
        return found

    @property
    def _kept(self) -> IO[bytes]:
        assert self._file is not None
        return self._file

    def _check(self, reader: RowReader, name: str) -> Iterator[_Checked]:
        for line, content in reader.contents():
            try:
                if len(content) > _MOST_BYTES:
                    raise ValueError(f"expected at most {_MOST_BYTES} bytes, got {len(content)}")
                row = parse_row(content)
                task = row.get("task", name)
                if not isinstance(task, str) or task not in self._tasks:
                    raise ValueError(f"the task {task!r:.60} has no template in {self._named}")
                language = self._tasks[task].check(row)
                yield _Checked(task, language, content)
            except ValueError as error:
                problem = str(error)
            else:
                continue
            reader.refuse(line, problem)

    def _add(self, block: list[_Checked]) -> None:
        """Keeps rows, whose language is drawn where their templates leave it open."""
        items = range(len(self), len(self) + len(block))
        draws = random_bits(self._seed, Stream.INSTRUCTION_TEMPLATES, items, 1)[:, 0].tolist()
        with naming_errors(self._folder or "a temporary file"):
            place = self._kept.tell()
            self._kept.write(b"".join(content for _, _, content in block))
        for (task, language, content), draw in zip(block, draws, strict=True):
            known = language or self._tasks[task].choose(draw)
            number = self._numbers.get((task, known))
            if number is None:
                number = self._numbers[task, known] = len(self.groups)
                self.groups.append(Group(task, known, self._tasks[task].fitting(known)))
            self._offsets.append(place)
            self._lengths.append(len(content))
            self._of_group.append(number)
            place += len(content)


class _Checked(NamedTuple):
    task: str
    language: str | None
    """None where templates of both languages fit."""
    content: bytes


class _Task:
    """The templates of a task, and what its rows must hold."""

    def __init__(self, templates: Sequence[PairTemplate], language: str | None) -> None:
        self._templates = templates
        self._default = language
        named = [template.language for template in templates]
        self._named = set(named)
        fields: dict[str, int] = {}
        for number, template in enumerate(templates, 1):
            for name in template.fields:
                fields.setdefault(name, number)
        self._fields = fields
        sides = [("target", template.target) for template in templates]
        sides += [("source", template.source) for template in templates]
        # What a row must hold does not depend on which template it gets: of each a text that may
        # come out empty is filled, and of others the fields are looked at.
        self._bare = [(side, template) for side, template in sides if template.is_bare]
        self._slots: list[tuple[str, Choices | None]] = []
        for _, text in sides:
            self._slots += [slot for slot in text.slots if slot not in self._slots]

    def check(self, row: Mapping[str, Any]) -> str | None:
        """Returns a row's language, None where it is to be drawn, or raises ValueError."""
        for name, number in self._fields.items():
            if name not in row:
                raise ValueError(f"template {number} names the field {name!r:.60}, which is absent")
        for name, choices in self._slots:
            find_text(name, row, choices)
        for side, template in self._bare:
            if not template.fill(row).strip():
                raise ValueError(f"the {side} is empty")
        own = row.get("language")
        if own is not None:
            own = check_language(own)
            if not self.fitting(own):
                raise ValueError(f"the task has no template in the row's language, {own}")
            return own
        if self._named == {None}:
            if self._default is None:
                raise ValueError("neither the row nor its templates name a language")
            return self._default
        return None

    def choose(self, draw: int) -> str:
        """Returns the language of one of the templates."""
        named = [template.language or self._default for template in self._templates]
        known = [language for language in named if language is not None]
        return known[draw * len(known) >> 64]

    def fitting(self, language: str) -> tuple[int, ...]:
        """Returns which templates a row of a language may become an instruction by."""
        return tuple(
            number for number, template in enumerate(self._templates)
            if template.language in (None, language)
        )  # fmt: skip


def name_task(path: str | os.PathLike[str]) -> str:
    """Returns the task that a file is named after.

    Args:
        path: the file.

    Example:
        >>> name_task("data/cmrc2018.jsonl.gz"), name_task("-")
        ('cmrc2018', '-')
    """
    if is_standard(path):
        return "-"
    name = Path(path).name.removesuffix(".gz")
    return name.rpartition(".")[0] or name
