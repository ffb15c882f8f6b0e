"""A SentencePiece file that is made without one: words of the generated corpus, letters, bytes.

Its layout is that of mT5's file: `<pad>`, `</s>`, `<unk>`, the 256 bytes, then pieces of text.
"""

from __future__ import annotations

import itertools
import os
import re
import string
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

from lmcore.worlds.openba.documents import LANGUAGES

_NORMAL, _UNKNOWN, _CONTROL, _BYTE = 1, 2, 3, 6
_MARK = "▁"
# A word costs less than any of its parts, so that each word of the corpus is one token.
_WORD_SCORE, _LETTER_SCORE, _FILLER_SCORE = -8.0, -24.0, -32.0


def write_piece_file(
    path: str | os.PathLike[str],
    *,
    size: int | None = None,
    texts: Iterable[str] = (),
    pieces: Iterable[str] = (),
) -> int:
    """Writes a SentencePiece unigram model with byte fallback, and returns its number of pieces.

    Every word of `generate_documents` is a piece; other text falls back on letters and bytes.

    Args:
        path: the file.
        size: number of pieces; made-up words are added up to it. Without it there are none.
        texts: other texts whose words are pieces too; of scripts without spaces the characters.
        pieces: more of them, as they are: what stands within words, such as labels.

    Raises:
        OSError: the file cannot be written.
        ValueError: the size is less than the corpus needs.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_piece_file(Path(folder, "spiece.model"), size=2000)
        2000
    """
    listed = list_pieces(size, texts, pieces)
    content = b"".join(_field(1, _encode_piece(*piece)) for piece in listed)
    # Unigram; the vocabulary's size; byte fallback; <unk>, no start, </s>, <pad>, with their texts.
    trainer = _number(3, 1) + _number(4, len(listed)) + _number(35, 1)
    trainer += _number(40, 2) + _number(41, -1) + _number(42, 1) + _number(43, 0)
    trainer += _field(45, b"<unk>") + _field(47, b"</s>") + _field(48, b"<pad>")
    # No characters are changed; a word mark before a text; runs of spaces are one.
    normalizer = _field(1, b"identity") + _number(3, 1) + _number(4, 1) + _number(5, 1)
    Path(path).write_bytes(content + _field(2, trainer) + _field(3, normalizer))
    return len(listed)


def list_pieces(
    size: int | None = None, texts: Iterable[str] = (), more: Iterable[str] = ()
) -> list[tuple[str, float, int]]:
    """Returns the pieces of `write_piece_file`: text, score and SentencePiece's type of each.

    Args:
        size: number of pieces; None for as few as the corpus needs.
        texts: other texts, as for `write_piece_file`.
        more: its `pieces`.

    Raises:
        ValueError: the size is less than that.

    Example:
        >>> list_pieces()[:3]
        [('<pad>', 0.0, 3), ('</s>', 0.0, 3), ('<unk>', 0.0, 2)]
    """
    pieces = [("<pad>", 0.0, _CONTROL), ("</s>", 0.0, _CONTROL), ("<unk>", 0.0, _UNKNOWN)]
    pieces += [(f"<0x{byte:02X}>", 0.0, _BYTE) for byte in range(256)]
    words = {_MARK: _WORD_SCORE, ".": _WORD_SCORE, ",": _WORD_SCORE}
    for language in LANGUAGES.values():
        mark = _MARK if language.separator else ""
        for word in language.words():
            words.setdefault(word if word in ".。，" else mark + word, _WORD_SCORE)
    letters = [*string.ascii_letters, *string.digits, *string.punctuation]
    letters += sorted({letter for word in LANGUAGES["zh"].words() for letter in word})
    for part in (part for text in texts for part in re.findall(r"[A-Za-z]+|\S", text)):
        if part.isascii() and part.isalpha():
            words.setdefault(_MARK + part, _WORD_SCORE)
        else:
            letters.append(part)
    for piece in more:
        words.setdefault(piece, _WORD_SCORE)
    for letter in letters:
        words.setdefault(letter, _LETTER_SCORE)
    least = len(pieces) + len(words)
    if size is not None and size < least:
        raise ValueError(f"size must be at least {least}, which the corpus needs: got {size}")
    for word in _make_words():
        if size is None or len(pieces) + len(words) >= size:
            break
        words.setdefault(_MARK + word, _FILLER_SCORE)
    return [*pieces, *((text, score, _NORMAL) for text, score in words.items())]


def _make_words() -> Iterator[str]:
    """Words of two and more syllables, none twice."""
    syllables = ["".join(pair) for pair in itertools.product("bdfgklmnprstvz", "aeiou")]
    for length in itertools.count(2):
        yield from map("".join, itertools.product(syllables, repeat=length))


def _encode_piece(text: str, score: float, kind: int) -> bytes:
    content = _field(1, text.encode()) + b"\x15" + struct.pack("<f", score)
    return content if kind == _NORMAL else content + _number(3, kind)


def _field(number: int, content: bytes) -> bytes:
    """A field of bytes in protobuf's wire format."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _number(number: int, value: int) -> bytes:
    """A field of a whole number; negative ones are those of 64 bits."""
    return _varint(number << 3) + _varint(value % (1 << 64))


def _varint(value: int) -> bytes:
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)
