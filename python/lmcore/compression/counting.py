"""Ids of corpora are counted: those of texts, and of files that hold ids already.

Texts are cut by all cores, and what came before is counted meanwhile. A run that ended early goes
on: its counts lie in hidden files beside the output until the end, and become the same bytes.

Source: OpenBA-V2 (arXiv 2405.05957), pruning of the vocabulary; specification section 5. The
authors count in a loop over a dictionary and leave special ids out; here texts are plain, so that
none of their ids is special, and what is special is kept whatever its count.
"""

from __future__ import annotations

import fnmatch
import hashlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lmcore._files import find_file, naming_errors
from lmcore._partial import Partial, State
from lmcore._streams import is_standard
from lmcore.compression.backends import Backend, find_tokenizer_file, load_backend
from lmcore.compression.corpora import IdCorpus, is_ids, open_ids
from lmcore.compression.counts import ALL, Counts, check_group, write_counts
from lmcore.compression.languages import LANGUAGES, find_languages
from lmcore.openba.documents import FORMS, RawDocument, find_form, read_documents
from lmcore.openba.encoding import TextEncoder, count_cores
from lmcore.ops.vocabulary import count_ids

BY = ("group", "language")
OTHER = "other"
"""The group of files that no other one names."""
# Text that is cut at once, for each core: counting it takes a table of the whole vocabulary.
_BYTES_AT_ONCE = 1 << 19
_DOCUMENTS_AT_ONCE = 1 << 11
# Ids of a file that are counted at once: a fraction of a second.
_IDS_AT_ONCE = 1 << 26
_LISTED_ROWS = 1000
_SAVE_SECONDS = 2.0


@dataclass(kw_only=True, slots=True, frozen=True)
class CountSummary:
    """What was counted."""

    counts: Counts
    documents: int
    """Texts, without those that could not be used."""
    tokens: int
    bad_rows: int
    """Texts that could not be used."""
    listed_bad_rows: list[str]
    """Place and problem of the first 1000 of them."""
    resumed_tokens: int
    """Those that an earlier start counted."""


def count_files(
    files: Sequence[str | os.PathLike[str]],
    tokenizer: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    groups: Sequence[tuple[str, str]] | None = None,
    by: str = "group",
    form: str = "auto",
    key: str = "text",
    resume: bool = True,
    skip_bad_rows: bool = False,
    progress: Callable[[int], object] | None = None,
) -> CountSummary:
    """Writes how often each id of a tokenizer occurs in corpora, and returns it.

    Args:
        files: text files (a line is a document), JSONL, parquet; and ids: prefixes of token files
            (`.bin` and `.idx`), `.npy`.
        tokenizer: its folder, or file; see `lmcore.compression.backends`.
        out: the file of counts; see `lmcore.compression.counts`.
        groups: names of groups, each with a pattern (`data/en/*`) of names of files; a file belongs
            to the first that fits, and to `other` if none does. Without it there is one, `all`.
        by: `group`, or `language`: each document by its script; see
            `lmcore.compression.languages`.
        form: of the texts: `auto`, `text`, `jsonl` or `parquet`.
        key: of the texts, in JSONL and parquet.
        resume: go on where an earlier start ended, if one did; or start anew.
        skip_bad_rows: count and list documents that cannot be used instead of raising.
        progress: called with the bytes done so far, of all files.

    Raises:
        FileExistsError: another process writes this file, or an earlier start did so from other
            inputs or in another way.
        ImportError: tokenizers is not installed; or pyarrow is not, and a file is of parquet.
        IndexError: a file of ids has one that the tokenizer lacks.
        OSError: a file cannot be read or written.
        ValueError: a document cannot be used, there are no tokens, a pattern fits no file, the
            output is an input, or an argument is out of its range.

    Example:
        >>> import tempfile
        >>> from lmcore.worlds.openba import make_world, write_piece_file
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = write_piece_file(Path(folder, "spiece.model"))
        ...     text = Path(folder, "a.txt")
        ...     _ = text.write_text(make_world(0, documents=20).to_text())
        ...     summary = count_files([text], folder, Path(folder, "counts"), by="language")
        >>> sorted(summary.counts.groups), summary.documents, summary.tokens > 500
        (['en', 'other', 'zh'], 20, True)
    """
    plan = _Plan.make(files, groups, by, form, key)
    backend = load_backend(tokenizer)
    inputs = ["/dev/stdin" if is_standard(file) else file for file in plan.inputs]
    target = find_file(out, [*inputs, find_tokenizer_file(tokenizer)])
    recipe = {**plan.recipe, "tokenizer": backend.digest}
    with Partial(os.fspath(out), target) as partial:
        run = _Run(partial, backend, plan, recipe, resume)
        try:
            run.count(skip_bad_rows, progress)
            summary = run.summarize()
            write_counts(target, summary.counts)
        except BaseException:
            run.keep()
            raise
        partial.remove()
    return summary


@dataclass(kw_only=True, slots=True, frozen=True)
class _Plan:
    """Which files are counted, and in which groups."""

    files: list[str]
    groups: list[str]
    places: list[int]
    """The group of each file, as its place."""
    corpora: dict[int, IdCorpus]
    """Files of ids, by their place."""
    by: str
    form: str
    key: str

    @classmethod
    def make(
        cls,
        files: Sequence[str | os.PathLike[str]],
        groups: Sequence[tuple[str, str]] | None,
        by: str,
        form: str,
        key: str,
    ) -> _Plan:
        if not files:
            raise ValueError("give at least one file: got none")
        if by not in BY:
            raise ValueError(f"by must be one of {', '.join(BY)}: got {by!r:.60}")
        if form not in FORMS:
            raise ValueError(f"format must be one of {', '.join(FORMS)}: got {form!r:.60}")
        names = [os.fspath(file) for file in files]
        corpora = {i: open_ids(name) for i, name in enumerate(names) if is_ids(name)}
        if by == "language":
            if groups:
                raise ValueError("groups and by=language exclude each other: give one of them")
            if corpora:
                name = next(iter(corpora.values())).name
                raise ValueError(f"{name}: ids have no language: give groups of files instead")
            known, places = list(LANGUAGES), [0] * len(names)
        else:
            known, places = _assign(names, groups or ())
        return cls(
            files=names, groups=known, places=places, corpora=corpora, by=by, form=form, key=key
        )

    @property
    def inputs(self) -> list[str]:
        """The files as they lie on the disk."""
        parts = [
            self.corpora[i].files if i in self.corpora else (name,)
            for i, name in enumerate(self.files)
        ]
        return [name for part in parts for name in part]

    @property
    def recipe(self) -> dict[str, Any]:
        """All that the counts depend on, but what stands in the texts."""
        return {
            "files": [
                self.corpora[i].stamp if i in self.corpora else [name, find_form(name, self.form)]
                for i, name in enumerate(self.files)
            ],
            "by": self.by, "groups": [self.groups, self.places], "key": self.key,
        }  # fmt: skip


def _assign(names: list[str], groups: Sequence[tuple[str, str]]) -> tuple[list[str], list[int]]:
    """Names of groups, and the group of each file."""
    if not groups:
        return [ALL], [0] * len(names)
    known = list(dict.fromkeys(check_group(group) for group, _ in groups))
    places = []
    for name in names:
        group = next((group for group, pattern in groups if _fits(name, pattern)), OTHER)
        if group not in known:
            known.append(group)
        places.append(known.index(group))
    for group, pattern in groups:
        if not any(_fits(name, pattern) for name in names):
            raise ValueError(f"group {group}: {pattern!r:.100} fits none of the files")
    return known, places


def _fits(name: str, pattern: str) -> bool:
    return name == pattern or fnmatch.fnmatchcase(name, pattern)


@dataclass(slots=True)
class _Batch:
    """Documents that are cut together, or ids; and where the input is behind them."""

    texts: list[str] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    """The group of each text, or of the ids."""
    ids: NDArray[Any] | None = None
    where: str = ""
    """Whose ids they are, and from which on."""
    size: int = 0
    line: int = 0
    digest: str = ""
    bad_rows: list[str] = field(default_factory=list)

    def end(self, line: int, digest: Any) -> _Batch:
        """The batch, which ends behind this line of the input."""
        self.line, self.digest = line, digest.hexdigest()
        return self


class _Ids(NamedTuple):
    """A part of a file of ids."""

    name: str
    start: int
    ids: NDArray[Any]


class _Run:
    """Counts of all documents, saved where a next start finds them."""

    def __init__(
        self, partial: Partial, backend: Backend, plan: _Plan, recipe: Any, resume: bool
    ) -> None:
        self._partial = partial
        self._plan = plan
        self._backend = backend
        self._snapshots = _Snapshots(partial, len(plan.groups), backend.vocabulary_size)
        self._state = (partial.load(recipe) if resume else None) or State(recipe=recipe)
        self._counts = self._snapshots.load(self._state)
        self._resumed = int(self._counts.sum())
        self._is_between = True  # whether counts and state agree
        self._saved = time.monotonic()

    def count(self, skip_bad_rows: bool, progress: Callable[[int], object] | None) -> None:
        """Counts what is not counted yet."""
        encoder: TextEncoder[_Batch] = TextEncoder(self._backend.tokenizer)
        state = self._state
        for batch, found in encoder.encode_ahead(self._read(skip_bad_rows, progress)):
            self._is_between = False
            self._add(batch, found)
            state.rows += len(batch.texts)
            state.line, state.input_digest = batch.line, batch.digest
            state.bad_rows += len(batch.bad_rows)
            room = _LISTED_ROWS - len(state.listed_bad_rows)
            state.listed_bad_rows += batch.bad_rows[:room]
            self._is_between = True
            if time.monotonic() - self._saved >= _SAVE_SECONDS:
                self._save()

    def summarize(self) -> CountSummary:
        """What there is."""
        state, tokens = self._state, int(self._counts.sum())
        if not tokens:
            state.line = 0  # there is nothing to go on with
            raise ValueError(f"{', '.join(self._plan.files):.200}: there are no tokens in it")
        groups = dict(zip(self._plan.groups, self._counts, strict=True))
        return CountSummary(
            counts=Counts(groups=groups, tokenizer=self._backend.digest),
            documents=state.rows, tokens=tokens, bad_rows=state.bad_rows,
            listed_bad_rows=state.listed_bad_rows, resumed_tokens=self._resumed,
        )  # fmt: skip

    def keep(self) -> None:
        """Saves what is done before an early end, or removes the files if that is nothing."""
        if not self._state.line:
            self._partial.remove()
        elif self._is_between:
            with suppress(OSError):  # the state before is whole, too
                self._save()

    def _add(self, batch: _Batch, found: Sequence[Any]) -> None:
        if batch.ids is not None:
            self._count(batch.ids, batch.places[0], batch.where)
        elif batch.texts:
            is_by_language = self._plan.by == "language"
            places = find_languages(batch.texts) if is_by_language else np.asarray(batch.places)
            count_rows([encoding.ids for encoding in found], places, self._counts)

    def _count(self, ids: NDArray[Any], place: int, where: str) -> None:
        try:
            count_ids(ids, self._backend.vocabulary_size, out=self._counts[place])
        except IndexError as error:
            raise IndexError(f"{where}: an id that the tokenizer lacks: {error}") from None

    def _read(
        self, skip_bad_rows: bool, progress: Callable[[int], object] | None
    ) -> Iterator[_Batch]:
        """Batches of what is not counted yet."""
        begin, expected = self._state.line, self._state.input_digest
        digest = hashlib.blake2b(digest_size=16)
        cores = count_cores()
        batch, number = _Batch(), 0
        for number, (place, unit) in enumerate(self._units(progress), 1):
            if isinstance(unit, _Ids) and batch.size:
                yield batch.end(number - 1, digest)
                batch = _Batch()
            digest.update(b"ids\n" if isinstance(unit, _Ids) else unit.content + b"\n")
            if number == begin and digest.hexdigest() != expected:
                raise self._foreign(unit.name)
            if number <= begin:
                continue
            if isinstance(unit, _Ids):
                where = f"{unit.name}, from token {unit.start} on"
                yield _Batch(ids=unit.ids, places=[place], where=where).end(number, digest)
                continue
            self._append(batch, place, unit, skip_bad_rows)
            is_long = len(batch.texts) >= _DOCUMENTS_AT_ONCE * cores
            if is_long or batch.size >= _BYTES_AT_ONCE * cores:
                yield batch.end(number, digest)
                batch = _Batch()
        if number < begin:
            raise self._foreign("the inputs")
        if batch.size:
            yield batch.end(number, digest)

    def _append(
        self, batch: _Batch, place: int, document: RawDocument, skip_bad_rows: bool
    ) -> None:
        try:
            batch.texts.append(document.parse(self._plan.key))
            batch.places.append(place)
        except ValueError as error:
            problem = f"{document.name}:{document.line}: {error}"
            if not skip_bad_rows:
                raise ValueError(problem) from None
            batch.bad_rows.append(problem)
        batch.size += len(document.content)

    def _units(
        self, progress: Callable[[int], object] | None
    ) -> Iterator[tuple[int, RawDocument | _Ids]]:
        """Documents and parts of files of ids, each with its group."""
        plan, done = self._plan, 0
        for index, (name, place) in enumerate(zip(plan.files, plan.places, strict=True)):
            read = 0

            def tell(count: int) -> None:
                nonlocal read
                read = count
                if progress is not None:
                    progress(done + count)  # noqa: B023 - it is called before the next file

            corpus = plan.corpora.get(index)
            if corpus is None:
                for document in read_documents([name], form=plan.form, key=plan.key, progress=tell):
                    yield place, document
                if not is_standard(name):
                    read = Path(name).stat().st_size
            else:
                for start in range(0, len(corpus.tokens), _IDS_AT_ONCE):
                    part = corpus.tokens[start : start + _IDS_AT_ONCE]
                    yield place, _Ids(corpus.name, start, part)
                    tell((start + len(part)) * part.itemsize)
            done += read

    def _foreign(self, place: str) -> FileExistsError:
        return FileExistsError(
            f"{self._partial.name}: {self._state.rows} documents of it are counted, of another "
            f"beginning of {place}; start anew without resume"
        )

    def _save(self) -> None:
        self._snapshots.save(self._state, self._counts)
        self._saved = time.monotonic()


def count_rows(
    rows: Sequence[Sequence[int]], places: NDArray[np.integer[Any]], counts: NDArray[np.int64]
) -> None:
    """Returns nothing once the ids of texts are counted, each in its group.

    Args:
        rows: N rows of ids, below V.
        places: `[N]` integers, the group of each row.
        counts: `[groups, V]` int64, which are added to.

    Raises:
        IndexError: an id is not below V.

    Example:
        >>> counts = np.zeros((2, 3), np.int64)
        >>> count_rows([[2, 2], [0], []], np.array([1, 0, 1]), counts)
        >>> counts.tolist()
        [[1, 0, 0], [0, 0, 2]]
    """
    for place in np.unique(places).tolist():
        chosen = [row for row, own in zip(rows, places, strict=True) if own == place]
        ids = np.fromiter(chain.from_iterable(chosen), np.uint32, sum(map(len, chosen)))
        try:
            count_ids(ids, counts.shape[1], out=counts[place], threads=1)
        except IndexError as error:
            raise IndexError(f"texts: an id that the tokenizer lacks: {error}") from None


class _Snapshots:
    """Counts as they lie beside the output: two in turn, of which the state names the whole one."""

    def __init__(self, partial: Partial, groups: int, size: int) -> None:
        self._partial = partial
        self._shape = (groups, size)
        self._bytes = 8 * groups * size

    def load(self, state: State) -> NDArray[np.int64]:
        """The counts that a state speaks of, or none."""
        file = self._partial.file
        if not state.line:
            self._partial.state.unlink(missing_ok=True)
            file.truncate(0)
            return np.zeros(self._shape, np.int64)
        if state.output_bytes not in (self._bytes, 2 * self._bytes):
            raise self._broken()
        with naming_errors(self._partial.name, self._partial.rows):
            file.seek(state.output_bytes - self._bytes)
            content = file.read(self._bytes)
        if len(content) < self._bytes or _digest(content) != state.output_digest:
            raise self._broken()
        return np.frombuffer(content, "<i8").astype(np.int64).reshape(self._shape)

    def save(self, state: State, counts: NDArray[np.int64]) -> None:
        """Writes counts beside those that the state speaks of, and then the state."""
        content = np.ascontiguousarray(counts, "<i8").tobytes()
        start = 0 if state.output_bytes != self._bytes else self._bytes
        with naming_errors(self._partial.name, self._partial.rows):
            self._partial.file.seek(start)
            self._partial.file.write(content)
        state.output_bytes = start + self._bytes
        state.output_digest = _digest(content)
        self._partial.save(state)

    def _broken(self) -> ValueError:
        return ValueError(
            f"{self._partial.name}: the counts of it that are there cannot be gone on with; start "
            "anew without resume"
        )


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()
