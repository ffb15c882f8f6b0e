"""Texts become groups of tokens of one length, as a model is pre-trained on them.

Each document is tokenized as plain text and ended with `</s>`; the documents of all files stand
one behind the other, and are cut into groups. What is left at the end is no group: it is counted,
and its ids are kept in `PREFIX.json` beside the other numbers. (The authors' tool cuts each
thousand lines by itself, and drops what is left of them.)

A run that ended early goes on: what is done lies in hidden files beside the output until the end,
and becomes the same bytes. Source: OpenBA (arXiv 2309.10706), stage I; specification section 5.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmcore._files import find_file, find_output, naming_errors, whole_file
from lmcore._partial import Partial, State
from lmcore._streams import is_standard
from lmcore.openba.documents import FORMS, RawDocument, find_form, read_documents
from lmcore.openba.encoding import TextEncoder, count_cores
from lmcore.openba.indexed import choose_dtype, make_group_index

# Text that is tokenized at once, for each core: little enough that memory is no matter, and much
# enough that every core has documents to work on.
_BYTES_AT_ONCE = 1 << 17
_DOCUMENTS_AT_ONCE = 1 << 10
_LISTED_ROWS = 1000
_SAVE_SECONDS = 1.0


@dataclass(kw_only=True, slots=True, frozen=True)
class PackSummary:
    """What became of the documents."""

    documents: int
    """Those that have tokens."""
    groups: int
    tokens: int
    """In groups, with the ends of documents."""
    remainder: list[int] = field(repr=False)
    """The ids behind the last group, fewer than make one."""
    bad_rows: int
    """Documents that could not be used."""
    listed_bad_rows: list[str]
    """Place and problem of the first 1000 of them."""
    resumed_documents: int
    """Those that an earlier start did."""
    vocabulary_size: int
    dtype: str
    """Of the tokens: uint16 or int32."""
    length: int
    """Tokens of a group."""


def pack_files(
    files: Sequence[str | os.PathLike[str]],
    tokenizer: Any,
    prefix: str | os.PathLike[str],
    *,
    length: int = 568,
    form: str = "auto",
    resume: bool = True,
    skip_bad_rows: bool = False,
    progress: Callable[[int], object] | None = None,
) -> PackSummary:
    """Writes the groups of texts into `PREFIX.bin` and `PREFIX.idx`, and returns what there was.

    Texts are plain: `</s>` or `<S>` in one of them is segmented as any other text.

    Args:
        files: text files (a line is a document), JSONL (`text`), parquet (column `text`).
        tokenizer: `OpenBATokenizer`, or another of transformers with a backend and an end.
        prefix: the outputs' name; a third one, `PREFIX.json`, says what is in them.
        length: tokens of a group; 568 and what a denoiser adds is the 570 that an encoder reads.
        form: of the files: `auto`, `text`, `jsonl` or `parquet`.
        resume: go on where an earlier start ended, if one did; or start anew.
        skip_bad_rows: count and list documents that cannot be used instead of raising.
        progress: called with the bytes read so far, of all files.

    Raises:
        FileExistsError: another process packs into these files, or an earlier start did so from
            other inputs or in another way.
        ImportError: pyarrow is not installed, and a file is of parquet.
        OSError: a file cannot be read or written.
        TypeError: the tokenizer has no backend.
        ValueError: a document cannot be used, there is not one group, an output is an input, or
            an argument is out of its range.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from lmcore.openba import IndexedDataset, OpenBATokenizer
        >>> from lmcore.worlds.openba import make_world, write_piece_file
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     pieces, text = Path(folder, "spiece.model"), Path(folder, "a.txt")
        ...     _ = write_piece_file(pieces), text.write_text(make_world(0, documents=20).to_text())
        ...     summary = pack_files([text], OpenBATokenizer(pieces), Path(folder, "a"), length=100)
        ...     summary.documents, summary.groups == len(IndexedDataset(Path(folder, "a")))
        (20, True)
    """
    if not 1 <= length <= 2**31 - 1:
        raise ValueError(f"length must be from 1 to {2**31 - 1}: got {length}")
    if not files:
        raise ValueError("give at least one file: got none")
    name = os.fspath(prefix)
    outputs = PackOutputs(name, files)
    encoder = PackEncoder(tokenizer)
    recipe: dict[str, Any] = {
        "files": [os.fspath(file) for file in files], "forms": [find_form(f, form) for f in files],
        "tokenizer": encoder.digest, "length": length,
    }  # fmt: skip
    with Partial(f"{name}.bin", outputs.tokens) as partial:
        run = PackRun(partial, encoder, recipe, resume)
        try:
            run.pack(read_documents(files, form=form, progress=progress), skip_bad_rows)
            summary = run.summarize(length, recipe["files"])
        except BaseException:
            run.keep()
            raise
        outputs.write(partial, summary, encoder.dtype)
    return summary


class PackEncoder(TextEncoder["PackBatch"]):
    """Ids of plain texts with the ends of documents.

    Args:
        tokenizer: of transformers, with a backend and an end.

    Attributes:
        digest: what tells it from another.
        dtype: of the ids.
        vocabulary_size: they are below it.

    Raises:
        TypeError: it has no backend, or no end.
    """

    def __init__(self, tokenizer: Any) -> None:
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None or getattr(tokenizer, "eos_token_id", None) is None:
            kind = type(tokenizer).__name__
            raise TypeError(f"tokenizer must have a backend and an end of texts: got {kind}")
        content = backend.to_str()
        self.digest = hashlib.blake2b(content.encode(), digest_size=16).hexdigest()
        # A copy: what special tokens in a text are is set for the whole backend.
        super().__init__(type(backend).from_str(content))
        self.end = int(tokenizer.eos_token_id)
        self.vocabulary_size = len(tokenizer)
        self.dtype = choose_dtype(self.vocabulary_size)

    def _collect(self, batch: PackBatch, found: Sequence[Any]) -> tuple[PackBatch, NDArray[Any]]:
        rows = [encoding.ids for encoding in found]
        ends = [self.end]
        # As by the authors, a text without tokens has no end either.
        parts = [part for row in rows if row for part in (row, ends)]
        batch.documents = len(parts) // 2
        count = sum(map(len, parts))
        return batch, np.fromiter(chain.from_iterable(parts), self.dtype, count)


@dataclass(slots=True)
class PackBatch:
    """Documents that are tokenized together, and where the input is behind them."""

    texts: list[str] = field(default_factory=list)
    size: int = 0
    line: int = 0
    digest: str = ""
    bad_rows: int = 0
    listed_bad_rows: list[str] = field(default_factory=list)
    documents: int = 0
    """Those that have tokens."""


class PackRun:
    """Tokens of all documents, written to a file that is not whole yet.

    Args:
        partial: that file.
        encoder: makes ids of texts.
        recipe: all that they depend on besides the inputs.
        resume: go on where an earlier run ended, if one did.
    """

    def __init__(self, partial: Partial, encoder: PackEncoder, recipe: Any, resume: bool) -> None:
        self._partial = partial
        self._encoder = encoder
        self._state = (partial.load(recipe) if resume else None) or State(recipe=recipe)
        self._output_digest = partial.cut(self._state)
        self._resumed = self._state.rows
        self._saved = time.monotonic()

    def pack(self, documents: Iterator[RawDocument], skip_bad_rows: bool) -> None:
        """Tokenizes what is not done yet.

        Args:
            documents: all of them.
            skip_bad_rows: count and list those that cannot be used instead of raising.
        """
        state = self._state
        for batch, ids in self._encoder.encode_ahead(self._read(documents, skip_bad_rows)):
            content = ids.tobytes()
            with naming_errors(self._partial.name):
                self._partial.file.write(content)
            self._output_digest.update(content)
            state.output_bytes += len(content)
            state.rows += batch.documents
            state.line, state.input_digest = batch.line, batch.digest
            state.bad_rows += batch.bad_rows
            room = _LISTED_ROWS - len(state.listed_bad_rows)
            state.listed_bad_rows += batch.listed_bad_rows[:room]
            if time.monotonic() - self._saved >= _SAVE_SECONDS:
                self._save()

    def summarize(self, length: int, files: list[str], *, least: int = 1) -> PackSummary:
        """Returns what there is, with the ids behind the last group.

        Args:
            length: tokens of a group.
            files: names of the inputs.
            least: groups that there must be.

        Raises:
            ValueError: there are fewer.
        """
        state, dtype = self._state, self._encoder.dtype
        tokens = state.output_bytes // dtype.itemsize
        groups = tokens // length
        if groups < least:
            state.line = 0  # there is nothing to go on with
            raise ValueError(
                f"{', '.join(files):.200}: expected {length} tokens for a group, got {tokens} in "
                f"{state.rows} documents"
            )
        file = self._partial.file
        with naming_errors(self._partial.name):
            file.flush()
            file.seek(groups * length * dtype.itemsize)
            remainder = np.frombuffer(file.read(), dtype).tolist()
        return PackSummary(
            documents=state.rows, groups=groups, tokens=groups * length, remainder=remainder,
            bad_rows=state.bad_rows, listed_bad_rows=state.listed_bad_rows,
            resumed_documents=self._resumed, vocabulary_size=self._encoder.vocabulary_size,
            dtype=dtype.name, length=length,
        )  # fmt: skip

    def keep(self) -> None:
        """Saves what is done before an early end, or removes the files if that is nothing."""
        if self._state.line:
            with suppress(OSError):  # the state before is whole, too
                self._save()
        else:
            self._partial.remove()

    def parse(self, document: RawDocument) -> list[str]:
        """Returns the texts of a document.

        Args:
            document: as it lies in its file.

        Raises:
            ValueError: it cannot be used.
        """
        return [document.parse()]

    def _read(self, documents: Iterator[RawDocument], skip_bad_rows: bool) -> Iterator[PackBatch]:
        """Batches of the documents that are not done yet."""
        begin, expected = self._state.line, self._state.input_digest
        digest = hashlib.blake2b(digest_size=16)
        cores = count_cores()
        most = _BYTES_AT_ONCE * cores
        batch, number = PackBatch(), 0
        for number, document in enumerate(documents, 1):
            digest.update(document.content + b"\n")
            if number == begin and digest.hexdigest() != expected:
                raise self._foreign(document)
            if number <= begin:
                continue
            try:
                batch.texts += self.parse(document)
            except ValueError as error:
                problem = f"{document.name}:{document.line}: {error}"
                if not skip_bad_rows:
                    raise ValueError(problem) from None
                batch.bad_rows += 1
                batch.listed_bad_rows.append(problem)
            batch.size += len(document.content)
            if batch.size >= most or len(batch.texts) >= _DOCUMENTS_AT_ONCE * cores:
                batch.line, batch.digest = number, digest.hexdigest()
                yield batch
                batch = PackBatch()
        if number < begin:
            raise self._foreign(None)
        if batch.size:
            batch.line, batch.digest = number, digest.hexdigest()
            yield batch

    def _foreign(self, document: RawDocument | None) -> FileExistsError:
        place = "the inputs" if document is None else document.name
        return FileExistsError(
            f"{self._partial.name}: {self._state.rows} documents of it are there, made from "
            f"another beginning of {place}; start anew without resume"
        )

    def _save(self) -> None:
        self._state.output_digest = self._output_digest.hexdigest()
        self._partial.save(self._state)
        self._saved = time.monotonic()


class PackOutputs:
    """The three files of a prefix.

    Args:
        prefix: their name.
        files: the inputs, which they must not be.

    Attributes:
        tokens: where the tokens go.

    Raises:
        OSError: one cannot be written.
        ValueError: one is an input, a device or a pipe.
    """

    def __init__(self, prefix: str, files: Sequence[str | os.PathLike[str]]) -> None:
        if not prefix or prefix.endswith(os.sep):
            raise ValueError(f"the outputs need a name, got {prefix!r}")
        inputs = ["/dev/stdin" if is_standard(file) else file for file in files]
        self.prefix = prefix
        self.tokens = find_file(f"{prefix}.bin", inputs)
        self._index, self._numbers = (
            find_output(f"{prefix}.{ending}", inputs) for ending in ("idx", "json")
        )

    def write(self, partial: Partial, summary: PackSummary, dtype: np.dtype[Any]) -> None:
        """Gives the tokens their name, last: with them, all is there.

        Args:
            partial: the tokens.
            summary: what there is.
            dtype: of the tokens.
        """
        numbers = asdict(summary)
        del numbers["resumed_documents"]  # the same bytes, however often it was started
        self.describe(numbers, lambda: make_group_index(summary.groups, summary.length, dtype))
        # From here on a killed run starts anew: its tokens are no longer those of its state.
        partial.state.unlink(missing_ok=True)
        with naming_errors(partial.name):
            partial.file.truncate(summary.tokens * dtype.itemsize)
        partial.finish(is_gzip=False)

    def describe(self, numbers: dict[str, Any], index: Callable[[], Iterable[bytes]]) -> None:
        """Writes all but the tokens; those of an earlier run are removed.

        Args:
            numbers: what there is, as JSON.
            index: makes the bytes of the index.
        """
        # An old index never stands beside new tokens, nor a new one beside old ones.
        self.tokens.unlink(missing_ok=True)
        with whole_file(f"{self.prefix}.json") as place:
            place.write_text(json.dumps(numbers, ensure_ascii=False) + "\n", encoding="utf-8")
        with whole_file(f"{self.prefix}.idx") as place, open(place, "wb") as file:
            file.writelines(index())


__all__ = [
    "FORMS", "PackBatch", "PackEncoder", "PackOutputs", "PackRun", "PackSummary", "pack_files",
]  # fmt: skip
