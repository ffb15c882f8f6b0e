"""SentencePiece files: read from protobuf's wire format, and made into a pipeline of tokenizers.

Neither sentencepiece nor protobuf is needed. The pipeline gives the ids of SentencePiece:

| step of SentencePiece | what does it here |
| --- | --- |
| map of characters (`nmt_nfkc` and its like) | a normalizer that reads the same map |
| runs of spaces, spaces at the ends, word marks | replacements behind it |
| segmentation by scores or by merges | Unigram, or BPE with its merges written out |
| bytes of unknown characters | byte fallback of either |

Words are cut apart before they are segmented, where no piece goes across a word mark: this changes
no segmentation, and lets tokenizers remember what it has seen.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lmcore._extras import optional_imports
from lmcore.openba.charsmap import CharacterMap
from lmcore.openba.protobuf import (
    BrokenMessage,
    Piece,
    PieceKind,
    as_bytes,
    as_int,
    read_fields,
    read_pieces,
    split_model,
)

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MARK = "▁"
"""Stands for a space, before a word."""
_BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))
_MODELS = {1: "unigram", 2: "bpe", 3: "word", 4: "char"}


@dataclass(kw_only=True, slots=True)
class Rules:
    """What a file says about texts, with SentencePiece's defaults."""

    model: str = "unigram"
    byte_fallback: bool = False
    suffixes: bool = False
    """Whether word marks stand behind words."""
    charsmap: bytes = b""
    """A compiled map of characters."""
    adds_mark: bool = True
    """Whether a text begins with a word mark that it does not have."""
    removes_spaces: bool = True
    """Whether runs of spaces become one, and those at the ends none."""
    escapes_spaces: bool = True
    """Whether spaces become word marks."""


class PieceFile:
    """A SentencePiece model of the kinds unigram and BPE.

    Args:
        path: the file, usually `spiece.model` or `tokenizer.model`.
        check_map: whether its map of characters is looked at, which takes most of the time; a
            tokenizer is made of files alone whose map was.

    Attributes:
        columns: texts, scores and kinds of its pieces, in the order of their ids.
        fields: the bytes of the pieces in the file.
        others: numbers and bytes of the other fields.
        rules: how texts are prepared and segmented.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no SentencePiece model, is broken, or is of another kind; the text names
            the file.

    Example:
        >>> import tempfile
        >>> from lmcore.worlds.openba import write_piece_file
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     size = write_piece_file(Path(folder, "spiece.model"))
        ...     file = PieceFile(Path(folder, "spiece.model"))
        >>> len(file.pieces) == size, file.rules.model, file.pieces[1].text
        (True, 'unigram', '</s>')
        >>> file.to_tokenizer().encode("Ada met Otto.").tokens
        ['▁Ada', '▁met', '▁Otto', '.']
    """

    def __init__(self, path: str | os.PathLike[str], *, check_map: bool = True) -> None:
        self.name = os.fspath(path)
        self.fields: list[bytes] = []
        self.others: list[tuple[int, bytes]] = []
        self.rules = Rules()
        self._map: CharacterMap | None = None
        content = Path(path).read_bytes()
        try:
            self._read(content)
            self._check(check_map)
        except BrokenMessage as error:
            raise ValueError(f"{self.name}: not a SentencePiece model: {error}") from None

    @cached_property
    def pieces(self) -> list[Piece]:
        """The pieces in the order of their ids."""
        texts, scores, kinds = self.columns
        kind_of = {int(kind): kind for kind in PieceKind}
        return [
            Piece(text, score, kind_of[kind])
            for text, score, kind in zip(texts, scores.tolist(), kinds.tolist(), strict=True)
        ]

    @property
    def unknown_id(self) -> int:
        """The id of text that no piece stands for."""
        return int(np.flatnonzero(self.columns.kinds == PieceKind.UNKNOWN)[0])

    def to_tokenizer(self) -> Tokenizer:
        """Returns a tokenizer with the ids of SentencePiece, without special tokens.

        Raises:
            ImportError: tokenizers is not installed; the message says how to install it.
        """
        with optional_imports():
            import tokenizers
        rules = self.rules
        model = self._make_unigram() if rules.model == "unigram" else self._make_bpe()
        tokenizer = tokenizers.Tokenizer(model)
        tokenizer.normalizer = tokenizers.normalizers.Sequence(list(self._normalizers()))
        steps = list(self._pre_tokenizers())
        if steps:
            tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(steps)
        tokenizer.decoder = tokenizers.decoders.Sequence(list(self._decoders()))
        # A merge never makes them, and of characters they are one.
        symbols = [p.text for p in self.pieces if p.kind == PieceKind.USER_DEFINED]
        if rules.model == "bpe" and symbols:
            tokenizer.add_tokens([tokenizers.AddedToken(s, normalized=False) for s in symbols])
        return tokenizer

    # Reading.

    def _read(self, content: bytes) -> None:
        self.fields, self.others = split_model(content)
        self.columns = read_pieces(self.fields)
        for number, field in self.others:
            value = next(read_fields(field))[1]
            if number == 2:
                self._read_trainer(as_bytes(value))
            elif number == 3:
                self._read_normalizer(as_bytes(value))

    def _read_trainer(self, content: bytes) -> None:
        for number, value, _, _ in read_fields(content):
            if number == 3:
                self.rules.model = _MODELS.get(as_int(value), f"kind {value!r}")
            elif number == 24:
                self.rules.suffixes = bool(as_int(value))
            elif number == 35:
                self.rules.byte_fallback = bool(as_int(value))

    def _read_normalizer(self, content: bytes) -> None:
        for number, value, _, _ in read_fields(content):
            if number == 2:
                self.rules.charsmap = as_bytes(value)
            elif number == 3:
                self.rules.adds_mark = bool(as_int(value))
            elif number == 4:
                self.rules.removes_spaces = bool(as_int(value))
            elif number == 5:
                self.rules.escapes_spaces = bool(as_int(value))

    def _name_twins(self) -> None:
        seen: dict[str, int] = {}
        for i, text in enumerate(self.columns.texts):
            if text in seen:
                raise BrokenMessage(f"the pieces {seen[text]} and {i} are both {text!r:.60}")
            seen[text] = i

    def _check(self, check_map: bool) -> None:
        if not self.fields:
            raise BrokenMessage("it holds no pieces")
        kinds = self.columns.kinds
        if len(set(self.columns.texts)) < len(kinds):
            self._name_twins()
        unknown = int((kinds == PieceKind.UNKNOWN).sum())
        if unknown != 1:
            raise BrokenMessage(f"expected one piece for unknown text, got {unknown}")
        texts = {self.columns.texts[i] for i in np.flatnonzero(kinds == PieceKind.BYTE)}
        if texts != (set(_BYTES) if self.rules.byte_fallback else set()):
            fallback = "with" if self.rules.byte_fallback else "without"
            raise BrokenMessage(f"{len(texts)} pieces of bytes in a model {fallback} byte fallback")
        if self.rules.model not in ("unigram", "bpe"):
            raise ValueError(
                f"{self.name}: expected a model of the kinds unigram or bpe, got {self.rules.model}"
            )
        if self.rules.suffixes:
            raise ValueError(f"{self.name}: its word marks stand behind words, expected before")
        if self.rules.model == "bpe" and PieceKind.UNUSED in kinds:
            raise ValueError(f"{self.name}: a BPE model with unused pieces cannot be read")
        if self.rules.charsmap and check_map:
            try:
                self._map = CharacterMap(self.rules.charsmap)
            except ValueError as error:
                raise BrokenMessage(str(error)) from None

    # The parts of the pipeline.

    def _normalizers(self) -> Iterator[Any]:
        from tokenizers import Regex, normalizers

        rules = self.rules
        mark = MARK if rules.escapes_spaces else " "
        if self._map is not None:
            # Of a letter with several marks, the reader of the map keeps the first mark alone.
            if self._map.composes:
                yield normalizers.NFC()
            yield normalizers.Precompiled(rules.charsmap)
        if rules.removes_spaces:
            yield normalizers.Replace(Regex(" {2,}"), " ")
            yield normalizers.Replace(Regex(r"\A "), "")
        if rules.adds_mark:
            yield normalizers.Prepend(mark)
        if rules.escapes_spaces:
            yield normalizers.Replace(" ", MARK)
        if rules.removes_spaces:
            # Marks that stand in the text itself go, too. What looks behind and keeps what it has
            # takes time in proportion to the text, however long a run of marks is.
            yield normalizers.Replace(Regex(f"(?<!{mark}){mark}++\\z"), "")

    def _pre_tokenizers(self) -> Iterator[Any]:
        from tokenizers import Regex, pre_tokenizers

        across = re.compile(f"[^{MARK}]{MARK}")
        normal = {p.text for p in self.pieces if p.kind == PieceKind.NORMAL}
        texts = (
            p.text for p in self.pieces if p.kind in (PieceKind.NORMAL, PieceKind.USER_DEFINED)
        )
        if MARK in normal and self.rules.escapes_spaces and not any(map(across.search, texts)):
            yield pre_tokenizers.Split(Regex(f"{MARK}+"), "merged_with_next")
        if self.rules.model == "unigram":
            # Pieces that stand for no text would be found where a text spells them out.
            hidden = (PieceKind.CONTROL, PieceKind.UNKNOWN, PieceKind.UNUSED, PieceKind.BYTE)
            cuts: dict[str, list[str]] = {}
            for piece in self.pieces:
                if piece.kind in hidden and len(piece.text) > 1:
                    cuts.setdefault(piece.text[0], []).append(piece.text[1:])
            for first, rests in cuts.items():
                pattern = f"{re.escape(first)}(?={'|'.join(map(re.escape, _shorten(rests)))})"
                yield pre_tokenizers.Split(Regex(pattern), "merged_with_previous")

    def _decoders(self) -> Iterator[Any]:
        from tokenizers import decoders

        if self.rules.escapes_spaces:
            yield decoders.Replace(MARK, " ")
        if self.rules.byte_fallback:
            yield decoders.ByteFallback()
        yield decoders.Fuse()
        if self.rules.adds_mark:
            yield decoders.Strip(" ", 1, 0)

    def _make_unigram(self) -> Any:
        from tokenizers import models

        normal = [p.score for p in self.pieces if p.kind == PieceKind.NORMAL]
        least, most = min(normal, default=0.0), max(normal, default=0.0)
        scores = []
        for text, score, kind in self.pieces:
            if kind == PieceKind.USER_DEFINED:
                score = len(text.encode()) * most - 0.1
            elif kind != PieceKind.NORMAL:
                score = least  # the least of all makes the score of unknown characters
            scores.append((text, score))
        return models.Unigram(scores, self.unknown_id, self.rules.byte_fallback)

    def _make_bpe(self) -> Any:
        from tokenizers import models

        ids = {piece.text: i for i, piece in enumerate(self.pieces)}
        parts = {piece.text for piece in self.pieces if piece.kind == PieceKind.NORMAL}
        merges = []
        for text, score, kind in self.pieces:
            if kind != PieceKind.NORMAL:
                continue
            for cut in range(1, len(text)):
                left, right = text[:cut], text[cut:]
                if left in parts and right in parts:
                    merges.append((-score, ids[left], ids[right], (left, right)))
        merges.sort()
        return models.BPE(
            ids,
            [pair for *_, pair in merges],
            unk_token=self.pieces[self.unknown_id].text,
            fuse_unk=True,
            byte_fallback=self.rules.byte_fallback,
        )


def _shorten(rests: list[str]) -> list[str]:
    """Texts without those that begin with another of them."""
    kept: list[str] = []
    for rest in sorted(rests):
        if not kept or not rest.startswith(kept[-1]):
            kept.append(rest)
    return kept
