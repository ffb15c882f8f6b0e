"""OpenBA: an encoder-decoder with a shallow encoder and a deep decoder (arXiv 2309.10706)."""

from lmcore.openba.pieces import Piece, PieceFile, PieceKind

__all__ = [
    "Piece",
    "PieceFile",
    "PieceKind",
]
