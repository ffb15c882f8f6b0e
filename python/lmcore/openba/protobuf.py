"""Protobuf's wire format, as far as SentencePiece files need it, and the list of their pieces.

A message is a row of fields, each with a number and a value: a whole number, four or eight bytes,
or bytes with their length, which may be a text or a message. A model has its pieces in field 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# Wire types: a number, eight bytes, bytes with their length, four bytes.
_VARINT, _EIGHT, _BYTES_FIELD, _FOUR = 0, 1, 2, 5
# Keys of fields: a piece of a model; text and score of a piece.
_PIECE, _TEXT, _SCORE = 0x0A, 0x0A, 0x15


class PieceKind(IntEnum):
    """What a piece is for, by SentencePiece's numbers."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


_KINDS = frozenset(PieceKind)


class Piece(NamedTuple):
    """A piece of text."""

    text: str
    score: float
    """Of the Unigram model a log probability, of BPE the negative rank of its merge."""
    kind: PieceKind = PieceKind.NORMAL


class BrokenMessage(ValueError):  # noqa: N818
    """What is wrong with a message, without the name of its file."""


def read_fields(content: bytes, place: int = 0) -> Iterator[tuple[int, int | bytes, int, int]]:
    r"""Yields number and value of each field of a message, and where it begins and ends.

    Args:
        content: the message.
        place: where to begin.

    Raises:
        BrokenMessage: it is none.

    Example:
        >>> list(read_fields(b"\x0a\x02hi\x18\x05"))
        [(1, b'hi', 0, 4), (3, 5, 4, 6)]
    """
    while place < len(content):
        start = place
        key, place = _read_varint(content, place)
        number, kind = key >> 3, key & 7
        if not number:
            raise BrokenMessage("a field with the number 0")
        if kind == _VARINT:
            value, place = _read_varint(content, place)
            yield number, value, start, place
            continue
        if kind == _BYTES_FIELD:
            size, place = _read_varint(content, place)
        elif kind in (_FOUR, _EIGHT):
            size = 4 if kind == _FOUR else 8
        else:
            raise BrokenMessage(f"a field of the kind {kind}")
        end = place + size
        if end > len(content):
            raise BrokenMessage(f"a field of {size} bytes where {len(content) - place} are left")
        yield number, content[place:end], start, end
        place = end


def split_model(content: bytes) -> tuple[list[bytes], list[tuple[int, bytes]]]:
    r"""Returns the fields of a model's pieces, and its other fields with their numbers.

    Args:
        content: the model.

    Raises:
        BrokenMessage: it is none.

    Example:
        >>> split_model(b"\x0a\x03\x0a\x01a\x12\x00")
        ([b'\n\x03\n\x01a'], [(2, b'\x12\x00')])
    """
    pieces: list[bytes] = []
    others: list[tuple[int, bytes]] = []
    place, end = 0, len(content)
    while place < end:
        # A piece of less than 128 bytes, as nearly all are: a key and a size of one byte each.
        if content[place] == _PIECE and place + 1 < end and content[place + 1] < 0x80:
            stop = place + 2 + content[place + 1]
            if stop <= end:
                pieces.append(content[place:stop])
                place = stop
                continue
        number, value, start, stop = next(read_fields(content, place))
        field = content[start:stop]
        if number == 1:
            as_bytes(value)
            pieces.append(field)
        else:
            others.append((number, field))
        place = stop
    return pieces, others


class Columns(NamedTuple):
    """Pieces of a model by what they have."""

    texts: list[str]
    scores: NDArray[np.float32]
    kinds: NDArray[np.uint8]


def read_pieces(fields: Sequence[bytes]) -> Columns:
    r"""Returns texts, scores and kinds of the pieces of a model.

    Args:
        fields: of the pieces, in the order of their ids.

    Raises:
        BrokenMessage: one is no piece, or lacks its text.

    Example:
        >>> read_pieces([b"\n\x08\n\x01a\x15\x00\x00\x80\xbf"])
        Columns(texts=['a'], scores=array([-1.], dtype=float32), kinds=array([1], dtype=uint8))
    """
    texts: list[str] = []
    scores: list[bytes] = []
    others: list[tuple[int, PieceKind]] = []
    add, add_score = texts.append, scores.append
    for index, field in enumerate(fields):
        # A text and a score and nothing else, with keys and sizes of one byte each: files have
        # hundreds of thousands of these.
        end = field[3] + 4 if 9 < len(field) < 0x82 else 0
        if len(field) == end + 5 and field[2] == _TEXT and field[end] == _SCORE:
            try:
                add(field[4:end].decode())
                add_score(field[-4:])
                continue
            except UnicodeDecodeError:
                pass
        text, score, kind = _read_piece(as_bytes(next(read_fields(field))[1]), index)
        add(text)
        add_score(score)
        if kind is not PieceKind.NORMAL:
            others.append((index, kind))
    numbers = np.frombuffer(b"".join(scores), "<f4")
    if not np.isfinite(numbers).all():
        index = int(np.flatnonzero(~np.isfinite(numbers))[0])
        raise BrokenMessage(f"the score of piece {index} is {numbers[index]}")
    kinds = np.full(len(texts), PieceKind.NORMAL, np.uint8)
    for index, kind in others:
        kinds[index] = kind
    return Columns(texts, numbers, kinds)


def write_field(number: int, value: int | bytes) -> bytes:
    r"""Returns a field with a whole number, or with bytes and their length.

    Args:
        number: of the field, from 1.
        value: not negative, if a number.

    Example:
        >>> write_field(4, 300), write_field(1, b"hi")
        (b' \xac\x02', b'\n\x02hi')
    """
    if isinstance(value, int):
        return _write_varint(number << 3 | _VARINT) + _write_varint(value)
    return _write_varint(number << 3 | _BYTES_FIELD) + _write_varint(len(value)) + value


def as_bytes(value: int | bytes) -> bytes:
    """Returns the value of a field that holds bytes.

    Args:
        value: of a field.

    Raises:
        BrokenMessage: it is a number.

    Example:
        >>> as_bytes(b"hi")
        b'hi'
    """
    if not isinstance(value, bytes):
        raise BrokenMessage("a number where a text or a part is expected")
    return value


def as_int(value: int | bytes) -> int:
    """Returns the value of a field that holds a number.

    Args:
        value: of a field.

    Raises:
        BrokenMessage: it is bytes.

    Example:
        >>> as_int(3)
        3
    """
    if not isinstance(value, int):
        raise BrokenMessage("a text or a part where a number is expected")
    return value


def _read_varint(content: bytes, place: int) -> tuple[int, int]:
    """A whole number, seven bits a byte, and the place behind it."""
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(content):
            raise BrokenMessage("it ends within a number")
        byte = content[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value % (1 << 64), place
    raise BrokenMessage("a number of more than ten bytes")


def _write_varint(value: int) -> bytes:
    digits = bytearray()
    while value > 0x7F:
        digits.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*digits, value])


def _read_piece(content: bytes, index: int) -> tuple[str, bytes, PieceKind]:
    text, score, kind = "", b"\0\0\0\0", PieceKind.NORMAL
    for number, value, _, _ in read_fields(content):
        if number == 1:
            try:
                text = as_bytes(value).decode()
            except UnicodeDecodeError:
                raise BrokenMessage(f"piece {index} is not UTF-8") from None
        elif number == 2:
            score = as_bytes(value)
            if len(score) != 4:
                raise BrokenMessage(f"the score of piece {index} has {len(score)} bytes, not 4")
        elif number == 3:
            if value not in _KINDS:
                raise BrokenMessage(f"piece {index} is of the unknown type {value!r:.60}")
            kind = PieceKind(as_int(value))
    if not text:
        raise BrokenMessage(f"piece {index} has no text")
    return text, score, kind
