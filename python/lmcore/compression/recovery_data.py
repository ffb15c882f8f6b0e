"""Texts of recovery: packed ones, arrays, or files that are packed with the model's tokenizer."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lmcore._streams import is_standard
from lmcore.compression.digests import Digests
from lmcore.openba.indexed import IndexedDataset
from lmcore.openba.packing import PackEncoder, pack_files

Name: TypeAlias = str | os.PathLike[str]
RecoveryTexts: TypeAlias = Name | Sequence[Name] | IndexedDataset | NDArray[np.integer[Any]]
"""Prefix of a packed file, files of texts, a packed file that is open, or ids `[N, L]`."""

PACKED = "packed"
"""The folder, in that of a run, of texts that were packed for it."""


def find_texts(data: RecoveryTexts) -> tuple[list[str], Any]:
    """Returns the files of texts that data are, or none of them and what is packed already.

    Args:
        data: what is trained on.

    Returns:
        The files, and None; or no files, and the prefix of a token file or data that are open.

    Raises:
        ValueError: there are no files, or one is a pipe, which cannot be read twice.

    Example:
        >>> find_texts(["corpus"])
        ([], 'corpus')
    """
    if isinstance(data, np.ndarray | IndexedDataset):
        return [], data
    given = [data] if isinstance(data, str | os.PathLike) else data
    names = [os.fspath(name) for name in given]
    if not names:
        raise ValueError("give at least one file of texts: got none")
    if len(names) == 1 and (Path(f"{names[0]}.idx").exists() or not Path(names[0]).exists()):
        return [], names[0]
    for name in names:
        if is_standard(name) or not Path(name).is_file():
            raise ValueError(f"{name}: expected a file of texts, or the prefix of a packed one")
    return names, None


def pack_texts(files: Sequence[str], tokenizer: Any, folder: Path, *, length: int) -> str:
    r"""Returns the prefix of the packed texts of files, which are packed unless they are there.

    Their name follows from what they hold: another tokenizer, length or content has another.

    Args:
        files: lines of text, JSONL with `text`, or parquet.
        tokenizer: of transformers.
        folder: where they go.
        length: tokens of each text.

    Raises:
        FileExistsError: another process packs them at this moment.
        OSError: a file cannot be read or written.
        TypeError: the tokenizer has no backend, or no end of texts.
        ValueError: a text cannot be used, all of them have not `length` tokens, or a file has
            changed since it was packed.

    Example:
        >>> import tempfile
        >>> from lmcore.training.models import make_tokenizer
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder, "a.txt")
        ...     _ = file.write_text("Ada met Bo\n" * 9)
        ...     tokenizer = make_tokenizer(["Ada"], 300)
        ...     prefix = pack_texts([str(file)], tokenizer, Path(folder), length=8)
        ...     IndexedDataset(prefix).table.shape[1]
        8
    """
    digest = hashlib.blake2b(f"{PackEncoder(tokenizer).digest} {length}".encode(), digest_size=8)
    for name in files:
        with open(name, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
        digest.update(Path(name).suffix.encode())
    prefix = folder / digest.hexdigest()
    outputs = [Path(f"{prefix}.{end}") for end in ("bin", "idx", "json")]
    if not all(one.is_file() for one in outputs):
        folder.mkdir(parents=True, exist_ok=True)
        pack_files(files, tokenizer, prefix, length=length)
    digests = Digests(Path(f"{prefix}.digests"))
    for one in outputs:
        digests.check_or_note(one.name)
    return str(prefix)
