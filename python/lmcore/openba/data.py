"""What a run reads: texts or pairs of one source or of a mixture, and those it validates with."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lmcore.openba.indexed import IndexedDataset
from lmcore.openba.mixture import Mixture
from lmcore.openba.pairs import PairData, Pairs, hash_pairs, read_pairs
from lmcore.openba.texts import hash_texts, read_texts
from lmcore.training.folder import DataRecord

Data: TypeAlias = str | os.PathLike[str] | IndexedDataset | NDArray[np.integer[Any]] | Pairs
"""Prefix of a token file, one that is open, texts `[N, L]` of ids, or pairs of ids."""
Items: TypeAlias = NDArray[np.integer[Any]] | PairData
"""Texts `[N, L]`, or pairs."""


class DataConfig(Protocol):
    """The settings that tell how items are read."""

    @property
    def pairs(self) -> bool:
        """Whether items are pairs."""

    @property
    def text_length(self) -> int:
        """Tokens of each text."""

    @property
    def validation_texts(self) -> int:
        """Of the validation texts the first so many are taken."""


@dataclass(kw_only=True, slots=True, frozen=True)
class Source:
    """Texts or pairs, and where they came from."""

    items: Items
    """Texts `[N, L]`, or pairs."""
    path: str | None
    """Prefix of the token file; None if they came from no file."""

    @property
    def are_pairs(self) -> bool:
        """Whether items have a source and a target."""
        return not isinstance(self.items, np.ndarray)

    @property
    def token_count(self) -> int:
        """Tokens of all items."""
        return int(
            self.items.size if isinstance(self.items, np.ndarray) else self.items.tokens.size
        )

    def hash(self, vocabulary_size: int) -> bytes:
        """Returns what tells the items from others, once their ids are looked at.

        Args:
            vocabulary_size: ids must be below it.

        Raises:
            IndexError: an id outside of the vocabulary.
        """
        if isinstance(self.items, np.ndarray):
            name = f"{self.path}.bin" if self.path else "texts"
            return hash_texts(self.items, vocabulary_size, name)
        name = f"{self.path}.bin" if self.path else "pairs"
        return hash_pairs(self.items, vocabulary_size, name)


class TrainData:
    """The items of a run.

    Args:
        config: says how long texts are, whether items are pairs, and how many to validate with.
        data: items of the kind that the settings say, or a mixture of items of any kind.
        valid: items to validate with, of any kind where data are a mixture.

    Attributes:
        sources: one, or those of the mixture.
        mixture: None where there is one source.
        valid: None without them.

    Raises:
        OSError: a file cannot be read.
        TypeError: ids are no whole numbers.
        ValueError: items are of another kind or length, or there are none; the text names the
            file.

    Example:
        >>> from lmcore.openba.recipes import tiny
        >>> len(TrainData(tiny(), np.full((2, 126), 5)).sources)
        1
    """

    def __init__(self, config: DataConfig, data: Data | Mixture, valid: Data | None = None) -> None:
        self.mixture: Mixture | None = None
        pairs: bool | None = config.pairs
        given: list[Any] = [data]
        if isinstance(data, Mixture):
            self.mixture, pairs = data, None
            given = [source.data for source in data.sources]
        self.sources = [_read(each, config.text_length, pairs) for each in given]
        self.valid = None if valid is None else _read(valid, config.text_length, pairs)
        if self.valid is not None and isinstance(self.valid.items, np.ndarray):
            texts = self.valid.items[: config.validation_texts]
            self.valid = Source(items=texts, path=self.valid.path)

    @property
    def files(self) -> list[str]:
        """Those that are read."""
        prefixes = [source.path for source in (*self.sources, self.valid) if source is not None]
        files = [f"{prefix}.{end}" for prefix in prefixes if prefix for end in ("bin", "idx")]
        mixture = self.mixture.path if self.mixture else None
        return files if mixture is None else [*files, mixture]

    def hash(self, vocabulary_size: int) -> bytes:
        """Returns what tells all items, and how they are mixed, from others.

        Args:
            vocabulary_size: ids must be below it.

        Raises:
            IndexError: an id outside of the vocabulary.
        """
        digest = hashlib.blake2b(digest_size=16)
        for place, source in enumerate(self.sources):
            if self.mixture is not None:
                own = self.mixture.sources[place]
                digest.update(f"{own.name} {own.weight!r}\n".encode())
            digest.update(source.hash(vocabulary_size))
        if self.valid is not None:
            digest.update(self.valid.hash(vocabulary_size))
        return digest.digest()

    def record(self, tokenizer: str | None, cut: tuple[int, int], fingerprint: str) -> DataRecord:
        """Returns what `recipe.json` says of the items.

        Args:
            tokenizer: where theirs lies.
            cut: sources and targets that are longer than there is room for.
            fingerprint: of the run.
        """
        valid = self.valid
        options: dict[str, Any] = {"valid": valid.path if valid else None, "tokenizer": tokenizer}
        if self.mixture is not None:
            named = list(zip(self.mixture.sources, self.sources, strict=True))
            options["mixture"] = _name(self.mixture.path)
            options["weights"] = {own.name: own.weight for own, _ in named}
            options["sources"] = {own.name: source.path for own, source in named}
        sizes = dict.fromkeys(("texts", "tokens", "valid_texts"), 0)
        for source in self.sources:
            kind = "pairs" if source.are_pairs else "texts"
            sizes[kind] = sizes.get(kind, 0) + len(source.items)
            sizes["tokens"] += source.token_count
        if valid is not None:
            sizes["valid_pairs" if valid.are_pairs else "valid_texts"] = len(valid.items)
        if "pairs" in sizes:
            sizes |= {"cut_sources": cut[0], "cut_targets": cut[1]}
        path = None if self.mixture else self.sources[0].path
        return DataRecord(path=path, options=options, sizes=sizes, fingerprint=fingerprint)


def _read(data: Data, text_length: int, pairs: bool | None) -> Source:
    """Items of a kind; None: of that which the first item is."""
    if not isinstance(data, np.ndarray | Pairs | IndexedDataset):
        data = IndexedDataset(data)
    if pairs is None:
        pairs = isinstance(data, Pairs)
        if isinstance(data, IndexedDataset):
            pairs = bool(len(data)) and bool(data.sizes[0, 1])
    path = _name(data.prefix) if isinstance(data, IndexedDataset) else None
    if not pairs:
        if isinstance(data, Pairs):
            raise ValueError("expected texts alone, got pairs: the setting pairs must be true")
        return Source(items=read_texts(data, text_length), path=path)
    if isinstance(data, np.ndarray):
        raise ValueError("expected pairs, got texts: the setting pairs must be false")
    return Source(items=read_pairs(data), path=path)


def _name(path: str | os.PathLike[str] | None) -> str | None:
    return None if path is None else os.path.abspath(path)  # noqa: PTH100
