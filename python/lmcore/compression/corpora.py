"""Corpora that are ids already: Megatron's token files, and arrays of numpy."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lmcore.openba.indexed import IndexedDataset


@dataclass(kw_only=True, slots=True, frozen=True)
class IdCorpus:
    """Ids of a file, memory-mapped."""

    name: str
    kind: Literal["indexed", "npy"]
    tokens: NDArray[np.integer[Any]]
    """`[tokens]`, of the file's type: a view of the file."""
    files: tuple[str, ...]
    """Those that it consists of."""
    dataset: IndexedDataset | None = None
    """The items, of a token file."""
    shape: tuple[int, ...] = ()
    """Of the array, in a file of numpy."""

    @property
    def stamp(self) -> list[Any]:
        """What changes with the files: names, sizes and times of their last change."""
        known = [(name, Path(name).stat()) for name in self.files]
        return [[name, stat.st_size, stat.st_mtime_ns] for name, stat in known]


def find_prefix(path: str | os.PathLike[str]) -> str | None:
    """Returns the prefix of a token file, if a path names one: itself, or its `.bin` or `.idx`.

    Args:
        path: a path.

    Example:
        >>> find_prefix("corpus.txt") is None
        True
    """
    name = os.fspath(path)
    for prefix in (name, name.removesuffix(".bin"), name.removesuffix(".idx")):
        if Path(f"{prefix}.idx").is_file() and (prefix != name or not Path(name).is_file()):
            return prefix
    return None


def is_ids(path: str | os.PathLike[str]) -> bool:
    """Returns whether a path names ids, and not texts.

    Args:
        path: a path.

    Example:
        >>> is_ids("a.npy"), is_ids("a.txt")
        (True, False)
    """
    return os.fspath(path).endswith((".npy", ".bin", ".idx")) or find_prefix(path) is not None


def open_ids(path: str | os.PathLike[str]) -> IdCorpus:
    """Returns the ids of a file.

    Args:
        path: the prefix of a token file, its `.bin` or `.idx`, or a `.npy` file of whole numbers.

    Raises:
        OSError: a file cannot be read.
        ValueError: it holds no ids; the text names it.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.save(Path(folder, "a.npy"), np.array([[5, 6]], np.uint16))
        ...     corpus = open_ids(Path(folder, "a.npy"))
        ...     corpus.tokens.tolist(), corpus.shape
        ([5, 6], (1, 2))
    """
    name = os.fspath(path)
    prefix = find_prefix(path)
    if prefix is None and not name.endswith(".npy"):
        prefix = name.removesuffix(".bin").removesuffix(".idx")
    if prefix is not None:
        dataset = IndexedDataset(prefix)
        return IdCorpus(
            name=f"{prefix}.bin", kind="indexed", tokens=dataset.tokens, dataset=dataset,
            files=(f"{prefix}.bin", f"{prefix}.idx"),
        )  # fmt: skip
    array = _map_array(name)
    return IdCorpus(
        name=name, kind="npy", tokens=array.reshape(-1), shape=array.shape, files=(name,)
    )


def _map_array(name: str) -> NDArray[Any]:
    if not Path(name).is_file():
        open(name, "rb").close()  # says what is wrong with it
        raise ValueError(f"{name}: expected a file, got a device or a pipe")
    try:
        array: NDArray[Any] = np.load(name, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError, SyntaxError, OverflowError, TypeError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        reason = (str(error).splitlines() or ["broken"])[0]
        raise ValueError(f"{name}: not an array of numpy: {reason:.200}") from None
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "iu":
        found = getattr(array, "dtype", type(array).__name__)
        raise ValueError(f"{name}: expected whole numbers, got {found}")
    if not array.flags.c_contiguous:
        raise ValueError(f"{name}: expected an array in C order")
    return array
