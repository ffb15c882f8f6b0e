"""Tokenizers of folders, as what cuts plain texts into ids.

A folder's `tokenizer.json` is read by the library tokenizers, a SentencePiece file by
`lmcore.openba.pieces`: neither torch nor transformers is needed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmcore._extras import optional_imports
from lmcore._text import find_reason
from lmcore.openba.pieces import PieceFile
from lmcore.openba.protobuf import PieceKind

JSON_FILE = "tokenizer.json"
TEXT_KINDS = (PieceKind.NORMAL, PieceKind.USER_DEFINED)
PIECE_FILES = ("spiece.model", "tokenizer.model")
# A file of a tokenizer is read at once.
_MOST_BYTES = 1 << 30
_BYTE = re.compile("<0x[0-9A-F]{2}>")
# Ids without a token that a vocabulary may have.
_MOST_GAPS = 1 << 20


@dataclass(kw_only=True, slots=True, frozen=True)
class Backend:
    """What cuts plain texts into ids."""

    tokenizer: Any
    """Of the library tokenizers."""
    vocabulary_size: int
    """One more than its largest id."""
    digest: str
    """SHA-256 of its file."""
    hidden: frozenset[int]
    """Ids that stand for no text of their own: special, added and unknown tokens, and bytes."""
    unknown: int | None
    """The id of text that no token stands for."""


def find_tokenizer_file(path: str | os.PathLike[str]) -> Path:
    """Returns the file that says what a tokenizer does.

    Args:
        path: the file itself, or a folder with `tokenizer.json`, `spiece.model` or
            `tokenizer.model`, of which the first is taken.

    Raises:
        FileNotFoundError: there is no such file.

    Example:
        >>> find_tokenizer_file("nowhere")
        Traceback (most recent call last):
        FileNotFoundError: nowhere: no such file, and no folder of a tokenizer
    """
    folder = Path(path)
    if folder.is_file():
        return folder
    if not folder.is_dir():
        raise FileNotFoundError(f"{os.fspath(path)}: no such file, and no folder of a tokenizer")
    names = (JSON_FILE, *PIECE_FILES)
    found = next((folder / name for name in names if (folder / name).is_file()), None)
    if found is None:
        raise FileNotFoundError(
            f"{os.fspath(path)}: not a folder of a tokenizer: expected {', '.join(names)}"
        )
    return found


def hash_tokenizer(path: str | os.PathLike[str]) -> str:
    """Returns what tells a tokenizer from others: SHA-256 of its file.

    Args:
        path: as for `find_tokenizer_file`.

    Raises:
        OSError: there is no file, or it cannot be read.
        ValueError: it is no tokenizer's: it is too large.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile() as file:
        ...     hash_tokenizer(file.name)[:8]
        'e3b0c442'
    """
    return hashlib.sha256(_read(find_tokenizer_file(path))).hexdigest()


def load_backend(path: str | os.PathLike[str]) -> Backend:
    """Returns what cuts plain texts into the ids of a tokenizer, without special tokens.

    Args:
        path: as for `find_tokenizer_file`; a file named `.json` is one of the library tokenizers,
            another one of SentencePiece.

    Raises:
        ImportError: tokenizers is not installed.
        OSError: there is no file, or it cannot be read.
        ValueError: it is no tokenizer, or one that cannot be read; the text names it.

    Example:
        >>> import tempfile
        >>> from lmcore.worlds.openba import write_piece_file
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = write_piece_file(Path(folder, "spiece.model"))
        ...     backend = load_backend(folder)
        >>> backend.tokenizer.encode("Ada met Otto.").tokens
        ['▁Ada', '▁met', '▁Otto', '.']
    """
    with optional_imports():
        from tokenizers import Tokenizer

    file = find_tokenizer_file(path)
    content = _read(file)
    if file.suffix == ".json":
        try:
            tokenizer = Tokenizer.from_str(content.decode())
        except MemoryError:
            raise
        except Exception as error:  # the library raises plain exceptions
            raise ValueError(f"{file}: not a tokenizer: {find_reason(error)}") from None
    else:
        pieces = PieceFile(file)
        tokenizer = pieces.to_tokenizer()
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    if not vocabulary:
        raise ValueError(f"{file}: not a tokenizer: it has no tokens")
    last = max(vocabulary.values())
    # Counts take memory for every id up to the last.
    if last > 2 * len(vocabulary) + _MOST_GAPS:
        raise ValueError(f"{file}: its {len(vocabulary)} tokens have ids up to {last}")
    unknown = _find_unknown(tokenizer)
    hidden = {token for text, token in vocabulary.items() if _BYTE.fullmatch(text)}
    hidden |= set(tokenizer.get_added_tokens_decoder())
    hidden |= set() if unknown is None else {unknown}
    if file.suffix != ".json":
        hidden |= {i for i, piece in enumerate(pieces.pieces) if piece.kind not in TEXT_KINDS}
    return Backend(
        tokenizer=tokenizer, vocabulary_size=last + 1, hidden=frozenset(hidden), unknown=unknown,
        digest=hashlib.sha256(content).hexdigest(),
    )  # fmt: skip


def _find_unknown(tokenizer: Any) -> int | None:
    """The id of text that no token stands for: the library tells it of some models alone."""
    model = json.loads(tokenizer.to_str())["model"]
    if model.get("unk_id") is not None:
        return int(model["unk_id"])
    name = model.get("unk_token")
    found: int | None = None if name is None else tokenizer.token_to_id(name)
    return found


def _read(file: Path) -> bytes:
    size = file.stat().st_size
    if size > _MOST_BYTES:
        raise ValueError(f"{file}: not a tokenizer: it has {size} bytes")
    return file.read_bytes()
