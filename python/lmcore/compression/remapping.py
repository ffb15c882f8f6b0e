"""Corpora that are ids already, rewritten for a smaller vocabulary.

What has no new id is cut anew from its text where both tokenizers are given
(`lmcore.compression.retokenization`), or filled, or dropped as asked; else nothing is written, and
the error says which ids are gone and how often they occur.

| file | becomes |
| --- | --- |
| `PREFIX.bin` and `.idx` | the same items; groups of one length stay of that length: cut anew |
| `.npy` | an array of the same shape; of one axis also a longer or shorter one |
| `.parquet` | a table whose column of lists of ids is rewritten, and no other |

Source: OpenBA-V2 (arXiv 2405.05957), pruning of the vocabulary, which gives up the corpora that
were tokenized before.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from lmcore._files import find_file, naming_errors, whole_file
from lmcore.compression.backends import Backend, load_backend
from lmcore.compression.corpora import IdCorpus, find_prefix, open_ids
from lmcore.compression.record import read_record
from lmcore.compression.retokenization import Dropper, Filler, Retokenizer, Translator
from lmcore.openba.indexed import choose_dtype, make_group_index, make_index
from lmcore.ops.vocabulary import count_ids, rank_ids

NEW_DTYPES = ("uint16", "int32", "int64")
DTYPES = ("auto", *NEW_DTYPES)
_AT_ONCE = 1 << 20
_COUNTED_AT_ONCE = 1 << 26
_SHOWN = 5
# A larger vocabulary is none.
_MOST_IDS = 1 << 24
# The header of a file of numpy, of one axis: its length is known at the end.
_NPY_HEADER_BYTES = 128

Progress = Callable[[int], object]


@dataclass(kw_only=True, slots=True, frozen=True)
class RemapSummary:
    """What became of the ids."""

    tokens: int
    """Old ids."""
    new_tokens: int
    lost: int
    """Old ids that have no new one."""
    lost_ids: list[tuple[int, int]]
    """Which they are, and how many of each; the most frequent first."""
    unknown: int
    """New ids of unknown text, among those that were cut anew."""
    remainder: int
    """New ids behind the last group, which are in none."""
    dtype: str
    """Of the new ids."""

    def complete(self, translator: Translator, new_tokens: int, remainder: int = 0) -> RemapSummary:
        """Returns the summary with what is known at the end.

        Args:
            translator: what made the new ids.
            new_tokens: how many there are.
            remainder: those behind the last group.
        """
        unknown = getattr(translator, "unknown", 0)
        return replace(self, new_tokens=new_tokens, unknown=unknown, remainder=remainder)


def remap_file(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    record: str | os.PathLike[str],
    *,
    tokenizer: str | os.PathLike[str] | None = None,
    new_tokenizer: str | os.PathLike[str] | None = None,
    fill: int | None = None,
    drop: bool = False,
    dtype: str = "auto",
    column: str = "input_ids",
    progress: Progress | None = None,
) -> RemapSummary:
    """Writes the new ids of a corpus, and returns what became of the old ones.

    The outputs are whole under their names at the end, or not there.

    Args:
        source: a prefix of `.bin` and `.idx`, a `.npy` or a `.parquet` file of old ids.
        target: the output, of the same form.
        record: `pruning.json`, or the folder that it is in.
        tokenizer: the old tokenizer, for ids that are gone; see `lmcore.compression.backends`.
        new_tokenizer: the new one.
        fill: what an id becomes that is gone, and cannot be cut anew.
        drop: leave out such ids instead.
        dtype: of the new ids: `auto` (the smallest that holds them all; in parquet, that of the
            column), `uint16`, `int32` or `int64`.
        column: of lists of ids, in parquet.
        progress: called with the bytes of the source done so far.

    Raises:
        ImportError: tokenizers is not installed, and tokenizers are given; or pyarrow is not, and
            the file is of parquet.
        OSError: a file cannot be read or written.
        ValueError: ids are gone, and nothing says what becomes of them; the record is of other
            tokenizers or has no vocabulary; the form of the output cannot hold the result; a file
            is broken; or an argument is out of its range.

    Example:
        >>> import tempfile
        >>> from lmcore.compression.record import Record, write_record
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_record(folder, Record(source="ab", vocabulary_ids=np.array([0, 7, 5])))
        ...     np.save(Path(folder, "a.npy"), np.array([5, 7, 9, 5]))
        ...     summary = remap_file(
        ...         Path(folder, "a.npy"), Path(folder, "b.npy"), folder, drop=True
        ...     )
        ...     np.load(Path(folder, "b.npy")), summary.lost_ids
        (array([2, 1, 2], dtype=uint16), [(9, 1)])
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)}: got {dtype!r:.60}")
    if fill is not None and drop:
        raise ValueError("fill and drop exclude each other: give one of them")
    if (tokenizer is None) != (new_tokenizer is None):
        raise ValueError("tokenizer and new_tokenizer belong together: give both, or none")
    vocabulary = _Vocabulary.read(record)
    if fill is not None and not 0 <= fill < vocabulary.size:
        raise ValueError(f"fill must be at least 0 and below {vocabulary.size}: got {fill}")
    pair = None
    if tokenizer is not None and new_tokenizer is not None:
        pair = (load_backend(tokenizer), load_backend(new_tokenizer))
        vocabulary.check(*pair)
    rules = Rules(vocabulary=vocabulary, backends=pair, fill=fill, drop=drop, dtype=dtype)
    if os.fspath(source).endswith(".parquet"):
        from lmcore.compression.tables import remap_table

        found: RemapSummary = remap_table(source, target, column, rules, progress)
        return found
    corpus = open_ids(source)
    return (_remap_items if corpus.kind == "indexed" else _remap_array)(
        corpus, os.fspath(target), rules, progress
    )


@dataclass(kw_only=True, slots=True, frozen=True)
class _Vocabulary:
    """The new id of each old one."""

    name: str
    table: NDArray[np.int64]
    """`[old V]` int64; -1 where there is none."""
    old_ids: NDArray[np.int64]
    """`[new V]` int64; -1 where there is none."""

    @classmethod
    def read(cls, record: str | os.PathLike[str]) -> _Vocabulary:
        name, old_ids = os.fspath(record), read_record(record).vocabulary_ids
        if old_ids is None or not (old_ids >= 0).any():
            raise ValueError(f"{name}: the vocabulary was not pruned: the ids are what they were")
        new_ids = np.flatnonzero(old_ids >= 0)
        kept = old_ids[new_ids]
        order = np.argsort(kept, kind="stable")
        twice = np.flatnonzero(np.diff(kept[order]) == 0)
        if len(twice):
            raise ValueError(f"{name}: the old id {kept[order][twice[0]]} stands there twice")
        # A table has an entry for each old id: an absurd one must not take all memory.
        if kept.max() >= _MOST_IDS:
            raise ValueError(f"{name}: {kept.max()} is no id of a vocabulary")
        table = np.full(int(kept.max()) + 1, -1, np.int64)
        table[kept] = new_ids
        return cls(name=name, table=table, old_ids=old_ids)

    @property
    def size(self) -> int:
        """Number of new ids."""
        return len(self.old_ids)

    def check(self, old: Backend, new: Backend) -> None:
        """Refuses tokenizers whose tokens are not those that the record keeps."""
        for new_id, old_id in enumerate(self.old_ids.tolist()):
            texts = [
                backend.tokenizer.id_to_token(i) if i >= 0 else None
                for backend, i in ((old, old_id), (new, new_id))
            ]
            if None not in texts and texts[0] != texts[1]:
                raise ValueError(
                    f"{self.name}: not the record of these tokenizers: the old id {old_id} is "
                    f"{texts[0]!r:.60}, and the new id {new_id} {texts[1]!r:.60}"
                )

    def grow(self, size: int) -> _Vocabulary:
        """The same with a table of at least so many old ids."""
        more = np.full(max(0, size - len(self.table)), -1, np.int64)
        return replace(self, table=np.concatenate([self.table, more]))


@dataclass(kw_only=True, slots=True, frozen=True)
class Rules:
    """What becomes of old ids: the settings of `remap_file`, read and checked."""

    vocabulary: _Vocabulary
    backends: tuple[Backend, Backend] | None
    fill: int | None
    drop: bool
    dtype: str

    def choose_dtype(self, default: DTypeLike) -> np.dtype[Any]:
        """Returns the type of the new ids.

        Args:
            default: where none was asked for.

        Raises:
            ValueError: it does not hold them all.
        """
        kind = np.dtype(self.dtype if self.dtype != "auto" else default)
        if self.vocabulary.size - 1 > np.iinfo(kind).max:
            raise ValueError(f"dtype {kind} does not hold {self.vocabulary.size} ids")
        return kind

    def make(
        self, name: str, parts: Iterator[NDArray[Any]], dtype: np.dtype[Any]
    ) -> tuple[Translator, RemapSummary]:
        """Returns what translates ids, and what is known before: how many there are and are gone.

        Args:
            name: of the file, for errors.
            parts: all of its ids.
            dtype: of the new ones.

        Raises:
            ValueError: ids are gone, and nothing says what becomes of them.
        """
        old_size = 0 if self.backends is None else self.backends[0].vocabulary_size
        counts, outside, tokens = np.zeros(0, np.int64), 0, 0
        size = max(old_size, len(self.vocabulary.table))
        for part in parts:
            # The record does not say how many old ids there are; an absurd one is none of them.
            if self.backends is None and size <= (most := int(part.max(initial=0))) < _MOST_IDS:
                size = most + 1
            counts = np.concatenate([counts, np.zeros(size - len(counts), np.int64)])
            outside += count_ids(part, size, unknown=True, out=counts).unknown
            tokens += part.size
        table = self.vocabulary.grow(size).table
        counts = np.concatenate([counts, np.zeros(size - len(counts), np.int64)])
        counts[table >= 0] = 0
        lost = counts.sum() + outside
        ranked = rank_ids(counts)[: np.count_nonzero(counts)].tolist()
        summary = RemapSummary(
            tokens=tokens, new_tokens=tokens, lost=int(lost), unknown=0, remainder=0,
            lost_ids=[(i, int(counts[i])) for i in ranked], dtype=dtype.name,
        )  # fmt: skip
        return self._choose(name, table, counts, outside, summary), summary

    def _choose(
        self, name: str, table: NDArray[np.int64], counts: NDArray[np.int64], outside: int,
        summary: RemapSummary,
    ) -> Translator:  # fmt: skip
        if summary.lost == 0 or (self.backends is None and self.fill is not None):
            return Filler(table, self.fill, summary.dtype)
        if self.backends is None:
            if not self.drop:
                raise self._refuse(name, summary, outside, "--tokenizer and --new-tokenizer, ")
            return Dropper(table, summary.dtype)
        found = Retokenizer(table, *self.backends, self.fill, summary.dtype)
        without = [(i, count) for i, count in summary.lost_ids if not found.has_text[i]]
        if (without or outside) and self.fill is None and not self.drop:
            lost = sum(count for _, count in without) + outside
            left = replace(summary, lost=lost, lost_ids=without)
            raise self._refuse(name, left, outside, "", " and no text")
        return found

    def _refuse(
        self, name: str, summary: RemapSummary, outside: int, advice: str, more: str = ""
    ) -> ValueError:
        shown = []
        for i, count in summary.lost_ids[:_SHOWN]:
            text = None if self.backends is None else self.backends[0].tokenizer.id_to_token(i)
            shown.append(f"id {i}{'' if text is None else f' {text!r:.40}'}: {count}")
        rest = len(summary.lost_ids) - _SHOWN
        shown += [f"{rest} other ids"] if rest > 0 else []
        shown += [f"ids that the old vocabulary lacks: {outside}"] if outside else []
        return ValueError(
            f"{name}: {summary.lost} of {summary.tokens} ids have no new one{more} "
            f"({', '.join(shown)}): give {advice}--fill ID or --drop"
        )


class _Stream:
    """Ids that are translated by parts, one behind the other."""

    def __init__(
        self,
        translator: Translator,
        tokens: NDArray[np.integer[Any]],
        starts: NDArray[np.int64],
        progress: Progress | None,
    ) -> None:
        self._translator, self._tokens, self._starts = translator, tokens, starts
        self._progress = progress
        self.starts = np.zeros(len(starts), np.int64)
        """`[S]` int64: where parts begin among the new ids."""
        self.count = 0
        """New ids."""

    def __iter__(self) -> Iterator[NDArray[np.integer[Any]]]:
        tokens, place = self._tokens, 0
        while place < len(tokens):
            part = tokens[place : place + _AT_ONCE]
            end = place + len(part)
            if end < len(tokens):
                end = place + self._translator.find_cut(part)
            first, last = np.searchsorted(self._starts, [place, end])
            own = self._starts[first:last] - place
            new, self.starts[first:last] = self._translator.translate(tokens[place:end], own)
            self.starts[first:last] += self.count
            self.count += len(new)
            yield new
            place = end
            if self._progress is not None:
                self._progress(place * tokens.itemsize)
        self.starts[np.searchsorted(self._starts, len(tokens)) :] = self.count


def _parts(tokens: NDArray[Any]) -> Iterator[NDArray[Any]]:
    for start in range(0, len(tokens), _COUNTED_AT_ONCE):
        yield tokens[start : start + _COUNTED_AT_ONCE]


def _remap_items(
    corpus: IdCorpus, target: str, rules: Rules, progress: Progress | None
) -> RemapSummary:
    data = corpus.dataset
    assert data is not None
    prefix = target.removesuffix(".bin").removesuffix(".idx")
    if not Path(prefix).name:
        raise ValueError(f"the outputs need a name, got {target!r:.60}")
    dtype = rules.choose_dtype(choose_dtype(rules.vocabulary.size))
    find_file(f"{prefix}.idx", corpus.files)
    find_file(f"{prefix}.bin", corpus.files)
    translator, summary = rules.make(corpus.name, _parts(corpus.tokens), dtype)
    is_cut_anew = data.table is not None and not translator.keeps_lengths
    length = int(data.sizes[0, 0]) if is_cut_anew else 0
    sizes = data.sizes.reshape(-1)
    begins = np.zeros(0, np.int64) if is_cut_anew else np.cumsum(sizes, dtype=np.int64) - sizes
    stream = _Stream(translator, corpus.tokens, begins, progress)
    with whole_file(f"{prefix}.bin", corpus.files) as place:
        _write(f"{prefix}.bin", place, stream, dtype)
        groups, remainder = divmod(stream.count, length) if is_cut_anew else (0, 0)
        if is_cut_anew and not groups:
            raise ValueError(
                f"{corpus.name}: expected {length} tokens for a group, got {stream.count}"
            )
        if remainder:
            os.truncate(place, groups * length * dtype.itemsize)
        # An old index never stands beside new tokens.
        Path(f"{prefix}.idx").unlink(missing_ok=True)
    with whole_file(f"{prefix}.idx") as place, open(place, "wb") as file:
        if is_cut_anew:
            file.writelines(make_group_index(groups, length, dtype))
        else:
            new = np.diff(np.append(stream.starts, stream.count)).reshape(-1, 2)
            file.writelines(make_index(new, data.span_corruption, data.multi_task, dtype))
    return summary.complete(translator, stream.count - remainder, remainder)


def _remap_array(
    corpus: IdCorpus, target: str, rules: Rules, progress: Progress | None
) -> RemapSummary:
    if find_prefix(target) is None and not target.endswith(".npy"):
        raise ValueError(f"{target}: expected the name of a .npy file, as the input is one")
    default = np.uint16 if rules.vocabulary.size <= 1 << 16 else np.int32
    dtype = rules.choose_dtype(default)
    find_file(target, corpus.files)
    translator, summary = rules.make(corpus.name, _parts(corpus.tokens), dtype)
    if len(corpus.shape) != 1 and not translator.keeps_lengths:
        raise ValueError(
            f"{corpus.name}: rows of its {len(corpus.shape)} axes would differ in length: give "
            "--fill ID, or save it with one axis"
        )
    stream = _Stream(translator, corpus.tokens, np.zeros(0, np.int64), progress)
    with whole_file(target, corpus.files) as place:
        _write(target, place, stream, dtype, _NPY_HEADER_BYTES)
        shape = corpus.shape if translator.keeps_lengths else (stream.count,)
        with naming_errors(target, place), open(place, "r+b") as file:
            file.write(_make_npy_header(dtype, shape))
    return summary.complete(translator, stream.count)


def _write(
    name: str, place: Path, stream: _Stream, dtype: np.dtype[Any], header_bytes: int = 0
) -> None:
    with ExitStack() as stack:
        stack.enter_context(naming_errors(name, place))
        file = stack.enter_context(open(place, "wb"))
        file.write(bytes(header_bytes))
        for part in stream:
            file.write(np.ascontiguousarray(part, dtype.newbyteorder("<")).data)


def _make_npy_header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """The first bytes of a file of numpy, of a length that does not depend on the shape."""
    kind = dtype.newbyteorder("<").str
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}"
    room = _NPY_HEADER_BYTES - 10
    if len(text) >= room:
        raise ValueError(f"an array of {len(shape)} axes has too many for a file of numpy")
    return b"\x93NUMPY\x01\x00" + room.to_bytes(2, "little") + f"{text:<{room - 1}}\n".encode()
