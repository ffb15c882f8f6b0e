"""Rows with a source and a target become items of a token file, as instructions are trained on.

Both are tokenized as plain texts. A target is ended with `</s>`; a source has no end, for what
stands behind it is put there when samples are made. Nothing is cut here: the numbers beside the
tokens say which lengths an encoder and a decoder need. (The authors' tool appends " summarize:"
to each source. It is not done here.)

While a run is going on, its hidden file holds blocks: the number of their pairs, the sizes of
these, and their tokens. At the end the tokens are copied out of it, so that a kill at any moment
loses nothing. Source: OpenBA (arXiv 2309.10706), stage III; specification sections 5 and 6.6.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from lmcore._files import naming_errors, whole_file
from lmcore._partial import Partial
from lmcore._rows import parse_row
from lmcore.openba.documents import RawDocument, read_documents
from lmcore.openba.indexed import make_index
from lmcore.openba.packing import PackBatch, PackEncoder, PackOutputs, PackRun

# What a sample has besides: `<S>`, `<extra_id_0>` and `</s>`; and `<extra_id_0>`.
ENCODER_EXTRA = 3
DECODER_EXTRA = 1
_COUNT = np.dtype("<i8")
_SIZE = np.dtype("<i4")
_SHARES = (50, 90, 95, 99, 100)


@dataclass(kw_only=True, slots=True, frozen=True)
class PairPackSummary:
    """What became of rows with a source and a target."""

    pairs: int
    source_tokens: int
    target_tokens: int
    """With their ends."""
    encoder_lengths: dict[str, int]
    """`p50`: half of all sources fit into an encoder of so many tokens, with what samples add."""
    decoder_lengths: dict[str, int]
    """The same for targets and a decoder."""
    empty_sources: int
    """Sources whose text has no tokens."""
    empty_targets: int
    """Targets that are nothing but their end."""
    bad_rows: int
    """Rows that could not be used."""
    listed_bad_rows: list[str]
    """Place and problem of the first 1000 of them."""
    resumed_pairs: int
    """Those that an earlier start did."""
    vocabulary_size: int
    dtype: str
    """Of the tokens: uint16 or int32."""


def pack_pairs(
    files: Sequence[str | os.PathLike[str]],
    tokenizer: Any,
    prefix: str | os.PathLike[str],
    *,
    resume: bool = True,
    skip_bad_rows: bool = False,
    progress: Callable[[int], object] | None = None,
) -> PairPackSummary:
    """Writes the pairs of rows into `PREFIX.bin` and `PREFIX.idx`, and returns what there was.

    Texts are plain: `</s>` or `<S>` in one of them is segmented as any other text. A run that
    ended early goes on, and ends with the same bytes.

    Args:
        files: JSONL with texts under `source` and `target`; other keys are passed over.
        tokenizer: `OpenBATokenizer`, or another of transformers with a backend and an end.
        prefix: the outputs' name; a third one, `PREFIX.json`, says what is in them.
        resume: go on where an earlier start ended, if one did; or start anew.
        skip_bad_rows: count and list rows that cannot be used instead of raising.
        progress: called with the bytes read so far, of all files.

    Raises:
        FileExistsError: another process packs into these files, or an earlier start did so from
            other inputs or in another way.
        OSError: a file cannot be read or written.
        TypeError: the tokenizer has no backend.
        ValueError: a row cannot be used, there are none, or an output is an input.

    Source:
        OpenBA (arXiv 2309.10706), BiFlan.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from lmcore.openba import IndexedDataset, OpenBATokenizer
        >>> from lmcore.worlds.openba import write_piece_file
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     pieces, rows = Path(folder, "spiece.model"), Path(folder, "a.jsonl")
        ...     _ = write_piece_file(pieces)
        ...     _ = rows.write_text('{"source": "Who met Otto?", "target": "Ada"}')
        ...     tokenizer = OpenBATokenizer(pieces)
        ...     summary = pack_pairs([rows], tokenizer, Path(folder, "a"))
        ...     item = IndexedDataset(Path(folder, "a"))[0]
        ...     summary.pairs, tokenizer.decode(item.target), int(item.target[-1])
        (1, 'Ada</s>', 1)
    """
    if not files:
        raise ValueError("give at least one file: got none")
    name = os.fspath(prefix)
    outputs = PackOutputs(name, files)
    encoder = _PairEncoder(tokenizer)
    recipe: dict[str, Any] = {
        "files": [os.fspath(file) for file in files], "forms": ["pairs"] * len(files),
        "tokenizer": encoder.digest, "length": None,
    }  # fmt: skip
    with Partial(f"{name}.bin", outputs.tokens) as partial:
        run = _PairRun(partial, encoder, recipe, resume)
        try:
            run.pack(read_documents(files, form="jsonl", progress=progress), skip_bad_rows)
            summary = run.finish(outputs, recipe["files"])
        except BaseException:
            run.keep()
            raise
        partial.remove()
    return summary


class _PairEncoder(PackEncoder):
    """Blocks of pairs, of texts that are sources and targets in turn."""

    def _collect(self, batch: PackBatch, found: Sequence[Any]) -> tuple[PackBatch, NDArray[Any]]:
        ends = [self.end]
        rows = [encoding.ids for encoding in found]
        rows[1::2] = [row + ends for row in rows[1::2]]
        batch.documents = len(rows) // 2
        sizes = np.fromiter(map(len, rows), _SIZE, len(rows))
        count = int(sizes.sum(dtype=np.int64))
        parts = (
            np.asarray([batch.documents], _COUNT),
            sizes,
            np.fromiter(chain.from_iterable(rows), self.dtype, count),
        )
        return batch, np.concatenate([part.view(np.uint8) for part in parts])


class _PairRun(PackRun):
    """Blocks of pairs, written to a file out of which the tokens are copied."""

    def parse(self, document: RawDocument) -> list[str]:
        row = parse_row(document.content)
        texts = []
        for key in ("source", "target"):
            text = row.get(key)
            if not isinstance(text, str):
                raise ValueError(f"expected a text under {key!r}, got {text!r:.60}")
            if not text.strip():
                raise ValueError(f"the {key} is empty")
            texts.append(text)
        return texts

    def finish(self, outputs: PackOutputs, files: list[str]) -> PairPackSummary:
        """Copies the tokens to their place, last of all outputs."""
        state, dtype = self._state, self._encoder.dtype
        if not state.rows:
            state.line = 0  # there is nothing to go on with
            raise ValueError(f"{', '.join(files):.200}: expected rows, got none that can be used")
        self._save()
        with naming_errors(self._partial.name):
            self._partial.file.seek(0)
            parts = [sizes for sizes, _ in self._blocks()]
        sizes = np.concatenate(parts).reshape(-1, 2)
        summary = self._summarize(sizes)
        numbers = asdict(summary)
        del numbers["resumed_pairs"]  # the same bytes, however often it was started
        none, items = np.zeros(0, np.int64), np.arange(len(sizes))
        outputs.describe(numbers, lambda: make_index(sizes, none, items, dtype))
        with whole_file(outputs.tokens) as place, open(place, "wb") as file:
            self._copy(file)
        return summary

    def _summarize(self, sizes: NDArray[np.int32]) -> PairPackSummary:
        state, encoder = self._state, self._encoder
        sources, targets = sizes.sum(axis=0, dtype=np.int64).tolist()
        return PairPackSummary(
            pairs=len(sizes), source_tokens=sources, target_tokens=targets,
            encoder_lengths=_measure(sizes[:, 0] + ENCODER_EXTRA),
            decoder_lengths=_measure(sizes[:, 1] + DECODER_EXTRA),
            empty_sources=int((sizes[:, 0] == 0).sum()),
            empty_targets=int((sizes[:, 1] == 1).sum()),
            bad_rows=state.bad_rows, listed_bad_rows=state.listed_bad_rows,
            resumed_pairs=self._resumed, vocabulary_size=encoder.vocabulary_size,
            dtype=encoder.dtype.name,
        )  # fmt: skip

    def _copy(self, target: IO[bytes]) -> None:
        file = self._partial.file
        with naming_errors(self._partial.name):
            file.seek(0)
            for _, size in self._blocks():
                file.seek(-size, os.SEEK_CUR)
                target.write(file.read(size))

    def _blocks(self) -> Iterator[tuple[NDArray[np.int32], int]]:
        """The sizes of each block's parts, and the bytes of its tokens, which lie before."""
        file, end = self._partial.file, self._state.output_bytes
        while file.tell() < end:
            count = int(np.frombuffer(file.read(_COUNT.itemsize), _COUNT)[0])
            sizes = np.frombuffer(file.read(2 * count * _SIZE.itemsize), _SIZE)
            size = int(sizes.sum(dtype=np.int64)) * self._encoder.dtype.itemsize
            file.seek(size, os.SEEK_CUR)
            yield sizes, size


def _measure(lengths: NDArray[np.int32]) -> dict[str, int]:
    """Lengths that the shortest so many percent do not exceed."""
    found = np.percentile(lengths, _SHARES, method="inverted_cdf").tolist()
    names = [*(f"p{share}" for share in _SHARES[:-1]), "max"]
    return dict(zip(names, map(int, found), strict=True))
