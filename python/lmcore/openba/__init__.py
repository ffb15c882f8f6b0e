"""OpenBA: an encoder-decoder with a shallow encoder and a deep decoder (arXiv 2309.10706)."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lmcore.openba.batches import DenoisedBatches
from lmcore.openba.indexed import IndexedDataset, IndexedWriter, Item, choose_dtype
from lmcore.openba.packing import PackSummary, pack_files
from lmcore.openba.pieces import Piece, PieceFile

if TYPE_CHECKING:
    from lmcore.openba.tokenization_openba import OpenBATokenizer, load_tokenizer

# What needs tokenizers or torch, by the module that holds it.
_NEEDS_EXTRA = {
    "OpenBATokenizer": "tokenization_openba",
    "load_tokenizer": "tokenization_openba",
}

__all__ = [
    "DenoisedBatches",
    "IndexedDataset",
    "IndexedWriter",
    "Item",
    "OpenBATokenizer",
    "PackSummary",
    "Piece",
    "PieceFile",
    "choose_dtype",
    "load_tokenizer",
    "pack_files",
]


def __getattr__(name: str) -> Any:
    if name in _NEEDS_EXTRA:
        return getattr(import_module(f"lmcore.openba.{_NEEDS_EXTRA[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
