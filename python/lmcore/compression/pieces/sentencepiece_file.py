"""SentencePiece models with fewer pieces.

The messages of the pieces that stay are copied as they are, in their order; but for the number of
pieces that the trainer noted, everything else in the file stays too. Source: OpenBA-V2
(arXiv 2405.05957), vocabulary pruning; specification section 5, step 2.
"""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray

from lmcore._files import whole_file
from lmcore.compression.pieces.merging import ScoredMerges
from lmcore.compression.pieces.table import PieceTable
from lmcore.openba.pieces import PieceFile
from lmcore.openba.protobuf import (
    BrokenMessage,
    Columns,
    PieceKind,
    as_bytes,
    read_fields,
    write_field,
)

# Fields: what a model says about its training, and there the number of pieces.
_TRAINER, _VOCABULARY_SIZE = 2, 4


def read_piece_file(path: str | os.PathLike[str]) -> PieceFile:
    """Returns a SentencePiece model of the kinds unigram and BPE, its map of characters unread.

    Args:
        path: the file.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no such model; the text names the file.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from lmcore.worlds.openba import write_piece_file
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     size = write_piece_file(Path(folder, "spiece.model"))
        ...     len(read_piece_file(Path(folder, "spiece.model")).pieces) == size
        True
    """
    return PieceFile(path, check_map=False)


def make_piece_table(file: PieceFile) -> PieceTable:
    """Returns the pieces of a SentencePiece model; their ids are their places in the file.

    Args:
        file: the model.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from lmcore.worlds.openba import write_piece_file
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = write_piece_file(Path(folder, "spiece.model"))
        ...     table = make_piece_table(read_piece_file(Path(folder, "spiece.model")))
        >>> table.algorithm, table.texts[:3], table.kinds[:4].tolist()
        ('unigram', ['<pad>', '</s>', '<unk>'], [3, 3, 2, 6])
    """
    texts, scores, kinds = file.columns
    is_unigram = file.rules.model == "unigram"
    # What is not normal has no score of its own.
    own = np.where(kinds == PieceKind.NORMAL, scores, np.nan).astype(np.float64)
    return PieceTable(
        algorithm=file.rules.model,
        ids=np.arange(len(texts), dtype=np.int64),
        texts=texts,
        kinds=kinds,
        scores=own if is_unigram else None,
        merges=None if is_unigram else make_merges(file.columns),
    )


def make_merges(columns: Columns) -> ScoredMerges:
    """Returns the merges of a BPE model.

    Args:
        columns: texts, scores and kinds of the model's pieces.

    Example:
        >>> columns = Columns(["a", "ab"], np.float32([0, -1]), np.uint8([1, 1]))
        >>> make_merges(columns).find_rank("a", "b")
        (1.0, 'ab')
    """
    texts, scores, kinds = columns
    normal = np.flatnonzero(kinds == PieceKind.NORMAL).tolist()
    symbols = [texts[place] for place in np.flatnonzero(kinds == PieceKind.USER_DEFINED)]
    return ScoredMerges({texts[place]: float(scores[place]) for place in normal}, symbols)


def write_pruned_pieces(
    file: PieceFile, path: str | os.PathLike[str], keep: NDArray[np.int64]
) -> None:
    """Writes a SentencePiece model with some of its pieces, in their order.

    Args:
        file: the model.
        path: where to write.
        keep: `[kept]` places of the pieces that stay, rising; among them all that are not normal,
            and what each kept piece of BPE is built from.

    Raises:
        IndexError: there is no such piece.
        OSError: the file cannot be written.
        ValueError: they do not rise, or lack a piece that is not normal.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from lmcore.worlds.openba import write_piece_file
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     place = Path(folder, "spiece.model")
        ...     _ = write_piece_file(place)
        ...     write_pruned_pieces(read_piece_file(place), place, np.arange(300))
        ...     len(PieceFile(place).pieces)
        300
    """
    size = len(file.fields)
    if keep.size and (keep.min() < 0 or keep.max() >= size):
        raise IndexError(
            f"{file.name}: expected pieces from 0 to {size - 1}, got {keep.min()} to {keep.max()}"
        )
    if (keep[1:] <= keep[:-1]).any():
        raise ValueError(f"{file.name}: the kept pieces must rise")
    lost = file.columns.kinds != PieceKind.NORMAL
    lost[keep] = False
    if lost.any():
        place = int(lost.argmax())
        kind = PieceKind(int(file.columns.kinds[place])).name.lower()
        text = file.columns.texts[place]
        raise ValueError(f"{file.name}: piece {place}, {text!r:.60}, is {kind} and must stay")
    parts = [file.fields[place] for place in keep.tolist()]
    for number, field in file.others:
        parts.append(_set_size(file.name, field, len(keep)) if number == _TRAINER else field)
    with whole_file(path) as target:
        target.write_bytes(b"".join(parts))


def _set_size(name: str, field: bytes, size: int) -> bytes:
    """The field of the trainer with another number of pieces, if it has one."""
    try:
        message = as_bytes(next(read_fields(field))[1])
        parts = [
            write_field(_VOCABULARY_SIZE, size)
            if number == _VOCABULARY_SIZE
            else message[start:end]
            for number, _, start, end in read_fields(message)
        ]
    except BrokenMessage as error:  # the file was read before
        raise ValueError(f"{name}: not a SentencePiece model: {error}") from None
    return write_field(_TRAINER, b"".join(parts))
